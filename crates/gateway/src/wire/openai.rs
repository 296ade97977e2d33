//! What OpenAI speaks, and servers of one's own with it: `/v1/chat/completions` and its like. Source: OpenAI's API reference; Vertex
//! AI's `endpoints/openapi`, where a model is `PUBLISHER/MODEL`.

use serde_json::Value;
use signet_model::{Method, OpenAi};

use super::{Format, model, vertex::Place};

/// A path as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) method: Method,
    /// Where on Vertex AI, if it is one of its.
    pub(super) place: Option<Place>,
}

/// Reads a path. None: it is not OpenAI's.
///
/// # Errors
/// A sentence that says what is wrong with one that is.
pub(super) fn path(text: &str, query: Option<&str>) -> Option<Result<Path, String>> {
    let method = method(text.strip_prefix("/v1/")?)?;
    if query.is_some_and(|query| !query.is_empty()) {
        return Some(Err("the query has a parameter that is not known here".to_owned()));
    }
    Some(Ok(Path { method, place: None }))
}

/// The method behind a base URL.
pub(super) fn method(rest: &str) -> Option<Method> {
    let of_openai = [Method::ChatCompletions, Method::Responses, Method::Completions, Method::Embeddings];
    of_openai.into_iter().find(|method| method.name() == rest)
}

impl Path {
    /// Publisher, model, method and format, for a provider whose models are of one publisher.
    pub(super) fn named(
        &self,
        api: &OpenAi,
        body: &Value,
    ) -> Result<(String, String, Method, Format), String> {
        Ok((api.publisher.clone(), model(body)?.to_owned(), self.method, self.format()))
    }

    /// The same, where a model's name begins with its publisher's.
    pub(super) fn named_by_its_model(
        &self,
        body: &Value,
    ) -> Result<(String, String, Method, Format), String> {
        let (publisher, model) = model(body)?.split_once('/').unwrap_or_default();
        if publisher.is_empty() || model.contains('/') {
            return Err("the model is not PUBLISHER/MODEL".to_owned());
        }
        Ok((publisher.to_owned(), model.to_owned(), self.method, self.format()))
    }

    fn format(&self) -> Format {
        match self.method {
            Method::Responses => Format::Responses,
            Method::Completions => Format::Completions,
            Method::Embeddings => Format::Embeddings,
            _ => Format::Chat,
        }
    }

    /// What follows the endpoint.
    pub(super) fn target(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}/endpoints/openapi/{}", self.method),
            None => format!("/{}", self.method),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent_is_what_was_read() {
        for text in ["chat/completions", "responses", "completions", "embeddings"] {
            let path = path(&format!("/v1/{text}"), None).unwrap().unwrap();
            assert_eq!(path.target(), format!("/{text}"));
        }
        for foreign in
            ["/v1/models", "/v1/chat/completions/", "/v1/chat%2Fcompletions", "/v2/responses", "/v1/"]
        {
            assert!(path(foreign, None).is_none(), "{foreign}");
        }
        assert!(path("/v1/responses", Some("api-version=1")).unwrap().is_err());
    }

    #[test]
    fn a_model_is_named_once_and_plainly() {
        let path = Path { method: Method::ChatCompletions, place: None };
        let api = OpenAi { endpoint: String::new(), publisher: "vllm".to_owned() };
        let (publisher, model, ..) = path.named(&api, &json!({ "model": "meta-llama/Llama-4:x" })).unwrap();
        assert_eq!((publisher.as_str(), model.as_str()), ("vllm", "meta-llama/Llama-4:x"));
        for bad in
            [json!(""), json!("a b"), json!("a/../b"), json!("a//b"), json!("/a"), json!(1), json!("a?b")]
        {
            assert!(path.named(&api, &json!({ "model": bad })).is_err(), "{bad}");
        }
        assert!(path.named(&api, &json!({})).is_err());
        let (publisher, model, ..) =
            path.named_by_its_model(&json!({ "model": "google/gemini-2.5-flash" })).unwrap();
        assert_eq!((publisher.as_str(), model.as_str()), ("google", "gemini-2.5-flash"));
        for bad in ["gemini-2.5-flash", "google/gemini/x"] {
            assert!(path.named_by_its_model(&json!({ "model": bad })).is_err(), "{bad}");
        }
    }
}
