//! Commands that need no plane: `up`, `doctor`, `completions`, help.

use std::{fs, path::Path, process::Command};

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::run::{mainloop, shown};

/// A program that does what the script says. Another process writes it: a descriptor of ours that is open for writing could leak
/// into a child of another test, and the program could not be run.
fn program(folder: &Path, name: &str, script: &str) {
    let made = Command::new("sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#,
            "sh",
        ])
        .arg(folder.join(name))
        .arg(script)
        .status()
        .unwrap();
    assert!(made.success(), "cannot write {name}");
}

/// A home with a copy of the binary in it, so that nothing of a build folder lies beside the copy.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_mainloop"))
        .arg(&bin)
        .status()
        .unwrap();
    assert!(copied.success(), "cannot copy the binary");
    home
}

/// Runs the copy.
fn alone(home: &TempDir, arguments: &[&str]) -> String {
    let home = home.path();
    let mut command = Command::new(home.join("bin/mainloop"));
    command
        .args(arguments)
        .env_clear()
        // mainloop may be installed on this machine.
        .env("PATH", home.join("nothing"))
        .env("HOME", home)
        .env("MAINLOOP_DATA_DIR", home.join("data"));
    shown(home, &mut command)
}

#[test]
fn up_becomes_the_plane_with_its_flags() {
    let home = home();
    assert_snapshot!(alone(&home, &["up"]), @r"
    exit 1
    --- stderr
    error: cannot find mainloop-control-plane beside this program or on PATH
    hint: install the three programs of mainloop in one folder
    ");
    program(
        &home.path().join("bin"),
        "mainloop-control-plane",
        "echo \"plane: $*\"; exit 7",
    );
    assert_snapshot!(alone(&home, &["up", "--no-sandbox", "--listen", "127.0.0.1:0"]), @r#"
    exit 7
    --- stdout
    plane: serve --no-sandbox --listen 127.0.0.1:0
    --- stderr
    Starting a plane on this machine.
      runs     [HOME]/bin/mainloop-control-plane serve --no-sandbox --listen 127.0.0.1:0
      data     [HOME]/data   (tasks, plans, logs; kept)
      sandbox  OFF: workers can read and write whatever you can
      then     mainloop task create "…"   in a repository, in another terminal
      stop     Ctrl-C ends the plane and its workers; unfinished tasks go on at the next start
    "#);
    let with_dashes = alone(&home, &["up", "--", "--data-dir", "/d"]);
    assert!(
        with_dashes.contains("plane: serve --data-dir /d\n"),
        "{with_dashes}"
    );
}

#[test]
fn doctor_prints_what_both_programs_found() {
    let home = home();
    assert_snapshot!(alone(&home, &["doctor"]), @r"
    exit 1
    --- stdout
    FAIL  mainloop-control-plane  found neither beside this program nor on PATH
          → install the three programs of mainloop, of one version, in one folder
    FAIL  mainloop-worker-agent   found neither beside this program nor on PATH
          → install the three programs of mainloop, of one version, in one folder

    2 checks failed; the arrows say how to mend them.
    ");
    let bin = home.path().join("bin");
    program(
        &bin,
        "mainloop-control-plane",
        r#"test "$*" = "check --json" && printf '%s' '{"ok":true,"checks":[{"name":"postgres","ok":true,"detail":"PostgreSQL 15.14"}]}'"#,
    );
    program(
        &bin,
        "mainloop-worker-agent",
        r#"test "$*" = "probe --json" && printf '%s' '{"ok":false,"checks":[{"name":"namespaces","ok":false,"detail":"bwrap was refused","fix":"sysctl kernel.apparmor_restrict_unprivileged_userns=0"}],"mounts_toml":"[[mounts]]\nhost = \"/opt/node\"\n"}'; exit 1"#,
    );
    assert_snapshot!(alone(&home, &["doctor"]), @r#"
    exit 1
    --- stdout
    ok    postgres    PostgreSQL 15.14
    FAIL  namespaces  bwrap was refused
          → sysctl kernel.apparmor_restrict_unprivileged_userns=0

    1 check failed; the arrows say how to mend them.

    Toolchains found here. To give them to workers, put this into the plane's configuration:

    [[mounts]]
    host = "/opt/node"
    "#);
    assert_snapshot!(alone(&home, &["doctor", "-o", "json"]), @r#"
    exit 1
    --- stdout
    {"ok":false,"checks":[{"name":"postgres","ok":true,"detail":"PostgreSQL 15.14","fix":null},{"name":"namespaces","ok":false,"detail":"bwrap was refused","fix":"sysctl kernel.apparmor_restrict_unprivileged_userns=0"}],"mounts_toml":"[[mounts]]\nhost = \"/opt/node\"\n"}
    "#);
}

#[test]
fn doctor_has_the_agent_try_a_repository_by_the_planes_settings() {
    let home = home();
    let bin = home.path().join("bin");
    program(
        &bin,
        "mainloop-control-plane",
        r#"printf '%s' '{"ok":false,"checks":[{"name":"model","ok":false,"detail":"there is none"}],"probe":["--data","/d"],"trial":["--host","pypi.org"]}'"#,
    );
    program(
        &bin,
        "mainloop-worker-agent",
        r#"test "$*" = "trial --json --data /d --host pypi.org --repo . --command make check" && echo "  it runs" >&2 && printf '%s' '{"ok":false,"checks":[{"name":"tool","ok":false,"detail":"go was not found","fix":"mount it"}]}'; exit 1"#,
    );
    let arguments = ["doctor", "--repo", ".", "--command", "make check"];
    assert_snapshot!(alone(&home, &arguments), @r"
    exit 1
    --- stdout
    FAIL  tool  go was not found
          → mount it

    1 check failed; the arrows say how to mend them.
    --- stderr
      it runs
    ");
    // Settings that do not read are what is wrong then.
    program(
        &bin,
        "mainloop-control-plane",
        r#"printf '%s' '{"ok":false,"checks":[{"name":"policy","ok":false,"detail":"no TOML","fix":"mend it"}],"probe":[],"trial":[]}'"#,
    );
    assert_snapshot!(alone(&home, &arguments), @r"
    exit 1
    --- stdout
    FAIL  policy  no TOML
          → mend it

    1 check failed; the arrows say how to mend them.
    ");
}

#[test]
fn doctor_takes_no_trial_that_did_not_run_the_tests_for_one_that_passed() {
    let home = home();
    let bin = home.path().join("bin");
    let arguments = ["doctor", "--repo", "."];
    let fine = r#"{"name":"x","ok":true,"detail":"fine"}"#;
    // A plane of an older version says nothing of a trial.
    let older = format!(r#"printf '%s' '{{"ok":true,"checks":[{fine}]}}'"#);
    program(&bin, "mainloop-control-plane", &older);
    assert_snapshot!(alone(&home, &arguments), @r"
    exit 1
    --- stdout
    FAIL  mainloop-control-plane  does not say how workers are set up
          → install the three programs of mainloop, of one version, in one folder

    1 check failed; the arrows say how to mend them.
    ");
    let plane = format!(r#"printf '%s' '{{"ok":true,"checks":[{fine}],"trial":["--x"]}}'"#);
    program(&bin, "mainloop-control-plane", &plane);
    program(&bin, "mainloop-worker-agent", &older);
    assert_snapshot!(alone(&home, &arguments), @r"
    exit 1
    --- stdout
    ok    x                      fine
    FAIL  mainloop-worker-agent  ended without having run the tests
          → install the three programs of mainloop, of one version, in one folder

    1 check failed; the arrows say how to mend them.
    ");
}

#[test]
fn doctor_passes_when_all_is_well() {
    let home = home();
    let report =
        r#"echo '{"ok":true,"checks":[{"name":"x","ok":true,"detail":"fine","fix":null}]}'"#;
    for name in ["mainloop-control-plane", "mainloop-worker-agent"] {
        program(&home.path().join("bin"), name, report);
    }
    assert_snapshot!(alone(&home, &["doctor"]), @r"
    exit 0
    --- stdout
    ok    x  fine
    ok    x  fine

    All is well: `mainloop up` starts a plane.
    ");
}

#[test]
fn doctor_says_when_a_program_gives_no_report() {
    let home = home();
    for name in ["mainloop-control-plane", "mainloop-worker-agent"] {
        program(
            &home.path().join("bin"),
            name,
            "echo 'broken here' >&2; exit 3",
        );
    }
    assert_snapshot!(alone(&home, &["doctor"]), @r"
    exit 1
    --- stdout
    FAIL  mainloop-control-plane  ended with exit status: 3 and no report: broken here
          → install the three programs of mainloop, of one version, in one folder
    FAIL  mainloop-worker-agent   ended with exit status: 3 and no report: broken here
          → install the three programs of mainloop, of one version, in one folder

    2 checks failed; the arrows say how to mend them.
    ");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let printed = shown(
            home.path(),
            &mut mainloop(home.path(), &["completions", shell]),
        );
        assert!(
            printed.starts_with("exit 0\n--- stdout\n"),
            "{shell}: {printed}"
        );
        assert!(printed.contains("mainloop"), "{shell}: {printed}");
    }
}

#[test]
fn help_shows_the_way() {
    let home = tempfile::tempdir().unwrap();
    assert_snapshot!(shown(home.path(), &mut mainloop(home.path(), &["--help"])), @r#"
    exit 0
    --- stdout
    Hands coding tasks to workers, and asks you only where a person is needed

    Usage: mainloop [OPTIONS] <COMMAND>

    Commands:
      up           Start a plane on this machine, with a database of its own
      task         Propose, start, watch and steer tasks
      inbox        What needs you, what goes on, what is done: full screen on a terminal, a list
                   elsewhere
      show         Show an inbox item with all that you need to decide: the plan and how it changed, the
                   question and its options
      approve      Say yes: start the task, implement the plan
      reject       Say no: decline the task or the plan, give up on a blocked task
      revise       Have the plan made again, with your words
      answer       Answer a question, or give a blocked worker the insight to go on with
      resolve      Choose another way on for a task that is stuck: try again, more turns, afresh, more
                   money, by hand
      token        Make, list and revoke tokens
      whoami       Who you are to the plane, and what you may do
      status       How the plane is
      doctor       Check everything that a plane and its workers need on this machine, and say how to
                   mend what is missing
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
          --address <ADDRESS>   The plane: `unix:/path` or `http(s)://host:port` [default: the socket of
                                the local plane]
          --token-file <FILE>   File that holds your token
      -o, --output <text|json>  How data is printed [default: text]

    A first task:
      mainloop up                             start a plane on this machine (leave it running)
      mainloop task create "Fix the retries"  propose a task on the repository you stand in
      mainloop task watch ID                  follow it; it says when it needs you
      mainloop inbox                          everything that needs you, on one screen

    Environment:
      MAINLOOP_ADDRESS   the plane: unix:/path or http(s)://host:port
      MAINLOOP_TOKEN     a token, or MAINLOOP_TOKEN_FILE for a file with it; not for the local socket
      MAINLOOP_DATA_DIR  where the local plane keeps its data and its socket
      NO_COLOR           no colour

    Exit codes:
      0 done  1 failed  2 wrong usage or values  3 not found  4 not allowed  5 plane does not answer
    "#);
    assert_snapshot!(shown(home.path(), &mut mainloop(home.path(), &["task", "create", "--help"])), @r#"
    exit 0
    --- stdout
    Propose a task; a yes starts it

    Usage: mainloop task create [OPTIONS] [DESCRIPTION]

    Arguments:
      [DESCRIPTION]  What is to be done; `-` reads it from stdin

    Options:
          --repo <URL>           The repository's address, https or ssh [default: the origin of the
                                 folder you stand in]
          --base <REF>           Branch to start from and to go to [default: the repository's]
          --issue <N|URL>        Issue or pull request to start from
          --title <TITLE>        One line [default: made from the description]
          --model <MODEL>        Model [default: the plane's]
          --priority <PRIORITY>  -100 to 100; higher is started first
          --budget <USD>         What it may cost at most, in US dollars [default: the plane's]
          --label <K=V>          A label for filters; repeat for several
      -y, --yes                  Start it without asking
      -h, --help                 Print help

    Global options:
          --address <ADDRESS>   The plane: `unix:/path` or `http(s)://host:port` [default: the socket of
                                the local plane]
          --token-file <FILE>   File that holds your token
      -o, --output <text|json>  How data is printed [default: text]

    On a terminal, the proposal is shown with what it may cost at most, and a yes starts it. Elsewhere,
    and after a no, it stays a proposal until somebody confirms it; -y confirms at once.

    Examples:
      mainloop task create "Retry on 503 in the fetcher, with a test"
      mainloop task create --issue 42
      mainloop task create --issue https://github.com/acme/widgets/issues/42 -y
      mainloop task create --repo git@github.com:acme/widgets.git --base v2 --budget 3 "Backport it"
      mainloop task create --label team=infra - < description.md
    "#);
}
