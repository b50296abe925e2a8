//! The commands on a terminal: questions, the live view, the full-screen inbox.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use mainloop_proto::v1::{InboxGroup, LogSource, Task, TaskState, WatchTaskResponse};
use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::{
    fake::{Plane, World},
    run::{addressed, wait},
    samples::{chunk, event, plan_item, question_item, ready_task, task},
};

/// A command on a pseudo terminal of 100 columns and 30 rows.
struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap();
        // The command keeps the terminal's side open until it is dropped.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let keys = File::from(master);
        let mut screen = keys.try_clone().unwrap();
        let seen = Arc::<Mutex<String>>::default();
        let sink = Arc::clone(&seen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                sink.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { child, keys, seen }
    }

    /// All that was written, without colours and movements.
    fn seen(&self) -> String {
        let raw = self.seen.lock().unwrap().clone();
        let mut plain = String::new();
        let mut rest = raw.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            rest = after.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
            rest = rest.get(1..).unwrap_or("");
        }
        plain + rest
    }

    /// Waits for the text. Spaces do not count: a screen that is drawn over leaves those alone that are there.
    fn wait_for(&self, text: &str) {
        let dense = |text: &str| text.replace(' ', "");
        wait(|| {
            let seen = self.seen();
            if dense(&seen).contains(&dense(text)) {
                Ok(())
            } else {
                Err(format!("`{text}` did not come; seen: {seen}"))
            }
        });
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn end(mut self) -> Option<i32> {
        let mut code = None;
        wait(|| match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                Ok(())
            }
            None => Err(format!("it did not end; seen: {}", self.seen())),
        });
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the plane was asked for something that holds the text.
fn asked(plane: &Plane, text: &str) {
    wait(|| {
        let asked = plane.world().asked.join("\n");
        if asked.contains(text) {
            Ok(())
        } else {
            Err(format!("`{text}` was not asked; asked: {asked}"))
        }
    });
}

fn create(plane: &Plane) -> Terminal {
    let arguments = [
        "task",
        "create",
        "--repo",
        "https://github.com/acme/widgets",
        "Retry on 503",
    ];
    Terminal::start(&mut addressed(plane, &arguments))
}

fn proposed() -> Task {
    task(
        "t1a2",
        "Retry on 503",
        TaskState::Proposed,
        InboxGroup::NeedsYou,
    )
}

