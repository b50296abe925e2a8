//! No credential is where Claude, or anything that it starts, could read it.

use std::{fs, path::Path};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mainloop_proto::v1::TaskState;
use mainloop_tests::{
    anthropic::{Conversation, Gate, Reply, Rule, Script, call, when},
    world::{World, processes, script},
};

/// Where one of `needles` occurs in what the sandbox's processes hold, and in what is on the disk.
pub(crate) fn search(world: &World, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    let inside = world.worker_processes().into_iter().filter(|process| {
        fs::read_link(format!("/proc/{}/ns/pid", process.pid)).is_ok_and(|ns| ns != own)
    });
    for process in inside {
        for file in ["environ", "cmdline"] {
            let path = format!("/proc/{}/{file}", process.pid);
            look(
                &path,
                &fs::read(&path).unwrap_or_default(),
                needles,
                &mut found,
            );
        }
    }
    // All that is kept: workspaces, the sidecars' own files, logs, the database with its write-ahead log.
    walk(world.folder(), needles, &mut found);
    found
}

fn walk(folder: &Path, needles: &[&str], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(&path, needles, found);
        } else if kind.is_file() {
            look(
                &path.display().to_string(),
                &fs::read(&path).unwrap_or_default(),
                needles,
                found,
            );
        }
    }
}

fn look(place: &str, bytes: &[u8], needles: &[&str], found: &mut Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    for needle in needles {
        if text.contains(needle) {
            found.push(format!("{needle} in {place}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_sandbox_or_in_any_argument() -> Result<()> {
    let gate = Gate::closed();
    let script = Script::new().with(Conversation::rules(
        "holds still",
        when::always(),
        vec![
            script::planning(script::SUBTRACT_PLAN),
            Rule::sequence(
                when::prompt(script::IMPLEMENT),
                vec![
                    Reply::call(script::subtract(true)),
                    Reply::call(call::bash("env; git config --list --show-origin; cat /proc/*/environ | tr '\\0' '\\n'")),
                    Reply::text("Done.").held_by(&gate),
                ],
            ),
        ],
    ));
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let task = world
        .submit(&repo, "Teach the calculator to subtract.")
        .await?;
    task.approve().await?;
    // A push has been proxied by then, and the CLI is in the middle of a turn.
    gate.reached().await?;
    task.expect_event("branch_pushed").await?;

    let secrets = world.secrets();
    let basic = STANDARD.encode(format!("x-access-token:{}", secrets.github));
    let needles = [
        secrets.github.as_str(),
        secrets.model.as_str(),
        basic.as_str(),
        "mla_",
    ];
    assert_eq!(search(&world, &needles), Vec::<String>::new());
    // The search itself works: it finds what is there.
    let known = search(
        &world,
        &[
            "mainloop-placeholder",
            "def subtract",
            "Teach the calculator to subtract.",
        ],
    );
    for place in ["/environ", "calc.py", "/data/postgres/"] {
        assert!(
            known.iter().any(|found| found.contains(place)),
            "nothing in {place}: {known:?}"
        );
    }

    // Arguments can be read by everybody on the machine.
    for pid in processes::all() {
        let command = processes::command(pid);
        assert!(
            !command.contains(&secrets.github) && !command.contains(&secrets.model),
            "in the arguments of {pid}"
        );
    }
    let said: Vec<String> = world
        .model()
        .requests()
        .iter()
        .map(|seen| seen.body.to_string())
        .collect();
    for needle in needles {
        assert!(
            !said.iter().any(|body| body.contains(needle)),
            "{needle} was seen by Claude's own commands"
        );
    }
    gate.open();
    task.expect_state(TaskState::Ready).await?;
    assert_eq!(search(&world, &needles), Vec::<String>::new());
    world.end().await
}
