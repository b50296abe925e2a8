//! Claude Code's process: its pipes, line by line, within the sidecar's window.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::children::{Children, Started, wait};
use super::environment::Places;
use crate::channel::{Failure, Frame, LINE_COST, MAX_LINE, Report, Signal, StartClaude};

/// Lines for stdin that Claude has not read. It reads at once; when full, it hangs, and further lines are refused.
const INPUT: usize = 256;
/// How long output may go on after the process ended.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// A started Claude Code.
pub(super) struct Claude {
    pid: i32,
    input: Option<mpsc::Sender<String>>,
    work: JoinHandle<()>,
}

impl Claude {
    /// Writes the files and starts the process. `window` is what its output may take.
    pub(super) fn start(
        children: &Children,
        places: &Places,
        order: &StartClaude,
        window: Arc<Semaphore>,
        reports: mpsc::Sender<Frame<Report>>,
    ) -> Result<Self, Failure> {
        let what = format!("start {}", order.program);
        for (path, content) in &order.files {
            let written = write_under(&places.claude_config, path, content);
            written.map_err(|error| Failure::new(&what, format!("write {path}: {error}")))?;
        }
        let mut command = places.command(&order.program);
        let started = children.start(command.args(&order.args).envs(&order.env));
        let child = started.map_err(|error| Failure::new(&what, error.to_string()))?;
        let pid = child.pid;
        let (input, lines) = mpsc::channel(INPUT);
        let work = tokio::spawn(attend(child, lines, window, reports));
        Ok(Self {
            pid,
            input: Some(input),
            work,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// It ended, and its end was reported.
    pub(super) fn ended(&self) -> bool {
        self.work.is_finished()
    }

    /// Waits for that.
    pub(super) async fn end(&mut self) {
        let _ = (&mut self.work).await;
    }

    /// One line for its stdin; false where it does not read.
    pub(super) fn input(&self, line: String) -> bool {
        match &self.input {
            Some(input) => !matches!(
                input.try_send(line),
                Err(mpsc::error::TrySendError::Full(_))
            ),
            None => true,
        }
    }

    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    pub(super) fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Interrupt => signal::SIGINT,
            Signal::Terminate => signal::SIGTERM,
            Signal::Kill => signal::SIGKILL,
        };
        // Its pid may be gone, and taken by another only after the whole range; a child's at worst.
        if !self.ended() {
            let _ = signal::kill(Pid::from_raw(self.pid), signal);
        }
    }
}

async fn attend(
    child: Started,
    lines: mpsc::Receiver<String>,
    window: Arc<Semaphore>,
    reports: mpsc::Sender<Frame<Report>>,
) {
    let Started {
        stdin,
        stdout,
        stderr,
        mut exit,
        ..
    } = child;
    let mut feeding = JoinSet::new();
    feeding.spawn(feed(stdin, lines));
    let exit = {
        let output = async {
            tokio::join!(
                pass(stdout, Frame::Line, &window, &reports),
                pass(stderr, Frame::Stderr, &window, &reports)
            )
        };
        tokio::pin!(output);
        let done = tokio::select! {
            _ = &mut output => None,
            exit = wait(&mut exit) => Some(exit),
        };
        match done {
            None => wait(&mut exit).await,
            Some(exit) => {
                // While the sidecar takes no lines this waits: nothing that was printed may be lost for that.
                while timeout(DRAIN_WITHIN, &mut output).await.is_err() {
                    if window.available_permits() > MAX_LINE + LINE_COST {
                        break;
                    }
                }
                exit
            }
        }
    };
    drop(feeding);
    let (code, signal) = (exit.code, exit.signal);
    let _ = reports
        .send(Frame::Message(Report::ClaudeExited { code, signal }))
        .await;
}

async fn feed(mut stdin: ChildStdin, mut lines: mpsc::Receiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if stdin.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Passes a stream on, line by line, until it ends.
async fn pass(
    stream: impl AsyncRead + Unpin,
    frame: fn(String) -> Frame<Report>,
    window: &Semaphore,
    reports: &mpsc::Sender<Frame<Report>>,
) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader)
            .take(MAX_LINE as u64 + 1)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let next = if line.len() > MAX_LINE {
            let more = skip_line(&mut reader).await;
            let bytes = line.len() + more;
            Frame::Stderr(format!(
                "mainloop: a line of {bytes} bytes was dropped, {MAX_LINE} is the limit"
            ))
        } else {
            frame(text(&line))
        };
        let (Frame::Line(sent) | Frame::Stderr(sent)) = &next else {
            return;
        };
        let Ok(cost) = u32::try_from(sent.len() + LINE_COST) else {
            return;
        };
        let Ok(permit) = window.acquire_many(cost).await else {
            return;
        };
        // Given back by the sidecar, as credit.
        permit.forget();
        if reports.send(next).await.is_err() {
            return;
        }
        // One long line must not hold its memory for the rest of the run.
        line.shrink_to(64 * 1024);
    }
}

/// The line as text; what is no UTF-8 is replaced, and cut so that the replacements do not exceed the limit.
fn text(line: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(line).into_owned();
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text
}

async fn skip_line(reader: &mut (impl AsyncBufReadExt + Unpin)) -> usize {
    let mut skipped = 0;
    loop {
        let (step, done) = match reader.fill_buf().await {
            Ok([]) | Err(_) => return skipped,
            Ok(buffer) => match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            },
        };
        reader.consume(step);
        skipped += step;
        if done {
            return skipped;
        }
    }
}

fn write_under(folder: &std::path::Path, path: &str, content: &str) -> std::io::Result<()> {
    use std::path::{Component, Path};

    if !Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(std::io::Error::other(
            "not a path under the configuration folder",
        ));
    }
    let target = folder.join(path);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(target, content)
}
