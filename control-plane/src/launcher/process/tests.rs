#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use mainloop_core::{Event, Run, Wait};

use super::*;
use crate::{
    db::claims::Caps,
    dispatch::tests::{apply, queued},
    testing,
};

struct World {
    store: Store,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    supervisor: Supervisor,
    options: Options,
}

/// A launcher whose agent is a shell script.
async fn world(script: &str) -> World {
    let store = testing::store().await;
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("agent");
    std::fs::write(&agent, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let options = Options {
        agent,
        workers: folder.path().join("workers"),
        host: "here".to_owned(),
        worker: WorkerConfig {
            attempt_id: Uuid::nil(),
            host_id: "here".to_owned(),
            link_socket: PathBuf::new(),
            dir: PathBuf::new(),
            claude: PathBuf::new(),
            sandbox: true,
            uid: None,
            mounts: serde_json::json!({}),
            limits: serde_json::json!({}),
        },
    };
    let supervisor = Supervisor::new();
    let stop = supervisor.stop_token();
    let launcher = Launcher::new(store.clone(), options.clone(), supervisor.clone());
    supervisor.spawn("launcher", OnExit::Fatal, launcher.run(stop.clone()));
    World {
        store,
        folder,
        stop,
        supervisor,
        options,
    }
}

const CAPS: Caps = Caps {
    total: 1,
    per_repository: 1,
};

impl World {
    fn folders(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("workers")).map_or(0, Iterator::count)
    }

    async fn process(&self) -> Process {
        testing::until("a worker's process", || async {
            let open = self.store.open_attempts("here").await.unwrap();
            let mark = open.first().and_then(|attempt| {
                let dir = self
                    .folder
                    .path()
                    .join("workers")
                    .join(attempt.id.to_string());
                std::fs::read(dir.join(MARK)).ok()
            });
            match mark.and_then(|mark| serde_json::from_slice::<Process>(&mark).ok()) {
                Some(process) if process.is_alive() => Ok(process),
                other => Err(format!("{other:?} of {open:?}")),
            }
        })
        .await
    }

    async fn gone(&self) {
        testing::until("no worker's folder", || async {
            match self.folders() {
                0 => Ok(()),
                count => Err(count),
            }
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = &self.supervisor;
    }
}

#[tokio::test]
async fn a_cancelled_task_leaves_no_process_and_no_folder() {
    let world = world("exec sleep 600").await;
    let task = queued(&world.store, "one", 0).await;
    world.store.claim("here", CAPS).await.unwrap();
    let process = world.process().await;
    apply(&world.store, task, 0, Event::CancelRequested).await;
    world.gone().await;
    assert!(!process.is_alive());
}

#[tokio::test]
async fn a_stop_of_everything_is_nobodys_failure() {
    let world = world("exec sleep 600").await;
    let task = queued(&world.store, "one", 0).await;
    world.store.claim("here", CAPS).await.unwrap();
    let process = world.process().await;
    let open = world.store.open_attempts("here").await.unwrap().remove(0);
    world
        .store
        .attempt_connected(open.id, Uuid::now_v7())
        .await
        .unwrap()
        .unwrap();
    apply(&world.store, task, 1, Event::AttemptConnected).await;

    world.supervisor.stop_token().cancel();
    let options = world.options.clone();
    Launcher::new(world.store.clone(), options, Supervisor::new())
        .end_all()
        .await;
    assert!(!process.is_alive());
    let row = world.store.task_for_link(task).await.unwrap().unwrap();
    assert_eq!((row.task.failures, row.task.run), (0, Run::Idle));
    assert!(matches!(row.task.wait, Wait::Until { .. }), "{row:?}");
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed() {
    let world = world("trap '' TERM; while :; do sleep 1; done").await;
    let task = queued(&world.store, "one", 0).await;
    world.store.claim("here", CAPS).await.unwrap();
    let process = world.process().await;
    apply(&world.store, task, 0, Event::CancelRequested).await;
    world.gone().await;
    assert!(!process.is_alive());
}

#[tokio::test]
async fn a_process_that_dies_is_a_lost_attempt_with_its_last_words() {
    let world = world("cat >/dev/null; echo out of luck >&2; exit 3").await;
    let task = queued(&world.store, "one", 0).await;
    world.store.claim("here", CAPS).await.unwrap();
    let why = testing::until("a lost attempt", || async {
        let row = world.store.task_for_link(task).await.unwrap().unwrap();
        match row.task.wait {
            Wait::Until { why, .. } => Ok(why),
            other => Err(other),
        }
    })
    .await;
    assert!(why.contains("out of luck"), "{why}");
    world.gone().await;
}

#[tokio::test]
async fn a_folder_of_no_attempt_is_removed_and_a_reused_process_id_is_not_harmed() {
    let world = world("exec sleep 600").await;
    let dir = world
        .folder
        .path()
        .join("workers")
        .join(Uuid::now_v7().to_string());
    std::fs::create_dir_all(&dir).unwrap();
    // Our own id with another start time: the process that the mark meant is gone.
    let own = i32::try_from(std::process::id()).unwrap();
    let reused = Process { pid: own, start: 1 };
    std::fs::write(dir.join(MARK), serde_json::to_vec(&reused).unwrap()).unwrap();
    world.store.nudge().heard(Uuid::nil());
    world.gone().await;
    assert!(Process::of(own).is_some());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_workers() {
    let world = world("exec sleep 600").await;
    queued(&world.store, "one", 0).await;
    world.store.claim("here", CAPS).await.unwrap();
    let process = world.process().await;
    testing::soon("the end of all tasks", world.supervisor.stop()).await;
    assert!(process.is_alive());
    process.kill();
}

#[tokio::test]
async fn what_was_left_to_be_removed_is_removed_at_the_next_start() {
    let world = world("exec sleep 600").await;
    testing::soon("the end of all tasks", world.supervisor.stop()).await;
    let left = world.options.workers.join(".gone-x");
    std::fs::create_dir_all(left.join("node_modules")).unwrap();
    let supervisor = Supervisor::new();
    let launcher = Launcher::new(
        world.store.clone(),
        world.options.clone(),
        supervisor.clone(),
    );
    supervisor.spawn(
        "launcher",
        OnExit::Fatal,
        launcher.run(supervisor.stop_token()),
    );
    world.gone().await;
    supervisor.stop().await;
}

#[tokio::test]
async fn a_worker_that_died_leaves_no_control_group() {
    let world = world("exec sleep 600").await;
    let task = queued(&world.store, "one", 0).await;
    world.store.claim("here", CAPS).await.unwrap();
    let process = world.process().await;
    let open = world.store.open_attempts("here").await.unwrap();
    let id = open.first().unwrap().id;
    // Stand-ins: an empty folder is what an empty group is to whoever removes it.
    let groups = world.folder.path().join("groups");
    let own = groups.join(format!("mainloop-{id}"));
    let other = groups.join("mainloop-other");
    for group in [&own, &other] {
        std::fs::create_dir_all(group).unwrap();
    }
    let run = world.options.workers.join(id.to_string()).join("run");
    std::fs::create_dir_all(&run).unwrap();
    let list = format!("{}\n{}\n/nowhere", own.display(), other.display());
    std::fs::write(run.join("cgroups"), list).unwrap();
    kill(Pid::from_raw(process.pid), Signal::SIGKILL).unwrap();
    testing::until("the group to be removed", || async {
        if own.exists() {
            Err("it is there")
        } else {
            Ok(())
        }
    })
    .await;
    assert!(other.exists(), "it is another worker's");
    apply(&world.store, task, 0, Event::CancelRequested).await;
    world.gone().await;
}
