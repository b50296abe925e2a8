//! The sidecar's handle on a connected harness.
//!
//! Two tasks own the socket's halves; the handle talks to them over bounded channels. Claude's output has a window of
//! its own (`WINDOW` bytes), given back as the consumer takes lines, so that a consumer that does not read stops
//! Claude's stdout and nothing else: replies always get through.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::SinkExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{
    Diffstat, Failure, Frame, Hello, Inspect, Inspection, LINE_COST, MAX_TEXT, MergeState, Order,
    Prepare, Prepared, Published, Reply, Report, Request, Setup, Signal, StartClaude, WINDOW,
};

/// Orders under way to the socket. Few, as each is awaited or small; a full queue makes the caller wait.
const ORDERS: usize = 64;
/// Notices that nobody took yet. When full, further ones are dropped: they are for the log.
const NOTICES: usize = 256;
/// Lines between the channel and the driver, each way. A full queue waits.
const LINES: usize = 16;

/// A connected harness. Clones share the connection; when the last is dropped the connection closes, which ends the
/// harness and everything in its sandbox.
#[derive(Clone, Debug)]
pub struct Harness {
    inner: Arc<Inner>,
}

/// Claude Code's pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Lines for its stdin, without the newline. Dropping every sender closes stdin.
    pub input: mpsc::Sender<String>,
    /// What it prints, then [`Output::Exited`]. Ends without that when the harness is gone.
    pub output: mpsc::Receiver<Output>,
}

/// One thing that came out of Claude Code's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A line of stdout, without the newline.
    Line(String),
    /// A line of stderr, without the newline.
    Stderr(String),
    /// It ended; nothing follows.
    Exited {
        /// Where it ended by itself.
        code: Option<i32>,
        /// Where a signal ended it.
        signal: Option<i32>,
    },
}

/// What the harness says unasked. Text from the untrusted half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A line that a setup command printed.
    SetupOutput(String),
    /// The harness pushed by itself. Only what the git proxy saw counts.
    Pushed {
        /// The head as the harness sees it.
        head_sha: String,
    },
    /// A push by itself failed; it tries again later, or when the branch moves.
    PushFailed(Failure),
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The harness is gone, or broke the protocol.
    #[error("the harness is gone: {0}")]
    Closed(String),
    /// The harness tried and failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The reply belongs to another order, or makes no sense.
    #[error("the harness answered {0} with something else")]
    Nonsense(&'static str),
}

#[derive(Debug)]
struct Inner {
    hello: Hello,
    orders: mpsc::Sender<Frame<Order>>,
    shared: Arc<Shared>,
    next: AtomicU64,
    /// Aborted with the last handle.
    _tasks: JoinSet<()>,
}

/// What the reading task and the handles both touch.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Bytes of Claude's output that the consumer has not taken.
    outstanding: AtomicUsize,
    closed: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<u64, oneshot::Sender<Result<Reply, Failure>>>,
    claude: Option<mpsc::UnboundedSender<Output>>,
}

impl Harness {
    pub(super) fn start(
        hello: Hello,
        frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
        sink: FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
    ) -> (Self, mpsc::Receiver<Notice>) {
        let (orders, order_queue) = mpsc::channel(ORDERS);
        let (notices, notice_queue) = mpsc::channel(NOTICES);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            outstanding: AtomicUsize::new(0),
            closed: watch::Sender::new(None),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(write(order_queue, sink));
        tasks.spawn(read(frames, Arc::clone(&shared), notices));
        let inner = Inner {
            hello,
            orders,
            shared,
            next: AtomicU64::new(1),
            _tasks: tasks,
        };
        (
            Self {
                inner: Arc::new(inner),
            },
            notice_queue,
        )
    }

    /// Where things are inside.
    pub fn hello(&self) -> &Hello {
        &self.inner.hello
    }

    /// Clones or refreshes the repository and checks the task's branch out.
    pub async fn prepare(&self, prepare: Prepare) -> Result<Prepared, Error> {
        match self.request(Request::Prepare(prepare)).await? {
            Reply::Prepared(prepared)
                if is_sha(&prepared.base_sha) && is_sha(&prepared.head_sha) =>
            {
                Ok(prepared)
            }
            _ => Err(Error::Nonsense("prepare")),
        }
    }

    /// Runs the setup commands; their output comes as notices.
    pub async fn setup(&self, setup: Setup) -> Result<(), Error> {
        match self.request(Request::Setup(setup)).await? {
            Reply::SetupDone => Ok(()),
            _ => Err(Error::Nonsense("setup")),
        }
    }

