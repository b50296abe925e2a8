//! The machine's own trouble: it sleeps, its database dies, or it cannot take a plane at all.

use std::{net::TcpListener, path::Path, time::Duration};

use anyhow::{Context, Result};
use mainloop_proto::v1::TaskState;
use mainloop_tests::{
    anthropic::{Conversation, Gate, Reply, Rule, Script, call, when},
    world::{
        Task, World,
        binaries::{self, binary},
        plane::passed_on,
        processes, script,
        wait::PATIENCE,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Command;

/// Longer than a worker may be out of touch in a test's policy, and longer than the plane's lease.
const NIGHT: Duration = Duration::from_secs(12);

/// A task in the middle of its work, whose model waits at the gate.
async fn in_the_middle(world: &World) -> Result<Task> {
    let repo = world.repo("calc", &script::calculator())?;
    let task = world
        .submit(&repo, "Teach the calculator to subtract.")
        .await?;
    task.approve().await?;
    task.expect_state(TaskState::Implementing).await?;
    Ok(task)
}

fn held_in_the_work() -> (Gate, Script) {
    let gate = Gate::closed();
    let script = Script::new().with(Conversation::rules(
        "held in the work",
        when::always(),
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(
                when::prompt(script::IMPLEMENT),
                vec![
                    Reply::call(script::subtract(true)),
                    Reply::call(call::bash("cat calc.py")).held_by(&gate),
                    Reply::text("Subtract is there."),
                ],
            ),
        ],
    ));
    (gate, script)
}

/// Ready, with one pull request and one issue.
async fn comes_to_its_end(world: &World, task: &Task) -> Result<()> {
    task.expect_state(TaskState::Ready).await?;
    world.expect_no_worker().await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert_eq!((repo.pulls().count(), repo.issues.len()), (1, 2));
    });
    task.check_watch()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sleeps_for_a_night_goes_on_where_it_was() -> Result<()> {
    let (gate, script) = held_in_the_work();
    let world = World::scripted(script).await?;
    let task = in_the_middle(&world).await?;
    gate.reached().await?;
    // The plane, PostgreSQL, workers with all that they run: as a lid that is closed stops them.
    let asleep = processes::of(world.folder());
    assert!(asleep.len() > 5, "{asleep:?}");
    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
        for process in &asleep {
            // What has ended meanwhile needs no signal.
            let _ = kill(Pid::from_raw(process.pid), signal);
        }
        if signal == Signal::SIGSTOP {
            tokio::time::sleep(NIGHT).await;
        }
    }
    gate.open();
    comes_to_its_end(&world, &task).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_comes_back_and_nothing_is_lost() -> Result<()> {
    let (gate, script) = held_in_the_work();
    let world = World::scripted(script).await?;
    let task = in_the_middle(&world).await?;
    gate.reached().await?;
    let data = world.data().join("postgres/data").display().to_string();
    let servers: Vec<_> = processes::of(world.folder())
        .into_iter()
        .filter(|process| process.command.contains(&data))
        .collect();
    assert!(!servers.is_empty());
    for server in &servers {
        let _ = kill(Pid::from_raw(server.pid), Signal::SIGKILL);
    }
    gate.open();
    comes_to_its_end(&world, &task).await?;
    assert_eq!(task.now().attempt, 1, "the worker waited for it");
    world.end().await
}

/// Runs `mainloop up` until it gives up. What it said.
async fn up(data: &Path, more: &[&str]) -> Result<(i32, String)> {
    let ran = Command::new(binary(binaries::CLI)?)
        .arg("up")
        .arg("--data-dir")
        .arg(data)
        .args(more)
        .env_clear()
        .envs(passed_on())
        .env("GITHUB_TOKEN", "a-token")
        .env("ANTHROPIC_API_KEY", "a-key")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, ran)
        .await
        .context("a plane that cannot start did not end")??;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_that_cannot_start_says_why_and_leaves_nothing_running() -> Result<()> {
    let world = World::new().await?;
    let folder = world.folder();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let file = folder.join("a-file");
    std::fs::write(&file, "")?;
    // Processes are found by the name of their folder.
    let named = |name: &str| {
        let own = folder.file_name().unwrap_or_default().to_string_lossy();
        folder.join(format!("{own}-{name}"))
    };
    let older = named("older");
    std::fs::create_dir_all(older.join("postgres/data"))?;
    std::fs::write(older.join("postgres/data/PG_VERSION"), "9\n")?;
    let fresh = named("fresh");
    let long = folder.join("x".repeat(100));
    for (data, more, code, words) in [
        (world.data(), &[][..], 1, "another plane runs on"),
        (&fresh, &["--listen", &address], 1, "could not listen on"),
        (&file, &[], 1, "could not make"),
        (Path::new("/proc/mainloop"), &[], 1, "could not make"),
        (Path::new("relative"), &[], 2, "is not an absolute path"),
        (&older, &[], 1, "was written by PostgreSQL 9"),
        (&long, &[], 1, "choose a shorter data folder"),
    ] {
        let (ended, said) = up(data, more).await?;
        assert_eq!(ended, code, "{}: {said}", data.display());
        assert!(said.contains(words), "{}: {said}", data.display());
    }
    for left in [&fresh, &older] {
        processes::expect_none(left).await?;
    }
    world.end().await
}
