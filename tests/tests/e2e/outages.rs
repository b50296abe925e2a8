//! The machine's own trouble: it sleeps, its clock jumps, its disk is full, its terminal goes away, its database dies or
//! stops, the code host falls silent, or it cannot take a plane at all.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use mainloop_proto::v1::{CreateTaskRequest, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, Script, call},
    github::{Fault, FaultKind},
    world::{
        PERSON, Settings, Task, World,
        binaries::{self, binary},
        plane::{From, passed_on},
        processes, script,
        wait::{PATIENCE, until},
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::process::Command;
use tonic::Code;
use uuid::Uuid;

/// Longer than a worker may be out of touch in a test's policy, and longer than the plane's lease.
const NIGHT: Duration = Duration::from_secs(12);

/// A task in the middle of its work, whose model waits at the gate.
async fn in_the_middle(world: &World) -> Result<Task> {
    let task = world.approved(&script::calculator()).await?;
    task.expect_state(TaskState::Implementing).await?;
    Ok(task)
}

fn held_in_the_work() -> (Gate, Script) {
    let gate = Gate::closed();
    let replies = vec![
        Reply::call(script::subtract(true)),
        Reply::call(call::bash("cat calc.py")).held_by(&gate),
        Reply::text("Subtract is there."),
    ];
    let script = script::working("held in the work", replies);
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

/// Sends a signal to the processes of a world's database.
fn signal_database(world: &World, signal: Signal) {
    let data = world.data().join("postgres/data").display().to_string();
    let all = processes::of(world.folder());
    // The server by its argument, its children by what they call themselves.
    let is_server = |command: &str| command.contains(&data) || command.starts_with("postgres: ");
    let servers: Vec<_> = all
        .into_iter()
        .filter(|process| is_server(&process.command))
        .collect();
    assert!(!servers.is_empty());
    for server in &servers {
        let _ = kill(Pid::from_raw(server.pid), signal);
    }
}

/// A world whose database is started from a folder that can be taken away.
async fn on_a_database_from(folder: &Path, script: Script) -> Result<World> {
    let named = std::env::var_os("MAINLOOP_POSTGRES_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What is on the path may be a link to where the programs are.
    let on_path = std::env::split_paths(&path).filter_map(|folder| {
        let program = folder.join("initdb").canonicalize().ok()?;
        program.parent().map(Path::to_owned)
    });
    let distributions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = distributions.into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin")).max();
    let mut folders = named.into_iter().chain(on_path).chain(newest);
    let real = folders.find(|folder| folder.join("postgres").exists());
    let real = real.context("PostgreSQL's programs are there")?;
    std::os::unix::fs::symlink(real, folder)?;
    let settings = Settings::script(script).env("MAINLOOP_POSTGRES_BIN", folder);
    World::with(settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_comes_back_and_nothing_is_lost() -> Result<()> {
    let (gate, script) = held_in_the_work();
    let world = World::scripted(script).await?;
    let task = in_the_middle(&world).await?;
    gate.reached().await?;
    signal_database(&world, Signal::SIGKILL);
    gate.open();
    comes_to_its_end(&world, &task).await?;
    assert_eq!(task.now().attempt, 1, "the worker waited for it");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_for_a_while_is_waited_for_and_nothing_is_lost() -> Result<()> {
    for is_stopped in [true, false] {
        let (gate, script) = held_in_the_work();
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let programs = folder.path().join("bin");
        let world = on_a_database_from(&programs, script).await?;
        let task = in_the_middle(&world).await?;
        gate.reached().await?;
        let aside = folder.path().join("aside");
        if is_stopped {
            signal_database(&world, Signal::SIGSTOP);
        } else {
            std::fs::rename(&programs, &aside)?;
            signal_database(&world, Signal::SIGKILL);
            let words = "could not start the database server again";
            world.expect_logged(words, 3).await?;
        }
        // The worker goes on meanwhile, and has more to tell than it can be rid of.
        gate.open();
        tokio::time::sleep(NIGHT).await;
        if is_stopped {
            signal_database(&world, Signal::SIGCONT);
        } else {
            std::fs::rename(&aside, &programs)?;
        }
        comes_to_its_end(&world, &task).await?;
        let now = task.now();
        assert_eq!((now.attempt, now.failures), (1, 0), "the worker waited");
        world.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_host_that_accepts_and_never_answers_is_given_up_and_asked_again() -> Result<()> {
    let never = Gate::closed();
    let world = World::new().await?;
    let task = world.begin(&script::calculator()).await?;
    let plan = task.expect_item(InboxItemKind::Plan).await?;
    for (method, path) in [("POST", "/pulls"), ("GET", "/check-runs")] {
        let silent = FaultKind::HeldAfter(never.clone());
        world.github().fault(Fault::new(method, path, silent));
    }
    plan.approve().await?;
    comes_to_its_end(&world, &task).await?;
    assert_eq!(task.now().failures, 0);
    never.open();
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ends_no_step_and_nothing_waits_for_it_to_catch_up() -> Result<()> {
    let (gate, script) = held_in_the_work();
    let mut world = World::scripted(script).await?;
    let clock = world.take_clock().await?;
    let task = in_the_middle(&world).await?;
    gate.reached().await?;
    clock.set_ahead("1 day").await?;
    world.expect_logged("the lease had lapsed", 1).await?;
    let now = task.now();
    assert_eq!((now.attempt, now.state()), (1, TaskState::Implementing));

    // A worker that is lost now is not waited for until tomorrow.
    clock.set_ahead("0").await?;
    world.expect_logged("the clock went back", 1).await?;
    assert_eq!(world.kill_agents()?, 1);
    gate.open();
    comes_to_its_end(&world, &task).await?;
    assert_eq!(task.now().attempt, 2);

    // Nor is the next look at the pull request.
    clock.set_ahead("-1 day").await?;
    world.expect_logged("the clock went back", 2).await?;
    let ada = world.github().person(PERSON);
    ada.merge("ada/calc", task.pull()?)?;
    task.expect_state(TaskState::Completed).await?;
    task.check_watch()?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_terminal_ends_plane_and_workers_in_order_and_the_next_start_goes_on()
-> Result<()> {
    let (gate, script) = held_in_the_work();
    let mut world = World::scripted(script).await?;
    world.interrupt_plane().await?;
    world.start_plane_from(From::Terminal).await?;
    let task = in_the_middle(&world).await?;
    gate.reached().await?;
    world.close_terminal().await?;
    processes::expect_none(world.folder()).await?;
    gate.open();
    world.start_plane().await?;
    comes_to_its_end(&world, &task).await?;
    assert_eq!(task.now().failures, 0, "it is nobody's failure");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_under_nohup_outlives_its_terminal() -> Result<()> {
    let (gate, script) = held_in_the_work();
    let mut world = World::scripted(script).await?;
    world.interrupt_plane().await?;
    world.start_plane_from(From::Nohup).await?;
    let task = in_the_middle(&world).await?;
    gate.reached().await?;
    let plane = Pid::from_raw(world.plane_pid().context("the plane runs")?);
    kill(plane, Signal::SIGHUP)?;
    gate.open();
    comes_to_its_end(&world, &task).await?;
    assert_eq!(task.now().attempt, 1);
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_what_is_new_and_loses_nothing() -> Result<()> {
    if !geteuid().is_root() {
        eprintln!("left out: only root can make a small disk");
        return Ok(());
    }
    let settings = Settings::script(script::good_day())
        .policy("worker.free_disk_mib = 0")
        .disk(400);
    let world = World::with(settings).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world.submit(&repo, script::TASK).await?;
    let plan = task.expect_item(InboxItemKind::Plan).await?;
    world.disk()?.fill()?;
    // Small things may still find room in pages that are there.
    let refused = until("a refusal", PATIENCE, async || {
        let request = CreateTaskRequest {
            repository_url: repo.clone(),
            description: Uuid::new_v4().to_string().repeat(900),
            ..CreateTaskRequest::default()
        };
        match world.client().tasks().create_task(request).await {
            Err(status) if status.code() == Code::ResourceExhausted => Ok(status),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await?;
    assert!(
        refused.message().contains("database is full"),
        "{}",
        refused.message()
    );
    // Reading goes on.
    task.item(&plan.seen.id).await?;
    world.disk()?.clear()?;
    task.approve().await?;
    comes_to_its_end(&world, &task).await?;
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
