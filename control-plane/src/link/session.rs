//! One live attempt's stream.
//!
//! Reads everything the agent sends, stores what is durable before it acknowledges it, and tells the agent its
//! assignment and commands whenever the task's row says something new. When the stream ends the attempt is lost from
//! then on, until a newer stream takes over.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, OptionFuture};
use jiff::Timestamp;
use mainloop_core::{Event, Failure, Reason, Run};
use mainloop_github::{Class, Repo};
use mainloop_proto::v1::{
    AnswerCommand, Command, ConnectRequest, ConnectResponse, Credentials, GoAway, HeartbeatAck,
    LogChunk, LogCredit, LogSource, MilestoneAck, SayCommand, Welcome, command,
    connect_request::Frame as In, connect_response::Frame as Out,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::{Shared, ingest, welcome};
use crate::{
    code_host::{Due, Lent},
    db::{
        self, Occurrence,
        attempts::{Connected, Identity, Spend},
        commands::{self, Chunk},
    },
    errors, policy,
};

/// Log chunks that are stored in one statement at most.
const BATCH: usize = 64;
/// How long a log chunk waits for others.
const GATHER: Duration = Duration::from_millis(20);
/// Log chunks that an agent may send ahead: a batch that is being stored and one that gathers.
pub(super) const CREDIT: i32 = 256;
/// Credit is handed back in pieces of this size.
const CREDIT_STEP: i32 = 64;
/// The net under the nudges.
const POLL: Duration = Duration::from_secs(5);
/// A stream without any frame for so long is dead: the agent sends heartbeats all the time.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a frame may wait for room. The agent may wait for us in the same way, and then neither reads.
const STUCK: Duration = Duration::from_secs(5);
/// Bytes of an attempt's log that are kept: many times what a long session writes. Credit is handed back for what is
/// stored alone, so that the agent drops the rest by itself.
const LOG_MAX: i64 = 64 << 20;
/// The last line of a log that is full.
const LOG_FULL: &str = "The log of this attempt is full: what follows is not kept.\n";
/// Wait after the first failure to note a lost stream; doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a welcome waits for the next token of an agent that has one.
const TOKEN_WAIT: Duration = Duration::from_secs(1);
/// Pause after a token was not got for such an agent.
const TOKEN_AGAIN: Duration = Duration::from_secs(30);
/// The part of the plane's health that says that none are got.
const TOKENS: &str = "worker tokens";

/// Why a session ends.
enum End {
    /// The agent or the network.
    Gone,
    /// The attempt is over.
    Over(&'static str),
    /// The store failed; the agent reconnects.
    Store(db::Error),
    /// The code host gave no token.
    Token(mainloop_github::Error),
}

impl From<db::Error> for End {
    fn from(error: db::Error) -> Self {
        Self::Store(error)
    }
}

/// `is_new` says that the agent was never welcomed, so that it has no credentials yet.
pub(super) async fn run(
    shared: Arc<Shared>,
    identity: Identity,
    is_new: bool,
    incoming: Streaming<ConnectRequest>,
    outgoing: mpsc::Sender<Result<ConnectResponse, Status>>,
) {
    // Before the connection is noted: whoever takes it for lost from then on does so in a gap of the lease.
    let gaps = shared.lease.gaps();
    let connected = match shared
        .store
        .attempt_connected(identity.id, shared.replica)
        .await
    {
        Ok(Some(connected)) => connected,
        Ok(None) => {
            send(
                &outgoing,
                Out::Assignment(welcome::stop("the attempt is over")),
            )
            .await;
            return;
        }
        Err(error) => {
            let _ = outgoing.try_send(Err(super::internal(&error)));
            return;
        }
    };
    let mut session = Session {
        changes: shared.store.nudge().subscribe(),
        shared: Arc::clone(&shared),
        identity,
        outgoing,
        assigned: 0,
        sent_commands: HashSet::new(),
        logs: Vec::new(),
        logs_due: None,
        used_credit: 0,
        log_size: 0,
        look_at: Instant::now() + POLL,
        is_new,
        renew_at: None,
    };
    let end = session.serve(incoming, connected, gaps).await;
    let unstored = session.flush_logs().await;
    match end {
        Ok(()) => {
            send(&session.outgoing, Out::GoAway(GoAway {})).await;
        }
        Err(End::Gone) => {}
        Err(End::Over(why)) => {
            send(&session.outgoing, Out::Assignment(welcome::stop(why))).await;
        }
        Err(End::Store(error)) => {
            tracing::warn!(attempt.id = %identity.id, error = errors::chain(&error), "link failed");
        }
        Err(End::Token(error)) => {
            tracing::warn!(attempt.id = %identity.id, error = errors::chain(&error), "no token for the worker");
        }
    }
    if let Err(End::Store(error)) = unstored {
        tracing::warn!(attempt.id = %identity.id, error = errors::chain(&error), "the end of a log is lost");
    }
    tracing::debug!(attempt.id = %identity.id, "link ended");
    note_lost(&shared, identity, connected.link_epoch).await;
}

/// Until it is noted: an attempt that nobody takes for lost is one that nobody ends. At a stop the next plane finds it.
async fn note_lost(shared: &Shared, identity: Identity, epoch: i64) {
    let stop = shared.supervisor.stop_token();
    let mut wait = BACKOFF;
    while let Err(error) = shared
        .store
        .attempt_lost(identity.id, shared.replica, epoch)
        .await
    {
        tracing::warn!(attempt.id = %identity.id, error = errors::chain(&error), "could not note a lost stream");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACKOFF_MAX),
        }
    }
}

