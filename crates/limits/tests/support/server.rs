//! A server of its own for a test: Redis or Valkey, whichever is there.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use signet_limits::{Clock, Limits, Shared, SharedSettings};
use signet_testkit::{certificates::Authority, store};
use tempfile::TempDir;

/// A server on a socket in a folder of its own; ends with the test.
pub(crate) struct Server {
    folder: TempDir,
    process: Option<Child>,
    /// What it is told beside.
    options: Vec<String>,
}

impl Server {
    /// Where there is none, the test says so.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), vec![]).await
    }

    /// The same, with TLS at a port of the host; with that, and with what its certificate is signed by.
    pub(crate) async fn start_tls() -> Option<(Self, u16, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let Some(authority) = Authority::new(folder.path()).unwrap() else {
            eprintln!("SKIPPED: no openssl is installed: TLS to a store is not tested");
            return None;
        };
        authority.pair("leaf", "DNS:localhost").unwrap();
        let authority = std::fs::read(authority.certificate()).unwrap();
        let files =
            ["--tls-cert-file", "leaf.pem", "--tls-key-file", "leaf.key", "--tls-ca-cert-file", "ca.pem"];
        let mut server = Self { folder, process: None, options: vec![] };
        // one that is free now need not be when the server comes to it
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let options = ["--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
            server.options = options.into_iter().chain(files).map(str::to_owned).collect();
            if server.run().await {
                return Some((server, port, authority));
            }
            if server.process.is_none() {
                return server.missing();
            }
        }
        panic!("no port is free for long enough")
    }

    async fn start_in(folder: TempDir, options: Vec<String>) -> Option<Self> {
        let mut server = Self { folder, process: None, options };
        if server.run().await {
            return Some(server);
        }
        server.missing()
    }

    fn missing<T>(self) -> Option<T> {
        assert!(self.process.is_none(), "the server ended");
        eprintln!("SKIPPED: no Redis or Valkey is installed: limits that gateways share are not tested");
        None
    }

    /// Starts it, again after it was stopped; whether it is there.
    pub(crate) async fn run(&mut self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let folder = self.folder.path();
        self.process = store::start(folder, &self.options).unwrap();
        let Some(process) = &mut self.process else { return false };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return true;
            }
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "the server does not answer");
            tokio::task::yield_now().await;
        }
    }

    /// It need not outlive the machine, and is the faster.
    pub(crate) async fn relax(&self) {
        self.set("appendfsync", "no").await;
    }

    /// Changes a setting.
    pub(crate) async fn set(&self, name: &str, value: &str) {
        let mut connection =
            redis::Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let set = redis::cmd("CONFIG").arg(&["SET", name, value]).query_async(&mut connection).await;
        set.unwrap()
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

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
