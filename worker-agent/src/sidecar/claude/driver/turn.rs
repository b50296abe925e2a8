//! The accounting of one turn: when it is over, and as what. Pure.

use std::collections::HashSet;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::classify;
use super::super::events::{FailureClass, TurnEnd};
use super::super::protocol::TurnResult;

/// A running turn.
#[derive(Debug)]
pub(super) struct Turn {
    done: oneshot::Sender<TurnEnd>,
    /// Messages of ours that the CLI has yet to settle.
    unsettled: HashSet<String>,
    /// The error class that came with the CLI's last error text.
    error: Option<String>,
    /// How the last result ended.
    last: Option<TurnEnd>,
    /// What the driver itself decided; outweighs every result.
    verdict: Option<TurnEnd>,
}

impl Turn {
    pub(super) fn new(prompt: Uuid, done: oneshot::Sender<TurnEnd>) -> Self {
        Self {
            done,
            unsettled: HashSet::from([prompt.to_string()]),
            error: None,
            last: None,
            verdict: None,
        }
    }

    pub(super) fn said(&mut self, id: Uuid) {
        self.unsettled.insert(id.to_string());
    }

    pub(super) fn settled(&mut self, id: &str) {
        self.unsettled.remove(id);
    }

    pub(super) fn error(&mut self, class: &str) {
        self.error = Some(class.chars().take(100).collect());
    }

    pub(super) fn result(&mut self, result: &TurnResult) {
        if !result.spontaneous {
            self.last = Some(classify::turn_end(result, self.error.take().as_deref()));
        }
    }

    pub(super) fn decide(&mut self, verdict: TurnEnd) {
        self.verdict = Some(verdict);
    }

    pub(super) fn is_decided(&self) -> bool {
        self.verdict.is_some()
    }

    /// Every message of ours is settled and a result came.
    pub(super) fn is_over(&self) -> bool {
        self.unsettled.is_empty() && self.last.is_some()
    }

    /// Nothing of ours is left to do, result or not.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    pub(super) fn finish(self) {
        let none = || TurnEnd::Failed {
            class: FailureClass::Other,
            status: None,
            message: "claude went idle without a result".into(),
        };
        // A caller that is gone needs no answer.
        let _ = self
            .done
            .send(self.verdict.or(self.last).unwrap_or_else(none));
    }

    /// The process is gone. A verdict stands: what it rests on is durable already.
    pub(super) fn finish_exited(self, exited: TurnEnd) {
        let _ = self.done.send(self.verdict.unwrap_or(exited));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn completed(text: &str) -> TurnResult {
        TurnResult {
            text: text.into(),
            terminal_reason: "completed".into(),
            ..TurnResult::default()
        }
    }

    #[test]
    fn words_that_wait_keep_the_turn_open_and_their_result_counts() {
        let (done, mut end) = oneshot::channel();
        let (prompt, late) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut turn = Turn::new(prompt, done);
        turn.said(late);
        turn.result(&completed("first"));
        turn.settled(&prompt.to_string());
        assert!(!turn.is_over(), "the late words are not answered yet");
        turn.result(&completed("second"));
        turn.settled(&late.to_string());
        assert!(turn.is_over());
        turn.finish();
        assert!(
            matches!(end.try_recv().unwrap(), TurnEnd::Completed { text, .. } if text == "second")
        );
    }

    #[test]
    fn a_turn_that_the_cli_began_is_not_ours() {
        let (done, _end) = oneshot::channel();
        let mut turn = Turn::new(Uuid::from_u128(1), done);
        turn.result(&TurnResult {
            spontaneous: true,
            ..completed("task ended")
        });
        turn.settled(&Uuid::from_u128(1).to_string());
        assert!(!turn.is_over());
    }

    #[test]
    fn a_verdict_outweighs_the_interrupt_that_it_causes_and_the_end_of_the_process() {
        let aborted = TurnResult {
            is_error: true,
            terminal_reason: "aborted_tools".into(),
            ..TurnResult::default()
        };
        for exited in [false, true] {
            let (done, mut end) = oneshot::channel();
            let mut turn = Turn::new(Uuid::from_u128(1), done);
            turn.decide(TurnEnd::Planned { text: "p".into() });
            turn.result(&aborted);
            if exited {
                turn.finish_exited(TurnEnd::ProcessExited {
                    code: None,
                    signal: Some(9),
                    stderr: String::new(),
                });
            } else {
                turn.finish();
            }
            assert_eq!(
                end.try_recv().unwrap(),
                TurnEnd::Planned { text: "p".into() }
            );
        }
    }
}
