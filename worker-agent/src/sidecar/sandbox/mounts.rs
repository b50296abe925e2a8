//! The user's toolchains: read-only mounts, environment and entries of `PATH`, from the user's configuration and
//! never from a repository.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Paths inside that are the sandbox's own.
const OURS: [&str; 7] = [
    "/work",
    "/mainloop",
    "/proc",
    "/dev",
    "/tmp",
    "/etc",
    "/sys",
];

/// The toolchain part of the user's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Toolchains {
    /// Folders and files that the sandbox may read.
    pub mounts: Vec<Mount>,
    /// Put before the system's folders in `PATH`, in this order.
    pub path: Vec<String>,
    /// Environment for everything in the sandbox. It is readable there: never a secret.
    pub env: BTreeMap<String, String>,
}

/// One read-only mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub host: PathBuf,
    /// Where it appears; at its own path where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

impl Mount {
    pub(crate) fn inside(&self) -> &Path {
        self.path.as_deref().unwrap_or(&self.host)
    }
}

/// Why a toolchain configuration is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Relative, or with `..` in it.
    #[error("mount {0}: not an absolute path without `..`")]
    NotAbsolute(PathBuf),
    /// Not on this machine.
    #[error("mount {0}: it does not exist")]
    Missing(PathBuf),
    /// A socket, a device or a pipe leads out of the sandbox.
    #[error("mount {0}: only folders and files can be mounted")]
    Special(PathBuf),
    /// It would show what the sandbox is there to hide.
    #[error("mount {path}: it contains {contains}, which workers may not see")]
    TooWide { path: PathBuf, contains: PathBuf },
    /// It would lie over, or in, a folder of the sandbox itself.
    #[error("mount at {0}: the place belongs to the sandbox")]
    Taken(PathBuf),
    /// `PATH` has absolute entries.
    #[error("path entry {0}: not an absolute path without a colon")]
    PathEntry(String),
    /// The variable is set by mainloop or changes how its own programs load.
    #[error("environment variable {0}: it cannot be set here")]
    Variable(String),
}

impl Toolchains {
    /// Checks what the user configured. `hidden` are folders that no worker may see: the data folder and every home.
    pub fn validate(&self, hidden: &[PathBuf]) -> Result<(), MountError> {
        for mount in &self.mounts {
            check_mount(mount, hidden)?;
        }
        for entry in &self.path {
            if !plain(Path::new(entry)) || entry.contains(':') {
                return Err(MountError::PathEntry(entry.clone()));
            }
        }
        check_variables(self.env.keys())?;
        Ok(())
    }
}

