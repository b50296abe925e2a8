//! Unix sockets by paths of any length.
//!
//! A socket's address holds 107 bytes, and a worker's folder below a data folder below a home is soon longer. Then the
//! folder is opened first and the socket named through it, which the kernel resolves like any path.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The longest path that a socket's address holds, in bytes.
const LONGEST: usize = 107;

/// Listens at `path`.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    let near = Near::of(path)?;
    UnixListener::bind(&near.path)
}

/// Connects to `path`.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let near = Near::of(path)?;
    UnixStream::connect(&near.path).await
}

/// A short path to the same place, good while the folder is open.
struct Near {
    path: PathBuf,
    _folder: Option<File>,
}

impl Near {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self {
                path: path.to_owned(),
                _folder: None,
            });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other(
                "a socket's path needs a folder and a name",
            ));
        };
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self {
            path,
            _folder: Some(folder),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_path_longer_than_an_address_can_be_listened_on_and_connected_to() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("x".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("control.sock");
        assert!(
            UnixListener::bind(&path).is_err(),
            "too long for an address"
        );
        let listener = bind(&path).unwrap();
        let (near, far) = tokio::join!(connect(&path), listener.accept());
        near.unwrap();
        far.unwrap();
    }
}
