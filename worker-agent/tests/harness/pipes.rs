//! Claude Code's pipes, with shell scripts in its place.

use std::collections::BTreeMap;
use std::time::Duration;

use mainloop_worker_agent::channel::{Inspect, Output, Pipes, Signal, StartClaude};
use mainloop_worker_agent::sidecar::sandbox::Worker;

use crate::support::{place, sandbox};

#[tokio::test]
async fn lines_go_in_and_out_and_the_end_is_last() {
    let place = place();
    let worker = sandbox(place.path(), "a").start().await.unwrap();
    let mut start =
        shell("cat $CLAUDE_CONFIG_DIR/sub/note; echo $EXTRA $http_proxy >&2; cat; exit 3");
    start
        .files
        .insert("sub/note".into(), "written before\n".into());
    start.env.insert("EXTRA".into(), "more".into());
    let mut pipes = worker.harness.start_claude(start).await.unwrap();
    pipes.input.send("{\"a\":1}".into()).await.unwrap();
    drop(pipes.input);
    let mut seen = Vec::new();
    while let Some(output) = next(&mut pipes.output).await {
        seen.push(output);
    }
    assert_eq!(
        seen.pop(),
        Some(Output::Exited {
            code: Some(3),
            signal: None
        })
    );
    let proxied = Output::Stderr("more http://127.0.0.1:41999".into());
    assert!(seen.contains(&proxied), "{seen:?}");
    seen.retain(|output| *output != proxied);
    assert_eq!(
        seen,
        [
            Output::Line("written before".into()),
            Output::Line("{\"a\":1}".into())
        ]
    );
    end(worker).await;
}

#[tokio::test]
async fn output_that_nobody_takes_stops_claude_and_nothing_else() {
    let place = place();
    let worker = sandbox(place.path(), "a").start().await.unwrap();
    // 40 MB in lines of 1 MB, far over the window.
    let flood = "line=$(head -c 1000000 /dev/zero | tr '\\0' x); for i in $(seq 40); do echo \"$line\"; done; echo over";
    let mut pipes = worker.harness.start_claude(shell(flood)).await.unwrap();
    for _ in 0..20 {
        worker.harness.inspect(Inspect::default()).await.unwrap();
    }
    let mut lines = 0;
    loop {
        match next(&mut pipes.output).await {
            Some(Output::Line(line)) if line == "over" => break,
            Some(Output::Line(line)) => {
                assert_eq!(line.len(), 1_000_000);
                lines += 1;
            }
            other => panic!("after {lines} lines: {other:?}"),
        }
    }
    assert_eq!(lines, 40);
    assert_eq!(
        next(&mut pipes.output).await,
        Some(Output::Exited {
            code: Some(0),
            signal: None
        })
    );
    end(worker).await;
}

#[tokio::test]
async fn a_line_over_the_limit_is_dropped_with_a_note() {
    let place = place();
    let worker = sandbox(place.path(), "a").start().await.unwrap();
    let long = "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo next";
    let mut pipes = worker.harness.start_claude(shell(long)).await.unwrap();
    let Some(Output::Stderr(note)) = next(&mut pipes.output).await else {
        panic!("no note")
    };
    assert!(note.contains("5000001 bytes was dropped"), "{note}");
    assert_eq!(
        next(&mut pipes.output).await,
        Some(Output::Line("next".into()))
    );
    end(worker).await;
}

#[tokio::test]
async fn one_claude_runs_at_a_time_and_another_can_follow() {
    let place = place();
    let worker = sandbox(place.path(), "a").start().await.unwrap();
    let mut first = worker
        .harness
        .start_claude(shell("echo up; exec sleep 1000"))
        .await
        .unwrap();
    assert_eq!(
        next(&mut first.output).await,
        Some(Output::Line("up".into()))
    );
    let error = worker
        .harness
        .start_claude(shell("true"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("runs already"), "{error}");
    worker
        .harness
        .signal_claude(Signal::Terminate)
        .await
        .unwrap();
    assert_eq!(
        next(&mut first.output).await,
        Some(Output::Exited {
            code: None,
            signal: Some(15)
        })
    );
    assert_eq!(next(&mut first.output).await, None);

    let mut second = worker
        .harness
        .start_claude(shell("echo two; exec sleep 1000"))
        .await
        .unwrap();
    assert_eq!(
        next(&mut second.output).await,
        Some(Output::Line("two".into()))
    );
    assert_eq!(worker.harness.end_step().await.unwrap(), 1);
    assert_eq!(
        next(&mut second.output).await,
        Some(Output::Exited {
            code: None,
            signal: Some(9)
        })
    );
    end(worker).await;
}

#[tokio::test]
async fn a_program_that_is_missing_or_a_file_outside_is_refused() {
    let place = place();
    let worker = sandbox(place.path(), "a").start().await.unwrap();
    let mut missing = shell("true");
    missing.program = "/no/such/program".into();
    let error = worker
        .harness
        .start_claude(missing)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such/program"), "{error}");
    let mut outside = shell("true");
    outside.files.insert("../home/x".into(), String::new());
    let error = worker
        .harness
        .start_claude(outside)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a path under"), "{error}");
    let Pipes { mut output, .. } = worker.harness.start_claude(shell("true")).await.unwrap();
    assert_eq!(
        next(&mut output).await,
        Some(Output::Exited {
            code: Some(0),
            signal: None
        })
    );
    end(worker).await;
}

fn shell(script: &str) -> StartClaude {
    StartClaude {
        program: "/bin/bash".into(),
        args: vec!["-c".into(), script.into()],
        env: BTreeMap::default(),
        files: BTreeMap::default(),
    }
}

async fn next(output: &mut tokio::sync::mpsc::Receiver<Output>) -> Option<Output> {
    let waited = tokio::time::timeout(Duration::from_secs(30), output.recv()).await;
    waited.expect("Claude's output goes on within 30 s")
}

async fn end(worker: Worker) {
    worker.running.end(&worker.harness).await.unwrap();
}
