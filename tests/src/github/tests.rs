//! The emulator's own stories, over real connections and with the real `git`.
#![allow(clippy::unwrap_used)]

mod api;
mod apps;
mod ci;
mod client;
mod git;

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