#[test]
fn yes_starts_the_task_after_its_cost_was_shown() {
    let plane = Plane::start(World {
        tasks: vec![proposed()],
        ..World::default()
    });
    let mut terminal = create(&plane);
    terminal.wait_for("at most $5.00");
    terminal.wait_for("Start it? [y/N]");
    terminal.press("y\n");
    terminal.wait_for("task t1a2 started");
    assert_eq!(terminal.end(), Some(0));
    asked(&plane, r#"ConfirmTaskRequest { task_id: "t1a2" }"#);
}

#[test]
fn anything_but_yes_leaves_a_proposal() {
    for answer in ["n\n", "\n", "maybe\n", "\u{4}"] {
        let plane = Plane::start(World {
            tasks: vec![proposed()],
            ..World::default()
        });
        let mut terminal = create(&plane);
        terminal.wait_for("Start it? [y/N]");
        terminal.press(answer);
        terminal.wait_for("mainloop task confirm t1a2");
        terminal.wait_for("mainloop task cancel t1a2");
        assert_eq!(terminal.end(), Some(0));
        assert_eq!(plane.world().asked.len(), 1, "{answer:?} confirmed");
    }
}

#[test]
fn answers_are_asked_for() {
    let plane = Plane::start(World {
        items: vec![question_item()],
        ..World::default()
    });
    let mut terminal = Terminal::start(&mut addressed(&plane, &["answer", "q7"]));
    terminal.wait_for("2  One day");
    terminal.wait_for("Your answer:");
    terminal.press("2\n");
    assert_eq!(terminal.end(), Some(0));
    asked(&plane, r#"answers: ["One day"]"#);
}

#[test]
fn plan_is_rendered() {
    let plane = Plane::start(World {
        items: vec![plan_item()],
        ..World::default()
    });
    let terminal = Terminal::start(&mut addressed(&plane, &["show", "k3f9"]));
    terminal.wait_for("2. Add a test in tests/fetch.rs.");
    terminal.wait_for("mainloop approve k3f9@2");
    assert!(
        !terminal.seen().contains("# Plan"),
        "the heading is not rendered"
    );
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn live_view_shows_work_below_milestones_and_ends_with_the_links() {
    let working = Task {
        id: ready_task().id,
        open_items: vec!["k3f9@2".to_owned()],
        ..task(
            "r1",
            "Retry on 503",
            TaskState::Implementing,
            InboxGroup::Active,
        )
    };
    let change = |task: &Task| {
        Ok(WatchTaskResponse {
            task: Some(task.clone()),
            event: None,
        })
    };
    let mut plane = Plane::start(World {
        tasks: vec![ready_task()],
        items: vec![plan_item()],
        events: vec![event(1, "planning_started", "planning started")],
        logs: vec![chunk(
            1,
            LogSource::Claude,
            "I read the fetcher.\u{1b}[2J\n",
        )],
        watches: [vec![change(&working)], vec![change(&ready_task())]].into(),
        ..World::default()
    });
    let terminal = Terminal::start(&mut addressed(&plane, &["task", "watch", "r1"]));
    terminal.wait_for("planning started");
    terminal.wait_for("mainloop approve k3f9@2");
    terminal.wait_for("implementing");
    terminal.wait_for("claude I read the fetcher.");
    plane.end();
    terminal.wait_for("the plane does not answer");
    plane.restart();
    terminal.wait_for("r1: ready for review, 3 files, +40 -2");
    terminal.wait_for("https://github.com/acme/widgets/pull/2");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn full_screen_inbox_approves_a_plan_and_quits() {
    let item = plan_item();
    let plane = Plane::start(World {
        tasks: item.task.clone().into_iter().collect(),
        items: vec![item],
        ..World::default()
    });
    let mut terminal = Terminal::start(&mut addressed(&plane, &["inbox"]));
    terminal.wait_for("k3f9@2");
    terminal.press("\r");
    terminal.wait_for("Files it mentions");
    terminal.press("a");
    terminal.wait_for("approve k3f9@2? [y/N]");
    terminal.press("y");
    terminal.wait_for("approved k3f9@2");
    terminal.press("q");
    assert_eq!(terminal.end(), Some(0));
    asked(&plane, r#"item_id: "k3f9", revision: 2, action: Approve"#);
}

#[test]
fn full_screen_inbox_shows_the_log_of_an_active_row_and_survives_a_restart() {
    let active = task(
        "a1",
        "Speed it up",
        TaskState::Implementing,
        InboxGroup::Active,
    );
    let mut plane = Plane::start(World {
        tasks: vec![active],
        logs: vec![chunk(1, LogSource::Tool, "cargo test\n")],
        ..World::default()
    });
    let mut terminal = Terminal::start(&mut addressed(&plane, &["inbox", "--watch"]));
    terminal.wait_for("Speed it up");
    terminal.press("\r");
    terminal.wait_for("tool   cargo test");
    plane.end();
    terminal.wait_for("does not answer; trying again");
    let later = task(
        "b2",
        "New after the restart",
        TaskState::Queued,
        InboxGroup::Active,
    );
    plane.world().tasks.push(later);
    plane.restart();
    terminal.wait_for("New after the restart");
    terminal.press("\u{3}");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn full_screen_inbox_ends_with_a_refusal() {
    let mut plane = Plane::start(World::default());
    let terminal = Terminal::start(&mut addressed(&plane, &["inbox"]));
    terminal.wait_for("needs you");
    plane.world().secret = Some("another".to_owned());
    plane.restart();
    terminal.wait_for("cannot watch the inbox: no credential was given");
    assert_eq!(terminal.end(), Some(4));
}
