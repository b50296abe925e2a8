//! See `crate::fuzzing`.

use std::collections::BTreeSet;

use super::{RawComment, RawReview, ReviewThread, threads};

pub(crate) fn reviews(body: &[u8]) -> Option<Vec<ReviewThread>> {
    let reviews: Vec<RawReview> = serde_json::from_slice(body).unwrap_or_default();
    let comments: Vec<RawComment> = serde_json::from_slice(body).ok()?;
    let writers: BTreeSet<String> = comments
        .iter()
        .filter_map(|comment| Some(comment.user.as_ref()?.login.clone()))
        .collect();
    Some(threads(
        "mainloop[bot]",
        "0198",
        &writers,
        reviews,
        comments,
    ))
}
