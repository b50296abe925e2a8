//! The hidden line by which we find again what we wrote.
//!
//! Every issue, pull request and comment of ours ends with one. A marker counts only in text
//! that our own identity wrote, and [`crate::neutralise`] keeps anyone from writing one through us.

use std::borrow::Cow;
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
    /// The answer to the review with this id, as a comment on the pull request.
    Review(u64),
    /// The answer to the review comment with this id, in its thread.
    Reply(u64),
    /// Why an issue or a pull request was closed.
    Closed,
    /// Answers that policy assumed, since nobody gave one.
    Assumed,
}

impl Kind {
    fn name(self) -> Cow<'static, str> {
        match self {
            Kind::Plan => "plan".into(),
            Kind::Pull => "pull".into(),
            Kind::Ci => "ci".into(),
            Kind::Ready => "ready".into(),
            Kind::Blocked => "blocked".into(),
            Kind::Review(id) => format!("review-{id}").into(),
            Kind::Reply(id) => format!("reply-{id}").into(),
            Kind::Closed => "closed".into(),
            Kind::Assumed => "assumed".into(),
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

    /// `body` as a section of ours: a line that begins it, with a digest by which an edit shows, and this marker's.
    /// What people wrote around the section in `stored` stays.
    pub(crate) fn enclose(&self, body: &str, stored: Option<&str>) -> String {
        let stored = stored.map(|text| text.replace("\r\n", "\n"));
        let (before, after) = stored
            .as_deref()
            .and_then(|text| self.section(text))
            .map_or(("", ""), |section| (section.before, section.after));
        let around = before.chars().count() + after.chars().count();
        let limit = crate::text::BODY_LIMIT.saturating_sub(around);
        let body = crate::text::bound(body, limit);
        let body = body.trim();
        format!(
            "{before}{} hash={:016x} -->\n{body}\n\n{self}\n{after}",
            self.begin(),
            digest(body)
        )
    }

    /// Whether somebody else changed `stored`, which we wrote: our section, or what is around it.
    pub fn is_edited(&self, stored: &str) -> bool {
        let stored = stored.replace("\r\n", "\n");
        self.section(&stored).is_none_or(|section| {
            let own = format!("hash={:016x} -->", digest(section.body.trim()));
            section.head != own
                || !section.before.trim().is_empty()
                || !section.after.trim().is_empty()
        })
    }

    fn section<'a>(&self, text: &'a str) -> Option<Section<'a>> {
        let begin = self.begin();
        let start = text.find(&begin).filter(|at| starts_line(text, *at))?;
        let (head, rest) = text[start + begin.len()..].split_once('\n')?;
        let end = rest
            .rfind(&self.to_string())
            .filter(|at| starts_line(rest, *at))?;
        let after = &rest[end..];
        Some(Section {
            before: &text[..start],
            head: head.trim(),
            body: &rest[..end],
            after: after.split_once('\n').map_or("", |(_, after)| after),
        })
    }

    fn begin(&self) -> String {
        format!(
            "<!-- mainloop:begin={} kind={}",
            self.task,
            self.kind.name()
        )
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

/// What is ours of a body, and what is around it.
struct Section<'a> {
    before: &'a str,
    /// The end of the line that begins it.
    head: &'a str,
    body: &'a str,
    after: &'a str,
}

fn starts_line(text: &str, at: usize) -> bool {
    at == 0 || text.as_bytes()[at - 1] == b'\n'
}

/// FNV-1a: the same in each version of this program. It tells an edit, and protects nothing.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
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
    fn what_people_write_around_our_section_stays_and_an_edit_shows() {
        let marker = Marker::new("0192f0c1", Kind::Plan);
        let first = marker.enclose("the plan", None);
        assert!(marker.is_in(&first) && !marker.is_edited(&first), "{first}");
        assert!(!marker.is_edited(&first.replace('\n', "\r\n")));
        let inside = first.replace("the plan", "another plan");
        assert!(marker.is_edited(&inside));
        assert_eq!(marker.enclose("the plan", Some(&inside)), first);
        let around = format!("Before.\n\n{first}\nAfter.\n");
        assert!(marker.is_edited(&around));
        let next = marker.enclose("the next plan", Some(&around.replace('\n', "\r\n")));
        assert!(
            next.starts_with("Before.\n\n<!-- mainloop:begin=")
                && next.ends_with("-->\n\nAfter.\n")
                && next.contains("\nthe next plan\n")
                && !next.contains("the plan\n"),
            "{next}"
        );
        let unmarked = "all is other";
        assert!(marker.is_edited(unmarked));
        assert_eq!(marker.enclose("the plan", Some(unmarked)), first);
    }

    #[test]
    fn id_cannot_end_the_marker() {
        let marker = Marker::new("x --> @all", Kind::Ci);
        assert_eq!(marker.to_string(), "<!-- mainloop:task=x--all kind=ci -->");
        let reply = Marker::new("x", Kind::Reply(12));
        assert!(!reply.is_in(&Marker::new("x", Kind::Reply(1)).attach("")));
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
