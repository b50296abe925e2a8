//! For the crate in `/fuzz` alone.

use super::findings::{Found, Missing};

/// What the lines of a command's output say was not found.
pub fn missing(output: &str) -> Vec<String> {
    let mut found = Found::default();
    output.lines().for_each(|line| found.line(line));
    let name = |missing: &Missing| match missing {
        Missing::Tool(name) | Missing::PythonModule(name) => name.clone(),
    };
    found.missing().map(name).collect()
}
