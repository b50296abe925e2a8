use std::convert::Infallible;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response as Answer};
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hello\"}}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":100}}\n\n";

type Seen = Arc<Mutex<Vec<http::request::Parts>>>;

/// A model host that notes the heads of its requests and answers each in the same way.
async fn host(answer: impl Fn() -> Answer + Clone + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let router = Router::new().fallback(move |request: axum::extract::Request| async move {
        noted.lock().unwrap().push(request.into_parts().0);
        answer()
    });
    (upstream(router).await, seen)
}

fn message(extra: &str) -> Request<Full<Bytes>> {
    let body = format!(
        r#"{{"model":"claude-sonnet-5-5","max_tokens":100,"stream":true,"messages":[]{extra}}}"#
    );
    Request::post("/v1/messages?beta=true")
        .header("host", "localhost")
        .header("x-api-key", "dummy")
        .header("authorization", "Bearer dummy")
        .header("cookie", "a=b")
        .header("anthropic-beta", "one")
        .header("anthropic-version", "2023-06-01")
        .header("accept-encoding", "gzip")
        .header("content-type", "application/json")
        .body(Full::from(body))
        .unwrap()
}

fn document() -> Answer {
    let body = r#"{"type":"message","usage":{"input_tokens":1000,"output_tokens":100}}"#;
    ([("content-type", "application/json")], body).into_response()
}

#[tokio::test]
async fn the_credential_is_put_in_and_the_harness_headers_are_sorted() {
    let (host, seen) = host(document).await;
    let world = World::new(host, |_| {}).await;
    assert_eq!(world.send(message("")).await.status(), StatusCode::OK);
    world
        .proxy
        .keys()
        .set_model(Some(Credential::OAuth("oauth".into())));
    world.send(message("")).await;
    world
        .proxy
        .keys()
        .set_model(Some(Credential::Gateway("gateway".into())));
    world.send(message("")).await;

    let seen = seen.lock().unwrap();
    let of = |n: usize, name: &str| -> Vec<&str> {
        seen[n]
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    };
    assert_eq!(seen[0].uri.to_string(), "/prefix/v1/messages?beta=true");
    assert_eq!(of(0, "x-api-key"), ["real-key"]);
    assert_eq!(of(0, "authorization"), [""; 0]);
    assert_eq!(of(0, "anthropic-beta"), ["one"]);
    assert_eq!(of(0, "accept-encoding"), ["identity"]);
    assert_eq!(of(0, "cookie"), [""; 0]);
    assert_eq!(of(1, "authorization"), ["Bearer oauth"]);
    assert_eq!(of(1, "x-api-key"), [""; 0]);
    assert_eq!(of(1, "anthropic-beta"), ["one", "oauth-2025-04-20"]);
    assert_eq!(of(2, "authorization"), ["Bearer gateway"]);
    assert_eq!(of(2, "anthropic-beta"), ["one"]);
}

