//! Conditions in CEL: of rules, over who calls, what its token says, and what is asked; and of issuers, over what a token says alone.
//!
//! `claims.team == "risk" && caller.labels.tier != "batch" && request.model.startsWith("gemini-")`. Names that there are not are
//! refused when a policy is read; what cannot be told of a call (a claim that is not there, a value of another type) denies it.

use std::{collections::HashMap, fmt, sync::Arc};

use cel::{
    Context, Value,
    objects::{Key, Map},
};
use serde_json::Value as Json;
use signet_expression::{Expression, Schema};
use signet_identity::Labels;

use crate::{
    call::Call,
    caller::{Caller, Who},
};

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(Expression);

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        Expression::compile(text, &Calls).map(Self)
    }

    /// Whether it holds of a call; none where that cannot be told.
    pub fn holds(&self, caller: Caller<'_>, call: &Call) -> Option<bool> {
        self.0.evaluate(|context| variables(caller, call, context)).ok().flatten()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A condition on what a token says (`TokenIssuer`): `claims.email == "…" && claims.email_verified`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimsCondition(Expression);

impl ClaimsCondition {
    /// Reads a condition.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        Expression::compile(text, &Claims).map(Self)
    }

    /// Whether it holds of a token. What cannot be told does not hold.
    pub fn holds(&self, said: &serde_json::Map<String, Json>) -> bool {
        let told = claims(Some(said));
        let holds = self.0.evaluate(|context| context.add_variable_from_value("claims", told));
        holds.ok().flatten() == Some(true)
    }
}

/// What there is to speak of, of a token.
struct Claims;

impl Schema for Claims {
    type Shape = ();

    const OTHER: () = ();

    fn variable(&self, name: &str) -> Result<(), String> {
        match name {
            "claims" => Ok(()),
            _ => Err(format!("nothing is called {name:?}: there is claims")),
        }
    }

    fn field(&self, (): (), _: &str) -> Result<(), String> {
        Ok(())
    }

    fn example<'v>(&'v self, context: &mut Context<'_, 'v>) {
        context.add_variable_from_value("claims", claims(None));
    }
}

/// What there is to speak of.
struct Calls;

#[derive(Clone, Copy)]
enum Shape {
    Caller,
    Request,
    Other,
}

const OF_CALLER: [&str; 6] = ["namespace", "pod", "serviceAccount", "outside", "labels", "namespaceLabels"];
const OF_REQUEST: [&str; 5] = ["provider", "publisher", "model", "method", "uses"];

impl Schema for Calls {
    type Shape = Shape;

    const OTHER: Shape = Shape::Other;

    fn variable(&self, name: &str) -> Result<Shape, String> {
        match name {
            "caller" => Ok(Shape::Caller),
            "request" => Ok(Shape::Request),
            "claims" => Ok(Shape::Other),
            _ => Err(format!("nothing is called {name:?}: there are caller, claims and request")),
        }
    }

    fn field(&self, of: Shape, name: &str) -> Result<Shape, String> {
        let known: &[&str] = match of {
            Shape::Caller => &OF_CALLER,
            Shape::Request => &OF_REQUEST,
            Shape::Other => return Ok(Shape::Other),
        };
        match known.contains(&name) {
            true => Ok(Shape::Other),
            false => Err(format!("there is no {name:?} among {}", known.join(", "))),
        }
    }

    /// Claims and labels of nobody: what is asked of them cannot be told, and is not wrong for that.
    fn example<'v>(&'v self, context: &mut Context<'_, 'v>) {
        let text = || Value::String(Arc::new(String::new()));
        let mut caller: HashMap<Key, Value> =
            OF_CALLER[..4].iter().map(|name| ((*name).into(), text())).collect();
        caller.extend(OF_CALLER[4..].iter().map(|name| ((*name).into(), labels(&Labels::new()))));
        let mut request: HashMap<Key, Value> =
            OF_REQUEST[..4].iter().map(|name| ((*name).into(), text())).collect();
        request.insert("uses".into(), Value::List(Arc::new(vec![])));
        for (name, map) in [("caller", caller), ("request", request), ("claims", HashMap::new())] {
            context.add_variable_from_value(name, Value::Map(Map { map: Arc::new(map) }));
        }
    }
}

