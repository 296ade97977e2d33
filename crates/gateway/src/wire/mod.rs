//! Requests in providers' own formats → calls, and what is sent on.
//!
//! A path says which format; it may begin with the name of a provider, and must where several would do. Body and path together
//! say what is called: [`Asked`].
//!
//! INVARIANT: what is sent is built from the call that was authorised; of the caller's path, query and headers nothing goes on but
//! by its value (`what_is_sent_is_what_was_read`).

mod anthropic;
mod body;
mod openai;
mod uses;
mod vertex;

use bytes::Bytes;
use hyper::{
    HeaderMap, Uri,
    header::{self, HeaderName, HeaderValue},
};
use serde_json::Value;
use signet_model::{
    Api, Call, Method, Models, Provider,
    json::{self, Unread},
};

/// Whose errors a caller's library understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Google,
    OpenAi,
    Anthropic,
    /// Calls over gRPC, which are not taken.
    Grpc,
}

/// The form of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// Vertex AI: `contents`, `candidates`.
    Gemini,
    /// Vertex AI: `instances`, `predictions`.
    Predict,
    /// OpenAI: `messages`, `choices`.
    Chat,
    /// OpenAI: `input`, `output`.
    Responses,
    /// OpenAI: `prompt`, `choices`.
    Completions,
    /// OpenAI: `input`, `data`.
    Embeddings,
    /// Anthropic: `messages`, `content`.
    Messages,
}

/// Why a request is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no such call here.
    Unknown(String),
    /// It can be read in more than one way, or in none.
    Invalid(String),
    /// It has too many parts.
    TooLarge(String),
}

/// A request whose head was read: for whom, and what its body is going to be.
#[derive(Debug)]
pub(crate) struct Route<'m> {
    pub(crate) provider: &'m Provider,
    path: Path,
    passed_on: Vec<(HeaderName, HeaderValue)>,
}

/// A path, and query, as they are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Path {
    Vertex(vertex::Path),
    OpenAi(openai::Path),
    Anthropic(anthropic::Path),
}

/// A request that was understood.
#[derive(Debug)]
pub(crate) struct Asked<'m> {
    pub(crate) provider: &'m Provider,
    pub(crate) call: Call,
    pub(crate) format: Format,
    /// Where to.
    pub(crate) uri: String,
    /// What is sent beside what the gateway says itself.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, as it came.
    body: Bytes,
    /// Its value, as it is sent where it was changed.
    pub(crate) value: Value,
    pub(crate) is_changed: bool,
    /// Whether the answer is to come in parts.
    pub(crate) is_stream: bool,
    /// Whether a count of tokens was asked for that the caller did not ask for, and is not to see.
    pub(crate) hides_usage: bool,
}

impl Dialect {
    /// Whose errors are understood by who sends such a head.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let path = uri.path();
        if kind.starts_with(b"application/grpc") {
            Self::Grpc
        } else if path.contains("/messages") {
            Self::Anthropic
        } else if path.contains("/v1/projects/") || path.contains("/v1beta1/projects/") {
            match path.contains("/endpoints/openapi/") {
                true => Self::OpenAi,
                false => Self::Google,
            }
        } else if path.contains("/v1/") {
            Self::OpenAi
        } else {
            Self::Google
        }
    }
}

impl<'m> Route<'m> {
    /// Reads a head.
    ///
    /// # Errors
    /// [`Fault`]: nobody answers such a call, or it cannot be told who.
    pub(crate) fn of(
        models: &'m Models,
        method: &hyper::Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Fault> {
        if Dialect::of(uri, headers) == Dialect::Grpc {
            let library = "gRPC is not spoken here: make the client with transport=\"rest\"";
            return Err(Fault::Unknown(library.to_owned()));
        }
        let (named, rest) = split_name(models, uri.path());
        let path = Path::read(rest, uri.query())
            .ok_or_else(|| Fault::Unknown("no provider has such a path".to_owned()))??;
        if method != hyper::Method::POST {
            return Err(Fault::Unknown("models are called by POST".to_owned()));
        }
        let mut fitting = models
            .providers
            .values()
            .filter(|provider| named.is_none_or(|name| name == provider.name) && path.is_of(&provider.api));
        let Some(provider) = fitting.next() else { return Err(Fault::Unknown(path.nobody().to_owned())) };
        if fitting.next().is_some() {
            let detail = "several ModelProviders would do: the path has to begin with the name of one";
            return Err(Fault::Unknown(detail.to_owned()));
        }
        let passed_on = match path {
            Path::Anthropic(_) => anthropic::headers(headers).map_err(Fault::Invalid)?,
            Path::Vertex(_) | Path::OpenAi(_) => vec![],
        };
        Ok(Self { provider, path, passed_on })
    }

    /// Understands the body, by its value.
    ///
    /// # Errors
    /// [`Fault`]: it does not fit the path.
    pub(crate) fn read(self, body: Bytes, mut value: Value) -> Result<Asked<'m>, Fault> {
        let Self { provider, path, passed_on } = self;
        let invalid = |detail: String| Fault::Invalid(detail);
        if !value.is_object() {
            return Err(invalid("the body is no JSON object".to_owned()));
        }
        let (publisher, model, method, format) = match (&path, &provider.api) {
            (Path::Vertex(path), _) => path.named(&value).map_err(invalid)?,
            (Path::OpenAi(path), Api::OpenAi(api)) => path.named(api, &value).map_err(invalid)?,
            (Path::OpenAi(path), _) => path.named_by_its_model(&value).map_err(invalid)?,
            (Path::Anthropic(path), _) => path.named(&value).map_err(invalid)?,
        };
        let is_stream = match &path {
            Path::Vertex(path) => path.is_stream(),
            Path::OpenAi(_) | Path::Anthropic(_) => body::wants_stream(&value).map_err(invalid)?,
        };
        let hides_usage = is_stream && path.may_hide_usage() && body::ask_for_usage(&mut value);
        let call = Call {
            provider: provider.name.clone(),
            publisher,
            model,
            method,
            uses: uses::of(format, &value),
        };
        let uri = path.uri(&provider.api);
        let is_changed = hides_usage;
        Ok(Asked {
            provider,
            call,
            format,
            uri,
            headers: passed_on,
            body,
            value,
            is_changed,
            is_stream,
            hides_usage,
        })
    }
}

