//! What a request makes use of beside text.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use signet_model::{Feature, json::plain};

use super::Format;

/// What a body makes use of, wherever in it that is: what is meant by a key does not depend on where it may stand.
pub(super) fn of(format: Format, body: &Value) -> BTreeSet<Feature> {
    let mut looking = Looking { format, found: BTreeSet::new() };
    looking.at(body);
    looking.found
}

/// How the keys end of what is elsewhere.
const REFERENCES: [&str; 5] = ["url", "uri", "urls", "fileid", "fileids"];

/// Types of what a search of the provider's found, which is shown to it again with the conversation.
const FOUND: [&str; 3] = ["url_citation", "web_search_result", "web_search_result_location"];

struct Looking {
    format: Format,
    found: BTreeSet<Feature>,
}

impl Looking {
    fn at(&mut self, value: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|value| self.at(value)),
            Value::Object(object) => self.object(object),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn object(&mut self, object: &Map<String, Value>) {
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        self.item(kind, object);
        for (key, value) in object {
            match &*plain(key) {
                // what a function takes and gives is the caller's own
                "args"
                | "parametersjsonschema"
                | "responsejsonschema"
                | "responseschema"
                | "inputschema"
                | "jsonschema" => continue,
                "schema" if kind == "json_schema" => continue,
                "response" if self.format == Format::Gemini => continue,
                "input" if kind == "tool_use" && self.format == Format::Messages => continue,
                "cachedcontent" | "previousresponseid" | "conversation" => self.uses(Feature::CachedContent),
                // a prompt that is stored has an id; one that is not is text
                "prompt" if value.is_object() && self.format == Format::Responses => {
                    self.uses(Feature::CachedContent);
                }
                // OpenAI's is the file itself, Google's says where it is
                "filedata" if !matches!(self.format, Format::Gemini | Format::Predict) => {
                    self.uses(Feature::InlineData);
                }
                "filedata" => self.uses(Feature::FileData),
                "inlinedata" | "inputaudio" | "bytesbase64encoded" => self.uses(Feature::InlineData),
                // what a search found is told as text
                "url" if FOUND.contains(&kind) => {}
                key if REFERENCES.iter().any(|end| key.ends_with(end)) => self.reference(value),
                "image" | "video" | "audio" if !value.is_object() => self.reference(value),
                key if key.ends_with("embeds") => self.uses(Feature::InlineData),
                "safetysettings" => self.uses(Feature::SafetySettings),
                "modelarmorconfig" => self.uses(Feature::ModelArmor),
                "mcpservers" | "container" | "websearchoptions" => self.uses(Feature::Grounding),
                "functions" if matches!(self.format, Format::Chat) => {
                    self.uses(Feature::Tools);
                    continue;
                }
                "tools" => {
                    self.tools(value);
                    continue;
                }
                _ => {}
            }
            self.at(value);
        }
    }

    fn uses(&mut self, feature: Feature) {
        self.found.insert(feature);
    }

    /// An item of a list of messages, by its type.
    fn item(&mut self, kind: &str, object: &Map<String, Value>) {
        match kind {
            // Anthropic's sources of images and documents
            "url" | "file" if object.contains_key("url") || object.contains_key("file_id") => {
                self.uses(Feature::FileData);
            }
            "base64" => self.uses(Feature::InlineData),
            "item_reference" => self.uses(Feature::CachedContent),
            "file" | "input_file" => self.uses(Feature::InlineData),
            _ => {}
        }
    }

    /// Images, sounds and the like: in the request itself, or to be fetched, or written. Servers take other keys than the
    /// formats name, so whatever is called so is one.
    fn reference(&mut self, value: &Value) {
        let texts = match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => return,
            Value::Array(list) => return list.iter().for_each(|value| self.reference(value)),
            Value::Object(object) => object.get("url").and_then(Value::as_str),
            Value::String(text) => Some(text.as_str()),
        };
        let scheme = texts.and_then(|text| text.get(..5));
        let is_inline = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
        self.uses(if is_inline { Feature::InlineData } else { Feature::FileData });
    }

    /// Functions that the caller answers for, or tools of the provider: whatever is not known to be the former is the latter.
    fn tools(&mut self, list: &Value) {
        let tools = list.as_array().map_or(&[][..], Vec::as_slice);
        if tools.is_empty() && !list.is_array() {
            self.uses(Feature::Grounding);
        }
        for tool in tools {
            let is_functions = tool.as_object().is_some_and(|tool| is_functions(self.format, tool));
            self.uses(if is_functions { Feature::Tools } else { Feature::Grounding });
        }
    }
}

