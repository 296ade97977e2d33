//! Labels as Hubble prints them (`k8s:app=web`), and label selectors as people type them, against those.
//!
//! The syntax is that of Kubernetes: `app=web`, `app!=web`, `app in (web, db)`, `tier notin (test)`, `app`, `!app`, joined
//! by commas. A key may name the source of the label (`k8s:app`); without one any source will do.

use std::collections::BTreeSet;

use signet_identity::{Facts, Identity, Key, Lookup, Requirement, Seen, Selector, Test, Value};

/// The labels of one end, as a selector looks them up.
pub(crate) struct Printed<'a>(pub(crate) &'a [String]);

impl Lookup for Printed<'_> {
    fn value(&self, key: &Key) -> Value<'_> {
        let Key::Label(key) = key else { return Value::Absent };
        let found = self.0.iter().find_map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            let bare = name.split_once(':').map_or(name, |(_, bare)| bare);
            (name == key || bare == key).then_some(value)
        });
        found.map_or(Value::Absent, Value::Is)
    }
}

/// What is known of an identity, as labels.
pub(crate) fn printed(facts: &Facts) -> Vec<String> {
    let values = facts.values.iter().filter_map(|(key, seen)| {
        let Seen::Mentioned(value) = seen else { return None };
        Some(match key {
            Key::Label(k) => format!("k8s:{k}={value}"),
            Key::NamespaceLabel(k) => format!("k8s:io.cilium.k8s.namespace.labels.{k}={value}"),
            Key::Namespace => format!("k8s:io.kubernetes.pod.namespace={value}"),
            Key::ServiceAccount => format!("k8s:io.cilium.k8s.policy.serviceaccount={value}"),
        })
    });
    let kind = facts.kind.identity().and_then(reserved).map(str::to_owned);
    values.chain(facts.prefixes.iter().map(|prefix| format!("cidr:{prefix}"))).chain(kind).collect()
}

/// The label of a reserved identity.
pub(crate) fn reserved(identity: Identity) -> Option<&'static str> {
    Some(match identity {
        Identity::UNKNOWN => "reserved:unknown",
        Identity::HOST => "reserved:host",
        Identity::WORLD => "reserved:world",
        Identity::UNMANAGED => "reserved:unmanaged",
        Identity::HEALTH => "reserved:health",
        Identity::INIT => "reserved:init",
        Identity::REMOTE_NODE => "reserved:remote-node",
        Identity::KUBE_APISERVER => "reserved:kube-apiserver",
        Identity::INGRESS => "reserved:ingress",
        _ => return None,
    })
}

/// Reads a selector.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let mut rest = Tokens { rest: text };
    let mut requirements = vec![];
    loop {
        requirements.push(requirement(&mut rest)?);
        match rest.next() {
            None => return Ok(Selector::new(requirements)),
            Some(",") => {}
            Some(other) => return Err(format!("expected a comma, found {other:?}")),
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    let (key, test) = match tokens.next() {
        Some("!") => (word(tokens.next())?, Test::DoesNotExist),
        first => (word(first)?, test(tokens)?),
    };
    Ok(Requirement { key: Key::Label(key.to_owned()), test })
}

fn test(tokens: &mut Tokens<'_>) -> Result<Test, String> {
    let one = |value: &str| BTreeSet::from([value.to_owned()]);
    match tokens.peek() {
        None | Some(",") => return Ok(Test::Exists),
        _ => {}
    }
    match tokens.next() {
        Some("=" | "==") => Ok(Test::In(one(tokens.value()))),
        Some("!=") => Ok(Test::NotIn(one(tokens.value()))),
        Some("in") => Ok(Test::In(set(tokens)?)),
        Some("notin") => Ok(Test::NotIn(set(tokens)?)),
        other => {
            Err(format!("expected one of =, ==, !=, in, notin or a comma, found {:?}", other.unwrap_or("")))
        }
    }
}

fn set(tokens: &mut Tokens<'_>) -> Result<BTreeSet<String>, String> {
    if tokens.next() != Some("(") {
        return Err("expected ( after in or notin".to_owned());
    }
    let mut values = BTreeSet::new();
    loop {
        values.insert(tokens.value().to_owned());
        match tokens.next() {
            Some(",") => {}
            Some(")") => return Ok(values),
            other => return Err(format!("expected , or ), found {:?}", other.unwrap_or("the end"))),
        }
    }
}

fn word(token: Option<&str>) -> Result<&str, String> {
    match token {
        Some(word) if !is_operator(word) => Ok(word),
        other => Err(format!("expected a label key, found {:?}", other.unwrap_or("the end"))),
    }
}

fn is_operator(token: &str) -> bool {
    matches!(token, "=" | "==" | "!=" | "!" | "(" | ")" | "," | "<" | ">")
}

/// Operators and words, without the spaces between them.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next()?;
        let length = match first {
            '=' | '!' if rest[1..].starts_with('=') => 2,
            _ if "=!(),<>".contains(first) => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c)).unwrap_or(rest.len()),
        };
        Some(&rest[..length])
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.rest = &self.rest.trim_start()[token.len()..];
        Some(token)
    }

    /// A value; the empty one where an operator or the end follows.
    fn value(&mut self) -> &'a str {
        match self.peek() {
            Some(token) if !is_operator(token) => self.next().unwrap_or_default(),
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 3] = ["k8s:app=web", "k8s:tier=", "reserved:ingress"];

    fn holds(selector: &str) -> bool {
        let labels = LABELS.map(str::to_owned);
        parse(selector).unwrap().matches(&Printed(&labels))
    }

    #[test]
    fn every_operator_of_kubernetes_is_understood() {
        let table = [
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db", true),
            ("app != web", false),
            ("nothing!=web", true),
            ("app in (db, web)", true),
            ("app in(db)", false),
            ("app notin (db)", true),
            ("app notin (db,web)", false),
            ("nothing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("! nothing", true),
            ("nothing", false),
            ("tier=", true),
            ("tier in (,x)", true),
            ("app=web,tier", true),
            ("app=web, !tier", false),
        ];
        for (selector, expected) in table {
            assert_eq!(holds(selector), expected, "{selector}");
        }
    }

    #[test]
    fn the_source_of_a_label_may_be_named() {
        let table = [
            ("k8s:app=web", true),
            ("any:app=web", false),
            ("container:app=web", false),
            ("reserved:ingress", true),
            ("ingress", true),
            ("!reserved:host", true),
        ];
        for (selector, expected) in table {
            assert_eq!(holds(selector), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in
            ["", ",", "=web", "app in web", "app in (web", "a=b c", "app > 3", "app=a=b", "a,,b", "(", "!"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
