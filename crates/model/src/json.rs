//! JSON that can be read in one way only: requests, and tokens.
//!
//! Two parsers may take different values of a key that is there twice, and Google's take `cached_content` for `cachedContent`.
//! What is authorised must be what the provider reads, so such objects are refused.
//!
//! INVARIANT: what is read takes no more room than its bytes and [`MAX_VALUES`] values do
//! (`what_would_take_far_more_room_than_its_bytes_is_refused`).

use std::{borrow::Cow, cell::Cell, collections::BTreeSet, fmt};

use memchr::memchr_iter;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Values of what is read. A key counts as one, and an object as eight more: they take as much room.
pub const MAX_VALUES: usize = 1 << 19;
/// What an object counts beside its keys and values.
const OBJECT: usize = 8;

/// Why something is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// It has more than [`MAX_VALUES`] values.
    TooMuch,
    /// It can be read in more than one way, or in none; a sentence that quotes no value.
    Unclear(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch => {
                write!(
                    f,
                    "it has more than {MAX_VALUES} keys and values, where an object counts as {OBJECT} more"
                )
            }
            Self::Unclear(detail) => f.write_str(detail),
        }
    }
}

/// How many values there are at most in what is not read yet.
pub fn values_at_most(bytes: &[u8]) -> usize {
    let count = |byte| memchr_iter(byte, bytes).count();
    (1 + 2 * count(b',') + count(b'[') + (2 + OBJECT) * count(b'{')).min(MAX_VALUES)
}

/// A key without what some parsers overlook: `cached_content` and `cachedContent` are one.
pub fn plain(key: &str) -> Cow<'_, str> {
    if key.bytes().all(|byte| byte.is_ascii() && byte != b'_' && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(key);
    }
    Cow::Owned(key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect())
}

/// Reads one value, and nothing behind it.
///
/// # Errors
/// [`Unread`].
pub fn read(bytes: &[u8]) -> Result<Value, Unread> {
    let left = Cell::new(Some(MAX_VALUES));
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(&left).deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| match left.get() {
        None => Unread::TooMuch,
        Some(_) => Unread::Unclear(said(&error)),
    })
}

/// What is wrong and where; values are left out by the library's own messages but for keys of ours.
fn said(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => return error.to_string(),
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "is no JSON",
    };
    format!("{kind} at line {} column {}", error.line(), error.column())
}

/// With how many values it may still have; none once it had too many.
#[derive(Clone, Copy)]
struct Strict<'c>(&'c Cell<Option<usize>>);

impl Strict<'_> {
    fn take<E: serde::de::Error>(self, count: usize) -> Result<(), E> {
        let left = self.0.get().and_then(|left| left.checked_sub(count));
        self.0.set(left);
        left.map(drop).ok_or_else(|| E::custom("there are too many values"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.take(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = vec![];
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        self.take(OBJECT)?;
        // the plain keys are those of `values` that are plain themselves, and those in `others`
        let (mut values, mut others) = (Map::new(), BTreeSet::new());
        while let Some(key) = object.next_key::<String>()? {
            self.take(1)?;
            let plain = plain(&key);
            let is_new = !values.contains_key(&*plain) && !others.contains(&*plain);
            if !is_new || (*plain != *key && !others.insert(plain.into_owned())) {
                return Err(A::Error::custom("a key is there twice, or in two spellings"));
            }
            values.insert(key, object.next_value_seed(self)?);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","Model":"b"}"#,
            r#"{"Model":"a","model":"b"}"#,
            r#"{"Model":"a","x":1,"mo_del":"b"}"#,
            r#"{"Model":"a","Model":"b"}"#,
            r#"{"cachedContent":"a","cached_content":"b"}"#,
            r#"{"a":[{"b":1,"B":2}]}"#,
            r#"{"a":1}{"a":2}"#,
            r#"{"a":1} x"#,
            "",
            r#"{"a":1e999}"#,
            &"[".repeat(1000),
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_one_way_is_what_every_parser_reads() {
        let text = r#"{"b":[1,-2,3.5,null,true,"x\u00e9"],"a":{"c":{}},"big":18446744073709551615}"#;
        assert_eq!(read(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()));
    }

    #[test]
    fn what_is_wrong_is_said_without_what_was_written() {
        let said = [r#"{"secret": "canary" "#, r#"{"a":"canary","a":1}"#]
            .map(|text| read(text.as_bytes()).unwrap_err());
        assert!(!format!("{said:?}").contains("canary"), "{said:?}");
    }

    #[test]
    fn what_would_take_far_more_room_than_its_bytes_is_refused() {
        let list = |value: &str, count: usize| format!("[{}{value}]", format!("{value},").repeat(count - 1));
        let object = 1 + OBJECT + 2;
        for (value, most) in [("0", MAX_VALUES - 1), (r#"{"a":0}"#, (MAX_VALUES - 1) / object)] {
            assert!(read(list(value, most).as_bytes()).is_ok(), "{value}");
            assert_eq!(read(list(value, most + 1).as_bytes()), Err(Unread::TooMuch), "{value}");
            assert_eq!(values_at_most(list(value, most + 1).as_bytes()), MAX_VALUES);
        }
        assert_eq!(values_at_most(br#"{"a":[0,{}],"b":"x"}"#), 26);
    }
}
