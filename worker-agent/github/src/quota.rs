//! What is left of GitHub's rate limits, as its answers say.
//!
//! Every answer tells the primary limit of its resource, and a refusal tells a secondary one. What is known to be used up
//! is not asked for any more: a request that GitHub would refuse makes a secondary limit longer. Others may use the same
//! token, so that what is known is the best case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};

/// Below this share of a limit, one in so many, requests that can wait are spread over the time that is left.
const LOW: u64 = 20;

/// Clocks that differ by less than this agree: the answer's date has whole seconds, and was on its way.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// Limits last an hour at most. One that seems to last longer was noted before our clock was set back, and is not known
/// any more.
const WINDOW: SignedDuration = SignedDuration::from_mins(65);

/// The rate limits of one token, or of several that share them. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Quota(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    resources: HashMap<String, Left>,
    /// A secondary limit: nothing is sent before.
    closed_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    limit: u64,
    remaining: u64,
    reset: Timestamp,
}

impl Quota {
    /// How long to wait before a look of so many requests that nobody waits for: nothing where plenty is left.
    pub fn pause(&self, requests: u32) -> Duration {
        self.pause_at(requests, Timestamp::now())
    }

    fn pause_at(&self, requests: u32, now: Timestamp) -> Duration {
        let known = self.known();
        let of_resources = known
            .resources
            .values()
            .map(|left| left.pause(requests, now));
        let closed = known.closed_until.map(|until| time_to(until, now));
        of_resources.chain(closed).max().unwrap_or_default()
    }

    /// Until when a request for this resource would be refused.
    pub(crate) fn closed(&self, resource: &str, now: Timestamp) -> Option<Timestamp> {
        let known = self.known();
        let used_up = known
            .resources
            .get(resource)
            .filter(|left| left.remaining == 0)
            .map(|left| left.reset);
        used_up
            .into_iter()
            .chain(known.closed_until)
            .filter(|until| *until > now && until.duration_since(now) <= WINDOW)
            .max()
    }

    /// Takes what an answer says of the primary limit.
    pub(crate) fn heard(&self, asked: &str, headers: &HeaderMap, now: Timestamp) {
        let number = |name: &str| text(headers, name)?.parse::<i64>().ok();
        let (Some(limit), Some(remaining), Some(reset)) = (
            number("x-ratelimit-limit").and_then(|limit| u64::try_from(limit).ok()),
            number("x-ratelimit-remaining").and_then(|left| u64::try_from(left).ok()),
            number("x-ratelimit-reset").and_then(|at| Timestamp::from_second(at).ok()),
        ) else {
            return;
        };
        let resource = text(headers, "x-ratelimit-resource").unwrap_or(asked);
        let left = Left {
            limit,
            remaining,
            reset: by_our_clock(reset, headers, now),
        };
        self.known().resources.insert(resource.to_owned(), left);
    }

    /// Nothing is sent before then.
    pub(crate) fn close(&self, until: Timestamp) {
        let mut known = self.known();
        known.closed_until = known.closed_until.max(Some(until));
    }

    /// Another token has limits of its own.
    pub(crate) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    fn pause(&self, requests: u32, now: Timestamp) -> Duration {
        let time = time_to(self.reset, now);
        if self.remaining.saturating_mul(LOW) >= self.limit {
            return Duration::ZERO;
        }
        let looks = self.remaining / u64::from(requests.max(1));
        time / u32::try_from(looks).unwrap_or(u32::MAX).max(1)
    }
}

/// A time of a host's clock by ours, where the answer says what the host's shows.
pub fn by_our_clock(at: Timestamp, headers: &HeaderMap, now: Timestamp) -> Timestamp {
    let theirs = text(headers, "date")
        .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        .map(|date| date.timestamp());
    theirs
        .filter(|theirs| now.duration_since(*theirs).abs() > SKEW)
        .and_then(|theirs| now.checked_add(at.duration_since(theirs)).ok())
        .unwrap_or(at)
}

/// How long a limit still lasts.
fn time_to(until: Timestamp, now: Timestamp) -> Duration {
    let left = Some(until.duration_since(now)).filter(|left| *left <= WINDOW);
    // What is over has a negative one.
    left.and_then(|left| Duration::try_from(left).ok())
        .unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn told(remaining: u64, resource: &str, date: &str) -> HeaderMap {
        [
            ("x-ratelimit-limit", "5000".to_owned()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", "4600".to_owned()),
            ("x-ratelimit-resource", resource.to_owned()),
            ("date", date.to_owned()),
        ]
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
    }

    #[test]
    fn looks_are_spread_when_little_is_left_and_stop_when_nothing_is() {
        for (remaining, requests, seconds) in [
            (5000, 4, 0),
            (250, 4, 0),
            (200, 4, 72),
            (40, 4, 360),
            (3, 4, 3600),
            (0, 4, 3600),
        ] {
            let quota = Quota::default();
            quota.heard("core", &told(remaining, "core", ""), at(1000));
            assert_eq!(
                quota.pause_at(requests, at(1000)).as_secs(),
                seconds,
                "{remaining} left"
            );
        }
    }

    #[test]
    fn a_resource_that_is_used_up_is_closed_until_its_reset_and_no_other() {
        let quota = Quota::default();
        quota.heard("core", &told(0, "", ""), at(1000));
        assert_eq!(quota.closed("core", at(1000)), Some(at(4600)));
        assert_eq!(quota.closed("graphql", at(1000)), None);
        assert_eq!(quota.closed("core", at(4600)), None);
        quota.close(at(1100));
        assert_eq!(quota.closed("graphql", at(1000)), Some(at(1100)));
        assert_eq!(quota.pause_at(1, at(1040)), Duration::from_secs(3560));
        quota.forget();
        assert_eq!(quota.closed("core", at(1000)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_limit_longer() {
        let day = 86_400;
        let quota = Quota::default();
        let noted = at(day + 1000);
        let mut told = told(0, "core", "");
        told.insert("x-ratelimit-reset", (day + 4600).into());
        quota.heard("core", &told, noted);
        quota.close(at(day + 1060));
        assert_eq!(quota.closed("core", noted), Some(at(day + 4600)));
        for back in [at(1000), at(1059)] {
            assert_eq!(quota.closed("core", back), None);
            assert_eq!(quota.closed("graphql", back), None);
            assert_eq!(quota.pause_at(4, back), Duration::ZERO);
        }
    }

    #[test]
    fn the_reset_is_read_by_the_clock_that_the_answer_shows() {
        let quota = Quota::default();
        // GitHub's clock shows 1000 where ours shows 1500.
        let date = "Thu, 01 Jan 1970 00:16:40 GMT";
        quota.heard("core", &told(0, "core", date), at(1500));
        assert_eq!(quota.closed("core", at(1500)), Some(at(5100)));
    }
}
