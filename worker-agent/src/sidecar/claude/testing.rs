//! The real CLI against a scripted model, for this crate's tests: no harness and no proxy between them.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::driver::{Driver, Mode, OpenError, OpenOptions, Output, Pipes};
use super::events::{Event, TurnEnd};
use super::launch::{CredentialKind, Guidance, Options, Session, launch};

/// How long any one wait may take before the test fails and says what it saw. Far above what an idle machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What the model does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Text(&'static str),
    Tool(&'static str, Value),
    /// Writes the plan file to the path that plan mode announces.
    WritePlan(&'static str),
    /// Status, error type, message; retried if so.
    Error {
        status: u16,
        kind: &'static str,
        message: &'static str,
        retry: bool,
    },
    /// Answers with the text only when the test opens the gate.
    Gated(&'static str),
}

/// A request as the model got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A scripted Messages API: replies in order; the last one repeats.
#[derive(Debug)]
pub(crate) struct Model {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    arrived: Notify,
    gate: Notify,
}

impl Model {
    fn new(replies: Vec<Reply>) -> Arc<Self> {
        Arc::new(Self {
            replies: Mutex::new(replies.into()),
            seen: Mutex::default(),
            arrived: Notify::new(),
            gate: Notify::new(),
        })
    }

    async fn serve(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/v1/messages", post(answer))
            .with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn open_gate(&self) {
        self.gate.notify_one();
    }

    /// Waits until the model was asked `count` times.
    pub(crate) async fn asked(&self, count: usize) {
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                if self.seen().len() >= count {
                    return;
                }
                arrived.await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            done.is_ok(),
            "the model was asked {} times, not {count}",
            self.seen().len()
        );
    }

    /// The text of everything in the last request's messages.
    pub(crate) fn last_messages(&self) -> String {
        self.seen()
            .last()
            .map(|seen| seen.body["messages"].to_string())
            .unwrap_or_default()
    }
}

async fn answer(State(model): State<Arc<Model>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body).into_owned();
    model.seen.lock().unwrap().push(Seen {
        headers,
        body: serde_json::from_str(&text).unwrap(),
    });
    model.arrived.notify_waiters();
    let reply = {
        let mut replies = model.replies.lock().unwrap();
        if replies.len() > 1 {
            replies.pop_front()
        } else {
            replies.front().cloned()
        }
    };
    match reply.unwrap_or(Reply::Text("done")) {
        Reply::Text(text) => stream(
            &json!({"type": "text", "text": ""}),
            &json!({"type": "text_delta", "text": text}),
            "end_turn",
        ),
        Reply::Gated(text) => {
            model.gate.notified().await;
            stream(
                &json!({"type": "text", "text": ""}),
                &json!({"type": "text_delta", "text": text}),
                "end_turn",
            )
        }
        Reply::Tool(name, input) => tool(name, &input),
        Reply::WritePlan(plan) => {
            let end = text
                .find(".md using the Write tool")
                .expect("plan mode announces the plan's path")
                + ".md".len();
            let start = text[..end].rfind(' ').expect("a path follows a space") + 1;
            tool(
                "Write",
                &json!({"file_path": &text[start..end], "content": plan}),
            )
        }
        Reply::Error {
            status,
            kind,
            message,
            retry,
        } => (
            StatusCode::from_u16(status).unwrap(),
            [
                (header::CONTENT_TYPE.as_str(), "application/json"),
                ("x-should-retry", if retry { "true" } else { "false" }),
            ],
            json!({"type": "error", "error": {"type": kind, "message": message}}).to_string(),
        )
            .into_response(),
    }
}

fn tool(name: &str, input: &Value) -> Response {
    let block = json!({"type": "tool_use", "id": format!("toolu_{}", Uuid::new_v4().simple()), "name": name, "input": {}});
    stream(
        &block,
        &json!({"type": "input_json_delta", "partial_json": input.to_string()}),
        "tool_use",
    )
}

fn stream(block: &Value, delta: &Value, stop: &str) -> Response {
    let id = format!("msg_{}", Uuid::new_v4().simple());
    let message = json!({"id": id, "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": {"input_tokens": 100, "output_tokens": 1}});
    let events = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": 20}}),
        json!({"type": "message_stop"}),
    ];
    let mut body = String::new();
    for event in &events {
        write!(
            body,
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
        .unwrap();
    }
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// A folder in which CLIs run one after another.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) model: Arc<Model>,
    pub(crate) credential: CredentialKind,
    base_url: String,
}

/// A running CLI under its driver. Killed when dropped.
pub(crate) struct Cli {
    pub(crate) driver: Driver,
    pub(crate) events: mpsc::Receiver<Event>,
    /// Lines that a test pretends the CLI to have written.
    pub(crate) inject: mpsc::Sender<Output>,
    pub(crate) kill: Arc<Notify>,
}

impl Bench {
    pub(crate) async fn new(replies: Vec<Reply>) -> Self {
        let model = Model::new(replies);
        let base_url = model.serve().await;
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "home", "claude"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            model,
            credential: CredentialKind::ApiKey,
            base_url,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn start(&self, mode: Mode) -> Cli {
        self.open(mode, Session::New(Uuid::new_v4())).await.unwrap()
    }

    pub(crate) async fn open(&self, mode: Mode, session: Session) -> Result<Cli, OpenError> {
        let config_dir = self.path("claude").to_str().unwrap().to_owned();
        let launch = launch(&Options {
            session,
            mode,
            model: "sonnet".into(),
            fallback_model: None,
            config_dir: config_dir.clone(),
            home: self.path("home").to_str().unwrap().into(),
            base_url: self.base_url.clone(),
            credential: self.credential,
            guidance: vec![Guidance {
                path: "CLAUDE.md".into(),
                text: "GUIDANCE-OF-THE-BASE-COMMIT".into(),
            }],
        });
        for file in &launch.files {
            std::fs::write(&file.path, &file.contents).unwrap();
        }
        let mut child = tokio::process::Command::new(claude())
            .args(&launch.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(launch.env)
            .current_dir(self.path("work"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, mut lines) = mpsc::channel::<String>(8);
        let (output_tx, output) = mpsc::channel(8);
        let inject = output_tx.clone();
        let kill = Arc::new(Notify::new());
        let killed = Arc::clone(&kill);
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                if stdin
                    .write_all(format!("{line}\n").as_bytes())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        let stderr_tx = output_tx.clone();
        let errors = tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let _ = stderr_tx.send(Output::Stderr(line)).await;
            }
        });
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    line = stdout.next_line() => match line {
                        Ok(Some(line)) => if output_tx.send(Output::Line(line)).await.is_err() { break },
                        _ => break,
                    },
                    () = killed.notified() => child.start_kill().unwrap(),
                }
            }
            // The driver is gone, or the pipe is closed because the process goes.
            if output_tx.is_closed() {
                let _ = child.start_kill();
            }
            let status = child.wait().await.unwrap();
            let _ = errors.await;
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            let _ = output_tx
                .send(Output::Exited {
                    code: status.code(),
                    signal,
                })
                .await;
        });
        let (driver, events) = Driver::open(
            Pipes { input, output },
            OpenOptions {
                mode,
                config_dir,
                threads: vec!["t1".into()],
            },
        )
        .await?;
        Ok(Cli {
            driver,
            events,
            inject,
            kill,
        })
    }
}

