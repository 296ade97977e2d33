//! What Signet says of a flow beyond Hubble's fields, and who gets it.
//!
//! It travels as the `extensions` of a Flow. Protojson fails on an `Any` whose type it does not know, so Hubble's own
//! `observe -o json` would break on it: only a client that asks gets it, by putting an (empty) [`FlowExtension`] into
//! the `extensions` of its request.

use pbjson_types::Any;
use prost::Message as _;
use signet_policy::RuleRef;

use crate::{
    flow::Flow,
    observer::GetFlowsRequest,
    proto::signet::{FlowExtension, Rule},
};

/// The type of a [`FlowExtension`] inside an `Any`.
pub const FLOW_EXTENSION_URL: &str = "type.googleapis.com/signet.FlowExtension";

impl From<&RuleRef> for Rule {
    fn from(rule: &RuleRef) -> Self {
        let RuleRef { policy, path, origin } = rule;
        Self {
            kind: policy.kind.as_str().to_owned(),
            namespace: policy.namespace.clone().unwrap_or_default(),
            name: policy.name.clone(),
            rule: path.clone(),
            file: origin.file.to_string(),
            line: origin.line,
        }
    }
}

/// As the `extensions` of a message.
pub(crate) fn pack(extension: &FlowExtension) -> Any {
    Any { type_url: FLOW_EXTENSION_URL.to_owned(), value: extension.encode_to_vec().into() }
}

/// What Signet says of a flow; nothing for flows of others.
pub fn extension_of(flow: &Flow) -> Option<FlowExtension> {
    let any = flow.extensions.as_ref().filter(|any| any.type_url == FLOW_EXTENSION_URL)?;
    FlowExtension::decode(any.value.clone()).ok()
}

/// Asks for a [`FlowExtension`] in every flow of the answer.
pub fn ask_for_extensions(request: &mut GetFlowsRequest) {
    request.extensions = Some(pack(&FlowExtension::default()));
}

/// Whether the client asked for extensions.
pub fn asks_for_extensions(request: &GetFlowsRequest) -> bool {
    request.extensions.as_ref().is_some_and(|any| any.type_url == FLOW_EXTENSION_URL)
}
