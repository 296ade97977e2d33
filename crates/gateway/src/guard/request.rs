//! A request's body → its texts, each with who says it.
//!
//! Everything that is text is looked at, but for what is known to be something else: fields that nobody has heard of yet are texts, too.

use serde_json::Value;
use signet_model::json::plain;

use super::{Blocked, Role};

/// Keys whose values are no texts, whatever the format: names, kinds, numbers that are written out, and data that is encoded.
const NO_TEXT: [&str; 28] = [
    "model",
    "role",
    "type",
    "id",
    "mimetype",
    "mediatype",
    "data",
    "fileuri",
    "gcsuri",
    "url",
    "fileid",
    "thoughtsignature",
    "signature",
    "encryptedcontent",
    "callid",
    "toolcallid",
    "tooluseid",
    "toolchoice",
    "mode",
    "detail",
    "format",
    "anthropicversion",
    "category",
    "threshold",
    "status",
    "bytesbase64encoded",
    "imageurl",
    "fileurl",
];

/// Visits every text of a body, in order.
///
/// # Errors
/// [`Blocked`], of who looks.
pub(crate) fn texts(
    body: &mut Value,
    look: &mut impl FnMut(Role, &mut String) -> Result<(), Blocked>,
) -> Result<(), Blocked> {
    let Value::Object(fields) = body else { return Ok(()) };
    for (key, value) in fields {
        let role = match &*plain(key) {
            "system" | "systeminstruction" | "instructions" => Role::System,
            "contents" | "messages" | "input" | "prompt" | "instances" | "suffix" | "content" => Role::User,
            "model" => continue,
            _ => Role::Declaration,
        };
        walk(role, Keys::Format, value, look)?;
    }
    Ok(())
}

/// What keys say of their values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// What the format says of them.
    Format,
    /// Nothing: they are somebody's own, and every string is text.
    Own,
}

fn walk(
    role: Role,
    keys: Keys,
    value: &mut Value,
    look: &mut impl FnMut(Role, &mut String) -> Result<(), Blocked>,
) -> Result<(), Blocked> {
    match value {
        Value::String(text) => look(role, text),
        Value::Array(list) => list.iter_mut().try_for_each(|value| walk(role, keys, value, look)),
        Value::Object(object) if keys == Keys::Own => {
            object.values_mut().try_for_each(|value| walk(role, keys, value, look))
        }
        Value::Object(object) => {
            let said = |key: &str| object.get(key).and_then(Value::as_str);
            let role = of(role, said("role"), said("type"));
            for (key, value) in object.iter_mut() {
                let key = plain(key);
                match &*key {
                    "functionresponse" | "toolresult" => walk(Role::Tool, keys, value, look)?,
                    // what is asked of a function, and what it gave, is text wherever it stands
                    "args" | "response" | "output" => walk(role, Keys::Own, value, look)?,
                    "input" if role == Role::Model => walk(role, Keys::Own, value, look)?,
                    _ if NO_TEXT.contains(&&*key) && !value.is_object() && !value.is_array() => {}
                    _ => walk(role, keys, value, look)?,
                }
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Who says what is in an object, by its role or its type.
fn of(outside: Role, role: Option<&str>, kind: Option<&str>) -> Role {
    match (role, kind) {
        (Some("system" | "developer"), _) => Role::System,
        (Some("assistant" | "model"), _) => Role::Model,
        (Some("tool" | "function"), _) => Role::Tool,
        (Some(_), _) => Role::User,
        (None, Some("tool_result" | "function_call_output" | "document" | "search_result")) => Role::Tool,
        (None, Some("function_call" | "tool_use")) => Role::Model,
        (None, _) => outside,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(mut body: Value, expected: &[(Role, &str)]) {
        let mut found = vec![];
        texts(&mut body, &mut |role, text| {
            found.push((role, text.clone()));
            Ok(())
        })
        .unwrap();
        let expected: Vec<_> = expected.iter().map(|(role, text)| (*role, (*text).to_owned())).collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn every_text_of_a_request_is_looked_at_with_who_says_it() {
        check(
            json!({
                "systemInstruction": {"parts": [{"text": "s"}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "u"}, {"inlineData": {"mimeType": "m", "data": "d"}}]},
                    {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"type": "a"}}}]},
                    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"id": "r"}}}]},
                ],
                "tools": [{"functionDeclarations": [{"name": "f", "description": "d"}]}],
            }),
            &[
                (Role::System, "s"),
                (Role::User, "u"),
                (Role::Model, "f"),
                (Role::Model, "a"),
                (Role::Tool, "f"),
                (Role::Tool, "r"),
                (Role::Declaration, "f"),
                (Role::Declaration, "d"),
            ],
        );
        check(
            json!({
                "model": "m",
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": [{"type": "text", "text": "u"}]},
                    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{a}"}}]},
                    {"role": "tool", "tool_call_id": "1", "content": "t"},
                ],
                "user": "who",
            }),
            &[
                (Role::System, "s"),
                (Role::User, "u"),
                (Role::Model, "f"),
                (Role::Model, "{a}"),
                (Role::Tool, "t"),
                (Role::Declaration, "who"),
            ],
        );
        check(
            json!({
                "instructions": "s",
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
                    {"type": "function_call", "call_id": "1", "arguments": "{a}"},
                    {"type": "function_call_output", "call_id": "1", "output": "t"},
                ],
            }),
            &[(Role::System, "s"), (Role::User, "u"), (Role::Model, "{a}"), (Role::Tool, "t")],
        );
        check(
            json!({
                "system": [{"type": "text", "text": "s"}],
                "messages": [
                    {"role": "user", "content": "u"},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "input": {"url": "a"}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "t"}]},
                ],
            }),
            &[(Role::System, "s"), (Role::User, "u"), (Role::Model, "a"), (Role::Tool, "t")],
        );
        check(
            json!({"instances": [{"content": "u", "new_field": "x"}]}),
            &[(Role::User, "u"), (Role::User, "x")],
        );
    }

    #[test]
    fn what_is_blocked_stops_there() {
        let mut seen = 0;
        let blocked = texts(&mut json!({"contents": ["a", "b"]}), &mut |_, _| {
            seen += 1;
            Err(Blocked { detail: "no".to_owned() })
        });
        assert_eq!((blocked, seen), (Err(Blocked { detail: "no".to_owned() }), 1));
    }
}
