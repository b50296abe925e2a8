//! `AwaitCi`: reads the checks of the head until they are decided. The plane bounds it by a deadline.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mainloop_github::{Checks, Conclusion, Conditional, FailedCheck, PullState, State, Verdict};
use mainloop_proto::v1::{
    AwaitCiWork, Check, CheckState, CiAbsent, CiFailed, CiHeld, CiHold, CiPassed, CiRunning,
    FailureReason, PullRequestClosed, milestone::Fact,
};
use tokio::time::Instant;

use super::{Failure, ready};
use crate::sidecar::worker::Worker;

/// Longest log that goes into the next prompt, in bytes, over all failed checks.
const MAX_LOG: usize = 48 * 1024;
/// How long checks may still appear once those that are there are over, at least and at most: workflows of one push do
/// not start together. In between it is a quarter of the time that a push without any check is given.
const SETTLE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// The longest rate limit that is waited for in the step itself.
const SHORT_LIMIT: SignedDuration = SignedDuration::from_secs(60);
/// Requests that one look makes.
const LOOK: u32 = 4;

/// Looks in a row that may fail before the step does: about a quarter of an hour of an outage.
const MAX_TROUBLES: u32 = 16;

pub(super) async fn await_ci(
    worker: &mut Worker,
    version: i64,
    work: &AwaitCiWork,
) -> Result<(), Failure> {
    if work.ready_first
        && let Some(fact) = ready::ready_first(worker, &work.sha).await?
    {
        worker.hand_over();
        worker.link.report_durably(version, fact).await;
        return Ok(());
    }
    let no_ci_after =
        Duration::from_secs(u64::try_from(worker.policy.no_ci_after_seconds).unwrap_or(120));
    let settle = (no_ci_after / 4).clamp(SETTLE.0, SETTLE.1);
    let mut began = Instant::now();
    let mut told: Vec<Check> = Vec::new();
    let mut known = Vec::new();
    let mut changed = began;
    let mut limits_told = false;
    let mut pull = Pull::default();
    let mut asked = None;
    let mut troubles = 0;
    let mut frugal = false;
    loop {
        let checks = match look(worker, &work.sha, &mut pull).await {
            Ok(Seen::Checks(checks)) => checks,
            Ok(Seen::Over(fact)) => {
                worker.hand_over();
                worker.link.report_durably(version, fact).await;
                return Ok(());
            }
            Err(failure) => {
                look_again(worker, failure, &mut troubles).await?;
                continue;
            }
        };
        let names: Vec<String> = checks.items.iter().map(|item| item.name.clone()).collect();
        if names != known {
            known = names;
            changed = Instant::now();
        }
        if !limits_told && !checks.limited.is_empty() {
            limits_told = true;
            worker.note(format!(
                "not all checks can be read: {}",
                checks.limited.join("; ")
            ));
        }
        let list = on_wire(&checks);
        let verdict = mainloop_github::verdict(&checks);
        // While it conflicts nothing runs, which says nothing of the repository: the plane has the conflict resolved.
        let nothing_ran = matches!(verdict, Verdict::Absent | Verdict::OnlySkipped)
            && !pull.conflicts
            && began.elapsed() >= no_ci_after;
        let to_people = left_to_people(&checks, settle, no_ci_after);
        let hold = if to_people.is_some_and(|wait| changed.elapsed() >= wait) {
            Some(CiHold::Approval)
        } else if nothing_ran && pull.draft {
            match skips_drafts(worker, &work.sha, asked).await {
                Ok(skips) => skips.then_some(CiHold::Draft),
                Err(failure) => {
                    look_again(worker, failure, &mut troubles).await?;
                    continue;
                }
            }
        } else {
            None
        };
        troubles = 0;
        if hold != asked {
            asked = hold;
            told.clear();
            match hold {
                Some(hold) => {
                    let fact = CiHeld {
                        sha: work.sha.clone(),
                        checks: list,
                        hold: hold.into(),
                    };
                    worker.link.report(version, Fact::CiHeld(fact));
                    continue;
                }
                // Somebody acted: what follows from it may take as long to appear as after a push.
                None => began = Instant::now(),
            }
        }
        if hold.is_some() {
            rest(worker, began.elapsed(), &mut frugal).await;
            continue;
        }
        let fact = match verdict {
            Verdict::Pending { .. } => {
                if list != told {
                    told.clone_from(&list);
                    let fact = CiRunning {
                        sha: work.sha.clone(),
                        checks: list,
                    };
                    worker.link.report(version, Fact::CiRunning(fact));
                }
                None
            }
            Verdict::Passed { .. } if changed.elapsed() >= settle => {
                Some(Fact::CiPassed(CiPassed {
                    sha: work.sha.clone(),
                    checks: list,
                    limited: checks.limited,
                }))
            }
            Verdict::Failed { checks } if to_people.is_none() => {
                let (log, signature) = logs(worker, &checks).await;
                Some(Fact::CiFailed(CiFailed {
                    sha: work.sha.clone(),
                    checks: list,
                    signature,
                    log,
                }))
            }
            Verdict::Absent if nothing_ran => Some(Fact::CiAbsent(CiAbsent {
                sha: work.sha.clone(),
                reason: format!("no check after {} s", no_ci_after.as_secs()),
            })),
            Verdict::OnlySkipped if nothing_ran => Some(Fact::CiAbsent(CiAbsent {
                sha: work.sha.clone(),
                reason: "all checks were skipped".to_owned(),
            })),
            Verdict::Passed { .. }
            | Verdict::Failed { .. }
            | Verdict::Absent
            | Verdict::OnlySkipped => None,
        };
        if let Some(fact) = fact {
            worker.hand_over();
            worker.link.report_durably(version, fact).await;
            return Ok(());
        }
        rest(worker, began.elapsed(), &mut frugal).await;
    }
}

