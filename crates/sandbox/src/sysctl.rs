//! Kernel settings of the current network namespace, and the way back to what they were.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, error::if_exists, store};

/// Which families of addresses pods of this node can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv6 is not in the kernel or disabled.
    Ipv4Only,
    /// Both.
    DualStack,
}

impl Families {
    /// Whether pods can have IPv6 addresses.
    pub fn have_ipv6(self) -> bool {
        self == Self::DualStack
    }
}

/// What a setting was before Signet changed it.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    /// Its path below `/proc/sys`.
    key: String,
    value: String,
}

/// The families of the node that the calling thread is in.
pub(crate) fn families() -> Result<Families> {
    Ok(match get("net/ipv6/conf/all/disable_ipv6")?.as_deref() {
        Some("0") => Families::DualStack,
        Some(_) | None => Families::Ipv4Only,
    })
}

/// Turns forwarding on. What was there before is kept in `memory`, where an earlier run did not keep it.
pub(crate) fn enable_forwarding(memory: &Path) -> Result<Families> {
    let families = families()?;
    match store::read_json::<Vec<Remembered>>(memory) {
        Ok(Some(_)) => {}
        Ok(None) => store::write_json(memory, &remember(families)?)?,
        Err(error) => {
            tracing::warn!(%error, "what kernel settings were before is not known any more: they will be left as they are now");
            store::write_json(memory, &remember(families)?)?;
        }
    }
    set("net/ipv4/ip_forward", "1")?;
    if families.have_ipv6() {
        keep_router_advertisements()?;
        set("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(families)
}

/// Puts back what [`enable_forwarding`] found; nothing to do where it never ran.
pub(crate) fn restore(memory: &Path) -> Result<()> {
    let remembered = store::read_json::<Vec<Remembered>>(memory).unwrap_or_else(|error| {
        tracing::warn!(%error, "what kernel settings were before is not known any more: they are left as they are");
        Some(vec![])
    });
    let Some(remembered) = remembered else { return Ok(()) };
    for Remembered { key, value } in remembered {
        // An interface of then may be gone by now.
        if get(&key)?.is_some() {
            set(&key, &value)?;
        }
    }
    if_exists(fs::remove_file(memory)).map_err(Error::at("removing", memory))?;
    Ok(())
}

/// Writes a setting where it differs: some have side effects on every write.
pub(crate) fn set(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key);
    if get(key)?.as_deref() == Some(value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(Error::at("writing", &path))
}

fn get(key: &str) -> Result<Option<String>> {
    let path = Path::new("/proc/sys").join(key);
    let text = if_exists(fs::read_to_string(&path)).map_err(Error::at("reading", &path))?;
    Ok(text.map(|t| t.trim().to_owned()))
}

/// The global switches first: writing one overwrites the settings of every interface below it.
fn remember(families: Families) -> Result<Vec<Remembered>> {
    let mut keys = vec!["net/ipv4/ip_forward".to_owned(), "net/ipv4/conf/all/accept_redirects".to_owned()];
    keys.extend(per_interface("ipv4")?.map(|i| format!("net/ipv4/conf/{i}/forwarding")));
    if families.have_ipv6() {
        keys.push("net/ipv6/conf/all/forwarding".to_owned());
        for interface in per_interface("ipv6")? {
            keys.push(format!("net/ipv6/conf/{interface}/forwarding"));
            keys.push(format!("net/ipv6/conf/{interface}/accept_ra"));
        }
    }
    let read = |key: String| get(&key).map(|value| value.map(|value| Remembered { key, value }));
    keys.into_iter().filter_map(|key| read(key).transpose()).collect()
}

/// A host that forwards ignores router advertisements unless it is told not to, and would lose its own
/// default route with them.
fn keep_router_advertisements() -> Result<()> {
    for interface in per_interface("ipv6")?.filter(|i| i != "all" && i != "default") {
        let key = |name: &str| format!("net/ipv6/conf/{interface}/{name}");
        let listens = get(&key("accept_ra"))?.as_deref() == Some("1");
        if listens && get(&key("forwarding"))?.as_deref() == Some("0") {
            set(&key("accept_ra"), "2")?;
        }
    }
    Ok(())
}

fn per_interface(family: &str) -> Result<impl Iterator<Item = String>> {
    let path = Path::new("/proc/sys/net").join(family).join("conf");
    let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(Error::at("listing", &path))?;
    Ok(entries.into_iter().filter_map(|e| e.file_name().into_string().ok()))
}
