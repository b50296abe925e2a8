//! How often Claude may say something that is kept for ever.

use std::time::{Duration, Instant};

/// At once.
const BURST: u32 = 20;
/// One more after each.
const EVERY: Duration = Duration::from_secs(1);

/// Lets a burst pass, then one at a time.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    counted: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            left: BURST,
            counted: Instant::now(),
        }
    }
}

impl Pace {
    /// Whether one more may pass.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let new = now.duration_since(self.counted).as_secs() / EVERY.as_secs();
        let new = u32::try_from(new).unwrap_or(BURST).min(BURST);
        if new > 0 {
            self.left = (self.left + new).min(BURST);
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
        let mut pace = Pace::default();
        let begin = pace.counted;
        let mut taken = |after: Duration| (0..100).filter(|_| pace.take(begin + after)).count();
        assert_eq!(taken(Duration::ZERO), 20);
        assert_eq!(taken(EVERY * 3), 3);
        assert_eq!(taken(EVERY * 1000), 20);
    }
}
