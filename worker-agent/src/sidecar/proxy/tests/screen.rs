//! What passes a screen that looks at pushes, with real git on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Json;
use axum::extract::Path as Captured;
use axum::response::IntoResponse as _;
use axum::routing::get;
use base64::Engine as _;
use mainloop_github::{Class, Client, Repo};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::git::{backend, fails, git, ok, run};
use super::*;
use crate::sidecar::proxy::Refusal;

/// A definition, and a file that is none.
const CI: &str = ".github/workflows/ci.yml";

/// A server with one repository, a proxy that looks at pushes, and a clone on the task's branch.
struct Ground {
    world: World,
    bare: PathBuf,
    work: PathBuf,
    base: String,
    /// What the API answers everything with, where that is not zero.
    answers: Arc<AtomicU16>,
    _root: TempDir,
}

/// Refs, trees, blobs and what is in the history of what, as the code host's API tells them.
fn api(bare: PathBuf, answers: Arc<AtomicU16>) -> axum::Router {
    let trees = bare.clone();
    let compared = bare.clone();
    axum::Router::new()
        .route(
            "/api/repos/o/r/compare/{both}",
            get(async move |Captured(both): Captured<String>| {
                let (head, commit) = both.split_once("...").unwrap();
                let args = ["merge-base", "--is-ancestor", commit, head];
                match run(&compared, &args).await.status.code() {
                    Some(0) => Ok(Json(json!({"status": "behind"}))),
                    Some(1) => Ok(Json(json!({"status": "diverged"}))),
                    _ => Err(http::StatusCode::NOT_FOUND),
                }
            }),
        )
        .route(
            "/api/repos/o/r/git/trees/{sha}",
            get(async move |Captured(sha): Captured<String>| tree(&trees, &sha).await),
        )
        .route(
            "/api/repos/o/r/git/ref/{*name}",
            get({
                let bare = bare.clone();
                async move |Captured(name): Captured<String>| {
                    let out = run(&bare, &["rev-parse", &format!("refs/{name}")]).await;
                    let sha = String::from_utf8_lossy(&out.stdout).trim().to_owned();
                    out.status
                        .success()
                        .then(|| Json(json!({"object": {"sha": sha}})))
                        .ok_or(http::StatusCode::NOT_FOUND)
                }
            }),
        )
        .route(
            "/api/repos/o/r/git/blobs/{sha}",
            get(async move |Captured(sha): Captured<String>| {
                let out = run(&bare, &["cat-file", "blob", &sha]).await;
                let content = base64::engine::general_purpose::STANDARD.encode(&out.stdout);
                Json(json!({"content": content, "encoding": "base64", "size": out.stdout.len()}))
            }),
        )
        .layer(axum::middleware::from_fn(
            move |request, next: axum::middleware::Next| {
                let answer = http::StatusCode::from_u16(answers.load(Ordering::SeqCst));
                async move {
                    match answer {
                        Ok(status) => status.into_response(),
                        Err(_) => next.run(request).await,
                    }
                }
            },
        ))
}

async fn tree(bare: &Path, sha: &str) -> Result<Json<Value>, http::StatusCode> {
    let out = run(bare, &["ls-tree", "-z", sha]).await;
    if !out.status.success() {
        return Err(http::StatusCode::NOT_FOUND);
    }
    let text = String::from_utf8(out.stdout).unwrap();
    let entries: Vec<Value> = text
        .split_terminator('\0')
        .map(|line| {
            let (head, name) = line.split_once('\t').unwrap();
            let head: Vec<&str> = head.split(' ').collect();
            json!({"path": name, "mode": head[0], "type": head[1], "sha": head[2]})
        })
        .collect();
    Ok(Json(
        json!({"sha": sha, "truncated": false, "tree": entries}),
    ))
}

