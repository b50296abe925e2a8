//! No credential is where Claude, or anything that it starts, could read it.

use anyhow::Result;
use mainloop_proto::v1::TaskState;
use mainloop_tests::{
    anthropic::{Gate, Reply, call},
    world::{World, processes, script},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_sandbox_or_in_any_argument() -> Result<()> {
    let gate = Gate::closed();
    let script = script::working(
        "holds still",
        vec![
            Reply::call(script::subtract(true)),
            Reply::call(call::bash(
                "env; git config --list --show-origin; cat /proc/*/environ | tr '\\0' '\\n'",
            )),
            Reply::text("Done.").held_by(&gate),
        ],
    );
    let world = World::scripted(script).await?;
    let task = world.approved(&script::calculator()).await?;
    // A push has been proxied by then, and the CLI is in the middle of a turn.
    gate.reached().await?;
    task.expect_event("branch_pushed").await?;

    let secrets = world.secrets();
    let needles = secrets.needles();
    assert_eq!(world.search(&needles), Vec::<String>::new());
    // The search itself works: it finds what is there.
    let known =
        world.search(&["mainloop-placeholder", "def subtract", script::TASK].map(str::to_owned));
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
    for needle in &needles {
        assert!(
            !said.iter().any(|body| body.contains(needle)),
            "{needle} was seen by Claude's own commands"
        );
    }
    gate.open();
    task.expect_state(TaskState::Ready).await?;
    assert_eq!(world.search(&needles), Vec::<String>::new());
    world.end().await
}
