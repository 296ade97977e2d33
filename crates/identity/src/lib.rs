//! Who is who: labels and selectors, pods, and the identities that policies can tell apart.
//!
//! Input: pods, namespaces and what the loaded policies mention. Output: an [`Identity`] number for each address,
//! with the [`Facts`] it stands for. Pure values: nothing here knows about files, Kubernetes, maps or clocks.
//!
//! INVARIANT: two pods share an identity only if no loaded policy can tell them apart
//! (`pods_that_no_policy_tells_apart_share_an_identity`).
//! INVARIANT: a number is never given out twice with different facts (`a_number_is_never_reused`).

mod directory;
mod facts;
mod label;
mod number;
mod pod;
mod selector;

pub use directory::{Directory, Members, Moved, kind_of_unknown};
pub use facts::{Facts, Kind, NamedPortNumbers, Seen, Vocabulary};
pub use label::{LabelError, Labels, validate_key, validate_value};
pub use number::{Identity, Interner};
pub use pod::{NamedPort, Pod, PodName, Protocol};
pub use selector::{Key, Lookup, Requirement, Selector, Test, Value};
