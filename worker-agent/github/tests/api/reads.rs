//! Reads: repeated where that helps, bounded, and on our own host alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use mainloop_github::{Class, Client, Conditional, Error, Options, Quota, Repo, Timeouts};
use serde_json::{Value, json};

use crate::server::{Answer, Seen, Server, error, not_found, ok};

#[tokio::test]
async fn read_is_repeated_while_github_is_out_of_order() {
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => error(502, "Bad Gateway"),
        1 => Answer::Broken,
        _ => ok(json!({"ref": "refs/heads/a/b", "object": {"sha": "s1"}})),
    })
    .await;
    let head = server.client().branch_head("a/b c").await.unwrap();
    assert_eq!(head.as_deref(), Some("s1"));
    assert_eq!(server.count("GET /repos/o/r/git/ref/heads/a/b%20c"), 3);
}

#[tokio::test]
async fn branches_are_listed_by_how_they_begin() {
    let server = Server::start(|_| {
        ok(json!([
            {"ref": "refs/heads/mainloop/k3f9-a", "object": {"sha": "s1"}},
            {"ref": "refs/tags/mainloop/k3f9-b", "object": {"sha": "s2"}},
            {"ref": "refs/heads/other", "object": {"sha": "s3"}},
        ]))
    })
    .await;
    let names = server.client().branches("mainloop/k3f9").await.unwrap();
    assert_eq!(names, ["mainloop/k3f9-a"]);
}

#[tokio::test]
async fn a_commit_is_in_a_head_that_is_it_or_comes_from_it() {
    for (answer, is_in) in [
        (Some("identical"), true),
        (Some("behind"), true),
        (Some("ahead"), false),
        (Some("diverged"), false),
        (None, false),
    ] {
        let server = Server::start(move |_| match answer {
            Some(status) => ok(json!({"status": status})),
            None => not_found(),
        })
        .await;
        let told = server.client().is_in("abc", "def").await.unwrap();
        assert_eq!(told, is_in, "{answer:?}");
        let asked = "GET /repos/o/r/compare/def...abc";
        assert_eq!(server.count(asked), 1, "{:?}", server.log());
    }
    let server = Server::start(|_| not_found()).await;
    assert!(server.client().is_in("../x", "def").await.is_err());
}

#[tokio::test]
async fn read_gives_up_after_a_few_tries() {
    let server = Server::start(|_| error(503, "Unavailable")).await;
    let failed = server.client().branch_head("main").await.unwrap_err();
    assert_eq!(failed.class(), Class::Unavailable);
    assert_eq!(server.log().len(), 4);
}

