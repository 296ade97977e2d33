//! Which pods hand packets over to each other, past the node's stack, and why others do not: docs/security.md, "The direct
//! path".

use serde_json::{Value, json};
use signet_datapath::FILTER_HANDLE;
use signet_sandbox::{Interface, Survey};

use super::Node;

/// What was last seen on the way between pods.
#[derive(Debug, Default)]
pub(super) struct Direct {
    survey: Survey,
    /// Why nothing is handed over, beyond what the survey says.
    off: Option<String>,
}

impl Direct {
    /// The MTU of a pod's interface in bytes, and whether its packets may be handed over.
    pub(super) fn of(&self, ifindex: u32) -> (u16, bool) {
        let Some(Interface { mtu, foreign }) = self.survey.interfaces.get(&ifindex) else {
            return (0, false);
        };
        let free = self.off.is_none() && self.survey.forward.is_none() && foreign.is_none();
        // veths have 65535 at most
        (u16::try_from(*mtu).unwrap_or(u16::MAX), free)
    }
}

impl Node {
    /// Looks at what others have on the way between pods. True: it is not what it was.
    pub(crate) fn survey(&mut self) -> bool {
        let mut now = Direct::default();
        if !self.config.fast_path {
            now.off = Some("it is turned off".to_owned());
        }
        match self.sandbox.survey(FILTER_HANDLE) {
            Ok(survey) => now.survey = survey,
            Err(error) => now.off = Some(format!("the way between pods cannot be looked at: {error}")),
        }
        for (ifindex, interface) in &mut now.survey.interfaces {
            if interface.foreign.is_none() && self.datapath.has_foreign_programs(*ifindex) {
                interface.foreign = Some("a program".to_owned());
            }
        }
        let pods: Vec<u32> = self.pods.values().map(|pod| pod.ifindex).collect();
        let changed = pods.iter().any(|ifindex| self.direct.of(*ifindex) != now.of(*ifindex));
        self.direct = now;
        changed
    }

    /// What `signet status` says of the direct path.
    pub(super) fn direct_status(&self) -> Value {
        let foreign = |ifindex: &u32| self.direct.survey.interfaces.get(ifindex)?.foreign.clone();
        let passed_by: Vec<Value> = self
            .pods
            .iter()
            .filter_map(|(name, pod)| {
                Some(json!({"pod": name.to_string(), "detail": foreign(&pod.ifindex)?}))
            })
            .collect();
        let off = self.direct.off.clone().or_else(|| self.direct.survey.forward.clone());
        let counted = self.datapath.handed_over().unwrap_or_default();
        json!({
            "enabled": off.is_none(),
            "detail": off,
            "without": passed_by,
            "packets": counted.packets,
            "bytes": counted.bytes,
        })
    }
}
