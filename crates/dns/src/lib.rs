//! The cluster's name server: a zone of names in a file, answered over UDP and TCP.
//!
//! Input: a [`Zone`], written by [`Zone::write`] and read again whenever its file changes. Output: answers. What a name
//! means is decided by whoever writes the zone; this crate knows nothing of Services, pods or policies.
//!
//! It is authoritative for its zones and for nothing else: other names are asked of the zone's upstreams, within bounds,
//! and fail where there are none.
//!
//! INVARIANT: a name in one of the zone's domains is never asked of anybody else
//! (`names_of_the_zone_never_leave_and_others_are_asked_of_the_upstreams`).
//! INVARIANT: a name that exists without records of the type asked for, or that only has names below it, is NODATA; only a
//! name that is not there is NXDOMAIN (`no_data_and_no_such_name_are_told_apart`).

mod answer;
mod error;
mod forward;
mod server;
mod zone;

pub use error::Error;
pub use server::{Server, ZoneFile};
pub use zone::{Data, Names, Zone, reverse_name};