/// Waits for the next look: longer where the token's rate limit is nearly used up, which is told once.
async fn rest(worker: &Worker, waited: Duration, frugal: &mut bool) {
    let spread = worker.github.quota().pause(LOOK);
    let usual = pause(waited);
    if spread > usual && !std::mem::replace(frugal, true) {
        worker.note(format!(
            "GitHub's rate limit is nearly used up: the checks are looked at every {} s",
            spread.as_secs()
        ));
    }
    tokio::time::sleep(spread.max(usual)).await;
}

/// Where nothing is left but what a person has to act on: how long that must last before one is asked. A deployment may
/// wait for a timer as well, so what only waits is given more time than what asks for an act.
fn left_to_people(checks: &Checks, settle: Duration, patience: Duration) -> Option<Duration> {
    let mut wait = None;
    for check in &checks.items {
        match &check.state {
            State::Done(Conclusion::Success | Conclusion::Neutral | Conclusion::Skipped) => {}
            State::Done(Conclusion::ActionRequired) => wait = wait.max(Some(settle)),
            State::Held => wait = wait.max(Some(patience)),
            State::Queued | State::Running | State::Done(_) => return None,
        }
    }
    wait
}

/// Whether the repository's workflows treat drafts apart, so that their silence is explained. Where a person is asked
/// already, they do.
async fn skips_drafts(worker: &Worker, sha: &str, asked: Option<CiHold>) -> Result<bool, Failure> {
    if asked == Some(CiHold::Draft) {
        return Ok(true);
    }
    let files = worker.github.workflows_that_skip_drafts(sha).await?;
    if !files.is_empty() {
        worker.note(format!(
            "nothing checks the draft, and these workflows treat drafts apart: {}",
            files.join(", ")
        ));
    }
    Ok(!files.is_empty())
}

/// What was seen of the pull request last.
#[derive(Default)]
struct Pull {
    tag: Option<String>,
    draft: bool,
    conflicts: bool,
}

/// What one look shows.
enum Seen {
    /// There is nothing to wait for any more.
    Over(Fact),
    Checks(Checks),
}

/// The checks are read only where the pull request is as it was, so that a failure to read them hides nothing.
async fn look(worker: &mut Worker, sha: &str, pull: &mut Pull) -> Result<Seen, Failure> {
    worker.renew();
    if let Some(fact) = moved_on(worker, sha, pull).await? {
        return Ok(Seen::Over(fact));
    }
    Ok(Seen::Checks(worker.github.checks(sha).await?))
}

/// Waits for the next look after one that failed, where that is worth it.
async fn look_again(worker: &Worker, failure: Failure, troubles: &mut u32) -> Result<(), Failure> {
    if !is_passing(&failure) || *troubles >= MAX_TROUBLES {
        return Err(failure);
    }
    *troubles += 1;
    worker.note(format!("checks could not be read: {}", failure.message));
    tokio::time::sleep(trouble_pause(&failure, *troubles)).await;
    Ok(())
}

/// Whether looking again soon is worth it. A limit that lasts is the plane's to wait for: it holds every other task that
/// uses the same token, and says when it ends.
fn is_passing(failure: &Failure) -> bool {
    match failure.reason {
        FailureReason::GithubUnavailable => true,
        FailureReason::GithubLimit => failure
            .retry_at
            .is_none_or(|at| at.duration_since(Timestamp::now()) <= SHORT_LIMIT),
        _ => false,
    }
}

/// How long to leave a code host alone that does not answer, or that said how long.
fn trouble_pause(failure: &Failure, troubles: u32) -> Duration {
    let told = failure
        .retry_at
        .and_then(|at| Duration::try_from(at.duration_since(Timestamp::now())).ok());
    told.unwrap_or_else(|| Duration::from_secs(1 << troubles.min(6)))
}