impl Ground {
    async fn new(files: g::WorkflowFiles) -> Self {
        let root = TempDir::new().unwrap();
        let bare = root.path().join("o/r.git");
        std::fs::create_dir_all(&bare).unwrap();
        ok(&bare, &["init", "--bare", "-q"]).await;
        let answers = Arc::<AtomicU16>::default();
        let router = api(bare.clone(), Arc::clone(&answers)).merge(backend(root.path().to_owned()));
        let upstream = upstream(router).await;
        let dir = root.path().to_owned();
        let world = World::new(upstream, |options| {
            let api = format!("http://{upstream}/api").parse().unwrap();
            let repo = Repo {
                owner: "o".into(),
                name: "r".into(),
            };
            let github = Client::new(&api, repo, &SecretString::from("t")).unwrap();
            options.git.screen = Some(g::Screening {
                options: g::screen::Options {
                    github,
                    workflow_files: files,
                },
                dir,
            });
        })
        .await;
        let work = world.path().join("w");
        std::fs::create_dir(&work).unwrap();
        let mut ground = Self {
            world,
            bare,
            work,
            base: String::new(),
            answers,
            _root: root,
        };
        ground
            .sh(
                "git init -q && mkdir -p .github/workflows && echo 'on: pull_request_target' > .github/workflows/ci.yml \
                 && git add -A && git commit -qm 'Fixes #1' && echo 'on: push' > .github/workflows/ci.yml \
                 && echo hi > readme && git commit -qam start && git add -A && git commit -qm readme",
            )
            .await;
        let bare = ground.bare.to_str().unwrap().to_owned();
        ok(&ground.work, &["push", "-q", &bare, "main"]).await;
        let url = format!("http://{}/git/o/r.git", ground.world.tcp().await);
        ok(&ground.work, &["remote", "add", "origin", &url]).await;
        ok(&ground.work, &["fetch", "-q", "origin"]).await;
        ok(&ground.work, &["checkout", "-q", "-b", "mainloop/task"]).await;
        ground.base = ok(&ground.work, &["rev-parse", "HEAD"]).await;
        let screen = ground.screen();
        screen.set_base("main", &ground.base);
        ground.world.proxy.gate().open();
        ground
    }

    fn screen(&self) -> super::super::Screen {
        self.world.proxy.screen().unwrap()
    }

    async fn sh(&self, script: &str) {
        let mut command = tokio::process::Command::new("sh");
        let envs: Vec<_> = git()
            .as_std()
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let out = command
            .env_clear()
            .envs(envs)
            .current_dir(&self.work)
            .args(["-ec", script])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{script}: {said}");
    }

    /// The branch as it was, here and on the server.
    async fn again(&self) {
        run(
            &self.bare,
            &["update-ref", "-d", "refs/heads/mainloop/task"],
        )
        .await;
        self.sh(&format!(
            "git checkout -qf mainloop/task && git reset -q --hard {} && git clean -qfdx && git fetch -q --prune origin",
            self.base
        ))
        .await;
    }

    async fn pushed(&self) -> bool {
        let head = ok(&self.work, &["rev-parse", "HEAD"]).await;
        let there = run(&self.bare, &["rev-parse", "mainloop/task"]).await;
        String::from_utf8_lossy(&there.stdout).trim() == head
    }

