//! Clone, commit and push through the loopback and the proxies' socket, against a real git server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use mainloop_worker_agent::channel::{Notice, Prepare, Prepared, Published};
use mainloop_worker_agent::sidecar::sandbox::{Sandbox, Worker};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::{place, sandbox, script};

#[tokio::test]
async fn work_is_cloned_committed_and_pushed() {
    let mut world = World::start().await;
    let prepared = world.worker.harness.prepare(prepare()).await.unwrap();
    let base = world.server_sha("main").unwrap();
    let wanted = Prepared {
        base_sha: base.clone(),
        head_sha: base.clone(),
        resumed: false,
    };
    assert_eq!(prepared, wanted);
    let look = "cat README; git branch --show-current; git remote -v; cat .git/config";
    let printed = script(&mut world.worker, look).await.unwrap();
    assert!(
        printed.starts_with("hello\nmainloop/t-x\norigin\thttp://127.0.0.1:"),
        "{printed}"
    );

    // Nothing to publish is no commit and no push.
    let published = world.worker.harness.publish("nothing").await.unwrap();
    let nothing = Published {
        head_sha: base,
        committed: false,
        pushed: false,
    };
    assert_eq!(published, nothing);
    assert_eq!(world.server_sha("mainloop/t-x"), None);

    let work = "mkdir .husky; printf '#!/bin/sh\\nexit 1\\n' > .husky/pre-commit; chmod +x .husky/pre-commit
        git config core.hooksPath .husky; printf 'a\\nb\\n' > new; echo more >> README";
    script(&mut world.worker, work).await.unwrap();
    let published = world
        .worker
        .harness
        .publish("Add things\n\nWith a body")
        .await
        .unwrap();
    assert!(published.committed && published.pushed, "{published:?}");
    assert_eq!(
        world.server_sha("mainloop/t-x").as_ref(),
        Some(&published.head_sha)
    );
    let log = world.on_server(&["log", "-1", "--format=%an <%ae>%n%B", "mainloop/t-x"]);
    assert_eq!(
        log.trim(),
        "The \"W\" worker <w@example.com>\nAdd things\n\nWith a body"
    );

    let stat = world.worker.harness.diffstat().await.unwrap();
    assert_eq!(
        (stat.files, stat.added, stat.removed),
        (3, 5, 0),
        "{stat:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn the_base_is_fetched_before_a_push_and_the_work_is_not_touched() {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    let before = world.server_sha("main").unwrap();
    let tree = world.on_server(&["rev-parse", "main^{tree}"]);
    let moved = world.on_server(&["commit-tree", "-p", "main", "-m", "moved", tree.trim()]);
    world.on_server(&["update-ref", "refs/heads/main", moved.trim()]);
    script(&mut world.worker, "echo new > new").await.unwrap();
    let published = world.worker.harness.publish("Add new").await.unwrap();
    assert!(published.pushed);
    let look = "git rev-parse refs/mainloop/base origin/main; git log -1 --format=%P";
    let printed = script(&mut world.worker, look).await.unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines, [moved.trim(), before.as_str(), before.as_str()]);
    // A base that is gone is in nobody's way.
    world.on_server(&["update-ref", "-d", "refs/heads/main"]);
    script(&mut world.worker, "echo newer > new").await.unwrap();
    let published = world.worker.harness.publish("Add newer").await.unwrap();
    assert!(published.pushed);
    world.end().await;
}

#[tokio::test]
async fn a_second_start_goes_on_from_the_pushed_branch() {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    script(
        &mut world.worker,
        "echo 1 > one; git add one; git commit -qm one",
    )
    .await
    .unwrap();
    let published = world.worker.harness.publish("left over").await.unwrap();
    assert!(!published.committed && published.pushed, "{published:?}");
    // A step that is cut off in the middle of something.
    script(
        &mut world.worker,
        "echo 2 > two; echo x >> README; touch .git/index.lock",
    )
    .await
    .unwrap();
    world.worker.harness.end_step().await.unwrap();

    let again = world.worker.harness.prepare(prepare()).await.unwrap();
    assert_eq!(
        (again.head_sha.as_str(), again.resumed),
        (published.head_sha.as_str(), true)
    );
    assert_eq!(
        script(&mut world.worker, "ls; git status --short")
            .await
            .unwrap(),
        "README\none\n"
    );

    let mut fresh = prepare();
    fresh.resume_pushed = false;
    let fresh = world.worker.harness.prepare(fresh).await.unwrap();
    assert_eq!(
        (fresh.head_sha == fresh.base_sha, fresh.resumed),
        (true, false)
    );
    world.end().await;
}

