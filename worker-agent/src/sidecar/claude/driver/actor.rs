//! The task that owns one CLI's conversation.
//!
//! It alone writes to the CLI and never blocks on one side while the other is full: lines to the CLI and events to the caller wait
//! in bounded queues here. Events that are only read are dropped and counted when their queue is full; a CLI that does not
//! read its input is given up. It ends when every handle is gone, which closes the CLI's input.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::super::events::{Answer, Event, MAX_TEXT, Question, TurnEnd, clip};
use super::super::mcp::{self, Tool};
use super::super::policy::{self, Verdict};
use super::super::protocol::{self, Incoming, Lifecycle, Request};
use super::super::translate;
use super::turn::Turn;
use super::{Activity, Command, CommandError, Done, Mode, OpenError, OpenOptions, Output, Pipes};

/// Lines that wait for the CLI to read them. It reads at once; this many unread ones mean that it hangs or misbehaves.
const OUTBOX: usize = 512;
/// Events that wait for the caller before the ones for people are dropped. A burst of tool calls is far below it.
/// At twice as many, which only the others can make, the CLI is not read until the caller reads.
const BACKLOG: usize = 256;
/// Questions that may be open at once. Claude asks one at a time, its subagents a few.
const OPEN: usize = 16;
/// Ids of said messages that are remembered against repeats; the plane repeats only what it has not seen acknowledged.
const SAID: usize = 256;
/// Lines of stderr that are kept for the report of an exit.
const STDERR_LINES: usize = 20;

pub(super) struct Actor {
    input: Option<mpsc::Sender<String>>,
    output: mpsc::Receiver<Output>,
    commands: mpsc::Receiver<Command>,
    events: Option<mpsc::Sender<Event>>,
    activity: watch::Sender<Activity>,
    options: OpenOptions,
    ready: Option<oneshot::Sender<Result<(), OpenError>>>,
    outbox: VecDeque<String>,
    backlog: VecDeque<Event>,
    dropped: u64,
    /// Our requests that the CLI has yet to answer.
    requests: HashMap<String, Asked>,
    next_request: u64,
    /// Questions by the id that the caller knows.
    open: HashMap<String, Open>,
    plan: Option<Plan>,
    turn: Option<Turn>,
    said: VecDeque<Uuid>,
    lifecycle_seen: bool,
    ending: Vec<Done>,
    stderr: VecDeque<String>,
    exited: Option<(Option<i32>, Option<i32>)>,
}

enum Asked {
    Initialize,
    Mode(Mode, Done),
    Interrupt(Option<Done>),
    End,
}

struct Open {
    request_id: String,
    from: From,
}

enum From {
    /// AskUserQuestion.
    Tool {
        input: Value,
        questions: Vec<Question>,
    },
    /// A tool of our own.
    Mcp { call: Value },
}

struct Plan {
    request_id: String,
    text: String,
}

impl Actor {
    pub(super) fn new(
        pipes: Pipes,
        options: OpenOptions,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        activity: watch::Sender<Activity>,
        ready: oneshot::Sender<Result<(), OpenError>>,
    ) -> Self {
        Self {
            input: Some(pipes.input),
            output: pipes.output,
            commands,
            events: Some(events),
            activity,
            options,
            ready: Some(ready),
            outbox: VecDeque::new(),
            backlog: VecDeque::new(),
            dropped: 0,
            requests: HashMap::new(),
            next_request: 0,
            open: HashMap::new(),
            plan: None,
            turn: None,
            said: VecDeque::new(),
            lifecycle_seen: false,
            ending: Vec::new(),
            stderr: VecDeque::new(),
            exited: None,
        }
    }

