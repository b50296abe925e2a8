//! A small disk, which a test can fill.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// A file system in memory.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many MiB on a folder. Only root may.
    pub(super) fn mount(folder: &Path, mib: u32) -> Result<Self> {
        let options = format!("size={mib}m,mode=755");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output()
            .context("run mount")?;
        if !done.status.success() {
            bail!(
                "could not mount a disk of a test's own: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Ok(Self(folder.to_owned()))
    }

    /// Writes until nothing fits any more.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler()).context("make the file that fills the disk")?;
        let mut block = vec![0; 1 << 20];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                // The last bytes, too.
                Err(error) if error.kind() == io::ErrorKind::StorageFull && block.len() > 1 => {
                    block.truncate(block.len() / 2);
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
    }

    /// Makes room again.
    pub fn clear(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("remove the file that fills the disk")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure shows as a folder that cannot be removed; what still runs in it keeps it, out of sight.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