#[tokio::test]
async fn rate_limit_is_told_and_not_waited_for() {
    let server = Server::start(|_| {
        Answer::With(
            403,
            vec![
                ("x-ratelimit-remaining", "0".into()),
                ("x-ratelimit-reset", "4000000000".into()),
            ],
            json!({"message": "API rate limit exceeded"}),
        )
    })
    .await;
    let limited = server.client().repository().await.unwrap_err();
    let Class::RateLimited { until: Some(until) } = limited.class() else {
        panic!("{limited}");
    };
    assert_eq!(until.as_second(), 4_000_000_000);
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn what_is_used_up_is_not_asked_for_until_another_token_comes() {
    let reset = Timestamp::now().as_second() + 3000;
    let left = |left: u64| {
        move |_: &Seen| {
            Answer::With(
                200,
                vec![
                    ("x-ratelimit-limit", "5000".into()),
                    ("x-ratelimit-remaining", left.to_string()),
                    ("x-ratelimit-reset", reset.to_string()),
                ],
                json!({"object": {"sha": "s1"}}),
            )
        }
    };
    let plenty = Server::start(left(4_999)).await;
    let client = plenty.client();
    for _ in 0..2 {
        client.branch_head("main").await.unwrap();
    }
    assert_eq!(
        (plenty.log().len(), client.quota().pause(4)),
        (2, Duration::ZERO)
    );

    let last = Server::start(left(0)).await;
    let quota = Quota::default();
    let options = || Options {
        quota: quota.clone(),
        ..Options::default()
    };
    let client = last.client_with(options());
    client.branch_head("main").await.unwrap();
    // Another client of the same token knows as well.
    for client in [client.clone(), last.client_with(options())] {
        let refused = client.branch_head("main").await.unwrap_err();
        let Class::RateLimited { until: Some(until) } = refused.class() else {
            panic!("{refused}");
        };
        assert_eq!(until.as_second(), reset);
    }
    assert_eq!(last.log().len(), 1, "nothing was sent");
    assert!(quota.pause(1) > Duration::from_mins(30));
    client.renew(&"another".to_owned().into()).unwrap();
    client.branch_head("main").await.unwrap();
}

#[tokio::test]
async fn secondary_limit_is_kept_to_by_reads_writes_and_graphql() {
    let server = Server::start(|_| {
        Answer::With(
            403,
            vec![("retry-after", "3600".into())],
            json!({"message": "You have exceeded a secondary rate limit."}),
        )
    })
    .await;
    let client = server.client();
    let marker = mainloop_github::Marker::new("t", mainloop_github::MarkerKind::Plan);
    for refused in [
        client.repository().await.map(drop),
        client.close_pull(1).await.map(drop),
        client
            .known_as("robot")
            .ensure_comment(1, &marker, "x")
            .await
            .map(drop),
    ] {
        assert!(matches!(
            refused.unwrap_err().class(),
            Class::RateLimited { until: Some(_) }
        ));
    }
    assert_eq!(server.log().len(), 1, "one was sent, and the others not");
}

#[tokio::test]
async fn host_that_stops_answering_is_given_up_in_time() {
    let stalls: [fn() -> Answer; 3] = [
        || Answer::Silent,
        || Answer::Stalled(b""),
        || Answer::Stalled(b"{\"object\": "),
    ];
    for stall in stalls {
        let server = Server::start(move |_| stall()).await;
        let timeouts = Timeouts {
            request: Duration::from_millis(50),
            download: Duration::from_millis(50),
            ..Timeouts::default()
        };
        let client = server.client_with(Options {
            timeouts,
            ..Options::default()
        });
        let read = client.branch_head("main").await.unwrap_err();
        assert!(matches!(read, Error::Timeout { .. }), "{read}");
        assert_eq!(read.class(), Class::Unavailable);
        assert_eq!(server.log().len(), 4, "a read is repeated");
        let written = client.close_pull(1).await.unwrap_err();
        assert_eq!(written.class(), Class::Unavailable);
        assert_eq!(server.log().len(), 5, "a write is not");
    }
}

#[tokio::test]
async fn token_that_github_refuses_is_unauthorized() {
    let server = Server::start(|_| error(401, "Bad credentials")).await;
    let refused = server.client().identity().await.unwrap_err();
    assert_eq!(refused.class(), Class::Unauthorized);
    assert!(!format!("{refused:?}").contains("Bearer"));
}

#[tokio::test]
async fn app_token_has_an_identity_by_graphql_asked_once() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/api/graphql" => ok(json!({"data": {"viewer": {"login": "mainloop[bot]"}}})),
        _ => error(403, "Resource not accessible by integration"),
    })
    .await;
    let client = server.client();
    for _ in 0..2 {
        let identity = client.clone().identity().await.unwrap();
        assert_eq!(
            (identity.login.as_str(), identity.is_bot),
            ("mainloop[bot]", true)
        );
    }
    assert_eq!(server.count("POST /api/graphql"), 1);
}