    /// Starts Claude Code; one runs at a time.
    pub async fn start_claude(&self, start: StartClaude) -> Result<Pipes, Error> {
        // In place before the order goes out, so that no line can come too early. Its bound is the window, which
        // the reading task enforces.
        let (lines, line_queue) = mpsc::unbounded_channel();
        let (input, input_queue) = mpsc::channel(LINES);
        let (output, output_queue) = mpsc::channel(LINES);
        let orders = self.inner.orders.clone();
        // Ends with the process or the connection, when its channel closes; from here on every line is credited,
        // also when the caller goes away.
        tokio::spawn(deliver(
            line_queue,
            output,
            orders.downgrade(),
            Arc::clone(&self.inner.shared),
        ));
        let before = self.inner.shared.state().claude.replace(lines);
        match self.request(Request::StartClaude(start)).await {
            Ok(Reply::ClaudeStarted { .. }) => {}
            Ok(_) => return Err(Error::Nonsense("start Claude Code")),
            Err(error) => {
                self.inner.shared.state().claude = before;
                return Err(error);
            }
        }
        // Ends when the driver drops its sender.
        tokio::spawn(feed(input_queue, orders));
        Ok(Pipes {
            input,
            output: output_queue,
        })
    }

    /// Sends a signal to Claude's process; nothing happens where none runs.
    pub async fn signal_claude(&self, signal: Signal) -> Result<(), Error> {
        self.send(Order::ClaudeSignal(signal)).await
    }

    /// Commits what is uncommitted, if anything, and pushes the task's branch.
    pub async fn publish(&self, message: impl Into<String>) -> Result<Published, Error> {
        let message = message.into();
        match self.request(Request::Publish { message }).await? {
            Reply::Published(published) if is_sha(&published.head_sha) => Ok(published),
            _ => Err(Error::Nonsense("publish")),
        }
    }

    /// From now on the harness pushes (or not) whenever the task's branch moved. Off at the start.
    pub async fn auto_push(&self, on: bool) -> Result<(), Error> {
        self.send(Order::AutoPush { on }).await
    }

    /// How the task's branch differs from the base.
    pub async fn diffstat(&self) -> Result<Diffstat, Error> {
        match self.request(Request::Diffstat).await? {
            Reply::Diffstat(diffstat) => Ok(diffstat),
            _ => Err(Error::Nonsense("diffstat")),
        }
    }

    /// Merges the base branch, as it is now, into the task's branch. Files that conflict are left so in the work tree.
    pub async fn merge_base(&self) -> Result<Vec<String>, Error> {
        match self.request(Request::MergeBase).await? {
            Reply::Merged { conflicts } => Ok(paths(conflicts)),
            _ => Err(Error::Nonsense("merge the base")),
        }
    }

    /// How far the merge is.
    pub async fn merge_state(&self) -> Result<MergeState, Error> {
        match self.request(Request::MergeState).await? {
            Reply::MergeState(state) => Ok(MergeState {
                unresolved: paths(state.unresolved),
                ..state
            }),
            _ => Err(Error::Nonsense("look at the merge")),
        }
    }

    /// Ends what is under way and every process in the sandbox but the harness; returns how many there were.
    pub async fn end_step(&self) -> Result<usize, Error> {
        match self.request(Request::EndStep).await? {
            Reply::StepEnded { killed } => Ok(killed),
            _ => Err(Error::Nonsense("end the step")),
        }
    }

    /// Looks around from inside; for the probe and tests.
    pub async fn inspect(&self, inspect: Inspect) -> Result<Inspection, Error> {
        match self.request(Request::Inspect(inspect)).await? {
            Reply::Inspection(inspection) => Ok(inspection),
            _ => Err(Error::Nonsense("inspect")),
        }
    }

    /// Asks the harness to end itself and everything with it. See `Running::end`, which also waits.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.send(Order::Shutdown).await
    }

    /// Returns when the connection is gone, with the reason.
    pub async fn closed(&self) -> String {
        let mut closed = self.inner.shared.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    async fn send(&self, order: Order) -> Result<(), Error> {
        let sent = self.inner.orders.send(Frame::Message(order)).await;
        sent.map_err(|_| self.inner.shared.gone())
    }

    async fn request(&self, request: Request) -> Result<Reply, Error> {
        let shared = &self.inner.shared;
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        {
            // Under the lock, so that a connection that closes now either sees this entry or is seen here.
            let mut state = shared.state();
            if shared.closed.borrow().is_some() {
                return Err(shared.gone());
            }
            state.pending.insert(id, reply);
        }
        // A caller that goes away takes its entry with it.
        let entry = Pending { shared, id };
        self.send(Order::Request { id, request }).await?;
        let answered = answer.await;
        drop(entry);
        match answered {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => Err(Error::Failed(failure)),
            Err(_) => Err(shared.gone()),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> Error {
        let reason = self.closed.borrow().clone();
        Error::Closed(reason.unwrap_or_else(|| "the connection closed".into()))
    }

    fn close(&self, reason: String) {
        let mut state = self.state();
        self.closed.send_replace(Some(reason));
        *state = State::default();
    }
}

struct Pending<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.shared.state().pending.remove(&self.id);
    }
}

