//! Requests of providers' own formats → calls.

pub(crate) mod vertex;

use std::collections::BTreeSet;

use serde_json::Value;
use signet_model::{Feature, json::plain};

/// What a body makes use of, wherever in it that is: what is meant by a key does not depend on where it may stand.
pub(crate) fn uses(body: &Value) -> BTreeSet<Feature> {
    let mut found = BTreeSet::new();
    look(body, &mut found);
    found
}

fn look(value: &Value, found: &mut BTreeSet<Feature>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| look(value, found)),
        Value::Object(object) => {
            for (key, value) in object {
                match plain(key).as_str() {
                    // what a function takes and gives is the caller's own
                    "args" | "parametersjsonschema" | "responsejsonschema" | "inputschema" => continue,
                    "cachedcontent" => drop(found.insert(Feature::CachedContent)),
                    "filedata" | "fileuri" | "gcsuri" => drop(found.insert(Feature::FileData)),
                    "safetysettings" => drop(found.insert(Feature::SafetySettings)),
                    "modelarmorconfig" => drop(found.insert(Feature::ModelArmor)),
                    "tools" => tools(value, found),
                    _ => {}
                }
                look(value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Functions that the caller answers for, or tools of the provider: whatever is not known to be the former is the latter.
fn tools(list: &Value, found: &mut BTreeSet<Feature>) {
    let tools = list.as_array().map_or(&[][..], Vec::as_slice);
    if tools.is_empty() && !list.is_array() {
        found.insert(Feature::Grounding);
    }
    for tool in tools {
        let object = tool.as_object();
        let of_gemini = |key: &String| plain(key) == "functiondeclarations";
        let of_anthropic = || object.is_some_and(|tool| tool.contains_key("input_schema"));
        let is_functions =
            object.is_some_and(|tool| !tool.is_empty() && tool.keys().all(of_gemini)) || of_anthropic();
        found.insert(if is_functions { Feature::Tools } else { Feature::Grounding });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
            (json!({"instances": [{"image": {"gcsUri": "gs://b/o"}}]}), &[Feature::FileData]),
            (json!({"safetySettings": []}), &[Feature::SafetySettings]),
            (json!({"modelArmorConfig": {}}), &[Feature::ModelArmor]),
            (json!({"tools": [{"functionDeclarations": []}]}), &[Feature::Tools]),
            (
                json!({"tools": [{"function_declarations": []}, {"googleSearch": {}}]}),
                &[Feature::Tools, Feature::Grounding],
            ),
            (json!({"tools": [{"functionDeclarations": [], "codeExecution": {}}]}), &[Feature::Grounding]),
            (json!({"tools": [{"name": "f", "input_schema": {}}]}), &[Feature::Tools]),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                &[Feature::Grounding],
            ),
            (json!({"tools": {"0": {}}}), &[Feature::Grounding]),
            (json!({"contents": [{"parts": [{"functionCall": {"args": {"fileUri": "x"}}}]}]}), &[]),
        ];
        for (body, expected) in cases {
            assert_eq!(uses(&body), expected.iter().copied().collect(), "{body}");
        }
    }
}
