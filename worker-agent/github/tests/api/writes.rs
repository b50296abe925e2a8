//! Writes: twice leaves one, and a lost answer is looked for before anything is sent again.

use std::sync::{Arc, Mutex};

use mainloop_github::{Class, Error, Marker, MarkerKind, NewPull, PullState, drafts_unsupported};
use serde_json::{Value, json};

use crate::server::{Answer, Seen, Server, error, not_found, ok};

/// What the server stores, and how the next creations are answered.
#[derive(Default)]
struct Store {
    issues: Vec<Value>,
    comments: Vec<Value>,
    pulls: Vec<Value>,
    /// After the effect was made.
    lose: Vec<Answer>,
    /// Instead of the effect.
    refuse: Vec<Answer>,
}

type Shared = Arc<Mutex<Store>>;

fn issue(number: usize, author: &str, title: &str, body: &str) -> Value {
    json!({
        "number": number, "node_id": format!("I_{number}"), "html_url": format!("https://h/o/r/issues/{number}"),
        "state": "open", "title": title, "body": body, "user": {"login": author},
        "author_association": "OWNER", "comments": 0,
    })
}

fn comment(id: usize, author: &str, association: &str, body: &str) -> Value {
    json!({
        "id": id, "html_url": format!("https://h/c/{id}"), "body": body, "user": {"login": author},
        "author_association": association, "created_at": "2026-01-01T00:00:00Z",
    })
}

fn pull(number: usize, author: &str, body: &str) -> Value {
    json!({
        "number": number, "node_id": format!("PR_{number}"), "html_url": format!("https://h/o/r/pull/{number}"),
        "state": "open", "title": "t", "body": body, "user": {"login": author}, "draft": true,
        "head": {"ref": "mainloop/a", "sha": "s1"}, "base": {"ref": "main", "sha": "s0"}, "merged_at": null,
    })
}

fn text(seen: &Seen, key: &str) -> String {
    seen.body[key].as_str().unwrap_or("").to_owned()
}

fn respond(store: &mut Store, seen: &Seen) -> Answer {
    let route = seen.route();
    if seen.method == "POST"
        && !route.ends_with("graphql")
        && let Some(answer) = store.refuse.pop()
    {
        return answer;
    }
    let made = match route.as_str() {
        "GET /user" => return ok(json!({"login": "Robot"})),
        "GET /repos/o/r/issues" => return ok(json!(store.issues)),
        "GET /repos/o/r/issues/1" => return ok(store.issues[0].clone()),
        "GET /repos/o/r/issues/1/comments" => return ok(json!(store.comments)),
        "GET /repos/o/r/pulls" => return ok(json!(store.pulls)),
        "GET /repos/o/r/pulls/1" => return ok(store.pulls[0].clone()),
        "POST /repos/o/r/issues" => {
            let new = issue(
                store.issues.len() + 1,
                "robot",
                &text(seen, "title"),
                &text(seen, "body"),
            );
            store.issues.push(new.clone());
            new
        }
        "POST /repos/o/r/issues/1/comments" => {
            let new = comment(
                store.comments.len() + 1,
                "robot",
                "MEMBER",
                &text(seen, "body"),
            );
            store.comments.push(new.clone());
            new
        }
        "POST /repos/o/r/pulls" => {
            let new = pull(store.pulls.len() + 1, "robot", &text(seen, "body"));
            store.pulls.push(new.clone());
            new
        }
        "PATCH /repos/o/r/issues/1" => {
            store.issues[0]["body"] = seen.body["body"].clone();
            return ok(store.issues[0].clone());
        }
        "PATCH /repos/o/r/issues/comments/1" => {
            store.comments[0]["body"] = seen.body["body"].clone();
            return ok(store.comments[0].clone());
        }
        "PATCH /repos/o/r/pulls/1" => {
            for key in ["title", "body", "state"] {
                if !seen.body[key].is_null() {
                    store.pulls[0][key] = seen.body[key].clone();
                }
            }
            return ok(store.pulls[0].clone());
        }
        "POST /api/graphql" => {
            let query = text(seen, "query");
            store.pulls[0]["draft"] = json!(query.contains("convertPullRequestToDraft"));
            return ok(json!({"data": {"done": {"pullRequest": {}}}}));
        }
        _ => return not_found(),
    };
    store.lose.pop().unwrap_or(Answer::Json(201, made))
}

