//! For the crate in `/fuzz` alone.

use super::Wishes;
use super::left_out::LeftOut;

/// Reads a repository's `.mainloop.toml`; the error says why it is not understood.
pub fn wishes(text: &str) -> Result<(), String> {
    Wishes::parse(text).map(drop)
}

/// Reads `.gitattributes` and `.gitmodules`; what is told of them to Claude and to people.
pub fn left_out(attributes: &str, modules: &str) -> [Vec<String>; 2] {
    let found = LeftOut::of(attributes, modules);
    [found.for_claude(), found.for_people()]
}
