//! LabelSelector → [`Selector`]. Source: apimachinery `ValidateLabelSelector` and `LabelSelectorAsSelector`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Deserialize;
use serde_json::Value;
use signet_identity::{Key, Requirement, Selector, Test, validate_key, validate_value};

/// `LabelSelector` of `meta/v1`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Expression>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expression {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

/// Whose labels a selector looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Those of the pod.
    Pod,
    /// Those of its namespace.
    Namespace,
}

/// What is wrong with a part of a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The path of the part in the selector, as in `matchExpressions[0].values`; may be empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl Fault {
    fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }
}

/// Reads a LabelSelector; null, which selects nothing, is `None`.
///
/// # Errors
/// All that is wrong with it.
pub fn selector_from_value(value: &Value, on: On) -> Result<Option<Selector>, Vec<Fault>> {
    let wire: Option<LabelSelector> = serde_path_to_error::deserialize(value)
        .map_err(|error| vec![Fault::new(error.path().to_string(), error.inner())])?;
    wire.map(|wire| wire.lower(on)).transpose()
}

/// A condition of a selector on a key as it was written.
#[derive(Debug)]
pub(crate) struct Term {
    /// The key.
    pub(crate) key: String,
    /// What must hold of it.
    pub(crate) test: Test,
    /// The path of the condition in the selector.
    pub(crate) path: String,
}

impl LabelSelector {
    /// The selector that this says.
    pub(crate) fn lower(self, on: On) -> Result<Selector, Vec<Fault>> {
        let terms = self.terms(|key| key)?;
        let requirements = terms.into_iter().map(|t| Requirement { key: on.key(t.key), test: t.test });
        Ok(Selector::new(requirements.collect()))
    }

    /// The conditions that this says; `bare` leaves of a key what has the syntax of a label's.
    pub(crate) fn terms(self, bare: fn(&str) -> &str) -> Result<Vec<Term>, Vec<Fault>> {
        let Self { match_labels, match_expressions } = self;
        let (mut terms, mut faults) = (Vec::new(), Vec::new());
        for (key, value) in match_labels.into_iter().flatten() {
            let path = format!("matchLabels.{key}");
            faults.extend(validate_key(bare(&key)).err().map(|e| Fault::new(&path, e)));
            faults.extend(validate_value(&value).err().map(|e| Fault::new(&path, e)));
            terms.push(Term { key, test: Test::In(BTreeSet::from([value])), path });
        }
        for (i, expression) in match_expressions.into_iter().flatten().enumerate() {
            let path = format!("matchExpressions[{i}]");
            faults.extend(
                validate_key(bare(&expression.key)).err().map(|e| Fault::new(format!("{path}.key"), e)),
            );
            let key = expression.key.clone();
            let test = expression.test(&path, &mut faults);
            terms.extend(test.map(|test| Term { key, test, path: format!("{path}.key") }));
        }
        if faults.is_empty() { Ok(terms) } else { Err(faults) }
    }
}

impl Expression {
    fn test(self, path: &str, faults: &mut Vec<Fault>) -> Option<Test> {
        let Self { key: _, operator, values } = self;
        let values = values.unwrap_or_default();
        for (i, value) in values.iter().enumerate() {
            let fault = validate_value(value).err();
            faults.extend(fault.map(|e| Fault::new(format!("{path}.values[{i}]"), e)));
        }
        let takes_values = matches!(operator.as_str(), "In" | "NotIn");
        let test = match operator.as_str() {
            "In" => Test::In(values.iter().cloned().collect()),
            "NotIn" => Test::NotIn(values.iter().cloned().collect()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            _ => {
                let message = format_args!("{operator:?} is not one of In, NotIn, Exists and DoesNotExist");
                faults.push(Fault::new(format!("{path}.operator"), message));
                return None;
            }
        };
        if takes_values && values.is_empty() {
            faults.push(Fault::new(
                format!("{path}.values"),
                format_args!("{operator} needs at least one value"),
            ));
        }
        if !takes_values && !values.is_empty() {
            faults.push(Fault::new(format!("{path}.values"), format_args!("{operator} takes no values")));
        }
        Some(test)
    }
}

impl On {
    fn key(self, label: String) -> Key {
        match self {
            Self::Pod => Key::Label(label),
            Self::Namespace => Key::NamespaceLabel(label),
        }
    }
}
