//! A terminal that can be taken away.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    fcntl::OFlag,
    pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt},
};
use tokio::task::JoinHandle;

/// Pause between two looks at what was written.
const LOOK: Duration = Duration::from_millis(20);

/// A pseudo-terminal whose screen is a file.
#[derive(Debug)]
pub(super) struct Terminal(JoinHandle<()>);

impl Terminal {
    /// Opens one, and the line that a process is given. What is written on the line goes to `screen`.
    pub(super) fn open(screen: File) -> Result<(Self, File)> {
        let what = "open a terminal";
        // No other child of this process may have it: it would keep the terminal open.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = posix_openpt(flags).context(what)?;
        grantpt(&master).context(what)?;
        unlockpt(&master).context(what)?;
        let line = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(ptsname_r(&master).context(what)?)
            .context(what)?;
        Ok((Self(tokio::spawn(show(master, screen))), line))
    }

    /// Closes it: the kernel sends SIGHUP to the session on it, and nothing can be written on its line any more.
    pub(super) async fn close(self) {
        self.0.abort();
        // It was told to stop.
        let _ = self.0.await;
    }
}

async fn show(mut master: PtyMaster, mut screen: File) {
    let mut bytes = [0; 4096];
    loop {
        match master.read(&mut bytes) {
            Ok(read) if screen.write_all(&bytes[..read]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(LOOK).await;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
