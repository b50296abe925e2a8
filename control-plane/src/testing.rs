//! A real database for tests: one private server for each test program, and in it a migrated database for each test.

#![allow(clippy::unwrap_used)]

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use tokio::{sync::OnceCell, time::Instant};
use tokio_postgres::{NoTls, error::SqlState};

use crate::{
    db::{Store, migrate::migrate},
    postgres::{Options, Server},
};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Name of the migrated database that tests get copies of.
const TEMPLATE: &str = "migrated";

static SERVER: OnceCell<Server> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A store over a database of the test's own.
pub(crate) async fn store() -> Store {
    let server = SERVER.get_or_init(start).await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    create(server, &name, TEMPLATE).await;
    Store::new(server.config_for(&name))
}

/// A store over a database of the test's own that has no table yet.
pub(crate) async fn empty_store() -> Store {
    let server = SERVER.get_or_init(start).await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    create(server, &name, "template1").await;
    Store::new(server.config_for(&name))
}

/// A private key of a GitHub App.
pub(crate) fn app_key() -> SecretString {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n").into()
}

/// A folder that the server's user can pass through.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("mainloop-test-")
        .tempdir()
        .unwrap();
    // Run by root, the server is another user, who must get through.
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o711)).unwrap();
    folder
}

/// Options for a private server in a folder.
#[expect(
    clippy::disallowed_methods,
    reason = "tests find the server by the caller's PATH"
)]
pub(crate) fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        binaries: None,
        search_path: std::env::var_os("PATH").unwrap_or_default(),
    }
}

/// Waits until a look gives something; what was awaited and seen last is in the message of its failure.
pub(crate) async fn until<T, L: std::fmt::Debug, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, L>>,
{
    let since = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(since.elapsed() < PATIENCE, "{what}: last seen {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for an answer; says what was awaited when none comes.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing came within {PATIENCE:?}"))
}

async fn start() -> Server {
    let folder = folder().keep();
    let server = Server::start(options(&folder))
        .await
        .unwrap_or_else(|error| panic!("{}", crate::errors::chain(&error)));
    stop_with_us(&folder);
    create(&server, TEMPLATE, "template1").await;
    migrate(&Store::new(server.config_for(TEMPLATE)))
        .await
        .unwrap();
    server
}

/// A process that reads from a pipe of ours: when we end, however we end, it ends the server and clears up.
pub(crate) fn stop_with_us(folder: &Path) {
    // A server that was killed leaves its file behind, and may stay a zombie: neither is waited for without end.
    let script = "file=\"$0/postgres/data/postmaster.pid\"; read -r _; \
                  kill -INT \"$(head -n 1 \"$file\")\" && tries=200; \
                  while [ -e \"$file\" ] && [ \"${tries:=0}\" -gt 0 ]; do tries=$((tries - 1)); sleep 0.05; done; \
                  rm -rf \"$0\"";
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    // Its end of the pipe is closed when this process ends, and never before.
    std::mem::forget(child);
}

async fn create(server: &Server, name: &str, template: &str) {
    let since = Instant::now();
    loop {
        let (client, connection) = server.config_for("postgres").connect(NoTls).await.unwrap();
        let statement = format!("CREATE DATABASE {name} TEMPLATE {template}");
        let result = tokio::select! {
            result = client.batch_execute(&statement) => result,
            ended = connection => panic!("the connection ended: {ended:?}"),
        };
        match result {
            Ok(()) => return,
            // Whoever migrated it is about to disconnect.
            Err(error)
                if error.code() == Some(&SqlState::OBJECT_IN_USE) && since.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("could not create database {name}: {error:?}"),
        }
    }
}
