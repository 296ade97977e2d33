//! A configuration file → a value: one document of YAML or JSON, with the same errors as manifests.

use std::{fs, path::Path, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    document::{self, Document, MAX_BYTES},
    error::{Error, Place, Problem, Site},
};

/// Reads a configuration file. What is strict about it is `T`'s to say; an empty file is an empty mapping.
///
/// # Errors
/// The file cannot be read, is no YAML, or no `T`: with the line and the field.
pub fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let file: Arc<str> = path.display().to_string().into();
    let whole = |message: String| Error::one(Site::file(&file).problem(message));
    let size = fs::metadata(path).map_err(|e| whole(e.to_string()))?.len();
    if size > MAX_BYTES as u64 {
        return Err(whole(format!("{size} bytes; at most {MAX_BYTES}")));
    }
    let text = fs::read_to_string(path).map_err(|e| whole(e.to_string()))?;
    let mut problems = vec![];
    let mut found = None;
    document::read(&file, &text, &mut problems, &mut |document, problems| match found {
        None => found = Some(parse::<T>(&file, document)),
        Some(_) => problems.push(Site::file(&file).problem("a configuration is one document")),
    });
    if let Some(error) = Error::of(problems) {
        return Err(error);
    }
    found
        .unwrap_or_else(|| {
            serde_json::from_value(Value::Object(Map::new())).map_err(|e| Site::file(&file).problem(e))
        })
        .map_err(Error::one)
}

fn parse<T: DeserializeOwned>(file: &Arc<str>, document: Document) -> Result<T, Problem> {
    let Document { number, value, lines } = document;
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let path = error.path().to_string();
        let place = Place::Field { line: lines.of(&path), document: number, field: path };
        Site { file: Arc::clone(file), place }.problem(error.inner())
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Config {
        node_name: String,
        ports: Vec<u16>,
    }

    fn read(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        read_config(file.path()).map_err(|e| e.to_string().replace(&name, "FILE"))
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_field() {
        let good = Config { node_name: "a".into(), ports: vec![1, 2] };
        assert_eq!(read("nodeName: a\nports: [1, 2]\n"), Ok(good));
        assert_eq!(read("# nothing\n"), Ok(Config::default()));
        let unknown = read("nodeName: a\nport: [1]\n").unwrap_err();
        assert!(unknown.starts_with("FILE:2: document 1, port: unknown field `port`"), "{unknown}");
        let wrong = read("nodeName: a\nports:\n  - 1\n  - x\n").unwrap_err();
        assert!(wrong.starts_with("FILE:4: document 1, ports[1]: invalid type"), "{wrong}");
        assert!(read("nodeName: [\n").unwrap_err().contains("syntax"));
        assert!(read("nodeName: a\n---\nnodeName: b\n").unwrap_err().contains("one document"));
        let missing = read_config::<Config>(Path::new("/no/such.yaml")).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such.yaml: "), "{missing}");
    }
}
