//! See `crate::fuzzing`.

use super::{Content, GitRef, RawRepository, Viewer};

pub(crate) fn answer(body: &[u8], limit: usize) {
    if let Ok(Content::File(file)) = serde_json::from_slice(body) {
        let _ = file.bytes(String::new(), limit);
    }
    let _ = serde_json::from_slice::<RawRepository>(body);
    let _ = serde_json::from_slice::<GitRef>(body);
    let _ = serde_json::from_slice::<Viewer>(body);
}
