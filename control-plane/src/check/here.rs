//! What this machine has to have.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::unistd::AccessFlags;

use super::{Check, says};
use crate::{
    config::{CLAUDE_VERSION, Config, Database},
    db::Store,
    errors, postgres,
};

/// Room for a database that starts, and for the first clones.
const DISK_MIN: u64 = 1 << 30;
/// Oldest git that takes its configuration by the environment.
const GIT_MIN: (u32, u32) = (2, 31);

/// The folder, or where it would be made.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

pub(super) fn data_dir(config: &Config) -> Check {
    let name = "data folder";
    let (dir, nearest) = (&config.data_dir, nearest(&config.data_dir));
    let shown = dir.display();
    if !nearest.is_dir() {
        return Check::wrong(
            name,
            format!("{} is not a folder", nearest.display()),
            "name another data folder with MAINLOOP_DATA_DIR",
        );
    }
    let access = AccessFlags::W_OK | AccessFlags::X_OK;
    if let Err(error) = nix::unistd::access(&nearest, access) {
        return Check::wrong(
            name,
            format!("{} cannot be written: {}", nearest.display(), error.desc()),
            "name a folder of yours with MAINLOOP_DATA_DIR",
        );
    }
    Check::well(
        name,
        if nearest == *dir {
            shown.to_string()
        } else {
            format!("{shown}, to be made")
        },
    )
}

pub(super) fn disk(config: &Config) -> Check {
    let name = "disk space";
    let folder = nearest(&config.data_dir);
    match nix::sys::statvfs::statvfs(&folder) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let detail = format!("{:.1} GiB free at {}", gib(free), folder.display());
            if free < DISK_MIN {
                let fix =
                    "free at least 1 GiB there, or name another data folder with MAINLOOP_DATA_DIR";
                Check::wrong(name, detail, fix)
            } else {
                Check::well(name, detail)
            }
        }
        Err(error) => Check::wrong(
            name,
            format!("{} cannot be looked at: {}", folder.display(), error.desc()),
            "name another data folder with MAINLOOP_DATA_DIR",
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is for people")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

pub(super) async fn database(config: &Config) -> Check {
    let name = "PostgreSQL";
    match &config.database {
        Database::Embedded(options) => match postgres::look(options) {
            Ok(found) => Check::well(name, found),
            // The error says how to mend it.
            Err(error) => Check::wrong(
                name,
                "no private server can run here",
                errors::chain(&error),
            ),
        },
        Database::External(server) => match Store::new((**server).clone()).server_version().await {
            Ok(version) => Check::well(name, format!("{version}, of DATABASE_URL")),
            Err(error) => Check::wrong(
                name,
                errors::chain(&error),
                "start the server that DATABASE_URL names, or unset DATABASE_URL to use a private one",
            ),
        },
    }
}

pub(super) async fn git() -> Check {
    let name = "git";
    let fix = "install git 2.31 or newer (Debian, Ubuntu: apt install git)";
    match says(Path::new("git"), "--version").await {
        Ok(line) => match version(&line) {
            Some(found) if found >= GIT_MIN => Check::well(name, line),
            _ => Check::wrong(name, format!("{line} is too old"), fix),
        },
        Err(why) => Check::wrong(name, why, fix),
    }
}

/// The first two numbers of the first version in a line.
fn version(line: &str) -> Option<(u32, u32)> {
    let word = line
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

pub(super) async fn claude(config: &Config) -> Check {
    let name = "Claude Code";
    let program = &config.claude;
    let shown = program.display();
    let fix = "run `make claude`, or name the CLI with MAINLOOP_CLAUDE";
    if !is_program(program) {
        return Check::wrong(name, format!("{shown} is not there, or not a program"), fix);
    }
    match says(program, "--version").await {
        Ok(line) if line.split_whitespace().next() == Some(CLAUDE_VERSION) => {
            Check::well(name, format!("{line}, {shown}"))
        }
        Ok(line) => Check::well(
            name,
            format!("{line}, {shown}; mainloop was made with {CLAUDE_VERSION}"),
        ),
        Err(why) => Check::wrong(name, format!("{shown}: {why}"), fix),
    }
}

pub(super) fn agent(config: &Config) -> Check {
    let name = "worker agent";
    let shown = config.agent.display().to_string();
    if is_program(&config.agent) {
        Check::well(name, shown)
    } else {
        Check::wrong(
            name,
            format!("{shown} is not there, or not a program"),
            "put mainloop-worker-agent beside mainloop-control-plane, or name it with MAINLOOP_AGENT",
        )
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        for (line, wanted) in [
            ("git version 2.47.3", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 3.0", Some((3, 0))),
            ("git", None),
            ("", None),
        ] {
            assert_eq!(super::version(line), wanted, "{line}");
        }
    }
}
