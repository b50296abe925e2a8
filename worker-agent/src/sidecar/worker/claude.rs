//! A turn of Claude in the harness, with everything that comes meanwhile: its questions, its pushes, people's words.

use std::{collections::VecDeque, time::Duration};

use mainloop_github::text;
use mainloop_proto::v1::{
    AnswerCommand, BlockerReported, Command, FailureReason, LogSource, ModelCredentialKind,
    ProgressNoted, QuestionAsked, SessionStarted, command::What, milestone::Fact,
};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use super::{
    Worker,
    stall::{Pulse, Stall},
};
use crate::{
    channel::{Harness, Notice, StartClaude},
    sidecar::{
        claude::{
            self, Answer, BlockerKind, CredentialKind, Driver, Event, FailureClass, Handle, Mode,
            OpenError, OpenOptions, Session, TurnEnd, prompts,
        },
        proxy::TurnedAway,
        steps::Failure,
    },
};

/// How long the CLI may take to exit when asked to; then it is killed with what is left of the step.
const EXIT: Duration = Duration::from_secs(5);

/// The signal of the kernel's that ends what takes too much memory.
const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;
/// How long a turn may take to end when it is interrupted.
const INTERRUPTED: Duration = Duration::from_secs(30);
/// Questions and blockers of one attempt that reach a person, at most. Behind them is something that goes in circles.
const MAX_ASKED: u32 = 64;
/// What Claude is told then.
const ASKED_ENOUGH: &str =
    "Nobody can be asked any more: there were too many questions. Decide yourself.";

/// What follows an answer that nobody gave.
const ASSUMED: &str = " (Nobody answered in time: this is what you recommend. Go on with it.)";

/// Takes what a turn comes up with: a plan, or answers to reviewers.
pub(crate) trait PlanKeeper {
    /// Stores it, so that it is durable when this returns.
    async fn keep(&mut self, worker: &mut Worker, plan: String) -> Result<(), Failure>;

    /// Takes what Claude answers to a thread of a review.
    fn answer(&mut self, _thread: &str, _text: String) {}
}

/// What to talk about.
#[derive(Debug)]
pub(crate) struct Talk<'a> {
    /// The step's assignment.
    pub(crate) version: i64,
    /// Where Claude runs.
    pub(crate) harness: &'a Harness,
    /// What it may do.
    pub(crate) mode: Mode,
    /// Opens the draft pull request at the first push.
    pub(crate) opens_pull: bool,
    /// Threads of a review that it may answer.
    pub(crate) threads: &'a [String],
}

/// What a person was asked and has not answered.
#[derive(Debug)]
struct Open {
    /// The id that the plane knows.
    id: String,
    /// The id that the driver knows.
    driver_id: String,
    questions: Vec<String>,
    fact: Fact,
}

/// A CLI that is ready for prompts.
pub(crate) struct Conversation {
    driver: Driver,
    handle: Handle,
    events: mpsc::Receiver<Event>,
    open: VecDeque<Open>,
}

impl Worker {
    /// Starts the CLI, on this worker's conversation where one was begun.
    pub(crate) async fn converse(&mut self, talk: &Talk<'_>) -> Result<Conversation, Failure> {
        let (session, is_new) = match self.session {
            Some(session) => (session, false),
            None => (Uuid::new_v4(), true),
        };
        let opened = match self.open(talk, session, is_new).await {
            Err(Opening::SessionLost) => {
                self.note("Claude's conversation is gone; a new one begins".to_owned());
                self.open(talk, Uuid::new_v4(), true).await
            }
            other => other,
        };
        match opened {
            Ok(conversation) => Ok(conversation),
            Err(Opening::Failed(failure)) => Err(failure),
            Err(Opening::SessionLost) => Err(Failure::new(
                FailureReason::ClaudeExited,
                "a new conversation could not be begun".to_owned(),
            )),
        }
    }

