//! Every role of one machine in one process: a folder of manifests is watched, applied, and its flows are collected.

use std::{
    ffi::OsString,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use signet_cluster::Snapshot;
use signet_flow::{Listen, Peers, Ring};

use crate::{
    api::Api,
    config::Config,
    control::{self, Asked, Request},
    error::Error,
    events::{self, Recorder},
    export::{ExportProgress, Exporter},
    ledger::Ledger,
    node::{Applied, Node},
};

/// How often each pod is looked at: its process may have ended.
const SUPERVISE_EVERY: Duration = Duration::from_millis(500);
/// How often idle flows are swept, and others' rules and programs looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What the node's thread is told.
enum Command {
    Manifests(Box<Result<Snapshot, signet_cluster::Error>>),
    Asked(Asked),
    Stop,
}

/// What happened to the manifests.
#[derive(Debug)]
pub enum Progress {
    /// They are in force.
    Applied(Applied),
    /// They cannot be read: the last good ones stay in force.
    Unreadable(signet_cluster::Error),
    /// They could not be applied: what was in force before stays.
    Refused(Error),
}

/// A node at work.
pub struct Up {
    commands: Sender<Command>,
    progress: Receiver<Progress>,
    flows: Arc<Ring>,
    node: JoinHandle<Result<(), Error>>,
    api: Api,
    exporter: Option<Exporter>,
}

impl Up {
    /// Starts the node and the watch on `manifests`.
    ///
    /// # Errors
    /// If the host or the kernel refuses, or the folder cannot be watched.
    pub fn start(mut config: Config, manifests: &Path, init: Vec<OsString>) -> Result<Self, Error> {
        config.manifests = std::path::absolute(manifests).ok();
        let (commands, inbox) = channel();
        let (report, progress) = channel();
        let (opened, is_open) = channel();
        let flows = Arc::new(Ring::bounded(config.flows, config.flows_memory));
        let settings = config.settings.clone();
        let ring = flows.clone();
        let (name, run_dir, peers) = (config.node.clone(), config.run_dir.clone(), config.peers.clone());
        let listen = Listen { tcp: config.flow_address, unix: Some(run_dir.join("agent.sock")) };
        let exporter = config.export.as_ref().map(|export| Exporter::start(export, &flows)).transpose()?;
        let exported = exporter.as_ref().map(|exporter| exporter.progress().clone());
        // everything that touches the kernel's maps stays on one thread
        let node = spawn("node", move || match Node::open(config, init) {
            Ok(node) => {
                let _ = opened.send(Ok(()));
                serve(node, &inbox, &report, &Flows { ring, exported })
            }
            Err(error) => {
                let _ = opened.send(Err(error));
                Ok(())
            }
        })?;
        let gone = Error::Host { what: "starting the node", source: std::io::ErrorKind::BrokenPipe.into() };
        is_open.recv().unwrap_or(Err(gone))?;
        let api = Api::start(flows.clone(), &name, listen, Peers::new(peers))?;
        let asked = commands.clone();
        control::listen(&run_dir.join("control.sock"), move |a| asked.send(Command::Asked(a)).is_ok())
            .map_err(|source| Error::Host { what: "making the control socket", source })?;
        let watch = signet_cluster::watch(manifests, settings).map_err(Error::Manifests)?;
        let outbox = commands.clone();
        spawn("manifests", move || {
            for snapshot in watch {
                if outbox.send(Command::Manifests(Box::new(snapshot))).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { commands, progress, flows, node, api, exporter })
    }

    /// What happens to the manifests, in order.
    pub fn progress(&self) -> &Receiver<Progress> {
        &self.progress
    }

    /// The flows of this node.
    pub fn flows(&self) -> &Arc<Ring> {
        &self.flows
    }

    /// Removes everything that was made and waits until it is gone.
    ///
    /// # Errors
    /// If something refuses to go.
    pub fn stop(self) -> Result<(), Error> {
        self.api.stop();
        let _ = self.commands.send(Command::Stop);
        let stopped = self.node.join().unwrap_or_else(|_| {
            Err(Error::Host {
                what: "stopping the node",
                source: std::io::Error::other("its thread panicked"),
            })
        });
        // the last flows are in the ring now
        if let Some(exporter) = self.exporter {
            exporter.stop();
        }
        stopped
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    let host = |source| Error::Host { what: "starting a thread", source };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(host)
}

/// Where flows go, and how far they are written to a file, if they are.
struct Flows {
    ring: Arc<Ring>,
    exported: Option<ExportProgress>,
}

/// The node's thread: one command at a time, until it is told to stop.
fn serve(
    mut node: Node,
    inbox: &Receiver<Command>,
    report: &Sender<Progress>,
    flows: &Flows,
) -> Result<(), Error> {
    let ring = &flows.ring;
    let stop = Arc::new(AtomicBool::new(false));
    let ledger = Arc::new(Mutex::new(Ledger::open(node.state_dir())));
    let recorder = Recorder::new(node.directory(), ring.clone(), ledger.clone());
    node.open_desk(ring.clone())?;
    let collector = events::collect(node.event_reader()?, recorder, stop.clone())?;
    // nobody may be listening; the node goes on
    let tell = |progress| drop(report.send(progress));
    let mut refused = String::new();
    let (mut look, mut sweep) = (Instant::now() + SUPERVISE_EVERY, Instant::now() + SWEEP_EVERY);
    loop {
        match inbox.recv_timeout(look.saturating_duration_since(Instant::now())) {
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Command::Asked(asked)) => {
                let (answer, applied) = answer(&mut node, &asked, flows, &ledger);
                applied.into_iter().map(Progress::Applied).for_each(tell);
                // whoever asked may be gone
                let _ = asked.answer.send(answer);
            }
            Ok(Command::Manifests(snapshot)) => tell(match *snapshot {
                Err(error) => Progress::Unreadable(error),
                Ok(snapshot) => node.apply(snapshot).map_or_else(
                    |error| {
                        refused = error.to_string();
                        Progress::Refused(error)
                    },
                    Progress::Applied,
                ),
            }),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= look {
            match node.supervise(Instant::now()) {
                Ok(applied) => applied.into_iter().map(Progress::Applied).for_each(tell),
                Err(error) => tracing::warn!(%error, "a pod could not be looked after; it is tried later"),
            }
            look = Instant::now() + node.supervise_in(SUPERVISE_EVERY);
        }
        if Instant::now() >= sweep {
            if let Err(error) = node.sweep() {
                tracing::warn!(%error, "idle flows could not be swept; it is tried again");
            }
            node.renew_tokens();
            if let Err(error) = node.look_around() {
                tracing::warn!(%error, "what is on the way between pods could not be told to the kernel");
            }
            match node.retry() {
                Some(Ok(applied)) => tell(Progress::Applied(applied)),
                // what was said already is not said again
                Some(Err(error)) if error.to_string() != refused => {
                    refused = error.to_string();
                    tell(Progress::Refused(error));
                }
                Some(Err(_)) | None => {}
            }
            sweep = Instant::now() + SWEEP_EVERY;
        }
    }
    let result = node.shut_down();
    stop.store(true, Ordering::Relaxed);
    let _ = collector.join();
    result
}

/// The answer to a question, and what answering it changed.
fn answer(node: &mut Node, asked: &Asked, flows: &Flows, ledger: &Mutex<Ledger>) -> (Value, Option<Applied>) {
    match &asked.request {
        Request::Status => {
            let mut status = node.status();
            status["export"] = flows.exported.as_ref().map_or(Value::Null, ExportProgress::status);
            (status, None)
        }
        Request::Audit => (serde_json::to_value(events::lock(ledger).lines()).unwrap_or_default(), None),
        Request::Why(why) => match node.why(why) {
            Ok(said) => (serde_json::to_value(said).unwrap_or_default(), None),
            Err(error) => (json!({ "error": error }), None),
        },
        Request::Run(program) => {
            let process = asked.caller.ok_or_else(|| {
                Error::Program(
                    "this node does not see the caller's process: is it in a container?".to_owned(),
                )
            });
            match process.and_then(|process| node.run(program, process)) {
                Ok((applied, place)) => (json!({ "place": place }), Some(applied)),
                Err(error) => (json!({ "error": error.to_string() }), None),
            }
        }
    }
}
