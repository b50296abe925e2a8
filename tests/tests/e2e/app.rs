//! The plane as a GitHub App: a token per attempt, renewed while the work goes on, revoked when it is over.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use mainloop_github::{Class, Client, Repo};
use mainloop_proto::v1::{InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Gate, Reply},
    github::{Fault, FaultKind, Level, Minted, Scope, Seed, Site},
    world::{BOT, PERSON, Settings, World, script, wait},
};

/// Long enough for a worker to end before its last token does; renewed in half of it.
const LIFETIME: Duration = Duration::from_secs(30);

/// Tokens of attempts, oldest first. Those of the watch only read.
fn of_attempts(site: &Site) -> Vec<Minted> {
    let writes = |minted: &&Minted| minted.permissions.contains_key(&Scope::Contents);
    site.minted.iter().filter(writes).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_s_token_is_renewed_in_mid_run_and_revoked_at_the_end() -> Result<()> {
    let gate = Gate::closed();
    let script = script::working(
        "takes longer than a token lives",
        vec![
            Reply::call(script::subtract(true)),
            Reply::text("Done.").held_by(&gate),
        ],
    );
    let world = World::with(Settings::script(script).app(LIFETIME)).await?;
    let repo = world.repo("calc", &script::calculator())?;
    world.repo("other", &script::calculator())?;
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    gate.reached().await?;

    let tokens = world.github().read(of_attempts);
    let first = tokens.first().context("the attempt has a token")?.clone();
    let names = |minted: &Minted, level: Level| -> Vec<Scope> {
        let of_level = minted.permissions.iter().filter(|(_, has)| **has == level);
        of_level.map(|(scope, _)| *scope).collect()
    };
    assert_eq!(first.repos, ["ada/calc"], "one repository, and no other");
    assert_eq!(
        names(&first, Level::Write),
        [Scope::Contents, Scope::Issues, Scope::PullRequests]
    );
    assert_eq!(
        names(&first, Level::Read),
        [
            Scope::Metadata,
            Scope::Checks,
            Scope::Statuses,
            Scope::Actions
        ]
    );

    // The turn goes on until the token that it began with is dead.
    wait::until("the first token to run out", wait::PATIENCE, async || {
        let left = first.expires_at.duration_since(Timestamp::now());
        if left.is_negative() {
            Ok(())
        } else {
            Err(format!("{left} left"))
        }
    })
    .await?;
    let now = Timestamp::now();
    let newest = world
        .github()
        .wait_for("a token that is alive", |site| {
            of_attempts(site)
                .pop()
                .filter(|newest| newest.expires_at > now)
        })
        .await;
    assert_ne!(newest.secret, first.secret);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let api = world.github().api_url().parse()?;
    let client = |name: &str, secret: &str| {
        let repo = Repo {
            owner: PERSON.to_owned(),
            name: name.to_owned(),
        };
        Client::new(&api, repo, &secret.to_owned().into())
    };
    client("calc", &newest.secret)?.repository().await?;
    let other = client("other", &newest.secret)?.repository().await;
    assert_eq!(other.unwrap_err().class(), Class::NotFound);
    let dead = client("calc", &first.secret)?.repository().await;
    assert_eq!(dead.unwrap_err().class(), Class::Unauthorized);
    let mut needles =
        vec![world.secrets().github.lines().nth(1).unwrap_or_default()[..60].to_owned()];
    for minted in world.github().read(of_attempts) {
        needles.push(STANDARD.encode(format!("x-access-token:{}", minted.secret)));
        needles.push(minted.secret);
    }
    assert_eq!(world.search(&needles), Vec::<String>::new());

    // What is left of the step, and the steps after it, are done with newer tokens.
    gate.open();
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!(ready.attempt, 1, "renewing costs no attempt");
    let number = u64::try_from(
        ready
            .pull_request
            .context("there is a pull request")?
            .number,
    )?;
    world.expect_no_worker().await?;
    world
        .github()
        .wait_for("the last token to be revoked", |site| {
            of_attempts(site)
                .last()
                .filter(|last| last.revoked)
                .map(drop)
        })
        .await;
    world.github().read(|site| {
        let bot = format!("{BOT}[bot]");
        let issues = &site.repo("ada/calc").unwrap().issues;
        assert_eq!(issues.len(), 2, "one issue, one pull request: {issues:?}");
        assert!(
            issues.values().all(|issue| issue.author == bot),
            "{issues:?}"
        );
        assert!(
            site.requests
                .iter()
                .all(|asked| asked.path != "/api/v3/user"),
            "nobody has to ask who the token is"
        );
    });

    // The watch has a token of its own, which cannot write.
    world.github().person(PERSON).merge("ada/calc", number)?;
    task.expect_state(TaskState::Completed).await?;
    let watching = world.github().read(|site| {
        let only_looks = |minted: &&Minted| !minted.permissions.contains_key(&Scope::Contents);
        site.minted.iter().rfind(only_looks).cloned()
    });
    let watching = watching.context("the watch has a token")?;
    assert_eq!(watching.repos, ["ada/calc"]);
    assert_eq!(names(&watching, Level::Write), []);

    // To close what a cancelled task left it takes one that can, for a moment.
    let cancelled = world.submit(&repo, "Teach it once more.").await?;
    cancelled.reject().await?;
    cancelled
        .wait("what it left to be closed", |view| {
            view.events
                .iter()
                .find(|event| event.kind == "tidied")
                .map(|_| ())
        })
        .await?;
    world
        .github()
        .wait_for("its token to be revoked", |site| {
            of_attempts(site)
                .iter()
                .all(|minted| minted.revoked || minted.expires_at < Timestamp::now())
                .then_some(())
        })
        .await;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_keep_their_tokens_while_a_plane_that_came_back_gets_none() -> Result<()> {
    let settings = Settings::script(script::good_day()).app(Duration::from_hours(1));
    let mut world = World::with(settings).await?;
    let task = world.begin(&script::calculator()).await?;
    let plan = task.expect_item(InboxItemKind::Plan).await?;
    world.kill_plane().await?;
    world
        .github()
        .fault(Fault::new("POST", "/access_tokens", FaultKind::Status(503)).times(1_000));
    world.start_plane().await?;
    world.expect_logged("could not renew a token", 1).await?;
    let status = world.cli(&["status"]).await?;
    assert!(
        status.stdout.contains("gives workers no new token"),
        "{}",
        status.stdout
    );
    plan.approve().await?;
    task.expect_event("pull_request_opened").await?;
    let minted = world.github().read(|site| of_attempts(site).len());
    assert_eq!(minted, 1, "it works with the one that it has");
    world.github().mend();
    let ready = task.expect_state(TaskState::Ready).await?;
    assert_eq!((ready.attempt, ready.failures), (1, 0));
    let ignored = task.events().into_iter().filter(|event| event.ignored);
    assert_eq!(ignored.count(), 0, "nothing of it is in the task's story");
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_without_the_app_asks_a_person_and_goes_on_when_it_is_there() -> Result<()> {
    let settings = Settings::script(script::good_day()).app(Duration::from_hours(1));
    let mut world = World::with(settings).await?;
    let seed = script::calculator()
        .iter()
        .fold(Seed::new("ada/calc"), |seed, (path, text)| {
            seed.file(path, text)
        });
    world.github().seed(seed)?;
    let url = format!("{}/ada/calc", world.github().base_url());
    let task = world.submit(&url, script::TASK).await?;
    let item = task.expect_item(InboxItemKind::Blocker).await?;
    assert!(
        item.seen
            .body
            .contains("the GitHub App is not installed on ada/calc"),
        "{}",
        item.seen.body
    );
    world.install_app("ada/calc")?;
    item.resolve(InboxAction::Retry, "").await?;
    task.expect_item(InboxItemKind::Plan).await?;
    // The next plane knows nothing of the token that the worker has, and gets it another.
    world.kill_plane().await?;
    world.start_plane().await?;
    let second = world
        .github()
        .wait_for("a second token", |site| of_attempts(site).get(1).cloned())
        .await;
    // Only a worker that was welcomed again gets on.
    task.approve().await?;
    task.expect_event("branch_pushed").await?;
    world.interrupt_plane().await?;
    let tokens = world.github().read(of_attempts);
    let last = tokens.last().context("there are tokens")?;
    assert_eq!(last.secret, second.secret);
    assert!(last.revoked, "nobody has it any more");
    world.end().await
}
