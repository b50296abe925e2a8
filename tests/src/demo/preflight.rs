//! Will this machine do? Answered in the first second, before anything is started.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use nix::sys::statvfs::statvfs;

use crate::{
    claude::claude_path,
    world::binaries::{self, binary},
};

/// What the demo's processes take at the same time, with room to spare.
const MEMORY_MIB: u64 = 1024;
/// What its folder grows to, with room to spare.
const DISK_MIB: u64 = 512;

/// One thing that was looked at.
struct Finding {
    name: &'static str,
    seen: Result<String, Missing>,
}

/// What is missing, and how to mend it.
struct Missing {
    what: String,
    fix: String,
}

/// Looks at everything that the demo needs, and says it in one table. Fails where something is missing.
pub(super) fn preflight(data: &Path) -> Result<String> {
    let findings = [
        system(),
        memory(),
        disk(data),
        program("git", "git", "install git"),
        program(
            "sandbox",
            "bwrap",
            "install bubblewrap (Debian, Ubuntu, Fedora, Arch: package `bubblewrap`)",
        ),
        program("CI of the demo", "python3", "install python3"),
        postgres(),
        claude(),
        built(),
    ];
    let mut table = String::new();
    let mut missing = 0;
    for finding in &findings {
        match &finding.seen {
            Ok(seen) => {
                let _ = writeln!(table, "  ok    {:15} {seen}", finding.name);
            }
            Err(lack) => {
                missing += 1;
                let _ = writeln!(
                    table,
                    "  FAIL  {:15} {}\n        {:15} to mend it: {}",
                    finding.name, lack.what, "", lack.fix
                );
            }
        }
    }
    if missing > 0 {
        bail!("this machine will not do yet:\n{table}");
    }
    Ok(table)
}

fn missing(what: impl Into<String>, fix: impl Into<String>) -> Missing {
    Missing {
        what: what.into(),
        fix: fix.into(),
    }
}

fn system() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let seen = if cfg!(target_os = "linux") {
        Ok(format!(
            "Linux {}, {}",
            release.trim(),
            std::env::consts::ARCH
        ))
    } else {
        Err(missing(
            std::env::consts::OS,
            "run it in a Linux VM (on Windows: WSL2)",
        ))
    };
    Finding {
        name: "system",
        seen,
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024;
    let seen = if free >= MEMORY_MIB {
        Ok(format!("{free} MiB free"))
    } else {
        Err(missing(
            format!("{free} MiB free, {MEMORY_MIB} wanted"),
            "close something large",
        ))
    };
    Finding {
        name: "memory",
        seen,
    }
}

fn disk(data: &Path) -> Finding {
    let there = data
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    let seen = match statvfs(there) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size() / (1024 * 1024);
            if free >= DISK_MIB {
                Ok(format!("{free} MiB free for {}", data.display()))
            } else {
                let what = format!("{free} MiB free for {}, {DISK_MIB} wanted", data.display());
                Err(missing(
                    what,
                    "make room, or set MAINLOOP_DATA_DIR to another disk",
                ))
            }
        }
        Err(error) => Err(missing(
            format!("{}: {error}", there.display()),
            "set MAINLOOP_DATA_DIR to a folder that you can write",
        )),
    };
    Finding { name: "disk", seen }
}

fn program(name: &'static str, file: &str, fix: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(file))
        .find(|path| path.is_file());
    let seen = found
        .map(|path| path.display().to_string())
        .ok_or_else(|| missing(format!("no {file} in PATH"), fix));
    Finding { name, seen }
}

/// The server's programs are rarely in PATH: distributions keep them in a folder for each version.
fn postgres() -> Finding {
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(std::env::var_os("MAINLOOP_POSTGRES_BIN").map(PathBuf::from));
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    for place in ["/usr/lib/postgresql", "/usr/local/lib/postgresql"] {
        let versions = std::fs::read_dir(place).into_iter().flatten().flatten();
        folders.extend(versions.map(|entry| entry.path().join("bin")));
    }
    folders.extend(
        [
            "/usr/pgsql-18/bin",
            "/usr/pgsql-17/bin",
            "/usr/pgsql-16/bin",
            "/usr/local/pgsql/bin",
        ]
        .map(PathBuf::from),
    );
    let seen = folders
        .into_iter()
        .find(|folder| folder.join("initdb").is_file())
        .map(|folder| folder.display().to_string())
        .ok_or_else(|| {
            missing(
                "no initdb found",
                "install PostgreSQL's server (Debian, Ubuntu: package `postgresql`; Fedora: `postgresql-server`), or set MAINLOOP_POSTGRES_BIN",
            )
        });
    Finding {
        name: "PostgreSQL",
        seen,
    }
}

fn claude() -> Finding {
    let seen = claude_path()
        .map(|path| path.display().to_string())
        .map_err(|error| missing(error.to_string(), "run `make claude`"));
    Finding {
        name: "Claude Code",
        seen,
    }
}

fn built() -> Finding {
    let all = [binaries::PLANE, binaries::AGENT].map(binary);
    let seen = all
        .into_iter()
        .collect::<Result<Vec<_>>>()
        .map(|paths| {
            paths[0]
                .parent()
                .unwrap_or(Path::new("/"))
                .display()
                .to_string()
        })
        .map_err(|error| missing(error.to_string(), "run `make demo`, which builds it"));
    Finding {
        name: "mainloop",
        seen,
    }
}
