//! Hosts that stop: each request to one ends, and says why.

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response as Answer};
use futures_util::StreamExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;

use super::*;

/// How long hosts are waited for here.
const SILENCE: Duration = Duration::from_millis(100);

/// Where a host stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It takes the request, and says nothing.
    BeforeTheHead,
    /// It sends the head of its answer.
    AfterTheHead,
    /// It sends some of it.
    InTheMiddle,
}

async fn host(stop: Stop) -> SocketAddr {
    upstream(Router::new().fallback(move || async move { stopping(stop).await })).await
}

async fn stopping(stop: Stop) -> Answer {
    let begun: &'static [u8] = match stop {
        Stop::BeforeTheHead => std::future::pending().await,
        Stop::AfterTheHead => b"",
        Stop::InTheMiddle => b"event: ping\ndata: {}\n\n",
    };
    let begun = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(begun)]);
    let body = Body::from_stream(begun.chain(futures_util::stream::pending()));
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn world(stop: Stop) -> World {
    World::new(host(stop).await, |options| {
        options.timeouts = Timeouts {
            model: SILENCE,
            git: SILENCE,
            ..Timeouts::default()
        };
    })
    .await
}

/// The status of the answer, and whether its body came to a good end.
async fn outcome(world: &World, request: Request<Full<Bytes>>) -> (StatusCode, bool) {
    let response = world.send(request).await;
    let status = response.status();
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .expect("the body neither ended nor failed");
    (status, body.is_ok())
}

fn message() -> Request<Full<Bytes>> {
    message_of(r#"{"model":"claude-sonnet-5-5","max_tokens":100,"stream":true,"messages":[]}"#)
}

fn message_of(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/v1/messages")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::from(body))
        .unwrap()
}

fn refs() -> Request<Full<Bytes>> {
    Request::get("/git/o/r.git/info/refs?service=git-upload-pack")
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn a_host_that_stops_ends_each_request_wherever_it_stops() {
    for request in [message, refs] {
        for (stop, ends) in [
            (Stop::BeforeTheHead, (StatusCode::GATEWAY_TIMEOUT, true)),
            (Stop::AfterTheHead, (StatusCode::OK, false)),
            (Stop::InTheMiddle, (StatusCode::OK, false)),
        ] {
            let world = world(stop).await;
            assert_eq!(
                outcome(&world, request()).await,
                ends,
                "{stop:?} of {}",
                request().uri()
            );
        }
    }
}

#[tokio::test]
async fn a_reply_that_is_not_streamed_may_take_longer_than_a_stream_may_be_silent() {
    let (open, opened) = tokio::sync::watch::channel(false);
    let slow = move |request: axum::extract::Request| {
        let mut opened = opened.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if String::from_utf8_lossy(&body).contains(r#""stream":true"#) {
                std::future::pending::<()>().await;
            }
            opened.wait_for(|open| *open).await.unwrap();
            (
                [("content-type", "application/json")],
                r#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1}}"#,
            )
                .into_response()
        }
    };
    let world = World::new(upstream(Router::new().fallback(slow)).await, |options| {
        options.timeouts.model = SILENCE;
    })
    .await;
    let whole = message_of(r#"{"model":"claude-sonnet-5-5","max_tokens":100,"messages":[]}"#);
    let others = async {
        for _ in 0..2 {
            let ended = outcome(&world, message()).await;
            assert_eq!(ended, (StatusCode::GATEWAY_TIMEOUT, true));
        }
        open.send(true).unwrap();
    };
    let (ended, ()) = tokio::join!(outcome(&world, whole), others);
    assert_eq!(ended, (StatusCode::OK, true));
}

#[tokio::test]
async fn a_reply_that_is_given_up_costs_what_the_host_may_have_made_of_it() {
    for stop in [Stop::BeforeTheHead, Stop::AfterTheHead, Stop::InTheMiddle] {
        let world = World::new(host(stop).await, |options| {
            options.timeouts.model = Duration::from_secs(1);
        })
        .await;
        outcome(&world, message()).await;
        // 50 tokens of output for the second that it took.
        until(
            &format!("the charge of a reply that stops {stop:?}"),
            || world.proxy.meter().spent_micros() >= 50 * 15,
        )
        .await;
    }
}

#[tokio::test]
async fn a_model_host_that_does_not_answer_may_be_asked_again() {
    let world = world(Stop::BeforeTheHead).await;
    let response = world.send(message()).await;
    assert!(
        !response.headers().contains_key("x-should-retry"),
        "Claude Code retries a 504"
    );
    assert!(
        text(response)
            .await
            .contains("the model host does not answer")
    );
}

#[tokio::test]
async fn a_push_whose_host_stops_is_told_as_one_whose_outcome_is_unknown() {
    let mut world = world(Stop::BeforeTheHead).await;
    world.proxy.gate().open();
    let zero = "0".repeat(40);
    let new = "1".repeat(40);
    let command = format!("{zero} {new} refs/heads/mainloop/task\0 report-status");
    let body = format!("{:04x}{command}0000PACK", command.len() + 4);
    let push = Request::post("/git/o/r.git/git-receive-pack")
        .header("host", "localhost")
        .header("content-type", "application/x-git-receive-pack-request")
        .body(Full::from(body))
        .unwrap();
    assert_eq!(
        outcome(&world, push).await,
        (StatusCode::GATEWAY_TIMEOUT, true)
    );
    let event = world.event().await;
    assert!(
        matches!(&event, Event::PushRefused { reason, .. } if reason == "the code host gave no answer"),
        "{event:?}"
    );
}