#[tokio::test]
async fn repository_tells_what_the_token_may_do() {
    let server = Server::start(|_| {
        ok(json!({
            "default_branch": "trunk", "html_url": "https://h/o/r", "clone_url": "https://h/o/r.git",
            "archived": false, "has_issues": true, "private": true, "size": 5000, "permissions": {"push": true, "pull": true},
        }))
    })
    .await;
    let repository = server.client().repository().await.unwrap();
    assert_eq!(repository.default_branch, "trunk");
    assert_eq!(repository.can_push, Some(true));
    assert_eq!(repository.size_kib, 5000);
    assert!(repository.private && repository.has_issues && !repository.archived);
}

#[tokio::test]
async fn file_is_whole_or_absent_or_an_error() {
    let file = |content: &str, size: usize| json!({"type": "file", "encoding": "base64", "size": size, "content": content});
    let server = Server::start(move |seen| match seen.path.rsplit('/').next().unwrap() {
        "CLAUDE.md" => ok(file("aGVs\nbG8=\n", 5)),
        "big" => ok(file("", 5_000_000)),
        "docs" => ok(json!([{"type": "file", "name": "x"}])),
        "link" => ok(json!({"type": "submodule", "size": 0})),
        _ => not_found(),
    })
    .await;
    let client = server.client();
    let read = |path: &'static str| {
        let client = client.clone();
        async move { client.file_at(path, "main", 1_000).await }
    };
    assert_eq!(
        read("CLAUDE.md").await.unwrap().as_deref(),
        Some(&b"hello"[..])
    );
    assert_eq!(read("docs").await.unwrap(), None);
    assert_eq!(read("link").await.unwrap(), None);
    assert_eq!(read("nothing").await.unwrap(), None);
    assert!(matches!(read("big").await, Err(Error::TooLarge { .. })));
    assert!(matches!(read("a/../b").await, Err(Error::Config(_))));
}

#[tokio::test]
async fn unchanged_pull_costs_an_etag() {
    let server = Server::start(|seen| {
        if seen.if_none_match.as_deref() == Some("\"e1\"") {
            return Answer::With(304, vec![("etag", "\"e1\"".into())], Value::Null);
        }
        let pull = json!({
            "number": 1, "node_id": "PR_1", "html_url": "u", "state": "closed", "title": "t", "body": null,
            "user": null, "head": {"ref": "a", "sha": "s1"}, "base": {"ref": "main", "sha": "s0"},
            "merged_at": "2026-01-01T00:00:00Z", "merge_commit_sha": "m1", "merged_by": {"login": "ann"},
        });
        Answer::With(200, vec![("etag", "\"e1\"".into())], pull)
    })
    .await;
    let client = server.client();
    let Conditional::Changed { pull, etag } = client.pull_if_changed(1, None).await.unwrap() else {
        panic!("first read is a change");
    };
    let merged = mainloop_github::PullState::Merged {
        commit: Some("m1".into()),
        by: Some("ann".into()),
    };
    assert_eq!((pull.state, pull.author.as_str()), (merged, "ghost"));
    let again = client.pull_if_changed(1, etag.as_deref()).await.unwrap();
    assert_eq!(again, Conditional::NotModified);
}

#[tokio::test]
async fn client_refuses_what_it_cannot_work_with() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let new = |base: &str, owner: &str, token: &str| {
        let repo = Repo {
            owner: owner.into(),
            name: "r".into(),
        };
        Client::new(&base.parse().unwrap(), repo, &token.to_owned().into()).map(|_| ())
    };
    assert!(new("https://api.github.com", "o", "ghp_x\n").is_ok());
    for (base, owner, token) in [
        ("ftp://host", "o", "t"),
        ("https://host/api/v3", "o/../x", "t"),
        ("https://host/api/v3", "..", "t"),
        ("https://host/api/v3", "o", ""),
        ("https://host/api/v3", "o", "a\nb"),
    ] {
        let refused = new(base, owner, token).unwrap_err();
        assert!(
            matches!(refused, Error::Config(_)),
            "{base} {owner}: {refused}"
        );
    }
}
