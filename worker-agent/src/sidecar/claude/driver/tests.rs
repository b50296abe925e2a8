//! The driver against the real CLI, which talks to a scripted model.

#![allow(clippy::unwrap_used)]

use serde_json::json;
use uuid::Uuid;

use super::super::events::{Answer, Event, FailureClass, TurnEnd};
use super::super::launch::{CredentialKind, PLACEHOLDER, Session};
use super::super::testing::{Bench, Cli, PATIENCE, Reply};
use super::{CommandError, Mode, OpenError, Output};

const PLAN: &str = "# Greet in French\n\n1. Change the word.\n";

async fn ignore(_: &Event) {}

fn failed(end: TurnEnd) -> (FailureClass, Option<u16>, String) {
    match end {
        TurnEnd::Failed {
            class,
            status,
            message,
        } => (class, status, message),
        other => panic!("the turn did not fail: {other:?}"),
    }
}

fn completed(end: TurnEnd) -> String {
    match end {
        TurnEnd::Completed { text, .. } => text,
        other => panic!("the turn did not complete: {other:?}"),
    }
}

fn slow() -> Reply {
    Reply::Tool(
        "Bash",
        json!({"command": "touch began; until [ -e go ]; do sleep 0.1; done; echo ended", "description": "wait"}),
    )
}

/// Until a file that a tool writes is there.
async fn exists(path: std::path::PathBuf) {
    for _ in 0..900 {
        if path.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{} did not appear within 90 s", path.display());
}

#[tokio::test]
async fn a_stored_plan_ends_the_turn_and_the_work_is_a_turn_of_its_own() {
    let write = Reply::Tool(
        "Bash",
        json!({"command": "echo bonjour > greeting", "description": "write"}),
    );
    let bench = Bench::new(vec![
        Reply::WritePlan(PLAN),
        Reply::Tool("ExitPlanMode", json!({})),
        write,
        Reply::Text("Changed."),
    ])
    .await;
    let mut cli = bench.start(Mode::Plan).await;
    let handle = cli.driver.handle();
    let (end, events) = cli
        .turn("plan it", async |event| {
            if let Event::Plan { .. } = event {
                handle.plan_stored().await.unwrap();
            }
        })
        .await;
    assert_eq!(end, TurnEnd::Planned { text: PLAN.into() });
    assert!(
        events.contains(&Event::Plan { text: PLAN.into() }),
        "{events:#?}"
    );
    assert_eq!(bench.model.seen().len(), 2, "no request after the plan");
    assert!(
        bench
            .model
            .last_messages()
            .contains("GUIDANCE-OF-THE-BASE-COMMIT"),
        "guidance reaches Claude"
    );

    handle.set_permission_mode(Mode::Work).await.unwrap();
    let (end, _) = cli.turn("carry it out", ignore).await;
    assert_eq!(completed(end), "Changed.");
    assert_eq!(
        std::fs::read_to_string(bench.path("work/greeting")).unwrap(),
        "bonjour\n"
    );
}

#[tokio::test]
async fn planning_neither_changes_anything_nor_presents_an_empty_plan() {
    let bench = Bench::new(vec![
        Reply::Tool(
            "Bash",
            json!({"command": "touch made", "description": "write"}),
        ),
        Reply::Tool("ExitPlanMode", json!({"plan": "ignored by the CLI"})),
        Reply::Text("I give up."),
    ])
    .await;
    let mut cli = bench.start(Mode::Plan).await;
    let (end, events) = cli.turn("plan it", ignore).await;
    assert_eq!(completed(end), "I give up.");
    assert!(!bench.path("work/made").exists());
    assert!(
        bench.model.last_messages().contains("There is no plan yet"),
        "{}",
        bench.model.last_messages()
    );
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::Denied { .. }))
            .count(),
        2,
        "{events:#?}"
    );
}