    async fn open(
        &mut self,
        talk: &Talk<'_>,
        session: Uuid,
        is_new: bool,
    ) -> Result<Conversation, Opening> {
        let base = self.base().await?;
        let hello = talk.harness.hello().clone();
        let options = claude::Options {
            session: if is_new {
                Session::New(session)
            } else {
                Session::Resume(session)
            },
            mode: talk.mode,
            model: self.task.model.clone(),
            fallback_model: None,
            config_dir: hello.claude_config.clone(),
            home: hello.home.clone(),
            base_url: format!("http://127.0.0.1:{}", hello.port),
            credential: match self.credentials.model_kind() {
                ModelCredentialKind::Unspecified | ModelCredentialKind::ApiKey => {
                    CredentialKind::ApiKey
                }
                ModelCredentialKind::OauthToken => CredentialKind::OAuthToken,
                ModelCredentialKind::Gateway => CredentialKind::GatewayToken,
            },
            guidance: base.guidance.clone(),
        };
        let launch = claude::launch(&options);
        let prefix = format!("{}/", hello.claude_config);
        let mut env = base.env.clone();
        env.extend(launch.env);
        let start = StartClaude {
            program: self.host.claude_program().unwrap_or_default(),
            args: launch.args,
            env,
            files: launch
                .files
                .into_iter()
                .map(|file| {
                    let path = file.path.strip_prefix(&prefix).unwrap_or(&file.path);
                    (path.to_owned(), file.contents)
                })
                .collect(),
        };
        let pipes = talk
            .harness
            .start_claude(start)
            .await
            .map_err(Failure::git)?;
        let open_options = OpenOptions {
            mode: talk.mode,
            config_dir: hello.claude_config,
            threads: talk.threads.to_vec(),
        };
        match Driver::open(pipes, open_options).await {
            Ok((driver, events)) => {
                let handle = driver.handle();
                if is_new {
                    self.session = Some(session);
                    let fact = SessionStarted {
                        session_id: session.to_string(),
                    };
                    self.link.report(talk.version, Fact::SessionStarted(fact));
                } else {
                    // A resumed conversation keeps the mode of its last turn.
                    handle
                        .set_permission_mode(talk.mode)
                        .await
                        .map_err(|error| {
                            Failure::new(FailureReason::ClaudeExited, error.to_string())
                        })?;
                }
                Ok(Conversation {
                    driver,
                    handle,
                    events,
                    open: VecDeque::new(),
                })
            }
            Err(OpenError::Exited { stderr, .. })
                if !is_new && stderr.contains("No conversation found") =>
            {
                Err(Opening::SessionLost)
            }
            Err(error) => Err(Opening::Failed(Failure::new(
                FailureReason::ClaudeExited,
                error.to_string(),
            ))),
        }
    }

    /// Runs one turn, and looks after everything that comes meanwhile. One that does not get on is interrupted and goes on
    /// with a hint; when that happens again, a person has to look.
    pub(crate) async fn turn(
        &mut self,
        talk: &Talk<'_>,
        conversation: &mut Conversation,
        prompt: &str,
        keeper: &mut impl PlanKeeper,
    ) -> Result<TurnEnd, Failure> {
        let (stall, _) = match self.try_turn(talk, conversation, prompt, keeper).await? {
            Tried::Ended(end) => return Ok(end),
            Tried::Stalled(stall, evidence) => (stall, evidence),
        };
        let hint = prompts::unstick(&stall.words());
        match self.try_turn(talk, conversation, &hint, keeper).await? {
            Tried::Ended(end) => Ok(end),
            Tried::Stalled(stall, evidence) => Err(Failure::new(
                FailureReason::Stalled,
                format!(
                    "{}, after a hint as well. The last lines:\n{evidence}",
                    stall.words()
                ),
            )),
        }
    }

