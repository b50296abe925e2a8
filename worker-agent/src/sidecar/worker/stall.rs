//! Whether a turn still gets on: something must be heard of Claude, its tools or the proxies from time to time, and it
//! must not make the same call for ever. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The same call so often in a row is a loop: a person who polls by hand gives up earlier.
const SAME_CALLS: u32 = 20;
/// Lines that a person is shown of what went before.
const EVIDENCE: usize = 8;

/// Why a turn does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// Nothing was heard for so long.
    Silence(Duration),
    /// This call, again and again.
    Loop(String),
}

impl Stall {
    /// What is wrong, as a part of a sentence.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Silence(silence) => format!("nothing was heard for {} s", silence.as_secs()),
            Self::Loop(call) => {
                format!("the same call was made {SAME_CALLS} times in a row: {call}")
            }
        }
    }
}

/// What was heard of a turn lately.
#[derive(Debug)]
pub(super) struct Pulse {
    limit: Duration,
    heard: Instant,
    /// Stands for the last call.
    call: Option<u64>,
    same: u32,
    lines: VecDeque<String>,
}

impl Pulse {
    /// Begins to listen; silence longer than `limit` is a stall.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            heard: Instant::now(),
            call: None,
            same: 0,
            lines: VecDeque::new(),
        }
    }

    /// Something was heard.
    pub(super) fn beat(&mut self) {
        self.heard = Instant::now();
    }

    /// A line that a person may want to see when it stalls.
    pub(super) fn line(&mut self, text: String) {
        if self.lines.len() == EVIDENCE {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }

    /// A tool was called; `hash` stands for the whole call. The stall, where it is the same call once too often.
    pub(super) fn called(&mut self, call: String, hash: u64) -> Option<Stall> {
        self.line(call.clone());
        if self.call == Some(hash) {
            self.same += 1;
        } else {
            self.call = Some(hash);
            self.same = 1;
        }
        (self.same == SAME_CALLS).then_some(Stall::Loop(call))
    }

    /// When the silence becomes a stall.
    pub(super) fn due(&self) -> Instant {
        self.heard + self.limit
    }

    /// The silence that has become one.
    pub(super) fn silence(&self) -> Stall {
        Stall::Silence(self.limit)
    }

    /// What was heard last, oldest first.
    pub(super) fn evidence(&self) -> String {
        self.lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_again_and_again_is_a_loop_and_another_one_breaks_it() {
        let mut pulse = Pulse::new(Duration::from_secs(9));
        for _ in 1..SAME_CALLS {
            assert_eq!(pulse.called("Bash: ls".to_owned(), 1), None);
        }
        assert_eq!(pulse.called("Bash: pwd".to_owned(), 2), None);
        for _ in 1..SAME_CALLS {
            assert_eq!(pulse.called("Bash: ls".to_owned(), 1), None);
        }
        let stall = pulse.called("Bash: ls".to_owned(), 1);
        assert_eq!(stall, Some(Stall::Loop("Bash: ls".to_owned())));
        assert!(
            stall
                .unwrap_or(pulse.silence())
                .words()
                .contains("20 times")
        );
        // It is told once.
        assert_eq!(pulse.called("Bash: ls".to_owned(), 1), None);
    }

    #[test]
    fn calls_that_only_look_alike_are_no_loop() {
        let mut pulse = Pulse::new(Duration::from_secs(9));
        for hash in 0..u64::from(SAME_CALLS) * 2 {
            assert_eq!(pulse.called("Edit: /work/a.rs".to_owned(), hash), None);
        }
    }

    #[test]
    fn silence_counts_from_what_was_heard_last() {
        let mut pulse = Pulse::new(Duration::from_secs(9));
        let before = pulse.due();
        pulse.beat();
        assert!(pulse.due() >= before);
        assert_eq!(pulse.silence(), Stall::Silence(Duration::from_secs(9)));
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut pulse = Pulse::new(Duration::from_secs(9));
        for number in 0..20 {
            pulse.line(number.to_string());
        }
        assert_eq!(pulse.evidence(), "12\n13\n14\n15\n16\n17\n18\n19");
    }
}
