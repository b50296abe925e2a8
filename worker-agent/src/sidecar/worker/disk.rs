//! Room on the disk: looks at what is free where workers live, often, and at what the worker's folder holds, seldom.
//!
//! The folder is measured by `du`, as a process without anything of the sidecar's: it follows no link, and what it
//! reads was named by the harness. What `du` cannot see, such as a file that is open and has no name, shows in what is free.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use mainloop_proto::v1::FailureReason;
use nix::sys::statvfs::statvfs;
use tokio::{process::Command, sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::sidecar::sandbox::{Limits, size};

/// Time between two looks at what is free. A fast disk takes a gigabyte a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time between two measurements while nothing fills the disk.
const MEASURE_EVERY: Duration = Duration::from_mins(1);
/// Time between two measurements at least, and as a multiple of what the last one took.
const REST: Duration = Duration::from_secs(2);
const REST_TIMES: u32 = 20;
/// A measurement that takes longer is given up.
const MEASURE_WITHIN: Duration = Duration::from_mins(5);
/// A worker that took this part of its limit since it was measured is measured again.
const PART: u64 = 16;
/// Files that can still be made, at least, on a file system that counts them.
const FREE_FILES: u64 = 10_000;

/// Why a worker has to stop writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Its folder holds too much.
    Folder { used: u64, limit: u64 },
    /// Too little is free.
    Disk { free: u64, wanted: u64 },
    /// Too few files can be made.
    Files { free: u64 },
}

impl Full {
    pub(super) fn reason(self) -> FailureReason {
        match self {
            Self::Folder { .. } => FailureReason::DiskLimit,
            Self::Disk { .. } | Self::Files { .. } => FailureReason::Disk,
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Folder { used, limit } => write!(
                out,
                "the worker's folder holds {}, and may hold {} (`worker.disk_mib` of the policy)",
                size(used),
                size(limit)
            ),
            Self::Disk { free, wanted } => write!(
                out,
                "{} are free where workers live, and {} must stay free (`worker.free_disk_mib` of the policy)",
                size(free),
                size(wanted)
            ),
            Self::Files { free } => {
                write!(out, "only {free} more files can be made where workers live")
            }
        }
    }
}

/// Looks until it is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    full: watch::Receiver<Option<Full>>,
    _looking: AbortOnDropHandle<()>,
}

impl Disk {
    /// Starts to look at the file system of `folder`, in which the harness writes to `work`.
    pub(super) fn watch(folder: PathBuf, work: PathBuf, limits: Limits) -> Self {
        let (sender, full) = watch::channel(None);
        let look = Look {
            folder,
            work,
            limits,
            measured: None,
        };
        Self {
            full,
            _looking: AbortOnDropHandle::new(tokio::spawn(look.forever(sender))),
        }
    }

    /// Returns when there is no room, with why.
    pub(super) fn full(&self) -> impl Future<Output = Full> + use<> {
        let mut full = self.full.clone();
        async move {
            match full.wait_for(Option::is_some).await.map(|full| *full) {
                Ok(Some(full)) => full,
                _ => std::future::pending().await,
            }
        }
    }
}

struct Look {
    folder: PathBuf,
    work: PathBuf,
    limits: Limits,
    measured: Option<Measured>,
}

/// The last measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    used: u64,
    /// What was free then.
    free: u64,
    at: Instant,
    took: Duration,
}

