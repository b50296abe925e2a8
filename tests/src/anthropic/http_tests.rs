//! The API as any client sees it, without the CLI.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::*;

struct Answer {
    status: u16,
    headers: HeaderMap,
    /// None if the body broke off.
    body: Option<String>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(self.body.as_ref().unwrap()).unwrap()
    }

    fn error(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["type"], "error");
        (
            self.status,
            json["error"]["type"].as_str().unwrap().to_owned(),
        )
    }
}

async fn send(server: &Running, headers: &[(&str, &str)], path: &str, body: &Value) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder()
        .method(Method::POST)
        .uri(format!("{}{path}", server.base_url))
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = client.request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.ok();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap()),
    }
}

const KEYED: &[(&str, &str)] = &[("x-api-key", "k1"), ("anthropic-version", "2023-06-01")];

async fn say(server: &Running, body: &Value) -> Answer {
    send(server, KEYED, "/v1/messages?beta=true", body).await
}

fn asking(prompt: &str) -> Value {
    with_history(&json!([{"role": "user", "content": prompt}]))
}

fn with_history(messages: &Value) -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": messages})
}

fn said(answer: &Answer) -> String {
    answer.json()["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn replying(replies: Vec<Reply>) -> Script {
    Script::new().with(Conversation::turns("only", when::always(), replies))
}

#[tokio::test]
async fn wrong_or_missing_credentials_get_401() {
    let script = replying(vec![Reply::text("hello")])
        .accepting(Credential::ApiKey("k1".into()))
        .accepting(Credential::OAuth("o1".into()))
        .accepting(Credential::Bearer("b1".into()));
    let server = Anthropic::start(script).await.unwrap();
    let version = ("anthropic-version", "2023-06-01");
    let beta = ("anthropic-beta", "claude-code-20250219,oauth-2025-04-20");
    let refused: &[&[(&str, &str)]] = &[
        &[version],
        &[version, ("x-api-key", "k2")],
        &[version, ("x-api-key", "b1")],
        &[version, ("authorization", "Bearer k1")],
        &[version, ("authorization", "Bearer o1")],
    ];
    for headers in refused {
        let answer = send(&server, headers, "/v1/messages", &asking("x")).await;
        let expected = (401, "authentication_error".to_owned());
        assert_eq!(answer.error(), expected, "{headers:?}");
        assert!(answer.headers.contains_key("request-id"));
    }
    let accepted: &[&[(&str, &str)]] = &[
        &[version, ("x-api-key", "k1")],
        &[version, beta, ("authorization", "Bearer o1")],
        &[version, ("authorization", "Bearer b1")],
    ];
    for headers in accepted {
        let path = "/v1/messages/count_tokens?beta=true";
        let answer = send(&server, headers, path, &asking("x")).await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert!(answer.json()["input_tokens"].as_u64().unwrap() > 0);
    }
    assert_eq!(server.usage(), Usage::default());
}

#[tokio::test]
async fn malformed_requests_get_400() {
    let server = Anthropic::start(replying(vec![Reply::text("hello")]))
        .await
        .unwrap();
    let invalid = (400, "invalid_request_error".to_owned());
    let unversioned = [("x-api-key", "k1")];
    let answer = send(&server, &unversioned, "/v1/messages", &asking("x")).await;
    assert_eq!(answer.error(), invalid);
    for field in ["model", "max_tokens", "messages"] {
        let mut body = asking("x");
        body.as_object_mut().unwrap().remove(field);
        let answer = say(&server, &body).await;
        assert_eq!(answer.error(), invalid, "without {field}");
    }
    let answer = send(&server, KEYED, "/v1/other", &asking("x")).await;
    assert_eq!(answer.error(), (404, "not_found_error".to_owned()));
    server.check().unwrap();
}

#[tokio::test]
async fn stream_and_body_carry_the_same_message_and_charge_it() {
    let usage = Usage {
        input: 10,
        output: 7,
        cache_read: 3,
        cache_creation: 2,
    };
    let reply = Reply::empty()
        .and_thought("hm")
        .and_text("hello there")
        .and_call(call::bash("ls"))
        .charging(usage);
    let server = Anthropic::start(replying(vec![reply.clone(), reply]))
        .await
        .unwrap();
    let whole = say(&server, &asking("x")).await.json();
    assert_eq!(whole["stop_reason"], "tool_use");
    assert_eq!(whole["content"][1]["text"], "hello there");
    assert_eq!(whole["content"][2]["input"]["command"], "ls");
    assert_eq!(whole["usage"]["output_tokens"], 7);

    let mut body = asking("x");
    body["stream"] = json!(true);
    let stream = say(&server, &body).await.body.unwrap();
    let events: Vec<Value> = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 10);
    assert_eq!(events[0]["message"]["usage"]["output_tokens"], 1);
    let text = |kind: &str| -> String {
        events
            .iter()
            .filter_map(|event| event["delta"][kind].as_str())
            .collect()
    };
    assert_eq!(text("text"), "hello there");
    assert_eq!(text("thinking"), "hm");
    let input: Value = serde_json::from_str(&text("partial_json")).unwrap();
    assert_eq!(input["command"], "ls");
    let last = &events[events.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], "tool_use");
    assert_eq!(last["usage"]["output_tokens"], 7);
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    let twice = Usage {
        input: 20,
        output: 14,
        cache_read: 6,
        cache_creation: 4,
    };
    assert_eq!(server.usage(), twice);
}

