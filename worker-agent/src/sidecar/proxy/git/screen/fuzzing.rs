//! For the crate in `/fuzz` alone.

use std::time::Instant;

use super::diff;

/// What is shown of a change fits, hides nothing, and does not end its own block.
pub(in super::super) fn diff(old: &str, new: &str, room: usize) {
    let (shown, _) = diff::shown(old, new, room, Instant::now() + diff::COMPARE);
    assert!(shown.len() <= room);
    let is_plain = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    assert!(shown.chars().all(is_plain));
    let fence = diff::fence(&shown);
    assert!(fence.len() > 2 && !shown.contains(&fence));
}
