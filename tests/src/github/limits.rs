//! Rate limits: a primary one for each user and resource, and a secondary one on what makes or changes content.
//!
//! The site's clock for them can be moved, so that no test waits for an hour to pass.

use std::collections::HashMap;

use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};

use super::problem::Problem;

/// Requests per hour and user, as for a personal token.
pub(super) const RATE_LIMIT: u64 = 5000;
/// After so long the count begins anew.
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// How long who makes too much content has to wait.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// All rate limits of the site.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    used: HashMap<(String, &'static str), Count>,
    /// Writes that each user may still make before the secondary limit.
    writes: HashMap<String, u64>,
    closed: HashMap<String, Timestamp>,
    ahead: SignedDuration,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    limit: u64,
    used: u64,
    reset: Timestamp,
}

impl Limits {
    fn now(&self) -> Timestamp {
        Timestamp::now() + self.ahead
    }

    fn of(&mut self, login: &str, resource: &'static str) -> &mut Count {
        let now = self.now();
        let used = self
            .used
            .entry((login.to_owned(), resource))
            .or_insert(Count {
                limit: RATE_LIMIT,
                used: 0,
                reset: now + HOUR,
            });
        if used.reset <= now {
            *used = Count {
                limit: used.limit,
                used: 0,
                reset: now + HOUR,
            };
        }
        used
    }

    /// Lets `login` make so many requests more, until the reset.
    pub(super) fn leave(&mut self, login: &str, left: u64, reset_in: SignedDuration) {
        // On a whole second, as it is told: nobody is refused after it.
        let reset = self.now() + reset_in;
        let reset = Timestamp::from_second(reset.as_second()).unwrap_or(reset);
        let used = self.of(login, "core");
        (used.used, used.reset) = (used.limit.saturating_sub(left), reset);
    }

    /// Lets `login` write so often before the secondary limit.
    pub(super) fn leave_writes(&mut self, login: &str, left: u64) {
        self.writes.insert(login.to_owned(), left);
    }

    /// Moves the clock of the limits.
    pub(super) fn pass(&mut self, time: SignedDuration) {
        self.ahead += time;
    }

    /// What is used of `login`'s limit, with its reset.
    pub(super) fn core(&mut self, login: &str) -> (u64, Timestamp) {
        let used = self.of(login, "core");
        (used.used, used.reset)
    }

    /// Whether a request is refused, and how.
    pub(super) fn refuse(
        &mut self,
        login: &str,
        resource: &'static str,
        writes: bool,
    ) -> Option<Problem> {
        let now = self.now();
        let secondary = || {
            Problem::forbidden(
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            )
        };
        if self.closed.get(login).is_some_and(|until| *until > now) {
            return Some(secondary());
        }
        let used = self.of(login, resource);
        if used.used >= used.limit {
            return Some(Problem::forbidden("API rate limit exceeded for user ID 1."));
        }
        match self.writes.get_mut(login) {
            Some(0) if writes => {
                self.writes.remove(login);
                self.closed.insert(login.to_owned(), now + MINUTE);
                Some(secondary())
            }
            Some(left) if writes => {
                *left -= 1;
                None
            }
            _ => None,
        }
    }

    /// Counts a request, and tells in its answer's headers what is left.
    pub(super) fn count(
        &mut self,
        login: &str,
        resource: &'static str,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) {
        let now = self.now();
        let ahead = self.ahead;
        if status == StatusCode::FORBIDDEN
            && let Some(until) = self.closed.get(login).filter(|until| **until > now)
        {
            let seconds = until.duration_since(now).as_secs().max(1);
            headers.insert("retry-after", seconds.into());
        }
        let used = self.of(login, resource);
        if status != StatusCode::NOT_MODIFIED && used.used < used.limit {
            used.used += 1;
        }
        headers.insert("x-ratelimit-limit", used.limit.into());
        headers.insert("x-ratelimit-used", used.used.into());
        headers.insert(
            "x-ratelimit-remaining",
            used.limit.saturating_sub(used.used).into(),
        );
        // Told by the clock of everything else: a client knows of no other.
        let reset = used.reset - ahead;
        headers.insert("x-ratelimit-reset", reset.as_second().into());
        headers.insert("x-ratelimit-resource", HeaderValue::from_static(resource));
    }
}