#[tokio::test]
async fn a_branch_that_moved_on_the_remote_is_never_overwritten() {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    let theirs = world.on_server(&["commit-tree", "-p", "main", "-m", "theirs", "main^{tree}"]);
    world.on_server(&["update-ref", "refs/heads/mainloop/t-x", theirs.trim()]);
    script(&mut world.worker, "echo 1 > one").await.unwrap();
    let error = world
        .worker
        .harness
        .publish("mine")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("git push") && error.contains("rejected"),
        "{error}"
    );
    assert_eq!(
        world.server_sha("mainloop/t-x").as_deref(),
        Some(theirs.trim())
    );
    world.end().await;
}

#[tokio::test]
async fn commits_on_another_branch_come_to_the_tasks_branch() {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    let work = "git checkout -qb other; echo 1 > one; git add one; git commit -qm one";
    script(&mut world.worker, work).await.unwrap();
    let published = world.worker.harness.publish("rest").await.unwrap();
    assert_eq!(world.server_sha("mainloop/t-x"), Some(published.head_sha));
    assert_eq!(world.server_sha("other"), None);
    world.end().await;
}

#[tokio::test]
async fn commits_are_pushed_by_themselves_while_that_is_on() {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    world.worker.harness.auto_push(true).await.unwrap();
    let commit = "echo 1 > one; git add one; git commit -qm one";
    // Not by `script`, which wants no other notices.
    let setup = mainloop_worker_agent::channel::Setup {
        commands: vec![commit.into()],
        env: BTreeMap::default(),
        timeout_seconds: 30,
    };
    world.worker.harness.setup(setup).await.unwrap();
    let notice = tokio::time::timeout(Duration::from_secs(30), world.worker.notices.recv()).await;
    let Ok(Some(Notice::Pushed { head_sha })) = notice else {
        panic!("no push: {notice:?}")
    };
    assert_eq!(world.server_sha("mainloop/t-x"), Some(head_sha));
    world.end().await;
}

#[tokio::test]
async fn the_base_is_merged_and_what_conflicts_is_named_until_it_is_resolved() {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    let mine = "echo mine > README; git commit -qam mine";
    script(&mut world.worker, mine).await.unwrap();
    let published = world.worker.harness.publish("rest").await.unwrap();
    // Somebody else changes the same line of the base.
    let theirs =
        "git checkout -q --detach origin/main; echo theirs > README; git commit -qam theirs
        git push -q origin HEAD:refs/heads/main";
    script(&mut world.worker, theirs).await.unwrap();

    world.worker.harness.prepare(prepare()).await.unwrap();
    let conflicts = world.worker.harness.merge_base().await.unwrap();
    assert_eq!(conflicts, ["README"]);
    let state = world.worker.harness.merge_state().await.unwrap();
    assert_eq!((state.unresolved, state.contains_base), (conflicts, false));
    let resolve = "echo both > README; git add README; git commit -qm 'Merge main'";
    script(&mut world.worker, resolve).await.unwrap();
    let state = world.worker.harness.merge_state().await.unwrap();
    assert_eq!(state.unresolved, [""; 0]);
    assert!(state.contains_base);
    let merged = world.worker.harness.publish("rest").await.unwrap();
    assert!(merged.pushed);
    let parents = world.on_server(&["log", "-1", "--format=%P", "mainloop/t-x"]);
    let main = world.server_sha("main").unwrap();
    assert_eq!(parents.trim(), format!("{} {main}", published.head_sha));
    world.end().await;
}

/// A world whose branch has a commit that is published.
async fn with_a_commit() -> World {
    let mut world = World::start().await;
    world.worker.harness.prepare(prepare()).await.unwrap();
    script(
        &mut world.worker,
        "echo 1 > one; git add one; git commit -qm one",
    )
    .await
    .unwrap();
    world.worker.harness.publish("rest").await.unwrap();
    world
}

#[tokio::test]
async fn what_setup_commands_left_is_not_in_the_way_of_the_base() {
    let mut world = with_a_commit().await;
    // The base changes a file, and brings another one.
    let theirs = "git checkout -q --detach origin/main; echo theirs > README; echo theirs > lock
        git add README lock; git commit -qm theirs; git push -q origin HEAD:refs/heads/main";
    script(&mut world.worker, theirs).await.unwrap();
    world.worker.harness.prepare(prepare()).await.unwrap();
    let setup = "echo 'set up' > README; echo 'set up' > lock";
    script(&mut world.worker, setup).await.unwrap();

    assert_eq!(world.worker.harness.merge_base().await.unwrap(), [""; 0]);
    let state = world.worker.harness.merge_state().await.unwrap();
    assert!(state.contains_base);
    let look = script(&mut world.worker, "cat README lock; git status --short").await;
    assert_eq!(look.unwrap(), "theirs\ntheirs\n");
    world.end().await;
}