    /// One turn, until it ends or does not get on.
    async fn try_turn(
        &mut self,
        talk: &Talk<'_>,
        conversation: &mut Conversation,
        prompt: &str,
        keeper: &mut impl PlanKeeper,
    ) -> Result<Tried, Failure> {
        let limit = u64::try_from(self.policy.stall_seconds).unwrap_or_default();
        let mut pulse = Pulse::new(Duration::from_secs(limit.max(1)));
        let mut stalled: Option<(Stall, Instant)> = None;
        let Conversation {
            driver,
            handle,
            events,
            open,
        } = conversation;
        self.host.begin_turn();
        let turn = driver.turn(prompt);
        tokio::pin!(turn);
        loop {
            let is_asking = !open.is_empty() || handle.activity().waiting > 0;
            let due = stalled.as_ref().map_or(pulse.due(), |(_, due)| *due);
            tokio::select! {
                // Events first, so that nothing of a turn is left when it ends.
                biased;
                Some(event) = events.recv() => {
                    pulse.beat();
                    let looped = felt(&mut pulse, &event);
                    let is_result = matches!(event, Event::ToolResult { .. });
                    self.heard(talk, handle, open, event, keeper).await?;
                    if is_result && let Some(words) = self.host.strained() {
                        self.note(words.clone());
                        // An error means that the turn is over.
                        let _ = handle.say(Uuid::new_v4(), &prompts::strained(&words)).await;
                    }
                    if let Some(stall) = looped
                        && stalled.is_none()
                    {
                        stalled = Some(self.interrupt(handle, stall).await);
                    }
                }
                Some(event) = self.host.proxy_events.recv() => {
                    pulse.beat();
                    if self.seen(talk.version, event) && talk.opens_pull {
                        self.open_pull(talk.version).await?;
                    }
                    if let Some(warning) = self.budget_warning() {
                        self.note(warning.clone());
                        // An error means that the turn is over.
                        let _ = handle.say(Uuid::new_v4(), &warning).await;
                    }
                }
                Some(command) = self.commands.recv() => {
                    pulse.beat();
                    self.tell(handle, open, command, talk.version).await;
                }
                Some(notice) = notice(&mut self.host.notices) => {
                    pulse.beat();
                    self.noticed(notice);
                }
                end = &mut turn => {
                    return Ok(match (stalled, end) {
                        (Some((stall, _)), TurnEnd::Interrupted) => {
                            Tried::Stalled(stall, pulse.evidence())
                        }
                        (_, end) => Tried::Ended(end),
                    });
                }
                () = tokio::time::sleep_until(due), if stalled.is_some() || !is_asking => {
                    if let Some((stall, _)) = stalled {
                        // A new worker takes the conversation up.
                        return Err(Failure::new(
                            FailureReason::ClaudeExited,
                            format!("{}, and Claude Code does not react to an interrupt", stall.words()),
                        ));
                    }
                    stalled = Some(self.interrupt(handle, pulse.silence()).await);
                }
            }
        }
    }

    /// Interrupts a turn that does not get on. Until when it is to have ended.
    async fn interrupt(&self, handle: &Handle, stall: Stall) -> (Stall, Instant) {
        self.note(format!("interrupted: {}", stall.words()));
        // Whether it is taken or not: the turn ends, or it does not.
        let _ = tokio::time::timeout(INTERRUPTED, handle.interrupt()).await;
        (stall, Instant::now() + INTERRUPTED)
    }

    /// Ends the CLI, so that its transcript is whole.
    pub(crate) async fn hang_up(&self, conversation: Conversation) {
        // Whether it exits or not, the end of the step leaves no process.
        let _ = tokio::time::timeout(EXIT, conversation.handle.end()).await;
    }

