//! See `crate::fuzzing`.

use super::{BODY_LIMIT, COMMENT_LIMIT, Marker, RawComment, RawIssue, bound, clean_inbound};

pub(crate) fn issue(body: &[u8]) {
    if let Ok(raw) = serde_json::from_slice::<RawIssue>(body) {
        let text = bound(
            &clean_inbound(raw.body.as_deref().unwrap_or("")),
            BODY_LIMIT,
        );
        assert!(text.chars().count() <= BODY_LIMIT && !text.contains("<!--"));
        let stored = raw.body.clone();
        let marker = Marker::new("0192f0c1", crate::marker::Kind::Plan);
        let _ = raw.into_ref(&marker);
        let written = marker.enclose("the plan", stored.as_deref());
        assert!(marker.is_in(&written));
    }
}

/// Comments, as the user `us` sees them.
pub(crate) fn comments(body: &[u8], us: &str) {
    for raw in serde_json::from_slice::<Vec<RawComment>>(body).unwrap_or_default() {
        let comment = raw.into_comment(us);
        assert!(comment.body.chars().count() <= COMMENT_LIMIT && !comment.body.contains("<!--"));
        assert!(!comment.ours || comment.author.eq_ignore_ascii_case(us));
    }
}