/// Often at first, when a small repository's checks are over; then as rarely as a rate limit of 5,000 an hour wants.
fn pause(waited: Duration) -> Duration {
    match waited.as_secs() {
        0..30 => Duration::from_millis(700),
        30..120 => Duration::from_secs(3),
        120..900 => Duration::from_secs(10),
        _ => Duration::from_secs(30),
    }
}

/// Whether a person closed or merged the pull request meanwhile, or pushed to it.
async fn moved_on(
    worker: &mut Worker,
    sha: &str,
    known: &mut Pull,
) -> Result<Option<Fact>, Failure> {
    let Some(number) = worker.pull_number() else {
        return Ok(None);
    };
    let seen = worker
        .github
        .pull_if_changed(number, known.tag.as_deref())
        .await?;
    let Conditional::Changed { pull, etag } = seen else {
        return Ok(None);
    };
    let fact = match pull.state {
        PullState::Open => worker.moved(&pull, sha).await?,
        PullState::Closed => Some(closed(false)),
        PullState::Merged { .. } => Some(closed(true)),
    };
    known.draft = pull.draft;
    known.conflicts = pull.mergeable == Some(false);
    // Only now: what failed before is read again, and what the code host still computes as well.
    known.tag = etag.filter(|_| pull.mergeable.is_some());
    Ok(fact)
}

fn closed(merged: bool) -> Fact {
    Fact::PullRequestClosed(PullRequestClosed { merged })
}

/// The failing checks' logs in one text, and what is the same for the same failure.
async fn logs(worker: &Worker, failed: &[FailedCheck]) -> (String, String) {
    let share = MAX_LOG / failed.len().max(1);
    let mut logs = Vec::new();
    for check in failed {
        let log = match worker.github.failure_log(check, share).await {
            Ok(log) => log,
            // A log that cannot be read is no reason to leave the failure unmended.
            Err(error) => {
                worker.note(format!(
                    "the log of {} could not be read: {error}",
                    check.name
                ));
                check.summary.clone().unwrap_or_default()
            }
        };
        logs.push(log);
    }
    let failures: Vec<mainloop_github::Failure<'_>> = failed
        .iter()
        .zip(&logs)
        .map(|(check, log)| mainloop_github::Failure {
            check: &check.name,
            log,
        })
        .collect();
    let signature = mainloop_github::signature(&failures);
    let text = failed
        .iter()
        .zip(&logs)
        .map(|(check, log)| format!("== {} ({})\n{log}", check.name, check.conclusion.words()))
        .collect::<Vec<_>>()
        .join("\n");
    (text, signature)
}

fn on_wire(checks: &Checks) -> Vec<Check> {
    checks
        .items
        .iter()
        .map(|check| {
            let (state, conclusion) = match &check.state {
                State::Queued | State::Running => (CheckState::Pending, ""),
                State::Held | State::Done(Conclusion::ActionRequired) => {
                    (CheckState::Pending, Conclusion::ActionRequired.words())
                }
                State::Done(conclusion) => {
                    let state = match conclusion {
                        Conclusion::Success => CheckState::Passed,
                        Conclusion::Neutral | Conclusion::Skipped => CheckState::Skipped,
                        Conclusion::Failure
                        | Conclusion::Cancelled
                        | Conclusion::TimedOut
                        | Conclusion::ActionRequired
                        | Conclusion::StartupFailure
                        | Conclusion::Stale
                        | Conclusion::Other(_) => CheckState::Failed,
                    };
                    (state, conclusion.words())
                }
            };
            Check {
                name: check.name.clone(),
                state: state.into(),
                conclusion: conclusion.to_owned(),
                url: check.url.clone().unwrap_or_default(),
                queued: matches!(
                    check.state,
                    State::Queued | State::Held | State::Done(Conclusion::ActionRequired)
                ),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_asked_only_where_nothing_else_is_left() {
        let wait = |states: &[State]| {
            let items = states.iter().map(|state| mainloop_github::Check {
                name: "c".to_owned(),
                state: state.clone(),
                url: None,
                job_id: None,
                check_run_id: None,
                summary: None,
            });
            let checks = Checks {
                sha: "abc".to_owned(),
                items: items.collect(),
                limited: Vec::new(),
            };
            left_to_people(&checks, Duration::from_secs(2), Duration::from_mins(2))
                .map(|wait| wait.as_secs())
        };
        let approval = State::Done(Conclusion::ActionRequired);
        let passed = State::Done(Conclusion::Success);
        assert_eq!(wait(&[approval.clone(), passed.clone()]), Some(2));
        assert_eq!(wait(&[approval.clone(), State::Held]), Some(120));
        for other in [
            State::Queued,
            State::Running,
            State::Done(Conclusion::Failure),
        ] {
            assert_eq!(wait(&[approval.clone(), other]), None);
        }
        assert_eq!(wait(&[passed]), None);
        assert_eq!(wait(&[]), None);
    }
}