    async fn heard(
        &mut self,
        talk: &Talk<'_>,
        handle: &Handle,
        open: &mut VecDeque<Open>,
        event: Event,
        keeper: &mut impl PlanKeeper,
    ) -> Result<(), Failure> {
        let log = |source, text: String| self.link.log(source, text);
        match event {
            Event::Text(text) => log(LogSource::Claude, text),
            Event::ToolUse { name, summary, .. } => {
                log(LogSource::Tool, format!("{name}: {summary}"));
            }
            Event::ToolResult {
                is_error: true,
                summary,
            } => log(LogSource::Tool, format!("failed: {summary}")),
            Event::Progress(text) if !self.progress.take(std::time::Instant::now()) => {
                log(LogSource::Claude, text);
            }
            Event::Progress(text) => {
                let fact = ProgressNoted { text };
                self.link.note(talk.version, Fact::ProgressNoted(fact));
            }
            Event::Retry {
                attempt,
                delay,
                status,
                error,
            } => self.note(format!(
                "the model did not answer ({}{error}); try {attempt} in {} s",
                status
                    .map(|status| format!("{status} "))
                    .unwrap_or_default(),
                delay.as_secs()
            )),
            Event::Compacted { .. } => self.note("the conversation was summarised".to_owned()),
            Event::ModelFallback { from, to } => {
                self.note(format!("{to} answers instead of {from}"));
            }
            Event::Denied { tool, reason } => self.note(format!("{tool} refused: {reason}")),
            Event::Stderr(text) | Event::Notice(text) => log(LogSource::Harness, text),
            Event::Dropped(count) => self.note(format!("{count} lines were dropped here")),
            Event::Question {
                id,
                questions,
                context,
            } => {
                let wire_id = self.question_id(&id);
                let fact = Fact::QuestionAsked(QuestionAsked {
                    question_id: wire_id.clone(),
                    questions: questions.iter().map(question).collect(),
                    context: context.unwrap_or_default(),
                });
                let asked = Open {
                    id: wire_id,
                    driver_id: id,
                    questions: questions
                        .into_iter()
                        .map(|question| question.question)
                        .collect(),
                    fact,
                };
                self.ask(talk.version, handle, open, asked).await;
            }
            Event::Blocker {
                id,
                kind,
                what,
                detail,
            } => {
                let wire_id = self.question_id(&id);
                let fact = Fact::BlockerReported(BlockerReported {
                    question_id: wire_id.clone(),
                    kind: blocker(kind).to_owned(),
                    what: what.clone(),
                    detail,
                });
                let asked = Open {
                    id: wire_id,
                    driver_id: id,
                    questions: vec![what],
                    fact,
                };
                self.ask(talk.version, handle, open, asked).await;
            }
            Event::Withdrawn { id } => {
                if let Some(next) = withdraw(open, &id) {
                    self.link.report(talk.version, next);
                }
            }
            Event::Plan { text } => {
                keeper.keep(self, text).await?;
                // An error means that the turn is over already.
                let _ = handle.plan_stored().await;
            }
            Event::ThreadAnswer { thread, text } => {
                log(LogSource::Claude, format!("answer to {thread}: {text}"));
                keeper.answer(&thread, text);
            }
            Event::NothingToChange { .. }
            | Event::Started { .. }
            | Event::ToolResult { .. }
            | Event::Cost { .. }
            | Event::Unknown(_) => {}
        }
        Ok(())
    }

    fn question_id(&mut self, driver_id: &str) -> String {
        self.asked += 1;
        format!("{}-{driver_id}", self.asked)
    }

    /// Asks a person, one thing at a time.
    async fn ask(&self, version: i64, handle: &Handle, open: &mut VecDeque<Open>, asked: Open) {
        if self.asked > MAX_ASKED {
            let replies = vec![ASKED_ENOUGH.to_owned(); asked.questions.len()];
            // An error means that Claude no longer waits.
            let _ = handle
                .answer(&asked.driver_id, Answer::Replies(replies))
                .await;
            return;
        }
        if open.is_empty() {
            self.link.report(version, asked.fact.clone());
        }
        open.push_back(asked);
    }

    async fn tell(
        &mut self,
        handle: &Handle,
        open: &mut VecDeque<Open>,
        command: Command,
        version: i64,
    ) {
        match command.what.clone() {
            Some(What::Say(say)) => {
                let id = command.id.parse().unwrap_or_else(|_| Uuid::new_v4());
                if handle.say(id, &say.text).await.is_err() {
                    self.keep(command);
                    return;
                }
                self.note(format!("told Claude: {}", say.text));
            }
            Some(What::Answer(answer)) => {
                let found = open.iter().position(|asked| asked.id == answer.question_id);
                let Some(asked) = found.and_then(|index| open.remove(index)) else {
                    self.keep(command);
                    return;
                };
                let assumed = answer.assumed;
                let mut replies = replies(answer, asked.questions.len());
                for (question, reply) in asked.questions.iter().zip(&replies) {
                    self.words.push(mainloop_proto::v1::HumanWord {
                        question: question.clone(),
                        text: reply.clone(),
                        assumed,
                        time: Some(crate::sidecar::link::now()),
                    });
                }
                if assumed {
                    for reply in &mut replies {
                        reply.push_str(ASSUMED);
                    }
                }
                // An error means that Claude no longer waits; the words are in the next prompt.
                let _ = handle
                    .answer(&asked.driver_id, Answer::Replies(replies))
                    .await;
                if let Some(next) = open.front() {
                    self.link.report(version, next.fact.clone());
                }
            }
            None => {}
        }
        self.link.done(&command.id);
    }

    pub(super) fn noticed(&self, notice: Notice) {
        match notice {
            Notice::SetupOutput(line) => self.link.log(LogSource::Harness, line),
            // Only what the git proxy saw counts.
            Notice::Pushed { .. } => {}
            Notice::PushFailed(failure) => {
                self.link
                    .log(LogSource::Harness, format!("push failed: {failure}"));
            }
        }
    }