    async fn push(&self) -> String {
        let out = run(&self.work, &["push", "--force", "origin", "HEAD"]).await;
        assert_eq!(
            out.status.success(),
            self.pushed().await,
            "what git says is what happened"
        );
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// A push as git would write it that says where the branch was, and brings these commits and nothing else.
    async fn push_by_hand(&self, old: &str, new: &str, brings: &[&str]) -> String {
        let line = format!("{old} {new} refs/heads/mainloop/task\0report-status");
        let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
        let mut packed = git()
            .current_dir(&self.work)
            .args(["pack-objects", "-q", "--stdout"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = packed.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, brings.join("\n").as_bytes())
            .await
            .unwrap();
        drop(stdin);
        body.extend(packed.wait_with_output().await.unwrap().stdout);
        self.post(body).await
    }

    async fn post(&self, body: Vec<u8>) -> String {
        let request = Request::post("/git/o/r.git/git-receive-pack")
            .header("content-type", "application/x-git-receive-pack-request")
            .body(Full::from(body))
            .unwrap();
        let answer = self.world.send(request).await;
        let said = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap()
            .to_bytes();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The change that the last push was held for.
    fn held(&self) -> Option<super::super::HeldChange> {
        match self.screen().take_refusal() {
            Some(Refusal::Held(held)) => Some(held),
            _ => None,
        }
    }
}

#[tokio::test]
async fn every_way_to_change_what_runs_is_held() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    for (name, script) in [
        (
            "an edit",
            "echo x >> .github/workflows/ci.yml && git commit -qam x",
        ),
        (
            "a new one",
            "echo x > .github/workflows/b.yml && git add -A && git commit -qm x",
        ),
        (
            "one in a folder",
            "mkdir -p .github/workflows/a && echo x > .github/workflows/a/b.yml && git add -A && git commit -qm x",
        ),
        (
            "deleted",
            "git rm -q .github/workflows/ci.yml && git commit -qm x",
        ),
        (
            "moved in",
            "git mv readme .github/workflows/readme.yml && git commit -qm x",
        ),
        (
            "moved out",
            "git mv .github/workflows/ci.yml old.yml && git commit -qm x",
        ),
        (
            "executable",
            "git update-index --chmod=+x .github/workflows/ci.yml && git commit -qm x",
        ),
        (
            "an action",
            "mkdir -p .github/actions/a && echo x > .github/actions/a/action.yml && git add -A && git commit -qm x",
        ),
        (
            "a link in the folder",
            "rm .github/workflows/ci.yml && ln -s ../../readme .github/workflows/ci.yml && git add -A && git commit -qm x",
        ),
        (
            "a linked folder",
            "git mv .github/workflows evil && ln -s ../evil .github/workflows && git add -A && git commit -qm x",
        ),
        (
            "a linked root",
            "git mv .github evil && ln -s evil .github && git add -A && git commit -qm x",
        ),
        (
            "a submodule in its place",
            "git rm -qr .github && git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),.github && git commit -qm x",
        ),
        (
            "another case",
            "mkdir -p .GitHub/Workflows && echo x > .GitHub/Workflows/b.yml && git add -A && git commit -qm x",
        ),
        (
            "another case inside",
            "mkdir -p .github/WORKFLOWS && echo x > .github/WORKFLOWS/b.yml && git add -A && git commit -qm x",
        ),
        (
            "a trailing dot",
            "mkdir -p .github./workflows && echo x > .github./workflows/b.yml && git add -A && git commit -qm x",
        ),
        (
            "a merge",
            "git checkout -qb side && echo x >> .github/workflows/ci.yml && git commit -qam x && git checkout -q mainloop/task && git merge -q --no-ff -m merge side && git branch -D side",
        ),
        (
            "a merge that is not what its parents are",
            "git checkout -qb side && echo y > y && git add y && git commit -qm y && git checkout -q mainloop/task && git merge -q --no-ff --no-commit side && echo x >> .github/workflows/ci.yml && git add -A && git commit -qm merge && git branch -D side",
        ),
        (
            "without a parent",
            "git checkout -q --orphan lone && echo x >> .github/workflows/ci.yml && git add -A && git commit -qm x && git branch -M mainloop/task",
        ),
        (
            "behind a change that is none",
            "echo x >> .github/workflows/ci.yml && git commit -qam x && echo y > y && git add y && git commit -qm y",
        ),
        ("an older state of the base", "git reset -q --hard HEAD~2"),
    ] {
        ground.again().await;
        ground.sh(script).await;
        let said = ground.push().await;
        assert!(!ground.pushed().await, "{name} passed");
        let held = ground.held().unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(said.contains("waits for a person"), "{name}: {said}");
        assert!(!held.paths.is_empty(), "{name}");
        assert!(held.diff.contains(&held.paths[0]), "{name}: {}", held.diff);
    }
}

#[tokio::test]
async fn commits_that_the_host_has_already_are_judged_as_well() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    // Somebody's branch, with a workflow of its own.
    ground
        .sh(&format!(
            "echo x >> .github/workflows/ci.yml && git commit -qam x && git push -q {} HEAD:theirs && git fetch -q origin",
            ground.bare.display()
        ))
        .await;
    ground.push().await;
    assert!(ground.held().is_some(), "a push without objects");
    // Their tree under a commit of our own.
    ground
        .sh("tree=$(git rev-parse HEAD^{tree}) && git reset -q --hard HEAD~1 && git reset -q --hard $(git commit-tree -m x -p HEAD $tree)")
        .await;
    ground.push().await;
    assert!(ground.held().is_some(), "a push that leans on their tree");
    assert!(!ground.pushed().await);
}

#[tokio::test]
async fn what_changes_nothing_that_runs_passes() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    for (name, script) in [
        ("a file", "echo x > x && git add -A && git commit -qm x"),
        (
            "another file of the folder",
            "echo x > .github/CODEOWNERS && git add -A && git commit -qm x",
        ),
        (
            "a folder of that name elsewhere",
            "mkdir -p sub/.github/workflows && echo x > sub/.github/workflows/a.yml && git add -A && git commit -qm x",
        ),
        (
            "a change that is taken back",
            "echo x >> .github/workflows/ci.yml && git commit -qam x && git revert --no-edit HEAD",
        ),
        ("no commit", "git commit -q --allow-empty -m x"),
        (
            "many commits",
            "for n in $(seq 30); do echo $n > n && git add n && git commit -qm n; done",
        ),
    ] {
        ground.again().await;
        ground.sh(script).await;
        let said = ground.push().await;
        assert!(ground.pushed().await, "{name}: {said}");
        assert!(ground.screen().take_refusal().is_none(), "{name}");
    }
    // A push after it knows the branch, and a merge of the base brings what the base has by now.
    ground
        .sh(&format!(
            "git checkout -q main && echo 'on: [push]' > .github/workflows/ci.yml && git commit -qam newer \
             && git push -q {} main && git checkout -q mainloop/task && git merge -q --no-edit main",
            ground.bare.display()
        ))
        .await;
    let said = ground.push().await;
    assert!(ground.pushed().await, "{said}");
}

