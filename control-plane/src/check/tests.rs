#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    args::{Args, Command},
    supervisor::{OnExit, Supervisor},
};

/// Options as the command line gives them, without the caller's credentials.
fn options(data_dir: &Path, change: impl FnOnce(&mut Options)) -> Options {
    let data_dir = data_dir.to_str().unwrap();
    let arguments = ["plane", "check", "--data-dir", data_dir];
    let Command::Check { mut options, .. } = Args::try_parse_from(arguments).unwrap().command
    else {
        panic!("check was asked for");
    };
    options.database_url = None;
    options.policy = None;
    options.github_app_id = None;
    options.github_app_private_key_file = None;
    let environment = &mut options.environment;
    environment.github_token = None;
    environment.github_app_private_key = None;
    environment.anthropic_api_key = None;
    environment.anthropic_auth_token = None;
    environment.claude_code_oauth_token = None;
    environment.anthropic_base_url = None;
    change(&mut options);
    options
}

fn find<'a>(report: &'a Report, name: &str) -> &'a Check {
    let check = report.checks.iter().find(|check| check.name == name);
    check.unwrap_or_else(|| panic!("no check of {name} in {report:?}"))
}

/// A server that gives the same answer to every request; what it was asked comes out of the channel.
async fn server(
    status: &str,
    headers: &str,
    body: &str,
) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let (asked, questions) = tokio::sync::mpsc::channel(16);
    Supervisor::new().spawn("scripted server", OnExit::Log, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            asked
                .send(String::from_utf8(request).unwrap())
                .await
                .unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, questions)
}