#[tokio::test]
async fn a_base_that_does_not_conflict_is_merged_at_once() {
    let mut world = with_a_commit().await;
    let theirs =
        "git checkout -q --detach origin/main; echo 2 > two; git add two; git commit -qm two
        git push -q origin HEAD:refs/heads/main";
    script(&mut world.worker, theirs).await.unwrap();
    world.worker.harness.prepare(prepare()).await.unwrap();
    for pushed in [true, false] {
        assert_eq!(world.worker.harness.merge_base().await.unwrap(), [""; 0]);
        let state = world.worker.harness.merge_state().await.unwrap();
        assert!(state.contains_base);
        let published = world.worker.harness.publish("rest").await.unwrap();
        assert_eq!(
            published.pushed, pushed,
            "a second time there is nothing to do"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_cloned_says_why() {
    let world = World::start().await;
    let mut missing = prepare();
    missing.remote_path = "/git/o/none.git".into();
    let error = world
        .worker
        .harness
        .prepare(missing)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("git fetch") && error.contains("not found"),
        "{error}"
    );
    let mut no_branch = prepare();
    no_branch.base_branch = "none".into();
    let error = world
        .worker
        .harness
        .prepare(no_branch)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("refs/heads/none"), "{error}");
    world.end().await;
}

fn prepare() -> Prepare {
    Prepare {
        remote_path: "/git/o/r.git".into(),
        base_branch: "main".into(),
        base_sha: None,
        branch: "mainloop/t-x".into(),
        resume_pushed: true,
        committer_name: "The \"W\" worker".into(),
        committer_email: "w@example.com".into(),
    }
}

/// A git server behind the proxies' socket, and a worker.
struct World {
    place: TempDir,
    worker: Worker,
    _server: JoinSet<()>,
}

impl World {
    async fn start() -> Self {
        let place = place();
        let sandbox = sandbox(place.path(), "a");
        let repository = place.path().join("server/o/r.git");
        std::fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "-q", "--bare", "-b", "main"]);
        git(&repository, &["config", "http.receivepack", "true"]);
        let tree = "blob\nmark :1\ndata 6\nhello\n\ncommit refs/heads/main\ncommitter A <a@example.com> 1700000000 +0000\n\
                    data 5\nfirst\nM 100644 :1 README\n";
        let mut import = std::process::Command::new("git")
            .args(["fast-import", "--quiet"])
            .current_dir(&repository)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut import.stdin.take().unwrap(), tree.as_bytes()).unwrap();
        assert!(import.wait().unwrap().success());
        let server = serve(&sandbox, place.path().join("server"));
        let worker = sandbox.start().await.unwrap();
        Self {
            place,
            worker,
            _server: server,
        }
    }

    fn on_server(&self, args: &[&str]) -> String {
        git(&self.place.path().join("server/o/r.git"), args)
    }

    fn server_sha(&self, branch: &str) -> Option<String> {
        let name = format!("refs/heads/{branch}");
        let listed = self.on_server(&["for-each-ref", "--format=%(objectname)", &name]);
        (!listed.is_empty()).then(|| listed.trim().to_owned())
    }

    async fn end(self) {
        self.worker.running.end(&self.worker.harness).await.unwrap();
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let done = std::process::Command::new("git")
        .args([
            "-c",
            "user.name=S",
            "-c",
            "user.email=s@example.com",
            "-c",
            "safe.directory=*",
        ])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

fn serve(sandbox: &Sandbox, root: PathBuf) -> JoinSet<()> {
    sandbox.prepare().unwrap();
    let listener = UnixListener::bind(sandbox.proxy_socket()).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(sandbox.proxy_socket(), open).unwrap();
    let app = Router::new().fallback(backend).with_state(root);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    tasks
}

/// `git http-backend` as a CGI program, bodies held whole.
async fn backend(
    State(root): State<PathBuf>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "worker")
        .env("REQUEST_METHOD", method.as_str())
        .env(
            "PATH_INFO",
            uri.path().strip_prefix("/git").unwrap_or_default(),
        )
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let ((), output) = tokio::join!(
        async move {
            // It does not read the body of every request.
            let _ = stdin.write_all(&body).await;
        },
        child.wait_with_output()
    );
    let output = output.unwrap().stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<StatusCode>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response
        .body(Body::from(output[end + 4..].to_vec()))
        .unwrap()
}
