//! Conditions in the Common Expression Language: read once, held against a schema, bounded. The interpreter is a library's.
//!
//! In: a text, and a [`Schema`] that says which names there are. Out: an [`Expression`], which says of variables whether it holds.
//! It refuses, when it is read: what cannot be read, names that nothing has, a result that is no truth value, and what could take
//! long: more than [`MAX_LENGTH`] bytes, [`MAX_DEPTH`] levels or [`MAX_LOOPS`] loops, patterns that are not written out.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Value,
    common::{
        ast::{EntryExpr, Expr, LiteralValue},
        types::{CelBool, CelInt},
    },
    extractors::This,
};
use regex::Regex;

/// Bytes of one expression, at most.
pub const MAX_LENGTH: usize = 1024;
/// Loops (`all`, `exists`, `exists_one`, `map`, `filter`) of one expression, at most.
pub const MAX_LOOPS: usize = 2;
/// How deep one expression may be nested: it is walked by recursion.
pub const MAX_DEPTH: usize = 32;
/// Bytes of stack for reading one: the library's parser takes more than a thread of a server has.
const PARSER_STACK: usize = 64 << 20;
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The names that there are.
pub trait Schema: Sync {
    /// What is known of a value before there is one.
    type Shape: Copy;

    /// Of a value that nothing is known of.
    const OTHER: Self::Shape;

    /// The variable of this name; the error says which there are.
    ///
    /// # Errors
    /// A sentence, if there is none.
    fn variable(&self, name: &str) -> Result<Self::Shape, String>;

    /// The field of this name.
    ///
    /// # Errors
    /// A sentence, if there is none.
    fn field(&self, of: Self::Shape, name: &str) -> Result<Self::Shape, String>;

    /// What a list of this shape holds.
    fn element(&self, of: Self::Shape) -> Self::Shape {
        let _ = of;
        Self::OTHER
    }

    /// Whether these names, with dots between them, are a constant.
    fn is_constant(&self, dotted: &str) -> bool {
        let _ = dotted;
        false
    }

    /// How a field is called that is only asked whether it is there.
    fn presence(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Reads a pattern of `matches`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    fn pattern(&self, text: &str) -> Result<Regex, String> {
        regex::RegexBuilder::new(text).size_limit(1 << 20).build().map_err(|error| error.to_string())
    }

    /// Adds the variables of nobody in particular: what is wrong with them is wrong with all.
    fn example<'v>(&'v self, context: &mut Context<'_, 'v>);
}

/// One expression, ready to be asked.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<IdedExpr>,
    patterns: Arc<[Regex]>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn compile(text: &str, schema: &impl Schema) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("longer than {MAX_LENGTH} bytes"));
        }
        let compiled = thread::scope(|scope| {
            let reader = thread::Builder::new().name("cel".to_owned()).stack_size(PARSER_STACK);
            let reader =
                reader.spawn_scoped(scope, || Self::read(text, schema)).map_err(|e| e.to_string())?;
            reader.join().unwrap_or_else(|_| Err("cannot be read".to_owned()))
        })?;
        match compiled.evaluate(|context| schema.example(context)) {
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

    fn read(text: &str, schema: &impl Schema) -> Result<Self, String> {
        let mut root = ENV.compile(text).map_err(|e| e.to_string())?.expression().clone();
        let mut check = Check { schema, depth: 0, loops: 0, scope: vec![], patterns: vec![] };
        check.expression(&mut root)?;
        Ok(Self { text: text.into(), root: Arc::new(root), patterns: check.patterns.into() })
    }

    /// Whether it is true of the variables that `with` adds; none if it is no truth value.
    ///
    /// # Errors
    /// If it cannot be told: a value is of another type, or is not there.
    pub fn evaluate<'v>(
        &self,
        with: impl FnOnce(&mut Context<'_, 'v>),
    ) -> Result<Option<bool>, ExecutionError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        with(&mut context);
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

/// Holds an expression against a schema; on the way, patterns are compiled, and questions for presence marked.
struct Check<'s, S: Schema> {
    schema: &'s S,
    depth: usize,
    loops: usize,
    scope: Vec<(String, S::Shape)>,
    patterns: Vec<Regex>,
}

impl<S: Schema> Check<'_, S> {
    fn expression(&mut self, node: &mut IdedExpr) -> Result<S::Shape, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        let shape = self.shape(node);
        self.depth -= 1;
        shape
    }

    fn shape(&mut self, node: &mut IdedExpr) -> Result<S::Shape, String> {
        if dotted(&node.expr).is_some_and(|name| self.schema.is_constant(&name)) {
            return Ok(S::OTHER);
        }
        match &mut node.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                let operand = self.expression(&mut select.operand)?;
                let shape = self.schema.field(operand, &select.field)?;
                if select.test {
                    select.field = self.schema.presence(&select.field);
                }
                Ok(shape)
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
                Ok(shapes.first().filter(|_| indexed).map_or(S::OTHER, |list| self.schema.element(*list)))
            }
            Expr::Comprehension(each) => {
                self.loops += 1;
                if self.loops > MAX_LOOPS {
                    return Err(format!("more than {MAX_LOOPS} loops"));
                }
                let list = self.expression(&mut each.iter_range)?;
                let element = self.schema.element(list);
                self.expression(&mut each.accu_init)?;
                let outside = self.scope.len();
                self.scope.extend([(each.iter_var.clone(), element), (each.accu_var.clone(), S::OTHER)]);
                self.scope.extend(each.iter_var2.clone().map(|name| (name, S::OTHER)));
                for part in [&mut each.loop_cond, &mut each.loop_step, &mut each.result] {
                    self.expression(part)?;
                }
                self.scope.truncate(outside);
                Ok(S::OTHER)
            }
            Expr::List(list) => self.all(&mut list.elements),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.expression(&mut entry.key)?;
                        self.expression(&mut entry.value)?;
                    }
                }
                Ok(S::OTHER)
            }
            Expr::Struct(made) => Err(format!("{} cannot be made here", made.type_name)),
            Expr::Literal(_) | Expr::Unspecified => Ok(S::OTHER),
        }
    }

    fn all(&mut self, parts: &mut [IdedExpr]) -> Result<S::Shape, String> {
        parts.iter_mut().try_for_each(|part| self.expression(part).map(drop))?;
        Ok(S::OTHER)
    }

    fn name(&self, name: &str) -> Result<S::Shape, String> {
        match self.scope.iter().rev().find(|(known, _)| known == name) {
            Some((_, shape)) => Ok(*shape),
            None if TYPES.contains(&name) => Ok(S::OTHER),
            None => self.schema.variable(name),
        }
    }

    /// A pattern is compiled once, and stands for itself by its number from then on.
    fn pattern(&mut self, argument: Option<&mut IdedExpr>) -> Result<(), String> {
        let argument = argument.ok_or("matches: a pattern is missing")?;
        let Expr::Literal(LiteralValue::String(text)) = &argument.expr else {
            return Err("matches: the pattern must be written out".to_owned());
        };
        let pattern = self.schema.pattern(text.inner())?;
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
