//! Runs the binary and shows what came of it.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::fake::Plane;

/// Far more than any command takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// The binary with a clean environment.
pub(crate) fn mainloop(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainloop"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("TZ", "UTC")
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// Against the plane, with nothing on stdin.
pub(crate) fn against(plane: &Plane, arguments: &[&str]) -> String {
    shown(plane.folder(), &mut addressed(plane, arguments))
}

/// As JSON, parsed line by line.
pub(crate) fn json(plane: &Plane, arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = addressed(plane, arguments)
        .args(["-o", "json"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The command, pointed at the plane.
pub(crate) fn addressed(plane: &Plane, arguments: &[&str]) -> Command {
    let mut command = mainloop(plane.folder(), arguments);
    command.env(
        "MAINLOOP_ADDRESS",
        format!("unix:{}", plane.socket().display()),
    );
    command
}

/// With a text on stdin.
pub(crate) fn piped(plane: &Plane, arguments: &[&str], text: &str) -> String {
    let mut child = addressed(plane, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    render(plane.folder(), &child.wait_with_output().unwrap())
}

/// Exit code, stdout and stderr; the folder's path is written `[HOME]`.
pub(crate) fn shown(home: &Path, command: &mut Command) -> String {
    render(home, &command.output().unwrap())
}

fn render(home: &Path, output: &Output) -> String {
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(&home.display().to_string(), "[HOME]")
    };
    let code = output
        .status
        .code()
        .map_or("signal".to_owned(), |code| code.to_string());
    let mut shown = format!("exit {code}\n");
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            shown += "--- ";
            shown += name;
            shown += "\n";
            shown += &text(bytes);
        }
    }
    shown
}

/// A command that goes on: its stdout is collected while it runs.
pub(crate) struct Running {
    child: Child,
    reader: Option<thread::JoinHandle<()>>,
    seen: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let seen = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let sink = std::sync::Arc::clone(&seen);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                sink.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self {
            child,
            reader: Some(reader),
            seen,
        }
    }

    pub(crate) fn stdout(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until stdout holds the text.
    pub(crate) fn wait_for(&self, text: &str) {
        wait(|| {
            let seen = self.stdout();
            if seen.contains(text) {
                Ok(())
            } else {
                Err(format!("`{text}` did not come; seen: {seen}"))
            }
        });
    }

    /// Waits for its end: exit code, all of stdout and stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let mut code = None;
        wait(|| match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                Ok(())
            }
            None => Err(format!(
                "it did not end; seen: {}",
                self.seen.lock().unwrap()
            )),
        });
        self.reader.take().unwrap().join().unwrap();
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        (code, self.stdout(), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until the condition holds; fails with what it said last.
pub(crate) fn wait(mut condition: impl FnMut() -> Result<(), String>) {
    let started = Instant::now();
    while let Err(seen) = condition() {
        assert!(started.elapsed() < PATIENCE, "{seen}");
        thread::sleep(Duration::from_millis(10));
    }
}