#[tokio::test]
async fn what_a_person_pushed_to_the_branch_is_known_and_a_lie_about_its_head_is_not() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    let bare = ground.bare.display();
    ground
        .sh(&format!(
            "echo x >> .github/workflows/ci.yml && git commit -qam theirs && git push -q {bare} HEAD HEAD:theirs \
             && git fetch -q origin && echo y > y && git add y && git commit -qm y"
        ))
        .await;
    let said = ground.push().await;
    assert!(ground.pushed().await, "{said}");

    // The branch is not where this says: on another head, whose definitions it repeats.
    ground.again().await;
    let theirs = ok(&ground.bare, &["rev-parse", "theirs"]).await;
    let tree = ok(&ground.bare, &["rev-parse", "theirs^{tree}"]).await;
    let commit = ok(&ground.work, &["commit-tree", "-m", "x", &tree]).await;
    let said = ground.push_by_hand(&theirs, &commit, &[&commit]).await;
    assert!(said.contains("has moved"), "{said}");
}

#[tokio::test]
async fn a_yes_is_for_exactly_what_was_seen() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    ground
        .sh("echo 'run: make' >> .github/workflows/ci.yml && git commit -qam x")
        .await;
    ground.push().await;
    let held = ground.held().unwrap();
    assert_eq!(held.paths, [CI]);
    assert!(held.diff.contains("+run: make"), "{}", held.diff);
    assert!(held.diff.contains(" on: push"), "{}", held.diff);
    ground.screen().allow(&held.hash);
    ground
        .sh("echo 'run: evil' >> .github/workflows/ci.yml && git commit -qam x")
        .await;
    ground.push().await;
    let other = ground.held().unwrap();
    assert_ne!(other.hash, held.hash);
    ground.sh("git reset -q --hard HEAD~1").await;
    let said = ground.push().await;
    assert!(ground.pushed().await, "{said}");
    // What is pushed is known from then on; what differs from it asks again.
    ground
        .sh("echo y > y && git add y && git commit -qm y")
        .await;
    ground.push().await;
    assert!(ground.pushed().await);
    ground
        .sh("git checkout -q HEAD~2 -- .github && git commit -qm back")
        .await;
    ground.push().await;
    assert!(ground.pushed().await, "back to the base needs no yes");
}

