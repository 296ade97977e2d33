//! Ports and protocols as several kinds write them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use signet_identity::Protocol;

use crate::{names, object::Report};

/// `IntOrString`: a number, not yet in bounds, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntOrStringVisitor)
    }
}

struct IntOrStringVisitor;

impl Visitor<'_> for IntOrStringVisitor {
    type Value = IntOrString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number or name of a port")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(IntOrString::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        // Far out of bounds either way.
        Ok(IntOrString::Int(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(IntOrString::String(name.to_owned()))
    }
}

/// A port number, 1 to 65535; what is wrong with it goes to `report`.
pub(crate) fn number(number: i64, field: &str, report: &mut Report<'_>) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        report.add(field, format_args!("{number} is not a port: it must be between 1 and 65535"));
    }
    port
}

/// The name of a port; what is wrong with it goes to `report`.
pub(crate) fn name(name: &str, field: &str, report: &mut Report<'_>) {
    report.check(field, names::port_name_fault(name).map(|fault| format!("{name:?}: {fault}")));
}

/// A protocol with ports, TCP where none is named; what is wrong with it goes to `report`.
pub(crate) fn protocol(name: Option<&str>, field: &str, report: &mut Report<'_>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(other) => {
            report.add(field, format_args!("{other:?} is not one of TCP, UDP and SCTP"));
            None
        }
    }
}
