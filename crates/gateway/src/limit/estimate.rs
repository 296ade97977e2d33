//! What a request may come to at most, by its body, and caps that are written into one.
//!
//! INVARIANT: what cannot be read as a number caps nothing (`what_is_no_cap_caps_nothing`), and a cap that was written is the one
//! that is read (`a_cap_that_is_written_is_the_one_that_is_read`).

use serde_json::{Map, Value, json};
use signet_model::{Call, Estimate, Feature, Method, Output, json::plain};

use crate::wire::Format;

/// Tokens that providers add to explain tools to a model, for which a request has no bytes. Anthropic's tables end below 800.
const TOOLS_OVERHEAD: u64 = 1024;
/// The publisher of models that are deployed: what they understand is not known.
const DEPLOYED: &str = "endpoints";
/// The one whose newer models take no `max_tokens`; all others' take it.
const OPENAI: &str = "openai";

/// What a request of so many bytes comes to at most; `value` is its body.
pub(crate) fn estimate(format: Format, call: &Call, bytes: usize, value: &Value) -> Estimate {
    let overhead = if call.uses.contains(&Feature::Tools) { TOOLS_OVERHEAD } else { 0 };
    let input = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(overhead);
    let (output, answers) = match answers(format, value) {
        Some(answers) => (output(format, call, value), answers),
        // a number of answers that is none
        None => (Output::Unknown, 1),
    };
    Estimate { input, open_input: None, unpriced: unpriced(value), output, answers }
}

/// Writes a cap on each answer's tokens into a body, in place of what it says of that.
///
/// # Errors
/// It has the cap's place taken by something else.
pub(crate) fn cap(format: Format, call: &Call, value: &mut Value, cap: u64) -> Result<(), String> {
    let object = value.as_object_mut().ok_or("the body is no JSON object")?;
    let place = match format {
        Format::Gemini => {
            let key = key_of(object, "generationconfig").unwrap_or_else(|| "generationConfig".to_owned());
            let config = object.entry(key).or_insert_with(|| json!({}));
            if config.is_null() {
                *config = json!({});
            }
            config.as_object_mut().ok_or("generationConfig is no JSON object")?
        }
        _ => object,
    };
    let names = caps(format);
    let mut written = false;
    for name in names {
        if let Some(key) = key_of(place, &plain(name)) {
            place.insert(key, cap.into());
            written = true;
        }
    }
    if !written {
        let is_own =
            |name: &&str| format != Format::Chat || (*name == names[0]) == (call.publisher == OPENAI);
        let name = names.iter().copied().find(is_own).ok_or("such a request takes no cap")?;
        place.insert(name.to_owned(), cap.into());
    }
    Ok(())
}

/// Where caps stand.
fn caps(format: Format) -> &'static [&'static str] {
    match format {
        Format::Gemini => &["maxOutputTokens"],
        Format::Chat => &["max_completion_tokens", "max_tokens"],
        Format::Responses => &["max_output_tokens"],
        Format::Completions | Format::Messages => &["max_tokens"],
        Format::Predict | Format::Embeddings => &[],
    }
}

fn output(format: Format, call: &Call, value: &Value) -> Output {
    match (format, call.method) {
        (_, Method::CountTokens | Method::CountMessageTokens | Method::EmbedContent | Method::Embeddings)
        | (Format::Embeddings, _) => Output::None,
        (Format::Predict, _) => Output::Unknown,
        _ if call.publisher == DEPLOYED => Output::Unknown,
        _ => {
            let place = match format {
                Format::Gemini => field(value, "generationconfig").unwrap_or(&Value::Null),
                _ => value,
            };
            // where there are two, either may be the one that counts
            let said = caps(format).iter().filter_map(|name| field(place, &plain(name)));
            let caps: Vec<Option<u64>> = said.filter(|value| !value.is_null()).map(number).collect();
            match caps.into_iter().reduce(|a, b| Some(a?.max(b?))).flatten() {
                Some(cap) => Output::Capped(cap),
                None => Output::Uncapped,
            }
        }
    }
}

/// How many answers are asked for, and paid for. `None`: it cannot be told.
fn answers(format: Format, value: &Value) -> Option<u64> {
    let count = |value: &Value, name: &str| match field(value, name) {
        None | Some(Value::Null) => Some(1),
        Some(count) => number(count),
    };
    match format {
        Format::Gemini => field(value, "generationconfig").map_or(Some(1), |c| count(c, "candidatecount")),
        Format::Chat => count(value, "n"),
        // the best of many are many, and each prompt has its own
        Format::Completions => {
            Some(count(value, "n")?.max(count(value, "bestof")?).saturating_mul(prompts(value)))
        }
        Format::Predict | Format::Responses | Format::Embeddings | Format::Messages => Some(1),
    }
}

