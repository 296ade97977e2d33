//! Filters in the Common Expression Language, over the flow as `_flow`: `_flow.source.namespace == "shop" &&
//! _flow.verdict == Verdict.DROPPED`. The interpreter is a library's.
//!
//! Fields have the names of the schema; one that is not set has its default, and `has(_flow.l4.TCP)` tells. Enums are
//! numbers, with their values as constants. An expression that fails on a flow does not match it.
//!
//! It refuses, when the request comes: what cannot be read, names that nothing has, a result that is no truth value, and
//! what could take long: more than [`MAX_LENGTH`] bytes, [`MAX_DEPTH`] levels or [`MAX_LOOPS`] loops, patterns that are not
//! written out.

use std::{
    any::Any,
    fmt,
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Value,
    common::{
        ast::{EntryExpr, Expr, LiteralValue},
        traits::Indexer,
        types::{CelBool, CelBytes, CelInt, CelList, CelNull, CelString, CelUInt, DYN_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
    context::VariableResolver,
    extractors::This,
};
use prost::{Message as _, bytes::Bytes};
use regex::Regex;

use crate::{
    fields::{Encoded, FLOW_FLOW, Field, Kind, Message, Pieces, enum_value},
    flow::Flow,
    layer7,
};

/// Bytes of one expression, at most.
const MAX_LENGTH: usize = 1024;
/// Loops (`all`, `exists`, `exists_one`, `map`, `filter`) of one expression, at most.
const MAX_LOOPS: usize = 2;
/// How deep one expression may be nested: it is walked by recursion.
const MAX_DEPTH: usize = 32;
/// Bytes of stack for reading one: the library's parser takes more than a thread of the server has.
const PARSER_STACK: usize = 64 << 20;
/// The variable.
const FLOW: &str = "_flow";
/// Before the name of a field whose presence is asked.
const PRESENT: char = '?';
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// One expression, ready to be asked.
pub(crate) struct Expression {
    root: IdedExpr,
    patterns: Arc<[Regex]>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").finish_non_exhaustive()
    }
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("longer than {MAX_LENGTH} bytes"));
        }
        let compiled = thread::scope(|scope| {
            let reader = thread::Builder::new().name("cel".to_owned()).stack_size(PARSER_STACK);
            let reader = reader.spawn_scoped(scope, || Self::read(text)).map_err(|e| e.to_string())?;
            reader.join().unwrap_or_else(|_| Err("cannot be read".to_owned()))
        })?;
        // what a flow without anything shows is wrong with it for all of them
        match compiled.evaluate(&Flow::default()) {
            Err(
                error @ (ExecutionError::UndeclaredReference(_)
                | ExecutionError::NoSuchOverload(_)
                | ExecutionError::UnsupportedBinaryOperator(..)
                | ExecutionError::UnexpectedType { .. }),
            ) => Err(error.to_string()),
            Ok(None) => Err("its result is not true or false".to_owned()),
            Ok(Some(_)) | Err(_) => Ok(compiled),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut root = ENV.compile(text).map_err(|e| e.to_string())?.expression().clone();
        let mut check = Check::default();
        check.expression(&mut root)?;
        Ok(Self { root, patterns: check.patterns.into() })
    }

    /// Whether it is true of the flow.
    pub(crate) fn holds(&self, flow: &Flow) -> bool {
        matches!(self.evaluate(flow), Ok(Some(true)))
    }

    fn evaluate(&self, flow: &Flow) -> Result<Option<bool>, ExecutionError> {
        let variables = Variables { flow: Part { message: &FLOW_FLOW, bytes: flow.encode_to_vec().into() } };
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&variables);
        if !self.patterns.is_empty() {
            let patterns = Arc::clone(&self.patterns);
            let matches = move |This(text): This<Arc<String>>, pattern: i64| {
                usize::try_from(pattern)
                    .ok()
                    .and_then(|at| patterns.get(at))
                    .is_some_and(|p| p.is_match(&text))
            };
            let added = context.add_function("matches", matches);
            added.map_err(|error| ExecutionError::InternalError(error.to_string()))?;
        }
        let result = Value::resolve_val(&self.root, &context)?;
        Ok(result.downcast_ref::<CelBool>().map(|truth| *truth.inner()))
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

    fn element(self) -> Self {
        match self {
            Self::List(message) => Self::One(message),
            Self::One(_) | Self::Other => Self::Other,
        }
    }
}

