//! Pushes that nobody approved: before the plan is, to another ref, to another repository.

use anyhow::Result;
use mainloop_proto::v1::TaskState;
use mainloop_tests::{
    anthropic::{Reply, Rule, call, when},
    world::{World, script},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_pushed_before_a_plan_is_approved() -> Result<()> {
    let mut replies = vec![Reply::call(call::bash(
        "git push origin HEAD:refs/heads/early",
    ))];
    replies.extend(script::present(script::SUBTRACT_PLAN));
    let script = script::rules(
        "impatient",
        vec![
            Rule::sequence(when::prompt(script::PLAN), replies),
            script::implementing(vec![script::subtract(true)], "Done."),
        ],
    );
    let world = World::scripted(script).await?;
    // The repository's own setup commands run before Claude does, and nobody keeps them from calling git.
    let mut files = script::calculator();
    files.push((
        ".mainloop.toml",
        "setup = [\"git push origin HEAD:refs/heads/early || true\", \"git push origin HEAD:refs/heads/$(git branch --show-current) || true\"]\n",
    ));
    let task = world.begin(&files).await?;
    task.expect_event("push_refused").await?;
    task.expect_state(TaskState::PlanReview).await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert!(repo.pushes.is_empty(), "{:?}", repo.pushes);
        assert_eq!(repo.refs.len(), 1, "{:?}", repo.refs);
    });
    let tried = world.model().outcomes("Bash");
    let tried: Vec<bool> = tried.iter().map(|outcome| outcome.is_error).collect();
    assert_eq!(tried, [true], "Claude's own try, once, is denied");
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_to_another_ref_or_repository_are_refused() -> Result<()> {
    let tries = "\
        for spec in HEAD:refs/heads/main HEAD:refs/heads/other HEAD:refs/tags/v1 :refs/heads/main +HEAD:refs/heads/main; do\n\
          git push origin \"$spec\" >/tmp/out 2>&1 && echo \"PUSHED $spec\" || echo \"refused $spec\"\n\
        done\n\
        other=$(git remote get-url origin | sed 's#calc#other#')\n\
        git push \"$other\" HEAD:refs/heads/main >/tmp/out 2>&1 && echo PUSHED other || echo refused other\n\
        git ls-remote \"$other\" >/tmp/out 2>&1 && echo READ other || echo unread other";
    let script = script::rules(
        "wanders",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::implementing(vec![script::subtract(true), call::bash(tries)], "Done."),
        ],
    );
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;
    world.repo("other", &[("secret.txt", "not yours\n")])?;
    let before = world.github().read(|site| {
        site.repo("ada/calc")
            .unwrap()
            .branch("main")
            .unwrap()
            .to_owned()
    });
    let task = world.submit(&repo, script::TASK).await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;
    let said = world.model().outcomes("Bash");
    let said: Vec<&str> = said.iter().map(|outcome| outcome.text.as_str()).collect();
    let said = said.join("\n");
    assert_eq!(said.matches("refused ").count(), 6, "{said}");
    assert!(said.contains("unread other"), "{said}");
    assert!(!said.contains("PUSHED") && !said.contains("READ"), "{said}");
    task.expect_event("push_refused").await?;
    world.github().read(|site| {
        let repo = site.repo("ada/calc").unwrap();
        assert_eq!(repo.branch("main"), Some(before.as_str()));
        // The code host's own refs of pull requests are not pushed by anybody.
        let mut names: Vec<&str> = repo
            .refs
            .keys()
            .map(String::as_str)
            .filter(|name| !name.starts_with("refs/pull/"))
            .collect();
        names.sort_unstable();
        let own = format!("refs/heads/{}", task.now().branch);
        assert_eq!(names, ["refs/heads/main", own.as_str()]);
        assert!(site.repo("ada/other").unwrap().pushes.is_empty());
    });
    world.end().await
}
