//! For the crate in `/fuzz` alone.

use super::Wishes;

/// A repository's `.mainloop.toml`: its commands and environment, or why it is not understood.
pub fn wishes(text: &str) -> Result<(Vec<String>, Vec<(String, String)>), String> {
    match Wishes::parse(text) {
        Ok(wishes) => Ok((wishes.setup, wishes.env.into_iter().collect())),
        Err(failure) => Err(failure.message),
    }
}