#[tokio::test]
async fn a_question_waits_for_its_answer() {
    let questions = json!({"questions": [{"question": "Which color?", "header": "Color", "multiSelect": false,
        "options": [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}]}]});
    let bench = Bench::new(vec![
        Reply::Tool("AskUserQuestion", questions),
        Reply::Text("Blue it is."),
    ])
    .await;
    let mut cli = bench.start(Mode::Work).await;
    let handle = cli.driver.handle();
    let (end, _) = cli
        .turn("paint", async |event| {
            if let Event::Question { id, questions, .. } = event {
                assert_eq!(questions[0].options[1].label, "Blue");
                assert_eq!(
                    handle.answer("other", Answer::Replies(vec![])).await,
                    Err(CommandError::NoSuchQuestion)
                );
                assert_eq!(handle.activity().waiting, 1);
                handle
                    .answer(id, Answer::Replies(vec!["Blue".into()]))
                    .await
                    .unwrap();
            }
        })
        .await;
    assert_eq!(completed(end), "Blue it is.");
    assert!(
        bench
            .model
            .last_messages()
            .contains(r#"\"Which color?\"=\"Blue\""#),
        "{}",
        bench.model.last_messages()
    );
    assert_eq!(handle.activity().waiting, 0);
}

#[tokio::test]
async fn own_tools_ask_report_and_block() {
    let bench = Bench::new(vec![
        Reply::Tool(
            "mcp__mainloop__report_progress",
            json!({"text": "Half way."}),
        ),
        Reply::Tool(
            "mcp__mainloop__ask_human",
            json!({"question": "Tabs?", "options": ["yes", "no"]}),
        ),
        Reply::Tool(
            "mcp__mainloop__report_blocker",
            json!({"kind": "access", "what": "No key.", "detail": "401"}),
        ),
        Reply::Text("Stopped."),
    ])
    .await;
    let mut cli = bench.start(Mode::Work).await;
    let handle = cli.driver.handle();
    let (end, events) = cli
        .turn("go", async |event| match event {
            Event::Question { id, .. } => handle
                .answer(id, Answer::Replies(vec!["ANSWER-SPACES".into()]))
                .await
                .unwrap(),
            Event::Blocker { id, .. } => handle
                .answer(id, Answer::Stop("REASON-NO-KEY".into()))
                .await
                .unwrap(),
            _ => {}
        })
        .await;
    assert_eq!(completed(end), "Stopped.");
    assert!(
        events.contains(&Event::Progress("Half way.".into())),
        "{events:#?}"
    );
    assert!(
        events.iter().any(|event| matches!(
            event,
            Event::Started {
                tools_connected: true,
                ..
            }
        )),
        "{events:#?}"
    );
    let messages = bench.model.last_messages();
    assert!(
        messages.contains("ANSWER-SPACES") && messages.contains("REASON-NO-KEY"),
        "{messages}"
    );
}

#[tokio::test]
async fn a_thread_that_is_there_is_answered_and_another_is_refused() {
    let answer = |thread: &str| {
        Reply::Tool(
            "mcp__mainloop__answer_thread",
            json!({"thread": thread, "answer": "Done."}),
        )
    };
    let bench = Bench::new(vec![answer("t9"), answer("t1"), Reply::Text("Answered.")]).await;
    let mut cli = bench.start(Mode::Work).await;
    let (end, events) = cli.turn("go", ignore).await;
    assert_eq!(completed(end), "Answered.");
    let answered: Vec<&Event> = events
        .iter()
        .filter(|event| matches!(event, Event::ThreadAnswer { .. }))
        .collect();
    let wanted = Event::ThreadAnswer {
        thread: "t1".into(),
        text: "Done.".into(),
    };
    assert_eq!(answered, [&wanted]);
}

#[tokio::test]
async fn nothing_to_change_ends_a_planning_turn() {
    let bench = Bench::new(vec![
        Reply::Tool(
            "mcp__mainloop__nothing_to_change",
            json!({"reason": "It greets in French."}),
        ),
        Reply::Text("unheard"),
    ])
    .await;
    let mut cli = bench.start(Mode::Plan).await;
    let (end, events) = cli.turn("plan it", ignore).await;
    assert_eq!(
        end,
        TurnEnd::NothingToChange {
            reason: "It greets in French.".into()
        }
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::NothingToChange { .. })),
        "{events:#?}"
    );
}