impl Asked<'_> {
    /// Bytes of the body that is sent, as far as it is changed by now.
    pub(crate) fn bytes(&mut self) -> usize {
        if std::mem::take(&mut self.is_changed) {
            self.body = self.value.to_string().into();
        }
        self.body.len()
    }

    /// The body that is sent. It is not kept: an answer may take long.
    pub(crate) fn take_body(&mut self) -> Bytes {
        let (body, value) = (std::mem::take(&mut self.body), std::mem::take(&mut self.value));
        match self.is_changed {
            true => value.to_string().into(),
            false => body,
        }
    }
}

/// The value of a body.
///
/// # Errors
/// [`Fault`]: it can be read in more than one way, or in none, or has too many parts.
pub(crate) fn value(body: &[u8]) -> Result<Value, Fault> {
    json::read(body).map_err(|unread| {
        let detail = format!("the body: {unread}");
        match unread {
            Unread::TooMuch => Fault::TooLarge(detail),
            Unread::Unclear(_) => Fault::Invalid(detail),
        }
    })
}

/// The provider that a path begins with, if it does, and the rest.
fn split_name<'p>(models: &Models, path: &'p str) -> (Option<&'p str>, &'p str) {
    let first = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    match first {
        Some((name, rest)) if models.providers.contains_key(name) => {
            // with its slash
            (Some(name), &path[path.len() - rest.len() - 1..])
        }
        _ => (None, path),
    }
}

impl Path {
    fn read(path: &str, query: Option<&str>) -> Option<Result<Self, Fault>> {
        let read = if let Some(found) = vertex::path(path, query) {
            found.map(|path| match path {
                vertex::Found::Own(path) => Self::Vertex(path),
                vertex::Found::AsOpenAi(path) => Self::OpenAi(path),
            })
        } else if let Some(found) = anthropic::path(path, query) {
            found.map(Self::Anthropic)
        } else {
            openai::path(path, query)?.map(Self::OpenAi)
        };
        Some(read.map_err(Fault::Invalid))
    }

    fn is_of(&self, api: &Api) -> bool {
        match (self, api) {
            (Self::Vertex(path), Api::VertexAi(vertex)) => path.place.is_of(vertex),
            (Self::OpenAi(path), Api::VertexAi(vertex)) => {
                path.place.as_ref().is_some_and(|place| place.is_of(vertex))
            }
            (Self::OpenAi(path), Api::OpenAi(_)) => path.place.is_none(),
            (Self::Anthropic(_), Api::Anthropic(_)) => true,
            _ => false,
        }
    }

    /// What is to be said where no provider is of it.
    fn nobody(&self) -> &'static str {
        match self {
            Self::Vertex(_) => "no ModelProvider is of this project and location",
            Self::OpenAi(path) if path.place.is_some() => "no ModelProvider is of this project and location",
            Self::OpenAi(_) => "no ModelProvider speaks as OpenAI does",
            Self::Anthropic(_) => "no ModelProvider speaks as Anthropic does",
        }
    }

    /// Whether its streams say how many tokens they had only where that is asked for.
    fn may_hide_usage(&self) -> bool {
        matches!(
            self,
            Self::OpenAi(openai::Path { method: Method::ChatCompletions | Method::Completions, .. })
        )
    }

    fn uri(&self, api: &Api) -> String {
        match (self, api) {
            (Self::Vertex(path), Api::VertexAi(vertex)) => vertex.endpoint() + &path.target(),
            (Self::OpenAi(path), Api::VertexAi(vertex)) => vertex.endpoint() + &path.target(),
            (Self::OpenAi(path), Api::OpenAi(open_ai)) => open_ai.endpoint.clone() + &path.target(),
            (Self::Anthropic(path), Api::Anthropic(anthropic)) => anthropic.endpoint.clone() + path.target(),
            // providers were chosen by their path
            _ => String::new(),
        }
    }
}

/// The model that a body names, as text.
fn model(body: &Value) -> Result<&str, String> {
    let named = body.get("model").ok_or("the body names no model")?;
    named.as_str().filter(|name| is_model(name)).ok_or_else(|| {
        "the model has characters beside letters, digits, `.`, `_`, `@`, `:`, `-` and `/`, or is too long"
            .to_owned()
    })
}

fn is_model(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._@:-/".contains(&b);
    (1..=256).contains(&text.len())
        && text.bytes().all(known)
        && !text.contains("..")
        && text.split('/').all(|segment| !segment.is_empty())
}