#[tokio::test]
async fn troubles_come_before_the_reply_in_order() {
    let reply = Reply::text("at last")
        .after(Trouble::rate_limited(7))
        .after(Trouble::overloaded().not_to_retry())
        .after(Trouble::Cut { after: 3 });
    let server = Anthropic::start(replying(vec![reply])).await.unwrap();
    let limited = say(&server, &asking("x")).await;
    assert_eq!(limited.error(), (429, "rate_limit_error".to_owned()));
    assert_eq!(limited.headers["retry-after"], "7");
    let overloaded = say(&server, &asking("x")).await;
    assert_eq!(overloaded.error(), (529, "overloaded_error".to_owned()));
    assert_eq!(overloaded.headers["x-should-retry"], "false");
    let mut body = asking("x");
    body["stream"] = json!(true);
    assert_eq!(say(&server, &body).await.body, None);
    let cut = server.usage();
    assert!(
        cut.input > 0 && cut.output == 0,
        "a cut stream charges its input: {cut:?}"
    );
    assert_eq!(said(&say(&server, &asking("x")).await), "at last");
}

#[tokio::test]
async fn an_outage_lasts_until_it_is_lifted() {
    let server = Anthropic::start(replying(vec![Reply::text("hello")]))
        .await
        .unwrap();
    server.outage(Some(Trouble::internal()));
    for _ in 0..2 {
        let answer = say(&server, &asking("x")).await;
        assert_eq!(answer.error(), (500, "api_error".to_owned()));
    }
    server.outage(None);
    assert_eq!(said(&say(&server, &asking("x")).await), "hello");
}

#[tokio::test]
async fn sessions_of_one_conversation_do_not_share_their_place() {
    let server = Anthropic::start(replying(vec![Reply::text("one"), Reply::text("two")]))
        .await
        .unwrap();
    let mut heard = Vec::new();
    for session in ["a", "a", "b"] {
        let headers = [KEYED[0], KEYED[1], ("x-claude-code-session-id", session)];
        heard.push(said(
            &send(&server, &headers, "/v1/messages", &asking("x")).await,
        ));
    }
    assert_eq!(heard, ["one", "two", "one"]);
}

#[tokio::test]
async fn rules_decide_from_the_messages_alone() {
    let script = Script::new().with(Conversation::rules(
        "task 7",
        when::about("task-7"),
        vec![
            Rule::reply(
                when::returned_with("Bash", "FAILED"),
                Reply::text("mending it"),
            ),
            Rule::sequence(
                when::prompt("carry it out"),
                vec![Reply::call(call::bash("make test")), Reply::text("done")],
            ),
            Rule::reply(
                when::prompt("plan").and(when::called("Read", 0)),
                Reply::call(call::read("{{re:in the file (\\S+)}}")),
            ),
        ],
    ));
    let server = Anthropic::start(script).await.unwrap();
    let reminder = "<system-reminder>carry it out</system-reminder>";
    let first = with_history(&json!([{"role": "user", "content": [
        {"type": "text", "text": reminder}, {"type": "text", "text": "plan task-7, which is in the file /tmp/a.md now"}]}]));
    let implement = |result: &str| {
        with_history(&json!([
            {"role": "user", "content": "plan task-7"},
            {"role": "assistant", "content": [{"type": "text", "text": "planned"}]},
            {"role": "user", "content": "carry it out"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": result}]},
                {"type": "text", "text": reminder}]},
        ]))
    };
    // Asked twice each, and in an order that no run would have: there is no place to lose.
    for _ in 0..2 {
        assert_eq!(said(&say(&server, &implement("ok")).await), "done");
        assert_eq!(
            said(&say(&server, &implement("1 FAILED")).await),
            "mending it"
        );
        let read = say(&server, &first).await.json();
        assert_eq!(read["content"][0]["input"]["file_path"], "/tmp/a.md");
    }
    server.check().unwrap();
}

#[tokio::test]
async fn what_no_script_describes_is_refused_and_listed() {
    let script = Script::new().with(Conversation::turns(
        "known",
        when::about("known"),
        vec![Reply::text("{{re:never (there)}}")],
    ));
    let server = Anthropic::start(script).await.unwrap();
    for prompt in ["stranger", "known"] {
        let answer = say(&server, &asking(prompt)).await;
        assert_eq!(answer.error(), (400, "invalid_request_error".to_owned()));
        assert_eq!(answer.headers["x-should-retry"], "false");
    }
    let problems = server.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("stranger"), "{problems:?}");
    assert!(problems[1].contains("never (there)"), "{problems:?}");
    server.check().unwrap_err();
}

#[tokio::test]
async fn a_held_reply_comes_when_its_gate_opens() {
    let gate = Gate::closed();
    let server = Anthropic::start(replying(vec![Reply::text("hello").held_by(&gate)]))
        .await
        .unwrap();
    let body = asking("x");
    let (answer, seen) = tokio::join!(say(&server, &body), async {
        gate.reached().await.unwrap();
        let seen = server.requests().len();
        gate.open();
        seen
    });
    assert_eq!(seen, 0, "nothing is answered before the gate opens");
    assert_eq!(said(&answer), "hello");
    let requests = server
        .wait_for("the answer", |seen| seen.len() == 1)
        .await
        .unwrap();
    assert!(requests[0].is_message());
    assert_eq!(requests[0].header("x-api-key"), "k1");
}
