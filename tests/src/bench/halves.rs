//! What both halves of real workers hold in memory while a plan, made by the real Claude Code CLI, waits for a person.

use std::path::Path;

use anyhow::{Context, Result};
use mainloop_proto::v1::InboxItemKind;

use super::{
    figure::Row,
    memory::{self, Memory},
};
use crate::world::{World, processes, script};

/// Brings one task after another to its plan.
pub(super) async fn measure(rounds: usize) -> Result<Vec<Row>> {
    let world = World::new().await?;
    let repository = world.repo("calculator", &script::calculator())?;
    let (mut sidecars, mut harnesses) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let task = world.submit(&repository, "Add subtract.").await?;
        task.expect_item(InboxItemKind::Plan).await?;
        let workers = world.workers();
        let worker = workers.first().context("the worker has a folder")?;
        sidecars.push(Memory::at_rest(half(worker, "sidecar")?).await?);
        harnesses.push(Memory::at_rest(half(worker, "harness")?).await?);
        task.cancel().await?;
        world.expect_no_worker().await?;
    }
    world.end().await?;
    let mut rows = memory::rows("idle sidecar, a plan made", &sidecars, 10.0);
    rows.extend(memory::rows("idle harness, a plan made", &harnesses, 10.0));
    Ok(rows)
}

/// The process of one half. The sandbox's own processes have its arguments too, but not its name.
fn half(worker: &Path, name: &str) -> Result<i32> {
    let all = processes::of(worker);
    let found = all.iter().find(|process| {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid));
        let ours = comm.is_ok_and(|comm| !comm.starts_with("bwrap"));
        ours && process.command.split(' ').nth(1) == Some(name)
    });
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    found
        .map(|process| process.pid)
        .with_context(|| format!("no {name} among:\n{}", lines.join("\n")))
}
