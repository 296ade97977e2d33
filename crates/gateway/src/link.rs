//! The node, over its socket: a question a line, an answer a line.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::UnixStream,
    sync::mpsc,
};

use crate::node::{Caller, Connection, Documents, Node, NodeError, Question, Record, Reply, Shown};

/// How long the node may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_REPLY: u64 = 1 << 20;
/// Streams that are kept for the next question.
const IDLE: usize = 8;
/// Records that wait for the node; more are lost, and counted.
const RECORDS: usize = 4096;

/// The node behind a socket.
pub struct Link {
    streams: Arc<Streams>,
    records: mpsc::Sender<Record>,
}

struct Streams {
    path: PathBuf,
    idle: Mutex<Vec<BufStream<UnixStream>>>,
}

impl Link {
    /// A link to the node that listens at `path`, and the work of passing records on, which lasts until the link is gone.
    pub fn new(path: PathBuf) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (records, mut waiting) = mpsc::channel(RECORDS);
        let streams = Arc::new(Streams { path, idle: Mutex::default() });
        let passing = {
            let streams = streams.clone();
            async move {
                while let Some(record) = waiting.recv().await {
                    if let Err(error) = streams.ask(&Question::Record(Box::new(record))).await {
                        tracing::warn!(%error, "a record of a call is lost");
                    }
                }
            }
        };
        (Self { streams, records }, passing)
    }
}

impl Node for Link {
    async fn who(&self, connection: Connection) -> Result<Caller, NodeError> {
        match self.streams.ask(&Question::Who(connection)).await? {
            Reply::Caller(caller) => Ok(caller),
            other => Err(unexpected(&other)),
        }
    }

    async fn token(&self, connection: Connection, audience: &str) -> Result<SecretString, NodeError> {
        let question = Question::Token { connection, audience: audience.to_owned() };
        match self.streams.ask(&question).await? {
            Reply::Token(Shown(token)) => Ok(token),
            other => Err(unexpected(&other)),
        }
    }

    async fn documents(&self) -> Result<Documents, NodeError> {
        match self.streams.ask(&Question::Documents).await? {
            Reply::Documents(documents) => Ok(documents),
            other => Err(unexpected(&other)),
        }
    }

    fn record(&self, record: Record) {
        if self.records.try_send(record).is_err() {
            tracing::warn!("a record of a call is lost: too many wait");
        }
    }
}

fn unexpected(reply: &Reply) -> NodeError {
    match reply {
        Reply::Error(error) => NodeError::Refused(error.clone()),
        Reply::Caller(_) | Reply::Token(_) | Reply::Documents(_) | Reply::Noted => {
            NodeError::Unreachable("it answers another question".to_owned())
        }
    }
}

impl Streams {
    async fn ask(&self, question: &Question) -> Result<Reply, NodeError> {
        let failed = |error: io::Error| NodeError::Unreachable(error.to_string());
        let mut line = serde_json::to_string(question).map_err(|error| failed(error.into()))?;
        line.push('\n');
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // one that was kept may be of a node that is gone
        if let Some(mut stream) = idle
            && let Ok(reply) = exchange(&mut stream, &line).await
        {
            self.keep(stream);
            return Ok(reply);
        }
        let mut stream = BufStream::new(UnixStream::connect(&self.path).await.map_err(failed)?);
        let reply = exchange(&mut stream, &line).await.map_err(failed)?;
        self.keep(stream);
        Ok(reply)
    }

    fn keep(&self, stream: BufStream<UnixStream>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(stream);
        }
    }
}

async fn exchange(stream: &mut BufStream<UnixStream>, line: &str) -> io::Result<Reply> {
    let exchanged = async {
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await?;
        let mut reply = String::new();
        stream.take(MAX_REPLY).read_line(&mut reply).await?;
        // what is wrong may quote what is secret
        serde_json::from_str(&reply).map_err(|_| io::Error::other("its answer cannot be read"))
    };
    tokio::time::timeout(PATIENCE, exchanged).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
