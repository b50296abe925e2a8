//! Whether a user id can get to a path: every folder above it must let it pass.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Ids;

/// A path that the harness's uid cannot get to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "uid {uid} cannot get to {path}: {at} does not let it pass; move what is needed out of there, \
     or allow passing with `chmod o+x {at}`"
)]
pub struct Unreachable {
    /// The harness's uid.
    pub uid: u32,
    /// What it needs.
    pub path: PathBuf,
    /// The first folder (or the file itself) that stops it.
    pub at: PathBuf,
}

/// Checks by mode bits; access lists, which only ever add rights, are not looked at.
pub(super) fn check(path: &Path, ids: Ids) -> Result<(), Unreachable> {
    let stopped = |at: &Path| Unreachable {
        uid: ids.uid,
        path: path.to_owned(),
        at: at.to_owned(),
    };
    // Links are followed to what they name; a missing path stops at itself.
    let real = std::fs::canonicalize(path).map_err(|_| stopped(path))?;
    let mut above: Vec<&Path> = real.ancestors().skip(1).collect();
    above.reverse();
    for folder in above {
        if !allows(folder, ids, 1) {
            return Err(stopped(folder));
        }
    }
    // A folder is entered, a file is read.
    let wanted = if real.is_dir() { 1 } else { 4 };
    if allows(&real, ids, wanted) {
        Ok(())
    } else {
        Err(stopped(&real))
    }
}

fn allows(path: &Path, ids: Ids, bit: u32) -> bool {
    let Ok(meta) = std::fs::metadata(path) else {
        return false;
    };
    let shift = if meta.uid() == ids.uid {
        6
    } else if meta.gid() == ids.gid {
        3
    } else {
        0
    };
    meta.mode() >> shift & bit == bit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_closed_folder_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        let file = root.path().join("closed/inner/file");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        let ids = Ids {
            uid: 123_456,
            gid: 123_456,
        };
        assert_eq!(check(&file, ids), Ok(()));

        let closed = root.path().join("closed");
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(
            check(&file, ids).unwrap_err().at,
            closed.canonicalize().unwrap()
        );
    }
}