#[tokio::test]
async fn words_said_in_mid_run_reach_the_model_in_the_same_turn() {
    let bench = Bench::new(vec![slow(), Reply::Text("Heard.")]).await;
    let mut cli = bench.start(Mode::Work).await;
    let handle = cli.driver.handle();
    assert_eq!(
        handle.say(Uuid::now_v7(), "too early").await,
        Err(CommandError::NoTurn)
    );
    let id = Uuid::now_v7();
    let work = bench.path("work");
    let steer = async {
        exists(work.join("began")).await;
        handle.say(id, "WORDS-IN-BETWEEN").await.unwrap();
        handle.say(id, "WORDS-IN-BETWEEN").await.unwrap();
        std::fs::write(work.join("go"), "").unwrap();
    };
    let ((end, _), ()) = tokio::join!(cli.turn("go", ignore), steer);
    assert_eq!(completed(end), "Heard.");
    assert_eq!(
        bench
            .model
            .last_messages()
            .matches("WORDS-IN-BETWEEN")
            .count(),
        1,
        "said once, though repeated"
    );
}

#[tokio::test]
async fn words_that_come_too_late_are_answered_before_the_turn_is_over() {
    let bench = Bench::new(vec![Reply::Gated("First."), Reply::Text("Second.")]).await;
    let mut cli = bench.start(Mode::Work).await;
    let handle = cli.driver.handle();
    let steer = async {
        bench.model.asked(1).await;
        handle.say(Uuid::now_v7(), "LATE-WORDS").await.unwrap();
        bench.model.open_gate();
    };
    let ((end, events), ()) = tokio::join!(cli.turn("go", ignore), steer);
    assert_eq!(completed(end), "Second.");
    assert!(bench.model.last_messages().contains("LATE-WORDS"));
    assert!(
        events.contains(&Event::Text("First.".into())),
        "{events:#?}"
    );
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_and_the_process_takes_the_next() {
    let bench = Bench::new(vec![slow(), Reply::Text("Next.")]).await;
    let mut cli = bench.start(Mode::Work).await;
    let handle = cli.driver.handle();
    let work = bench.path("work");
    let steer = async {
        exists(work.join("began")).await;
        handle.interrupt().await.unwrap();
    };
    let ((end, _), ()) = tokio::join!(cli.turn("go", ignore), steer);
    assert_eq!(end, TurnEnd::Interrupted);
    let (end, _) = cli.turn("again", ignore).await;
    assert_eq!(completed(end), "Next.");
}

#[tokio::test]
async fn an_interrupt_withdraws_the_open_question() {
    for tool in [
        Reply::Tool("mcp__mainloop__ask_human", json!({"question": "Tabs?"})),
        Reply::Tool(
            "AskUserQuestion",
            json!({"questions": [{"question": "Tabs?", "header": "T", "multiSelect": false,
            "options": [{"label": "Yes", "description": "y"}, {"label": "No", "description": "n"}]}]}),
        ),
    ] {
        let bench = Bench::new(vec![tool, Reply::Text("unheard")]).await;
        let mut cli = bench.start(Mode::Work).await;
        let handle = cli.driver.handle();
        let (end, events) = cli
            .turn("go", async |event| {
                if matches!(event, Event::Question { .. }) {
                    handle.interrupt().await.unwrap();
                }
            })
            .await;
        assert_eq!(end, TurnEnd::Interrupted);
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Event::Withdrawn { .. })),
            "{events:#?}"
        );
        assert_eq!(handle.activity().waiting, 0);
    }
}

#[tokio::test]
async fn errors_of_the_model_have_their_classes() {
    for (status, kind, message, class) in [
        (
            401,
            "authentication_error",
            "invalid x-api-key",
            FailureClass::Authentication,
        ),
        (
            529,
            "overloaded_error",
            "Overloaded",
            FailureClass::Overloaded,
        ),
        (
            429,
            "rate_limit_error",
            "slow down",
            FailureClass::RateLimited,
        ),
        (500, "api_error", "oops", FailureClass::Server),
        (400, "invalid_request_error", "bad", FailureClass::Other),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 300000 tokens > 200000 maximum",
            FailureClass::PromptTooLong,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            FailureClass::Billing,
        ),
        (
            404,
            "not_found_error",
            "model: sonnet",
            FailureClass::ModelUnavailable,
        ),
        (
            403,
            "permission_error",
            "mainloop: the task's budget is used up (5.0010 of 5.0000 USD)",
            FailureClass::Budget,
        ),
        (
            400,
            "invalid_request_error",
            "mainloop: the task's budget is used up (5.0010 of 5.0000 USD)",
            FailureClass::Budget,
        ),
    ] {
        let bench = Bench::new(vec![Reply::Error {
            status,
            kind,
            message,
            retry: false,
        }])
        .await;
        let mut cli = bench.start(Mode::Work).await;
        let (end, events) = cli.turn("go", ignore).await;
        let (seen, http, text) = failed(end);
        assert_eq!(seen, class, "{status} {message}: {text} {events:#?}");
        assert_eq!(http, Some(status), "{text}");
    }
}

