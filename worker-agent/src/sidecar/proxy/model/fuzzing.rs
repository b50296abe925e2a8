//! For the crate in `/fuzz` alone.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::{Usage, limits, screen, sse};

/// The model and the most output tokens of a request that may pass.
pub fn screen(body: &[u8], models: &[String]) -> Result<(String, u64), String> {
    screen::screen(body, models).map(|passed| (passed.model, passed.max_tokens))
}

/// What an event stream costs that comes in these pieces, and whether the host's last counts were seen.
pub fn stream<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Usage, bool) {
    let mut stream = sse::Stream::default();
    let mut input = None;
    for piece in pieces {
        stream.feed(piece);
        if stream.started() {
            // What was told at the start is never taken back.
            let told = *input.get_or_insert_with(|| stream.input());
            assert!(told.input <= stream.input().input);
        }
    }
    (stream.usage(), stream.finished())
}

/// What a reply costs that is one document.
pub fn document(bytes: &[u8]) -> Option<Usage> {
    sse::of_document(bytes)
}

/// The headers that tell of a limit.
pub fn limits(headers: &[(&'static str, &[u8])]) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    let _ = (
        limits::retry_after(&map),
        limits::reset_at(&map, Timestamp::UNIX_EPOCH),
    );
}