    /// What a failed turn means for the step.
    pub(crate) fn turn_failure(&self, end: TurnEnd) -> Failure {
        match end {
            TurnEnd::Failed { class, message, .. } => {
                let (reason, message) = refused(class, message, self.host.turned_away());
                let mut failure = Failure::new(reason, text::visible(&message));
                if reason == FailureReason::ModelLimit {
                    failure.retry_at = self
                        .limited_until
                        .filter(|until| *until > jiff::Timestamp::now());
                }
                failure
            }
            TurnEnd::ProcessExited {
                signal: Some(SIGKILL),
                ..
            } if let Some(words) = self.host.short_of_memory() => {
                Failure::new(FailureReason::OutOfMemory, words)
            }
            TurnEnd::ProcessExited {
                code,
                signal,
                stderr,
            } => Failure::new(
                FailureReason::ClaudeExited,
                format!(
                    "Claude Code exited in the middle of a turn ({}): {stderr}",
                    match (code, signal) {
                        (Some(code), _) => format!("code {code}"),
                        (None, Some(signal)) => format!("signal {signal}"),
                        (None, None) => "no code".to_owned(),
                    }
                ),
            ),
            TurnEnd::Interrupted => Failure::new(
                FailureReason::ClaudeExited,
                "the turn was interrupted".to_owned(),
            ),
            TurnEnd::Completed { .. }
            | TurnEnd::Planned { .. }
            | TurnEnd::NothingToChange { .. } => Failure::new(
                FailureReason::ClaudeExited,
                "the turn ended in a way that this step does not expect".to_owned(),
            ),
        }
    }
}

/// The reason and the words of a turn that failed. Claude Code's own words come through the harness, where anybody may
/// have written them: what stops every task that shares the credential is believed only as far as the proxy saw it.
fn refused(
    class: FailureClass,
    message: String,
    seen: Option<TurnedAway>,
) -> (FailureReason, String) {
    let reason = match class {
        FailureClass::Authentication | FailureClass::Billing | FailureClass::RateLimited => {
            match seen {
                Some(TurnedAway::Credential) => FailureReason::ModelCredential,
                Some(TurnedAway::Credit) => FailureReason::ModelCredit,
                Some(TurnedAway::Limit) => FailureReason::ModelLimit,
                Some(TurnedAway::Policy(why)) => {
                    let message = format!("policy does not let the request pass: {why}");
                    return (FailureReason::ModelNotAllowed, message);
                }
                None => {
                    let message =
                        format!("Claude Code says, and the model's host did not: {message}");
                    return (FailureReason::ClaudeExited, message);
                }
            }
        }
        FailureClass::Overloaded => FailureReason::ModelOverloaded,
        FailureClass::Server | FailureClass::Network => FailureReason::ModelUnavailable,
        FailureClass::Budget => FailureReason::Budget,
        FailureClass::ModelUnavailable => FailureReason::ModelNotAllowed,
        FailureClass::PromptTooLong => FailureReason::ModelContext,
        FailureClass::MaxTurns => FailureReason::ModelTurns,
        FailureClass::Refused => FailureReason::ModelRefused,
        FailureClass::SessionLost | FailureClass::Other => FailureReason::ClaudeExited,
    };
    (reason, message)
}

/// Takes a question back that Claude no longer waits for. The next one's fact, where that one was before a person.
fn withdraw(open: &mut VecDeque<Open>, driver_id: &str) -> Option<Fact> {
    let at = open.iter().position(|asked| asked.driver_id == driver_id)?;
    open.remove(at);
    if at > 0 {
        return None;
    }
    open.front().map(|next| next.fact.clone())
}

/// A reply for each question: what was chosen, with what was written beside it.
pub(super) fn replies(answer: AnswerCommand, questions: usize) -> Vec<String> {
    let AnswerCommand {
        mut answers, text, ..
    } = answer;
    if answers.is_empty() {
        return vec![text; questions.max(1)];
    }
    if !text.is_empty()
        && let Some(last) = answers.last_mut()
    {
        if !last.is_empty() {
            last.push('\n');
        }
        last.push_str(&text);
    }
    answers
}

/// How an attempt at a turn went.
enum Tried {
    Ended(TurnEnd),
    /// Why, and what was heard last.
    Stalled(Stall, String),
}

