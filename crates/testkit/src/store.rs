//! A server of Redis or Valkey, whichever is there.

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

/// What a program is called, and as what it is to be run. Debian's tools of Redis have the server in them, under another name,
/// and start none on their own.
const PROGRAMS: [(&str, &str); 3] = [
    ("valkey-server", "valkey-server"),
    ("redis-server", "redis-server"),
    ("redis-check-rdb", "redis-server"),
];

/// Starts one that keeps all it is told on disk, at `socket` in `folder`; none where none is installed. It is the caller's to end.
///
/// # Errors
/// If it is installed and cannot be started.
pub fn start(folder: &Path, options: &[String]) -> io::Result<Option<Child>> {
    for (program, name) in PROGRAMS {
        let started = Command::new(program)
            .arg0(name)
            .args(["--port", "0", "--unixsocket", "socket", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--dir"])
            .arg(folder)
            .args(options)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            started => return started.map(Some),
        }
    }
    Ok(None)
}
