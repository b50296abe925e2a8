//! Who runs the server: the plane's own user, or an unprivileged one when that is root.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;

use super::{Error, on};

/// The user that runs the server and owns its files.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    name: String,
    uid: Uid,
    gid: Gid,
    /// Set where the plane is root and has to become somebody else.
    other: bool,
}

/// A user's name.
pub(super) fn name(uid: Uid) -> Result<String, Error> {
    User::from_uid(uid)
        .ok()
        .flatten()
        .map(|user| user.name)
        .ok_or(Error::NoUser(uid.as_raw()))
}

/// A new folder that is closed to all others.
pub(super) fn make_closed(path: &Path) -> Result<(), Error> {
    fs::create_dir(path).map_err(on("make", path))?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o700)).map_err(on("close", path))
}

/// Replaces a file of the plane's own, which the server reads, in one step.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let beside = path.with_extension("new");
    fs::write(&beside, text).map_err(on("write", &beside))?;
    fs::set_permissions(&beside, PermissionsExt::from_mode(0o644)).map_err(on("open", &beside))?;
    fs::rename(&beside, path).map_err(on("replace", path))
}

impl Owner {
    /// The owner of what is there, else the one that a new cluster gets. Also makes the data folder.
    pub(super) fn find(data_dir: &Path, folder: &Path) -> Result<Self, Error> {
        let caller = nix::unistd::geteuid();
        if !data_dir.exists() {
            fs::create_dir_all(data_dir).map_err(on("make", data_dir))?;
            // Others pass through it only where the server is somebody else.
            let mode = if caller.is_root() { 0o711 } else { 0o700 };
            fs::set_permissions(data_dir, PermissionsExt::from_mode(mode))
                .map_err(on("close", data_dir))?;
        }
        Self::look(folder)
    }

    /// The same, without making anything.
    pub(super) fn look(folder: &Path) -> Result<Self, Error> {
        let caller = nix::unistd::geteuid();
        let existing = fs::metadata(folder).ok().map(|metadata| metadata.uid());
        if !caller.is_root() {
            let user = Self::user(caller, false)?;
            return match existing {
                Some(owner) if owner != caller.as_raw() => Err(Error::OtherOwner {
                    path: folder.to_owned(),
                    owner,
                    user: user.name,
                }),
                _ => Ok(user),
            };
        }
        if let Some(owner) = existing.filter(|owner| *owner != 0) {
            return Self::user(Uid::from_raw(owner), true);
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                if name == "nobody" {
                    tracing::warn!(
                        "the database server runs as `nobody`, whom other services share: add a user `postgres`"
                    );
                }
                return Self::user(user.uid, true);
            }
        }
        Err(Error::NoOwner)
    }

    fn user(uid: Uid, other: bool) -> Result<Self, Error> {
        let user = User::from_uid(uid)
            .ok()
            .flatten()
            .ok_or(Error::NoUser(uid.as_raw()))?;
        Ok(Self {
            name: user.name,
            uid,
            gid: user.gid,
            other,
        })
    }

    /// The owner's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the owner may enter the folder, by the mode bits of it and of all above it.
    pub(super) fn reaches(&self, folder: &Path) -> Result<(), Error> {
        let folder = fs::canonicalize(folder).map_err(on("find", folder))?;
        let above: Vec<&Path> = folder.ancestors().collect();
        for folder in above.into_iter().rev() {
            let metadata = fs::metadata(folder).map_err(on("look at", folder))?;
            let needed = if metadata.uid() == self.uid.as_raw() {
                0o100
            } else if metadata.gid() == self.gid.as_raw() {
                0o010
            } else {
                0o001
            };
            if metadata.mode() & needed == 0 {
                return Err(Error::NotTraversable {
                    user: self.name.clone(),
                    path: folder.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Makes a file or folder the owner's.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        if self.other {
            nix::unistd::chown(path, Some(self.uid), Some(self.gid))
                .map_err(|errno| on("give away", path)(errno.into()))?;
        }
        Ok(())
    }

    /// Runs a program as the owner; the standard library drops the supplementary groups.
    pub(super) fn run_as(&self, command: &mut Command) {
        if self.other {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }
}