async fn write(
    mut orders: mpsc::Receiver<Frame<Order>>,
    mut sink: FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
) {
    while let Some(frame) = orders.recv().await {
        let sent = match frame.encode() {
            Ok(bytes) => sink.send(bytes).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "an order did not reach the harness");
            // A line that is too long is the driver's mistake, and ends nothing.
            if error.kind() != std::io::ErrorKind::InvalidInput {
                return;
            }
        }
    }
}

async fn read(
    mut frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    shared: Arc<Shared>,
    notices: mpsc::Sender<Notice>,
) {
    let reason = loop {
        let bytes = match frames.next().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => break format!("reading from it failed: {error}"),
            None => break "it closed the connection".to_owned(),
        };
        let handled = match Frame::<Report>::decode(&bytes) {
            Ok(frame) => handle(frame, &shared, &notices),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = handled {
            break reason;
        }
    };
    shared.close(reason);
}

fn handle(
    frame: Frame<Report>,
    shared: &Shared,
    notices: &mpsc::Sender<Notice>,
) -> Result<(), String> {
    let notice = match frame {
        Frame::Line(line) => return output(shared, line.len(), Output::Line(line)),
        Frame::Stderr(line) => return output(shared, line.len(), Output::Stderr(line)),
        Frame::Message(Report::ClaudeExited { code, signal }) => {
            if let Some(claude) = shared.state().claude.take() {
                let _ = claude.send(Output::Exited { code, signal });
            }
            return Ok(());
        }
        Frame::Message(Report::Reply { id, outcome }) => {
            // An unknown id is a caller that went away.
            if let Some(caller) = shared.state().pending.remove(&id) {
                let _ = caller.send(outcome.map_err(bounded));
            }
            return Ok(());
        }
        Frame::Message(Report::Hello(_)) => return Err("it said hello twice".into()),
        Frame::Message(Report::SetupOutput(line)) => Notice::SetupOutput(cut(line)),
        Frame::Message(Report::Pushed { head_sha }) if is_sha(&head_sha) => {
            Notice::Pushed { head_sha }
        }
        Frame::Message(Report::Pushed { .. }) => {
            return Err("it pushed something that is no commit".into());
        }
        Frame::Message(Report::PushFailed(failure)) => Notice::PushFailed(bounded(failure)),
    };
    let _ = notices.try_send(notice);
    Ok(())
}

/// Hands a line on, within the window.
fn output(shared: &Shared, bytes: usize, output: Output) -> Result<(), String> {
    let cost = bytes + LINE_COST;
    if shared.outstanding.fetch_add(cost, Ordering::Relaxed) + cost > WINDOW {
        return Err("it sent more of Claude's output than it may".into());
    }
    match &shared.state().claude {
        // Where `deliver` is gone the channel closes, and with it all of this.
        Some(claude) => {
            let _ = claude.send(output);
            Ok(())
        }
        None => Err("it sent output while no Claude runs".into()),
    }
}

async fn feed(mut input: mpsc::Receiver<String>, orders: mpsc::Sender<Frame<Order>>) {
    while let Some(line) = input.recv().await {
        if orders.send(Frame::Line(line)).await.is_err() {
            return;
        }
    }
    let _ = orders.send(Frame::Message(Order::ClaudeEof)).await;
}

async fn deliver(
    mut lines: mpsc::UnboundedReceiver<Output>,
    output: mpsc::Sender<Output>,
    orders: mpsc::WeakSender<Frame<Order>>,
    shared: Arc<Shared>,
) {
    while let Some(line) = lines.recv().await {
        let cost = match &line {
            Output::Line(text) | Output::Stderr(text) => text.len() + LINE_COST,
            Output::Exited { .. } => 0,
        };
        // A consumer that went away loses the rest; Claude must not stop on a full pipe for it.
        let _ = output.send(line).await;
        if cost > 0 {
            shared.outstanding.fetch_sub(cost, Ordering::Relaxed);
            let Some(orders) = orders.upgrade() else {
                return;
            };
            if orders
                .send(Frame::Message(Order::Credit { bytes: cost }))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

fn is_sha(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names of files, as many and as long as make sense.
fn paths(paths: Vec<String>) -> Vec<String> {
    paths
        .into_iter()
        .take(MergeState::MAX_PATHS)
        .map(cut)
        .collect()
}

fn bounded(failure: Failure) -> Failure {
    Failure {
        what: cut(failure.what),
        code: failure.code,
        detail: cut(failure.detail),
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}