    pub(super) async fn run(mut self) {
        self.request(
            &json!({"subtype": "initialize", "sdkMcpServers": [mcp::SERVER]}),
            Asked::Initialize,
        );
        loop {
            let (input, events) = (self.input.clone(), self.events.clone());
            tokio::select! {
                output = self.output.recv(), if self.exited.is_none() && self.backlog.len() < 2 * BACKLOG => {
                    self.receive(output.unwrap_or(Output::Exited { code: None, signal: None }));
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                permit = reserve(input.as_ref()), if !self.outbox.is_empty() => match (permit, self.outbox.pop_front()) {
                    (Some(permit), Some(line)) => permit.send(line),
                    // The process is going; its exit follows on the other pipe.
                    _ => self.input = None,
                },
                permit = reserve(events.as_ref()), if !self.backlog.is_empty() => match (permit, self.backlog.pop_front()) {
                    (Some(permit), Some(event)) => permit.send(event),
                    _ => self.events = None,
                },
            }
            self.tidy();
        }
    }

    /// After every step: nothing is queued for an end that is gone, and the turn ends when it is over.
    fn tidy(&mut self) {
        if self.input.is_none() {
            self.outbox.clear();
        }
        if self.outbox.len() > OUTBOX {
            self.keep_stderr("it stopped reading its input");
            self.exit(None, None);
        }
        if self.dropped > 0 && self.backlog.len() < BACKLOG / 2 {
            let dropped = std::mem::take(&mut self.dropped);
            self.backlog.push_back(Event::Dropped(dropped));
        }
        if self.exited.is_some() && self.backlog.is_empty() {
            self.events = None;
        }
        if self.events.is_none() {
            self.backlog.clear();
        }
        if let Some(turn) = self.turn.take_if(|turn| turn.is_over()) {
            turn.finish();
        }
        let waiting = self.open.len() + usize::from(self.plan.is_some());
        self.activity.send_if_modified(|activity| {
            let changed = activity.waiting != waiting;
            activity.waiting = waiting;
            changed
        });
    }

    fn receive(&mut self, output: Output) {
        self.activity
            .send_modify(|activity| activity.at = Instant::now());
        match output {
            Output::Line(line) => self.line(&line),
            Output::Stderr(line) => {
                let line = clip(&line, MAX_TEXT);
                self.keep_stderr(&line);
                self.show(Event::Stderr(line));
            }
            Output::Exited { code, signal } => self.exit(code, signal),
        }
    }

    fn line(&mut self, line: &str) {
        match protocol::parse(line) {
            Incoming::Request {
                request_id,
                request,
            } => self.requested(request_id, request),
            Incoming::Response { request_id, result } => self.responded(&request_id, result),
            Incoming::Cancel { request_id } => self.withdraw(&request_id),
            Incoming::Lifecycle { uuid, state } => {
                self.lifecycle_seen = true;
                if let (Lifecycle::Settled, Some(turn)) = (state, &mut self.turn) {
                    turn.settled(&uuid);
                }
            }
            Incoming::Result(result) => {
                if let Some(total_usd) = result.total_usd {
                    self.show(Event::Cost {
                        total_usd,
                        usage: result.usage,
                    });
                }
                // A process that dies over its arguments says why here alone.
                if self.ready.is_some() {
                    for error in &result.errors {
                        self.keep_stderr(error);
                    }
                }
                if let Some(turn) = &mut self.turn {
                    turn.result(&result);
                }
            }
            Incoming::Message(message) => self.message(&message),
            Incoming::Text(text) if text.trim().is_empty() => {}
            Incoming::Text(text) => self.show(Event::Stderr(text)),
        }
    }

    fn message(&mut self, message: &Value) {
        if let (Some(class), Some(turn)) = (translate::synthetic_error(message), &mut self.turn) {
            turn.error(class);
        }
        // Idle ends a turn only where the CLI cannot say what became of our messages: words that are on their
        // way while it goes idle would be lost otherwise.
        if message["subtype"] == "session_state_changed" && message["state"] == "idle" {
            let lifecycle_seen = self.lifecycle_seen;
            if let Some(turn) = self
                .turn
                .take_if(|turn| turn.is_settled() || !lifecycle_seen)
            {
                turn.finish();
            }
        }
        for event in translate::events(message) {
            self.show(event);
        }
    }

    fn requested(&mut self, request_id: String, request: Request) {
        match request {
            Request::CanUseTool { tool, input } => self.permission(request_id, &tool, input),
            Request::Mcp { server, message } if server == mcp::SERVER => {
                match mcp::receive(&message) {
                    mcp::Message::Reply(reply) => self.mcp_reply(&request_id, &reply),
                    mcp::Message::Cancelled { id } => {
                        self.mcp_reply(&request_id, &mcp::acknowledgement());
                        self.withdraw_call(&id);
                    }
                    mcp::Message::Call { id, tool } => self.call(&request_id, id, tool),
                }
            }
            Request::Mcp { server, .. } => self.send(protocol::control_error(
                &request_id,
                &format!("there is no server {server:?}"),
            )),
            Request::Other(subtype) => {
                self.send(protocol::control_error(
                    &request_id,
                    &format!("{subtype:?} is not supported"),
                ));
                self.show(Event::Unknown(format!("a control request {subtype:?}")));
            }
        }
    }

    fn permission(&mut self, request_id: String, tool: &str, input: Value) {
        match policy::decide(self.options.mode, tool, &input, &self.options.config_dir) {
            Verdict::Allow => self.send(protocol::control_success(
                &request_id,
                &json!({"behavior": "allow"}),
            )),
            Verdict::Deny(reason) => {
                self.deny(&request_id, reason, false);
                self.show(Event::Denied {
                    tool: clip(tool, 100),
                    reason: reason.to_owned(),
                });
            }
            Verdict::Ask(_) if self.open.len() >= OPEN => self.deny(&request_id, TOO_MANY, false),
            Verdict::Ask(questions) => {
                let from = From::Tool {
                    input,
                    questions: questions.clone(),
                };
                let id = self.open_question(&request_id, from);
                self.tell(Event::Question {
                    id,
                    questions,
                    context: None,
                });
            }
            Verdict::Plan(_) if self.plan.is_some() => {
                self.deny(&request_id, "The plan is being stored. Wait.", false);
            }
            Verdict::Plan(text) => {
                self.plan = Some(Plan {
                    request_id,
                    text: text.clone(),
                });
                self.tell(Event::Plan { text });
            }
        }
    }

    fn call(&mut self, request_id: &str, call: Value, tool: Tool) {
        match tool {
            Tool::ReportProgress { text } => {
                self.mcp_reply(request_id, &mcp::text_result(&call, "Reported.", false));
                self.show(Event::Progress(text));
            }
            Tool::NothingToChange { .. } if self.options.mode == Mode::Work => {
                let text = "The plan is approved: carry it out. If it turns out to be impossible, use report_blocker.";
                self.mcp_reply(request_id, &mcp::text_result(&call, text, true));
            }
            Tool::NothingToChange { reason } => {
                if let Some(turn) = self.turn.as_mut().filter(|turn| !turn.is_decided()) {
                    turn.decide(TurnEnd::NothingToChange {
                        reason: reason.clone(),
                    });
                    self.tell(Event::NothingToChange { reason });
                    // The interrupt comes first, so that no further request to the model is paid for.
                    self.request(&json!({"subtype": "interrupt"}), Asked::Interrupt(None));
                }
                self.mcp_reply(
                    request_id,
                    &mcp::text_result(&call, "Noted. The work ends here.", false),
                );
            }
            Tool::AnswerThread { thread, answer } => {
                self.answer_thread(request_id, &call, thread, answer);
            }
            Tool::AskHuman { question, context } => {
                self.wait_for_human(request_id, call, |id| Event::Question {
                    id,
                    questions: vec![question],
                    context,
                });
            }
            Tool::ReportBlocker { kind, what, detail } => {
                self.wait_for_human(request_id, call, |id| Event::Blocker {
                    id,
                    kind,
                    what,
                    detail,
                });
            }
        }
    }

    fn answer_thread(&mut self, request_id: &str, call: &Value, thread: String, answer: String) {
        let threads = &self.options.threads;
        let wrong = if threads.is_empty() {
            Some("There is no review to answer in this step.".to_owned())
        } else if !threads.contains(&thread) {
            Some(format!(
                "There is no thread {:?}. There are: {}.",
                clip(&thread, 80),
                threads.join(", ")
            ))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return self.mcp_reply(request_id, &mcp::text_result(call, &wrong, true));
        }
        self.mcp_reply(
            request_id,
            &mcp::text_result(
                call,
                "Noted. It is posted when your commits are pushed.",
                false,
            ),
        );
        self.tell(Event::ThreadAnswer {
            thread,
            text: answer,
        });
    }

    fn wait_for_human(
        &mut self,
        request_id: &str,
        call: Value,
        event: impl FnOnce(String) -> Event,
    ) {
        if self.open.len() >= OPEN {
            self.mcp_reply(request_id, &mcp::text_result(&call, TOO_MANY, true));
        } else {
            let id = self.open_question(request_id, From::Mcp { call });
            self.tell(event(id));
        }
    }

    fn open_question(&mut self, request_id: &str, from: From) -> String {
        let id = Uuid::now_v7().to_string();
        self.open.insert(
            id.clone(),
            Open {
                request_id: request_id.to_owned(),
                from,
            },
        );
        id
    }

    fn withdraw(&mut self, request_id: &str) {
        self.plan.take_if(|plan| plan.request_id == request_id);
        self.withdraw_where(|open| open.request_id == request_id);
    }

    fn withdraw_call(&mut self, id: &Value) {
        self.withdraw_where(|open| matches!(&open.from, From::Mcp { call } if call == id));
    }

    fn withdraw_where(&mut self, gone: impl Fn(&Open) -> bool) {
        let ids: Vec<String> = self
            .open
            .iter()
            .filter(|(_, open)| gone(open))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.open.remove(&id);
            self.tell(Event::Withdrawn { id });
        }
    }

