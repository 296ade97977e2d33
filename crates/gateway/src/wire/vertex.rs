//! Vertex AI: a path and a body → what is called, and the path that is sent.
//! Source: the REST reference of `aiplatform.googleapis.com`, `v1` and `v1beta1`.

use std::fmt;

use serde_json::Value;
use signet_model::{Method, VertexAi, json::plain};

use super::{Format, is_model, openai};

/// Whose the models are that a project has deployed itself, as policies know it.
const DEPLOYED: &str = "endpoints";
/// What Anthropic's library calls in place of a model, to count tokens.
const COUNT_TOKENS: &str = "count-tokens";

/// A project's models in a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    version: &'static str,
    /// The project's id or number.
    project: String,
    location: String,
}

/// A path as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) place: Place,
    target: Target,
    method: Method,
    /// Whether a stream is wanted as events: an array, if not.
    as_events: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Published {
        publisher: String,
        model: String,
    },
    /// By its endpoint's number.
    Deployed(String),
}

/// What is behind a path.
pub(super) enum Found {
    /// A call in Vertex AI's own words.
    Own(Path),
    /// A call in OpenAI's.
    AsOpenAi(openai::Path),
}

/// Reads a path. None: it is not of Vertex AI.
///
/// # Errors
/// A sentence that says what is wrong with one that is.
pub(super) fn path(text: &str, query: Option<&str>) -> Option<Result<Found, String>> {
    let (version, rest) = text.strip_prefix('/')?.split_once('/')?;
    let version = ["v1", "v1beta1"].into_iter().find(|known| *known == version)?;
    let rest = rest.strip_prefix("projects/")?;
    Some(within(version, rest, query))
}

fn within(version: &'static str, rest: &str, query: Option<&str>) -> Result<Found, String> {
    let as_events = wants_events(query)?;
    let segments: Vec<&str> = rest.split('/').collect();
    let [project, "locations", location, rest @ ..] = &segments[..] else { return Err(unknown()) };
    let place =
        Place { version, project: segment(project)?.to_owned(), location: segment(location)?.to_owned() };
    let (target, last) = match rest {
        ["publishers", publisher, "models", last] => {
            let (model, method) = last.split_once(':').ok_or("the path ends without a method")?;
            let (publisher, model) = (segment(publisher)?.to_owned(), segment(model)?.to_owned());
            (Target::Published { publisher, model }, method)
        }
        ["endpoints", "openapi", rest @ ..] => {
            let method = openai::method(&rest.join("/")).ok_or("there is no such method here")?;
            return Ok(Found::AsOpenAi(openai::Path { method, place: Some(place) }));
        }
        ["endpoints", last] => {
            let (endpoint, method) = last.split_once(':').ok_or("the path ends without a method")?;
            (Target::Deployed(segment(endpoint)?.to_owned()), method)
        }
        _ => return Err(unknown()),
    };
    let method = Method::from_name(last).filter(|method| is_own(*method));
    let method = method.ok_or("there is no such method here")?;
    Ok(Found::Own(Path { place, target, method, as_events }))
}

fn unknown() -> String {
    "only models can be called: projects/P/locations/L/publishers/PUBLISHER/models/MODEL:METHOD, or …/endpoints/ENDPOINT:METHOD"
        .to_owned()
}

fn is_own(method: Method) -> bool {
    match method {
        Method::GenerateContent
        | Method::StreamGenerateContent
        | Method::CountTokens
        | Method::Predict
        | Method::RawPredict
        | Method::StreamRawPredict
        | Method::EmbedContent => true,
        Method::ChatCompletions
        | Method::Responses
        | Method::Completions
        | Method::Embeddings
        | Method::Messages
        | Method::CountMessageTokens => false,
    }
}

/// One plain segment of a path.
fn segment(text: &str) -> Result<&str, String> {
    let fits = is_model(text) && !text.contains([':', '/']) && !text.starts_with('.');
    let fault = "a name in the path has characters beside letters, digits, `.`, `_`, `@` and `-`";
    fits.then_some(text).ok_or_else(|| fault.to_owned())
}

impl Place {
    /// Whether it is this provider's.
    pub(super) fn is_of(&self, provider: &VertexAi) -> bool {
        self.project == provider.project && self.location == provider.location
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, project, location } = self;
        write!(f, "/{version}/projects/{project}/locations/{location}")
    }
}

impl Path {
    /// Publisher, model, method and format.
    ///
    /// # Errors
    /// A sentence that says how path and body differ.
    pub(super) fn named(&self, body: &Value) -> Result<(String, String, Method, Format), String> {
        let (publisher, model) = match &self.target {
            Target::Deployed(endpoint) => (DEPLOYED, endpoint.as_str()),
            Target::Published { publisher, model } => (publisher.as_str(), model.as_str()),
        };
        let is_anthropic = publisher == "anthropic";
        if is_anthropic && model == COUNT_TOKENS {
            if self.method != Method::RawPredict {
                return Err(format!("{COUNT_TOKENS} is asked by rawPredict"));
            }
            let named = super::model(body)?;
            segment(named)?;
            return Ok((publisher.to_owned(), named.to_owned(), Method::CountTokens, Format::Messages));
        }
        let object = body.as_object().into_iter().flatten();
        for (_, named) in object.filter(|(key, _)| plain(key) == "model") {
            if !named.as_str().is_some_and(|named| self.is_named(named)) {
                return Err("the model in the body is not that of the path".to_owned());
            }
        }
        let format = match self.method {
            Method::RawPredict | Method::StreamRawPredict if is_anthropic => Format::Messages,
            // what other partners speak, and servers that are deployed
            Method::RawPredict | Method::StreamRawPredict => Format::Chat,
            Method::Predict => Format::Predict,
            _ => Format::Gemini,
        };
        Ok((publisher.to_owned(), model.to_owned(), self.method, format))
    }

