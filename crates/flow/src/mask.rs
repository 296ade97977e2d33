//! Which fields of a flow somebody wants: Hubble's field masks.
//!
//! A path names a field by its name in the schema, and goes on into messages with dots: `source.pod_name`. What no path
//! names is left out. One exception: Hubble's own CLI prints more of an event than it asks for, so whoever asks for
//! `event_type` gets the fields that explain it as well.

use std::collections::BTreeMap;

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

use crate::{
    fields::{Encoded, FLOW_FLOW, Kind, Message, Pieces},
    flow::Flow,
};

/// What Hubble's CLI prints of an event but does not ask for.
const EXPLAINING: [&str; 9] = [
    "traffic_direction",
    "policy_match_type",
    "drop_reason_desc",
    "auth_type",
    "trace_observation_point",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
];

/// Why a mask was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field mask {path:?}: {problem}")]
pub struct MaskError {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The fields that are wanted.
#[derive(Debug, Default)]
pub struct Mask {
    /// By number; the part that is wanted of each, or nothing for all of it.
    fields: BTreeMap<u32, Option<Mask>>,
}

impl Mask {
    /// The fields with these paths; nothing where there are none, which asks for everything.
    ///
    /// # Errors
    /// [`MaskError`] for the first path that names no field.
    pub fn new(paths: &[String]) -> Result<Option<Self>, MaskError> {
        if paths.is_empty() {
            return Ok(None);
        }
        let mut mask = Self::default();
        for path in paths {
            let add = mask.add(path, &FLOW_FLOW);
            add.map_err(|problem| MaskError { path: path.clone(), problem })?;
        }
        if FLOW_FLOW.field("event_type").is_some_and(|kind| mask.fields.contains_key(&kind.number)) {
            for field in EXPLAINING.into_iter().filter_map(|name| FLOW_FLOW.field(name)) {
                mask.fields.insert(field.number, None);
            }
        }
        Ok(Some(mask))
    }

    fn add(&mut self, path: &str, message: &'static Message) -> Result<(), String> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let field = message.field(name).ok_or_else(|| format!("{} has no field {name:?}", message.name))?;
        match (rest, field.kind) {
            (None, _) => {
                self.fields.insert(field.number, None);
                Ok(())
            }
            (Some(_), Kind::Message(_)) if field.repeated => {
                Err(format!("{name} is a list: only all of it can be asked for"))
            }
            (Some(rest), Kind::Message(inner)) => {
                // a part of what is wanted whole changes nothing, but must be one
                let entry = self.fields.entry(field.number).or_insert_with(|| Some(Self::default()));
                entry.as_mut().unwrap_or(&mut Self::default()).add(rest, inner)
            }
            (Some(_), _) => Err(format!("{name} has no fields")),
        }
    }

    /// The flow with what is wanted of it.
    pub fn apply(&self, flow: &Flow) -> Flow {
        let mut kept = vec![];
        self.keep(&flow.encode_to_vec(), &mut kept);
        // what was encoded a line above is readable
        Flow::decode(kept.as_slice()).unwrap_or_default()
    }

    fn keep(&self, encoded: &[u8], kept: &mut Vec<u8>) {
        for piece in Pieces(encoded) {
            match (self.fields.get(&piece.number), piece.value) {
                (None, _) => {}
                (Some(Some(part)), Encoded::Bytes(message)) => {
                    let mut inner = vec![];
                    part.keep(message, &mut inner);
                    encode_key(piece.number, WireType::LengthDelimited, kept);
                    encode_varint(inner.len() as u64, kept);
                    kept.extend(inner);
                }
                (Some(_), _) => kept.extend(piece.whole),
            }
        }
    }
}
