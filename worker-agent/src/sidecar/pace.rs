//! How often something may happen that costs others.

use std::time::{Duration, Instant};

/// Lets a burst pass, then one at a time.
#[derive(Debug)]
pub(crate) struct Pace {
    burst: u32,
    every: Duration,
    left: u32,
    counted: Instant,
}

impl Pace {
    /// So many at once, and one more after each `every`, which is whole seconds.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            left: burst,
            counted: Instant::now(),
        }
    }

    /// Whether one more may pass.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let new = now.duration_since(self.counted).as_secs() / self.every.as_secs().max(1);
        let new = u32::try_from(new).unwrap_or(self.burst).min(self.burst);
        if new > 0 {
            self.left = (self.left + new).min(self.burst);
            self.counted = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let every = Duration::from_secs(4);
        let mut pace = Pace::new(20, every);
        let begin = pace.counted;
        let mut taken = |after: Duration| (0..100).filter(|_| pace.take(begin + after)).count();
        assert_eq!(taken(Duration::ZERO), 20);
        assert_eq!(taken(every * 3), 3);
        assert_eq!(taken(every * 1000), 20);
    }
}
