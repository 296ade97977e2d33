//! Objects → what has been gathered: one submodule for each wire format.

pub(crate) mod meta;
mod network_policy;
mod pod;
mod port;
pub(crate) mod selector;
mod service;
mod topology;
mod workload;

use crate::{error::Problem, gather::Gathered, object::Object, snapshot::Settings};

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    NetworkPolicy,
    Pod,
    Workload,
    Namespace,
    Node,
    ServiceAccount,
    Service,
    EndpointSlice,
    /// It does not matter here.
    Ignored,
    /// It would matter, and is not understood.
    UnknownKind,
    /// It would matter, and is not understood in this version.
    UnknownVersion,
}

/// Reads one object into `gathered`; what is wrong goes to `problems`.
pub(crate) fn read(
    object: &Object,
    settings: &Settings,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) {
    let result = match Resource::of(object) {
        Resource::NetworkPolicy => network_policy::read(object, settings, gathered, problems),
        Resource::Pod => pod::read(object, gathered, problems),
        Resource::Workload => workload::read(object, gathered, problems),
        Resource::Namespace => topology::read_namespace(object, gathered, problems),
        Resource::Node => topology::read_node(object, gathered, problems),
        Resource::ServiceAccount => service::read_account(object, gathered, problems),
        Resource::Service => service::read_service(object, gathered, problems),
        Resource::EndpointSlice => service::read_slice(object, gathered, problems),
        Resource::Ignored => Ok(()),
        Resource::UnknownKind => {
            let message = format_args!("{} is not supported by this version", object.kind);
            Err(object.site("kind").problem(message))
        }
        Resource::UnknownVersion => {
            let Object { group, version, kind, .. } = object;
            let message = format_args!("{kind} of {group}/{version} is not supported by this version");
            Err(object.site("apiVersion").problem(message))
        }
    };
    problems.extend(result.err());
}

impl Resource {
    fn of(object: &Object) -> Self {
        let Object { group, version, kind, .. } = object;
        match (group.as_str(), kind.as_str()) {
            ("networking.k8s.io", "NetworkPolicy") if version == "v1" => Self::NetworkPolicy,
            ("networking.k8s.io" | "extensions", "NetworkPolicy") => Self::UnknownVersion,
            // The other kinds of this group do not matter; what may be a misspelt policy does.
            ("networking.k8s.io", kind) if kind.to_ascii_lowercase().contains("polic") => Self::UnknownKind,
            ("cilium.io" | "policy.networking.k8s.io" | "signet.dev", _) => Self::UnknownKind,
            ("", "Pod") => Self::Pod,
            ("", "Namespace") => Self::Namespace,
            ("", "Node") => Self::Node,
            ("", "ServiceAccount") => Self::ServiceAccount,
            ("", "Service") => Self::Service,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet")
            | ("", "ReplicationController")
            | ("batch", "Job" | "CronJob") => Self::Workload,
            _ => Self::Ignored,
        }
    }
}
