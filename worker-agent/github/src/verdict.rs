//! What all checks of a commit say together. Pure.
//!
//! Green is only what is known to be green: an unknown conclusion is a failure, and checks that
//! were all skipped prove nothing.

use crate::checks::{Check, Checks, Conclusion, State};

/// The sum of a commit's checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There are no checks (yet). Policy decides what that means; it is not success.
    Absent,
    /// Every check was skipped or neutral. Not success either.
    OnlySkipped,
    /// At least one check has not ended.
    Pending {
        /// Names of those that have not ended.
        running: Vec<String>,
        /// Those that failed already; more may follow.
        failed: Vec<FailedCheck>,
    },
    /// All ended, at least one succeeded, none failed.
    Passed {
        /// How many succeeded.
        succeeded: usize,
        /// How many were skipped or neutral.
        skipped: usize,
    },
    /// All ended and at least one did not succeed.
    Failed {
        /// Sorted by name.
        checks: Vec<FailedCheck>,
    },
}

/// A check that ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCheck {
    /// Its name, for a status its context.
    pub name: String,
    /// How it ended.
    pub conclusion: Conclusion,
    /// Where people read it.
    pub url: Option<String>,
    /// The Actions job whose log can be read.
    pub job_id: Option<u64>,
    /// The check run whose output and annotations can be read.
    pub check_run_id: Option<u64>,
    /// What the check itself said, in a line.
    pub summary: Option<String>,
}

impl FailedCheck {
    /// A change of code can turn it green. The others need a person (an approval, a runner) or
    /// just another run.
    pub fn code_can_fix(&self) -> bool {
        match self.conclusion {
            Conclusion::Failure | Conclusion::TimedOut | Conclusion::StartupFailure => true,
            Conclusion::Cancelled
            | Conclusion::ActionRequired
            | Conclusion::Stale
            | Conclusion::Other(_) => false,
            Conclusion::Success | Conclusion::Neutral | Conclusion::Skipped => false,
        }
    }
}

/// Sums up.
pub fn verdict(checks: &Checks) -> Verdict {
    let (mut running, mut failed) = (Vec::new(), Vec::new());
    let (mut succeeded, mut skipped) = (0, 0);
    for check in &checks.items {
        match &check.state {
            State::Queued | State::Held | State::Running => running.push(check.name.clone()),
            State::Done(Conclusion::Success) => succeeded += 1,
            State::Done(Conclusion::Neutral | Conclusion::Skipped) => skipped += 1,
            State::Done(conclusion) => failed.push(failure(check, conclusion)),
        }
    }
    running.sort();
    failed.sort_by(|a: &FailedCheck, b: &FailedCheck| a.name.cmp(&b.name));
    if !running.is_empty() {
        Verdict::Pending { running, failed }
    } else if !failed.is_empty() {
        Verdict::Failed { checks: failed }
    } else if succeeded > 0 {
        Verdict::Passed { succeeded, skipped }
    } else if skipped > 0 {
        Verdict::OnlySkipped
    } else {
        Verdict::Absent
    }
}

fn failure(check: &Check, conclusion: &Conclusion) -> FailedCheck {
    FailedCheck {
        name: check.name.clone(),
        conclusion: conclusion.clone(),
        url: check.url.clone(),
        job_id: check.job_id,
        check_run_id: check.check_run_id,
        summary: check.summary.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(states: &[(&str, State)]) -> Checks {
        Checks {
            sha: "abc".into(),
            items: states
                .iter()
                .map(|(name, state)| Check::new(name, state.clone()))
                .collect(),
            limited: Vec::new(),
        }
    }

    /// The name of the verdict for checks that ended like this.
    fn seen(states: &[State]) -> &'static str {
        let named: Vec<_> = states.iter().map(|s| ("c", s.clone())).collect();
        match verdict(&checks(&named)) {
            Verdict::Absent => "absent",
            Verdict::OnlySkipped => "only skipped",
            Verdict::Pending { .. } => "pending",
            Verdict::Passed { .. } => "passed",
            Verdict::Failed { .. } => "failed",
        }
    }

    #[test]
    fn each_conclusion_alone_and_beside_a_success() {
        use Conclusion as C;
        let done = State::Done;
        let table = [
            (done(C::Success), "passed", "passed"),
            (done(C::Failure), "failed", "failed"),
            (done(C::Neutral), "only skipped", "passed"),
            (done(C::Skipped), "only skipped", "passed"),
            (done(C::Cancelled), "failed", "failed"),
            (done(C::TimedOut), "failed", "failed"),
            (done(C::ActionRequired), "failed", "failed"),
            (done(C::StartupFailure), "failed", "failed"),
            (done(C::Stale), "failed", "failed"),
            (done(C::Other("new_word".into())), "failed", "failed"),
            (State::Queued, "pending", "pending"),
            (State::Held, "pending", "pending"),
            (State::Running, "pending", "pending"),
        ];
        for (state, alone, beside) in table {
            assert_eq!(seen(std::slice::from_ref(&state)), alone, "{state:?} alone");
            let pair = [state.clone(), done(C::Success)];
            assert_eq!(seen(&pair), beside, "{state:?} beside a success");
        }
        assert_eq!(seen(&[]), "absent");
        assert_eq!(seen(&[done(C::Skipped), done(C::Failure)]), "failed");
        assert_eq!(seen(&[done(C::Failure), State::Running]), "pending");
    }

    #[test]
    fn pending_names_what_runs_and_what_failed_already() {
        let verdict = verdict(&checks(&[
            ("z", State::Running),
            ("lint", State::Done(Conclusion::Failure)),
            ("a", State::Queued),
        ]));
        let Verdict::Pending { running, failed } = verdict else {
            panic!("not pending: {verdict:?}");
        };
        assert_eq!(running, ["a", "z"]);
        assert_eq!(failed[0].name, "lint");
    }
}
