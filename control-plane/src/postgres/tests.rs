#![allow(clippy::unwrap_used)]
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::testing::{folder, options, stop_with_us, until};

/// A server that never outlives this process.
async fn start(data_dir: &Path) -> Server {
    stop_with_us(data_dir);
    Server::start(options(data_dir)).await.unwrap()
}

async fn client(server: &Server) -> tokio_postgres::Client {
    connect(&server.config()).await.unwrap()
}

async fn numbers(server: &Server) -> Vec<i32> {
    let rows = client(server)
        .await
        .query("SELECT n FROM kept ORDER BY n", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn data_is_durable_across_a_stop_an_adoption_and_a_kill() {
    let folder = folder();
    let server = start(folder.path()).await;
    let first = client(&server).await;
    for (setting, wanted) in [
        ("fsync", "on"),
        ("listen_addresses", ""),
        ("full_page_writes", "on"),
    ] {
        let row = first
            .query_one(&format!("SHOW {setting}"), &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), wanted, "{setting}");
    }
    first
        .batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        .await
        .unwrap();

    // The plane is gone without a word; the next one finds the same server.
    let process = server.pid().unwrap();
    drop(server);
    let adopted = Server::start(options(folder.path())).await.unwrap();
    assert_eq!(adopted.pid(), Some(process));
    assert!(adopted.child.is_none());
    client(&adopted)
        .await
        .batch_execute("INSERT INTO kept VALUES (2)")
        .await
        .unwrap();

    // The server is killed; the next start recovers all that was committed.
    kill(process, Signal::SIGKILL).unwrap();
    until("the killed server is gone", || async {
        adopted.pid().map_or(Ok(()), Err)
    })
    .await;
    let again = start(folder.path()).await;
    assert_eq!(numbers(&again).await, [1, 2]);

    let process = again.pid().unwrap();
    again.stop().await.unwrap();
    assert!(kill(process, None).is_err(), "the server still runs");
    let last = start(folder.path()).await;
    assert_eq!(numbers(&last).await, [1, 2]);
    last.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_started_again() {
    let folder = folder();
    let mut server = start(folder.path()).await;
    let config = server.config();
    let process = server.pid().unwrap();
    let stop = CancellationToken::new();
    kill(process, Signal::SIGKILL).unwrap();
    let check = async {
        until("the server answers again", || async {
            let client = connect(&config).await.map_err(|error| error.to_string())?;
            client
                .batch_execute("SELECT 1")
                .await
                .map_err(|error| error.to_string())
        })
        .await;
        stop.cancel();
    };
    tokio::join!(server.keep(stop.clone()), check);
    assert_ne!(server.pid(), Some(process));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn files_are_closed_to_others_and_the_server_is_never_root() {
    let folder = folder();
    let server = start(folder.path()).await;
    for path in [
        server.layout.folder.clone(),
        server.layout.data(),
        server.layout.sockets(),
    ] {
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o700, "{}", path.display());
        assert_ne!(metadata.uid(), 0, "{}", path.display());
    }
    let owner = std::fs::metadata(server.layout.data()).unwrap().uid();
    let process = std::fs::metadata(format!("/proc/{}", server.pid().unwrap())).unwrap();
    assert_eq!(process.uid(), owner);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_broken_off_initdb_is_begun_again() {
    let folder = folder();
    let unfinished = folder.path().join("postgres.tmp/data");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    let server = start(folder.path()).await;
    client(&server)
        .await
        .batch_execute("SELECT 1")
        .await
        .unwrap();
    assert!(!folder.path().join("postgres.tmp").exists());
    server.stop().await.unwrap();
}

/// The version file of a cluster that no program here can run.
fn cluster_of_nine(data_dir: &Path) -> PathBuf {
    let owner = Owner::find(data_dir, &data_dir.join("postgres")).unwrap();
    let data = data_dir.join("postgres/data");
    std::fs::create_dir_all(&data).unwrap();
    let version = data.join("PG_VERSION");
    std::fs::write(&version, "9\n").unwrap();
    for path in [&version, &data, &data_dir.join("postgres")] {
        owner.give(path).unwrap();
    }
    version
}

#[tokio::test]
async fn a_folder_that_does_not_read_as_a_cluster_is_never_replaced() {
    // As when its disk is not mounted yet.
    let folder = folder();
    let version = cluster_of_nine(folder.path());
    std::fs::remove_file(&version).unwrap();
    let kept = folder.path().join("postgres/data/kept");
    std::fs::write(&kept, "rows").unwrap();
    let error = Server::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::NoCluster { .. }), "{error}");
    let seen = look(&options(folder.path())).unwrap_err();
    assert!(matches!(seen, Error::NoCluster { .. }), "{seen}");

    // As when the disk fails.
    std::fs::create_dir(&version).unwrap();
    let error = Server::start(options(folder.path())).await.unwrap_err();
    assert!(
        matches!(&error, Error::Io { path, .. } if *path == version),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "rows");

    // As when it is a link to a disk that is not there.
    let linked = crate::testing::folder();
    let folder = linked.path().join("postgres");
    std::os::unix::fs::symlink(linked.path().join("disk"), &folder).unwrap();
    let error = Server::start(options(linked.path())).await.unwrap_err();
    assert!(matches!(error, Error::NoCluster { .. }), "{error}");
}

#[tokio::test]
async fn links_in_the_servers_folder_lead_the_plane_nowhere() {
    let folder = folder();
    let server = start(folder.path()).await;
    let data = server.layout.data();
    server.stop().await.unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o604)).unwrap();
    let before = std::fs::metadata(&victim).unwrap();
    for name in ["pg_hba.conf", "pg_hba.new", "pg_ident.conf", "pg_ident.new"] {
        let link = data.join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&victim, &link).unwrap();
    }
    std::os::unix::fs::symlink(&victim, folder.path().join("postgres/server.log")).unwrap();

    let server = start(folder.path()).await;
    let connected = client(&server).await;
    for (setting, path) in [
        ("hba_file", &server.layout.access),
        ("ident_file", &server.layout.users),
    ] {
        let row = connected.query_one(&format!("SHOW {setting}"), &[]).await;
        assert_eq!(row.unwrap().get::<_, &str>(0), path.to_str().unwrap());
        let file = std::fs::metadata(path).unwrap();
        assert_eq!(file.uid(), nix::unistd::geteuid().as_raw());
    }
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    drop(connected);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_on_its_way_out_gets_a_successor() {
    let folder = folder();
    let first = start(folder.path()).await;
    let process = first.pid().unwrap();
    let lingers = client(&first).await;
    // It takes nobody else, and waits for this client.
    kill(process, Signal::SIGTERM).unwrap();
    until("the server to take nobody", || async {
        match connect(&first.config()).await {
            Ok(_) => Err("a connection".to_owned()),
            Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    let (next, ()) = tokio::join!(Server::start(options(folder.path())), async {
        drop(lingers);
    });
    let next = next.unwrap();
    assert!(next.child.is_some() && next.pid() != Some(process));
    next.stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_is_named_with_both_versions() {
    let folder = folder();
    let cluster = cluster_of_nine(folder.path());
    let error = Server::start(options(folder.path())).await.unwrap_err();
    assert!(cluster.exists());
    let found = Binaries::find(&options(folder.path())).unwrap()[0].major;
    let shown = error.to_string();
    assert!(matches!(error, Error::OtherVersion { .. }), "{shown}");
    assert!(
        shown.contains("PostgreSQL 9,") && shown.contains(&format!("PostgreSQL {found} was found")),
        "{shown}"
    );
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_enter_is_named() {
    // As a plain user the server is the same user, so the folder is closed to that one.
    let folder = folder();
    let closed = folder.path().join("closed");
    let data_dir = closed.join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let owner = Owner::find(&data_dir, &data_dir.join("postgres")).unwrap();
    let mode = if nix::unistd::geteuid().is_root() {
        0o700
    } else {
        0o600
    };
    if nix::unistd::geteuid().is_root() {
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(mode)).unwrap();
        let error = Server::start(options(&data_dir)).await.unwrap_err();
        let shown = error.to_string();
        let wanted = std::fs::canonicalize(&closed).unwrap();
        assert!(
            matches!(&error, Error::NotTraversable { path, .. } if *path == wanted),
            "{shown}"
        );
        assert!(shown.contains("chmod o+x"), "{shown}");
    } else {
        std::fs::set_permissions(&data_dir, PermissionsExt::from_mode(mode)).unwrap();
        let error = owner.reaches(&data_dir).unwrap_err();
        assert!(matches!(error, Error::NotTraversable { .. }), "{error}");
    }
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&data_dir, PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_socket_path_that_is_too_long_is_refused_before_anything_is_made() {
    let folder = folder();
    let data_dir = folder.path().join("x".repeat(100));
    let error = Server::start(options(&data_dir)).await.unwrap_err();
    assert!(matches!(error, Error::LongPath { .. }), "{error}");
    assert!(error.to_string().contains("107"), "{error}");
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn without_programs_nothing_starts_and_the_error_says_how_to_install_them() {
    let folder = folder();
    let mut options = options(folder.path());
    options.binaries = Some(folder.path().join("none"));
    let error = Server::start(options).await.unwrap_err();
    assert!(matches!(error, Error::NoBinaries { .. }), "{error}");
    assert!(
        error.to_string().contains("apt install postgresql"),
        "{error}"
    );
}
