//! `mainloop up`: says what will run, and becomes the plane. Signals and the exit code are the plane's own from there on.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use anyhow::Context;

use super::programs;
use crate::{
    address,
    args::Up,
    exit::{Exit, Failure},
};

/// Flags of the plane whose values are secrets, or hold one.
const SECRETS: &[&str] = &[
    "--database-url",
    "--github-token",
    "--anthropic-api-key",
    "--anthropic-auth-token",
    "--claude-code-oauth-token",
];

pub(super) fn run(up: Up) -> anyhow::Result<Exit> {
    let mut flags = up.flags;
    if flags.first().is_some_and(|flag| flag == "--") {
        flags.remove(0);
    }
    let program = programs::find(programs::CONTROL_PLANE).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!(
                "cannot find {} beside this program or on PATH",
                programs::CONTROL_PLANE
            ),
        )
        .hint("install the three programs of mainloop in one folder")
    })?;
    // A closed stderr does not keep the plane from running.
    let _ = io::stderr()
        .lock()
        .write_all(statement(&program, &flags).as_bytes());
    let error = Command::new(&program).arg("serve").args(&flags).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

fn statement(program: &std::path::Path, flags: &[OsString]) -> String {
    let data_dir = value_of(flags, "--data-dir").map_or_else(address::data_dir, PathBuf::from);
    let mut command = program.display().to_string();
    command.push_str(" serve");
    command.push_str(&shown(flags));
    let sandbox = if flags.iter().any(|flag| flag == "--no-sandbox") {
        "OFF: workers can read and write whatever you can"
    } else {
        "on: workers see neither your home nor the network"
    };
    let address = match value_of(flags, "--data-dir") {
        Some(_) => format!(
            "export MAINLOOP_DATA_DIR={}   (in the other terminal)\n           ",
            data_dir.display()
        ),
        None => String::new(),
    };
    format!(
        "Starting a plane on this machine.\n\
         \x20 runs     {command}\n\
         \x20 data     {}   (tasks, plans, logs; kept)\n\
         \x20 sandbox  {sandbox}\n\
         \x20 then     {address}mainloop task create \"…\"   in a repository, in another terminal\n\
         \x20 stop     Ctrl-C ends the plane and its workers; unfinished tasks go on at the next start\n\n",
        data_dir.display()
    )
}

/// The flags as they were typed, without what is nobody's business.
fn shown(flags: &[OsString]) -> String {
    let mut shown = String::new();
    let mut secret = false;
    for flag in flags {
        let flag = flag.to_string_lossy();
        let (name, value) = flag.split_once('=').unwrap_or((&flag, ""));
        shown.push(' ');
        if secret {
            shown.push_str("[hidden]");
        } else if SECRETS.contains(&name) && !value.is_empty() {
            shown.push_str(name);
            shown.push_str("=[hidden]");
        } else {
            shown.push_str(&flag);
        }
        secret = !secret && SECRETS.contains(&flag.as_ref());
    }
    shown
}

/// The value of `--name VALUE` or `--name=VALUE`.
fn value_of<'a>(flags: &'a [OsString], name: &str) -> Option<&'a OsStr> {
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        if flag == name {
            return flags.next().map(OsString::as_os_str);
        }
        let value = flag
            .to_str()
            .and_then(|flag| flag.strip_prefix(name)?.strip_prefix('='));
        if let Some(value) = value {
            return Some(OsStr::new(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_names_what_runs_and_where() {
        let flags = ["--no-sandbox", "--data-dir=/d"].map(OsString::from);
        insta::assert_snapshot!(statement(std::path::Path::new("/bin/plane"), &flags), @r#"
        Starting a plane on this machine.
          runs     /bin/plane serve --no-sandbox --data-dir=/d
          data     /d   (tasks, plans, logs; kept)
          sandbox  OFF: workers can read and write whatever you can
          then     export MAINLOOP_DATA_DIR=/d   (in the other terminal)
                   mainloop task create "…"   in a repository, in another terminal
          stop     Ctrl-C ends the plane and its workers; unfinished tasks go on at the next start
        "#);
    }

    #[test]
    fn no_secret_is_shown() {
        let flags = [
            "--database-url",
            "postgres://u:secret@h/db",
            "--no-sandbox",
            "--database-url=postgres://u:secret@h/db",
            "--github-token=secret",
            "--log",
            "json",
        ]
        .map(OsString::from);
        assert_eq!(
            shown(&flags),
            " --database-url [hidden] --no-sandbox --database-url=[hidden] --github-token=[hidden] --log json"
        );
    }
}
