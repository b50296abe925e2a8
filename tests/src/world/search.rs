//! Where a text occurs in what a world's sandboxes hold and in what it keeps.

use std::{fs, path::Path};

use super::World;

impl World {
    /// Where one of `needles` occurs in what the sandbox's processes hold, and in what is on the disk.
    pub fn search(&self, needles: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        let own = fs::read_link("/proc/self/ns/pid").ok();
        let inside = self
            .worker_processes()
            .into_iter()
            .filter(|process| fs::read_link(format!("/proc/{}/ns/pid", process.pid)).ok() != own);
        for process in inside {
            for file in ["environ", "cmdline"] {
                let path = format!("/proc/{}/{file}", process.pid);
                look(
                    &path,
                    &fs::read(&path).unwrap_or_default(),
                    needles,
                    &mut found,
                );
            }
        }
        // All that is kept: workspaces, the sidecars' own files, logs, the database with its write-ahead log.
        walk(self.folder(), needles, &mut found);
        found
    }
}

fn walk(folder: &Path, needles: &[String], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // One that is gone since it was listed holds nothing.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            walk(&path, needles, found);
        } else if kind.is_file() {
            look(
                &path.display().to_string(),
                &fs::read(&path).unwrap_or_default(),
                needles,
                found,
            );
        }
    }
}

fn look(place: &str, bytes: &[u8], needles: &[String], found: &mut Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    for needle in needles {
        if text.contains(needle) {
            found.push(format!("{needle} in {place}"));
        }
    }
}