fn is_functions(format: Format, tool: &Map<String, Value>) -> bool {
    let kind = tool.get("type").and_then(Value::as_str);
    match format {
        Format::Gemini | Format::Predict => {
            !tool.is_empty() && tool.keys().all(|key| plain(key) == "functiondeclarations")
        }
        Format::Messages => tool.contains_key("input_schema") && matches!(kind, None | Some("custom")),
        Format::Chat | Format::Responses | Format::Completions | Format::Embeddings => {
            matches!(kind, Some("function" | "custom"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(format: Format, cases: &[(Value, &[Feature])]) {
        for (body, expected) in cases {
            assert_eq!(of(format, body), expected.iter().copied().collect(), "{body}");
        }
    }

    #[test]
    fn what_a_request_makes_use_of_is_found_wherever_it_stands() {
        let contents = json!([{"role": "user", "parts": [{"text": "cachedContent"}]}]);
        let cases = [
            (json!({"contents": contents}), &[][..]),
            (json!({"cachedContent": "x"}), &[Feature::CachedContent]),
            (json!({"cached_content": "x"}), &[Feature::CachedContent]),
            (
                json!({"contents": [{"parts": [{"file_data": {"file_uri": "gs://b/o"}}]}]}),
                &[Feature::FileData],
            ),
            (json!({"contents": [{"parts": [{"inlineData": {"data": "AA"}}]}]}), &[Feature::InlineData]),
            (json!({"instances": [{"image": {"gcsUri": "gs://b/o"}}]}), &[Feature::FileData]),
            (json!({"safetySettings": []}), &[Feature::SafetySettings]),
            (json!({"modelArmorConfig": {}}), &[Feature::ModelArmor]),
            (json!({"tools": [{"functionDeclarations": []}]}), &[Feature::Tools]),
            (
                json!({"tools": [{"function_declarations": []}, {"googleSearch": {}}]}),
                &[Feature::Tools, Feature::Grounding],
            ),
            (json!({"tools": [{"functionDeclarations": [], "codeExecution": {}}]}), &[Feature::Grounding]),
            (json!({"tools": {"0": {}}}), &[Feature::Grounding]),
            (json!({"instances": [], "parameters": {"storageUri": "gs://b"}}), &[Feature::FileData]),
            (json!({"generationConfig": {"responseSchema": {"properties": {"url": {}}}}}), &[]),
            (json!({"contents": [{"parts": [{"functionResponse": {"response": {"url": "x"}}}]}]}), &[]),
            (json!({"contents": [{"parts": [{"functionCall": {"args": {"fileUri": "x"}}}]}]}), &[]),
        ];
        check(Format::Gemini, &cases);
    }

    #[test]
    fn what_openai_is_asked_for_is_found() {
        let function = json!({"type": "function", "function": {"name": "f", "parameters": {"fileUri": {}}}});
        let part = |part: Value| json!({"messages": [{"content": [part]}]});
        let image = |url: &str| part(json!({"type": "image_url", "image_url": {"url": url}}));
        let cases = [
            (json!({"messages": [{"role": "user", "content": "file_id"}]}), &[][..]),
            (json!({"tools": [function]}), &[Feature::Tools]),
            (json!({"functions": []}), &[Feature::Tools]),
            (json!({"tools": [{"type": "web_search"}]}), &[Feature::Grounding]),
            (json!({"tools": [{"type": "mcp", "server_url": "https://x"}]}), &[Feature::Grounding]),
            (json!({"web_search_options": {}}), &[Feature::Grounding]),
            (image("https://x/y.png"), &[Feature::FileData]),
            (image("data:image/png;base64,AA"), &[Feature::InlineData]),
            (image("DATA:image/png;base64,AA"), &[Feature::InlineData]),
            // of vLLM
            (
                part(json!({"type": "video_url", "video_url": {"url": "http://169.254.169.254/"}})),
                &[Feature::FileData],
            ),
            (
                part(json!({"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AA"}})),
                &[Feature::InlineData],
            ),
            (part(json!({"type": "video", "video": ["https://x/1.png"]})), &[Feature::FileData]),
            (part(json!({"type": "image_embeds", "image_embeds": "AA"})), &[Feature::InlineData]),
            (part(json!({"type": "new", "new_uri": "gs://b/o"})), &[Feature::FileData]),
            (json!({"audio": {"voice": "alloy"}, "image": null}), &[]),
            (
                json!({"functions": [{"name": "f", "parameters": {"properties": {"url": {}}}}]}),
                &[Feature::Tools],
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"image_url": {}}}}}),
                &[],
            ),
        ];
        check(Format::Chat, &cases);
        let cases = [
            (json!({"previous_response_id": "r"}), &[Feature::CachedContent][..]),
            (json!({"prompt": {"id": "p"}}), &[Feature::CachedContent]),
            (
                json!({"input": [{"content": [{"type": "input_image", "image_url": "https://x"}]}]}),
                &[Feature::FileData],
            ),
            (
                json!({"input": [{"type": "input_file", "file_id": "f"}]}),
                &[Feature::FileData, Feature::InlineData],
            ),
            (json!({"tools": [{"type": "function", "name": "f"}]}), &[Feature::Tools]),
            // what hides nothing in another format
            (json!({"type": "tool_use", "input": [{"file_id": "f"}]}), &[Feature::FileData]),
            (json!({"text": {"format": {"type": "json_schema", "schema": {"url": {}}}}}), &[]),
            (json!({"input": [{"content": [{"annotations": [{"type": "url_citation", "url": "x"}]}]}]}), &[]),
        ];
        check(Format::Responses, &cases);
    }

    #[test]
    fn what_anthropic_is_asked_for_is_found() {
        let image = |source: Value| json!({"messages": [{"content": [{"type": "image", "source": source}]}]});
        let cases = [
            (json!({"messages": [{"role": "user", "content": "url"}]}), &[][..]),
            (json!({"tools": [{"name": "f", "input_schema": {}}]}), &[Feature::Tools]),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                &[Feature::Grounding],
            ),
            (json!({"tools": [{"type": "computer_20250124", "input_schema": {}}]}), &[Feature::Grounding]),
            (json!({"mcp_servers": []}), &[Feature::Grounding]),
            (image(json!({"type": "url", "url": "https://x"})), &[Feature::FileData]),
            (image(json!({"type": "file", "file_id": "f"})), &[Feature::FileData]),
            (image(json!({"type": "base64", "data": "AA"})), &[Feature::InlineData]),
            (json!({"messages": [{"content": [{"type": "tool_use", "input": {"file_id": "x"}}]}]}), &[]),
        ];
        check(Format::Messages, &cases);
    }
}
