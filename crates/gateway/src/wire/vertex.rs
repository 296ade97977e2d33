//! Vertex AI: a path and a body → a [`Call`], and a call → the path that is sent.
//! Source: the REST reference of `aiplatform.googleapis.com`, `v1` and `v1beta1`.
//!
//! INVARIANT: the path that is sent is built from the call that was authorised; nothing of the caller's path or query goes on
//! but by its value (`what_is_sent_is_what_was_read`).

use serde_json::Value;
use signet_model::{Call, Method, VertexAi};

use super::uses;

/// A path as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    version: &'a str,
    /// The project's id or number.
    pub(crate) project: &'a str,
    /// The location.
    pub(crate) location: &'a str,
    publisher: &'a str,
    model: &'a str,
    method: Method,
}

/// Reads a path. None: it is not of Vertex AI.
///
/// # Errors
/// A sentence that says what is wrong with one that is.
pub(crate) fn path(text: &str) -> Option<Result<Path<'_>, String>> {
    let rest = text.strip_prefix('/')?;
    let (version, rest) = rest.split_once('/')?;
    matches!(version, "v1" | "v1beta1").then_some(())?;
    let rest = rest.strip_prefix("projects/")?;
    Some(within(version, rest))
}

fn within<'a>(version: &'a str, rest: &'a str) -> Result<Path<'a>, String> {
    let segments: Vec<&str> = rest.split('/').collect();
    let [project, "locations", location, "publishers", publisher, "models", last] = segments[..] else {
        return Err("only publishers' models can be called: \
                    projects/P/locations/L/publishers/PUBLISHER/models/MODEL:METHOD"
            .to_owned());
    };
    let (model, method) = last.split_once(':').ok_or("the path ends without a method")?;
    let method = Method::from_name(method).ok_or("there is no such method here")?;
    for segment in [project, location, publisher, model] {
        if !is_name(segment) {
            return Err(
                "a name in the path has characters beside letters, digits, `.`, `_`, `@` and `-`".to_owned()
            );
        }
    }
    Ok(Path { version, project, location, publisher, model, method })
}

/// Whether it is one plain segment of a path.
fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    (1..=256).contains(&text.len())
        && text.bytes().all(known)
        && !text.starts_with('.')
        && !text.contains("..")
}

impl Path<'_> {
    /// Whether it is of this project and location.
    pub(crate) fn is_of(&self, provider: &VertexAi) -> bool {
        self.project == provider.project && self.location == provider.location
    }

    /// The call of a provider of this name.
    ///
    /// # Errors
    /// A sentence that says how path and body differ.
    pub(crate) fn call(&self, provider: &str, body: &Value) -> Result<Call, String> {
        let body_object = body.as_object().ok_or("the body is no JSON object")?;
        let named = body_object.iter().find(|(key, _)| signet_model::json::plain(key) == "model");
        if let Some((_, named)) = named
            && !named.as_str().is_some_and(|named| self.is_named(named))
        {
            return Err("the model in the body is not that of the path".to_owned());
        }
        Ok(Call {
            provider: provider.to_owned(),
            publisher: self.publisher.to_owned(),
            model: self.model.to_owned(),
            method: self.method,
            uses: uses(body),
        })
    }

    /// The model by one of its names, short or full.
    fn is_named(&self, name: &str) -> bool {
        let Path { project, location, publisher, model, .. } = self;
        let short = format!("publishers/{publisher}/models/{model}");
        name == *model
            || name == format!("models/{model}")
            || name == short
            || name == format!("projects/{project}/locations/{location}/{short}")
    }

    /// What is asked of the provider: path and query. Events or an array: `as_events`.
    pub(crate) fn target(&self, provider: &VertexAi, call: &Call, as_events: bool) -> String {
        let VertexAi { project, location, .. } = provider;
        let Call { publisher, model, method, .. } = call;
        let query = if as_events && *method == Method::StreamGenerateContent { "?alt=sse" } else { "" };
        let version = self.version;
        format!(
            "/{version}/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}:{method}{query}"
        )
    }
}

/// How a caller wants a stream: whether as events. What else a query says is left out or refused.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn wants_events(query: Option<&str>) -> Result<bool, String> {
    let mut events = false;
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("alt" | "$alt" | "%24alt", "sse") => events = true,
            // what Google's own libraries add for JSON; numbers of enums are not asked for
            ("alt" | "$alt" | "%24alt", kind) if kind.starts_with("json") => {}
            ("prettyPrint" | "$prettyPrint", _) => {}
            _ => return Err("the query has a parameter that is not known here".to_owned()),
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MODEL: &str = "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash";

    fn provider() -> VertexAi {
        VertexAi { project: "p".to_owned(), location: "us-central1".to_owned(), endpoint: None }
    }

    #[test]
    fn what_is_sent_is_what_was_read() {
        for method in Method::ALL {
            let text = format!("{MODEL}:{method}");
            let path = path(&text).unwrap().unwrap();
            assert!(path.is_of(&provider()));
            let call = path.call("vertex", &json!({})).unwrap();
            assert_eq!(
                (call.publisher.as_str(), call.model.as_str(), call.method),
                ("google", "gemini-2.5-flash", method)
            );
            assert_eq!(path.target(&provider(), &call, false), text);
        }
    }

    #[test]
    fn a_path_that_could_be_read_otherwise_is_refused() {
        for last in [
            "gemini%2F..%2Fother:generateContent",
            "gemini/../other:generateContent",
            "..:generateContent",
            "gemini;v=1:generateContent",
            "gemini:generateContent:streamRawPredict",
            "gemini:",
            "gemini",
            ":generateContent",
            "gemini:GenerateContent",
            "gemini\u{ff0e}:generateContent",
            "gemini:generateContent/",
            "models/gemini:generateContent",
        ] {
            let text = format!("/v1/projects/p/locations/l/publishers/google/models/{last}");
            assert!(path(&text).unwrap().is_err(), "{last}");
        }
        for other in [
            "/v1/projects/p/locations/l/endpoints/1:predict",
            "/v1/projects/p/locations/l/cachedContents",
            "/v1/projects//locations/l/publishers/google/models/m:predict",
            "/v1/projects/p/locations/l//publishers/google/models/m:predict",
        ] {
            assert!(path(other).unwrap().is_err(), "{other}");
        }
        for foreign in ["/", "/v2/projects/p", "/v1/chat/completions", "//v1/projects/p"] {
            assert!(path(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn a_model_in_the_body_must_be_that_of_the_path() {
        let text = format!("{MODEL}:countTokens");
        let path = path(&text).unwrap().unwrap();
        for same in ["gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"] {
            assert!(path.call("vertex", &json!({ "model": same })).is_ok(), "{same}");
        }
        for other in [
            json!("gemini-2.5-pro"),
            json!(1),
            json!("projects/q/locations/us-central1/publishers/google/models/gemini-2.5-flash"),
        ] {
            assert!(path.call("vertex", &json!({ "model": other })).is_err(), "{other}");
        }
    }

    #[test]
    fn a_query_says_how_a_stream_is_wanted_and_nothing_else() {
        assert_eq!(wants_events(None), Ok(false));
        assert_eq!(wants_events(Some("alt=sse")), Ok(true));
        assert_eq!(wants_events(Some("$alt=json;enum-encoding=int")), Ok(false));
        for bad in ["key=x", "access_token=x", "alt=proto", "upload_protocol=raw", "$.xgafv=2"] {
            assert!(wants_events(Some(bad)).is_err(), "{bad}");
        }
    }
}