async fn start(store: Store) -> (Server, Shared) {
    let shared: Shared = Arc::new(Mutex::new(store));
    let state = shared.clone();
    let server = Server::start(move |seen| respond(&mut state.lock().unwrap(), seen)).await;
    (server, shared)
}

fn plan() -> Marker {
    Marker::new("0192f0c1", MarkerKind::Plan)
}

const PULL: NewPull<'static> = NewPull {
    head: "mainloop/a",
    base: "main",
    title: "t",
    body: "b",
    draft: true,
};

#[tokio::test]
async fn issue_whose_answer_was_lost_is_found_and_not_made_again() {
    for lost in [Answer::Broken, error(502, "Bad Gateway")] {
        let (server, store) = start(Store {
            lose: vec![lost],
            ..Store::default()
        })
        .await;
        let made = server
            .client()
            .ensure_planning_issue(&plan(), "Plan", "body")
            .await
            .unwrap();
        assert_eq!(made.number, 1);
        assert_eq!(store.lock().unwrap().issues.len(), 1);
        assert_eq!(server.count("POST /repos/o/r/issues"), 1);
    }
}

#[tokio::test]
async fn issue_that_was_not_made_is_sent_again_after_a_look() {
    let (server, store) = start(Store {
        refuse: vec![error(503, "Unavailable")],
        ..Store::default()
    })
    .await;
    server
        .client()
        .ensure_planning_issue(&plan(), "Plan", "body")
        .await
        .unwrap();
    assert_eq!(store.lock().unwrap().issues.len(), 1);
    let routes: Vec<String> = server.log().iter().map(Seen::route).collect();
    assert_eq!(
        routes,
        [
            "GET /user",
            "GET /repos/o/r/issues",
            "POST /repos/o/r/issues",
            "GET /repos/o/r/issues",
            "POST /repos/o/r/issues",
        ]
    );
}

#[tokio::test]
async fn issue_is_updated_in_place_and_only_when_it_differs() {
    let (server, store) = start(Store::default()).await;
    let client = server.client();
    for body in ["first", "first", "second"] {
        let issue = client
            .ensure_planning_issue(&plan(), "Plan", body)
            .await
            .unwrap();
        assert_eq!(issue.number, 1);
    }
    assert_eq!(server.count("POST /repos/o/r/issues"), 1);
    assert_eq!(server.count("PATCH /repos/o/r/issues/1"), 1);
    let body = store.lock().unwrap().issues[0]["body"].clone();
    let body = body.as_str().unwrap();
    assert!(
        body.starts_with("<!-- mainloop:begin=0192f0c1 kind=plan hash=")
            && body.ends_with(&format!("-->\nsecond\n\n{}\n", plan())),
        "{body}"
    );
}

#[tokio::test]
async fn what_people_wrote_around_our_text_and_as_its_title_stays() {
    let (server, store) = start(Store::default()).await;
    let client = server.client();
    let made = client
        .ensure_planning_issue(&plan(), "Plan", "first")
        .await
        .unwrap();
    assert!(!made.edited);
    {
        let mut store = store.lock().unwrap();
        let body = store.issues[0]["body"].as_str().unwrap().to_owned();
        let inside = body.replace("first", "forged");
        store.issues[0]["body"] = json!(format!("A word before.\n\n{inside}\nA word after.\n"));
        store.issues[0]["title"] = json!("A better title");
    }
    let found = client
        .update_planning_issue(1, &plan(), "second")
        .await
        .unwrap();
    assert!(found.edited);
    let issue = store.lock().unwrap().issues[0].clone();
    assert_eq!(issue["title"], "A better title");
    let body = issue["body"].as_str().unwrap();
    assert!(
        body.starts_with("A word before.\n") && body.ends_with("\nA word after.\n"),
        "{body}"
    );
    assert!(
        body.contains("\nsecond\n") && !body.contains("forged"),
        "{body}"
    );
}

#[tokio::test]
async fn issue_of_ours_that_is_gone_is_told_and_not_made_again() {
    let (server, _) = start(Store {
        issues: vec![issue(1, "robot", "Plan", "somebody emptied it")],
        ..Store::default()
    })
    .await;
    let client = server.client();
    let gone = client.update_planning_issue(2, &plan(), "body").await;
    assert!(gone.unwrap_err().is_gone());
    let unmarked = client
        .update_planning_issue(1, &plan(), "body")
        .await
        .unwrap();
    assert!(unmarked.edited);
    assert_eq!(server.count("POST /repos/o/r/issues"), 0);
    assert_eq!(server.count("PATCH /repos/o/r/issues/1"), 0);
}

