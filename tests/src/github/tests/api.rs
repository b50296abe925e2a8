//! The REST API, GraphQL and the pages.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn graphql_marks_ready_and_back_with_github_s_errors() {
    let world = World::new(widgets()).await;
    world.pushed_branch("topic", "42").await;
    let pull = world.open_pull("topic").await;
    let node = pull["node_id"].as_str().unwrap();
    let query = "mutation($id: ID!) { markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { isDraft headRefOid } } }";
    let ready = json!({"query": query, "variables": {"id": node}});
    let answer = world.graphql(ready.clone()).await;
    assert_eq!(
        answer,
        json!({"data": {"markPullRequestReadyForReview": {"pullRequest": {"isDraft": false, "headRefOid": pull["head"]["sha"]}}}})
    );
    assert_eq!(
        world.graphql(ready.clone()).await["errors"][0]["type"],
        "UNPROCESSABLE"
    );
    let back = format!(
        "mutation {{ convertPullRequestToDraft(input: {{pullRequestId: \"{node}\"}}) {{ pullRequest {{ isDraft }} }} }}"
    );
    assert_eq!(
        world.graphql(json!({"query": back})).await["data"]["convertPullRequestToDraft"]["pullRequest"]
            ["isDraft"],
        true
    );

    let unknown = world
        .graphql(json!({"query": query, "variables": {"id": "PR_none"}}))
        .await;
    assert_eq!(
        unknown["data"]["markPullRequestReadyForReview"],
        Value::Null
    );
    assert_eq!(unknown["errors"][0]["type"], "NOT_FOUND");
    assert_eq!(
        unknown["errors"][0]["message"],
        "Could not resolve to a node with the global id of 'PR_none'"
    );
    let field = world
        .graphql(json!({"query": "query { viewer { login colour } }"}))
        .await;
    assert_eq!(
        field["errors"][0]["message"],
        "Field 'colour' doesn't exist on type 'User'"
    );
    assert!(field.get("data").is_none());
    world.github.add_token(
        "secret",
        Token::fine_grained("robot").with(Scope::PullRequests, Level::Read),
    );
    assert_eq!(world.graphql(ready).await["errors"][0]["type"], "FORBIDDEN");
    let rest_path = world
        .send(
            Method::POST,
            "/api/v3/graphql",
            &[("authorization", "Bearer secret")],
            Some(json!({})),
        )
        .await
        .unwrap();
    assert_eq!(
        rest_path.status, 404,
        "an Enterprise server has GraphQL at /api/graphql alone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_unchanged_answers_as_304() {
    let world = World::new(widgets()).await;
    for n in 0..7 {
        world
            .github
            .person(if n % 2 == 0 { "alice" } else { "bob" })
            .open_issue(REPO, &format!("Issue {n}"), "")
            .unwrap();
    }
    let mut seen = Vec::new();
    let mut next = Some(format!(
        "{}/repos/acme/widgets/issues?per_page=3&creator=alice&labels",
        world.github.api_url()
    ));
    while let Some(url) = next.take() {
        let page = world
            .send(
                Method::GET,
                &url,
                &[("authorization", "Bearer secret")],
                None,
            )
            .await
            .unwrap()
            .expect(200);
        seen.extend(
            page.json()
                .as_array()
                .unwrap()
                .iter()
                .map(|issue| issue["title"].as_str().unwrap().to_owned()),
        );
        let link = page
            .headers
            .get("link")
            .map_or("", |link| link.to_str().unwrap());
        next = link
            .split(", ")
            .find(|part| part.ends_with("rel=\"next\""))
            .map(|part| part[1..part.find('>').unwrap()].to_owned());
    }
    assert_eq!(seen, ["Issue 6", "Issue 4", "Issue 2", "Issue 0"]);

    let first = world.get("/repos/acme/widgets/issues/1").await.expect(200);
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let again = async || {
        let headers = [
            ("authorization", "Bearer secret"),
            ("if-none-match", etag.as_str()),
        ];
        world
            .send(
                Method::GET,
                "/api/v3/repos/acme/widgets/issues/1",
                &headers,
                None,
            )
            .await
            .unwrap()
    };
    let same = again().await.expect(304);
    assert_eq!(
        (same.text.as_str(), &same.headers["x-ratelimit-remaining"]),
        ("", &first.headers["x-ratelimit-remaining"]),
        "a 304 is free"
    );
    world.github.person("bob").comment(REPO, 1, "news").unwrap();
    assert_eq!(again().await.expect(200).json()["comments"], 1);
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_worded_as_github_words_them() {
    let world = World::new(widgets()).await;
    let as_token = async |secret: &str, method: Method, path: &str, body: Option<Value>| {
        let auth = format!("token {secret}");
        world
            .send(
                method,
                &format!("/api/v3{path}"),
                &[("authorization", &auth)],
                body,
            )
            .await
            .unwrap()
    };
    assert_eq!(
        as_token("wrong", Method::GET, "/user", None)
            .await
            .expect(401)
            .json()["message"],
        "Bad credentials"
    );
    world.github.add_token("other", Token::classic("stranger"));
    assert_eq!(
        as_token("other", Method::GET, "/repos/acme/widgets", None)
            .await
            .expect(404)
            .json()["message"],
        "Not Found"
    );
    world.github.add_token(
        "fine",
        Token::fine_grained("robot").with(Scope::Issues, Level::Read),
    );
    let refused = as_token(
        "fine",
        Method::POST,
        "/repos/acme/widgets/issues",
        Some(json!({"title": "x"})),
    )
    .await
    .expect(403);
    assert_eq!(
        refused.headers["x-accepted-github-permissions"],
        "issues=write"
    );
    assert_eq!(
        refused.json()["message"],
        "Resource not accessible by personal access token"
    );
    as_token(
        "fine",
        Method::GET,
        "/repos/acme/widgets/commits/main/check-runs",
        None,
    )
    .await
    .expect(403);
    world
        .github
        .add_token("app", Token::installation("mainloop[bot]"));
    assert_eq!(
        as_token("app", Method::GET, "/user", None)
            .await
            .expect(403)
            .json()["message"],
        "Resource not accessible by integration"
    );

    let pull = |head: &str| json!({"title": "T", "head": head, "base": "main"});
    let unknown = world
        .post("/repos/acme/widgets/pulls", pull("nowhere"))
        .await
        .expect(422)
        .json();
    assert_eq!(
        unknown["errors"],
        json!([{"resource": "PullRequest", "field": "head", "code": "invalid"}])
    );
    let empty = world
        .post("/repos/acme/widgets/pulls", pull("main"))
        .await
        .expect(422)
        .json();
    assert_eq!(
        empty["errors"][0]["message"],
        "No commits between main and main"
    );
    world.pushed_branch("topic", "42").await;
    world
        .post("/repos/acme/widgets/pulls", pull("topic"))
        .await
        .expect(201);
    let twice = world
        .post("/repos/acme/widgets/pulls", pull("topic"))
        .await
        .expect(422)
        .json();
    assert_eq!(
        (
            twice["message"].as_str(),
            twice["errors"][0]["message"].as_str()
        ),
        (
            Some("Validation Failed"),
            Some("A pull request already exists for acme:topic.")
        )
    );
    assert_eq!(
        twice["documentation_url"],
        "https://docs.github.com/rest/pulls/pulls#create"
    );
    world
        .github
        .change_repo(REPO, |repo| repo.archived = true)
        .unwrap();
    let archived = world
        .post("/repos/acme/widgets/issues", json!({"title": "x"}))
        .await
        .expect(403)
        .json();
    assert_eq!(
        archived["message"],
        "Repository was archived so is read-only."
    );
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_are_caught_by_the_contract() {
    let world = World::new(widgets()).await;
    let answer = world
        .post("/repos/acme/widgets/issues", json!({"titel": "x"}))
        .await
        .expect(500)
        .json();
    assert_eq!(
        answer["message"],
        r#"contract violation: issues/create request at "": "title" is a required property"#
    );
    world
        .get("/repos/acme/widgets/issues?stat=open")
        .await
        .expect(500);
    world
        .get("/repos/acme/widgets/stargazers")
        .await
        .expect(404);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.github.assert_contract();
    }))
    .unwrap_err();
    let text = caught.downcast_ref::<String>().unwrap();
    assert!(
        text.contains("broken 3 times")
            && text.contains("\"stat\"")
            && text.contains("/stargazers"),
        "{text}"
    );
    assert!(
        world
            .github
            .read(|site| site.repo(REPO).unwrap().issues.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_strike_before_or_after_the_effect() {
    let world = World::new(widgets()).await;
    let issue = json!({"title": "once"});
    let count = || {
        world
            .github
            .read(|site| site.repo(REPO).unwrap().issues.len())
    };
    let create = async || {
        world
            .send(
                Method::POST,
                "/api/v3/repos/acme/widgets/issues",
                &[("authorization", "Bearer secret")],
                Some(issue.clone()),
            )
            .await
    };
    world
        .github
        .fault(Fault::new("POST", "/issues", FaultKind::CutAfter));
    assert!(create().await.is_none());
    assert_eq!(count(), 1, "the issue was made although no answer came");
    world
        .github
        .fault(Fault::new("POST", "/issues", FaultKind::CutBefore));
    assert!(create().await.is_none());
    world
        .github
        .fault(Fault::new("", "/issues", FaultKind::Status(502)).times(2));
    create().await.unwrap().expect(502);
    world.get("/repos/acme/widgets/issues").await.expect(502);
    world.github.fault(Fault::new(
        "POST",
        "/issues",
        FaultKind::SecondaryRateLimit(7),
    ));
    let limited = create().await.unwrap().expect(403);
    assert_eq!(limited.headers["retry-after"], "7");
    assert_eq!(count(), 1);
    create().await.unwrap().expect(201);
    let statuses: Vec<_> = world
        .github
        .requests()
        .iter()
        .map(|request| (request.status, request.faulted))
        .collect();
    assert_eq!(
        statuses,
        [
            (0, true),
            (0, true),
            (502, true),
            (502, true),
            (403, true),
            (201, false)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_are_counted_told_and_over_in_time() {
    let world = World::new(widgets()).await;
    let path = "/repos/acme/widgets/issues";
    world
        .github
        .leave_requests("robot", 1, Duration::from_mins(5));
    let last = world.get(path).await.expect(200);
    assert_eq!(last.headers["x-ratelimit-remaining"], "0");
    let refused = world.get(path).await.expect(403);
    assert!(refused.text.contains("API rate limit exceeded"));
    assert_eq!(refused.headers["x-ratelimit-remaining"], "0");
    world.get("/rate_limit").await.expect(200);
    world.github.pass_time(Duration::from_mins(5));
    let again = world.get(path).await.expect(200);
    assert_eq!(again.headers["x-ratelimit-remaining"], "4999");

    world.github.leave_writes("robot", 1);
    let create = || world.api(Method::POST, path, Some(json!({"title": "Once"})));
    create().await.expect(201);
    let refused = create().await.expect(403);
    assert!(refused.text.contains("secondary rate limit"));
    let wait = refused.headers["retry-after"].to_str().unwrap();
    assert!((1..=60).contains(&wait.parse::<u64>().unwrap()), "{wait}");
    world.get(path).await.expect(403);
    world.github.pass_time(Duration::from_mins(1));
    create().await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_the_table_is_complete() {
    let world = World::new(widgets().file("docs/guide.md", "text").public()).await;
    world
        .github
        .person("alice")
        .open_issue(REPO, "One", "Text")
        .unwrap();
    world.pushed_branch("topic", "40").await;
    let pull = world.open_pull("topic").await;
    let sha = pull["head"]["sha"].as_str().unwrap();
    world.conclusion(sha).await;
    let root = "/repos/acme/widgets";
    let comment = world
        .post(
            &format!("{root}/issues/1/comments"),
            json!({"body": "hello"}),
        )
        .await
        .expect(201)
        .json()["id"]
        .as_u64()
        .unwrap();
    world
        .post(
            &format!("{root}/labels"),
            json!({"name": "help wanted", "color": "008672"}),
        )
        .await
        .expect(201);
    world
        .post(
            &format!("{root}/issues/1/labels"),
            json!({"labels": ["bug", "help wanted"]}),
        )
        .await
        .expect(200);
    world
        .post(
            &format!("{root}/issues/1/assignees"),
            json!({"assignees": ["robot"]}),
        )
        .await
        .expect(201);
    world.post(&format!("{root}/pulls/2/reviews"), json!({"event": "COMMENT", "body": "hm", "comments": [{"path": "answer.txt", "body": "why", "line": 1}]})).await.expect(200);
    world
        .api(
            Method::PATCH,
            &format!("{root}/issues/1"),
            Some(json!({"body": "New", "labels": ["bug"]})),
        )
        .await
        .expect(200);
    world
        .api(
            Method::PATCH,
            &format!("{root}/issues/comments/{comment}"),
            Some(json!({"body": "edited"})),
        )
        .await
        .expect(200);
    world
        .api(
            Method::PATCH,
            &format!("{root}/pulls/2"),
            Some(json!({"title": "Better"})),
        )
        .await
        .expect(200);
    let job = world
        .github
        .read(|site| site.repo(REPO).unwrap().check_runs[0].id);
    let run = world
        .github
        .read(|site| site.repo(REPO).unwrap().runs[0].id);
    let gets = [
        "/user".to_owned(),
        "/rate_limit".to_owned(),
        "/users/alice".to_owned(),
        root.to_owned(),
        format!("{root}/branches/topic"),
        format!("{root}/git/ref/heads/topic"),
        format!("{root}/git/matching-refs/heads/"),
        format!("{root}/commits"),
        format!("{root}/commits/{sha}"),
        format!("{root}/compare/main...topic"),
        format!("{root}/contents"),
        format!("{root}/contents/docs/guide.md?ref=topic"),
        format!("{root}/collaborators/robot/permission"),
        format!("{root}/collaborators/alice/permission"),
        format!("{root}/issues?state=all"),
        format!("{root}/issues/1"),
        format!("{root}/issues/1/comments"),
        format!("{root}/issues/comments/{comment}"),
        format!("{root}/issues/1/labels"),
        format!("{root}/labels"),
        format!("{root}/pulls?state=all&head=acme:topic"),
        format!("{root}/pulls/2"),
        format!("{root}/pulls/2/files"),
        format!("{root}/pulls/2/commits"),
        format!("{root}/pulls/2/reviews"),
        format!("{root}/pulls/2/comments"),
        format!("{root}/commits/{sha}/pulls"),
        format!("{root}/commits/{sha}/check-runs"),
        format!("{root}/commits/{sha}/check-suites"),
        format!("{root}/check-runs/{job}"),
        format!("{root}/check-runs/{job}/annotations"),
        format!("{root}/commits/topic/status"),
        format!("{root}/commits/topic/statuses"),
        format!("{root}/actions/runs"),
        format!("{root}/actions/runs/{run}"),
        format!("{root}/actions/runs/{run}/jobs"),
        format!("{root}/actions/jobs/{job}"),
    ];
    for path in gets {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    world
        .get(&format!("{root}/pulls/2/merge"))
        .await
        .expect(404);
    world
        .api(Method::DELETE, &format!("{root}/issues/1/labels/bug"), None)
        .await
        .expect(200);
    world
        .api(
            Method::DELETE,
            &format!("{root}/issues/comments/{comment}"),
            None,
        )
        .await
        .expect(204);
    world
        .api(
            Method::DELETE,
            &format!("{root}/git/refs/heads/topic"),
            None,
        )
        .await
        .expect(204);
    assert_eq!(
        world
            .get(&format!("{root}/pulls/2"))
            .await
            .expect(200)
            .json()["state"],
        "closed",
        "without its branch"
    );
    for page in [
        "",
        "/acme/widgets",
        "/acme/widgets/issues/1",
        "/acme/widgets/pull/2",
        &format!("/acme/widgets/actions/runs/{run}/job/{job}"),
        &format!("/acme/widgets/commit/{sha}"),
    ] {
        world
            .send(Method::GET, &format!("{page}/"), &[], None)
            .await
            .unwrap()
            .expect(200);
    }
    world.github.assert_contract();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_escape_what_people_wrote() {
    let world = World::new(widgets()).await;
    let number = world
        .github
        .person("mallory")
        .open_issue(
            REPO,
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
        )
        .unwrap();
    let page = world
        .send(
            Method::GET,
            &format!("/acme/widgets/issues/{number}"),
            &[],
            None,
        )
        .await
        .unwrap()
        .expect(200)
        .text;
    assert!(
        !page.contains("<script>") && !page.contains("<img"),
        "{page}"
    );
    assert!(page.contains("&lt;script&gt;"));
}
