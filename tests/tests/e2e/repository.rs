//! What a repository may say to its workers, and what it may not.

use anyhow::Result;
use mainloop_proto::v1::TaskState;
use mainloop_tests::{
    anthropic::call,
    world::{PERSON, World, processes, script},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_instructions_reach_claude_and_its_hooks_and_servers_do_not() -> Result<()> {
    let script = script::rules(
        "looks",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(
                vec![
                    call::bash(
                        "echo setup-says $(cat ../setup-ran) $FROM_THE_REPOSITORY; ls /tmp/hook-ran /tmp/server-ran 2>&1",
                    ),
                    script::subtract(true),
                ],
                "Done.",
            ),
        ],
    );
    let world = World::scripted(script).await?;
    let hook = r#"{"hooks": {"PreToolUse": [{"matcher": "*", "hooks": [{"type": "command", "command": "touch /tmp/hook-ran"}]}]}}"#;
    let server = r#"{"mcpServers": {"theirs": {"command": "touch", "args": ["/tmp/server-ran"]}}}"#;
    let mut files = script::calculator();
    files.extend([
        (
            "CLAUDE.md",
            "The codeword of this repository is heliotrope.\n",
        ),
        ("AGENTS.md", "Agents say saffron.\n"),
        (".claude/settings.json", hook),
        (".mcp.json", server),
        (
            ".mainloop.toml",
            "setup = [\"echo yes > ../setup-ran\"]\n[env]\nFROM_THE_REPOSITORY = \"indeed\"\n",
        ),
    ]);
    let task = world.approved(&files).await?;
    task.expect_state(TaskState::Ready).await?;
    let requests = world.model().requests();
    let texts: Vec<String> = requests
        .iter()
        .filter(|seen| seen.is_message())
        .map(|seen| seen.request().text())
        .collect();
    assert!(
        texts
            .iter()
            .all(|text| text.contains("heliotrope") && text.contains("Agents say saffron")),
        "instructions are in each request"
    );
    let outcomes = world.model().outcomes("Bash");
    let said = outcomes
        .iter()
        .map(|outcome| outcome.text.as_str())
        .find(|text| text.contains("setup-says"))
        .expect("the command ran");
    assert!(
        said.contains("setup-says yes indeed"),
        "its setup ran, with its environment: {said}"
    );
    assert_eq!(
        said.matches("No such file or directory").count(),
        2,
        "neither its hook nor its server ran"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_git_lfs_and_submodules_keep_stays_as_it_is_and_everybody_is_told() -> Result<()> {
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    let world = World::scripted(script::good_day()).await?;
    let mut files = script::calculator();
    files.extend([
        (
            ".gitattributes",
            "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        ),
        ("data.bin", POINTER),
        (
            ".gitmodules",
            "[submodule \"other\"]\n\tpath = other\n\turl = ../other.git\n",
        ),
    ]);
    let task = world.approved(&files).await?;
    let ready = task.expect_state(TaskState::Ready).await?;
    let told: Vec<String> = task
        .events()
        .iter()
        .filter(|event| event.kind == "progress")
        .map(|event| event.text.clone())
        .collect();
    for words in ["Git LFS is not fetched", "submodules are not fetched"] {
        assert_eq!(
            told.iter().filter(|text| text.contains(words)).count(),
            1,
            "{told:?}"
        );
    }
    let prompts = [
        script::PLAN,
        script::IMPLEMENT,
        "are pointers here",
        "no other repository can be reached",
    ];
    let seen = world.model().requests();
    let told = |words: &str| {
        seen.iter()
            .filter(|seen| seen.is_message())
            .any(|seen| seen.request().text().contains(words))
    };
    assert!(prompts.into_iter().all(told), "Claude is told as well");
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        let head = repo.branch(&ready.branch).unwrap();
        assert_eq!(repo.file(head, "data.bin").as_deref(), Some(POINTER));
    });
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_claude_left_is_gone_when_the_step_ends() -> Result<()> {
    let script = script::rules(
        "leaves a process",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(
                vec![
                    script::subtract(true),
                    call::bash(
                        "(setsid nohup sleep 86399 >/dev/null 2>&1 &) ; until pgrep -x sleep >/dev/null; do :; done; echo it-runs",
                    ),
                ],
                "Done.",
            ),
        ],
    );
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    world.github().set_ci("ada/calc", |ci| ci.hold = true)?;
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    task.expect_event("ci_running").await?;
    let ran = world.model().outcomes("Bash");
    assert!(
        ran.iter().any(|outcome| outcome.text.contains("it-runs")),
        "there was a process: {ran:?}"
    );
    let left: Vec<_> = world
        .worker_processes()
        .into_iter()
        .filter(|process| process.command.contains("sleep 86399"))
        .collect();
    assert_eq!(left, Vec::<processes::Found>::new());
    world.github().set_ci("ada/calc", |ci| ci.hold = false)?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_the_model_mention_nobody_and_close_nothing() -> Result<()> {
    let plan = "# Add subtract\n\nFixes #1, as @eve asked. /close\n\n![x](https://evil.example.com/pixel.png)\n";
    let script = script::rules(
        "careless",
        vec![
            script::planning(plan),
            script::implementing(vec![script::subtract(true)], "Closes #1. Thanks, @eve!"),
        ],
    );
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    let other =
        world
            .github()
            .person(PERSON)
            .open_issue("ada/calc", "Something else", "Keep me open.")?;
    assert_eq!(other, 1);
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    let number = task.pull()?;
    world.github().person(PERSON).merge("ada/calc", number)?;
    task.expect_state(TaskState::Completed).await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert!(
            repo.issues[&other].open,
            "the merge closed what the model named"
        );
        for issue in repo.issues.values().filter(|issue| issue.number != other) {
            let texts = issue
                .comments
                .iter()
                .map(|comment| comment.body.as_str())
                .chain(issue.body.as_deref());
            for text in texts {
                assert!(!text.contains("![x]"), "no remote image: {text}");
                assert!(!text.contains(" @eve"), "no mention: {text}");
            }
        }
    });
    world.end().await
}