    /// Whether the answer comes in parts.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.method, Method::StreamGenerateContent | Method::StreamRawPredict)
    }

    /// The model by one of its names, short or full.
    fn is_named(&self, name: &str) -> bool {
        let Target::Published { publisher, model } = &self.target else { return false };
        let Place { project, location, .. } = &self.place;
        let short = format!("publishers/{publisher}/models/{model}");
        name == *model
            || name == format!("models/{model}")
            || name == short
            || name == format!("projects/{project}/locations/{location}/{short}")
    }

    /// What is asked of the provider: path and query.
    pub(super) fn target(&self) -> String {
        let Self { place, method, .. } = self;
        let query = if self.as_events && *method == Method::StreamGenerateContent { "?alt=sse" } else { "" };
        match &self.target {
            Target::Published { publisher, model } => {
                format!("{place}/publishers/{publisher}/models/{model}:{method}{query}")
            }
            Target::Deployed(endpoint) => format!("{place}/endpoints/{endpoint}:{method}{query}"),
        }
    }
}

/// How a caller wants a stream: whether as events. What else a query says is left out or refused.
///
/// # Errors
/// A sentence that says what is wrong.
fn wants_events(query: Option<&str>) -> Result<bool, String> {
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

    const PLACE: &str = "/v1/projects/p/locations/us-central1";
    const MODEL: &str = "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash";

    fn own(text: &str) -> Result<Path, String> {
        match path(text, None).unwrap()? {
            Found::Own(path) => Ok(path),
            Found::AsOpenAi(_) => Err("OpenAI's".to_owned()),
        }
    }

    #[test]
    fn what_is_sent_is_what_was_read() {
        let vertex = VertexAi { project: "p".to_owned(), location: "us-central1".to_owned(), endpoint: None };
        for method in Method::ALL.into_iter().filter(|method| is_own(*method)) {
            let text = format!("{MODEL}:{method}");
            let path = own(&text).unwrap();
            assert!(path.place.is_of(&vertex));
            let (publisher, model, named, _) = path.named(&json!({})).unwrap();
            assert_eq!((publisher.as_str(), model.as_str(), named), ("google", "gemini-2.5-flash", method));
            assert_eq!(path.target(), text);
        }
        let text = format!("{PLACE}/endpoints/123:rawPredict");
        let path = own(&text).unwrap();
        let (publisher, model, ..) = path.named(&json!({})).unwrap();
        assert_eq!((publisher.as_str(), model.as_str()), ("endpoints", "123"));
        assert_eq!(path.target(), text);
        let text = format!("{PLACE}/endpoints/openapi/chat/completions");
        let Found::AsOpenAi(path) = super::path(&text, None).unwrap().unwrap() else { panic!("{text}") };
        assert_eq!(path.target(), text);
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
            "gemini:chat/completions",
            "gemini:messages",
            "gemini\u{ff0e}:generateContent",
            "gemini:generateContent/",
            "models/gemini:generateContent",
        ] {
            let text = format!("/v1/projects/p/locations/l/publishers/google/models/{last}");
            assert!(own(&text).is_err(), "{last}");
        }
        for other in [
            "/v1/projects/p/locations/l/cachedContents",
            "/v1/projects//locations/l/publishers/google/models/m:predict",
            "/v1/projects/p/locations/l//publishers/google/models/m:predict",
            "/v1/projects/p/locations/l/endpoints/openapi/models",
            "/v1/projects/p/locations/l/endpoints/a/b:predict",
        ] {
            assert!(own(other).is_err(), "{other}");
        }
        for foreign in ["/", "/v2/projects/p", "/v1/chat/completions", "//v1/projects/p"] {
            assert!(path(foreign, None).is_none(), "{foreign}");
        }
    }

    #[test]
    fn a_model_in_the_body_must_be_that_of_the_path() {
        let path = own(&format!("{MODEL}:countTokens")).unwrap();
        for same in ["gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"] {
            assert!(path.named(&json!({ "model": same })).is_ok(), "{same}");
        }
        for other in [
            json!("gemini-2.5-pro"),
            json!(1),
            json!("projects/q/locations/us-central1/publishers/google/models/gemini-2.5-flash"),
        ] {
            assert!(path.named(&json!({ "model": other })).is_err(), "{other}");
        }
    }

    #[test]
    fn where_tokens_of_anthropics_are_counted_the_body_names_the_model() {
        let path = own(&format!("{PLACE}/publishers/anthropic/models/count-tokens:rawPredict")).unwrap();
        let (publisher, model, method, _) = path.named(&json!({ "model": "claude-x@1" })).unwrap();
        assert_eq!(
            (publisher.as_str(), model.as_str(), method),
            ("anthropic", "claude-x@1", Method::CountTokens)
        );
        for bad in [json!({}), json!({ "model": "a/b" }), json!({ "model": "a:b" })] {
            assert!(path.named(&bad).is_err(), "{bad}");
        }
        // what is asked by another method is no counting
        for method in ["streamRawPredict", "predict", "generateContent"] {
            let path = own(&format!("{PLACE}/publishers/anthropic/models/count-tokens:{method}")).unwrap();
            assert!(path.named(&json!({ "model": "claude-x@1" })).is_err(), "{method}");
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