    fn responded(&mut self, request_id: &str, result: Result<Value, String>) {
        let Some(asked) = self.requests.remove(request_id) else {
            return;
        };
        match asked {
            Asked::Initialize => {
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send(result.map(drop).map_err(OpenError::Refused));
                }
            }
            Asked::Mode(mode, done) => {
                if result.is_ok() {
                    self.options.mode = mode;
                }
                let _ = done.send(result.map(drop).map_err(CommandError::Refused));
            }
            Asked::Interrupt(Some(done)) => {
                let _ = done.send(result.map(drop).map_err(CommandError::Refused));
            }
            Asked::Interrupt(None) => {}
            // Done when the process is gone; closing its input helps where it refused.
            Asked::End => self.input = None,
        }
    }

    fn command(&mut self, command: Command) {
        if let Some((code, signal)) = self.exited {
            return self.refuse(command, code, signal);
        }
        match command {
            Command::Turn { done, .. } if self.turn.is_some() => {
                let _ = done.send(TurnEnd::Failed {
                    class: super::super::FailureClass::Other,
                    status: None,
                    message: "the turn before is still running".into(),
                });
            }
            Command::Turn { prompt, done } => {
                let id = Uuid::new_v4();
                self.turn = Some(Turn::new(id, done));
                self.send(protocol::user_message(id, &prompt));
            }
            Command::Say { id, done, .. } if self.said.contains(&id) => {
                let _ = done.send(Ok(()));
            }
            Command::Say { id, text, done } => {
                let Some(turn) = &mut self.turn else {
                    let _ = done.send(Err(CommandError::NoTurn));
                    return;
                };
                turn.said(id);
                if self.said.len() == SAID {
                    self.said.pop_front();
                }
                self.said.push_back(id);
                self.send(protocol::user_message(id, &text));
                let _ = done.send(Ok(()));
            }
            Command::Interrupt { done } => self.request(
                &json!({"subtype": "interrupt"}),
                Asked::Interrupt(Some(done)),
            ),
            Command::Answer { id, answer, done } => {
                let result = self
                    .open
                    .remove(&id)
                    .ok_or(CommandError::NoSuchQuestion)
                    .map(|open| self.answer(open, answer));
                let _ = done.send(result);
            }
            Command::PlanStored { done } => {
                let result = match self.plan.take() {
                    Some(plan) => {
                        if let Some(turn) = &mut self.turn {
                            turn.decide(TurnEnd::Planned { text: plan.text });
                        }
                        self.deny(&plan.request_id, "The plan is stored and waits for approval. Nothing more is to be done in this step.", true);
                        Ok(())
                    }
                    None => Err(CommandError::NoPlan),
                };
                let _ = done.send(result);
            }
            Command::SetMode { mode, done } => {
                self.request(
                    &json!({"subtype": "set_permission_mode", "mode": mode.permission_mode()}),
                    Asked::Mode(mode, done),
                );
            }
            Command::End { done } => {
                if self.ending.is_empty() {
                    self.request(&json!({"subtype": "end_session"}), Asked::End);
                }
                self.ending.push(done);
            }
        }
    }

    fn refuse(&mut self, command: Command, code: Option<i32>, signal: Option<i32>) {
        match command {
            Command::Turn { done, .. } => {
                let _ = done.send(TurnEnd::ProcessExited {
                    code,
                    signal,
                    stderr: self.last_words(),
                });
            }
            Command::Say { done, .. }
            | Command::Interrupt { done }
            | Command::Answer { done, .. }
            | Command::PlanStored { done }
            | Command::SetMode { done, .. }
            | Command::End { done } => {
                let _ = done.send(Err(CommandError::Closed));
            }
        }
    }

    fn answer(&mut self, open: Open, answer: Answer) {
        let Open { request_id, from } = open;
        match (from, answer) {
            (From::Tool { input, questions }, Answer::Replies(replies)) => {
                let answers: Map<String, Value> = questions
                    .into_iter()
                    .zip(replies)
                    .map(|(question, reply)| (question.question, Value::from(reply)))
                    .collect();
                let mut input = input;
                input["answers"] = Value::Object(answers);
                self.send(protocol::control_success(
                    &request_id,
                    &json!({"behavior": "allow", "updatedInput": input}),
                ));
            }
            (From::Tool { .. }, Answer::Stop(why)) => self.deny(&request_id, &stop(&why), false),
            (From::Mcp { call }, Answer::Replies(replies)) => {
                self.mcp_reply(
                    &request_id,
                    &mcp::text_result(&call, &replies.join("\n"), false),
                );
            }
            (From::Mcp { call }, Answer::Stop(why)) => {
                self.mcp_reply(&request_id, &mcp::text_result(&call, &stop(&why), false));
            }
        }
    }

    fn exit(&mut self, code: Option<i32>, signal: Option<i32>) {
        self.exited = Some((code, signal));
        self.input = None;
        self.outbox.clear();
        self.plan = None;
        self.requests.clear();
        self.withdraw_where(|_| true);
        let stderr = self.last_words();
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(OpenError::Exited {
                code,
                signal,
                stderr: stderr.clone(),
            }));
        }
        if let Some(turn) = self.turn.take() {
            turn.finish_exited(TurnEnd::ProcessExited {
                code,
                signal,
                stderr,
            });
        }
        for done in self.ending.drain(..) {
            let _ = done.send(Ok(()));
        }
    }

    fn deny(&mut self, request_id: &str, message: &str, interrupt: bool) {
        let mut denial = json!({"behavior": "deny", "message": message});
        if interrupt {
            denial["interrupt"] = Value::Bool(true);
        }
        self.send(protocol::control_success(request_id, &denial));
    }

    fn mcp_reply(&mut self, request_id: &str, reply: &Value) {
        self.send(protocol::control_success(
            request_id,
            &json!({"mcp_response": reply}),
        ));
    }

    fn request(&mut self, request: &Value, asked: Asked) {
        self.next_request += 1;
        let id = format!("mainloop-{}", self.next_request);
        self.send(protocol::control_request(&id, request));
        self.requests.insert(id, asked);
    }

    fn send(&mut self, line: String) {
        self.outbox.push_back(line);
    }

    /// An event that somebody has to act on: never dropped. Twice [`BACKLOG`] bounds them.
    fn tell(&mut self, event: Event) {
        self.backlog.push_back(event);
    }

    /// An event to read.
    fn show(&mut self, event: Event) {
        if self.backlog.len() < BACKLOG && self.dropped == 0 {
            self.backlog.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    fn keep_stderr(&mut self, line: &str) {
        if self.stderr.len() == STDERR_LINES {
            self.stderr.pop_front();
        }
        self.stderr.push_back(clip(line, 500));
    }

    fn last_words(&self) -> String {
        self.stderr
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

const TOO_MANY: &str = "Too many questions are open already. Wait for their answers.";

fn stop(why: &str) -> String {
    format!("The person who gave this task says to stop here, and not to go on with this: {why}")
}

/// Room for one more, or `None` when the other end is gone.
async fn reserve<T>(sender: Option<&mpsc::Sender<T>>) -> Option<mpsc::Permit<'_, T>> {
    sender?.reserve().await.ok()
}
