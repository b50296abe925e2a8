//! For the crate in `/fuzz` alone.

use super::Wishes;

/// Reads a repository's `.mainloop.toml`; the error says why it is not understood.
pub fn wishes(text: &str) -> Result<(), String> {
    Wishes::parse(text).map(drop)
}
