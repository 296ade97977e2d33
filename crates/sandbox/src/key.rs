//! Names: from `namespace/name` to everything that is named after a pod.
//!
//! All of them are functions of the pod's name alone, so leftovers are found without a record.

use std::fmt;

use crate::{Error, Result, pod::MacAddress};

/// The longest namespace, in bytes: Kubernetes' own limit.
pub const MAX_NAMESPACE: usize = 63;

/// The longest pod name, in bytes: shorter than Kubernetes', as both must fit one file name.
pub const MAX_NAME: usize = 190;

/// What the node's end of every veth pair begins with.
pub(crate) const IFNAME_PREFIX: &str = "sg";

/// A checked `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Result<Self> {
        Ok(Self { namespace: checked(namespace, MAX_NAMESPACE)?, name: checked(name, MAX_NAME)? })
    }

    /// The inverse of [`Key::file_name`]; `None` for a file that no pod is named after.
    pub(crate) fn from_file_name(file: &str) -> Option<Self> {
        let (namespace, name) = file.split_once('_')?;
        Self::new(namespace, name).ok()
    }

    /// Unambiguous, as no checked name holds a `_`.
    pub(crate) fn file_name(&self) -> String {
        format!("{}_{}", self.namespace, self.name)
    }

    /// The node's end of the veth pair: 14 bytes of the 15 that the kernel allows.
    pub(crate) fn ifname(&self) -> String {
        format!("{IFNAME_PREFIX}{:012x}", self.hash() & 0xffff_ffff_ffff)
    }

    pub(crate) fn pod_mac(&self) -> MacAddress {
        self.mac(0x0a)
    }

    pub(crate) fn host_mac(&self) -> MacAddress {
        self.mac(0x0e)
    }

    pub(crate) fn hostname(&self) -> &str {
        let end = self.name.len().min(63);
        self.name.get(..end).unwrap_or_default().trim_end_matches(['-', '.'])
    }

    /// `first` must be that of a locally administered unicast address.
    fn mac(&self, first: u8) -> MacAddress {
        let [a, b, c, d, e, ..] = self.hash().to_le_bytes();
        MacAddress([first, a, b, c, d, e])
    }

    /// FNV-1a: stable across versions of Rust, which `DefaultHasher` is not.
    fn hash(&self) -> u64 {
        let text = self.to_string();
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A name of a volume, which is one of a folder.
pub(crate) fn volume_name(name: &str) -> Result<&str> {
    checked(name, MAX_NAMESPACE).map(|_| name)
}

fn checked(name: &str, longest: usize) -> Result<String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let fits = bytes.len() <= longest
        && bytes.iter().all(|&b| inner(b) || b == b'-' || b == b'.')
        && bytes.first().is_some_and(|&b| inner(b))
        && bytes.last().is_some_and(|&b| inner(b));
    if fits { Ok(name.to_owned()) } else { Err(Error::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_run_directory_are_refused() {
        for bad in ["", "..", ".", "a/b", "../a", "a_b", "A", "-a", "a-", "a b", "a\0", &"a".repeat(191)] {
            assert!(matches!(Key::new("default", bad), Err(Error::Name(_))), "{bad:?}");
            assert!(matches!(Key::new(bad, "pod"), Err(Error::Name(_))), "{bad:?}");
        }
        assert!(Key::new("ai-workloads", "model-0.x").is_ok());
    }

    #[test]
    fn a_file_name_leads_back_to_its_pod() {
        let key = Key::new("data", "vector-db-0").unwrap();
        assert_eq!(key.file_name(), "data_vector-db-0");
        assert_eq!(Key::from_file_name("data_vector-db-0"), Some(key));
        assert_eq!(Key::from_file_name("lost+found"), None);
    }

    #[test]
    fn names_of_links_and_their_addresses_are_stable() {
        let key = Key::new("data", "vector-db-0").unwrap();
        assert_eq!(key.ifname().len(), 14);
        assert_eq!(key.ifname(), Key::new("data", "vector-db-0").unwrap().ifname());
        assert_ne!(key.ifname(), Key::new("data", "vector-db-1").unwrap().ifname());
        assert_ne!(key.pod_mac(), key.host_mac());
        assert_eq!(key.pod_mac().0[0] & 3, 2, "locally administered, unicast");
    }

    #[test]
    fn a_host_name_fits_the_kernels_limit_and_ends_in_a_letter_or_digit() {
        let long = format!("{}-tail", "a".repeat(62));
        assert_eq!(Key::new("x", &long).unwrap().hostname(), "a".repeat(62));
    }
}