#[tokio::test]
async fn how_the_host_turned_a_request_away_is_known_until_another_answer() {
    let next = Arc::new(Mutex::new((200, "{}")));
    let answer = Arc::clone(&next);
    let (host, _) = host(move || {
        let (status, body) = *answer.lock().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        (status, [("content-type", "application/json")], body).into_response()
    })
    .await;
    let world = World::new(host, |_| {}).await;
    let poor = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#;
    let billing = r#"{"type":"error","error":{"type":"billing_error","message":"no"}}"#;
    for (status, body, why) in [
        (401, "{}", Some(TurnedAway::Credential)),
        (400, poor, Some(TurnedAway::Credit)),
        (403, "{}", Some(TurnedAway::Credential)),
        (403, billing, Some(TurnedAway::Credit)),
        (429, "{}", Some(TurnedAway::Limit)),
        (500, "{}", None),
        (402, "{}", Some(TurnedAway::Credit)),
        (200, "{}", None),
        (429, "{}", Some(TurnedAway::Limit)),
    ] {
        *next.lock().unwrap() = (status, body);
        text(world.send(message("")).await).await;
        assert_eq!(world.proxy.turned_away(), why, "{status} {body}");
    }
    world.proxy.forget_turned_away();
    assert_eq!(world.proxy.turned_away(), None);
    let tools = r#","tools":[{"type":"code_execution_20250522","name":"x"}]"#;
    text(world.send(message(tools)).await).await;
    let why = world.proxy.turned_away();
    assert!(
        matches!(&why, Some(TurnedAway::Policy(why)) if why.contains("it runs at the model host")),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_document_is_metered_and_counting_is_free() {
    let (host, _) = host(document).await;
    let world = World::new(host, |_| {}).await;
    text(world.send(message("")).await).await;
    // 1000 x 3 + 100 x 15 micro-USD.
    until("the reply to be charged", || {
        world.proxy.meter().spent_micros() == 4500
    })
    .await;
    let mut count = message("");
    *count.uri_mut() = "/v1/messages/count_tokens?beta=true".parse().unwrap();
    text(world.send(count).await).await;
    assert_eq!(world.proxy.meter().spent_micros(), 4500);
    assert_eq!(world.proxy.meter().usage().output, 100);
}

/// A host whose one reply is written by the test, chunk by chunk.
async fn streaming() -> (SocketAddr, mpsc::Sender<&'static str>) {
    let (give, take) = mpsc::channel(8);
    let take = Arc::new(Mutex::new(Some(take)));
    let (host, _) = host(move || {
        let chunks = take.lock().unwrap().take().expect("one request only");
        let body = Body::from_stream(ReceiverStream::new(chunks).map(Ok::<_, Infallible>));
        ([("content-type", "text/event-stream; charset=utf-8")], body).into_response()
    })
    .await;
    (host, give)
}

#[tokio::test]
async fn a_stream_passes_chunk_by_chunk_and_is_charged_at_its_end() {
    let (host, give) = streaming().await;
    let world = World::new(host, |_| {}).await;
    give.send(START).await.unwrap();
    let mut body = world.send(message("")).await.into_body();
    for next in [DELTA, END] {
        // Each chunk must come through before the host writes the one after it.
        tokio::time::timeout(PATIENCE, body.frame())
            .await
            .expect("a chunk was held back")
            .unwrap()
            .unwrap();
        give.send(next).await.unwrap();
    }
    drop(give);
    body.collect().await.unwrap();
    until("the stream to be charged", || {
        world.proxy.meter().spent_micros() == 4500
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_the_harness_cuts_is_charged_for_what_was_sent() {
    let (host, give) = streaming().await;
    let world = World::new(host, |_| {}).await;
    give.send(START).await.unwrap();
    give.send(DELTA).await.unwrap();
    let mut response = world.send(message("")).await;
    let mut got = 0;
    while got < START.len() + DELTA.len() {
        got += response
            .body_mut()
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    drop(response);
    until("the cut stream to be charged", || {
        world.proxy.meter().spent_micros() > 3015
    })
    .await;
    assert_eq!(world.proxy.meter().usage().input, 1000);
}

#[tokio::test]
async fn at_the_budget_requests_are_turned_away_for_good() {
    let (host, seen) = host(document).await;
    let mut world = World::new(host, |options| options.model.budget_micros = 4000).await;
    text(world.send(message("")).await).await;
    until("the reply to be charged", || {
        world.proxy.meter().spent_micros() == 4500
    })
    .await;
    let refused = world.send(message("")).await;
    assert_eq!(refused.status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(refused.headers()["x-should-retry"], "false");
    assert!(
        text(refused)
            .await
            .contains("budget is used up (0.0045 of 0.0040 USD)")
    );
    assert_eq!(
        world.event().await,
        Event::BudgetReached {
            spent_micros: 4500,
            budget_micros: 4000
        }
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_policy_refuses_never_reaches_the_host() {
    let (host, seen) = host(document).await;
    let mut world = World::new(host, |_| {}).await;
    let refused = world.send(message(r#","mcp_servers":[]"#)).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(text(refused).await.contains("mcp_servers"));
    assert!(matches!(world.event().await, Event::ModelRefused { .. }));
    // The reason quotes what was wrong, and is kept.
    let long = format!(r#","speed":"{}""#, "x".repeat(1 << 20));
    assert_eq!(
        world.send(message(&long)).await.status(),
        StatusCode::FORBIDDEN
    );
    match world.event().await {
        Event::ModelRefused { reason } => assert!(reason.len() < 300, "{} bytes", reason.len()),
        other => panic!("{other:?}"),
    }
    for (method, path, status) in [
        (Method::GET, "/v1/messages", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/v1/files", StatusCode::NOT_FOUND),
        (Method::POST, "/v1/messages/batches", StatusCode::NOT_FOUND),
        (Method::POST, "/v1/messages/", StatusCode::NOT_FOUND),
        (Method::GET, "/other", StatusCode::NOT_FOUND),
    ] {
        let mut request = message("");
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        assert_eq!(world.send(request).await.status(), status, "{path}");
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn limits_pass_through_cost_nothing_and_are_told() {
    let (host, _) = host(|| {
        let headers = [
            ("retry-after", "30"),
            ("anthropic-ratelimit-unified-reset", "1796083200"),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers, "slow down").into_response()
    })
    .await;
    let mut world = World::new(host, |_| {}).await;
    let limited = world.send(message("")).await;
    assert_eq!(
        (
            limited.status(),
            limited.headers()["retry-after"].to_str().unwrap()
        ),
        (StatusCode::TOO_MANY_REQUESTS, "30")
    );
    let reset_at = jiff::Timestamp::from_second(1_796_083_200).ok();
    let retry_after = Some(Duration::from_secs(30));
    assert_eq!(
        world.event().await,
        Event::ModelLimited {
            status: 429,
            retry_after,
            reset_at
        }
    );
    assert_eq!(world.proxy.meter().spent_micros(), 0);
}

#[tokio::test]
async fn a_refused_credential_is_not_to_be_tried_again() {
    let (host, _) = host(|| (StatusCode::UNAUTHORIZED, "no such key").into_response()).await;
    let mut world = World::new(host, |_| {}).await;
    let refused = world.send(message("")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["x-should-retry"], "false");
    assert_eq!(
        world.event().await,
        Event::ModelUnauthorized { status: 401 }
    );
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_an_error_to_retry() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::new(nobody, |_| {}).await;
    let failed = world.send(message("")).await;
    assert_eq!(failed.status(), StatusCode::BAD_GATEWAY);
    assert!(!failed.headers().contains_key("x-should-retry"));
    assert_eq!(world.proxy.meter().spent_micros(), 0);
}

/// The real CLI.
#[tokio::test]
async fn claude_code_ends_its_turn_at_the_budget() {
    let (host, seen) = host(document).await;
    let mut world = World::new(host, |options| options.model.budget_micros = 0).await;
    let claude = crate::sidecar::claude::testing::claude();
    let output = tokio::process::Command::new(claude)
        .args([
            "-p",
            "--output-format",
            "json",
            "--model",
            "sonnet",
            "hello",
        ])
        .current_dir(world.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", world.path())
        .env("CLAUDE_CONFIG_DIR", world.path().join("claude"))
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("ANTHROPIC_UNIX_SOCKET", &world.socket)
        .env("ANTHROPIC_BASE_URL", "http://localhost")
        .env("ANTHROPIC_API_KEY", "dummy")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("Claude Code kept trying at the budget");
    let output = output.expect("run Claude Code");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["is_error"], true);
    assert!(
        result["result"]
            .as_str()
            .unwrap()
            .contains("budget is used up"),
        "{result}"
    );
    assert_eq!(
        world.event().await,
        Event::BudgetReached {
            spent_micros: 0,
            budget_micros: 0
        }
    );
    assert_eq!(seen.lock().unwrap().len(), 0);
    drop(world.proxy);
    let mut more = 0;
    while let Ok(Some(event)) = tokio::time::timeout(PATIENCE, world.events.recv()).await {
        more += usize::from(matches!(event, Event::BudgetReached { .. }));
    }
    assert_eq!(more, 0, "it tried again");
}