#[tokio::test]
async fn a_retry_is_shown_and_then_forgotten() {
    let error = Reply::Error {
        status: 500,
        kind: "api_error",
        message: "oops",
        retry: true,
    };
    let bench = Bench::new(vec![error, Reply::Text("Fine.")]).await;
    let mut cli = bench.start(Mode::Work).await;
    let (end, events) = cli.turn("go", ignore).await;
    assert_eq!(completed(end), "Fine.");
    assert!(
        events.iter().any(|event| matches!(
            event,
            Event::Retry {
                status: Some(500),
                ..
            }
        )),
        "{events:#?}"
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Cost { usage, .. } if usage.output > 0)),
        "{events:#?}"
    );
}

#[tokio::test]
async fn each_kind_of_credential_sends_its_own_header() {
    for (kind, name, value) in [
        (CredentialKind::ApiKey, "x-api-key", PLACEHOLDER.to_owned()),
        (
            CredentialKind::OAuthToken,
            "authorization",
            format!("Bearer {PLACEHOLDER}"),
        ),
        (
            CredentialKind::GatewayToken,
            "authorization",
            format!("Bearer {PLACEHOLDER}"),
        ),
    ] {
        let mut bench = Bench::new(vec![Reply::Text("Hello.")]).await;
        bench.credential = kind;
        let mut cli = bench.start(Mode::Work).await;
        let (end, _) = cli.turn("go", ignore).await;
        assert_eq!(completed(end), "Hello.");
        let headers = &bench.model.seen()[0].headers;
        assert_eq!(headers.get(name).unwrap(), &value, "{kind:?}");
        assert_eq!(
            headers.contains_key("x-api-key"),
            kind == CredentialKind::ApiKey,
            "{kind:?}"
        );
        let beta = headers.get("anthropic-beta").unwrap().to_str().unwrap();
        assert_eq!(
            beta.contains("oauth-"),
            kind == CredentialKind::OAuthToken,
            "{kind:?}: {beta}"
        );
    }
}

#[tokio::test]
async fn lines_that_nobody_knows_are_shown_and_harm_nothing() {
    let bench = Bench::new(vec![Reply::Gated("Fine.")]).await;
    let mut cli = bench.start(Mode::Work).await;
    let inject = cli.inject.clone();
    let strange = async {
        bench.model.asked(1).await;
        for line in [
            "no JSON at all",
            r#"{"type":"novelty","x":1}"#,
            r#"{"type":"control_request","request_id":"zz","request":{"subtype":"dance"}}"#,
            r#"{"type":"control_response","response":{"subtype":"success","request_id":"never asked"}}"#,
            r#"{"type":"result","is_error":true,"result":"not ours","origin":{"kind":"task-notification"}}"#,
            r#"{"type":"assistant","message":7}"#,
        ] {
            inject.send(Output::Line(line.into())).await.unwrap();
        }
        bench.model.open_gate();
    };
    let ((end, events), ()) = tokio::join!(cli.turn("go", ignore), strange);
    assert_eq!(completed(end), "Fine.");
    assert!(
        events.contains(&Event::Stderr("no JSON at all".into())),
        "{events:#?}"
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Unknown(text) if text.contains("novelty"))),
        "{events:#?}"
    );
}

