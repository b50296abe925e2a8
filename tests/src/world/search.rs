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
        let mut after = text
            .match_indices(needle)
            .map(|(at, _)| &text[at + needle.len()..]);
        if after.any(|rest| !is_prefix(needle) || begins_like_a_token(rest)) {
            found.push(format!("{needle} in {place}"));
        }
    }
}

/// Whether it is only how tokens of a kind begin.
fn is_prefix(needle: &str) -> bool {
    needle.ends_with('_')
}

/// Four characters alone are in random bytes as well.
fn begins_like_a_token(text: &str) -> bool {
    let token = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.chars().take(16).filter(token).count() == 16
}

#[cfg(test)]
mod tests {
    use super::look;

    #[test]
    fn a_prefix_counts_where_a_token_follows() {
        for (bytes, needle, hits) in [
            (&b"x mla_0123456789abcdefGH y"[..], "mla_", 1),
            (b"x mla_01234567\x00\xff", "mla_", 0),
            (b"\xff\xfemla_", "mla_", 0),
            (b"a-key", "a-key", 1),
        ] {
            let mut found = Vec::new();
            look("there", bytes, &[needle.to_owned()], &mut found);
            assert_eq!(found.len(), hits, "{needle} in {bytes:?}");
        }
    }
}
