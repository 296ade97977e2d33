//! A folder of Kubernetes manifests, read into one validated [`Snapshot`]; a watched folder, into a stream of them.
//!
//! Input: YAML or JSON files. Output: pods, policies lowered onto `signet_policy`'s model, and what they refer to,
//! sorted. Files become `document`s with positions, documents become objects, and each kind enters through one
//! conversion in `wire`; policies whose meaning depends on other objects (services, nodes, groups of prefixes) are read
//! after those. RSVP-only namespaces get the policies of `baseline`. Policies are read strictly (an unknown field is an
//! error), other kinds tolerantly.
//! Knows nothing of verdicts, maps, sandboxes or flows.
//!
//! INVARIANT: any problem, and there is no snapshot (`one_bad_file_leaves_no_snapshot_and_all_problems_are_named`).
//! INVARIANT: no policy is ignored silently (`policies_that_are_not_supported_are_errors`).
//! INVARIANT: the same objects make the same snapshot, in whatever files and order they are
//! (`the_order_of_files_does_not_matter`).

mod baseline;
mod config;
mod document;
mod error;
mod files;
mod gather;
mod names;
mod object;
mod part;
mod reading;
mod scalar;
mod snapshot;
mod volume;
mod watch;
mod wire;

pub use config::read_config;
pub use error::{Error, Place, Problem, Site};
pub use snapshot::{
    Container, EndpointSlice, Frontend, HostAddress, HostPort, Namespace, Node, PodManifest, RestartPolicy,
    Service, ServiceAccount, ServicePort, Settings, Snapshot, TargetPort,
};
pub use volume::{ProjectedToken, TokenVolume, VolumeMount};
pub use watch::{Watch, watch};
pub use wire::selector::{Fault, On, selector_from_value};
