//! See `crate::fuzzing`.

use super::{PullRef, RawPull};

pub(crate) fn pull(body: &[u8]) -> Option<PullRef> {
    let raw: RawPull = serde_json::from_slice(body).ok()?;
    Some(raw.into_pull())
}
