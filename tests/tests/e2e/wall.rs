//! What Claude's commands can reach: the proxies, and nothing else.

use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use mainloop_proto::v1::{InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Conversation, Script, call, when},
    world::{World, script},
};

/// Tries everything, and says of each whether it got through.
const PROBE: &str = r#"
import os, socket, urllib.request

def say(name, got):
    print(f"{name}: {'REACHED ' + str(got) if got else 'no'}")

def tcp(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return True
    except OSError:
        return False

def unix(path):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        return True
    except OSError:
        return False

def listed(path):
    try:
        return os.listdir(path)
    except OSError:
        return None

def read(path):
    try:
        return open(path, "rb").read(20)
    except OSError:
        return None

# Else loopback is not asked of the proxy at all.
os.environ.pop("no_proxy", None)
os.environ.pop("NO_PROXY", None)

def by_proxy(url):
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    try:
        return opener.open(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return None if error.code in (403, 502) else error.code
    except OSError:
        return None

say("internet", tcp("1.1.1.1", 443) or tcp("8.8.8.8", 53))
say("metadata", tcp("169.254.169.254", 80))
say("host-loopback", tcp("127.0.0.1", CANARY) or tcp("::1", CANARY))
say("code-host", tcp("127.0.0.1", GITHUB))
say("plane", unix("DATA/mainloop.sock"))
say("plane-folder", listed("DATA"))
say("other-worker", listed("OTHER"))
say("other-workers", listed("DATA/workers"))
say("home", listed("HOME"))
say("root", listed("/root"))
say("homes", [h for h in (listed("/home") or []) if listed("/home/" + h)])
say("passwords", read("/etc/shadow"))
say("proxied-loopback", by_proxy("http://127.0.0.1:CANARY/"))
say("proxied-localhost", by_proxy("http://localhost:CANARY/"))
say("proxied-mapped", by_proxy("http://[::ffff:127.0.0.1]:CANARY/"))
say("proxied-code-host", by_proxy("http://127.0.0.1:GITHUB/ada/calc"))
say("proxied-metadata", by_proxy("http://169.254.169.254/latest/meta-data/"))
say("proxied-stranger", by_proxy("http://stranger.example.com/"))
say("host-processes", [p for p in os.listdir("/proc") if p.isdigit() and b"mainloop-control-plane" in (read("/proc/" + p + "/cmdline") or b"")])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_reaches_neither_network_nor_host_nor_others() -> Result<()> {
    // A canary on the host's loopback, which counts who comes.
    let canary = TcpListener::bind("127.0.0.1:0")?;
    let port = canary.local_addr()?.port();
    let visits = Arc::new(AtomicUsize::new(0));
    std::thread::spawn({
        let visits = Arc::clone(&visits);
        move || {
            for _ in canary.incoming() {
                visits.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    // It works: a visit from here counts.
    drop(std::net::TcpStream::connect(("127.0.0.1", port))?);

    // The probe needs paths of this world, so it goes in by the description and from there into the script.
    let script = Script::new()
        .with(Conversation::rules(
            "waits",
            when::about("marker-other"),
            vec![script::planning(script::SUBTRACT_PLAN)],
        ))
        .with(Conversation::rules(
            "tries",
            when::always(),
            vec![
                script::planning(script::SUBTRACT_PLAN),
                script::implementing(
                    vec![
                        script::subtract(true),
                        call::bash("{{re:(?s)BEGIN-PROBE(.*?)END-PROBE}}"),
                    ],
                    "Done.",
                ),
            ],
        ));
    let world = World::scripted(script).await?;
    let repo = world.repo("calc", &script::calculator())?;

    // Another worker, alive, with a folder of its own.
    let other = world.submit(&repo, "Something else, marker-other.").await?;
    other.expect_item(InboxItemKind::Plan).await?;
    let folder = world.workers().pop().context("it has a folder")?;
    assert!(
        fs::read_dir(&folder)?.count() > 0,
        "there would be something to see"
    );

    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let github = world
        .github()
        .base_url()
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let probe = PROBE
        .replace("CANARY", &port.to_string())
        .replace("GITHUB", &github)
        .replace("OTHER", &folder.display().to_string())
        .replace("DATA", &world.data().display().to_string())
        .replace("HOME", &home);
    let description = format!(
        "Subtract.\nBEGIN-PROBE\ncat > /tmp/probe.py <<'END_OF_PROBE'{probe}END_OF_PROBE\npython3 /tmp/probe.py\nEND-PROBE"
    );
    let task = world.submit(&repo, &description).await?;
    task.approve().await?;
    task.expect_state(TaskState::Ready).await?;

    let said = world
        .model()
        .outcomes("Bash")
        .into_iter()
        .map(|outcome| outcome.text)
        .find(|text| text.contains("host-processes: "))
        .unwrap_or_default();
    let wanted: Vec<String> = PROBE
        .lines()
        .filter_map(|line| {
            Some(format!(
                "{}: no",
                line.strip_prefix("say(\"")?.split('"').next()?
            ))
        })
        .collect();
    let got: Vec<String> = said
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(got, wanted, "{said}\n{}", task.report());
    assert_eq!(
        visits.load(Ordering::SeqCst),
        1,
        "only the visit from outside the sandbox came"
    );

    // The proxy refused, and not the network: off a cloud nobody answers at the metadata's address anyway.
    let mut hosts: Vec<String> = task
        .events()
        .into_iter()
        .filter(|event| event.kind == "host_refused")
        .map(|event| event.text)
        .collect();
    hosts.sort_unstable();
    let mut refused = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.0.0.1:{github}"),
        "169.254.169.254:80".to_owned(),
        "stranger.example.com:80".to_owned(),
    ]
    .map(|host| format!("host refused: {host}"));
    refused.sort_unstable();
    assert_eq!(hosts, refused);
    world.end().await
}