/// False when the agent is gone, or stuck.
async fn send(outgoing: &mpsc::Sender<Result<ConnectResponse, Status>>, frame: Out) -> bool {
    let frame = Ok(ConnectResponse { frame: Some(frame) });
    outgoing.send_timeout(frame, STUCK).await.is_ok()
}

struct Session {
    shared: Arc<Shared>,
    identity: Identity,
    outgoing: mpsc::Sender<Result<ConnectResponse, Status>>,
    changes: broadcast::Receiver<Uuid>,
    /// Phase version that the agent was told last.
    assigned: i64,
    /// Commands that this stream has carried.
    sent_commands: HashSet<Uuid>,
    logs: Vec<Chunk>,
    logs_due: Option<Instant>,
    used_credit: i32,
    /// How many bytes of log the attempt has, stored or gathered.
    log_size: i64,
    /// When the task's row is looked at again, whatever comes until then.
    look_at: Instant,
    /// The agent was never welcomed, and has no credentials.
    is_new: bool,
    /// When the agent needs the next token of the code host; never where its token lasts.
    renew_at: Option<Due>,
}

/// A token on its way.
type Asked = BoxFuture<'static, Result<Lent, mainloop_github::Error>>;

impl Session {
    /// Moves frames until the agent is to connect anew.
    async fn serve(
        &mut self,
        mut incoming: Streaming<ConnectRequest>,
        connected: Connected,
        mut gaps: watch::Receiver<Option<Timestamp>>,
    ) -> Result<(), End> {
        let stop = self.shared.supervisor.stop_token();
        let store = &self.shared.store;
        let (task, n) = (self.identity.task_id, self.identity.n);
        self.log_size = store.log_size(task, n).await?;
        let mut hello = Occurrence::new(Event::AttemptConnected, "worker");
        hello.attempt = self.identity.n;
        // A reconnect finds the task live already.
        if let Some(task) = store.task_for_link(self.identity.task_id).await?
            && task.task.run == Run::Starting
        {
            store.apply(self.identity.task_id, &hello).await?;
        }
        let (credentials, mut renewal) = self.credentials().await?;
        let (store, offer) = (&self.shared.store, &self.shared.offer);
        let welcome = welcome::welcome(store, offer, self.identity, connected, credentials).await?;
        let Some(welcome) = welcome else {
            return Err(End::Over("the attempt is over"));
        };
        self.assigned = welcome
            .assignment
            .as_ref()
            .map_or(0, |work| work.phase_version);
        self.send(Out::Welcome(welcome)).await?;
        self.tell_commands().await?;
        let mut silent_since = Instant::now();
        loop {
            // The next token, while it is got: frames are read meanwhile.
            if renewal.is_none() && self.renew_at.is_some_and(Due::is_over) {
                renewal = self.ask_token().await?;
            }
            let wake = self
                .logs_due
                .map_or(self.look_at, |due| due.min(self.look_at));
            // Frames are never given up half-way: what was taken off the stream is stored.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = gaps.changed() => return Ok(()),
                frame = timeout_at(silent_since + SILENCE, incoming.next()) => {
                    match frame {
                        Ok(Some(Ok(ConnectRequest { frame: Some(frame) }))) => {
                            silent_since = Instant::now();
                            self.take(frame).await?;
                        }
                        // A frame of a newer version is none of ours.
                        Ok(Some(Ok(ConnectRequest { frame: None }))) => {}
                        Ok(Some(Err(_)) | None) | Err(_) => return Err(End::Gone),
                    }
                }
                changed = self.changes.recv() => {
                    match changed {
                        Ok(task) if task != self.identity.task_id => {}
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => self.tell().await?,
                        Err(broadcast::error::RecvError::Closed) => return Err(End::Gone),
                    }
                }
                Some(lent) = OptionFuture::from(renewal.as_mut()), if renewal.is_some() => {
                    renewal = None;
                    self.renewed(lent).await?;
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if self.logs_due.is_some_and(|due| due <= now) {
                        self.flush_logs().await?;
                    }
                    if self.look_at <= now {
                        self.tell().await?;
                    }
                }
            }
        }
    }

    /// What the agent is given at its hello. One that was welcomed before keeps what it has until the next token is got,
    /// which is the second result. A task whose repository gives no token to a new one is told why.
    async fn credentials(&mut self) -> Result<(Option<Credentials>, Option<Asked>), End> {
        let Some(mut asked) = self.ask_token().await? else {
            return Ok((Some(self.shared.offer.credentials.clone()), None));
        };
        let lent = if self.is_new {
            asked.await
        } else {
            match timeout(TOKEN_WAIT, &mut asked).await {
                Ok(lent) => lent,
                Err(_) => return Ok((None, Some(asked))),
            }
        };
        match lent {
            Ok(lent) => Ok((Some(self.lend(&lent)), None)),
            Err(error) if !self.is_new => {
                self.ask_again(&error);
                Ok((None, None))
            }
            Err(error) => {
                let mut failed = Occurrence::new(token_failed(&error), "github");
                failed.attempt = self.identity.n;
                self.shared
                    .store
                    .apply(self.identity.task_id, &failed)
                    .await?;
                Err(End::Token(error))
            }
        }
    }

    /// A token for this attempt, on its way; none where the plane has no credential.
    async fn ask_token(&self) -> Result<Option<Asked>, End> {
        let Some(tokens) = self.shared.offer.tokens.clone() else {
            return Ok(None);
        };
        let task = self.shared.store.task_for_link(self.identity.task_id);
        let Some(task) = task.await? else {
            return Err(End::Over("the task is gone"));
        };
        let repo = Repo {
            owner: task.owner,
            name: task.name,
        };
        let workflows = policy::may_change_workflows(&task.policy);
        let attempt = self.identity.id;
        Ok(Some(Box::pin(async move {
            tokens.of_attempt(attempt, &repo, workflows).await
        })))
    }

    /// Tells the agent its next token. Without one it goes on with the one that it has, which lasts for a while.
    async fn renewed(&mut self, lent: Result<Lent, mainloop_github::Error>) -> Result<(), End> {
        match lent {
            Ok(lent) => {
                let welcome = Welcome {
                    credentials: Some(self.lend(&lent)),
                    ..Welcome::default()
                };
                self.send(Out::Welcome(welcome)).await
            }
            Err(error) => {
                self.ask_again(&error);
                Ok(())
            }
        }
    }

    /// What the agent has from now on.
    fn lend(&mut self, lent: &Lent) -> Credentials {
        self.renew_at = lent.renew_at;
        self.shared.health.set_problem(TOKENS, None);
        self.shared.offer.with(lent)
    }

    fn ask_again(&mut self, error: &mainloop_github::Error) {
        let why = errors::chain(error);
        let problem = format!(
            "the code host gives workers no new token ({why}): they go on with theirs, which last for an hour at most"
        );
        self.shared.health.set_problem(TOKENS, Some(problem));
        tracing::warn!(attempt.id = %self.identity.id, error = why, "could not renew a token; trying again");
        self.renew_at = Some(Due::after(TOKEN_AGAIN));
    }

    async fn send(&self, frame: Out) -> Result<(), End> {
        if send(&self.outgoing, frame).await {
            Ok(())
        } else {
            Err(End::Gone)
        }
    }

    async fn take(&mut self, frame: In) -> Result<(), End> {
        let store = &self.shared.store;
        match frame {
            // Only the first frame may say hello; another one changes nothing.
            In::Hello(_) => {}
            In::Heartbeat(_) => {
                if self.shared.lease.is_valid() {
                    self.send(Out::HeartbeatAck(HeartbeatAck {})).await?;
                }
            }
            In::Milestone(milestone) => {
                // What the log holds so far belongs before the milestone.
                self.flush_logs().await?;
                let seq = ingest::milestone(&self.shared.store, self.identity, &milestone).await?;
                self.send(Out::MilestoneAck(MilestoneAck { seq })).await?;
                self.tell().await?;
            }
            In::Log(log) => {
                self.gather(log);
                if self.logs.len() >= BATCH {
                    self.flush_logs().await?;
                }
            }
            In::CommandDone(done) => {
                if let Ok(id) = done.id.parse() {
                    store.command_done(self.identity.task_id, id).await?;
                }
            }
            In::Spend(spend) => {
                store
                    .attempt_spent(
                        self.identity.id,
                        Spend {
                            cost_micros: spend.cost_micros.max(0),
                            input_tokens: spend.input_tokens.max(0),
                            output_tokens: spend.output_tokens.max(0),
                        },
                    )
                    .await?;
            }
        }
        Ok(())
    }

    fn gather(&mut self, log: LogChunk) {
        if self.log_size >= LOG_MAX {
            return;
        }
        let at = log.time.map_or_else(Timestamp::now, ingest::time);
        self.log_size += i64::try_from(log.text.len()).unwrap_or(i64::MAX);
        self.logs.push(Chunk {
            source: source(log.source()),
            at,
            text: log.text,
            dropped: log.dropped.max(0),
        });
        if self.log_size >= LOG_MAX {
            self.logs.push(Chunk {
                source: source(LogSource::Agent),
                at,
                text: LOG_FULL.to_owned(),
                dropped: 0,
            });
        }
        self.logs_due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Tells the agent what the task's row says, if it is something new.
    async fn tell(&mut self) -> Result<(), End> {
        self.look_at = Instant::now() + POLL;
        let id = self.identity.task_id;
        let Some(task) = self.shared.store.task_for_link(id).await? else {
            return Err(End::Over("the task is gone"));
        };
        if task.task.attempt != self.identity.n || task.task.run != Run::Live {
            return Err(End::Over("the task needs no worker"));
        }
        // What a person said is for the step that follows from it.
        self.tell_commands().await?;
        if task.task.phase_version != self.assigned {
            let assignment = welcome::assignment(&self.shared.store, &task).await?;
            self.assigned = assignment.phase_version;
            self.send(Out::Assignment(assignment)).await?;
        }
        Ok(())
    }

    async fn tell_commands(&mut self) -> Result<(), End> {
        let pending = self
            .shared
            .store
            .pending_commands(self.identity.task_id)
            .await?;
        for command in pending {
            if !self.sent_commands.insert(command.id) {
                continue;
            }
            let what = match command.what {
                commands::Command::Say { text } => command::What::Say(SayCommand { text }),
                commands::Command::Answer {
                    question_id,
                    answers,
                    text,
                    assumed,
                    approved,
                } => command::What::Answer(AnswerCommand {
                    question_id,
                    answers,
                    text,
                    assumed,
                    approved,
                }),
            };
            self.send(Out::Command(Command {
                id: command.id.to_string(),
                what: Some(what),
            }))
            .await?;
        }
        Ok(())
    }

    async fn flush_logs(&mut self) -> Result<(), End> {
        self.logs_due = None;
        if self.logs.is_empty() {
            return Ok(());
        }
        self.shared
            .store
            .append_logs(self.identity.task_id, self.identity.n, &self.logs)
            .await?;
        self.used_credit += i32::try_from(self.logs.len()).unwrap_or(i32::MAX);
        self.logs.clear();
        if self.used_credit >= CREDIT_STEP {
            let chunks = std::mem::take(&mut self.used_credit);
            self.send(Out::LogCredit(LogCredit { chunks })).await?;
        }
        Ok(())
    }
}

/// What it is to the workflow that the code host gives no token.
fn token_failed(error: &mainloop_github::Error) -> Event {
    let mut retry_at = None;
    let reason = match error.class() {
        Class::Unauthorized => Reason::GithubCredential,
        Class::RateLimited { until } => {
            retry_at = until;
            Reason::GithubLimit
        }
        Class::Unavailable | Class::Other => Reason::GithubUnavailable,
        Class::Forbidden { .. } | Class::NotFound | Class::Validation => Reason::GithubPermission,
    };
    Event::StepFailed {
        failure: Failure {
            reason,
            message: errors::chain(error),
        },
        retry_at,
    }
}

fn source(source: LogSource) -> &'static str {
    match source {
        LogSource::Unspecified | LogSource::Agent => "agent",
        LogSource::Harness => "harness",
        LogSource::Claude => "claude",
        LogSource::Tool => "tool",
    }
}

#[cfg(test)]
mod tests;