fn variables(caller: Caller<'_>, call: &Call, context: &mut Context<'_, '_>) {
    let text = |text: &str| Value::String(Arc::new(text.to_owned()));
    let uses = call.uses.iter().map(|feature| text(feature.name())).collect();
    let mut of_caller = vec![("namespace", text(caller.who.namespace()))];
    match caller.who {
        Who::Pod(pod) => of_caller.extend([
            ("pod", text(&pod.name.name)),
            ("serviceAccount", text(&pod.service_account)),
            ("labels", labels(&pod.labels)),
            ("namespaceLabels", labels(&pod.namespace_labels)),
        ]),
        Who::Outside(outsider) => of_caller.push(("outside", text(&outsider.name))),
    }
    let of_request = [
        ("provider", text(&call.provider)),
        ("publisher", text(&call.publisher)),
        ("model", text(&call.model)),
        ("method", text(call.method.name())),
        ("uses", Value::List(Arc::new(uses))),
    ];
    let map = |entries: HashMap<Key, Value>| Value::Map(Map { map: Arc::new(entries) });
    let keyed = |(name, value): (&str, Value)| (Key::from(name), value);
    context.add_variable_from_value("caller", map(of_caller.into_iter().map(keyed).collect()));
    context.add_variable_from_value("request", map(of_request.into_iter().map(keyed).collect()));
    context.add_variable_from_value("claims", claims(caller.claims));
}

/// What a token says, without an address that its issuer has not verified: that one may be anybody's.
fn claims(said: Option<&serde_json::Map<String, Json>>) -> Value {
    let is_verified = said
        .and_then(|said| said.get("email_verified"))
        .is_some_and(|verified| *verified == Json::Bool(true));
    let told = said.into_iter().flatten().filter(|(name, _)| is_verified || *name != "email");
    let map = told.map(|(name, value)| (Key::from(name.as_str()), json(value))).collect();
    Value::Map(Map { map: Arc::new(map) })
}

fn labels(labels: &Labels) -> Value {
    let entries =
        labels.iter().map(|(key, value)| (Key::from(key.as_str()), Value::String(Arc::new(value.clone()))));
    Value::Map(Map { map: Arc::new(entries.collect()) })
}