#[tokio::test]
async fn what_policy_says_holds() {
    let ground = Ground::new(g::WorkflowFiles::Refuse).await;
    let change = "echo x >> .github/workflows/ci.yml && git commit -qam x";
    ground.sh(change).await;
    let said = ground.push().await;
    assert!(said.contains("policy lets no worker change"), "{said}");
    assert!(matches!(
        ground.screen().take_refusal(),
        Some(Refusal::Definitions(_))
    ));
    let ground = Ground::new(g::WorkflowFiles::Allow).await;
    ground.sh(change).await;
    ground.push().await;
    assert!(ground.pushed().await);
}

#[tokio::test]
async fn a_commit_that_would_act_on_the_host_is_turned_away_with_its_name() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    for (message, word) in [
        ("Thanks to @eve", "mentions @eve"),
        ("Fixes #12", "closes #12"),
        ("a\x1b[2Jb", "cannot see"),
    ] {
        ground.again().await;
        ok(
            &ground.work,
            &["commit", "-q", "--allow-empty", "-m", message],
        )
        .await;
        ok(&ground.work, &["commit", "-q", "--allow-empty", "-m", "x"]).await;
        let sha = ok(&ground.work, &["rev-parse", "HEAD~1"]).await;
        let said = ground.push().await;
        assert!(said.contains(word) && said.contains(&sha[..12]), "{said}");
        let refusal = ground.screen().take_refusal();
        assert!(matches!(refusal, Some(Refusal::Message(_))), "{refusal:?}");
    }
}

#[tokio::test]
async fn what_the_base_has_by_now_is_not_judged_and_what_is_new_is() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    let bare = ground.bare.display();
    // Somebody works on the base meanwhile, in a clone of their own.
    ground
        .sh(&format!(
            "git clone -q {bare} ../theirs && cd ../theirs && git checkout -qb side \
             && git commit -q --allow-empty -m 'Fix a (#11)' && git commit -q --allow-empty -m b \
             && git checkout -q main && git commit -q --allow-empty -m 'Fix c (#12)' && git merge -q --no-ff -m d side \
             && echo 'on: [push]' > .github/workflows/ci.yml && git commit -qam 'Fix e (#13)' && git push -q origin main"
        ))
        .await;
    ground
        .sh("echo x > x && git add x && git commit -qm x")
        .await;
    let said = ground.push().await;
    assert!(
        ground.pushed().await,
        "the base has moved, and its whole history is brought: {said}"
    );
    // Merged, and the base moves again before that is pushed: what is merged is brought as well.
    ground.screen().see_base().await;
    ground
        .sh(
            "git fetch -q origin && git merge -q -m merge origin/main && cd ../theirs \
             && echo 'on: workflow_dispatch' > .github/workflows/ci.yml && git commit -qam 'Fix f (#14)' \
             && git push -q origin main",
        )
        .await;
    let said = ground.push().await;
    assert!(ground.pushed().await, "{said}");
    ground
        .sh("git commit -q --allow-empty -m 'Fixes #15' && git commit -q --allow-empty -m y")
        .await;
    let sha = ok(&ground.work, &["rev-parse", "HEAD~1"]).await;
    let said = ground.push().await;
    assert!(said.contains(&sha[..12]), "{said}");
    assert!(matches!(
        ground.screen().take_refusal(),
        Some(Refusal::Message(_))
    ));
}

#[tokio::test]
async fn commits_that_a_push_brings_beside_its_head_are_judged_as_well() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    let tree = format!("{}^{{tree}}", ground.base);
    let commit = async |message: &str| {
        let args = ["commit-tree", "-p", &ground.base, "-m", message, &tree];
        ok(&ground.work, &args).await
    };
    let (fine, acting) = (commit("fine").await, commit("Fixes #9").await);
    // The next push would lean on it without bringing it.
    for old in ["0".repeat(40), acting.clone()] {
        let said = ground.push_by_hand(&old, &fine, &[&fine, &acting]).await;
        assert!(said.contains("closes #9"), "{said}");
    }
    // One that lacks what it comes from passes here alone, and brings nothing past the next look.
    let lacking = ok(
        &ground.work,
        &["commit-tree", "-p", &acting, "-m", "y", &tree],
    )
    .await;
    let zeros = "0".repeat(40);
    let said = ground.push_by_hand(&zeros, &lacking, &[&lacking]).await;
    assert!(!said.contains("ok refs"), "{said}");
    let brings = [&lacking[..], &acting];
    let said = ground.push_by_hand(&zeros, &lacking, &brings).await;
    assert!(said.contains("closes #9"), "{said}");
}

