//! The driver's face: open it on the pipes of a started CLI, run turns, and steer them from elsewhere by a [`Handle`].
//!
//! Owns the contract; the actor behind it owns the state. It never times out a turn or a question: the caller has the
//! step's deadline and [`Handle::activity`]. Dropping the [`Driver`] closes the CLI's input and forgets every open question.

mod actor;
#[cfg(test)]
mod tests;
mod turn;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::actor::Actor;
use super::events::{Answer, Event, TurnEnd};

/// Commands that wait for the actor. It takes each in microseconds; a caller that finds this full waits.
const COMMANDS: usize = 16;
/// Events that wait for the caller; behind it lies the actor's backlog, which drops what is only for reading.
const EVENTS: usize = 64;
/// How long the CLI may take to answer its first request. Twenty starts at once on two cores take ten seconds each.
const HANDSHAKE: Duration = Duration::from_secs(90);

pub use crate::channel::{Output, Pipes};

/// What Claude may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Read, ask and write a plan.
    Plan,
    /// Everything that the sandbox allows.
    Work,
}

impl Mode {
    /// The CLI's word for it. Working is its `default` mode with every request allowed, which needs no launch flag and keeps all calls visible.
    pub(crate) fn permission_mode(self) -> &'static str {
        match self {
            Mode::Plan => "plan",
            Mode::Work => "default",
        }
    }
}

/// What the driver has to know about the started process.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The mode it was launched in.
    pub mode: Mode,
    /// Its `CLAUDE_CONFIG_DIR`.
    pub config_dir: String,
    /// Names of the threads of a review that Claude may answer.
    pub threads: Vec<String>,
}

/// Signs of life.
#[derive(Debug, Clone, Copy)]
pub struct Activity {
    /// When the process last said anything.
    pub at: Instant,
    /// Questions, blockers and plans that wait for us. While there are any, silence is expected.
    pub waiting: usize,
}

/// Why a process could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("claude exited while it was started (code {code:?}, signal {signal:?}): {stderr}")]
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
        stderr: String,
    },
    #[error("claude refused to initialize: {0}")]
    Refused(String),
    #[error("claude did not answer its first request within {} s", HANDSHAKE.as_secs())]
    Silent,
}

/// Why a command was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("claude is no longer running")]
    Closed,
    #[error("no turn is running; put the words into the next prompt")]
    NoTurn,
    #[error("no open question has this id; it was answered or withdrawn")]
    NoSuchQuestion,
    #[error("no plan waits to be stored")]
    NoPlan,
    #[error("claude refused: {0}")]
    Refused(String),
}

/// One driven process. Runs one turn at a time.
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    _actor: AbortOnDropHandle<()>,
}

impl Driver {
    /// Takes over the pipes of a process that was just started as [`launch`](super::launch()) says, and waits for its first answer.
    ///
    /// The events must be read: the ones for people are dropped and counted when nobody does, the others wait.
    pub async fn open(
        pipes: Pipes,
        options: OpenOptions,
    ) -> Result<(Self, mpsc::Receiver<Event>), OpenError> {
        let (commands, commands_rx) = mpsc::channel(COMMANDS);
        let (events, events_rx) = mpsc::channel(EVENTS);
        let (activity_tx, activity) = watch::channel(Activity {
            at: Instant::now(),
            waiting: 0,
        });
        let (ready, opened) = oneshot::channel();
        let actor = Actor::new(pipes, options, commands_rx, events, activity_tx, ready);
        let actor = AbortOnDropHandle::new(tokio::spawn(actor.run()));
        match tokio::time::timeout(HANDSHAKE, opened).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) => return Err(OpenError::Refused("the driver stopped".into())),
            Err(_) => return Err(OpenError::Silent),
        }
        Ok((
            Self {
                handle: Handle { commands, activity },
                _actor: actor,
            },
            events_rx,
        ))
    }

    /// A handle for those who steer the turn while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sends `prompt` and waits until its turn is over.
    ///
    /// A turn is over when the prompt and every [`Handle::say`] in it are settled (the CLI reports each as completed or
    /// cancelled, after it wrote the result), so words that came too late to be read in mid-run are answered within the same
    /// turn. The last result counts. Turns that the CLI begins by itself, when a background task ends, carry an
    /// `origin` and are never taken for ours. Should the future be dropped, the turn runs on: interrupt it, then end the process.
    pub async fn turn(&mut self, prompt: &str) -> TurnEnd {
        let gone = || TurnEnd::ProcessExited {
            code: None,
            signal: None,
            stderr: String::new(),
        };
        let (done, end) = oneshot::channel();
        if self
            .handle
            .commands
            .send(Command::Turn {
                prompt: prompt.to_owned(),
                done,
            })
            .await
            .is_err()
        {
            return gone();
        }
        end.await.unwrap_or_else(|_| gone())
    }
}

/// Steers a [`Driver`] from elsewhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    activity: watch::Receiver<Activity>,
}

impl Handle {
    /// Hands Claude a message in mid-run. `id` makes it idempotent: the same id again does nothing.
    pub async fn say(&self, id: Uuid, text: &str) -> Result<(), CommandError> {
        self.ask(|done| Command::Say {
            id,
            text: text.to_owned(),
            done,
        })
        .await
    }

    /// Stops the running turn, which then ends as [`TurnEnd::Interrupted`] unless words that were said remain to be answered. Harmless without one.
    pub async fn interrupt(&self) -> Result<(), CommandError> {
        self.ask(|done| Command::Interrupt { done }).await
    }

    /// Answers a question or a blocker.
    pub async fn answer(&self, id: &str, answer: Answer) -> Result<(), CommandError> {
        self.ask(|done| Command::Answer {
            id: id.to_owned(),
            answer,
            done,
        })
        .await
    }

    /// The plan of the last [`Event::Plan`] is durable: the turn may end as [`TurnEnd::Planned`].
    pub async fn plan_stored(&self) -> Result<(), CommandError> {
        self.ask(|done| Command::PlanStored { done }).await
    }

    /// Changes what Claude may do from now on. Between turns.
    pub async fn set_permission_mode(&self, mode: Mode) -> Result<(), CommandError> {
        self.ask(|done| Command::SetMode { mode, done }).await
    }

    /// Asks the process to exit, and returns when it is gone. The caller bounds the wait and kills.
    pub async fn end(&self) -> Result<(), CommandError> {
        match self.ask(|done| Command::End { done }).await {
            // Gone already is what was wanted.
            Err(CommandError::Closed) => Ok(()),
            other => other,
        }
    }

    /// When the process last said anything, and whether it waits for us.
    pub fn activity(&self) -> Activity {
        *self.activity.borrow()
    }

    async fn ask(&self, command: impl FnOnce(Done) -> Command + Send) -> Result<(), CommandError> {
        let (done, taken) = oneshot::channel();
        self.commands
            .send(command(done))
            .await
            .map_err(|_| CommandError::Closed)?;
        taken.await.unwrap_or(Err(CommandError::Closed))
    }
}

type Done = oneshot::Sender<Result<(), CommandError>>;

#[derive(Debug)]
enum Command {
    Turn {
        prompt: String,
        done: oneshot::Sender<TurnEnd>,
    },
    Say {
        id: Uuid,
        text: String,
        done: Done,
    },
    Interrupt {
        done: Done,
    },
    Answer {
        id: String,
        answer: Answer,
        done: Done,
    },
    PlanStored {
        done: Done,
    },
    SetMode {
        mode: Mode,
        done: Done,
    },
    End {
        done: Done,
    },
}