#[tokio::test]
async fn the_repositorys_settings_hooks_and_servers_stay_out() {
    let bench = Bench::new(vec![
        Reply::Tool("Bash", json!({"command": "true", "description": "x"})),
        Reply::Text("Fine."),
    ])
    .await;
    let hook = json!({"hooks": {"PreToolUse": [{"matcher": "*", "hooks": [{"type": "command", "command": "touch hooked"}]}]}, "model": "opus"});
    std::fs::create_dir(bench.path("work/.claude")).unwrap();
    std::fs::write(bench.path("work/.claude/settings.json"), hook.to_string()).unwrap();
    std::fs::write(
        bench.path("work/.mcp.json"),
        json!({"mcpServers": {"evil": {"command": "touch", "args": ["served"]}}}).to_string(),
    )
    .unwrap();
    std::fs::write(bench.path("work/CLAUDE.md"), "WORDS-OF-THE-WORK-TREE").unwrap();
    let mut cli = bench.start(Mode::Work).await;
    let (end, _) = cli.turn("go", ignore).await;
    assert_eq!(completed(end), "Fine.");
    assert!(!bench.path("work/hooked").exists() && !bench.path("work/served").exists());
    let seen = bench.model.seen();
    assert!(!seen[0].body.to_string().contains("WORDS-OF-THE-WORK-TREE"));
    assert_eq!(seen[0].body["model"], "claude-sonnet-5-5");
}

#[tokio::test]
async fn a_killed_process_ends_the_turn_and_its_session_resumes() {
    let bench = Bench::new(vec![
        Reply::Text("Hello."),
        Reply::Gated("unheard"),
        Reply::Text("Back."),
    ])
    .await;
    let session = Uuid::new_v4();
    let mut cli = bench.open(Mode::Work, Session::New(session)).await.unwrap();
    let (end, _) = cli.turn("FIRST-WORDS", ignore).await;
    completed(end);
    let kill = std::sync::Arc::clone(&cli.kill);
    let killer = async {
        bench.model.asked(2).await;
        kill.notify_one();
    };
    let ((end, _), ()) = tokio::join!(cli.turn("go on", ignore), killer);
    assert!(
        matches!(
            end,
            TurnEnd::ProcessExited {
                signal: Some(9),
                ..
            }
        ),
        "{end:?}"
    );
    assert_eq!(
        cli.driver.handle().interrupt().await,
        Err(CommandError::Closed)
    );
    assert!(matches!(
        cli.turn("more", ignore).await.0,
        TurnEnd::ProcessExited {
            signal: Some(9),
            ..
        }
    ));

    let mut cli = bench
        .open(Mode::Work, Session::Resume(session))
        .await
        .unwrap();
    let (end, _) = cli.turn("again", ignore).await;
    assert_eq!(completed(end), "Back.");
    assert!(
        bench.model.last_messages().contains("FIRST-WORDS"),
        "the conversation goes on"
    );
    cli.driver.handle().end().await.unwrap();
}

#[tokio::test]
async fn a_session_that_does_not_exist_is_told_at_once() {
    let bench = Bench::new(vec![Reply::Text("unheard")]).await;
    match bench
        .open(Mode::Work, Session::Resume(Uuid::new_v4()))
        .await
    {
        Err(OpenError::Exited {
            code: Some(1),
            stderr,
            ..
        }) => assert!(stderr.contains("No conversation found"), "{stderr}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test]
async fn events_that_nobody_reads_are_dropped_but_no_question_is() {
    let bench = Bench::new(vec![
        Reply::Tool("mcp__mainloop__ask_human", json!({"question": "Tabs?"})),
        Reply::Text("Fine."),
    ])
    .await;
    let mut cli = bench.start(Mode::Work).await;
    for n in 0..2000 {
        cli.inject
            .send(Output::Line(format!("noise {n}")))
            .await
            .unwrap();
    }
    let handle = cli.driver.handle();
    let Cli { driver, events, .. } = &mut cli;
    let reader = async {
        let mut activity = handle.activity.clone();
        let asked = tokio::time::timeout(
            PATIENCE,
            activity.wait_for(|activity| activity.waiting == 1),
        )
        .await
        .map(|asked| asked.is_ok());
        assert_eq!(asked, Ok(true), "no question was opened");
        let mut dropped = 0;
        while let Some(event) = events.recv().await {
            match event {
                Event::Dropped(count) => dropped += count,
                Event::Question { id, .. } => handle
                    .answer(&id, Answer::Replies(vec!["no".into()]))
                    .await
                    .unwrap(),
                Event::Cost { .. } => break,
                _ => {}
            }
        }
        dropped
    };
    let (end, dropped) = tokio::join!(driver.turn("go"), reader);
    assert_eq!(completed(end), "Fine.");
    assert!(dropped > 1000, "{dropped} were dropped");
}