impl Look {
    async fn forever(mut self, sender: watch::Sender<Option<Full>>) {
        loop {
            let full = self.look().await;
            sender.send_if_modified(|told| std::mem::replace(told, full) != full);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Option<Full> {
        let stat = match statvfs(&self.folder) {
            Ok(stat) => stat,
            Err(error) => {
                tracing::debug!(%error, "could not ask how much of the disk is free");
                return None;
            }
        };
        let free = stat.blocks_available() * stat.fragment_size();
        let wanted = self.limits.free_disk();
        if free < wanted {
            return Some(Full::Disk { free, wanted });
        }
        // Some file systems have no such number, and say 0 of 0.
        let files = stat.files_available();
        if stat.files() > 0 && files < FREE_FILES {
            return Some(Full::Files { free: files });
        }
        let limit = self.limits.disk();
        if is_due(self.measured, free, limit, Instant::now()) {
            let started = Instant::now();
            let used = used(&self.work).await;
            self.measured = Some(Measured {
                used: used.unwrap_or(0),
                free,
                at: Instant::now(),
                took: started.elapsed(),
            });
        }
        let used = self.measured.map_or(0, |measured| measured.used);
        (used > limit).then_some(Full::Folder { used, limit })
    }
}

/// Whether the folder is to be measured again.
fn is_due(measured: Option<Measured>, free: u64, limit: u64, now: Instant) -> bool {
    let Some(last) = measured else {
        return true;
    };
    let since = now.saturating_duration_since(last.at);
    if since < REST.max(last.took * REST_TIMES) {
        return false;
    }
    let taken = last.free.saturating_sub(free);
    since > MEASURE_EVERY || taken > limit / PART
}

/// Bytes that a folder takes on its disk; none where nobody can tell.
async fn used(folder: &Path) -> Option<u64> {
    let mut du = Command::new("du");
    du.args(["-sx", "--block-size=1", "--"])
        .arg(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    // It fails for each file that went away meanwhile, and prints its sum all the same.
    match tokio::time::timeout(MEASURE_WITHIN, du.output()).await {
        Ok(Ok(output)) => first_number(&output.stdout),
        Ok(Err(error)) => {
            tracing::debug!(%error, "could not run du");
            None
        }
        Err(_) => None,
    }
}

fn first_number(text: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_folder_is_measured_without_following_links() {
        let place = tempfile::tempdir().unwrap();
        let (folder, other) = (place.path().join("a"), place.path().join("b"));
        for folder in [&folder, &other] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("file"), vec![7; 1 << 20]).unwrap();
        }
        std::os::unix::fs::symlink(&other, folder.join("link")).unwrap();
        let used = used(&folder).await.unwrap();
        assert!(((1 << 20)..(2 << 20)).contains(&used), "{used}");
        assert_eq!(super::used(Path::new("/no/such/folder")).await, None);
    }

    #[tokio::test]
    async fn a_folder_that_is_too_large_and_a_disk_with_too_little_room_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("file"), vec![7; 3 << 20]).unwrap();
        let watch = |limits| {
            let path = place.path().to_owned();
            Disk::watch(path.clone(), path, limits)
        };
        let folder = Limits {
            disk_mib: 2,
            free_disk_mib: 0,
            ..Limits::default()
        };
        let found = watch(folder).full().await;
        assert_eq!(found.reason(), FailureReason::DiskLimit, "{found}");
        let disk = Limits {
            free_disk_mib: u64::MAX >> 20,
            ..Limits::default()
        };
        let found = watch(disk).full().await;
        assert_eq!(found.reason(), FailureReason::Disk, "{found}");
    }

    #[test]
    fn measuring_rests_in_proportion_and_follows_what_is_written() {
        let now = Instant::now();
        let gib = 1 << 30;
        let last = |ago: u64, took| {
            Some(Measured {
                used: 0,
                free: 10 * gib,
                at: now.checked_sub(Duration::from_secs(ago)).unwrap(),
                took: Duration::from_secs(took),
            })
        };
        let due = |last, free| is_due(last, free, 16 * gib, now);
        assert!(due(None, 10 * gib));
        assert!(!due(last(1, 0), 0), "it has only just been measured");
        assert!(!due(last(10, 0), 10 * gib));
        assert!(due(last(10, 0), 8 * gib), "two of sixteen are gone");
        assert!(due(last(61, 0), 10 * gib));
        assert!(!due(last(61, 4), 0), "it takes long");
    }
}
