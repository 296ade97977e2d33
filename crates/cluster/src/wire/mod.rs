//! Objects → what has been gathered: one submodule for each wire format.

pub(crate) mod cilium;
mod cluster_policy;
pub(crate) mod lower;
pub(crate) mod meta;
mod model;
mod network_policy;
mod pod;
mod port;
pub(crate) mod selector;
mod service;
mod topology;
mod volume;
mod workload;

use signet_model::ModelPolicyKind;

use crate::{error::Problem, gather::Gathered, object::Object, snapshot::Settings};

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    NetworkPolicy,
    /// ClusterNetworkPolicy, and the two kinds that it was before.
    ClusterPolicy(cluster_policy::Dialect),
    /// CiliumNetworkPolicy, or CiliumClusterwideNetworkPolicy.
    CiliumPolicy(meta::Scope),
    CidrGroup,
    ModelProvider,
    /// ModelPolicy, or ClusterModelPolicy.
    ModelPolicy(ModelPolicyKind),
    ModelPrices,
    TokenIssuer,
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
        Resource::ClusterPolicy(dialect) => cluster_policy::read(object, dialect, gathered, problems),
        Resource::CiliumPolicy(scope) => cilium::read(object, scope, gathered, problems),
        Resource::CidrGroup => cilium::group::read(object, gathered, problems),
        Resource::ModelProvider => model::provider::read(object, gathered, problems),
        Resource::ModelPolicy(kind) => model::policy::read(object, kind, gathered, problems),
        Resource::ModelPrices => model::prices::read(object, gathered, problems),
        Resource::TokenIssuer => model::issuer::read(object, gathered, problems),
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

/// Whether the meaning of an object depends on others (nodes, services, groups), and so is read after them.
pub(crate) fn refers_to_others(object: &Object) -> bool {
    matches!(Resource::of(object), Resource::ClusterPolicy(_) | Resource::CiliumPolicy(_))
}

impl Resource {
    fn of(object: &Object) -> Self {
        let Object { group, version, kind, .. } = object;
        match (group.as_str(), kind.as_str()) {
            ("networking.k8s.io", "NetworkPolicy") if version == "v1" => Self::NetworkPolicy,
            ("networking.k8s.io" | "extensions", "NetworkPolicy") => Self::UnknownVersion,
            // The other kinds of this group do not matter; what may be a misspelt policy does.
            ("networking.k8s.io", kind) if kind.to_ascii_lowercase().contains("polic") => Self::UnknownKind,
            ("policy.networking.k8s.io", kind) => match (cluster_policy::Dialect::of(kind), version.as_str())
            {
                (Some(dialect), found) if found == dialect.version() => Self::ClusterPolicy(dialect),
                (Some(_), _) => Self::UnknownVersion,
                (None, _) => Self::UnknownKind,
            },
            ("cilium.io", kind) => Self::of_cilium(kind, version),
            ("signet.dev", kind) => match kind {
                "ModelProvider" | "ModelPolicy" | "ClusterModelPolicy" | "ModelPrices" | "TokenIssuer"
                    if version != model::VERSION =>
                {
                    Self::UnknownVersion
                }
                "ModelProvider" => Self::ModelProvider,
                "ModelPrices" => Self::ModelPrices,
                "TokenIssuer" => Self::TokenIssuer,
                "ModelPolicy" => Self::ModelPolicy(ModelPolicyKind::ModelPolicy),
                "ClusterModelPolicy" => Self::ModelPolicy(ModelPolicyKind::ClusterModelPolicy),
                _ => Self::UnknownKind,
            },
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

    /// Of Cilium's kinds, those that are not about who may talk to whom do not matter.
    fn of_cilium(kind: &str, version: &str) -> Self {
        match (kind, version) {
            ("CiliumNetworkPolicy", "v2") => Self::CiliumPolicy(meta::Scope::Namespace),
            ("CiliumClusterwideNetworkPolicy", "v2") => Self::CiliumPolicy(meta::Scope::Cluster),
            ("CiliumCIDRGroup", "v2" | "v2alpha1") => Self::CidrGroup,
            ("CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" | "CiliumCIDRGroup", _) => {
                Self::UnknownVersion
            }
            (
                "CiliumEndpoint"
                | "CiliumEndpointSlice"
                | "CiliumIdentity"
                | "CiliumNode"
                | "CiliumNodeConfig",
                _,
            )
            | ("CiliumLoadBalancerIPPool" | "CiliumPodIPPool" | "CiliumL2AnnouncementPolicy", _)
            | ("CiliumGatewayClassConfig" | "CiliumVTEPConfig", _) => Self::Ignored,
            (kind, _) if kind.starts_with("CiliumBGP") => Self::Ignored,
            _ => Self::UnknownKind,
        }
    }
}
