//! One attempt, from hello to end: takes the step that the plane assigns, and drops it when the plane assigns another.
//!
//! Owns the worker's parts: the line home, the proxies, the sandbox with its harness, the GitHub client. A step that
//! fails is reported and ends alone; what ends the worker is the plane's word, SIGTERM, or an attempt that is over.

mod claude;
mod disk;
mod host;
mod issue;
mod leave;
mod pace;
mod repository;
mod stall;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::OptionFuture;
use mainloop_github::{Client, Marker, MarkerKind};
use mainloop_proto::v1::{
    Assignment, Command, Credentials, FailureReason, HumanWord, LogSource, Spend, StepFailed, Task,
    Welcome, WorkerPolicy, assignment::Work, command::What, milestone::Fact,
};
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use uuid::Uuid;

pub(crate) use self::claude::{Conversation, PlanKeeper, Talk};
pub(crate) use self::leave::Leave;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use self::repository::fuzzing;
use self::{host::Host, pace::Pace, repository::Base};
use super::{
    config::{self, Config},
    link::{self, Link, Opened},
    proxy,
    steps::{self, Failure},
};

/// How long a step that has handed its result over may take to end by itself.
const HANDED_OVER: Duration = Duration::from_secs(15);
/// How long milestones may take to become durable at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// The part of the budget that a last turn may cost beyond it, as a divisor.
const LAST_TURN_SHARE: u64 = 20;
/// What it may cost at the least, in millionths of a US dollar.
const LAST_TURN_MICROS: u64 = 20_000;

