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

impl LabelSelector {
    /// The selector that this says.
    pub(crate) fn lower(self, on: On) -> Result<Selector, Vec<Fault>> {
        let Self { match_labels, match_expressions } = self;
        let (mut requirements, mut faults) = (Vec::new(), Vec::new());
        for (key, value) in match_labels.into_iter().flatten() {
            let path = format!("matchLabels.{key}");
            faults.extend(validate_key(&key).err().map(|e| Fault::new(&path, e)));
            faults.extend(validate_value(&value).err().map(|e| Fault::new(&path, e)));
            requirements.push(Requirement { key: on.key(key), test: Test::In(BTreeSet::from([value])) });
        }
        for (i, expression) in match_expressions.into_iter().flatten().enumerate() {
            requirements.extend(expression.lower(on, &format!("matchExpressions[{i}]"), &mut faults));
        }
        if faults.is_empty() { Ok(Selector::new(requirements)) } else { Err(faults) }
    }
}

impl Expression {
    fn lower(self, on: On, path: &str, faults: &mut Vec<Fault>) -> Option<Requirement> {
        let Self { key, operator, values } = self;
        let values = values.unwrap_or_default();
        faults.extend(validate_key(&key).err().map(|e| Fault::new(format!("{path}.key"), e)));
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
        Some(Requirement { key: on.key(key), test })
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