/// Holds an expression against the schema; on the way, patterns are compiled, and questions for presence marked.
#[derive(Default)]
struct Check {
    depth: usize,
    loops: usize,
    scope: Vec<(String, Shape)>,
    patterns: Vec<Regex>,
}

impl Check {
    fn expression(&mut self, node: &mut IdedExpr) -> Result<Shape, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        let shape = self.shape(node);
        self.depth -= 1;
        shape
    }

    fn shape(&mut self, node: &mut IdedExpr) -> Result<Shape, String> {
        if dotted(&node.expr).is_some_and(|name| enum_value(&name).is_some()) {
            return Ok(Shape::Other);
        }
        match &mut node.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                let Shape::One(message) = self.expression(&mut select.operand)? else {
                    return Ok(Shape::Other);
                };
                let field = message.field(&select.field);
                let field =
                    field.ok_or_else(|| format!("{} has no field {:?}", message.name, select.field))?;
                if select.test {
                    select.field.insert(0, PRESENT);
                }
                Ok(Shape::of(field))
            }
            Expr::Call(call) => {
                if call.func_name == "matches" {
                    self.pattern(call.args.last_mut())?;
                }
                let mut shapes = vec![];
                for part in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
                    shapes.push(self.expression(part)?);
                }
                let indexed = call.func_name == cel::common::ast::operators::INDEX;
                Ok(shapes.first().filter(|_| indexed).map_or(Shape::Other, |list| list.element()))
            }
            Expr::Comprehension(each) => {
                self.loops += 1;
                if self.loops > MAX_LOOPS {
                    return Err(format!("more than {MAX_LOOPS} loops"));
                }
                let element = self.expression(&mut each.iter_range)?.element();
                self.expression(&mut each.accu_init)?;
                let outside = self.scope.len();
                self.scope.extend([(each.iter_var.clone(), element), (each.accu_var.clone(), Shape::Other)]);
                self.scope.extend(each.iter_var2.clone().map(|name| (name, Shape::Other)));
                for part in [&mut each.loop_cond, &mut each.loop_step, &mut each.result] {
                    self.expression(part)?;
                }
                self.scope.truncate(outside);
                Ok(Shape::Other)
            }
            Expr::List(list) => self.all(&mut list.elements),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.expression(&mut entry.key)?;
                        self.expression(&mut entry.value)?;
                    }
                }
                Ok(Shape::Other)
            }
            Expr::Struct(made) => Err(format!("{} cannot be made here", made.type_name)),
            Expr::Literal(_) | Expr::Unspecified => Ok(Shape::Other),
        }
    }

    fn all(&mut self, parts: &mut [IdedExpr]) -> Result<Shape, String> {
        parts.iter_mut().try_for_each(|part| self.expression(part).map(drop))?;
        Ok(Shape::Other)
    }

    fn name(&self, name: &str) -> Result<Shape, String> {
        match self.scope.iter().rev().find(|(known, _)| known == name) {
            Some((_, shape)) => Ok(*shape),
            None if name == FLOW => Ok(Shape::One(&FLOW_FLOW)),
            None if TYPES.contains(&name) => Ok(Shape::Other),
            None => Err(format!("nothing is called {name:?}; the flow is {FLOW}")),
        }
    }

    /// A pattern is compiled once, and stands for itself by its number from then on.
    fn pattern(&mut self, argument: Option<&mut IdedExpr>) -> Result<(), String> {
        let argument = argument.ok_or("matches: a pattern is missing")?;
        let Expr::Literal(LiteralValue::String(text)) = &argument.expr else {
            return Err("matches: the pattern must be written out".to_owned());
        };
        let pattern = layer7::parse_pattern(text.inner())?;
        argument.expr = Expr::Literal(LiteralValue::Int(CelInt::from(self.patterns.len() as i64)));
        self.patterns.push(pattern);
        Ok(())
    }
}

/// `a.b.c`, if it is nothing but names.
fn dotted(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", dotted(&select.operand.expr)?, select.field))
        }
        _ => None,
    }
}

/// The flow, and the values of its enums.
struct Variables {
    flow: Part,
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
