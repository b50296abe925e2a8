//! What is made on the host before the harness starts: folders with the right owner, and the made-up `/etc`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::{Isolation, Sandbox, reach};

/// Made-up files of the sandbox's `/etc`. One user, no name service but files.
pub(super) const ETC: [(&str, &str); 5] = [
    (
        "passwd",
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
         worker:x:1000:1000:worker:/work/home:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nworker:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost mainloop\n::1 localhost\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    ("host.conf", "multi on\n"),
];

/// Why the host's side of a sandbox cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A folder or file cannot be made.
    #[error("make {path}")]
    Make { path: PathBuf, source: io::Error },
    /// The harness would be root on the host.
    #[error("the harness may not run as root: give it a user id of its own")]
    Root,
    /// The harness's uid cannot get to something it needs.
    #[error(transparent)]
    Unreachable(#[from] reach::Unreachable),
}

impl Sandbox {
    /// Makes the folders and files that the sandbox needs, and checks that the harness's uid can get to them.
    /// Repeating it is harmless. Sockets in the socket folder may be made after it.
    pub fn prepare(&self) -> Result<(), HostError> {
        let effective = nix::unistd::geteuid();
        let ids = match self.ids {
            Some(ids) if ids.uid == 0 => return Err(HostError::Root),
            Some(ids) => ids,
            None if effective.is_root() => return Err(HostError::Root),
            None => super::Ids {
                uid: effective.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            },
        };

        // The sidecar's folder: the harness's group may pass, nobody else.
        let (run, sockets, etc) = (self.run.clone(), self.sockets(), self.run.join("etc"));
        for folder in [&run, &sockets, &etc] {
            make(folder, |path| {
                fs::create_dir_all(path)?;
                if self.ids.is_some() {
                    chown(path, None, Some(ids.gid))?;
                }
                fs::set_permissions(path, Permissions::from_mode(0o750))
            })?;
        }
        for (name, content) in ETC {
            make(&etc.join(name), |path| {
                fs::write(path, content)?;
                fs::set_permissions(path, Permissions::from_mode(0o644))
            })?;
        }
        make(&self.work, |path| {
            fs::create_dir_all(path)?;
            let there = fs::symlink_metadata(path)?;
            if !there.is_dir() {
                return Err(io::Error::other("it is not a folder"));
            }
            if there.uid() != ids.uid || there.gid() != ids.gid {
                chown(path, Some(ids.uid), Some(ids.gid))?;
            }
            fs::set_permissions(path, Permissions::from_mode(0o700))
        })?;

        let mut needed = vec![run, sockets, self.work.clone(), self.agent.clone()];
        needed.extend(self.claude.clone());
        needed.extend(
            self.toolchains
                .mounts
                .iter()
                .map(|mount| mount.host.clone()),
        );
        if let Isolation::Bubblewrap { program, .. } = &self.isolation {
            needed.push(program.clone());
        }
        for path in &needed {
            reach::check(path, ids)?;
        }
        Ok(())
    }
}

fn make(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HostError> {
    how(path).map_err(|source| HostError::Make {
        path: path.to_owned(),
        source,
    })
}
