//! What the code host answers git where that is a no.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;

use super::super::upstream::Heard;

/// Bytes of the code host's own words about a request that it refuses, and how long they are waited for.
const WORDS: usize = 4 * 1024;
const WORDS_TIMEOUT: Duration = Duration::from_secs(5);
/// Characters of them that are told.
const WORDS_TOLD: usize = 300;

/// The code host's no to a request of git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// 401 or 403.
    pub status: u16,
    /// The code host's own words, in one line that is bounded; empty where it had none.
    pub words: String,
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, words } = self;
        match (status, words.as_str()) {
            (401, "") => f.write_str("the code host did not accept the worker's token (401)"),
            (401, words) => write!(
                f,
                "the code host did not accept the worker's token (401): {words}"
            ),
            (status, "") => write!(f, "the code host refused it ({status})"),
            (status, words) => write!(f, "the code host refused it ({status}): {words}"),
        }
    }
}

/// What the code host answered git last, where that was a no. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastDenied(Arc<Mutex<Option<Denied>>>);

impl LastDenied {
    /// The no.
    pub fn get(&self) -> Option<Denied> {
        self.lock().clone()
    }

    pub(super) fn set(&self, denied: Option<Denied>) {
        *self.lock() = denied;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Denied>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer says, in one line that is bounded. A page for a browser says nothing that its status does not.
pub(super) async fn words(mut body: Heard) -> String {
    let mut read = Vec::new();
    let reading = async {
        while read.len() < WORDS
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Some(data) = frame.data_ref() {
                read.extend_from_slice(&data[..data.len().min(WORDS - read.len())]);
            }
        }
    };
    // What came until then is told.
    let _ = tokio::time::timeout(WORDS_TIMEOUT, reading).await;
    let words = mainloop_github::text::visible(&String::from_utf8_lossy(&read));
    if words.trim_start().starts_with('<') {
        return String::new();
    }
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ").chars().take(WORDS_TOLD).collect()
}