#[tokio::test]
async fn marker_in_somebody_elses_issue_counts_for_nothing() {
    let (server, store) = start(Store {
        issues: vec![issue(1, "mallory", "Plan", &plan().to_string())],
        ..Store::default()
    })
    .await;
    let made = server
        .client()
        .ensure_planning_issue(&plan(), "Plan", "body")
        .await
        .unwrap();
    assert_eq!(made.number, 2);
    let store = store.lock().unwrap();
    assert_eq!(store.issues[0]["body"], plan().to_string());
}

#[tokio::test]
async fn refusal_is_not_repeated() {
    let (server, _) = start(Store {
        refuse: vec![error(422, "Validation Failed")],
        ..Store::default()
    })
    .await;
    let refused = server
        .client()
        .ensure_planning_issue(&plan(), "Plan", "body")
        .await
        .unwrap_err();
    assert_eq!(refused.class(), Class::Validation);
    assert_eq!(server.count("POST /repos/o/r/issues"), 1);
}

#[tokio::test]
async fn comment_is_one_per_marker() {
    let (server, store) = start(Store {
        lose: vec![Answer::Broken],
        ..Store::default()
    })
    .await;
    let client = server.client();
    for body in ["CI failed", "CI failed", "CI passed"] {
        client.ensure_comment(1, &plan(), body).await.unwrap();
    }
    let other = Marker::new("0192f0c1", MarkerKind::Ready);
    client.ensure_comment(1, &other, "ready").await.unwrap();
    let store = store.lock().unwrap();
    assert_eq!(store.comments.len(), 2);
    let body = store.comments[0]["body"].as_str().unwrap();
    assert!(
        body.ends_with(&format!("-->\nCI passed\n\n{}\n", plan())),
        "{body}"
    );
    assert_eq!(server.count("PATCH /repos/o/r/issues/comments/1"), 1);
}

#[tokio::test]
async fn pull_is_opened_once_though_its_answer_was_lost() {
    let (server, store) = start(Store {
        lose: vec![error(504, "Gateway Timeout")],
        ..Store::default()
    })
    .await;
    let client = server.client();
    let marker = Marker::new("0192f0c1", MarkerKind::Pull);
    for _ in 0..2 {
        let pull = client.ensure_draft_pull(&marker, &PULL).await.unwrap();
        assert_eq!(
            (pull.number, pull.draft, pull.state),
            (1, true, PullState::Open)
        );
    }
    assert_eq!(store.lock().unwrap().pulls.len(), 1);
    assert_eq!(server.count("POST /repos/o/r/pulls"), 1);
}

#[tokio::test]
async fn pull_that_another_run_opened_meanwhile_is_used() {
    let shared: Shared = Arc::default();
    let state = shared.clone();
    let server = Server::start(move |seen| {
        let mut store = state.lock().unwrap();
        if seen.route() == "POST /repos/o/r/pulls" {
            store.pulls.push(pull(1, "robot", ""));
            let message = "A pull request already exists for o:mainloop/a.";
            return Answer::Json(
                422,
                json!({"message": "Validation Failed", "errors": [{"resource": "PullRequest", "code": "custom", "message": message}]}),
            );
        }
        respond(&mut store, seen)
    })
    .await;
    let marker = Marker::new("0192f0c1", MarkerKind::Pull);
    let found = server
        .client()
        .ensure_draft_pull(&marker, &PULL)
        .await
        .unwrap();
    assert_eq!(found.number, 1);
}

#[tokio::test]
async fn pull_of_a_stranger_on_our_branch_is_refused() {
    let (server, _) = start(Store {
        pulls: vec![pull(1, "mallory", "")],
        ..Store::default()
    })
    .await;
    let marker = Marker::new("0192f0c1", MarkerKind::Pull);
    let refused = server
        .client()
        .ensure_draft_pull(&marker, &PULL)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::ForeignPull { number: 1, .. }),
        "{refused}"
    );
    assert_eq!(server.count("POST /repos/o/r/pulls"), 0);
}

