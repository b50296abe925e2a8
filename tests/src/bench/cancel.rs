//! From a cancel to the end of the last process of its worker, which is in the middle of a command that is deaf to
//! signals: as it is, and with an agent that does nothing about it.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::figure::{Row, Unit, milliseconds};
use crate::{
    anthropic::{Reply, call},
    world::{World, script, wait},
};

/// Nobody waits longer for a worker that is no longer wanted.
const LIMIT: Duration = Duration::from_secs(5);

/// Cancels one task after another.
pub(super) async fn measure(rounds: usize) -> Result<Vec<Row>> {
    let deaf = "trap '' TERM INT HUP QUIT; while :; do sleep 86396; done";
    let replies = vec![Reply::call(call::bash(deaf))];
    let world = World::scripted(script::working("deaf", replies)).await?;
    let repository = world.repo("calculator", &script::calculator())?;
    let mut rows = Vec::new();
    for (name, signal) in [
        ("cancel to the end of its worker", None),
        ("the same with a stopped agent", Some(Signal::SIGSTOP)),
    ] {
        let mut seen = Vec::new();
        for _ in 0..rounds {
            let task = world.submit(&repository, script::TASK).await?;
            task.approve().await?;
            wait::until("the command to run", wait::PATIENCE, async || {
                let all = world.worker_processes();
                let mut commands = all.iter().map(|found| &found.command);
                let runs = commands.any(|command| command.starts_with("sleep 86396"));
                runs.then_some(()).ok_or("it does not")
            })
            .await?;
            if let Some(signal) = signal {
                world.signal_agents(signal)?;
            }
            let began = Instant::now();
            task.cancel().await?;
            world.expect_no_worker().await?;
            seen.push(milliseconds(began.elapsed()));
        }
        rows.push(Row::plain(name, Unit::Milliseconds, seen).at_most(milliseconds(LIMIT)));
    }
    world.end().await?;
    Ok(rows)
}
