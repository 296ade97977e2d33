//! Filters in the Common Expression Language, over the flow as `_flow`: `_flow.source.namespace == "shop" &&
//! _flow.verdict == Verdict.DROPPED`.
//!
//! Fields have the names of the schema; one that is not set has its default, and `has(_flow.l4.TCP)` tells. Enums are
//! numbers, with their values as constants. An expression that fails on a flow does not match it.

use std::any::Any;

use cel::{
    Context, ExecutionError,
    common::{
        traits::Indexer,
        types::{CelBool, CelBytes, CelInt, CelList, CelNull, CelString, CelUInt, DYN_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
    context::VariableResolver,
};
use prost::{Message as _, bytes::Bytes};
use regex::Regex;
use signet_expression::Schema;

use crate::{
    fields::{Encoded, FLOW_FLOW, Field, Kind, Message, Pieces, enum_value},
    flow::Flow,
    layer7,
};

/// The variable.
const FLOW: &str = "_flow";
/// Before the name of a field whose presence is asked.
const PRESENT: char = '?';

/// One expression, ready to be asked.
#[derive(Debug)]
pub(crate) struct Expression(signet_expression::Expression);

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        let nothing = Flows { example: Variables::of(&Flow::default()) };
        signet_expression::Expression::compile(text, &nothing).map(Self)
    }

    /// Whether it is true of the flow.
    pub(crate) fn holds(&self, flow: &Flow) -> bool {
        let variables = Variables::of(flow);
        matches!(self.0.evaluate(|context| context.set_variable_resolver(&variables)), Ok(Some(true)))
    }
}

/// What flows have.
struct Flows {
    example: Variables,
}

impl Schema for Flows {
    type Shape = Shape;

    const OTHER: Shape = Shape::Other;

    fn variable(&self, name: &str) -> Result<Shape, String> {
        match name {
            FLOW => Ok(Shape::One(&FLOW_FLOW)),
            _ => Err(format!("nothing is called {name:?}; the flow is {FLOW}")),
        }
    }

    fn field(&self, of: Shape, name: &str) -> Result<Shape, String> {
        let Shape::One(message) = of else { return Ok(Shape::Other) };
        let field = message.field(name);
        field.map(Shape::of).ok_or_else(|| format!("{} has no field {name:?}", message.name))
    }

    fn element(&self, of: Shape) -> Shape {
        match of {
            Shape::List(message) => Shape::One(message),
            Shape::One(_) | Shape::Other => Shape::Other,
        }
    }

    fn is_constant(&self, dotted: &str) -> bool {
        enum_value(dotted).is_some()
    }

    fn presence(&self, name: &str) -> String {
        format!("{PRESENT}{name}")
    }

    fn pattern(&self, text: &str) -> Result<Regex, String> {
        layer7::parse_pattern(text)
    }

    fn example<'v>(&'v self, context: &mut Context<'_, 'v>) {
        context.set_variable_resolver(&self.example);
    }
}

/// What is known of a value before there is a flow.
#[derive(Clone, Copy)]
enum Shape {
    One(&'static Message),
    List(&'static Message),
    Other,
}

impl Shape {
    fn of(field: &Field) -> Self {
        match field.kind {
            Kind::Message(message) if field.repeated => Self::List(message),
            Kind::Message(message) if is_wrapper(message) => Self::Other,
            Kind::Message(message) => Self::One(message),
            Kind::Bool | Kind::Int | Kind::Uint | Kind::Text | Kind::Bytes => Self::Other,
        }
    }
}

/// The flow, and the values of its enums.
struct Variables {
    flow: Part,
}

impl Variables {
    fn of(flow: &Flow) -> Self {
        Self { flow: Part { message: &FLOW_FLOW, bytes: flow.encode_to_vec().into() } }
    }
}

impl VariableResolver for Variables {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name {
            FLOW => Some(CowVal::Borrowed(&self.flow)),
            _ => enum_value(name).map(|number| CowVal::owned(CelInt::from(i64::from(number)))),
        }
    }
}

/// A message of the flow, read where a field is asked for.
#[derive(Debug, Clone)]
struct Part {
    message: &'static Message,
    bytes: Bytes,
}

impl Val for Part {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &DYN_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| self.bytes == other.bytes)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Part {}

impl Indexer for Part {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(CowVal::Owned(self.read(index)?))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.read(index)
    }
}

impl Part {
    fn read<'v>(&self, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        let name = index.downcast_ref::<CelString<'_>>().map_or("", |name| name.inner());
        let (name, presence) = name.strip_prefix(PRESENT).map_or((name, false), |name| (name, true));
        let none = || ExecutionError::no_such_key(name);
        let field = self.message.field(name).ok_or_else(none)?;
        let mut found = Pieces(&self.bytes).filter(|piece| piece.number == field.number).peekable();
        if presence && found.peek().is_none() {
            return Err(none());
        }
        if field.repeated {
            let all: Vec<_> = found.map(|piece| self.value(field.kind, Some(piece.value))).collect();
            return Ok(Box::new(CelList::from(all)));
        }
        Ok(self.value(field.kind, found.last().map(|piece| piece.value)))
    }

    fn value<'v>(&self, kind: Kind, encoded: Option<Encoded<'_>>) -> Box<dyn Val + 'v> {
        let (number, bytes) = match encoded {
            Some(Encoded::Number(number)) => (number, &[][..]),
            Some(Encoded::Bytes(bytes)) => (0, bytes),
            None => (0, &[][..]),
        };
        match kind {
            Kind::Bool => Box::new(CelBool::from(number != 0)),
            Kind::Int => Box::new(CelInt::from(number.cast_signed())),
            Kind::Uint => Box::new(CelUInt::from(number)),
            Kind::Text => Box::new(CelString::from(String::from_utf8_lossy(bytes).into_owned())),
            Kind::Bytes => Box::new(CelBytes::from(bytes.to_vec())),
            Kind::Message(message) => match message.fields.first() {
                Some(_) if is_wrapper(message) && encoded.is_none() => Box::new(CelNull),
                Some(inner) if is_wrapper(message) => {
                    self.value(inner.kind, Pieces(bytes).last().map(|piece| piece.value))
                }
                _ if bytes.is_empty() => Box::new(Self { message, bytes: Bytes::new() }),
                _ => Box::new(Self { message, bytes: self.bytes.slice_ref(bytes) }),
            },
        }
    }
}

/// A value that may be missing: in expressions, the value itself or null.
fn is_wrapper(message: &Message) -> bool {
    message.name.starts_with("google.protobuf.") && message.name.ends_with("Value")
}
