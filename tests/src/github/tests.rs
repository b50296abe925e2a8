//! The emulator's own stories, over real connections and with the real `git`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::*;

const REPO: &str = "acme/widgets";
const WORKFLOW: &str = "\
name: CI
on: [pull_request]
env:
  EXPECTED: 42
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Unit tests
        run: |
          echo \"checking $(git rev-parse HEAD)\"
          test \"$(cat answer.txt)\" = \"$EXPECTED\" || { echo 'wrong answer' >&2; exit 3; }
";

struct World {
    github: GitHub,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<bytes::Bytes>>,
    dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|e| panic!("{}: {e}: {}", self.status, self.text))
    }

    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl World {
    async fn new(seed: Seed) -> Self {
        let github = GitHub::start(Options::default()).await.unwrap();
        github.seed(seed).unwrap();
        github.add_collaborator(REPO, "robot", Role::Write).unwrap();
        github.add_token("secret", Token::classic("robot"));
        Self {
            github,
            client: Client::builder(TokioExecutor::new()).build_http(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The answer, or `None` where the connection was cut.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<Answer> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.github.base_url())
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(url)
            .header("user-agent", "tests");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let response = self
            .client
            .request(request.body(Full::from(body)).unwrap())
            .await
            .ok()?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        Some(Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(
            method,
            &format!("/api/v3{path}"),
            &[("authorization", "Bearer secret")],
            body,
        )
        .await
        .unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.api(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.api(Method::POST, path, Some(body)).await
    }

    async fn graphql(&self, body: Value) -> Value {
        self.send(
            Method::POST,
            "/api/graphql",
            &[("authorization", "Bearer secret")],
            Some(body),
        )
        .await
        .unwrap()
        .expect(200)
        .json()
    }

    /// Git off the async threads: the server answers on them.
    async fn git(&self, folder: &Path, secret: &str, args: &[&str]) -> Output {
        let mut command = Command::new("git");
        command.current_dir(folder).args([
            "-c",
            "user.name=Robot",
            "-c",
            "user.email=robot@localhost",
            "-c",
            "gc.auto=0",
        ]);
        if !secret.is_empty() {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD
                .encode(format!("x-access-token:{secret}"));
            command.args([
                "-c",
                &format!("http.extraHeader=Authorization: Basic {pair}"),
            ]);
        }
        command
            .args(args)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("LC_ALL", "C");
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn git_ok(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.git(folder, "secret", args).await;
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A clone with a new branch on which `answer.txt` says `answer`, pushed.
    async fn pushed_branch(&self, branch: &str, answer: &str) -> std::path::PathBuf {
        let clone = self.dir.path().join(branch.replace('/', "-"));
        self.git_ok(
            self.dir.path(),
            &[
                "clone",
                "--quiet",
                &self.github.clone_url(REPO),
                clone.to_str().unwrap(),
            ],
        )
        .await;
        self.git_ok(&clone, &["checkout", "--quiet", "-b", branch])
            .await;
        self.commit(&clone, answer).await;
        self.git_ok(&clone, &["push", "--quiet", "origin", branch])
            .await;
        clone
    }

    async fn commit(&self, clone: &Path, answer: &str) {
        std::fs::write(clone.join("answer.txt"), answer).unwrap();
        self.git_ok(
            clone,
            &["commit", "--quiet", "-am", &format!("Answer {answer}")],
        )
        .await;
    }

    async fn open_pull(&self, branch: &str) -> Value {
        self.post("/repos/acme/widgets/pulls", json!({"title": "Answer", "head": branch, "base": "main", "body": "Fixes #1", "draft": true})).await.expect(201).json()
    }

    async fn conclusion(&self, sha: &str) -> Conclusion {
        let look = |site: &Site| site.repo(REPO)?.checks(sha).first()?.conclusion;
        self.github
            .wait_for(&format!("a conclusion for {sha}"), look)
            .await
    }
}

fn widgets() -> Seed {
    Seed::new(REPO)
        .file("answer.txt", "41\n")
        .file("README.md", "# Widgets\n")
        .file(".github/workflows/ci.yml", WORKFLOW)
}

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
async fn git_asks_for_credentials_and_holds_people_to_their_rights() {
    let world = World::new(widgets()).await;
    let url = world.github.clone_url(REPO);
    let refused = async |secret: &str, folder: &Path, args: &[&str]| {
        let output = world.git(folder, secret, args).await;
        assert!(!output.status.success(), "git {args:?} went through");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let here = world.dir.path();
    assert!(
        refused("", here, &["clone", &url, "none"])
            .await
            .contains("could not read Username")
    );
    assert!(
        refused("wrong", here, &["clone", &url, "none"])
            .await
            .contains("could not read Username"),
        "a bad token is asked for again"
    );
    world.github.add_token("other", Token::classic("stranger"));
    assert!(
        refused("other", here, &["clone", &url, "none"])
            .await
            .contains("Repository not found")
    );

    let clone = world.pushed_branch("topic", "42").await;
    world.github.add_token(
        "reader",
        Token::classic("robot").with(Scope::Contents, Level::Read),
    );
    world.commit(&clone, "43").await;
    assert!(
        refused("reader", &clone, &["push", "origin", "topic"])
            .await
            .contains("403")
    );
    std::fs::write(clone.join(".github/workflows/ci.yml"), "on: push\n").unwrap();
    world
        .git_ok(&clone, &["commit", "--quiet", "-am", "Touch the workflow"])
        .await;
    world.github.add_token(
        "plain",
        Token::fine_grained("robot").with(Scope::Workflows, Level::None),
    );
    assert!(
        refused("plain", &clone, &["push", "origin", "topic"])
            .await
            .contains("refusing to allow")
    );
    assert!(
        refused(
            "secret",
            &clone,
            &["push", "origin", "HEAD:refs/pull/9/head"]
        )
        .await
        .contains("hidden ref")
    );
    world
        .git_ok(&clone, &["push", "--quiet", "origin", "topic"])
        .await;

    world
        .git_ok(
            here,
            &[
                "clone",
                "--quiet",
                "--filter=blob:none",
                "--no-checkout",
                &url,
                "partial",
            ],
        )
        .await;
    let missing = world
        .git_ok(
            &here.join("partial"),
            &["rev-list", "--objects", "--all", "--missing=print"],
        )
        .await;
    assert!(
        missing.lines().any(|line| line.starts_with('?')),
        "a partial clone leaves blobs behind: {missing}"
    );
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
        world.github.assert_contract()
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

#[tokio::test(flavor = "multi_thread")]
async fn ci_processes_end_with_the_emulator_even_daemons() {
    let marker = tempfile::tempdir().unwrap();
    let pid_file = marker.path().join("pid");
    let workflow = format!(
        "on: push\njobs:\n  slow:\n    steps:\n      - run: 'echo $$ > {}.tmp; mv {0}.tmp {0}; sleep 1000'\n",
        pid_file.display()
    );
    let world = World::new(Seed::new(REPO).file("README.md", "x")).await;
    world
        .github
        .person("alice")
        .push_file(REPO, "slow", ".github/workflows/slow.yml", &workflow)
        .unwrap();
    let pid: i32 = poll("the step's process id", || {
        std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
    })
    .await;
    drop(world);
    let pid = nix::unistd::Pid::from_raw(pid);
    poll("the step to be gone", || {
        nix::sys::signal::kill(pid, None).is_err().then_some(())
    })
    .await;
}

/// A condition outside the site, looked at until it holds.
async fn poll<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    const EVERY: Duration = Duration::from_millis(10);
    for _ in 0..3000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(EVERY).await;
    }
    panic!("{what}: not seen within 30 s")
}
