use std::process::{Output, Stdio};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::*;

const AUTH: &str = "Basic eC1hY2Nlc3MtdG9rZW46Z2l0LXRva2Vu";

/// `git http-backend` over a folder, which asks for the token.
pub(super) fn backend(root: PathBuf) -> Router {
    Router::new().fallback(move |request: Request| cgi(root.clone(), request))
}

async fn cgi(root: PathBuf, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let header = |name: &str| {
        head.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned()
    };
    if header("authorization") != AUTH {
        return Response::builder()
            .status(401)
            .header("www-authenticate", "Basic")
            .body(Body::empty())
            .unwrap();
    }
    let mut child = git()
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "x")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        let bytes = body.collect().await.unwrap().to_bytes();
        // A server that has read enough closes its end.
        let _ = stdin.write_all(&bytes).await;
    };
    let mut out = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    let ((), read) = tokio::join!(feed, stdout.read_to_end(&mut out));
    read.unwrap();
    child.wait().await.unwrap();
    let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in std::str::from_utf8(&out[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = if name == "Status" {
            response.status(&value[..3])
        } else {
            response.header(name, value)
        };
    }
    response.body(Body::from(out.split_off(end + 4))).unwrap()
}

pub(super) fn git() -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "t"),
        ("GIT_AUTHOR_EMAIL", "t@example.com"),
        ("GIT_COMMITTER_NAME", "t"),
        ("GIT_COMMITTER_EMAIL", "t@example.com"),
        ("GIT_CONFIG_COUNT", "3"),
        ("GIT_CONFIG_KEY_0", "http.receivepack"),
        ("GIT_CONFIG_VALUE_0", "true"),
        ("GIT_CONFIG_KEY_1", "safe.directory"),
        ("GIT_CONFIG_VALUE_1", "*"),
        ("GIT_CONFIG_KEY_2", "init.defaultBranch"),
        ("GIT_CONFIG_VALUE_2", "main"),
    ] {
        command.env(name, value);
    }
    command
}

pub(super) async fn run(dir: &Path, args: &[&str]) -> Output {
    let child = git()
        .current_dir(dir)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, child)
        .await
        .unwrap_or_else(|_| panic!("git {args:?} did not end"))
        .unwrap()
}

