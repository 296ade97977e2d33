//! Documents → objects: lists flattened, with `kind` and `apiVersion` known, and each field's place.

use std::{fmt::Display, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;
use signet_policy::Origin;

use crate::{
    document::{Document, Lines},
    error::{Place, Problem, Site},
};

/// One Kubernetes object, wherever it was written.
#[derive(Debug)]
pub(crate) struct Object {
    /// The group of its apiVersion, empty for the core group.
    pub(crate) group: String,
    /// The version of its apiVersion.
    pub(crate) version: String,
    /// Its kind.
    pub(crate) kind: String,
    value: Value,
    source: Source,
}

/// Where an object is, and so where its fields are.
#[derive(Debug)]
struct Source {
    file: Arc<str>,
    document: u32,
    /// The path of the object in its document: empty, or `items[3].`.
    prefix: String,
    lines: Lines,
}

/// The kind and apiVersion that the items of a typed list need not repeat.
#[derive(Debug, Clone)]
struct Inherited {
    kind: String,
    api_version: String,
}

impl Object {
    /// The objects of a document; what is not an object goes to `problems`.
    pub(crate) fn all_of(file: &Arc<str>, document: Document, problems: &mut Vec<Problem>) -> Vec<Self> {
        let Document { number, value, lines } = document;
        let source = Source { file: Arc::clone(file), document: number, prefix: String::new(), lines };
        let mut objects = Vec::new();
        flatten(value, source, None, &mut Sink { objects: &mut objects, problems });
        objects
    }

    /// The place of a field, by its path within the object.
    pub(crate) fn site(&self, field: &str) -> Site {
        self.source.site(field)
    }

    /// The line of a field, or of the nearest known part around it.
    pub(crate) fn line(&self, field: &str) -> u32 {
        self.source.lines.of(field)
    }

    /// Where a field was written; of the whole, where the object begins.
    pub(crate) fn origin(&self, field: &str) -> Origin {
        Origin { file: Arc::clone(&self.source.file), line: self.line(field) }
    }

    /// The object as `T`.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "kind" } else { &path };
            self.site(field).problem(error.inner())
        })
    }
}

impl Source {
    fn site(&self, field: &str) -> Site {
        let (line, document) = (self.lines.of(field), self.document);
        let field = format!("{}{field}", self.prefix);
        Site { file: Arc::clone(&self.file), place: Place::Field { line, document, field } }
    }
}

/// Collects the problems of one object.
pub(crate) struct Report<'a> {
    object: &'a Object,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Report<'a> {
    /// A report on `object` that adds to `problems`.
    pub(crate) fn new(object: &'a Object, problems: &'a mut Vec<Problem>) -> Self {
        Self { object, problems }
    }

    /// The place of a field.
    pub(crate) fn site(&self, field: &str) -> Site {
        self.object.site(field)
    }

    /// Adds a problem with a field.
    pub(crate) fn add(&mut self, field: &str, message: impl Display) {
        self.problems.push(self.object.site(field).problem(message));
    }

    /// Adds what a check found wrong with a field, if anything.
    pub(crate) fn check(&mut self, field: &str, fault: Option<impl Display>) {
        if let Some(message) = fault {
            self.add(field, message);
        }
    }
}

struct Sink<'a> {
    objects: &'a mut Vec<Object>,
    problems: &'a mut Vec<Problem>,
}

fn flatten(value: Value, source: Source, inherited: Option<&Inherited>, sink: &mut Sink<'_>) {
    let Some(entries) = value.as_object() else {
        let field = source.prefix.trim_end_matches('.').to_owned();
        let mut site = source.site("");
        if let Place::Field { field: at, .. } = &mut site.place {
            *at = if field.is_empty() { "syntax".to_owned() } else { field };
        }
        sink.problems.push(site.problem("an object must be a mapping"));
        return;
    };
    let mut text = |key: &str, otherwise: Option<&String>| match (entries.get(key), otherwise) {
        (Some(Value::String(text)), _) if !text.is_empty() => Some(text.clone()),
        (None | Some(Value::Null), Some(inherited)) => Some(inherited.clone()),
        (found, _) => {
            sink.problems.push(source.site(key).problem(not_text(found)));
            None
        }
    };
    let api_version = text("apiVersion", inherited.map(|i| &i.api_version));
    let kind = text("kind", inherited.map(|i| &i.kind));
    let (Some(api_version), Some(kind)) = (api_version, kind) else { return };
    match list_item_kind(&kind, entries.get("items")) {
        Some(item) => {
            let inherited = (!item.is_empty()).then(|| Inherited { kind: item.to_owned(), api_version });
            flatten_items(value, source, inherited.as_ref(), sink);
        }
        None => {
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
            let (group, version) = (group.to_owned(), version.to_owned());
            sink.objects.push(Object { group, version, kind, value, source });
        }
    }
}

/// What kind the items of a list are of (empty: each says itself), where this is a list at all.
fn list_item_kind<'a>(kind: &'a str, items: Option<&Value>) -> Option<&'a str> {
    let item = kind.strip_suffix("List")?;
    (item.is_empty() || matches!(items, Some(Value::Array(_) | Value::Null))).then_some(item)
}

fn flatten_items(mut value: Value, mut source: Source, inherited: Option<&Inherited>, sink: &mut Sink<'_>) {
    let items = match value.get_mut("items").map(Value::take) {
        None | Some(Value::Null) => return,
        Some(Value::Array(items)) => items,
        Some(_) => {
            sink.problems.push(source.site("items").problem("must be a list"));
            return;
        }
    };
    let lines = source.lines.take_key("items").map(Lines::into_items).unwrap_or_default();
    for (i, (item, lines)) in items.into_iter().zip(lines).enumerate() {
        let prefix = format!("{}items[{i}].", source.prefix);
        let source = Source { file: Arc::clone(&source.file), document: source.document, prefix, lines };
        flatten(item, source, inherited, sink);
    }
}

fn not_text(found: Option<&Value>) -> &'static str {
    match found {
        None | Some(Value::Null) => "is required",
        Some(_) => "must be a string that is not empty",
    }
}