/// Why a sidecar ended without having been asked to.
#[derive(Debug, Error)]
pub enum Error {
    /// It does not know what it is for.
    #[error("could not read this worker's configuration")]
    Config(#[from] config::Error),
    /// The plane does not want it.
    #[error("could not join the plane")]
    Link(#[from] link::Error),
    /// The plane's answer lacks something.
    #[error("the plane's welcome has no {0}")]
    Welcome(&'static str),
    /// The proxies, the sandbox's folders or the client could not be made.
    #[error("could not set this worker up")]
    Setup(#[from] host::Error),
    /// The system takes no signal handler.
    #[error("could not listen for SIGTERM")]
    Signal(#[source] std::io::Error),
}

/// Runs the attempt that a configuration file names, until it is over.
pub async fn run(config: &Path) -> Result<(), Error> {
    let config = Config::read(config)?;
    let token = config::token().await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let options = link::Options {
        socket: config.link_socket.clone(),
        attempt_id: config.attempt_id.clone(),
        host_id: config.host_id.clone(),
        token,
    };
    let opened = tokio::select! {
        opened = Link::open(options) => opened?,
        _ = terminate.recv() => return Ok(()),
    };
    let mut worker = Worker::new(config, opened).await?;
    tokio::select! {
        () = worker.work() => {}
        _ = terminate.recv() => {}
    }
    worker.end().await;
    Ok(())
}

/// What one attempt has and knows.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) link: Link,
    pub(crate) github: Client,
    pub(crate) task: Task,
    pub(crate) policy: WorkerPolicy,
    /// Branch that this task pushes to.
    pub(crate) branch: String,
    /// The base that the work starts from; read once.
    pub(crate) base: Option<Base>,
    /// Last head of the branch that was seen pushed, and reported.
    pub(crate) head: Option<String>,
    /// Hash of the plan that this worker implemented, if it was this one.
    pub(crate) implemented: Option<String>,
    /// What people said and answered.
    pub(crate) words: Vec<HumanWord>,
    credentials: Credentials,
    commands: mpsc::Receiver<Command>,
    host: Host,
    /// Claude's conversation, once one was begun in this worker.
    session: Option<Uuid>,
    /// Makes ids of questions unique in the attempt.
    asked: u32,
    /// What people did to the task's issue, as far as it was told.
    issue_told: issue::Told,
    /// How often Claude's reports of progress become facts.
    progress: Pace,
    /// Share of the budget, in percent, that Claude was told is spent.
    told_of_budget: u8,
    /// When the model's limit ends, as its host said last.
    limited_until: Option<jiff::Timestamp>,
    earlier_cost_micros: u64,
    handed_over: Arc<AtomicBool>,
}

impl Worker {
    async fn new(config: Config, opened: Opened) -> Result<Self, Error> {
        let Opened {
            link,
            welcome,
            commands,
        } = opened;
        let Welcome {
            task,
            policy,
            earlier_cost_micros,
            human_words,
            allowed_changes,
            ..
        } = welcome;
        let task = task.ok_or(Error::Welcome("task"))?;
        let renewals = link.credentials();
        let credentials = renewals.borrow().clone();
        let policy = policy.ok_or(Error::Welcome("policy"))?;
        let branch = if task.branch.is_empty() {
            repository::branch(&task)
        } else {
            task.branch.clone()
        };
        let github = host::github(&credentials, &task)?;
        let earlier_cost_micros = u64::try_from(earlier_cost_micros).unwrap_or(0);
        let host = Host::new(
            config,
            renewals,
            github.clone(),
            &policy,
            &task,
            &branch,
            earlier_cost_micros,
        )
        .await?;
        if let Some(screen) = host.screen() {
            for hash in &allowed_changes {
                screen.allow(hash);
            }
        }
        Ok(Self {
            link,
            github,
            policy,
            branch,
            base: None,
            head: (!task.head_sha.is_empty()).then(|| task.head_sha.clone()),
            task,
            implemented: None,
            words: human_words,
            credentials,
            commands,
            host,
            session: None,
            asked: 0,
            issue_told: issue::Told::new(),
            progress: Pace::default(),
            told_of_budget: 0,
            limited_until: None,
            earlier_cost_micros,
            handed_over: Arc::default(),
        })
    }

    /// Works until the plane says stop.
    async fn work(&mut self) {
        let mut assignments = self.link.assignment();
        loop {
            let assignment = assignments.borrow_and_update().clone();
            let version = assignment.phase_version;
            match &assignment.work {
                Some(Work::Stop(stop)) => {
                    tracing::info!(reason = stop.reason, "told to stop");
                    return;
                }
                Some(Work::Wait(_)) | None => {}
                Some(_) => self.step(&assignment, &mut assignments).await,
            }
            self.wait_for_change(version, &mut assignments).await;
        }
    }

    async fn step(
        &mut self,
        assignment: &Assignment,
        assignments: &mut watch::Receiver<Assignment>,
    ) {
        self.renew();
        // The plane sends them before the work that they belong to.
        while let Ok(command) = self.commands.try_recv() {
            self.keep(command);
        }
        let handed_over = Arc::clone(&self.handed_over);
        handed_over.store(false, Ordering::Relaxed);
        let version = assignment.phase_version;
        self.host.begin_step();
        let full = self.host.disk.full();
        let outcome = {
            let step = steps::perform(self, assignment);
            tokio::pin!(step);
            tokio::select! {
                // The step first: its result and the assignment that follows may come at once.
                biased;
                outcome = &mut step => Some(outcome),
                stopped = superseded(assignments, version) => {
                    if !stopped && handed_over.load(Ordering::Relaxed) {
                        tokio::time::timeout(HANDED_OVER, step).await.ok()
                    } else {
                        None
                    }
                }
                full = full => Some(Err(Failure::new(full.reason(), full.to_string()))),
            }
        };
        self.host.refuse_pushes();
        if let Some(words) = self.host.strained() {
            self.note(words);
        }
        let outcome = outcome.map(|outcome| outcome.map_err(|failure| self.explain(failure)));
        if let Some(killed) = self.host.end_step().await
            && killed > 0
        {
            self.note(format!(
                "ended {killed} processes that were left of the step"
            ));
        }
        // Why it failed may be among what the proxies saw, and is told before the failure.
        self.drain_proxy_events(version);
        match self.host.proxy_events.take_dropped() {
            0 => {}
            dropped => self.note(format!(
                "{dropped} more refusals of the proxies are not told"
            )),
        }
        match outcome {
            None => self.note("the step was dropped: the plane assigned something else".to_owned()),
            Some(Ok(())) => {}
            Some(Err(failure)) => {
                self.note(format!("the step failed: {}", failure.message));
                let fact = Fact::StepFailed(failure.into_wire());
                // Nobody takes it any more where the plane has assigned something else, or the attempt is over.
                tokio::select! {
                    () = self.link.report_durably(version, fact) => {}
                    _ = superseded(assignments, version) => {}
                }
            }
        }
    }

    /// What a failure is where the harness was killed for want of memory.
    fn explain(&self, failure: Failure) -> Failure {
        match self.host.short_of_memory() {
            Some(words) if self.host.is_gone() => Failure::new(FailureReason::OutOfMemory, words),
            _ => failure,
        }
    }

    /// Waits for another assignment, and looks after what comes meanwhile.
    async fn wait_for_change(
        &mut self,
        version: i64,
        assignments: &mut watch::Receiver<Assignment>,
    ) {
        let waits = matches!(assignments.borrow().work, Some(Work::Wait(_)));
        let mut issue = waits.then(|| self.watch_issue()).flatten();
        loop {
            if assignments.borrow().phase_version != version {
                return;
            }
            let changed = OptionFuture::from(issue.as_mut().map(issue::Watch::next));
            tokio::select! {
                Some(change) = changed => self.issue_changed(version, change),
                changed = assignments.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some(command) = self.commands.recv() => self.keep(command),
                Some(event) = self.host.proxy_events.recv() => {
                    self.seen(version, event);
                }
            }
        }
    }

    /// Takes the credentials of the plane's last welcome. The proxies and the GitHub client have them as soon as they
    /// come.
    pub(crate) fn renew(&mut self) {
        let credentials = self.link.credentials().borrow().clone();
        if credentials != self.credentials {
            self.credentials = credentials;
            self.note("took the plane's new credentials".to_owned());
        }
    }

    /// A command that came while no turn runs: its words go into the next prompt.
    fn keep(&mut self, command: Command) {
        match command.what {
            Some(What::Say(say)) => self.words.push(HumanWord {
                question: String::new(),
                text: say.text,
                assumed: false,
                time: Some(link::now()),
            }),
            // The answer to a question of a turn that is over.
            Some(What::Answer(answer)) => {
                let assumed = answer.assumed;
                self.words.push(HumanWord {
                    question: String::new(),
                    text: claude::replies(answer, 1).join("; "),
                    assumed,
                    time: Some(link::now()),
                });
            }
            None => {}
        }
        self.link.done(&command.id);
    }

    /// The result of the step is with the plane; what is left may end in peace.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// Opens the way for pushes, while the plane has heard of this worker.
    pub(crate) fn allow_pushes(&mut self) {
        self.host.allow_pushes(self.link.may_write());
    }

    /// Ends the way for pushes.
    pub(crate) fn refuse_pushes(&mut self) {
        self.host.refuse_pushes();
    }

    /// A line of the sidecar's own in the task's log.
    pub(crate) fn note(&self, text: String) {
        tracing::info!("{text}");
        self.link.log(LogSource::Agent, text);
    }

    /// The hidden mark by which a text of this task is found again.
    pub(crate) fn marker(&self, kind: MarkerKind) -> Marker {
        Marker::new(&self.task.id, kind)
    }

    /// Takes an observation of the proxies. Returns whether the branch has a new head.
    pub(crate) fn seen(&mut self, version: i64, event: proxy::Event) -> bool {
        use mainloop_proto::v1::{BranchPushed, HostRefused, PushRefused};

        match event {
            proxy::Event::Pushed { new, .. } => {
                self.head = Some(new.clone());
                let fact = BranchPushed {
                    branch: self.branch.clone(),
                    sha: new,
                };
                self.link.report(version, Fact::BranchPushed(fact));
                return true;
            }
            proxy::Event::PushRefused { reference, reason } => {
                let fact = PushRefused {
                    target: reference.unwrap_or_else(|| "a push".to_owned()),
                    reason,
                };
                self.link.note(version, Fact::PushRefused(fact));
            }
            proxy::Event::RepositoryRefused { path } => {
                let fact = PushRefused {
                    target: path,
                    reason: "another repository than the task's".to_owned(),
                };
                self.link.note(version, Fact::PushRefused(fact));
            }
            proxy::Event::HostRefused { host, reason } => {
                self.note(format!("host refused: {host} ({reason})"));
                self.link
                    .note(version, Fact::HostRefused(HostRefused { host }));
            }
            proxy::Event::Spend {
                total_micros,
                usage,
            } => self
                .link
                .spent(spend(total_micros, self.earlier_cost_micros, usage)),
            proxy::Event::GitUnauthorized { status } => {
                self.note(format!("the code host refused the token ({status})"));
            }
            proxy::Event::BudgetReached {
                spent_micros,
                budget_micros,
            } => self.note(format!(
                "budget reached: {spent_micros} of {budget_micros} millionths of a dollar"
            )),
            proxy::Event::ModelRefused { reason } => {
                self.note(format!("model request refused: {reason}"));
            }
            proxy::Event::ModelLimited {
                status,
                retry_after,
                reset_at,
            } => {
                self.limited_until = reset_at.or_else(|| {
                    retry_after.and_then(|wait| jiff::Timestamp::now().checked_add(wait).ok())
                });
                self.note(format!("the model's host limits the credential ({status})"));
            }
            proxy::Event::ModelUnauthorized { status } => {
                self.note(format!(
                    "the model's host refused the credential ({status})"
                ));
            }
        }
        false
    }

    /// Number of the task's pull request.
    pub(crate) fn pull_number(&self) -> Option<u64> {
        let pull = self.task.pull_request.as_ref()?;
        u64::try_from(pull.number).ok().filter(|number| *number > 0)
    }

    /// What the task has cost so far, in US dollars.
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    pub(crate) fn cost_usd(&self) -> f64 {
        self.host.spent_micros() as f64 / 1e6
    }

    /// What Claude is to be told of its budget, once for each share that is spent.
    fn budget_warning(&mut self) -> Option<String> {
        let budget = u64::try_from(self.task.budget_micros).ok()?;
        let share = budget_share(self.host.spent_micros(), budget)?;
        if share <= self.told_of_budget {
            return None;
        }
        self.told_of_budget = share;
        Some(format!(
            "{share}% of this task's budget is spent. Come to the point: commit what is done, leave out what is not needed, \
             and finish with a summary of what is left."
        ))
    }

    /// Lets the model cost a little more than the budget, for one last turn.
    pub(crate) fn allow_a_last_turn(&self) {
        let budget = u64::try_from(self.task.budget_micros).unwrap_or(0);
        self.host
            .allow_micros((budget / LAST_TURN_SHARE).max(LAST_TURN_MICROS));
    }

    /// Takes what the proxies saw and nobody has read yet.
    pub(crate) fn drain_proxy_events(&mut self, version: i64) {
        while let Some(event) = self.host.proxy_events.try_recv() {
            self.seen(version, event);
        }
    }

    async fn end(self) {
        // A reply that was on its way was charged as the proxy ended.
        for event in self.host.end().await {
            if let proxy::Event::Spend {
                total_micros,
                usage,
            } = event
            {
                self.link
                    .spent(spend(total_micros, self.earlier_cost_micros, usage));
            }
        }
        self.link.drain(DRAIN).await;
    }
}

/// What this attempt spent, of a total that has what earlier ones had spent.
fn spend(total_micros: u64, earlier_micros: u64, usage: proxy::Usage) -> Spend {
    let input = usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h;
    Spend {
        cost_micros: i64::try_from(total_micros.saturating_sub(earlier_micros)).unwrap_or(i64::MAX),
        input_tokens: signed(input),
        output_tokens: signed(usage.output),
    }
}

/// The share of a budget that is worth a word, if that much is spent.
fn budget_share(spent: u64, budget: u64) -> Option<u8> {
    let percent = spent.saturating_mul(100).checked_div(budget)?;
    match percent {
        0..80 => None,
        80..95 => Some(80),
        _ => Some(95),
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Returns when the assignment is another one; whether it says stop.
async fn superseded(assignments: &mut watch::Receiver<Assignment>, version: i64) -> bool {
    loop {
        {
            let now = assignments.borrow();
            if now.phase_version != version {
                return matches!(now.work, Some(Work::Stop(_)));
            }
        }
        if assignments.changed().await.is_err() {
            return true;
        }
    }
}

impl Failure {
    fn into_wire(self) -> StepFailed {
        StepFailed {
            failure: Some(mainloop_proto::v1::Failure {
                reason: self.reason.into(),
                message: self.message,
            }),
            retry_time: self.retry_at.map(link::timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::budget_share;

    #[test]
    fn a_budget_is_told_of_at_two_shares() {
        for (spent, share) in [
            (0, None),
            (79, None),
            (80, Some(80)),
            (94, Some(80)),
            (95, Some(95)),
            (300, Some(95)),
        ] {
            assert_eq!(budget_share(spent, 100), share);
        }
        assert_eq!(budget_share(1, 0), None);
    }
}