impl Cli {
    /// Runs a turn; `on_event` sees every event and may act on it through the driver's handle.
    pub(crate) async fn turn<F: AsyncFnMut(&Event)>(
        &mut self,
        prompt: &str,
        mut on_event: F,
    ) -> (TurnEnd, Vec<Event>) {
        let mut seen = Vec::new();
        let events = &mut self.events;
        let turn = self.driver.turn(prompt);
        let wait = async {
            tokio::pin!(turn);
            loop {
                tokio::select! {
                    biased;
                    Some(event) = events.recv() => {
                        on_event(&event).await;
                        seen.push(event);
                    }
                    end = &mut turn => break end,
                }
            }
        };
        let end = tokio::time::timeout(PATIENCE, wait).await;
        while let Ok(event) = self.events.try_recv() {
            seen.push(event);
        }
        (
            end.unwrap_or_else(|_| panic!("the turn did not end; events: {seen:#?}")),
            seen,
        )
    }
}

/// The CLI that the tests run.
pub(crate) fn claude() -> PathBuf {
    const VERSION: &str = include_str!("../../../../scripts/claude-version").trim_ascii();
    let cache = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/lib")
    } else {
        PathBuf::from(std::env::var("HOME").unwrap()).join(".cache")
    };
    let cached = cache.join("mainloop/claude").join(VERSION).join("claude");
    let path = std::env::var_os("MAINLOOP_CLAUDE").map_or(cached, PathBuf::from);
    assert!(
        path.is_file(),
        "the Claude Code CLI is not at {}: run `make claude`, or set MAINLOOP_CLAUDE",
        path.display()
    );
    path
}
