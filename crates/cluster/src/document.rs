//! YAML and JSON text → values with positions.
//!
//! Input: the text of one file. Output: its documents that are not empty, each a value and the line of every part of
//! it. Scalars resolve by the core schema of YAML 1.2. Knows nothing of kinds.
//!
//! INVARIANT: what a file makes of itself is bounded: its size, its depth, and what aliases repeat
//! (`a_billion_laughs_are_refused`).

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use serde_json::{Map, Value};

use crate::{
    error::{Place, Problem, Site},
    scalar,
};

/// The largest file, in bytes.
pub(crate) const MAX_BYTES: usize = 16 << 20;
/// The deepest nesting of mappings and sequences.
const MAX_DEPTH: usize = 64;
/// How much anchors and aliases may repeat in one file, in nodes plus bytes of text.
const MAX_REPEATED: usize = 1 << 20;

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its number in the file, from 1; empty documents count.
    pub(crate) number: u32,
    /// What it says.
    pub(crate) value: Value,
    /// Where it says it.
    pub(crate) lines: Lines,
}

/// The line of a value and of each of its parts. A tree, not a table of paths: long keys over many values would make
/// such a table much larger than the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lines {
    line: u32,
    below: Below,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Below {
    Nothing,
    Keys(BTreeMap<String, Lines>),
    Items(Vec<Lines>),
}

impl Lines {
    /// The line of the part at `path`, or of the nearest known part around it.
    pub(crate) fn of(&self, path: &str) -> u32 {
        match self.step(path) {
            Some((part, rest)) => part.of(rest),
            None => self.line,
        }
    }

    /// Takes the part under `key` out.
    pub(crate) fn take_key(&mut self, key: &str) -> Option<Self> {
        match &mut self.below {
            Below::Keys(keys) => keys.remove(key),
            Below::Nothing | Below::Items(_) => None,
        }
    }

    /// The parts of a sequence.
    pub(crate) fn into_items(self) -> Vec<Self> {
        match self.below {
            Below::Items(items) => items,
            Below::Nothing | Below::Keys(_) => Vec::new(),
        }
    }

    /// The part that `path` begins with, and what is left of the path.
    fn step<'a>(&self, path: &'a str) -> Option<(&Self, &'a str)> {
        match &self.below {
            Below::Nothing => None,
            Below::Items(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest))
            }
            Below::Keys(keys) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                // Keys hold dots themselves, as labels do: the longest that fits is meant.
                let ends = path.rmatch_indices(['.', '[']).map(|(at, _)| at);
                std::iter::once(path.len()).chain(ends).find_map(|end| {
                    let (key, rest) = path.split_at_checked(end)?;
                    Some((keys.get(key)?, rest))
                })
            }
        }
    }
}

/// What is done with each document. One at a time: a file of thousands never stands in memory as values.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Document, &mut Vec<Problem>);

