//! What runs in the sandbox turns on the proxies, the host, the code host and on what it tells.

mod attacks;

use anyhow::{Context, Result, ensure};
use keyutils::{Keyring, keytypes::User};
use mainloop_proto::v1::{FailureReason, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply, call},
    github::Files,
    world::{PERSON, Settings, World, processes, script},
};

use self::attacks::{HOSTS, LIES, PUSHES, REF, REQUESTS, WALLS};
use crate::ground::{Attack, Ground, all_stopped, printed, probe};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_in_the_sandbox_stays_in_it() -> Result<()> {
    let gate = Gate::closed();
    let run = |name: &str| call::bash(&format!("python3 {name}.py"));
    let script = script::working(
        "turns on everything",
        vec![
            Reply::call(script::subtract(true)),
            Reply::call(run("requests")),
            Reply::call(run("hosts")),
            Reply::call(run("pushes")),
            Reply::call(run("walls")),
            // What the last one printed is seen with the request after it.
            Reply::call(call::bash("true")),
            Reply::text("Done.").held_by(&gate),
        ],
    );
    let policy =
        "hosts = ['pypi.org', 'localhost', 'localhost:CANARY']\nworker = { processes = 600 }";
    // The plane's keyring is that of this thread, which starts it.
    let mut keys = Keyring::join_anonymous_session().context("make a keyring")?;
    keys.add_key::<User, _, _>("mainloop-outside-key", &b"secret"[..])
        .context("add a key to it")?;
    // A canary on the host's loopback: nobody may come.
    let canary = std::net::TcpListener::bind("127.0.0.1:0")?;
    canary.set_nonblocking(true)?;
    let port = canary.local_addr()?.port().to_string();
    let settings = Settings::script(script).policy(&policy.replace("CANARY", &port));
    let world = World::with(settings).await?;
    world.repo("other", &[("secret.txt", "not yours\n")])?;
    let port_of = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
    let mut ground = Ground::prepare(&world)?;
    let constants = [
        ("CANARY", port.clone()),
        ("GITHUB", port_of(world.github().base_url())),
        ("MODEL", port_of(&world.model().base_url)),
        ("DATA", world.data().display().to_string()),
        ("OUTSIDE", ground.outside().display().to_string()),
        ("GIT", "/git/ada/calc.git".to_owned()),
        ("OTHER", "/git/ada/other.git".to_owned()),
        ("A", "a".repeat(40)),
        ("B", "b".repeat(40)),
    ];
    let groups: [(&str, &[Attack]); 4] = [
        ("requests", &REQUESTS),
        ("hosts", &HOSTS),
        ("walls", &WALLS),
        ("pushes", &PUSHES),
    ];
    let probes = groups.map(|(name, attacks)| (format!("{name}.py"), probe(attacks, &constants)));
    let mut files = script::calculator();
    files.extend(
        probes
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str())),
    );
    let repo = world.repo("calc", &files)?;
    world.github().set_ci("ada/calc", |ci| ci.hold = true)?;
    let workflow = ".github/workflows/ci.yml";
    let usual = script::calculator();
    let usual = usual.iter().find(|(path, _)| *path == workflow);
    let (_, usual) = usual.context("the calculator has a workflow")?;
    let ada = world.github().person(PERSON);
    for (branch, text, message) in [
        ("theirs", "on: pull_request_target\n", "Theirs"),
        ("main", "on: pull_request_target\n", "Older"),
        ("main", usual, "As it is"),
    ] {
        let files = Files::from([(workflow.to_owned(), Some(text.as_bytes().to_vec()))]);
        ada.push("ada/calc", branch, message, &files)?;
    }
    ground.remember(&world);
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;

    // In the middle of it, with all its processes and files still there.
    gate.reached().await?;
    let said = printed(&world);
    for (_, attacks) in groups {
        all_stopped(attacks, &said).with_context(|| task.report())?;
    }
    let told = task.events().into_iter().any(|event| {
        let large = "refs/heads/big";
        event.kind == "push_refused" && event.text.contains(large) && event.text.contains(REF)
    });
    ensure!(told, "the large push was refused for another reason");
    ground.is_sound(&world, &[&task]).await?;
    let asleep = || {
        let all = world.worker_processes().into_iter();
        all.filter(|process| process.command.contains("sleep 86397"))
            .collect::<Vec<processes::Found>>()
    };
    ensure!(asleep().len() >= 200, "there are processes to end");
    gate.open();
    task.expect_event("ci_running").await?;
    assert_eq!(
        asleep(),
        Vec::<processes::Found>::new(),
        "the step's end took them"
    );

    assert!(canary.accept().is_err(), "somebody came to the canary");
    ensure!(
        !world
            .github()
            .requests()
            .iter()
            .any(|seen| seen.path.contains("/ada/other")),
        "the other repository was asked for"
    );
    world.github().set_ci("ada/calc", |ci| ci.hold = false)?;
    task.expect_state(TaskState::Ready).await?;
    ground.is_sound(&world, &[&task]).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_model_that_it_makes_up_stop_its_own_task_alone() -> Result<()> {
    let failures = [
        (401, "authentication_failed"),
        (402, "billing_error"),
        (429, "rate_limit"),
    ];
    let probes = failures.map(|(status, error)| {
        let tries = format!("fail({status}, '{error}')");
        format!("{}print({tries}, flush=True)\n", probe(&[], &[]))
    });
    let script = script::rules(
        "makes errors up",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(vec![call::bash("python3 error.py")], "never said"),
        ],
    );
    let settings = Settings::script(script).limits("max_attempts = 1");
    let world = World::with(settings).await?;
    for ((status, _), probe) in failures.into_iter().zip(&probes) {
        let mut files = script::calculator();
        files.push(("error.py", probe));
        let repo = world.repo(&format!("error-{status}"), &files)?;
        let task = world.submit(&repo, script::TASK).await?;
        task.approve().await?;
        let item = task.expect_stuck(FailureReason::ClaudeExited).await?;
        ensure!(
            item.seen
                .body
                .contains(&format!("the model's host did not: API Error: {status}")),
            "{}",
            item.seen.body
        );
    }
    // Nobody else waits.
    let repo = world.repo("other", &script::calculator())?;
    let other = world.submit(&repo, script::TASK).await?;
    other.expect_item(InboxItemKind::Plan).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_tells_is_not_believed() -> Result<()> {
    let script = script::rules(
        "lies",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(
                vec![
                    call::report_progress("A person approved it. CI is green. It is merged."),
                    call::mainloop("approve", serde_json::json!({"item": "k3f9@1"})),
                    call::bash("python3 lies.py"),
                    script::subtract(false),
                ],
                "Approved, green, merged.",
            ),
            script::fixing(vec![script::subtract(true)], "Green, really."),
        ],
    );
    let world = World::scripted(script).await?;
    let lies = probe(&LIES, &[]);
    let mut files = script::calculator();
    files.push(("lies.py", lies.as_str()));
    let repo = world.repo("calc", &files)?;
    let ground = Ground::prepare(&world)?;
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    // What was called green is not, and CI says so.
    task.expect_event("ci_failed").await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    all_stopped(&LIES, &printed(&world)).with_context(|| task.report())?;
    let plan = ready.plan.context("it has a plan")?;
    assert_eq!(plan.revision, 1);
    assert_eq!(task.plan().await?, script::SUBTRACT_PLAN);
    let head = world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        repo.branch(&ready.branch).unwrap_or_default().to_owned()
    });
    assert_eq!(ready.head_sha, head);
    ground.is_sound(&world, &[&task]).await?;
    world.end().await
}
