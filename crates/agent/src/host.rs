//! This host: its addresses, and the BPF file system.

use std::{fs, io, net::IpAddr, path::Path};

use nix::mount::{MsFlags, mount};

/// The addresses of this node in its current network namespace, without loopback's.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut out = vec![];
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else { continue };
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        if !ip.is_loopback() {
            out.push(ip);
        }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

/// Mounts a BPF file system around `folder` if there is none yet, and makes the folder.
///
/// # Errors
/// Whatever mounting or making the folder says.
pub fn ensure_bpffs(folder: &Path) -> io::Result<()> {
    let root = folder.parent().unwrap_or(folder);
    fs::create_dir_all(root)?;
    let magic = nix::sys::statfs::statfs(root)?.filesystem_type();
    if magic != nix::sys::statfs::BPF_FS_MAGIC {
        mount(Some("bpf"), root, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    }
    fs::create_dir_all(folder)
}
