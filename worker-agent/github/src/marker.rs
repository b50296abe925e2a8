//! The hidden line by which we find again what we wrote.
//!
//! Every issue, pull request and comment of ours ends with one. A marker counts only in text
//! that our own identity wrote, and [`crate::neutralise`] keeps anyone from writing one through us.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// Clocks of the plane and of GitHub may differ by this much.
const SKEW: SignedDuration = SignedDuration::from_hours(24);

/// What a marked text is. One text per task and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The plan: a planning issue, or a comment on an issue that a person wrote.
    Plan,
    /// The pull request.
    Pull,
    /// The comment on the pull request that tells how CI goes.
    Ci,
    /// The summary comment of a pull request that is ready.
    Ready,
    /// A question or a blocker that waits for a person.
    Blocked,
    /// Why an issue or a pull request was closed.
    Closed,
    /// Answers that policy assumed, since nobody gave one.
    Assumed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Plan => "plan",
            Kind::Pull => "pull",
            Kind::Ci => "ci",
            Kind::Ready => "ready",
            Kind::Blocked => "blocked",
            Kind::Closed => "closed",
            Kind::Assumed => "assumed",
        }
    }
}

/// `<!-- mainloop:task=<id> kind=<kind> -->`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    task: String,
    kind: Kind,
}

impl Marker {
    /// `task` is the task's id (a UUIDv7 as text); characters that no id has are left out.
    pub fn new(task: impl fmt::Display, kind: Kind) -> Self {
        let task = task
            .to_string()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .collect();
        Self { task, kind }
    }

    /// Whether `body` has this marker on a line of its own.
    pub fn is_in(&self, body: &str) -> bool {
        let marker = self.to_string();
        body.lines().any(|line| line.trim() == marker)
    }

    /// `body` with this marker as its last line, within GitHub's bound on a body.
    pub(crate) fn attach(&self, body: &str) -> String {
        let body = crate::text::bound(body, crate::text::BODY_LIMIT);
        format!("{}\n\n{self}\n", body.trim_end())
    }

    /// Nothing with this marker is older than this: a UUIDv7 begins with its time.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        let hex: String = self.task.chars().filter(|c| *c != '-').collect();
        if hex.len() != 32 || hex.as_bytes()[12] != b'7' {
            return None;
        }
        let millis = i64::from_str_radix(hex.get(..12)?, 16).ok()?;
        Timestamp::from_millisecond(millis)
            .ok()?
            .checked_sub(SKEW)
            .ok()
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<!-- mainloop:task={} kind={} -->",
            self.task,
            self.kind.name()
        )
    }
}

/// Whether any marker of ours is in `body`.
pub(crate) fn any_in(body: &str) -> bool {
    body.lines()
        .any(|line| line.trim_start().starts_with("<!-- mainloop:task="))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn marker_is_found_on_its_own_line_only() {
        let marker = Marker::new("0192f0c1", Kind::Plan);
        let body = marker.attach("text");
        assert_eq!(body, "text\n\n<!-- mainloop:task=0192f0c1 kind=plan -->\n");
        assert!(marker.is_in(&body));
        assert!(marker.is_in(&body.replace('\n', "\r\n")));
        assert!(!marker.is_in(&format!("see {marker}")));
        assert!(!Marker::new("0192f0c1", Kind::Pull).is_in(&body));
        assert!(!Marker::new("0192f0c", Kind::Plan).is_in(&body));
    }

    #[test]
    fn id_cannot_end_the_marker() {
        let marker = Marker::new("x --> @all", Kind::Ci);
        assert_eq!(marker.to_string(), "<!-- mainloop:task=x--all kind=ci -->");
    }

    #[test]
    fn time_is_read_from_a_uuid_v7_alone() {
        let marker = Marker::new("01932c07-7a00-7abc-8def-0123456789ab", Kind::Plan);
        let millis = 0x0193_2c07_7a00_i64;
        let wanted = Timestamp::from_millisecond(millis).unwrap() - SKEW;
        assert_eq!(marker.since(), Some(wanted));
        assert_eq!(
            Marker::new("01932c07-7a00-4abc-8def-0123456789ab", Kind::Plan).since(),
            None
        );
        assert_eq!(Marker::new("short", Kind::Plan).since(), None);
    }
}