pub(super) async fn ok(dir: &Path, args: &[&str]) -> String {
    let out = run(dir, args).await;
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

pub(super) async fn fails(dir: &Path, args: &[&str]) -> String {
    let out = run(dir, args).await;
    assert!(!out.status.success(), "git {args:?} was meant to fail");
    String::from_utf8(out.stderr).unwrap()
}

/// A proxy before a server with one repository, and a clone of it with one new commit.
async fn cloned() -> (World, PathBuf, TempDir) {
    let root = TempDir::new().unwrap();
    let bare = root.path().join("o/r.git");
    std::fs::create_dir_all(&bare).unwrap();
    ok(&bare, &["init", "--bare", "-q"]).await;
    let seed = root.path().join("seed");
    std::fs::create_dir(&seed).unwrap();
    ok(&seed, &["init", "-q"]).await;
    ok(&seed, &["commit", "-q", "--allow-empty", "-m", "first"]).await;
    ok(&seed, &["push", "-q", bare.to_str().unwrap(), "main"]).await;
    let world = World::new(upstream(backend(root.path().to_owned())).await, |_| {}).await;
    let url = format!("http://{}/git/o/r.git", world.tcp().await);
    ok(world.path(), &["clone", "-q", &url, "w"]).await;
    let work = world.path().join("w");
    ok(&work, &["checkout", "-q", "-b", "mainloop/task"]).await;
    ok(&work, &["commit", "-q", "--allow-empty", "-m", "second"]).await;
    (world, work, root)
}

#[tokio::test]
async fn a_push_passes_only_while_the_gate_is_open_and_is_told_when_the_host_took_it() {
    let (mut world, work, root) = cloned().await;
    let said = fails(&work, &["push", "origin", "HEAD"]).await;
    assert!(
        said.contains("pushes are closed until the plan is approved"),
        "{said}"
    );
    assert!(matches!(
        world.event().await,
        Event::PushRefused {
            reference: None,
            ..
        }
    ));

    world.proxy.gate().open();
    ok(&work, &["push", "origin", "HEAD"]).await;
    let new = ok(&work, &["rev-parse", "HEAD"]).await;
    let reference = "refs/heads/mainloop/task".to_owned();
    assert_eq!(
        world.event().await,
        Event::Pushed {
            reference,
            old: "0".repeat(40),
            new: new.clone()
        }
    );
    assert_eq!(
        ok(
            &root.path().join("o/r.git"),
            &["rev-parse", "mainloop/task"]
        )
        .await,
        new
    );
}

#[tokio::test]
async fn a_large_push_announces_itself_and_passes() {
    let (mut world, work, root) = cloned().await;
    world.proxy.gate().open();
    // Noise, so that the pack is larger than the post buffer and git sends it in chunks.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(3 << 20)
    .collect();
    std::fs::write(work.join("noise"), noise).unwrap();
    ok(&work, &["add", "."]).await;
    ok(&work, &["commit", "-q", "-m", "noise"]).await;
    ok(&work, &["push", "origin", "HEAD"]).await;
    assert!(matches!(world.event().await, Event::Pushed { .. }));
    let new = ok(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(
        ok(
            &root.path().join("o/r.git"),
            &["rev-parse", "mainloop/task"]
        )
        .await,
        new
    );

    // The same size to a ref that is not the task's: the reason is printed, nothing arrives.
    let said = fails(&work, &["push", "origin", "HEAD:other"]).await;
    assert!(
        said.contains("only the task's own branch may be pushed"),
        "{said}"
    );
}

#[tokio::test]
async fn pushes_that_ask_for_anything_else_are_refused_with_the_reason() {
    let (mut world, work, root) = cloned().await;
    world.proxy.gate().open();
    ok(&work, &["push", "origin", "HEAD"]).await;
    assert!(matches!(world.event().await, Event::Pushed { .. }));
    for (args, word) in [
        (
            &["push", "origin", "HEAD:main"][..],
            "only the task's own branch may be pushed",
        ),
        (
            &["push", "origin", "HEAD:refs/tags/v1"],
            "only the task's own branch may be pushed",
        ),
        (&["push", "origin", ":mainloop/task"], "may not be deleted"),
        (&["push", "origin", "HEAD:a", "HEAD:b"], "one command only"),
    ] {
        let said = fails(&work, args).await;
        assert!(said.contains(word), "{args:?} said {said}");
        match world.event().await {
            Event::PushRefused {
                reference: Some(_),
                reason,
            } => assert!(reason.contains(word), "{reason}"),
            other => panic!("{args:?} gave {other:?}"),
        }
    }
    let refs = ok(
        &root.path().join("o/r.git"),
        &["for-each-ref", "--format=%(refname)"],
    )
    .await;
    assert_eq!(refs, "refs/heads/main\nrefs/heads/mainloop/task");
}

#[tokio::test]
async fn another_repository_is_refused_reads_included() {
    let (mut world, _work, root) = cloned().await;
    std::fs::create_dir_all(root.path().join("o/other.git")).unwrap();
    let tcp = world.tcp().await;
    for path in [
        "o/other.git",
        "o/r.git.git",
        "o/r",
        "O/r.git",
        "o/%72.git",
        "o/r.gitx",
    ] {
        let said = fails(
            world.path(),
            &["ls-remote", &format!("http://{tcp}/git/{path}")],
        )
        .await;
        assert!(
            said.contains("only the task's own repository"),
            "{path}: {said}"
        );
        assert!(matches!(
            world.event().await,
            Event::RepositoryRefused { .. }
        ));
    }
}

#[tokio::test]
async fn a_redirect_is_neither_followed_nor_passed_on() {
    let moved = Router::new().fallback(|| async {
        (
            StatusCode::MOVED_PERMANENTLY,
            [("location", "http://elsewhere.example/o/r.git/info/refs")],
        )
    });
    let world = World::new(upstream(moved).await, |_| {}).await;
    let said = fails(
        world.path(),
        &[
            "ls-remote",
            &format!("http://{}/git/o/r.git", world.tcp().await),
        ],
    )
    .await;
    assert!(
        said.contains("redirect") && !said.contains("elsewhere"),
        "{said}"
    );
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_told_and_git_asks_for_no_password() {
    let root = TempDir::new().unwrap();
    let mut world = World::new(upstream(backend(root.path().to_owned())).await, |options| {
        options.git.token = Some("wrong".into());
    })
    .await;
    let said = fails(
        world.path(),
        &[
            "ls-remote",
            &format!("http://{}/git/o/r.git", world.tcp().await),
        ],
    )
    .await;
    assert!(
        said.contains("did not accept the worker's token (401)"),
        "{said}"
    );
    assert_eq!(world.event().await, Event::GitUnauthorized { status: 401 });
    let denied = world.proxy.denied().get().map(|denied| denied.status);
    assert_eq!(denied, Some(401));
}

#[tokio::test]
async fn a_no_of_the_host_is_told_in_its_words_until_it_says_yes() {
    let answers = Router::new().fallback(async |request: Request| {
        if request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("receive")
        {
            let long = "\u{1b}[2J".repeat(2000);
            (
                StatusCode::FORBIDDEN,
                format!("Permission to o/r.git\ndenied to x.{long}"),
            )
        } else {
            (StatusCode::NOT_FOUND, String::new())
        }
    });
    let world = World::new(upstream(answers).await, |_| {}).await;
    world.proxy.gate().open();
    let denied = world.proxy.denied();
    assert_eq!(denied.get(), None);
    let ask = async |service: &str| {
        let request = http::Request::get(format!("/git/o/r.git/info/refs?service=git-{service}"))
            .body(Full::default())
            .unwrap();
        text(world.send(request).await).await
    };
    let said = ask("receive-pack").await;
    assert!(
        said.starts_with(
            "mainloop: the code host refused it (403): Permission to o/r.git denied to x."
        ),
        "{said}"
    );
    assert!(!said.contains('\u{1b}') && said.len() < 500, "{said}");
    assert_eq!(denied.get().map(|denied| denied.status), Some(403));
    ask("upload-pack").await;
    assert_eq!(denied.get(), None);
}

/// A host that reads heads alone: it answers each request as soon as its head is there, and tells the head.
async fn heads() -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let (told, heads) = tokio::sync::mpsc::channel(8);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                told.send(String::from_utf8(head).unwrap()).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
                // Until the proxy hangs up: a connection that is closed too early fails its request.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            });
        }
    });
    (address, heads)
}