/// What makes tokens dearer than lists say.
fn unpriced(value: &Value) -> Option<String> {
    const AT_MOST_THE_PRICE: [&str; 5] = ["auto", "default", "flex", "standard_only", "standard"];
    let said = ["servicetier", "speed"].into_iter().filter_map(|name| Some((name, field(value, name)?)));
    let mut dear = said.filter(|(_, value)| match value {
        Value::Null => false,
        Value::String(text) => !AT_MOST_THE_PRICE.contains(&text.as_str()),
        _ => true,
    });
    let dear = dear.next().map(|(name, _)| if name == "speed" { name } else { "service_tier" });
    dear.or_else(|| makes_more_than_text(value).then_some("modalities")).map(str::to_owned)
}

/// Whether images or sounds may come back, whose tokens have prices of their own.
fn makes_more_than_text(value: &Value) -> bool {
    let of_gemini = field(value, "generationconfig").and_then(|config| field(config, "responsemodalities"));
    let is_text = |kind: &Value| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("text"));
    [of_gemini, field(value, "modalities")].into_iter().flatten().any(|wanted| match wanted {
        Value::Null => false,
        Value::Array(list) => !list.iter().all(is_text),
        _ => true,
    })
}

fn prompts(value: &Value) -> u64 {
    match field(value, "prompt") {
        // a list of numbers is one prompt, in tokens
        Some(Value::Array(list)) if !list.iter().all(Value::is_number) => {
            u64::try_from(list.len()).unwrap_or(u64::MAX)
        }
        _ => 1,
    }
}

/// A number above nothing, in each form that some provider takes for one. Nothing is no cap: there are those to whom it says
/// that there is none.
fn number(value: &Value) -> Option<u64> {
    /// Beyond, floating point numbers are not exact.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let number = match value {
        Value::String(text) => text.parse::<u64>().ok(),
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| (1.0..=MOST).contains(float))?;
            // rounded up: some cut off, some round
            format!("{:.0}", float.ceil()).parse().ok()
        }),
        _ => None,
    };
    number.filter(|number| *number > 0)
}

/// A field, in whichever spelling.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object()?.iter().find(|(key, _)| plain(key) == name).map(|(_, value)| value)
}

