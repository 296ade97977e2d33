//! The node, over its socket: a question a line, an answer a line.
//!
//! INVARIANT: whatever else the node is asked, who calls is answered (`who_calls_is_answered_whatever_else_is_asked`).

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
    sync::{Semaphore, mpsc},
};

use crate::node::{Caller, Connection, Documents, Node, NodeError, Question, Record, Reply, Shown};

/// How long the node may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_REPLY: u64 = 1 << 20;
/// Streams at a time on which it is asked who calls; more questions wait. The node serves 64, idle ones among them, and leaves who
/// comes beyond that without an answer.
const ASKING_WHO: usize = 32;
/// Streams at a time for all else.
const OTHERS: usize = 16;
/// Streams that are kept for the next question.
const IDLE: usize = 8;
/// Records that wait for the node, none of which keeps much of what its caller says; more are lost, and counted. As many as there
/// may be connections, which may all break off at once.
const RECORDS: usize = 16_384;
/// Records that are told at once, where so many wait.
const TOLD_AT_ONCE: usize = 64;

/// The node behind a socket.
pub struct Link {
    streams: Arc<Streams>,
    records: mpsc::Sender<Record>,
}

struct Streams {
    path: PathBuf,
    idle: Mutex<Vec<BufStream<UnixStream>>>,
    asking_who: Semaphore,
    others: Semaphore,
}

impl Link {
    /// A link to the node that listens at `path`, and the work of passing records on, which lasts until the link is gone.
    pub fn new(path: PathBuf) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (records, mut waiting) = mpsc::channel(RECORDS);
        let (asking_who, others) = (Semaphore::new(ASKING_WHO), Semaphore::new(OTHERS));
        let streams = Arc::new(Streams { path, idle: Mutex::default(), asking_who, others });
        let passing = {
            let streams = streams.clone();
            async move {
                let mut records = vec![];
                while waiting.recv_many(&mut records, TOLD_AT_ONCE).await > 0 {
                    let count = records.len();
                    let told = records.drain(..).map(|record| Question::Record(Box::new(record)));
                    match streams.ask_all(&told.collect::<Vec<_>>()).await {
                        Ok(replies) => {
                            replies.iter().filter(|reply| !matches!(reply, Reply::Noted)).for_each(|reply| {
                                tracing::warn!(error = %unexpected(reply), "a record of a call is lost");
                            });
                        }
                        Err(error) => tracing::warn!(%error, count, "records of calls are lost"),
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
        let replies = self.ask_all(std::slice::from_ref(question)).await?;
        replies.into_iter().next().ok_or_else(|| NodeError::Unreachable("it answers nothing".to_owned()))
    }

    /// Asks several questions at once: an answer to each, in their order.
    async fn ask_all(&self, questions: &[Question]) -> Result<Vec<Reply>, NodeError> {
        let failed = |error: io::Error| NodeError::Unreachable(error.to_string());
        let mut lines = vec![];
        for question in questions {
            serde_json::to_writer(&mut lines, question).map_err(|error| failed(error.into()))?;
            lines.push(b'\n');
        }
        let late = |_| NodeError::Unreachable("too many ask it".to_owned());
        let is_who = matches!(questions, [Question::Who(_)]);
        let room = if is_who { &self.asking_who } else { &self.others };
        let _place = tokio::time::timeout(PATIENCE, room.acquire()).await.map_err(late)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // one that was kept may be of a node that is gone
        if let Some(mut stream) = idle
            && let Ok(replies) = exchange(&mut stream, (&lines, questions.len())).await
        {
            self.keep(stream);
            return Ok(replies);
        }
        let mut stream = BufStream::new(UnixStream::connect(&self.path).await.map_err(failed)?);
        let replies = exchange(&mut stream, (&lines, questions.len())).await.map_err(failed)?;
        self.keep(stream);
        Ok(replies)
    }

    fn keep(&self, stream: BufStream<UnixStream>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(stream);
        }
    }
}

/// Sends lines, and reads as many answers.
async fn exchange(
    stream: &mut BufStream<UnixStream>,
    (lines, count): (&[u8], usize),
) -> io::Result<Vec<Reply>> {
    let exchanged = async {
        stream.write_all(lines).await?;
        stream.flush().await?;
        let (mut replies, mut reply) = (Vec::with_capacity(count), String::new());
        for _ in 0..count {
            reply.clear();
            (&mut *stream).take(MAX_REPLY).read_line(&mut reply).await?;
            // what is wrong may quote what is secret
            let read = serde_json::from_str(&reply);
            replies.push(read.map_err(|_| io::Error::other("its answer cannot be read"))?);
        }
        Ok(replies)
    };
    tokio::time::timeout(PATIENCE, exchanged).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn who_calls_is_answered_whatever_else_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // a node that has no time for its keys
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut stream, mut line) = (BufStream::new(stream), String::new());
                    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                        match serde_json::from_str(&line).unwrap() {
                            Question::Who(_) => {
                                stream.write_all(b"{\"caller\":\"unknown\"}\n").await.unwrap()
                            }
                            _ => std::future::pending().await,
                        }
                        stream.flush().await.unwrap();
                        line.clear();
                    }
                });
            }
        });
        let link = Arc::new(Link::new(path).0);
        for _ in 0..2 * (ASKING_WHO + OTHERS) {
            let link = link.clone();
            tokio::spawn(async move { link.documents().await });
        }
        tokio::task::yield_now().await;
        let who = tokio::time::timeout(PATIENCE / 2, link.who(Connection::default())).await.unwrap();
        assert_eq!(who.unwrap(), Caller::Unknown);
    }
}