/// A program that prints this.
fn program(folder: &Path, name: &str, prints: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho '{prints}'\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn without_anything_each_failure_says_how_to_mend_it() {
    let folder = crate::testing::folder();
    let options = options(folder.path(), |options| {
        options.claude = Some(folder.path().join("claude"));
        options.agent = Some(folder.path().join("agent"));
        options.postgres_bin = Some(folder.path().join("none"));
    });
    let report = run(&options).await;
    assert!(!report.ok);
    for (name, fix) in [
        ("PostgreSQL", "apt install postgresql"),
        ("Claude Code", "make claude"),
        ("worker agent", "MAINLOOP_AGENT"),
        ("GitHub token", "https://github.com/settings/tokens"),
        ("model credential", "claude setup-token"),
    ] {
        let check = find(&report, name);
        assert!(!check.ok, "{check:?}");
        assert!(check.fix.as_ref().unwrap().contains(fix), "{check:?}");
    }
    for name in ["policy", "data folder", "disk space", "git"] {
        assert_eq!(find(&report, name).fix, None);
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["checks"][0]["name"], "policy");
    // Nothing was made.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn with_everything_all_is_well_and_no_secret_is_shown() {
    let folder = crate::testing::folder();
    let headers = "x-oauth-scopes: repo, workflow, gist\r\n";
    let (github, mut asked) = server("200 OK", headers, r#"{"login":"octocat"}"#).await;
    let (model, mut asked_model) = server("200 OK", "", r#"{"data":[]}"#).await;
    let options = options(folder.path(), |options| {
        options.claude = Some(program(folder.path(), "claude", "2.1.329 (Claude Code)"));
        options.agent = Some(program(folder.path(), "agent", ""));
        options.github_api_url = Some(github);
        options.environment.github_token = Some("ghp_marker".into());
        options.environment.anthropic_api_key = Some("sk-marker".into());
        options.environment.anthropic_base_url = Some(model);
    });
    let report = run(&options).await;
    assert!(report.ok, "{report:?}");
    assert_eq!(find(&report, "GitHub token").detail, "is octocat's");
    assert!(
        find(&report, "GitHub token's rights")
            .detail
            .contains("repo, workflow")
    );
    assert!(
        find(&report, "PostgreSQL")
            .detail
            .starts_with("PostgreSQL ")
    );
    assert!(!format!("{report:?}").contains("marker"), "{report:?}");
    let question = asked.recv().await.unwrap();
    assert!(
        question.starts_with("GET /user ") && question.contains("Bearer ghp_marker"),
        "{question}"
    );
    let question = asked_model.recv().await.unwrap();
    assert!(question.contains("x-api-key: sk-marker"), "{question}");
}

async fn github(status: &str, headers: &str, token: &str) -> Report {
    let folder = crate::testing::folder();
    let (github, _asked) = server(status, headers, r#"{"login":"octocat"}"#).await;
    run(&options(folder.path(), |options| {
        options.github_api_url = Some(github);
        options.environment.github_token = Some(token.into());
    }))
    .await
}

#[tokio::test]
async fn tokens_that_are_refused_or_too_weak_are_named() {
    let report = github("401 Unauthorized", "", "ghp_x").await;
    let check = find(&report, "GitHub token");
    assert!(!check.ok && check.detail.contains("401"), "{check:?}");

    let report = github("200 OK", "x-oauth-scopes: public_repo\r\n", "ghp_x").await;
    let check = find(&report, "GitHub token's rights");
    assert!(
        !check.ok && check.detail.contains("without `repo`"),
        "{check:?}"
    );

    let report = github("200 OK", "x-oauth-scopes: repo\r\n", "ghp_x").await;
    let check = find(&report, "GitHub token's rights");
    assert!(
        check.ok && check.detail.contains("without `workflow`"),
        "{check:?}"
    );

    let report = github("200 OK", "", "github_pat_x").await;
    assert!(find(&report, "GitHub token").ok);
    let check = find(&report, "GitHub token's rights");
    assert!(
        !check.ok && check.detail.contains("cannot read check runs"),
        "{check:?}"
    );

    let report = github("403 Forbidden", "", "ghs_x").await;
    assert!(find(&report, "GitHub token").ok, "{report:?}");
}

async fn app(status: &str, body: &str) -> (Report, String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = crate::testing::folder();
    let (github, mut asked) = server(status, "", body).await;
    let report = run(&options(folder.path(), |options| {
        options.github_api_url = Some(github);
        options.github_app_id = Some("4711".to_owned());
        options.environment.github_app_private_key = Some(crate::testing::app_key());
    }))
    .await;
    (report, asked.recv().await.unwrap())
}

#[tokio::test]
async fn an_app_is_tried_and_what_it_lacks_is_named() {
    let all = r#""contents":"write","issues":"write","pull_requests":"write","checks":"read","statuses":"read","actions":"read","metadata":"read""#;
    let body = format!(r#"{{"slug":"loop","permissions":{{{all}}},"installations_count":1}}"#);
    let (report, question) = app("200 OK", &body).await;
    assert_eq!(find(&report, "GitHub App").detail, "is loop[bot]");
    assert!(find(&report, "GitHub App's permissions").ok, "{report:?}");
    assert!(
        question.starts_with("GET /app ") && question.contains("Bearer ey"),
        "{question}"
    );

    let body = r#"{"slug":"loop","permissions":{"contents":"write","metadata":"read"},"installations_count":0}"#;
    let (report, _) = app("200 OK", body).await;
    let check = find(&report, "GitHub App");
    assert!(
        !check.ok && check.detail.contains("nobody has installed it"),
        "{check:?}"
    );
    let check = find(&report, "GitHub App's permissions");
    assert!(
        !check.ok && check.detail.contains("issues: write"),
        "{check:?}"
    );

    let (report, _) = app(
        "401 Unauthorized",
        r#"{"message":"A JSON web token could not be decoded"}"#,
    )
    .await;
    let check = find(&report, "GitHub App");
    assert!(
        !check.ok && check.detail.contains("could not be decoded"),
        "{check:?}"
    );
    assert!(check.fix.as_deref().unwrap().contains("clock"), "{check:?}");
}

#[tokio::test]
async fn a_model_that_refuses_differs_from_one_that_says_nothing() {
    for (status, ok) in [
        ("401 Unauthorized", false),
        ("404 Not Found", true),
        ("529 Busy", true),
    ] {
        let folder = crate::testing::folder();
        let (model, mut asked) = server(status, "", "{}").await;
        let report = run(&options(folder.path(), |options| {
            options.environment.claude_code_oauth_token = Some("oat-x".into());
            options.environment.anthropic_base_url = Some(model);
        }))
        .await;
        assert_eq!(
            find(&report, "model credential").ok,
            ok,
            "{status}: {report:?}"
        );
        let question = asked.recv().await.unwrap();
        assert!(
            question.contains("anthropic-beta: oauth-2025-04-20"),
            "{question}"
        );
    }
}

#[tokio::test]
async fn hosts_that_do_not_answer_are_named() {
    let folder = crate::testing::folder();
    // Bound and dropped: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let report = run(&options(folder.path(), |options| {
        options.github_api_url = Some(format!("http://{closed}"));
        options.environment.github_token = Some("ghp_x".into());
    }))
    .await;
    let check = find(&report, "GitHub token");
    assert!(
        !check.ok && check.detail.contains("does not answer"),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_policy_that_is_wrong_is_the_one_finding() {
    let folder = crate::testing::folder();
    std::fs::write(folder.path().join("policy.toml"), "budget = 3").unwrap();
    let report = run(&options(folder.path(), |_| {})).await;
    assert_eq!(report.checks.len(), 1);
    assert_eq!(
        (report.checks[0].name, report.checks[0].ok),
        ("policy", false)
    );
    assert!(report.checks[0].detail.contains("budget"), "{report:?}");
}

#[tokio::test]
async fn a_program_gets_nothing_of_the_environment() {
    let folder = crate::testing::folder();
    let path = folder.path().join("spy");
    std::fs::write(
        &path,
        "#!/bin/sh\necho \"$HOME|$GITHUB_TOKEN|$CARGO_PKG_NAME\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(says(&path, "--version").await.unwrap(), "/nonexistent||");
}
