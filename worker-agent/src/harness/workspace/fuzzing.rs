//! For the crate in `/fuzz` alone.

use crate::channel::Diffstat;

/// `git diff --numstat -z`.
pub fn numstat(text: &str) -> Diffstat {
    super::parse_numstat(text)
}

/// `git diff --shortstat`: files, lines added, lines removed.
pub fn shortstat(text: &str) -> (u64, u64, u64) {
    super::parse_shortstat(text)
}
