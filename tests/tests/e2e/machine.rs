//! What a worker takes of the machine: too much memory, too many processes, too much disk.

use anyhow::{Context, Result, ensure};
use mainloop_proto::v1::{FailureReason, GetStatusRequest, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Script, call},
    world::{Settings, Task, World, script, wait},
};

/// Takes two gigabytes, and touches them.
const HOG: &str = "python3 -c 'x = bytearray(2 << 30)'";

/// A day on which the implementation begins with a command, whose reply may be followed by a gate.
fn beginning_with(command: &str, gate: Option<&Gate>) -> Script {
    let mut next = Reply::call(call::bash("true"));
    if let Some(gate) = gate {
        next = next.held_by(gate);
    }
    script::working(
        "takes too much",
        vec![
            Reply::call(call::bash(command)),
            next,
            Reply::call(script::subtract(true)),
            Reply::text("Subtract is there."),
        ],
    )
}

async fn world(script: Script, worker: &str) -> Result<World> {
    World::with(Settings::script(script).policy(&format!("worker = {{ {worker} }}"))).await
}

/// Says that this host gives this user no control groups: what needs them is left out then, and only then.
const NO_GROUPS: &str = "MAINLOOP_TESTS_NO_CGROUPS";

/// The task's log, with whether the worker's memory is bounded on this host for this user.
async fn log(world: &World, task: &Task) -> Result<(String, bool)> {
    let log = world.cli(&["task", "logs", &task.short_id]).await?.stdout;
    let limits = log.lines().find(|line| line.contains("limits: "));
    let limits = limits.with_context(|| format!("the log does not say the limits: {log}"))?;
    let is_bounded = limits.contains("memory 900 MiB");
    ensure!(
        is_bounded || limits.contains("memory is not limited"),
        "{limits}"
    );
    ensure!(
        is_bounded || std::env::var_os(NO_GROUPS).is_some(),
        "a worker's memory cannot be bounded here, so these stories show nothing: {limits}. Run them where control \
         groups can be made, or say by {NO_GROUPS}=1 that there are none for this user"
    );
    Ok((log.clone(), is_bounded))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_takes_too_much_memory_is_killed_and_claude_is_told() -> Result<()> {
    let script = beginning_with(&format!("{HOG}; echo ended with $?"), None);
    let world = world(script, "memory_mib = 900").await?;
    let task = world.approved(&script::calculator()).await?;
    task.expect_state(TaskState::Ready).await?;
    let (log, is_bounded) = log(&world, &task).await?;
    let words = "the worker reached its memory limit of 900 MiB, and the kernel ended one process";
    assert_eq!(log.contains(words), is_bounded, "{log}");
    let told = world.model().told(words) > 0;
    assert_eq!(told, is_bounded, "it is in a later request");
    let code = if is_bounded { 137 } else { 0 };
    let outcomes = world.model().outcomes("Bash");
    assert!(
        outcomes
            .iter()
            .any(|outcome| outcome.text.contains(&format!("ended with {code}"))),
        "{outcomes:?}"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claude_that_is_killed_for_want_of_memory_is_told_as_that() -> Result<()> {
    // The kernel is told to take Claude Code first.
    let first = "for p in /proc/[0-9]*; do grep -q [s]tream-json $p/cmdline && echo 1000 > $p/oom_score_adj; done";
    // Each of these is smaller than it.
    let small = "for i in $(seq 20); do python3 -c 'import time; x = bytearray(100 << 20); time.sleep(1000)' & done; wait";
    let script = beginning_with(&format!("{first}; {small}"), None);
    let world = world(script, "memory_mib = 900").await?;
    let task = world.begin(&script::calculator()).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    let (_, is_bounded) = log(&world, &task).await?;
    if !is_bounded {
        // Nothing but the machine's own end would show it.
        task.cancel().await?;
        return world.end().await;
    }
    task.approve().await?;
    let item = task.expect_stuck(FailureReason::OutOfMemory).await?;
    assert!(
        item.seen.body.contains("memory limit of 900 MiB")
            && item.seen.body.contains("worker.memory_mib"),
        "{}",
        item.seen.body
    );
    item.reject("as expected").await?;
    world.expect_no_worker().await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_grows_without_end_ends_the_worker() -> Result<()> {
    let fill = "for i in 1 2 3 4; do head -c 40M /dev/urandom > /work/big$i; done; sleep 86397";
    let world = world(beginning_with(fill, None), "disk_mib = 128").await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::DiskLimit).await?;
    assert!(
        item.seen.body.contains("may hold 128 MiB"),
        "{}",
        item.seen.body
    );
    item.reject("as expected").await?;
    world.expect_no_worker().await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_ends_before_the_disk_is_full() -> Result<()> {
    // A petabyte is not there.
    let world = world(script::good_day(), "free_disk_mib = 1073741824").await?;
    let task = world.begin(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::Disk).await?;
    assert!(
        item.seen.body.contains("are free where workers live"),
        "{}",
        item.seen.body
    );
    item.reject("as expected").await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_forks_without_end_ends_with_its_task() -> Result<()> {
    let gate = Gate::closed();
    let bomb = "setsid -f python3 -c 'import os, time
while True:
    try: os.fork()
    except OSError: time.sleep(0.05)' </dev/null >/dev/null 2>&1";
    // Without a fork, for which there is no room then.
    let full = "until set -- /proc/[0-9]*; test $# -gt 150; do :; done";
    let script = beginning_with(&format!("{bomb}; {full}"), Some(&gate));
    let world = world(script, "processes = 300").await?;
    let task = world.approved(&script::calculator()).await?;
    gate.reached().await?;
    let count = world.worker_processes().len();
    ensure!((150..=300).contains(&count), "{count} processes");
    world
        .client()
        .access()
        .get_status(GetStatusRequest {})
        .await
        .context("the plane does not answer")?;
    let groups = world.control_groups();
    task.cancel().await?;
    world.expect_no_worker().await?;
    ensure!(!groups.iter().any(|group| group.exists()), "{groups:?}");
    gate.open();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_leaves_no_control_group() -> Result<()> {
    let gate = Gate::closed();
    let world = world(beginning_with("true", Some(&gate)), "memory_mib = 900").await?;
    let task = world.approved(&script::calculator()).await?;
    gate.reached().await?;
    let (_, is_bounded) = log(&world, &task).await?;
    let groups = world.control_groups();
    ensure!(
        groups.iter().any(|group| group.is_dir()) == is_bounded,
        "{groups:?}"
    );
    world.kill_agents()?;
    wait::until(
        "the groups to be removed",
        wait::PATIENCE,
        async || match groups.iter().find(|group| group.exists()) {
            None => Ok(()),
            Some(group) => Err(format!("{} is there", group.display())),
        },
    )
    .await?;
    gate.open();
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}