/// Whole numbers are ints, as they are written.
fn json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::Int(number),
            (None, Some(number), _) => Value::UInt(number),
            (None, None, number) => number.map_or(Value::Null, Value::Float),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(json).collect())),
        Json::Object(object) => {
            let entries = object.iter().map(|(key, value)| (Key::from(key.as_str()), json(value)));
            Value::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;
    use signet_identity::{Pod, PodName};

    use super::*;
    use crate::{Feature, Method};

    fn holds(text: &str, claims: Json) -> Option<bool> {
        let pod = Pod {
            name: PodName { namespace: "shop".into(), name: "scorer-0".into() },
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
            namespace_labels: Arc::default(),
            service_account: "scorer".into(),
            addresses: vec![],
            ports: vec![],
            node: None,
            host_network: false,
        };
        let call = Call {
            provider: "vertex".into(),
            publisher: "google".into(),
            model: "gemini-2.5-flash".into(),
            method: Method::GenerateContent,
            uses: [Feature::Tools].into(),
        };
        let caller = Caller { who: Who::Pod(&pod), claims: claims.as_object() };
        Condition::new(text).unwrap().holds(caller, &call)
    }

    #[test]
    fn a_condition_speaks_of_caller_claims_and_request() {
        let claims = json!({"team": "risk", "groups": ["a", "b"], "level": 3, "kubernetes.io": {"pod": {"name": "p"}}});
        for (text, expected) in [
            ("caller.namespace == 'shop' && caller.serviceAccount == 'scorer'", Some(true)),
            ("caller.labels.tier == 'gold'", Some(true)),
            ("caller.labels['tier'] in ['silver', 'bronze']", Some(false)),
            ("claims.team == 'risk'", Some(true)),
            ("'b' in claims.groups && claims.level >= 3", Some(true)),
            ("claims.groups.exists(g, g.startsWith('c'))", Some(false)),
            ("claims['kubernetes.io'].pod.name == 'p'", Some(true)),
            ("request.model.startsWith('gemini-') && request.method == 'generateContent'", Some(true)),
            ("request.model.matches('^gemini-[0-9.]+-flash$')", Some(true)),
            ("'tools' in request.uses", Some(true)),
            ("has(claims.team) && !has(claims.email)", Some(true)),
            // what cannot be told
            ("claims.email == 'x'", None),
            ("claims.level == 'three'", Some(false)),
            ("claims.level.startsWith('t')", None),
            ("claims.team", None),
        ] {
            assert_eq!(holds(text, claims.clone()), expected, "{text}");
        }
        assert_eq!(holds("claims.team == 'risk'", Json::Null), None, "no token was shown");
        let email = "claims.email == 'a@b.c'";
        assert_eq!(holds(email, json!({"email": "a@b.c"})), None, "nobody verified it");
        assert_eq!(holds(email, json!({"email": "a@b.c", "email_verified": true})), Some(true));
    }

    #[test]
    fn an_address_that_nobody_verified_is_nobodys() {
        let text = "claims.email == 'agent@p.iam.gserviceaccount.com'";
        let condition = ClaimsCondition::new(text).unwrap();
        let holds = |claims: Json| condition.holds(claims.as_object().unwrap());
        let email = "agent@p.iam.gserviceaccount.com";
        assert!(holds(json!({"email": email, "email_verified": true})));
        for claims in [
            json!({"email": email}),
            json!({"email": email, "email_verified": false}),
            json!({"email": email, "email_verified": "true"}),
            json!({"email": "other@p.iam.gserviceaccount.com", "email_verified": true}),
            json!({"email_verified": true}),
            json!({"email": [email], "email_verified": true}),
        ] {
            assert!(!holds(claims.clone()), "{claims}");
        }
        let negated = ClaimsCondition::new("claims.email != 'x'").unwrap();
        assert!(!negated.holds(json!({"email": email}).as_object().unwrap()), "what cannot be told");
        for text in ["caller.namespace == 'a'", "claims", "claims.email == "] {
            assert!(ClaimsCondition::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_caller_from_outside_has_no_name_of_a_pods() {
        let outsider =
            crate::Outsider { issuer: "google".into(), namespace: "vertex".into(), name: "a".into() };
        let call = Call {
            provider: "llm".into(),
            publisher: "meta".into(),
            model: "llama".into(),
            method: Method::ChatCompletions,
            uses: [].into(),
        };
        let caller = Caller { who: Who::Outside(&outsider), claims: None };
        for (text, expected) in [
            ("caller.namespace == 'vertex' && caller.outside == 'a'", Some(true)),
            ("has(caller.outside) && !has(caller.pod)", Some(true)),
            ("caller.serviceAccount != 'a'", None),
            ("caller.labels.tier == 'gold'", None),
        ] {
            assert_eq!(Condition::new(text).unwrap().holds(caller, &call), expected, "{text}");
        }
    }

    #[test]
    fn what_could_never_be_told_is_refused_when_it_is_read() {
        for text in [
            "claim.team == 'risk'",
            "caller.name == 'x'",
            "request.prompt == 'x'",
            "caller.namespace",
            "caller.namespace == ",
            "caller.namespace.matches(claims.pattern)",
            "caller.namespace.matches('(')",
            "caller.namespace + 1 == 2",
            &format!("caller.pod == '{}'", "x".repeat(2000)),
        ] {
            assert!(Condition::new(text).is_err(), "{text}");
        }
    }
}