/// What an event says of how a turn gets on.
fn felt(pulse: &mut Pulse, event: &Event) -> Option<Stall> {
    match event {
        Event::ToolUse {
            name,
            summary,
            hash,
        } => pulse.called(format!("{name}: {summary}"), *hash),
        Event::Text(text) => {
            pulse.line(text.clone());
            None
        }
        _ => None,
    }
}

enum Opening {
    SessionLost,
    Failed(Failure),
}

impl From<Failure> for Opening {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The next thing that the harness says unasked, where there is one.
pub(super) async fn notice(notices: &mut Option<mpsc::Receiver<Notice>>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.recv().await,
        None => std::future::pending().await,
    }
}

fn question(question: &claude::Question) -> mainloop_proto::v1::Question {
    mainloop_proto::v1::Question {
        text: question.question.clone(),
        header: question.header.clone(),
        options: question
            .options
            .iter()
            .map(|option| mainloop_proto::v1::QuestionOption {
                label: option.label.clone(),
                description: option.description.clone(),
            })
            .collect(),
        multi_select: question.multi_select,
    }
}

fn blocker(kind: BlockerKind) -> &'static str {
    match kind {
        BlockerKind::Access => "access",
        BlockerKind::Network => "network",
        BlockerKind::Tooling => "tooling",
        BlockerKind::Requirements => "requirements",
        BlockerKind::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: &str) -> Open {
        Open {
            id: format!("1-{id}"),
            driver_id: id.to_owned(),
            questions: vec![id.to_owned()],
            fact: Fact::ProgressNoted(ProgressNoted {
                text: id.to_owned(),
            }),
        }
    }

    #[test]
    fn the_question_behind_a_withdrawn_one_is_asked() {
        let mut open: VecDeque<Open> = ["a", "b", "c"].map(asked).into();
        // Nobody has been asked this one yet.
        assert_eq!(withdraw(&mut open, "b"), None);
        assert_eq!(withdraw(&mut open, "a"), Some(asked("c").fact));
        assert_eq!(withdraw(&mut open, "a"), None);
        assert_eq!(withdraw(&mut open, "c"), None);
        assert!(open.is_empty());
    }

    #[test]
    fn what_stops_every_task_is_believed_only_where_the_proxy_saw_it() {
        use FailureClass as Class;
        use FailureReason as Reason;

        let policy = || TurnedAway::Policy("no price".to_owned());
        for (class, seen, reason) in [
            (
                Class::Authentication,
                Some(TurnedAway::Credential),
                Reason::ModelCredential,
            ),
            (
                Class::Billing,
                Some(TurnedAway::Credit),
                Reason::ModelCredit,
            ),
            (
                Class::RateLimited,
                Some(TurnedAway::Limit),
                Reason::ModelLimit,
            ),
            // It is what the proxy saw that counts.
            (
                Class::Authentication,
                Some(TurnedAway::Limit),
                Reason::ModelLimit,
            ),
            (
                Class::Authentication,
                Some(policy()),
                Reason::ModelNotAllowed,
            ),
            (Class::Authentication, None, Reason::ClaudeExited),
            (Class::Billing, None, Reason::ClaudeExited),
            (Class::RateLimited, None, Reason::ClaudeExited),
            // Nobody else waits for these.
            (Class::Overloaded, None, Reason::ModelOverloaded),
            (
                Class::PromptTooLong,
                Some(TurnedAway::Credential),
                Reason::ModelContext,
            ),
        ] {
            let told = format!("{class:?} {seen:?}");
            assert_eq!(refused(class, String::new(), seen).0, reason, "{told}");
        }
        let (_, words) = refused(Class::Authentication, String::new(), Some(policy()));
        assert!(words.contains("no price"), "{words}");
    }

    #[test]
    fn words_beside_a_choice_reach_claude() {
        let replies = |answers: &[&str], text: &str, questions| {
            let answer = AnswerCommand {
                question_id: String::new(),
                assumed: false,
                answers: answers.iter().map(ToString::to_string).collect(),
                text: text.to_owned(),
                approved: false,
            };
            super::replies(answer, questions)
        };
        assert_eq!(replies(&["x", "y"], "", 2), ["x", "y"]);
        assert_eq!(replies(&["x", "y"], "but small", 2), ["x", "y\nbut small"]);
        assert_eq!(replies(&[], "both", 2), ["both", "both"]);
        assert_eq!(replies(&[""], "own words", 1), ["own words"]);
    }
}
