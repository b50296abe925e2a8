//! What a worker may take of the machine, and what happens at the limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyutils::{Keyring, keytypes::User};
use mainloop_worker_agent::sidecar::sandbox::{Isolation, Limits, Sandbox, Strain};

use crate::support::{place, sandbox, script};

/// A sandbox that may take little.
fn small(place: &Path) -> Sandbox {
    let mut sandbox = sandbox(place, "a");
    sandbox.limits = Limits {
        memory_mib: Some(256),
        processes: 150,
        disk_mib: 64,
        ..Limits::default()
    };
    sandbox
}

/// The control groups that a sandbox named.
fn groups(sandbox: &Sandbox) -> Vec<PathBuf> {
    let list = fs::read_to_string(sandbox.run.join("cgroups")).unwrap_or_default();
    list.lines().map(PathBuf::from).collect()
}

#[tokio::test]
async fn what_takes_too_much_memory_is_killed_and_counted() {
    let place = place();
    let sandbox = small(place.path());
    let mut worker = sandbox.start().await.unwrap();
    let held = worker.running.held().to_string();
    if !worker.running.held().bounds_memory() {
        // A plain user on a host that lets nobody but root make groups.
        assert!(held.contains("memory is not limited ("), "{held}");
        worker.running.end(&worker.harness).await.unwrap();
        return;
    }
    assert!(
        held.starts_with("cgroup v") && held.contains("memory 256 MiB, 150 processes"),
        "{held}"
    );
    let there = groups(&sandbox);
    assert!(
        !there.is_empty() && there.iter().all(|group| group.is_dir()),
        "{there:?}"
    );
    assert_eq!(worker.running.strain(), Strain::default());

    let hog = "python3 -c 'x = bytearray(1 << 30)'";
    let failure = script(&mut worker, hog).await.unwrap_err().to_string();
    assert!(
        failure.contains("Killed") || failure.contains("signal 9"),
        "{failure}"
    );
    let strain = worker.running.strain();
    assert!(strain.killed >= 1 && strain.at_own_limit, "{strain:?}");
    let words = strain
        .since(Strain::default(), worker.running.held())
        .unwrap();
    assert!(words.contains("memory limit of 256 MiB"), "{words}");
    assert_eq!(strain.since(strain, worker.running.held()), None);
    // What is in memory although it is called a file counts as well.
    let fill = "head -c 60M /dev/zero > /tmp/a; head -c 60M /dev/zero > /dev/shm/a; python3 -c 'x = bytearray(200 << 20)'";
    script(&mut worker, fill).await.unwrap_err();
    // The harness itself goes on.
    assert_eq!(
        script(&mut worker, "rm /tmp/a /dev/shm/a; echo on")
            .await
            .unwrap(),
        "on\n"
    );
    worker.running.end(&worker.harness).await.unwrap();
    assert!(!there.iter().any(|group| group.exists()), "{there:?}");
}

#[tokio::test]
async fn processes_without_end_come_to_an_end() {
    for isolation in [None, Some(Isolation::None)] {
        let place = place();
        let mut sandbox = small(place.path());
        let is_walled = isolation.is_none();
        if let Some(isolation) = isolation {
            sandbox.isolation = isolation;
        }
        let mut worker = sandbox.start().await.unwrap();
        let held = worker.running.held().to_string();
        if held.contains("processes are not limited") {
            assert!(!is_walled, "the sandbox counts its own: {held}");
        } else {
            let bomb = "python3 -c '
import os, time
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except BlockingIOError:
    print(\"refused\", made < 150)
'";
            assert_eq!(script(&mut worker, bomb).await.unwrap(), "refused True\n");
        }
        // Room again, and nothing left.
        worker.harness.end_step().await.unwrap();
        assert_eq!(script(&mut worker, "echo on").await.unwrap(), "on\n");
        worker.running.kill().await.unwrap();
        let there = groups(&sandbox);
        assert!(!there.iter().any(|group| group.exists()), "{there:?}");
    }
}

#[tokio::test]
async fn a_file_without_end_comes_to_an_end_and_nothing_is_dumped() {
    let place = place();
    let mut worker = small(place.path()).start().await.unwrap();
    let printed = script(
        &mut worker,
        "head -c 80M /dev/zero > /work/big; stat -c %s /work/big; ulimit -c; ulimit -Hc; cat /proc/$$/oom_score_adj",
    )
    .await
    .unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    let wanted = [&(64 << 20).to_string(), "0", "0", "500"];
    assert_eq!(lines[lines.len() - 4..], wanted, "{printed}");
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn keys_of_whoever_started_the_plane_stay_outside() {
    // Of this thread, which starts the sandbox.
    let mut keys = Keyring::join_anonymous_session().unwrap();
    keys.add_key::<User, _, _>("mainloop-test-key", &b"secret"[..])
        .unwrap();
    let outside = Command::new("cat").arg("/proc/keys").output().unwrap();
    let outside = String::from_utf8_lossy(&outside.stdout).into_owned();
    assert!(
        outside.contains("mainloop-test-key"),
        "a child has it: {outside}"
    );
    for isolation in [None, Some(Isolation::None)] {
        let place = place();
        let mut sandbox = small(place.path());
        if let Some(isolation) = isolation {
            sandbox.isolation = isolation;
        }
        let mut worker = sandbox.start().await.unwrap();
        // keyctl(KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", name, 0)
        let search = "python3 -c '
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
found = libc.syscall(250, 10, ctypes.c_int(-3), b\"user\", b\"mainloop-test-key\", 0)
print(errno.errorcode[ctypes.get_errno()] if found == -1 else \"found\")
'";
        assert_eq!(script(&mut worker, search).await.unwrap(), "ENOKEY\n");
        worker.running.end(&worker.harness).await.unwrap();
    }
}