/// Reads all documents of a file; what is wrong goes to `problems`, and a syntax error ends the file.
pub(crate) fn read(file: &Arc<str>, text: &str, problems: &mut Vec<Problem>, each: Each<'_>) {
    if text.len() > MAX_BYTES {
        problems.push(too_large(file));
        return;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = if is_json(file) { scalar::join_surrogates(text) } else { text.into() };
    let mut reader = Reader::new(file, problems, each);
    if let Err(stop) = reader.run(&text) {
        let site = Site::syntax(file, stop.line, reader.number.max(1));
        reader.problems.push(site.problem(stop.message));
    }
}

fn is_json(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// The problem of a file of more than [`MAX_BYTES`].
pub(crate) fn too_large(file: &Arc<str>) -> Problem {
    Site::syntax(file, 1, 1).problem(format_args!("the file is larger than {} MiB", MAX_BYTES >> 20))
}

/// Why a file cannot be read on.
struct Stop {
    line: u32,
    message: String,
}

impl Stop {
    fn at(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self { line: line_number(error.marker().line()), message: error.info().to_owned() }
    }
}

/// A value with its lines.
type Part = (Value, Lines);

/// A mapping or sequence whose end has not come yet.
struct Frame {
    line: u32,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence { items: Vec<Value>, lines: Vec<Lines> },
    Mapping { entries: Map<String, Value>, lines: BTreeMap<String, Lines>, key: Option<(String, u32)> },
}

struct Reader<'a> {
    file: &'a Arc<str>,
    problems: &'a mut Vec<Problem>,
    each: Each<'a>,
    number: u32,
    open: Vec<Frame>,
    anchors: HashMap<usize, Part>,
    repeated: usize,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Arc<str>, problems: &'a mut Vec<Problem>, each: Each<'a>) -> Self {
        let (open, anchors) = (Vec::new(), HashMap::new());
        Self { file, problems, each, number: 0, open, anchors, repeated: 0 }
    }

    fn run(&mut self, text: &str) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let (event, span) = next?;
            self.take(event, line_number(span.start.line()))?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, line: u32) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => {
                self.number += 1;
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.expects_key() {
                    return self.key(text.into_owned(), style, line);
                }
                let value = scalar::resolve(&text, style, tag.as_deref())
                    .map_err(|message| Stop::at(line, message))?;
                self.complete((value, Lines { line, below: Below::Nothing }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", line)?;
                self.begin(line, anchor, Content::Sequence { items: Vec::new(), lines: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", line)?;
                let content = Content::Mapping { entries: Map::new(), lines: BTreeMap::new(), key: None };
                self.begin(line, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Frame { content: Content::Mapping { key: None, .. }, .. }))
    }

    fn key(&mut self, text: String, style: ScalarStyle, line: u32) -> Result<(), Stop> {
        let plain = style == ScalarStyle::Plain;
        if plain && text == "<<" {
            return Err(Stop::at(line, "merge keys (`<<`) are not supported: write the keys out"));
        }
        if plain && scalar::is_null(&text) {
            return Err(Stop::at(line, "a key is missing"));
        }
        let mut first = None;
        if let Some(Frame { content: Content::Mapping { lines, key, .. }, .. }) = self.open.last_mut() {
            first = lines.get(&text).map(|earlier| earlier.line);
            *key = Some((text, line));
        }
        if let Some(first) = first {
            let place = Place::Field { line, document: self.number, field: self.path() };
            let site = Site { file: Arc::clone(self.file), place };
            self.problems.push(site.problem(format_args!("the key is there twice, first on line {first}")));
        }
        Ok(())
    }

    fn begin(&mut self, line: u32, anchor: usize, content: Content) -> Result<(), Stop> {
        if self.expects_key() {
            return Err(Stop::at(line, "a key must be a string"));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Stop::at(line, format!("nested more than {MAX_DEPTH} deep")));
        }
        self.open.push(Frame { line, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(Frame { line, anchor, content }) = self.open.pop() else { return Ok(()) };
        let (value, below) = match content {
            Content::Sequence { items, lines } => (Value::Array(items), Below::Items(lines)),
            Content::Mapping { entries, lines, .. } => (Value::Object(entries), Below::Keys(lines)),
        };
        self.complete((value, Lines { line, below }), anchor)
    }

    fn alias(&mut self, anchor: usize, line: u32) -> Result<(), Stop> {
        if self.expects_key() {
            return Err(Stop::at(line, "a key must be a string, not an alias"));
        }
        let Some((value, lines)) = self.anchors.get(&anchor) else {
            return Err(Stop::at(line, "the alias is inside what it names"));
        };
        let (size, height) = measure(value);
        if self.open.len() + height > MAX_DEPTH {
            return Err(Stop::at(line, format!("nested more than {MAX_DEPTH} deep")));
        }
        let part = (value.clone(), Lines { line, ..lines.clone() });
        self.repeat(size, line)?;
        self.complete(part, 0)
    }

    /// Counts what an anchor or alias repeats.
    fn repeat(&mut self, size: usize, line: u32) -> Result<(), Stop> {
        self.repeated = self.repeated.saturating_add(size);
        if self.repeated > MAX_REPEATED {
            return Err(Stop::at(line, "anchors and aliases repeat too much"));
        }
        Ok(())
    }

    /// Puts a finished value where it belongs. `anchor` is 0 for none.
    fn complete(&mut self, part: Part, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.repeat(measure(&part.0).0, part.1.line)?;
            self.anchors.insert(anchor, part.clone());
        }
        let (value, mut part_lines) = part;
        match self.open.last_mut().map(|frame| &mut frame.content) {
            Some(Content::Sequence { items, lines }) => {
                items.push(value);
                lines.push(part_lines);
            }
            Some(Content::Mapping { entries, lines, key }) => {
                if let Some((key, line)) = key.take() {
                    part_lines.line = line;
                    entries.insert(key.clone(), value);
                    lines.insert(key, part_lines);
                }
            }
            None if value.is_null() => {}
            None => (self.each)(Document { number: self.number, value, lines: part_lines }, self.problems),
        }
        Ok(())
    }

    /// The dotted path of what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.open {
            match &frame.content {
                Content::Sequence { items, .. } => path.push_str(&format!("[{}]", items.len())),
                Content::Mapping { key: Some((key, _)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Content::Mapping { key: None, .. } => {}
            }
        }
        path
    }
}

/// Lines as the rest of the crate counts them: a file of at most [`MAX_BYTES`] has no more than fit.
fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

/// The size of a value, in nodes plus bytes of text, and its height.
fn measure(value: &Value) -> (usize, usize) {
    let children = |parts: &mut dyn Iterator<Item = (usize, &Value)>| {
        parts.fold((1, 0), |(size, height), (key, part)| {
            let (more, high) = measure(part);
            (size + key + more, height.max(high))
        })
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
        Value::String(text) => (1 + text.len(), 0),
        Value::Array(items) => {
            let (size, height) = children(&mut items.iter().map(|item| (0, item)));
            (size, height + 1)
        }
        Value::Object(entries) => {
            let (size, height) = children(&mut entries.iter().map(|(key, part)| (key.len(), part)));
            (size, height + 1)
        }
    }
}

fn check_tag(tag: Option<&Tag>, expected: &str, line: u32) -> Result<(), Stop> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == expected => Ok(()),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(()),
        Some(tag) => Err(Stop::at(line, format!("the tag {tag} is not supported"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> (Vec<Document>, Vec<String>) {
        parse_file("f.yaml", text)
    }

    fn parse_file(file: &str, text: &str) -> (Vec<Document>, Vec<String>) {
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        read(&file.into(), text, &mut problems, &mut |document, _| documents.push(document));
        (documents, problems.iter().map(ToString::to_string).collect())
    }

    fn value(text: &str) -> Value {
        let (mut documents, problems) = parse(text);
        assert_eq!(problems, Vec::<String>::new(), "{text}");
        documents.pop().map(|d| d.value).unwrap_or_default()
    }

    fn only_problem(text: &str) -> String {
        let (_, mut problems) = parse(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        problems.remove(0)
    }

    #[test]
    fn scalars_resolve_by_the_core_schema() {
        let text = "[yes, no, on, null, ~, , true, 0x1F, 0o17, 017, -3, +4, 1.5, 1e3, '80', \"80\", !!str 80, 1.2.3]";
        let text = text.replace(", ,", ",");
        let expected = json!([
            "yes", "no", "on", null, null, true, 31, 15, 17, -3, 4, 1.5, 1000.0, "80", "80", "80", "1.2.3"
        ]);
        assert_eq!(value(&text), expected);
        assert_eq!(value("18446744073709551615"), json!(u64::MAX));
        assert!(only_problem("a: .nan").starts_with("f.yaml:1: document 1, syntax: "));
    }

    #[test]
    fn json_is_read_by_the_same_path() {
        let text = "{\n\t\"a\": [1, {\"b\": null}],\n\t\"c\": \"x\\/\\u00e9\\n\"\n}";
        assert_eq!(value(text), json!({"a": [1, {"b": null}], "c": "x/é\n"}));
        let (documents, _) = parse_file("f.json", r#"{"a": "\ud83d\ude00"}"#);
        assert_eq!(documents[0].value, json!({"a": "😀"}));
    }

    #[test]
    fn empty_documents_are_skipped_but_counted() {
        let (documents, problems) = parse("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(documents.iter().map(|d| d.number).collect::<Vec<_>>(), [2, 4]);
        assert!(parse("").0.is_empty() && parse("# only a comment\n").0.is_empty());
    }

    #[test]
    fn every_path_has_its_line_or_that_of_the_nearest_part_around_it() {
        let text = "a:\n  b.c/d: 1\n  e:\n  - x: 1\n    y: 2\n  -\n    z: 3\n";
        let (documents, _) = parse(text);
        let lines = &documents[0].lines;
        let expect = [("a", 1), ("a.b.c/d", 2), ("a.e", 3), ("a.e[0]", 4), ("a.e[0].y", 5), ("a.e[0].q", 4)];
        for (path, line) in expect.into_iter().chain([("a.e[1].z", 7), ("a.e[9].z", 3), ("q", 1), ("", 1)]) {
            assert_eq!(lines.of(path), line, "{path}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_an_error() {
        let text = "spec:\n  a:\n  - x: 1\n    x: 2\n";
        let expected = "f.yaml:4: document 1, spec.a[0].x: the key is there twice, first on line 3";
        assert_eq!(only_problem(text), expected);
        assert_eq!(
            only_problem("{\"a\": 1, a: 2}"),
            "f.yaml:1: document 1, a: the key is there twice, first on line 1"
        );
    }

    #[test]
    fn a_syntax_error_names_its_line_and_document() {
        let problem = only_problem("a: 1\n---\nb: [1, 2\nc: 3\n");
        assert!(problem.contains(": document 2, syntax: "), "{problem}");
        assert!(only_problem("a: 1\n b: 2\n").starts_with("f.yaml:2: document 1, syntax: "));
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = "a0: &a0 [lol, lol]\n".to_owned();
        for i in 1..40 {
            let prev = i - 1;
            text.push_str(&format!("a{i}: &a{i} [*a{prev}, *a{prev}]\n"));
        }
        assert!(only_problem(&text).contains("repeat too much"));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1000));
        assert!(only_problem(&long).contains("repeat too much"));
        assert!(only_problem("a: &a [*a]").contains("inside what it names"));
    }

    #[test]
    fn an_alias_is_what_its_anchor_was() {
        assert_eq!(value("a: &x {k: [1]}\nb: *x\n"), json!({"a": {"k": [1]}, "b": {"k": [1]}}));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert_eq!(parse(&format!("{}{}", "[".repeat(64), "]".repeat(64))).1, Vec::<String>::new());
        assert!(only_problem(&format!("{}{}", "[".repeat(65), "]".repeat(65))).contains("64 deep"));
        // The parser itself gives up before this does.
        assert!(only_problem(&"[".repeat(100_000)).contains("syntax: "));
        let mut chain = "a0: &a0 [x]\n".to_owned();
        (1..70).for_each(|i| chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1)));
        assert!(only_problem(&chain).contains("64 deep"));
        assert!(only_problem(&format!("# {}", "x".repeat(MAX_BYTES))).contains("larger than 16 MiB"));
    }

    #[test]
    fn what_would_be_lost_silently_is_refused() {
        assert!(only_problem("a: &a {x: 1}\nb:\n  <<: *a\n").contains("merge keys"));
        assert!(only_problem("a: !secret x").contains("tag"));
        assert!(only_problem("? [a]\n: 1\n").contains("key must be a string"));
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_are_no_matter() {
        assert_eq!(value("\u{feff}a: 1\r\nb: x\r\n"), json!({"a": 1, "b": "x"}));
    }
}
