//! The CI, from a push to a verdict.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn red_and_green_are_earned_from_push_to_merge() {
    let world = World::new(widgets()).await;
    let issue = world
        .github
        .person("alice")
        .open_issue(REPO, "Wrong answer", "It should be 42.")
        .unwrap();
    let clone = world.pushed_branch("mainloop/answer", "40").await;
    let pull = world.open_pull("mainloop/answer").await;
    assert_eq!(
        (pull["draft"].as_bool(), pull["number"].as_u64()),
        (Some(true), Some(issue + 1))
    );

    let red = pull["head"]["sha"].as_str().unwrap().to_owned();
    assert_eq!(world.conclusion(&red).await, Conclusion::Failure);
    let checks = world
        .get(&format!("/repos/acme/widgets/commits/{red}/check-runs"))
        .await
        .expect(200)
        .json();
    assert_eq!(checks["total_count"], 1);
    let job = checks["check_runs"][0]["id"].as_u64().unwrap();
    let redirect = world
        .get(&format!("/repos/acme/widgets/actions/jobs/{job}/logs"))
        .await
        .expect(302);
    let target = redirect.headers["location"].to_str().unwrap();
    let log = world
        .send(Method::GET, target, &[], None)
        .await
        .unwrap()
        .expect(200)
        .text;
    for line in [
        "##[group]Run echo",
        &format!("checking {red}"),
        "wrong answer",
        "##[error]Process completed with exit code 3.",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log:\n{log}");
    }
    world
        .send(
            Method::GET,
            target,
            &[("authorization", "Bearer secret")],
            None,
        )
        .await
        .unwrap()
        .expect(400);
    let jobs = world
        .get(&format!("/repos/acme/widgets/actions/jobs/{job}"))
        .await
        .expect(200)
        .json();
    assert_eq!(jobs["steps"][2]["conclusion"], "failure", "{jobs}");

    world.commit(&clone, "42").await;
    world
        .git_ok(&clone, &["push", "--quiet", "origin", "HEAD"])
        .await;
    let number = pull["number"].as_u64().unwrap();
    let path = format!("/repos/acme/widgets/pulls/{number}");
    let moved = world.get(&path).await.expect(200).json();
    let green = moved["head"]["sha"].as_str().unwrap().to_owned();
    assert_ne!(
        green, red,
        "the pull request follows the push before the push returns"
    );
    assert_eq!(world.conclusion(&green).await, Conclusion::Success);

    let refused = world
        .api(Method::PUT, &format!("{path}/merge"), Some(json!({})))
        .await
        .expect(405)
        .json();
    assert_eq!(refused["message"], "Pull Request is still a draft");
    world
        .github
        .person("alice")
        .mark_ready(REPO, number)
        .unwrap();
    let stale = json!({"sha": red});
    world
        .api(Method::PUT, &format!("{path}/merge"), Some(stale))
        .await
        .expect(409);
    world
        .api(
            Method::PUT,
            &format!("{path}/merge"),
            Some(json!({"sha": green})),
        )
        .await
        .expect(200);
    let merged = world.get(&path).await.expect(200).json();
    assert_eq!(
        (merged["merged"].as_bool(), merged["state"].as_str()),
        (Some(true), Some("closed"))
    );
    world.github.read(|site| {
        let repo = site.repo(REPO).unwrap();
        assert_eq!(repo.file("main", "answer.txt").as_deref(), Some("42"));
        assert!(
            !repo.issues[&issue].open,
            "the merge closes the issue that it fixes"
        );
        assert!(repo.messages("main")[0].starts_with(&format!(
            "Merge pull request #{number} from acme/mainloop/answer"
        )));
        assert_eq!(
            repo.pushes
                .iter()
                .filter(|push| push.login == "robot" && push.name == "refs/heads/mainloop/answer")
                .count(),
            2
        );
    });
    let page = world
        .send(
            Method::GET,
            &format!("/acme/widgets/pull/{number}"),
            &[],
            None,
        )
        .await
        .unwrap()
        .expect(200)
        .text;
    assert!(
        page.contains("Merged") && page.contains("success") && page.contains("+42"),
        "{page}"
    );
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn ci_is_held_forced_absent_or_broken_as_ordered() {
    let world = World::new(widgets()).await;
    let alice = world.github.person("alice");
    world.github.set_ci(REPO, |ci| ci.hold = true).unwrap();
    let held = alice.push_file(REPO, "held", "answer.txt", "42").unwrap();
    alice.open_pull(REPO, "held", "Held", true).unwrap();
    let queued = world
        .get(&format!("/repos/acme/widgets/commits/{held}/check-runs"))
        .await
        .expect(200)
        .json();
    assert_eq!(queued["check_runs"][0]["status"], "queued");
    world.github.set_ci(REPO, |ci| ci.hold = false).unwrap();
    assert_eq!(world.conclusion(&held).await, Conclusion::Success);

    for (at, forced) in [
        Conclusion::Cancelled,
        Conclusion::TimedOut,
        Conclusion::ActionRequired,
        Conclusion::Skipped,
        Conclusion::Neutral,
    ]
    .into_iter()
    .enumerate()
    {
        world
            .github
            .set_ci(REPO, |ci| ci.force = Some(forced))
            .unwrap();
        let branch = format!("forced-{at}");
        let sha = alice.push_file(REPO, &branch, "answer.txt", "42").unwrap();
        alice.open_pull(REPO, &branch, "Forced", true).unwrap();
        assert_eq!(world.conclusion(&sha).await, forced);
        world
            .get(&format!("/repos/acme/widgets/commits/{sha}/check-runs"))
            .await
            .expect(200);
    }
    world.github.set_ci(REPO, |ci| ci.force = None).unwrap();
    let broken = alice
        .push_file(
            REPO,
            "broken",
            ".github/workflows/ci.yml",
            "on: [push\njobs:",
        )
        .unwrap();
    let suites = world
        .get(&format!(
            "/repos/acme/widgets/commits/{broken}/check-suites"
        ))
        .await
        .expect(200)
        .json();
    assert_eq!(suites["check_suites"][0]["conclusion"], "startup_failure");
    let runs = world
        .get(&format!(
            "/repos/acme/widgets/actions/runs?head_sha={broken}"
        ))
        .await
        .expect(200)
        .json();
    assert_eq!(runs["workflow_runs"][0]["conclusion"], "startup_failure");
    let removed = Files::from([(".github/workflows/ci.yml".to_owned(), None)]);
    let bare = alice.push(REPO, "bare", "No CI", &removed).unwrap();
    alice.open_pull(REPO, "bare", "Bare", true).unwrap();
    let none = world
        .get(&format!("/repos/acme/widgets/commits/{bare}/check-suites"))
        .await
        .expect(200)
        .json();
    assert_eq!(none["total_count"], 0);

    world
        .github
        .post_status(REPO, &bare, "ci/other", "failure")
        .unwrap();
    world
        .post(
            &format!("/repos/acme/widgets/statuses/{bare}"),
            json!({"state": "success", "context": "ci/other"}),
        )
        .await
        .expect(201);
    let combined = world
        .get(&format!("/repos/acme/widgets/commits/{bare}/status"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (combined["state"].as_str(), combined["total_count"].as_u64()),
        (Some("success"), Some(1))
    );
    world
        .github
        .post_check(REPO, &bare, "gate", Some(Conclusion::Failure))
        .unwrap();
    assert_eq!(world.conclusion(&bare).await, Conclusion::Failure);
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn ci_processes_end_with_the_emulator_even_daemons() {
    let marker = tempfile::tempdir().unwrap();
    let pid_file = marker.path().join("pid");
    let workflow = format!(
        "on: push\njobs:\n  slow:\n    steps:\n      - run: 'setsid sleep 1000 & echo $$ $! > {0}.tmp; mv {0}.tmp {0}; sleep 1000'\n",
        pid_file.display()
    );
    let world = World::new(Seed::new(REPO).file("README.md", "x")).await;
    world
        .github
        .person("alice")
        .push_file(REPO, "slow", ".github/workflows/slow.yml", &workflow)
        .unwrap();
    let pids: Vec<i32> = poll("the step's process ids", || {
        let text = std::fs::read_to_string(&pid_file).ok()?;
        text.split_whitespace()
            .map(|pid| pid.parse().ok())
            .collect()
    })
    .await;
    assert_eq!(pids.len(), 2, "the step and its daemon");
    drop(world);
    for pid in pids {
        // A killed orphan is a zombie until whoever is process 1 reaps it.
        let over = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        };
        poll("a process of the step to be gone", over).await;
    }
}