#[tokio::test]
async fn a_folder_of_many_names_that_are_taken_for_definitions_is_not_asked_about() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    ground
        .sh(
            "blob=$(git hash-object -w readme) && for name in .github. .Github .gIthub .giThub .gitHub; do \
             git update-index --add --cacheinfo 100644,$blob,$name; done && git commit -qm x",
        )
        .await;
    let said = ground.push().await;
    assert!(said.contains("too many names"), "{said}");
    let refusal = ground.screen().take_refusal();
    assert!(
        matches!(refusal, Some(Refusal::Unreadable(_))),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn paths_that_are_too_long_to_be_shown_are_cut_and_the_change_is_held() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    ground
        .sh(
            "name=$(printf 'x%.0s' $(seq 250)) && mkdir .github/workflows/$name && echo x > .github/workflows/$name/a.yml \
             && git add -A && git commit -qm x",
        )
        .await;
    ground.push().await;
    let held = ground.held().unwrap();
    assert!(held.paths[0].ends_with("x…"), "{}", held.paths[0]);
    assert!(held.diff.contains(&held.paths[0]), "{}", held.diff);
}

#[tokio::test]
async fn a_code_host_that_cannot_be_asked_is_told_by_what_it_answers() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    ground
        .sh("echo x >> .github/workflows/ci.yml && git commit -qam x")
        .await;
    ground.answers.store(401, Ordering::SeqCst);
    let said = ground.push().await;
    assert!(said.contains("could not be asked"), "{said}");
    let Some(Refusal::Unknown(error)) = ground.screen().take_refusal() else {
        panic!("{said}");
    };
    assert_eq!(error.class(), Class::Unauthorized);
}

#[tokio::test]
async fn a_push_that_is_closed_for_a_while_says_so_and_passes_later() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    let gate = ground.world.proxy.gate();
    ground
        .sh("echo x > x && git add x && git commit -qm x")
        .await;
    gate.suspend();
    let said = ground.push().await;
    assert!(said.contains("touch with mainloop is lost"), "{said}");
    let refusal = ground.screen().take_refusal();
    assert!(matches!(refusal, Some(Refusal::Closed)), "{refusal:?}");
    gate.close();
    let said = ground.push().await;
    assert!(said.contains("until the plan is approved"), "{said}");
    gate.open();
    let said = ground.push().await;
    assert!(ground.pushed().await, "{said}");
}

#[tokio::test]
async fn a_push_that_cannot_be_read_is_refused() {
    let ground = Ground::new(g::WorkflowFiles::Ask).await;
    ground
        .sh("echo x > x && git add x && git commit -qm x")
        .await;
    let head = ok(&ground.work, &["rev-parse", "HEAD"]).await;
    for (pack, word) in [
        (&b"PACK\0\0\0\x02\0\0\0\x05"[..], "cannot be read"),
        (b"nonsense that is no pack", "malformed"),
        // The commit is nowhere.
        (
            b"PACK\0\0\0\x02\0\0\0\0\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e",
            "is not there",
        ),
    ] {
        let line = format!(
            "{} {head} refs/heads/mainloop/task\0report-status",
            "0".repeat(40)
        );
        let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
        body.extend_from_slice(pack);
        let said = ground.post(body).await;
        assert!(said.contains(word), "{said}");
        let refusal = ground.screen().take_refusal();
        assert!(matches!(refusal, Some(Refusal::Unreadable(_))), "{refusal:?}");
    }
    let said = fails(&ground.bare, &["rev-parse", "--verify", "mainloop/task"]).await;
    assert!(!said.is_empty());
}
