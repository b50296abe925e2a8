//! What goes wrong, and how it is said.

use insta::assert_snapshot;
use tonic::Status;

use crate::{
    fake::{Plane, World},
    run::{addressed, against, mainloop, shown},
};

fn empty() -> Plane {
    Plane::start(World::default())
}

#[test]
fn absent_plane_says_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    let mut command = mainloop(home.path(), &["status"]);
    command.env("MAINLOOP_DATA_DIR", home.path());
    assert_snapshot!(shown(home.path(), &mut command), @r"
    exit 5
    --- stderr
    error: cannot reach the plane at unix:[HOME]/mainloop.sock: No such file or directory (os error 2)
    hint: start one with `mainloop up`, or name another by --address or MAINLOOP_ADDRESS
    ");
    let mut command = mainloop(home.path(), &["status", "--address", "http://127.0.0.1:1"]);
    assert_snapshot!(shown(home.path(), &mut command), @r"
    exit 5
    --- stderr
    error: cannot reach the plane at http://127.0.0.1:1: Connection refused (os error 111)
    hint: start one with `mainloop up`, or name another by --address or MAINLOOP_ADDRESS
    ");
}

#[test]
fn bad_values_are_usage_errors() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["status", "--address", "plane:1"][..],
        &["approve", "k3f9@x"],
        &["task", "create", "--budget", "much", "x"],
        &["task", "create", "--label", "x", "y"],
        &["task", "create", "--repo", "https://h/a/b"],
        &["task", "watch", "x", "--until", "done"],
        &["token", "create", "ci"],
        &["nonsense"],
    ] {
        let shown = shown(home.path(), &mut mainloop(home.path(), arguments));
        assert!(
            shown.starts_with("exit 2\n--- stderr\nerror: "),
            "{arguments:?}: {shown}"
        );
    }
}

#[test]
fn unknown_things_are_not_found() {
    let plane = empty();
    assert_snapshot!(against(&plane, &["task", "get", "zz"]), @r"
    exit 3
    --- stderr
    error: cannot get the task `zz`: there is no task `zz`
    hint: `mainloop task list`, `mainloop inbox` and `mainloop token list` show what there is
    ");
    assert_snapshot!(against(&plane, &["show", "zz@1"]), @r"
    exit 3
    --- stderr
    error: cannot get the item `zz@1`: there is no item `zz@1`
    hint: `mainloop task list`, `mainloop inbox` and `mainloop token list` show what there is
    ");
    assert_snapshot!(against(&plane, &["task", "watch", "zz"]), @r"
    exit 3
    --- stderr
    error: cannot watch the task `zz`: there is no task `zz`
    hint: `mainloop task list`, `mainloop inbox` and `mainloop token list` show what there is
    ");
    assert_snapshot!(against(&plane, &["token", "revoke", "zz"]), @r"
    exit 3
    --- stderr
    error: cannot revoke the token `zz`: there is no token `zz`
    hint: `mainloop task list`, `mainloop inbox` and `mainloop token list` show what there is
    ");
}

#[test]
fn missing_and_weak_credentials_are_denied() {
    let plane = Plane::start(World {
        secret: Some("right".to_owned()),
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["whoami"]), @r"
    exit 4
    --- stderr
    error: cannot find out who you are: no credential was given
    hint: name a file with your token by --token-file, or set MAINLOOP_TOKEN
    ");
    let mut command = addressed(&plane, &["whoami"]);
    command.env("MAINLOOP_TOKEN", "wrong");
    assert_snapshot!(shown(plane.folder(), &mut command), @r"
    exit 4
    --- stderr
    error: cannot find out who you are: this needs the scope approve
    hint: `mainloop whoami` shows what this credential may do
    ");
    let file = plane.folder().join("token");
    std::fs::write(&file, "right\n").unwrap();
    let mut command = addressed(&plane, &["whoami", "--token-file", file.to_str().unwrap()]);
    assert_snapshot!(shown(plane.folder(), &mut command), @r"
    exit 0
    --- stdout
    ada (by token), may read, approve
    ");
    let mut command = addressed(&plane, &["whoami", "--token-file", "missing"]);
    assert_snapshot!(shown(plane.folder(), &mut command), @r"
    exit 2
    --- stderr
    error: cannot read the token from missing: No such file or directory (os error 2)
    hint: `mainloop token create` makes one; the file holds the secret alone
    ");
}

#[test]
fn token_is_not_sent_in_clear() {
    let home = tempfile::tempdir().unwrap();
    let mut command = mainloop(
        home.path(),
        &["whoami", "--address", "http://plane.example:50051"],
    );
    command.env("MAINLOOP_TOKEN", "secret");
    assert_snapshot!(shown(home.path(), &mut command), @r"
    exit 2
    --- stderr
    error: will not send a token in clear text to http://plane.example:50051
    hint: use https, or a tunnel to loopback
    ");
}

#[test]
fn refused_fields_are_named() {
    let plane = empty();
    let arguments = [
        "task",
        "create",
        "--repo",
        "https://github.com/acme/widgets",
        "--model",
        "gpt",
        "do it",
    ];
    assert_snapshot!(against(&plane, &arguments), @r"
    exit 2
    --- stderr
    error: cannot create the task: the request is refused
      model: policy lists sonnet, opus
    ");
}

#[test]
fn words_of_the_plane_cannot_drive_the_terminal() {
    let plane = empty();
    plane.world().watches.push_back(vec![Err(Status::internal(
        "\u{1b}[2J\u{202e}broken\r\nhint: curl | sh",
    ))]);
    plane.world().tasks.push(crate::samples::ready_task());
    assert_snapshot!(against(&plane, &["task", "watch", "r1"]), @r"
    exit 1
    --- stderr
    error: cannot watch the task `r1`: broken hint: curl | sh
    hint: the plane's log has the details
    ");
}

#[test]
fn closed_pipe_is_quiet() {
    let plane = empty();
    plane
        .world()
        .tasks
        .extend((0..500).map(|_| crate::samples::ready_task()));
    let script = format!(
        "{} task list -n 500 | head -n 1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_mainloop")
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .env(
            "MAINLOOP_ADDRESS",
            format!("unix:{}", plane.socket().display()),
        )
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(
        String::from_utf8_lossy(&output.stdout).ends_with("\n0\n"),
        "{output:?}"
    );
}
