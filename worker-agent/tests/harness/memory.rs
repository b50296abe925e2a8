//! What the sidecar's process gives away.

use std::process::Stdio;

use crate::support::until;

#[tokio::test]
async fn a_sidecar_leaves_no_core_dump() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("worker.json");
    // It waits for its token.
    let text = serde_json::json!({
        "attempt_id": "0192f0c1-0000-7000-8000-000000000000",
        "host_id": "test",
        "link_socket": dir.path().join("none.sock"),
        "dir": dir.path(),
        "claude": "/bin/false",
        "sandbox": true,
        "mounts": {},
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let mut sidecar = tokio::process::Command::new(env!("CARGO_BIN_EXE_mainloop-worker-agent"))
        .arg("sidecar")
        .arg(&config)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", sidecar.id().unwrap());
    until("the limit on core dumps", || {
        let text = std::fs::read_to_string(&limits).unwrap();
        let core = text.lines().find(|line| line.starts_with("Max core file"));
        let words: Vec<&str> = core.unwrap_or_default().split_whitespace().collect();
        match words[..] {
            [.., "0", "0", "bytes"] => Ok(()),
            _ => Err(words.join(" ")),
        }
    })
    .await;
    sidecar.kill().await.unwrap();
}
