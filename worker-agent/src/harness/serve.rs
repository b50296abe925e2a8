//! The harness's life: connect, say hello, carry out orders, end with the channel.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedWrite, LengthDelimitedCodec};

use super::Options;
use super::children::Children;
use super::claude::Claude;
use super::environment::Places;
use super::forward::Forward;
use super::jobs::Jobs;
use crate::channel::socket;
use crate::channel::{
    self, Failure, Frame, Hello, Order, Reply, Report, Request, StartClaude, WINDOW,
};

/// Reports under way to the socket. Few: a full queue stops whoever reports, up to Claude's stdout.
const REPORTS: usize = 32;
/// How often the task's branch is looked at while pushing by itself is on.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the end of Claude's output may take after everything was killed.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Why the harness cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process cannot be set up.
    #[error("{what}")]
    Start {
        what: &'static str,
        source: io::Error,
    },
    /// The sidecar is not there.
    #[error("connect to the sidecar's socket {path}")]
    Connect { path: PathBuf, source: io::Error },
    /// The channel broke.
    #[error("read an order: {0}")]
    Order(String),
}

/// Runs the harness until the sidecar ends it. Everything that it started is gone when this returns.
pub async fn run(options: Options) -> Result<(), Error> {
    let start = |what| move |source| Error::Start { what, source };
    if options.own_session {
        nix::unistd::setsid().map_err(|error| start("make a session of its own")(error.into()))?;
    }
    // Where it is not PID 1, orphans come here all the same.
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|error| start("become a subreaper")(error.into()))?;

    if let Some(most) = options.processes {
        // Set in here, it counts what is in here.
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NPROC, most, most)
            .map_err(|error| start("bound the processes")(error.into()))?;
    }

    // What runs here has the same uid; it must not reach into this process, whose channel is not for it.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|error| start("close its memory")(error.into()))?;

    let children = Children::default();
    let forward = Forward::bind(options.port, &options.proxy)
        .await
        .map_err(start("listen on the loopback"))?;
    let port = forward.port().map_err(start("listen on the loopback"))?;
    let places = Places::make(&options.work, port).map_err(start("make its folders"))?;

    let stream = socket::connect(&options.control)
        .await
        .map_err(|source| Error::Connect {
            path: options.control.clone(),
            source,
        })?;
    let (read, write) = stream.into_split();
    let mut frames = channel::reader(read);
    let (reports, queue) = mpsc::channel(REPORTS);
    let mut background = JoinSet::new();
    background.spawn(send(queue, channel::writer(write)));
    background.spawn(end_logged("forwarding", forward.run()));
    background.spawn(end_logged("reaping", children.clone().reap_always()));

    let mut harness = Served {
        jobs: Jobs::new(children.clone(), places.clone(), reports.clone()),
        children,
        places,
        reports,
        claude: None,
        window: Arc::new(Semaphore::new(WINDOW)),
        auto_push: false,
    };
    harness.hello().await;

    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            frame = frames.next() => match frame {
                None => break Ok(()),
                Some(Err(error)) => break Err(Error::Order(error.to_string())),
                Some(Ok(bytes)) => match Frame::<Order>::decode(&bytes) {
                    Err(error) => break Err(Error::Order(error.to_string())),
                    Ok(Frame::Message(Order::Shutdown)) => break Ok(()),
                    Ok(frame) => harness.order(frame).await,
                },
            },
            _ = look.tick(), if harness.auto_push => harness.jobs.push(),
            // The writer ends when the sidecar is gone.
            Some(_) = background.join_next() => break Ok(()),
        }
    };
    harness.jobs.abort().await;
    if let Err(error) = harness.children.kill_all().await {
        tracing::warn!(%error, "ending what runs failed");
    }
    ended
}

struct Served {
    children: Children,
    places: Places,
    jobs: Jobs,
    reports: mpsc::Sender<Frame<Report>>,
    claude: Option<Claude>,
    window: Arc<Semaphore>,
    auto_push: bool,
}

impl Served {
    async fn hello(&self) {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            port: self.places.port,
            repository: text(&self.places.repository),
            home: text(&self.places.home),
            claude_config: text(&self.places.claude_config),
        };
        self.report(Report::Hello(hello)).await;
    }

    async fn order(&mut self, frame: Frame<Order>) {
        match frame {
            Frame::Line(line) => {
                if self
                    .claude
                    .as_ref()
                    .is_some_and(|claude| !claude.input(line))
                {
                    tracing::warn!(
                        "a line for Claude Code was dropped: it does not read its input"
                    );
                }
            }
            Frame::Stderr(_) => {}
            Frame::Message(Order::Request { id, request }) => match request {
                Request::StartClaude(order) => self.start_claude(id, &order).await,
                Request::EndStep => {
                    let outcome = self
                        .end_step()
                        .await
                        .map(|killed| Reply::StepEnded { killed });
                    self.reply(id, outcome).await;
                }
                request => self.jobs.start(id, request).await,
            },
            Frame::Message(Order::ClaudeEof) => {
                if let Some(claude) = &mut self.claude {
                    claude.close_input();
                }
            }
            Frame::Message(Order::ClaudeSignal(signal)) => {
                if let Some(claude) = &self.claude {
                    claude.signal(signal);
                }
            }
            Frame::Message(Order::Credit { bytes }) => self.window.add_permits(bytes.min(WINDOW)),
            Frame::Message(Order::AutoPush { on }) => self.auto_push = on,
            // Taken by the loop that calls this.
            Frame::Message(Order::Shutdown) => {}
        }
    }

    async fn start_claude(&mut self, id: u64, order: &StartClaude) {
        if self.claude.as_ref().is_some_and(|claude| !claude.ended()) {
            let failure = Failure::new("start Claude Code", "it runs already");
            return self.reply(id, Err(failure)).await;
        }
        let window = Arc::clone(&self.window);
        match Claude::start(
            &self.children,
            &self.places,
            order,
            window,
            self.reports.clone(),
        ) {
            // Nothing is read from it before this returns: the reply stands before its first line.
            Ok(claude) => {
                let pid = claude.pid();
                self.claude = Some(claude);
                self.reply(id, Ok(Reply::ClaudeStarted { pid })).await;
            }
            Err(failure) => self.reply(id, Err(failure)).await,
        }
    }

    async fn end_step(&mut self) -> Result<usize, Failure> {
        self.jobs.abort().await;
        let killed = self.children.kill_all().await;
        if let Some(mut claude) = self.claude.take()
            && timeout(END_WITHIN, claude.end()).await.is_err()
        {
            tracing::warn!("the end of Claude Code's output is not taken");
            self.claude = Some(claude);
        }
        killed.map_err(|error| Failure::new("end the step", error.to_string()))
    }

    async fn reply(&self, id: u64, outcome: Result<Reply, Failure>) {
        self.report(Report::Reply { id, outcome }).await;
    }

    async fn report(&self, report: Report) {
        // Fails only when the sidecar is gone, and then the loop ends.
        let _ = self.reports.send(Frame::Message(report)).await;
    }
}

async fn send(
    mut reports: mpsc::Receiver<Frame<Report>>,
    mut sink: FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
) {
    while let Some(frame) = reports.recv().await {
        let sent = match frame.encode() {
            Ok(bytes) => sink.send(bytes).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a report did not reach the sidecar");
            return;
        }
    }
}

async fn end_logged(what: &'static str, work: impl Future<Output = io::Result<()>>) {
    if let Err(error) = work.await {
        tracing::error!(%error, "{what} ended");
    }
}
