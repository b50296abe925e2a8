//! The client that mainloop uses, and the emulator, agree: what it reads, and what it makes when it has to try again.

use mainloop_github::{
    CheckTags, Class, Client as Api, Conditional, Marker, MarkerKind, NewPull, PullState,
    ReviewTags, Verdict, verdict,
};

use super::*;

fn client(github: &GitHub, secret: &str) -> Api {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let base = github.api_url().parse().unwrap();
    let repo = mainloop_github::Repo {
        owner: "acme".into(),
        name: "widgets".into(),
    };
    Api::new(&base, repo, &secret.to_owned().into()).unwrap()
}

async fn verdict_of(world: &World, api: &Api, sha: &str) -> Verdict {
    world.conclusion(sha).await;
    verdict(&api.checks(sha).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_head_comes_from_is_in_it_and_what_comes_later_is_not() {
    let world = World::new(widgets()).await;
    let api = client(&world.github, "secret");
    let before = api.branch_head("main").await.unwrap().unwrap();
    let alice = world.github.person("alice");
    let after = alice.push_file(REPO, "main", "notes", "x\n").unwrap();
    for (commit, head, is_in) in [
        (&before, &after, true),
        (&after, &after, true),
        (&after, &before, false),
        (&"0".repeat(40), &after, false),
    ] {
        assert_eq!(api.is_in(commit, head).await.unwrap(), is_in);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_s_whole_life_goes_through_the_real_client() {
    let world = World::new(widgets()).await;
    let api = client(&world.github, "secret");
    assert_eq!(api.identity().await.unwrap().login, "robot");
    let repository = api.repository().await.unwrap();
    assert_eq!(
        (repository.default_branch.as_str(), repository.can_push),
        ("main", Some(true))
    );
    assert_eq!(
        api.file_at("answer.txt", "main", 100)
            .await
            .unwrap()
            .as_deref(),
        Some(&b"41\n"[..])
    );
    assert_eq!(
        api.file_at(".mainloop.toml", "main", 100).await.unwrap(),
        None
    );

    let marker = Marker::new("0198", MarkerKind::Plan);
    world
        .github
        .fault(Fault::new("POST", "/issues", FaultKind::CutAfter));
    let issue = api
        .ensure_planning_issue(&marker, "Plan", "Change it.")
        .await
        .unwrap();
    let again = api
        .ensure_planning_issue(&marker, "Plan", "Change it.")
        .await
        .unwrap();
    assert_eq!(issue.number, again.number);
    assert_eq!(
        world
            .github
            .read(|site| site.repo(REPO).unwrap().issues.len()),
        1,
        "one issue, although its answer was lost"
    );
    world
        .github
        .person("alice")
        .comment(REPO, issue.number, "a stranger's word")
        .unwrap();
    world
        .github
        .person("acme")
        .comment(REPO, issue.number, "the owner's word")
        .unwrap();
    let thread = api.issue(issue.number).await.unwrap();
    let trusted: Vec<_> = thread
        .comments
        .iter()
        .map(|comment| (comment.author.as_str(), comment.trusted))
        .collect();
    assert_eq!(trusted, [("alice", false), ("acme", true)]);

    let clone = world.pushed_branch("mainloop/answer", "40").await;
    let red = api.branch_head("mainloop/answer").await.unwrap().unwrap();
    let new = NewPull {
        head: "mainloop/answer",
        base: "main",
        title: "Answer",
        body: "Part of #1",
        draft: true,
    };
    world
        .github
        .fault(Fault::new("POST", "/pulls", FaultKind::CutAfter));
    let marker = Marker::new("0198", MarkerKind::Pull);
    let pull = api.ensure_draft_pull(&marker, &new).await.unwrap();
    assert_eq!((pull.draft, pull.head_sha.as_str()), (true, red.as_str()));
    let Conditional::Changed { etag, .. } = api.pull_if_changed(pull.number, None).await.unwrap()
    else {
        panic!("the first look sees something")
    };

    let Verdict::Failed { checks } = verdict_of(&world, &api, &red).await else {
        panic!("red is red")
    };
    let log = api.failure_log(&checks[0], 4096).await.unwrap();
    assert!(
        log.contains("wrong answer") && log.contains("exit code 3"),
        "{log}"
    );
    world.commit(&clone, "42").await;
    world
        .git_ok(&clone, &["push", "--quiet", "origin", "HEAD"])
        .await;
    let green = api.branch_head("mainloop/answer").await.unwrap().unwrap();
    assert!(matches!(
        verdict_of(&world, &api, &green).await,
        Verdict::Passed { succeeded: 1, .. }
    ));
    let ready = api.mark_ready(&pull).await.unwrap();
    assert!(!ready.draft && ready.head_sha == green);
    let Conditional::Changed { etag: moved, .. } = api
        .pull_if_changed(pull.number, etag.as_deref())
        .await
        .unwrap()
    else {
        panic!("the pull request moved")
    };
    assert_eq!(
        api.pull_if_changed(pull.number, moved.as_deref())
            .await
            .unwrap(),
        Conditional::NotModified
    );
    world
        .github
        .person("alice")
        .merge(REPO, pull.number)
        .unwrap();
    assert!(
        matches!(api.pull(pull.number).await.unwrap().state, PullState::Merged { by: Some(by), .. } if by == "alice")
    );
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_may_not_do_has_its_class() {
    let world = World::new(widgets()).await;
    world
        .github
        .add_token("app", Token::installation("mainloop[bot]"));
    world
        .github
        .add_collaborator(REPO, "mainloop[bot]", Role::Write)
        .unwrap();
    assert!(
        client(&world.github, "app")
            .identity()
            .await
            .unwrap()
            .is_bot
    );
    assert_eq!(
        client(&world.github, "wrong")
            .identity()
            .await
            .unwrap_err()
            .class(),
        Class::Unauthorized
    );

    world.github.add_token(
        "fine",
        Token::fine_grained("robot").with(Scope::Issues, Level::Read),
    );
    let fine = client(&world.github, "fine");
    let refused = fine
        .ensure_planning_issue(&Marker::new("0198", MarkerKind::Plan), "Plan", "x")
        .await
        .unwrap_err();
    assert!(
        matches!(refused.class(), Class::Forbidden { .. }),
        "{refused}"
    );
    let alice = world.github.person("alice");
    let sha = alice.push_file(REPO, "topic", "answer.txt", "42").unwrap();
    alice.open_pull(REPO, "topic", "Topic", true).unwrap();
    world.conclusion(&sha).await;
    let checks = fine.checks(&sha).await.unwrap();
    assert!(
        !checks.limited.is_empty(),
        "check runs are out of a fine-grained token's sight"
    );
    assert!(
        matches!(verdict(&checks), Verdict::Passed { .. }),
        "but Actions runs are not: {checks:?}"
    );
    world.github.fault(Fault::new(
        "GET",
        "/pulls/1",
        FaultKind::SecondaryRateLimit(60),
    ));
    assert!(matches!(
        fine.pull(1).await.unwrap_err().class(),
        Class::RateLimited { .. }
    ));
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_read_when_they_change_and_answered_once() {
    let world = World::new(widgets()).await;
    let (github, api) = (&world.github, client(&world.github, "secret"));
    let (acme, eve) = (github.person("acme"), github.person("eve"));
    world.pushed_branch("mainloop/answer", "42").await;
    let head = api.branch_head("mainloop/answer").await.unwrap().unwrap();
    let number = github
        .person("robot")
        .open_pull(REPO, "mainloop/answer", "Answer", false)
        .unwrap();
    let comment = ("answer.txt", 1, "Why not 41?");
    acme.review_with(REPO, number, "CHANGES_REQUESTED", "Hm.", &[comment])
        .unwrap();
    eve.review_with(REPO, number, "COMMENTED", "", &[comment])
        .unwrap();
    assert!(api.may_write("acme").await.unwrap());
    assert!(!api.may_write("eve").await.unwrap());
    assert!(!api.may_write("nobody").await.unwrap());

    let look = async |tags: &ReviewTags| {
        api.reviews_if_changed(number, "0198", tags, false)
            .await
            .unwrap()
    };
    let (threads, tags) = look(&ReviewTags::default()).await.unwrap();
    let seen: Vec<_> = threads
        .iter()
        .map(|thread| (thread.is_review, thread.author.as_str(), thread.answered))
        .collect();
    assert_eq!(seen, [(false, "acme", false), (true, "acme", false)]);
    assert_eq!(look(&tags).await, None, "nothing has changed");

    let root = threads[0].id;
    let marker = Marker::new("0198", MarkerKind::Reply(threads[0].newest));
    github.fault(Fault::new("POST", "/replies", FaultKind::CutAfter));
    for _ in 0..2 {
        let reply = api.ensure_reply(number, root, &marker, "Because.").await;
        assert!(reply.unwrap().is_some());
    }
    let gone = api.ensure_reply(number, 1, &marker, "Because.").await;
    assert_eq!(gone.unwrap(), None, "nobody is left to be answered");
    let replies = github.read(|site| {
        let comments = site.repo(REPO).unwrap().review_comments(number);
        comments
            .iter()
            .filter(|(author, comment)| *author == "robot" && comment.reply_to == Some(root))
            .count()
    });
    assert_eq!(replies, 1, "one reply, although its answer was lost");
    let (threads, tags) = look(&tags).await.unwrap();
    assert!(threads[0].answered && !threads[1].answered, "{threads:?}");

    assert_eq!(api.reviewers_to_ask(number, &head).await.unwrap(), [""; 0]);
    let waiting = api.reviewers_to_ask(number, "another").await.unwrap();
    assert_eq!(waiting, ["acme"]);
    api.request_review(number, "acme").await.unwrap();
    api.request_review(number, "acme").await.unwrap();
    assert!(api.request_review(number, "eve").await.is_err());
    acme.reply(REPO, number, root, "Still: why?").unwrap();
    let (threads, _) = look(&tags).await.unwrap();
    let open: Vec<_> = threads.iter().filter(|thread| !thread.answered).collect();
    assert_eq!(open.len(), 2, "another word opens it again: {threads:?}");
    github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_read_when_they_change() {
    let world = World::new(widgets()).await;
    let api = client(&world.github, "secret");
    world.pushed_branch("mainloop/answer", "42").await;
    let head = api.branch_head("mainloop/answer").await.unwrap().unwrap();
    let robot = world.github.person("robot");
    robot
        .open_pull(REPO, "mainloop/answer", "Answer", false)
        .unwrap();
    world.conclusion(&head).await;
    let look = async |tags: &CheckTags| api.checks_if_changed(&head, tags).await.unwrap();
    let (checks, tags) = look(&CheckTags::default()).await.unwrap();
    assert!(matches!(verdict(&checks), Verdict::Passed { .. }));
    assert_eq!(look(&tags).await, None, "nothing has changed");
    world
        .github
        .post_check(REPO, &head, "nightly", Some(Conclusion::Failure))
        .unwrap();
    let (checks, tags) = look(&tags).await.unwrap();
    assert!(matches!(verdict(&checks), Verdict::Failed { .. }));
    assert_eq!(look(&tags).await, None);
    world.github.assert_contract();
}
