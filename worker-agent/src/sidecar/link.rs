//! The line home: one stream to the plane, made anew whenever it breaks.
//!
//! Milestones wait in a spool until the plane says that they are durable, and are sent again after each reconnect.
//! Log chunks are sent while there is credit and dropped, counted, when there is none. While no heartbeat has been
//! acknowledged for half the lease, [`Link::may_write`] is false, and whoever pushes or writes waits. Credentials come
//! with each welcome, and the newest ones hold.

mod connection;
mod spool;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use mainloop_proto::v1::{
    Assignment, Command, Credentials, LogSource, Spend, Welcome, milestone::Fact,
};
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use self::spool::Spool;

/// Commands that wait for the worker. It takes each at once or keeps it for its next prompt; where it does neither for
/// long, the rest waits in the link. The plane bounds how many there are.
const COMMANDS: usize = 32;
/// Log chunks that wait for the link; more are dropped and counted.
const LOGS: usize = 256;
/// Longest log chunk, in bytes.
const MAX_LOG: usize = 16 * 1024;

/// Where and as whom to dial.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plane's socket.
    pub socket: PathBuf,
    /// The attempt, a UUID.
    pub attempt_id: String,
    /// The launcher's host.
    pub host_id: String,
    /// The attempt's token.
    pub token: SecretString,
}

/// The worker's end of the line. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Link {
    spool: Arc<Spool>,
    logs: mpsc::Sender<LogLine>,
    spend: watch::Sender<Spend>,
    done: mpsc::UnboundedSender<String>,
    assignment: watch::Receiver<Assignment>,
    may_write: watch::Receiver<bool>,
    credentials: watch::Receiver<Credentials>,
    _task: Arc<AbortOnDropHandle<()>>,
}

/// What the line brings in.
#[derive(Debug)]
pub struct Opened {
    /// The worker's end.
    pub link: Link,
    /// The plane's first answer.
    pub welcome: Welcome,
    /// Guidance and answers, each once.
    pub commands: mpsc::Receiver<Command>,
}

#[derive(Debug)]
struct LogLine {
    source: LogSource,
    text: String,
    time: prost_types::Timestamp,
}

/// Why no line was opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plane knows no such attempt, or it is over.
    #[error("the plane turned this attempt away: {0}")]
    Refused(String),
}

impl Link {
    /// Dials until the plane answers.
    pub async fn open(options: Options) -> Result<Opened, Error> {
        let spool = Arc::new(Spool::default());
        let (logs, log_queue) = mpsc::channel(LOGS);
        let (spend, spend_queue) = watch::channel(Spend::default());
        // Holds ids of applied commands only; their number is bounded by what the plane sent.
        let (done, done_queue) = mpsc::unbounded_channel();
        let (assignment_sink, assignment) = watch::channel(Assignment::default());
        let (may_write_sink, may_write) = watch::channel(false);
        let (credentials_sink, credentials) = watch::channel(Credentials::default());
        let (commands_sink, commands) = mpsc::channel(COMMANDS);
        let (first, welcomed) = oneshot::channel();
        let task = connection::Connection {
            options,
            spool: Arc::clone(&spool),
            logs: log_queue,
            spend: spend_queue,
            done: done_queue,
            assignment: assignment_sink,
            may_write: may_write_sink,
            credentials: credentials_sink,
            commands: commands_sink,
            waiting_commands: VecDeque::new(),
            first: Some(first),
            seen_commands: HashSet::new(),
            done_commands: HashSet::new(),
            done_again: VecDeque::new(),
            epoch: 0,
            credit: 0,
            dropped: 0,
            heard: tokio::time::Instant::now(),
            trust: Duration::ZERO,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        let welcome = welcomed
            .await
            .map_err(|_| Error::Refused("the link ended before it was open".to_owned()))?
            .map_err(Error::Refused)?;
        Ok(Opened {
            link: Self {
                spool,
                logs,
                spend,
                done,
                assignment,
                may_write,
                credentials,
                _task: Arc::new(task),
            },
            welcome,
            commands,
        })
    }

    /// Reports a fact of the step that `phase_version` stands for. It is sent until it is durable.
    pub fn report(&self, phase_version: i64, fact: Fact) -> u64 {
        self.spool.push(phase_version, fact)
    }

    /// Reports a fact that only people read. While too many wait it is left out and counted.
    pub fn note(&self, phase_version: i64, fact: Fact) {
        self.spool.push_note(phase_version, fact);
    }

    /// Reports a fact, and waits until it is durable.
    pub async fn report_durably(&self, phase_version: i64, fact: Fact) {
        let seq = self.report(phase_version, fact);
        self.spool.durable(seq).await;
    }

    /// Waits until all that was reported is durable, at most that long.
    pub async fn drain(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.spool.durable(self.spool.last())).await;
    }

    /// Writes to the task's log. Never waits: under pressure the chunk is dropped and counted.
    pub fn log(&self, source: LogSource, text: impl Into<String>) {
        let mut text: String = text.into();
        if text.len() > MAX_LOG {
            text.truncate(text.floor_char_boundary(MAX_LOG));
        }
        let line = LogLine {
            source,
            text,
            time: now(),
        };
        if self.logs.try_send(line).is_err() {
            self.spool.count_dropped();
        }
    }

    /// Tells what the attempt has cost so far; a newer figure replaces one that was not sent.
    pub fn spent(&self, spend: Spend) {
        self.spend.send_replace(spend);
    }

    /// Tells that a command was applied.
    pub fn done(&self, command: &str) {
        // The receiver lives as long as the link.
        let _ = self.done.send(command.to_owned());
    }

    /// The step to do, and each change of it.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.assignment.clone()
    }

    /// Whether the plane has heard of this worker lately, so that it may push and write.
    pub fn may_write(&self) -> watch::Receiver<bool> {
        self.may_write.clone()
    }

    /// The credentials of the plane's last welcome.
    pub fn credentials(&self) -> watch::Receiver<Credentials> {
        self.credentials.clone()
    }

    /// Waits until this worker may push and write.
    pub async fn writable(&self) {
        let mut may_write = self.may_write();
        // An error means that the link is gone: then the worker is ending anyway.
        let _ = may_write.wait_for(|may| *may).await;
    }
}

/// Now, on the wire.
pub fn now() -> prost_types::Timestamp {
    timestamp(jiff::Timestamp::now())
}

/// A time on the wire.
pub fn timestamp(time: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}
