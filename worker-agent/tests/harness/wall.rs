//! What the wall holds back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdUnixListener};
use std::process::{Command, Stdio};

use mainloop_worker_agent::channel::{Inspect, Setup};
use mainloop_worker_agent::sidecar::sandbox::{Ids, Mount};

use crate::support::{place, sandbox, script, until};

#[tokio::test]
async fn inside_there_is_a_loopback_and_nothing_of_the_host() {
    let place = place();
    let other = place.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("secret"), "x").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let name = format!("mainloop-test-{}", std::process::id());
    let hidden =
        StdUnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    hidden.set_nonblocking(true).unwrap();

    let worker = sandbox(place.path(), "a").start().await.unwrap();
    let paths = [
        "/root",
        "/home",
        "/var",
        "/run",
        "/sys",
        "/etc/shadow",
        "/etc/ssh",
        "/etc/machine-id",
        "/etc/resolv.conf",
    ];
    let mut paths: Vec<String> = paths.map(String::from).into();
    paths.push(other.join("secret").display().to_string());
    paths.push(place.path().display().to_string());
    paths.push("/mainloop/sock/control.sock".into());
    let connect = vec![
        tcp.local_addr().unwrap().to_string(),
        "1.1.1.1:443".into(),
        format!("@{name}"),
    ];
    let programs = [["git", "--version"], ["bash", "--version"]];
    let programs = programs
        .map(|program| program.map(String::from).to_vec())
        .to_vec();
    let seen = worker
        .harness
        .inspect(Inspect {
            paths,
            connect,
            programs,
        })
        .await
        .unwrap();

    assert_eq!(seen.interfaces, ["lo"]);
    assert_eq!(seen.visible, [""; 0]);
    assert_eq!(seen.reached, [""; 0]);
    assert_eq!(
        tcp.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    assert_eq!(
        hidden.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    assert_eq!((seen.uid, seen.pid), (1000, 1));
    assert_eq!(seen.processes.len(), 1, "{:?}", seen.processes);
    assert!(
        seen.programs.iter().all(|(ok, _)| *ok),
        "{:?}",
        seen.programs
    );
    assert!(
        seen.confinement.contains(&"NoNewPrivs: 1".to_owned()),
        "{:?}",
        seen.confinement
    );
    assert!(
        seen.confinement
            .contains(&"CapEff: 0000000000000000".to_owned()),
        "{:?}",
        seen.confinement
    );
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn what_runs_inside_cannot_break_out_or_in() {
    let place = place();
    let sandbox = sandbox(place.path(), "a");
    sandbox.prepare().unwrap();
    let _proxy = StdUnixListener::bind(sandbox.proxy_socket()).unwrap();
    let mut worker = sandbox.start().await.unwrap();
    let mut refused = Vec::new();
    for attempt in [
        "unshare --user true",
        "unshare --net true",
        "bwrap --ro-bind / / true",
        "rm -f /mainloop/sock/proxy.sock && ! test -e /mainloop/sock/proxy.sock",
        "mv /mainloop/sock /mainloop/x",
        "touch /mainloop/sock/control.sock",
        "touch /usr/x",
        "touch /etc/x",
        "touch /x",
        "touch /dev/x",
        "mount -t tmpfs none /tmp",
        "cat /proc/1/environ",
        "ls /proc/1/fd/",
        "cat /proc/1/mem",
        "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem",
    ] {
        match script(&mut worker, attempt).await {
            Err(_) => refused.push(attempt),
            Ok(printed) => panic!("`{attempt}` worked: {printed}"),
        }
    }
    assert_eq!(refused.len(), 15);
    // PID 1 takes no signal from inside: the same harness answers what follows.
    script(&mut worker, "kill -9 1").await.unwrap();
    // What it may do, so that the refusals above mean something.
    let printed = script(
        &mut worker,
        "set -e; touch /work/x /tmp/x /dev/shm/x; test -S /mainloop/sock/proxy.sock; echo $MARK; id -un; pwd; echo $HOME",
    );
    assert_eq!(
        printed.await.unwrap(),
        "set\nworker\n/work/repo\n/work/home\n"
    );
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn tmp_is_bounded() {
    let place = place();
    let mut worker = sandbox(place.path(), "a").start().await.unwrap();
    for target in ["/tmp", "/dev/shm"] {
        let fill = format!("head -c 80M /dev/zero > {target}/big");
        let failure = script(&mut worker, &fill).await.unwrap_err().to_string();
        assert!(failure.contains("No space left"), "{failure}");
        script(&mut worker, &format!("rm {target}/big"))
            .await
            .unwrap();
    }
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn nothing_of_the_sidecars_environment_is_inside() {
    // cargo puts it there; it stands for a credential.
    let marker = std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo");
    let place = place();
    let mut worker = sandbox(place.path(), "a").start().await.unwrap();
    let look = "sleep 1000 & cat /proc/[2-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; env";
    let printed = script(&mut worker, look).await.unwrap();
    assert!(printed.contains("no_proxy=127.0.0.1"), "{printed}");
    assert!(
        !printed.contains(&marker) && !printed.contains("CARGO"),
        "{printed}"
    );

    let outer = worker.running.pid().expect("it runs");
    let mut looked_at = 0;
    for pid in descendants(outer) {
        for file in ["environ", "cmdline"] {
            // The harness itself lets only root look.
            let Ok(bytes) = fs::read(format!("/proc/{pid}/{file}")) else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(
                !text.contains(&marker) && !text.contains("CARGO"),
                "{pid} {file}: {text}"
            );
            looked_at += 1;
        }
    }
    assert!(
        looked_at >= 4,
        "only {looked_at} files of processes under {outer} could be read"
    );
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_step_leaves_no_process() {
    let place = place();
    let mut worker = sandbox(place.path(), "a").start().await.unwrap();
    let daemons = "setsid -f sleep 1000; (trap '' TERM INT HUP; sleep 1001) & setsid -f bash -c 'sleep 1002 & wait'";
    script(&mut worker, daemons).await.unwrap();
    let before = worker.harness.inspect(Inspect::default()).await.unwrap();
    assert!(before.processes.len() >= 5, "{:?}", before.processes);
    let killed = worker.harness.end_step().await.unwrap();
    assert_eq!(killed, before.processes.len() - 1, "{:?}", before.processes);
    let after = worker.harness.inspect(Inspect::default()).await.unwrap();
    assert_eq!(after.processes.len(), 1, "{:?}", after.processes);
    assert_eq!(worker.harness.end_step().await.unwrap(), 0);
    // And it can go on.
    assert_eq!(script(&mut worker, "echo on").await.unwrap(), "on\n");
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_step_ends_what_is_under_way() {
    let place = place();
    let worker = sandbox(place.path(), "a").start().await.unwrap();
    let setup = Setup {
        commands: vec!["sleep 1000".into()],
        env: BTreeMap::default(),
        timeout_seconds: 1000,
    };
    let (setup, killed) = tokio::join!(worker.harness.setup(setup), async {
        loop {
            let seen = worker.harness.inspect(Inspect::default()).await.unwrap();
            if seen.processes.iter().any(|name| name.contains("sleep")) {
                return worker.harness.end_step().await;
            }
        }
    });
    assert!(
        setup
            .unwrap_err()
            .to_string()
            .contains("the step was ended")
    );
    assert!(killed.unwrap() >= 1);
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn a_killed_sandbox_leaves_nothing_and_says_so() {
    let place = place();
    let mut worker = sandbox(place.path(), "a").start().await.unwrap();
    script(&mut worker, "setsid -f sleep 1000").await.unwrap();
    let all = descendants(worker.running.pid().expect("it runs"));
    assert!(all.len() >= 3, "{all:?}");
    worker.running.kill().await.unwrap();
    let left: Vec<_> = all.into_iter().filter(|pid| alive(*pid)).collect();
    assert_eq!(left, [0; 0]);
    worker.harness.closed().await;
    let error = worker.harness.diffstat().await.unwrap_err().to_string();
    assert!(error.contains("the harness is gone"), "{error}");
}

/// Runs twice: the test starts itself again as the sidecar that is killed.
#[tokio::test]
async fn killing_the_sidecar_ends_the_sandbox() {
    const PLACE: &str = "MAINLOOP_TEST_SIDECAR";
    if let Some(place) = std::env::var_os(PLACE) {
        let mut worker = sandbox(place.as_ref(), "a").start().await.unwrap();
        script(&mut worker, "setsid -f sleep 1000").await.unwrap();
        let all = descendants(worker.running.pid().expect("it runs"));
        eprintln!(
            "sandbox {}",
            all.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
        );
        worker.harness.closed().await;
        panic!("the sandbox ended before its sidecar");
    }
    let place = place();
    let mut sidecar = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "wall::killing_the_sidecar_ends_the_sandbox",
        ])
        .env(PLACE, place.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(sidecar.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let line = lines
        .find(|line| line.starts_with("sandbox "))
        .expect("the sidecar starts a sandbox");
    let all: Vec<u32> = line
        .split(' ')
        .skip(1)
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(
        all.len() >= 3 && all.iter().all(|pid| alive(*pid)),
        "{all:?}"
    );
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
    until("the sandbox ends with its sidecar", || {
        let left: Vec<_> = all.iter().filter(|pid| alive(**pid)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?} still there"))
        }
    })
    .await;
    // As the launcher does, which is told by this file.
    let list = fs::read_to_string(place.path().join("a/run/cgroups")).unwrap_or_default();
    for group in list.lines() {
        until("its control group is empty", || fs::remove_dir(group)).await;
    }
}

#[tokio::test]
async fn toolchains_are_there_and_cannot_be_written() {
    let place = place();
    let tools = place.path().join("tools");
    fs::create_dir_all(tools.join("bin")).unwrap();
    fs::write(tools.join("bin/hello"), "#!/bin/sh\necho hello $WHO\n").unwrap();
    for path in [tools.clone(), tools.join("bin"), tools.join("bin/hello")] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut sandbox = sandbox(place.path(), "a");
    sandbox.toolchains.mounts.push(Mount {
        host: tools,
        path: Some("/opt/tools".into()),
    });
    sandbox.toolchains.path.push("/opt/tools/bin".into());
    sandbox.toolchains.env.insert("WHO".into(), "world".into());
    sandbox
        .toolchains
        .validate(&[place.path().join("a")])
        .unwrap();
    let mut worker = sandbox.start().await.unwrap();
    assert_eq!(script(&mut worker, "hello").await.unwrap(), "hello world\n");
    script(&mut worker, "touch /opt/tools/x").await.unwrap_err();
    worker.running.end(&worker.harness).await.unwrap();
}

#[tokio::test]
async fn a_mount_that_the_harness_cannot_get_to_is_named() {
    if !nix::unistd::geteuid().is_root() {
        // Only another uid can be locked out; the table of `reach` is tested beside it.
        return;
    }
    let place = place();
    let mut sandbox = sandbox(place.path(), "a");
    sandbox.ids = Some(Ids { uid: 0, gid: 0 });
    assert!(
        sandbox
            .prepare()
            .unwrap_err()
            .to_string()
            .contains("may not run as root")
    );
    sandbox.ids = Some(Ids::for_worker("a"));
    fs::set_permissions(
        place.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let error = sandbox.prepare().unwrap_err().to_string();
    assert!(
        error.contains("cannot get to") && error.contains("chmod o+x"),
        "{error}"
    );
}

/// A process and everything below it.
fn descendants(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .map(|pid| pid.parse::<u32>().unwrap()),
            );
        }
    }
    all
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
