//! Names and what they stand for.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// All names that a server answers for. Names are in lower case, without a dot at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The domains that the server is authoritative for: a name in one of them that is not in `names` does not exist.
    pub domains: BTreeSet<String>,
    /// The names.
    pub names: BTreeMap<String, Vec<Data>>,
    /// Who is asked for names in none of the domains; nobody, and they fail.
    #[serde(default)]
    pub upstreams: Vec<SocketAddr>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Data {
    /// An address: A or AAAA.
    Address(IpAddr),
    /// Another name, which stands for everything here: CNAME.
    Alias(String),
    /// A port of a host: SRV.
    Service {
        /// The port.
        port: u16,
        /// The host's name.
        target: String,
    },
    /// The name of an address: PTR.
    Pointer(String),
}

/// A zone that can be asked.
#[derive(Debug, Clone, Default)]
pub struct Names {
    zone: Zone,
    /// Names that exist because others are below them.
    between: BTreeSet<String>,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// It is there; it may have no data.
    Exists(&'a [Data]),
    /// It is in one of the domains, and is not there.
    Missing,
    /// It is in none of the domains.
    Foreign,
}

impl Zone {
    /// Adds data to a name, once.
    pub fn add(&mut self, name: &str, data: Data) {
        let held = self.names.entry(name.to_ascii_lowercase()).or_default();
        if !held.contains(&data) {
            held.push(data);
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If there is none, or it holds no zone.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| Error::Format { path: path.to_owned(), source })
    }

    /// Replaces a file at once: a reader sees the old zone or the new one. A file that says the same stays as it is.
    ///
    /// # Errors
    /// If the file or its folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let text =
            serde_json::to_vec(self).map_err(|source| Error::Format { path: path.to_owned(), source })?;
        if std::fs::read(path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

impl Names {
    /// Makes a zone ready to be asked.
    pub fn new(zone: Zone) -> Self {
        let mut between = zone.domains.clone();
        for name in zone.names.keys() {
            let mut rest = name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if domain_of(&zone.domains, parent).is_none() || !between.insert(parent.to_owned()) {
                    break;
                }
                rest = parent;
            }
        }
        Self { zone, between }
    }

    /// Who is asked for names in none of the domains.
    pub(crate) fn upstreams(&self) -> &[SocketAddr] {
        &self.zone.upstreams
    }

    /// The longest of the domains that a name is in.
    pub(crate) fn domain(&self, name: &str) -> Option<&str> {
        domain_of(&self.zone.domains, name)
    }

    pub(crate) fn look_up(&self, name: &str) -> Known<'_> {
        match self.zone.names.get(name) {
            Some(data) => Known::Exists(data),
            None if self.between.contains(name) => Known::Exists(&[]),
            None if self.domain(name).is_some() => Known::Missing,
            None => Known::Foreign,
        }
    }
}

fn domain_of<'a>(domains: &'a BTreeSet<String>, name: &str) -> Option<&'a str> {
    let inside = |domain: &&String| {
        let rest = name.strip_suffix(domain.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    domains.iter().filter(inside).max_by_key(|domain| domain.len()).map(String::as_str)
}

/// The name under which an address, or the first `bits` of it in whole labels, is looked up.
pub fn reverse_name(address: IpAddr, bits: u8) -> String {
    let mut labels: Vec<String> = match address {
        IpAddr::V4(v4) => v4.octets().iter().take(usize::from(bits / 8)).map(u8::to_string).collect(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            nibbles.take(usize::from(bits / 4)).map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    labels.reverse();
    labels.push(if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" }.to_owned());
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn addresses_and_their_prefixes_have_reverse_names() {
        assert_eq!(reverse_name("10.244.0.7".parse().unwrap(), 32), "7.0.244.10.in-addr.arpa");
        assert_eq!(reverse_name("10.244.0.0".parse().unwrap(), 16), "244.10.in-addr.arpa");
        assert_eq!(reverse_name("fd00:10::".parse().unwrap(), 32), "0.1.0.0.0.0.d.f.ip6.arpa");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone.json");
        let mut zone = Zone { domains: ["cluster.local".to_owned()].into(), ..Zone::default() };
        zone.add("Web.Default.svc.cluster.local", Data::Address("10.96.0.20".parse().unwrap()));
        zone.add("x.default.svc.cluster.local", Data::Alias("example.org".into()));
        zone.write(&path).unwrap();
        assert_eq!(Zone::read(&path).unwrap(), zone);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // a file that says the same stays, and one that says something else goes
        let file = || std::fs::metadata(&path).unwrap().ino();
        let first = file();
        zone.write(&path).unwrap();
        assert_eq!(file(), first);
        zone.add("y.default.svc.cluster.local", Data::Alias("example.org".into()));
        zone.write(&path).unwrap();
        assert_ne!(file(), first);
        assert_eq!(Zone::read(&path).unwrap(), zone);
    }
}
