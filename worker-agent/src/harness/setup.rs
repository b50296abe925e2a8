//! Setup commands: what the repository's owner says must run before work can start.

use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::children::{Children, wait};
use super::environment::Places;
use crate::channel::{Failure, Frame, Report, Setup};

/// How much of the end of the output goes into a failure.
const TAIL: usize = 8 * 1024;
/// How long output may go on after the shell ended.
const DRAIN_WITHIN: Duration = Duration::from_millis(500);
/// Longer lines are cut.
const LINE: u64 = 4 * 1024;

/// Runs the commands in order; the first failure ends it.
pub(super) async fn run(
    children: &Children,
    places: &Places,
    setup: Setup,
    reports: &mpsc::Sender<Frame<Report>>,
) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(setup.timeout_seconds);
    let shell = if std::path::Path::new("/bin/bash").exists() {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    for line in &setup.commands {
        let mut command = places.command(shell);
        // One stream, so that errors stand beside what they belong to.
        command
            .args(["-c", "exec 2>&1; eval \"$1\"", "setup", line])
            .envs(&setup.env);
        let mut child = children
            .start(&mut command)
            .map_err(|error| Failure::new(line, error.to_string()))?;
        drop(child.stdin);
        let mut tail = String::new();
        let done = {
            let output = show(&mut child.stdout, &mut tail, reports);
            tokio::pin!(output);
            let work = async {
                tokio::select! {
                    () = &mut output => wait(&mut child.exit).await,
                    exit = wait(&mut child.exit) => {
                        // What is still in the pipe belongs to it; a daemon that holds the pipe open does not.
                        let _ = timeout(DRAIN_WITHIN, &mut output).await;
                        exit
                    }
                }
            };
            timeout_at(until, work).await
        };
        let Ok(exit) = done else {
            let _ = signal::killpg(Pid::from_raw(child.pid), Signal::SIGKILL);
            let limit = setup.timeout_seconds;
            return Err(Failure::new(
                line,
                format!("not done after {limit} s\n{tail}"),
            ));
        };
        if !exit.ok() {
            let detail = match exit.signal {
                Some(signal) => format!("ended by signal {signal}\n{tail}"),
                None => tail,
            };
            return Err(Failure {
                what: line.clone(),
                code: exit.code,
                detail,
            });
        }
    }
    Ok(())
}

async fn show(
    stream: &mut (impl AsyncRead + Unpin),
    tail: &mut String,
    reports: &mpsc::Sender<Frame<Report>>,
) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line);
        tail.push_str(&text);
        if tail.len() > 2 * TAIL {
            let start = tail.ceil_char_boundary(tail.len() - TAIL);
            tail.drain(..start);
        }
        let text = text.trim_end_matches('\n').to_owned();
        if reports
            .send(Frame::Message(Report::SetupOutput(text)))
            .await
            .is_err()
        {
            return;
        }
    }
}