/// The command section of a push to the task's branch.
fn update() -> Vec<u8> {
    let line = format!(
        "{} {} refs/heads/mainloop/task\0report-status\n",
        "0".repeat(40),
        "a".repeat(40)
    );
    format!("{:04x}{line}0000", line.len() + 4).into_bytes()
}

#[tokio::test]
async fn a_head_never_promises_another_body_than_the_one_that_is_sent() {
    let (host, mut heads) = heads().await;
    let world = World::new(host, |_| {}).await;
    world.proxy.gate().open();
    let request = |method: Method, service: &str, body: Vec<u8>| {
        Request::builder()
            .method(method)
            .uri(format!("/git/o/r.git{service}"))
            .header("host", "localhost")
            .header("content-type", "x")
            .body(Full::from(body))
            .unwrap()
    };
    let fetch = "/info/refs?service=git-upload-pack";
    let refused = world
        .send(request(Method::GET, fetch, b"GET /".to_vec()))
        .await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let push = [update(), b"PACK".to_vec()].concat();
    let length = push.len();
    for (method, service, body, expected) in [
        (Method::GET, fetch, Vec::new(), None),
        (
            Method::POST,
            "/git-upload-pack",
            b"0009done\n".to_vec(),
            Some(9),
        ),
        // Only the flush of a probe goes on.
        (
            Method::POST,
            "/git-receive-pack",
            b"0000GET /".to_vec(),
            Some(4),
        ),
        (Method::POST, "/git-receive-pack", push, Some(length)),
    ] {
        let answer = world.send(request(method.clone(), service, body)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{method} {service}");
        let head = heads.recv().await.unwrap().to_ascii_lowercase();
        let told = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        assert_eq!(
            told("content-length"),
            expected.map(|length| length.to_string()),
            "{method} {service}"
        );
        assert_eq!(told("transfer-encoding"), None, "{method} {service}");
        assert_eq!(told("content-type").is_some(), method == Method::POST);
    }
}

#[tokio::test]
async fn a_push_that_was_not_sent_whole_is_cut_when_the_gate_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::new(listener.local_addr().unwrap(), |_| {}).await;
    world.proxy.gate().open();
    let mut client = UnixStream::connect(&world.socket).await.unwrap();
    let begun = update();
    let head = format!(
        "POST /git/o/r.git/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        begun.len() + 1
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&begun).await.unwrap();
    let (mut host, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(&begun) {
        host.read_buf(&mut seen).await.unwrap();
    }
    world.proxy.gate().close();
    // Another step may open it again before anything else happens.
    world.proxy.gate().open();
    let rest = tokio::time::timeout(PATIENCE, host.read_to_end(&mut seen)).await;
    // An end or a reset, and not a byte more.
    let _ = rest.expect("the push went on");
    assert!(seen.ends_with(&begun));
    assert!(matches!(
        world.event().await,
        Event::PushRefused {
            reference: Some(_),
            ..
        }
    ));
}
