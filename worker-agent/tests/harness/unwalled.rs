//! The same harness where the user wants no sandbox.

use mainloop_worker_agent::sidecar::sandbox::Isolation;

use crate::support::{place, sandbox, script, until};

#[tokio::test]
async fn without_a_sandbox_the_environment_is_clean_and_the_end_of_a_step_holds() {
    let place = place();
    let mut sandbox = sandbox(place.path(), "a");
    sandbox.isolation = Isolation::None;
    let mut worker = sandbox.start().await.unwrap();
    let home = sandbox.work.join("home").display().to_string();
    assert_eq!(worker.harness.hello().home, home);
    let printed = script(&mut worker, "setsid -f sleep 1717; env")
        .await
        .unwrap();
    assert!(
        printed.contains(&format!("HOME={home}\n")) && !printed.contains("CARGO"),
        "{printed}"
    );
    assert!(running("1717"), "the daemon runs");
    // The daemon, orphaned and in a session of its own, is found all the same; nothing else of this user is.
    assert_eq!(worker.harness.end_step().await.unwrap(), 1);
    assert!(!running("1717"), "the daemon is gone");
    assert_eq!(script(&mut worker, "echo on").await.unwrap(), "on\n");

    script(&mut worker, "setsid -f sleep 1718").await.unwrap();
    worker.running.end(&worker.harness).await.unwrap();
    until("the second daemon is gone", || {
        if running("1718") {
            Err("it runs")
        } else {
            Ok(())
        }
    })
    .await;
}

fn running(seconds: &str) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
}
