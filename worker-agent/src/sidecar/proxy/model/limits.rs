//! What the model host's headers say about its limits.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use mainloop_github::by_our_clock;

/// The `retry-after` header, where it is a number of seconds.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = text(headers, "retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// When the limit that is used up resets, by our clock: a subscription's window, or the latest of the limits with nothing remaining.
pub(super) fn reset_at(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    told(headers).map(|at| by_our_clock(at, headers, now))
}

fn told(headers: &HeaderMap) -> Option<Timestamp> {
    if let Some(at) = text(headers, "anthropic-ratelimit-unified-reset").and_then(time) {
        return Some(at);
    }
    headers
        .keys()
        .filter_map(|name| {
            let limit = name
                .as_str()
                .strip_prefix("anthropic-ratelimit-")?
                .strip_suffix("-remaining")?;
            let used_up = text(headers, name.as_str())?.trim() == "0";
            used_up.then(|| {
                text(headers, &format!("anthropic-ratelimit-{limit}-reset")).and_then(time)
            })?
        })
        .max()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// RFC 3339, or seconds since 1970.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse()
        .ok()
        .or_else(|| Timestamp::from_second(text.parse().ok()?).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_limit_that_is_used_up_decides() {
        let h = headers(&[
            ("retry-after", "30"),
            ("anthropic-ratelimit-requests-remaining", "7"),
            ("anthropic-ratelimit-requests-reset", "2027-01-01T00:00:00Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            (
                "anthropic-ratelimit-input-tokens-reset",
                "2026-12-01T00:00:00Z",
            ),
        ]);
        assert_eq!(retry_after(&h), Some(Duration::from_secs(30)));
        assert_eq!(told(&h), Some("2026-12-01T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn the_reset_is_read_by_the_clock_that_the_answer_shows() {
        let h = headers(&[
            ("anthropic-ratelimit-unified-reset", "1796083200"),
            // A minute before it, by the host's clock.
            ("date", "Mon, 30 Nov 2026 23:59:00 GMT"),
        ]);
        let ours: Timestamp = "2026-12-02T00:00:00Z".parse().unwrap();
        assert_eq!(
            reset_at(&h, ours),
            Some(ours + Duration::from_mins(1)),
            "{:?}",
            told(&h)
        );
    }

    #[test]
    fn a_subscription_names_its_window_in_seconds() {
        let h = headers(&[("anthropic-ratelimit-unified-reset", "1796083200")]);
        assert_eq!(told(&h).map(Timestamp::as_second), Some(1_796_083_200));
        assert_eq!(
            told(&headers(&[("anthropic-ratelimit-unified-reset", "soon")])),
            None
        );
        assert_eq!(
            retry_after(&headers(&[(
                "retry-after",
                "Fri, 01 Jan 2027 00:00:00 GMT"
            )])),
            None
        );
    }
}