fn key_of(object: &Map<String, Value>, name: &str) -> Option<String> {
    object.keys().find(|key| plain(key) == name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(publisher: &str, method: Method) -> Call {
        Call {
            provider: "p".into(),
            publisher: publisher.into(),
            model: "m".into(),
            method,
            uses: Default::default(),
        }
    }

    fn of(format: Format, call: &Call, value: &Value) -> (Output, u64) {
        let Estimate { output, answers, .. } = estimate(format, call, value.to_string().len(), value);
        (output, answers)
    }

    /// Each format, with a publisher and a method of its own.
    fn formats() -> Vec<(Format, Call)> {
        vec![
            (Format::Gemini, call("google", Method::GenerateContent)),
            (Format::Chat, call("openai", Method::ChatCompletions)),
            (Format::Chat, call("mistralai", Method::RawPredict)),
            (Format::Responses, call("openai", Method::Responses)),
            (Format::Completions, call("vllm", Method::Completions)),
            (Format::Messages, call("anthropic", Method::Messages)),
        ]
    }

    #[test]
    fn what_a_request_may_come_to_is_read_in_every_format() {
        let cases = [
            (
                0,
                json!({"generationConfig": {"maxOutputTokens": 9, "candidateCount": 3}}),
                (Output::Capped(9), 3),
            ),
            (0, json!({"generation_config": {"max_output_tokens": "9"}}), (Output::Capped(9), 1)),
            (1, json!({"max_completion_tokens": 9, "n": 2}), (Output::Capped(9), 2)),
            (1, json!({"max_completion_tokens": 9, "max_tokens": 10}), (Output::Capped(10), 1)),
            (2, json!({"max_tokens": 9.5}), (Output::Capped(10), 1)),
            (3, json!({"max_output_tokens": 9}), (Output::Capped(9), 1)),
            (4, json!({"max_tokens": 9, "best_of": 4, "n": 2, "prompt": ["a", "b"]}), (Output::Capped(9), 8)),
            (4, json!({"max_tokens": 9, "prompt": [1, 2, 3]}), (Output::Capped(9), 1)),
            (5, json!({"max_tokens": 9}), (Output::Capped(9), 1)),
        ];
        for (index, value, expected) in cases {
            let (format, call) = &formats()[index];
            assert_eq!(of(*format, call, &value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_cap_caps_nothing() {
        for (format, call) in formats() {
            let none =
                [json!(null), json!(0), json!(-1), json!("many"), json!([9]), json!(1e300), json!(true)];
            for said in none {
                let value = match format {
                    Format::Gemini => json!({"generationConfig": {"maxOutputTokens": said}}),
                    Format::Responses => json!({"max_output_tokens": said}),
                    _ => json!({"max_tokens": said}),
                };
                assert_eq!(of(format, &call, &value), (Output::Uncapped, 1), "{format:?} {value}");
            }
            assert_eq!(of(format, &call, &json!({})), (Output::Uncapped, 1), "{format:?}");
        }
        let (format, call) = &formats()[1];
        assert_eq!(of(*format, call, &json!({"n": "many", "max_tokens": 1})).0, Output::Unknown);
        assert_eq!(
            of(*format, call, &json!({"max_tokens": 1, "max_completion_tokens": 0})).0,
            Output::Uncapped
        );
    }

    #[test]
    fn what_has_no_answer_in_tokens_and_what_nobody_can_cap_are_told_apart() {
        let cases = [
            (Format::Gemini, call("google", Method::CountTokens), Output::None),
            (Format::Gemini, call("google", Method::EmbedContent), Output::None),
            (Format::Messages, call("anthropic", Method::CountMessageTokens), Output::None),
            (Format::Embeddings, call("openai", Method::Embeddings), Output::None),
            (Format::Predict, call("google", Method::Predict), Output::Unknown),
            (Format::Chat, call("endpoints", Method::RawPredict), Output::Unknown),
        ];
        for (format, call, expected) in cases {
            assert_eq!(of(format, &call, &json!({"max_tokens": 5})).0, expected, "{call:?}");
        }
    }

    #[test]
    fn a_cap_that_is_written_is_the_one_that_is_read() {
        let bodies = [
            json!({}),
            json!({"generationConfig": {"maxOutputTokens": 100, "temperature": 0.5}, "max_tokens": 100}),
            json!({"generation_config": {"max_output_tokens": "x"}, "max_output_tokens": 100}),
            json!({"generationConfig": null, "max_tokens": 0, "max_completion_tokens": 7}),
            json!({"Max_Tokens": 100}),
        ];
        for (format, call) in formats() {
            for body in &bodies {
                let mut value = body.clone();
                cap(format, &call, &mut value, 5).unwrap();
                assert_eq!(of(format, &call, &value).0, Output::Capped(5), "{format:?} {body} {value}");
            }
        }
        let written = |index: usize| {
            let (format, call) = &formats()[index];
            let mut value = json!({});
            cap(*format, call, &mut value, 5).unwrap();
            value.to_string()
        };
        assert_eq!(written(0), r#"{"generationConfig":{"maxOutputTokens":5}}"#);
        assert_eq!(written(1), r#"{"max_completion_tokens":5}"#);
        assert_eq!(written(2), r#"{"max_tokens":5}"#);
        let mut odd = json!({"generationConfig": 7});
        assert!(cap(Format::Gemini, &formats()[0].1, &mut odd, 5).is_err());
    }

    #[test]
    fn what_changes_prices_is_named() {
        let unpriced = |value: Value| unpriced(&value);
        for usual in
            [json!({}), json!({"service_tier": "auto"}), json!({"service_tier": null, "speed": "standard"})]
        {
            assert_eq!(unpriced(usual), None);
        }
        assert_eq!(unpriced(json!({"service_tier": "priority"})), Some("service_tier".to_owned()));
        assert_eq!(unpriced(json!({"serviceTier": 7})), Some("service_tier".to_owned()));
        assert_eq!(unpriced(json!({"speed": "fast"})), Some("speed".to_owned()));
        for dear in [
            json!({"modalities": ["text", "audio"]}),
            json!({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}),
            json!({"generation_config": {"response_modalities": "AUDIO"}}),
        ] {
            assert_eq!(unpriced(dear), Some("modalities".to_owned()));
        }
        assert_eq!(
            unpriced(json!({"modalities": ["text"], "generationConfig": {"responseModalities": null}})),
            None
        );
    }

    #[test]
    fn the_bytes_of_a_request_bound_what_goes_in() {
        let value = json!({"messages": [{"role": "user", "content": "Grüße"}]});
        let bytes = value.to_string().len();
        let mut call = call("openai", Method::ChatCompletions);
        assert_eq!(estimate(Format::Chat, &call, bytes, &value).input, bytes as u64);
        call.uses.insert(Feature::Tools);
        assert_eq!(estimate(Format::Chat, &call, bytes, &value).input, bytes as u64 + 1024);
    }
}
