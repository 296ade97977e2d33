//! The fields of a flow by name, and where they are in its encoded form.
//!
//! For what is said about fields at run time: masks and expressions. Everything else uses the types.

use prost::{
    bytes::Buf as _,
    encoding::{WireType, decode_key, decode_varint},
};

/// A message of the schema.
#[derive(Debug)]
pub(crate) struct Message {
    /// `flow.Endpoint`.
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
}

/// What a field holds. Enums are numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    Int,
    Uint,
    Text,
    Bytes,
    Message(&'static Message),
}

include!("gen/flow.fields.rs");

impl Message {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The number of `Verdict.DROPPED` and its like.
pub(crate) fn enum_value(name: &str) -> Option<i32> {
    let name = name.strip_prefix("flow.").unwrap_or(name);
    ENUMS.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| ENUMS[at].1)
}

/// One field of an encoded message.
pub(crate) struct Piece<'a> {
    pub(crate) number: u32,
    pub(crate) value: Encoded<'a>,
    /// All of it, with its key.
    pub(crate) whole: &'a [u8],
}

/// Its value.
#[derive(Clone, Copy)]
pub(crate) enum Encoded<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of an encoded message, in order; they end where it is broken.
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let start = self.0;
        let mut rest = start;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let value = match wire_type {
            WireType::Varint => Encoded::Number(decode_varint(&mut rest).ok()?),
            WireType::SixtyFourBit => Encoded::Number(rest.try_get_u64_le().ok()?),
            WireType::ThirtyTwoBit => Encoded::Number(rest.try_get_u32_le().ok()?.into()),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                Encoded::Bytes(value)
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        self.0 = rest;
        Some(Piece { number, value, whole: &start[..start.len() - rest.len()] })
    }
}