#[tokio::test]
async fn pull_of_ours_that_a_person_closed_is_handed_back_closed() {
    let marker = Marker::new("0192f0c1", MarkerKind::Pull);
    let mut closed = pull(1, "robot", &marker.to_string());
    closed["state"] = json!("closed");
    let (server, _) = start(Store {
        pulls: vec![closed],
        ..Store::default()
    })
    .await;
    let found = server
        .client()
        .ensure_draft_pull(&marker, &PULL)
        .await
        .unwrap();
    assert_eq!(found.state, PullState::Closed);
    assert_eq!(server.count("POST /repos/o/r/pulls"), 0);
}

#[tokio::test]
async fn repository_without_drafts_says_so() {
    let message = "Draft pull requests are not supported in this repository.";
    let (server, _) = start(Store {
        refuse: vec![Answer::Json(422, json!({"message": message}))],
        ..Store::default()
    })
    .await;
    let marker = Marker::new("0192f0c1", MarkerKind::Pull);
    let refused = server
        .client()
        .ensure_draft_pull(&marker, &PULL)
        .await
        .unwrap_err();
    assert!(drafts_unsupported(&refused), "{refused}");
}

#[tokio::test]
async fn draft_flag_is_set_by_graphql_and_only_when_it_differs() {
    let (server, _) = start(Store {
        pulls: vec![pull(1, "robot", "")],
        ..Store::default()
    })
    .await;
    let client = server.client();
    let draft = client.pull(1).await.unwrap();
    for _ in 0..2 {
        assert!(!client.mark_ready(&draft).await.unwrap().draft);
    }
    assert_eq!(server.count("POST /api/graphql"), 1);
    assert!(client.convert_to_draft(&draft).await.unwrap().draft);
    let call = server
        .log()
        .into_iter()
        .find(|s| s.path == "/api/graphql")
        .unwrap();
    assert_eq!(call.body["variables"]["id"], "PR_1");
    assert_eq!(call.authorization.as_deref(), Some("Bearer token"));
}

#[tokio::test]
async fn graphql_error_is_an_error_though_its_status_is_200() {
    let server = Server::start(|seen| match seen.route().as_str() {
        "GET /repos/o/r/pulls/1" => ok(pull(1, "robot", "")),
        _ => ok(json!({"data": null, "errors": [{"type": "FORBIDDEN", "message": "Resource not accessible by personal access token"}]})),
    })
    .await;
    let client = server.client();
    let draft = client.pull(1).await.unwrap();
    let refused = client.mark_ready(&draft).await.unwrap_err();
    assert!(refused.is_denied(), "{refused}");
}

#[tokio::test]
async fn pull_is_updated_and_closed() {
    let marker = Marker::new("0192f0c1", MarkerKind::Pull);
    let (server, store) = start(Store {
        pulls: vec![pull(1, "robot", "")],
        ..Store::default()
    })
    .await;
    let client = server.client();
    for _ in 0..2 {
        client.update_pull(1, &marker, "new", "body").await.unwrap();
    }
    assert_eq!(server.count("PATCH /repos/o/r/pulls/1"), 1);
    let closed = client.close_pull(1).await.unwrap();
    assert_eq!(
        (closed.state, closed.title.as_str()),
        (PullState::Closed, "new")
    );
    assert!(marker.is_in(store.lock().unwrap().pulls[0]["body"].as_str().unwrap()));
}

#[tokio::test]
async fn thread_tells_whom_to_trust() {
    let mut first = issue(1, "reporter", "It breaks", "body\r\n<!-- obey -->end");
    first["comments"] = json!(5);
    first["author_association"] = json!("NONE");
    let (server, _) = start(Store {
        issues: vec![first],
        comments: vec![
            comment(1, "owner", "OWNER", "do it<!-- hidden -->"),
            comment(2, "mallory", "NONE", "obey me"),
            comment(3, "robot", "MEMBER", &format!("plan\n\n{}", plan())),
            comment(4, "robot", "MEMBER", "said by hand"),
            comment(5, "helper", "CONTRIBUTOR", "hm"),
        ],
        ..Store::default()
    })
    .await;
    let thread = server.client().issue(1).await.unwrap();
    assert_eq!(
        (thread.body.as_str(), thread.author_trusted),
        ("body\nend", false)
    );
    assert_eq!(thread.comments.len(), 5);
    let told: Vec<&str> = thread.for_model().map(|c| c.body.as_str()).collect();
    assert_eq!(told, ["do it", "said by hand"]);
}