/// Fails with the first variable that is set by mainloop or changes how its own programs load.
pub(crate) fn check_variables<'a>(
    names: impl IntoIterator<Item = &'a String>,
) -> Result<(), MountError> {
    for name in names {
        let well_formed =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let upper = name.to_ascii_uppercase();
        let ours = ["HOME", "PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]
            .contains(&upper.as_str())
            || ["ANTHROPIC_", "CLAUDE_", "GIT_", "LD_", "MAINLOOP_"]
                .iter()
                .any(|p| upper.starts_with(p));
        if !well_formed || ours {
            return Err(MountError::Variable(name.clone()));
        }
    }
    Ok(())
}

/// The environment of the sandbox.
pub(super) fn environment(toolchains: &Toolchains) -> BTreeMap<String, String> {
    let mut path = toolchains.path.clone();
    path.extend(
        [
            "/usr/local/bin",
            "/usr/bin",
            "/bin",
            "/usr/local/sbin",
            "/usr/sbin",
            "/sbin",
        ]
        .map(String::from),
    );
    let mut env = toolchains.env.clone();
    for (name, value) in [
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        ("USER", "worker"),
        ("SHELL", "/bin/bash"),
    ] {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    env.insert("PATH".to_owned(), path.join(":"));
    env
}

fn check_mount(mount: &Mount, hidden: &[PathBuf]) -> Result<(), MountError> {
    let host = &mount.host;
    for path in [host.as_path(), mount.inside()] {
        if !plain(path) {
            return Err(MountError::NotAbsolute(path.to_owned()));
        }
    }
    // What is behind links is what gets mounted.
    let real = host
        .canonicalize()
        .map_err(|_| MountError::Missing(host.clone()))?;
    if !real.is_dir() && !real.is_file() {
        return Err(MountError::Special(host.clone()));
    }
    let forbidden = [
        "/", "/root", "/home", "/etc", "/proc", "/sys", "/dev", "/run", "/var", "/tmp",
    ];
    let hidden = forbidden
        .iter()
        .map(PathBuf::from)
        .chain(hidden.iter().cloned());
    for secret in hidden {
        let secret = secret.canonicalize().unwrap_or(secret);
        if secret.starts_with(&real) {
            return Err(MountError::TooWide {
                path: host.clone(),
                contains: secret,
            });
        }
    }
    let inside = mount.inside();
    let taken =
        OURS.iter().any(|ours| inside.starts_with(ours)) || Path::new("/usr").starts_with(inside);
    if taken {
        return Err(MountError::Taken(inside.to_owned()));
    }
    Ok(())
}

fn plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn one(host: &str, path: Option<&str>) -> Toolchains {
        Toolchains {
            mounts: vec![Mount {
                host: host.into(),
                path: path.map(PathBuf::from),
            }],
            ..Toolchains::default()
        }
    }

    #[test]
    fn mounts_that_show_too_much_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("data");
        std::fs::create_dir(&inner).unwrap();
        let hidden = [inner.clone()];
        let parent = home.path().to_str().unwrap();
        assert!(matches!(
            one(parent, Some("/opt/x")).validate(&hidden),
            Err(MountError::TooWide { .. })
        ));
        for wide in ["/", "/home", "/etc", "/proc", "/dev", "/var"] {
            let refused = one(wide, Some("/opt/x")).validate(&[]);
            assert!(
                matches!(refused, Err(MountError::TooWide { .. })),
                "{wide}: {refused:?}"
            );
        }
        let link = home.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        let refused = one(link.to_str().unwrap(), Some("/opt/x")).validate(&[]);
        assert!(
            matches!(refused, Err(MountError::TooWide { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn sockets_relative_and_missing_paths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refused = one(socket.to_str().unwrap(), Some("/opt/x")).validate(&[]);
        assert!(
            matches!(refused, Err(MountError::Special(_))),
            "{refused:?}"
        );
        assert!(matches!(
            one("usr/lib", None).validate(&[]),
            Err(MountError::NotAbsolute(_))
        ));
        assert!(matches!(
            one("/usr/../etc", None).validate(&[]),
            Err(MountError::NotAbsolute(_))
        ));
        assert!(matches!(
            one("/no/such/place", None).validate(&[]),
            Err(MountError::Missing(_))
        ));
    }

    #[test]
    fn the_sandboxs_own_places_are_taken() {
        for place in ["/work/x", "/mainloop", "/etc/x", "/usr", "/tmp/x"] {
            let refused = one("/usr/lib", Some(place)).validate(&[]);
            assert!(
                matches!(refused, Err(MountError::Taken(_))),
                "{place}: {refused:?}"
            );
        }
        assert_eq!(one("/usr/lib", Some("/opt/lib")).validate(&[]), Ok(()));
    }

    #[test]
    fn variables_that_are_ours_or_change_loading_are_refused() {
        for name in [
            "PATH",
            "https_proxy",
            "ANTHROPIC_BASE_URL",
            "LD_PRELOAD",
            "GIT_DIR",
            "",
            "A=B",
        ] {
            let toolchains = Toolchains {
                env: [(name.to_owned(), "x".to_owned())].into(),
                ..Toolchains::default()
            };
            assert_eq!(
                toolchains.validate(&[]),
                Err(MountError::Variable(name.to_owned()))
            );
        }
    }
}
