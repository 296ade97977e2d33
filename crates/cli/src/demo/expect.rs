//! What the demo expects to see, and whether a flow is it.

use serde_json::Value;

/// One expectation: a flow like this appears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expectation {
    /// A sentence.
    pub(crate) name: &'static str,
    /// `namespace/pod` of the sender.
    pub(crate) from: &'static str,
    /// `namespace/pod` of the receiver.
    pub(crate) to: &'static str,
    /// Protocol as in a flow's `l4`.
    pub(crate) protocol: &'static str,
    /// Destination port.
    pub(crate) port: u64,
    /// `INGRESS` or `EGRESS`.
    pub(crate) direction: &'static str,
    /// Hubble's verdict.
    pub(crate) verdict: &'static str,
    /// The reason.
    pub(crate) reason: &'static str,
    /// `namespace/name rule` of the policy, empty for none.
    pub(crate) rule: &'static str,
    /// Whether the packet belongs to a connection that was open: a SYN does not count.
    pub(crate) live: bool,
}

impl Expectation {
    /// Whether this flow (as JSON) is the one. The forger's packets bear another's address: only the endpoint that
    /// sent them tells who they are from.
    pub(crate) fn is_met_by(&self, flow: &Value) -> bool {
        let l4 = &flow["flow"]["l4"][self.protocol];
        pod(&flow["flow"]["source"]) == self.from
            && pod(&flow["flow"]["destination"]) == self.to
            && l4["destination_port"].as_u64() == Some(self.port)
            && flow["flow"]["traffic_direction"] == self.direction
            && flow["flow"]["verdict"] == self.verdict
            && flow["signet"]["reason"] == self.reason
            && rule(flow) == self.rule
            && !(self.live && l4["flags"]["SYN"] == true)
    }
}

/// `namespace/pod` of an endpoint.
pub(crate) fn pod(endpoint: &Value) -> String {
    let text = |key: &str| endpoint[key].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("pod_name"))
}

/// `namespace/name rule` of the rule that decided; empty for none.
pub(crate) fn rule(flow: &Value) -> String {
    let rule = &flow["signet"]["rule"];
    let text = |key: &str| rule[key].as_str().unwrap_or_default();
    if rule.is_null() {
        String::new()
    } else {
        format!("{}/{} {}", text("namespace"), text("name"), text("rule"))
    }
}
