//! A server of its own for a test: Redis or Valkey, whichever is there.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use signet_limits::{Clock, Limits, Shared, SharedSettings};
use tempfile::TempDir;

/// What a program is called, and as what it is to be run. Debian's tools of Redis have the server in them, under another name,
/// and start none on their own.
const PROGRAMS: [(&str, &str); 3] = [
    ("valkey-server", "valkey-server"),
    ("redis-server", "redis-server"),
    ("redis-check-rdb", "redis-server"),
];

/// A server on a socket in a folder of its own; ends with the test.
pub(crate) struct Server {
    folder: TempDir,
    process: Option<Child>,
}

impl Server {
    /// Where there is none, the test says so.
    pub(crate) async fn start() -> Option<Self> {
        let mut server = Self { folder: tempfile::tempdir().unwrap(), process: None };
        if server.run().await {
            return Some(server);
        }
        eprintln!("SKIPPED: no Redis or Valkey is installed: limits that gateways share are not tested");
        None
    }

    /// Starts it, again after it was stopped; whether there is one.
    pub(crate) async fn run(&mut self) -> bool {
        let folder = self.folder.path();
        let start = |program| spawn(program, folder).ok();
        self.process = PROGRAMS.into_iter().find_map(start);
        if self.process.is_none() {
            return false;
        }
        let client = redis::Client::open(self.url()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return true;
            }
            assert!(Instant::now() < deadline, "the server does not answer");
            tokio::task::yield_now().await;
        }
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    /// A gateway's view of it, with the clock of its caller.
    pub(crate) fn limits(&self) -> Limits {
        self.limits_with(SharedSettings { clock: Clock::Caller, ..settings() })
    }

    pub(crate) fn limits_with(&self, settings: SharedSettings) -> Limits {
        let (shared, keeper) = Shared::open(&self.url(), settings).unwrap();
        tokio::spawn(keeper.run());
        Limits::Shared(shared)
    }
}

/// Patient: tests share their machine.
pub(crate) fn settings() -> SharedSettings {
    SharedSettings { timeout: Duration::from_secs(10), ..SharedSettings::default() }
}

fn spawn((program, name): (&str, &str), folder: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg0(name)
        .args(["--port", "0", "--unixsocket", "socket", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--save", "", "--dir"])
        .arg(folder)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
