//! `AwaitCi`: reads the checks of the head until they are decided. The plane bounds it by a deadline.

use std::time::Duration;

use mainloop_github::{Checks, Conclusion, Conditional, FailedCheck, PullState, State, Verdict};
use mainloop_proto::v1::{
    AwaitCiWork, Check, CheckState, CiAbsent, CiFailed, CiPassed, CiRunning, PullRequestClosed,
    milestone::Fact,
};
use tokio::time::Instant;

use super::Failure;
use crate::sidecar::worker::Worker;

/// Longest log that goes into the next prompt, in bytes, over all failed checks.
const MAX_LOG: usize = 48 * 1024;
/// How long checks may still appear once those that are there are over, at least and at most: workflows of one push do
/// not start together. In between it is a quarter of the time that a push without any check is given.
const SETTLE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// Looks in a row that may fail before the step does: about a quarter of an hour of an outage.
const MAX_TROUBLES: u32 = 16;

pub(super) async fn await_ci(
    worker: &mut Worker,
    version: i64,
    work: &AwaitCiWork,
) -> Result<(), Failure> {
    let began = Instant::now();
    let no_ci_after =
        Duration::from_secs(u64::try_from(worker.policy.no_ci_after_seconds).unwrap_or(120));
    let settle = (no_ci_after / 4).clamp(SETTLE.0, SETTLE.1);
    let mut told: Vec<Check> = Vec::new();
    let mut known = Vec::new();
    let mut changed = began;
    let mut limits_told = false;
    let mut tag = None;
    let mut troubles = 0;
    loop {
        let checks = match look(worker, &work.sha, &mut tag).await {
            Ok(Seen::Checks(checks)) => checks,
            Ok(Seen::Over(fact)) => {
                worker.hand_over();
                worker.link.report_durably(version, fact).await;
                return Ok(());
            }
            Err(failure) if failure.transient && troubles < MAX_TROUBLES => {
                troubles += 1;
                worker.note(format!("checks could not be read: {}", failure.message));
                tokio::time::sleep(trouble_pause(&failure, troubles)).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        troubles = 0;
        worker.link.alive();
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
        let fact = match mainloop_github::verdict(&checks) {
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
                }))
            }
            Verdict::Failed { checks } => {
                let (log, signature) = logs(worker, &checks).await;
                Some(Fact::CiFailed(CiFailed {
                    sha: work.sha.clone(),
                    checks: list,
                    signature,
                    log,
                }))
            }
            Verdict::Absent if began.elapsed() >= no_ci_after => Some(Fact::CiAbsent(CiAbsent {
                sha: work.sha.clone(),
                reason: format!("no check after {} s", no_ci_after.as_secs()),
            })),
            Verdict::OnlySkipped if began.elapsed() >= no_ci_after => {
                Some(Fact::CiAbsent(CiAbsent {
                    sha: work.sha.clone(),
                    reason: "all checks were skipped".to_owned(),
                }))
            }
            Verdict::Passed { .. } | Verdict::Absent | Verdict::OnlySkipped => None,
        };
        if let Some(fact) = fact {
            worker.hand_over();
            worker.link.report_durably(version, fact).await;
            return Ok(());
        }
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// What one look shows.
enum Seen {
    /// There is nothing to wait for any more.
    Over(Fact),
    Checks(Checks),
}

/// The checks are read only where the pull request is as it was, so that a failure to read them hides nothing.
async fn look(worker: &mut Worker, sha: &str, tag: &mut Option<String>) -> Result<Seen, Failure> {
    worker.renew();
    if let Some(fact) = moved_on(worker, sha, tag).await? {
        return Ok(Seen::Over(fact));
    }
    Ok(Seen::Checks(worker.github.checks(sha).await?))
}

/// How long to leave a code host alone that does not answer, or that said how long.
fn trouble_pause(failure: &Failure, troubles: u32) -> Duration {
    let told = failure
        .retry_at
        .and_then(|at| Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok());
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
    tag: &mut Option<String>,
) -> Result<Option<Fact>, Failure> {
    let Some(number) = worker.pull_number() else {
        return Ok(None);
    };
    let seen = worker
        .github
        .pull_if_changed(number, tag.as_deref())
        .await?;
    let Conditional::Changed { pull, etag } = seen else {
        return Ok(None);
    };
    let fact = match pull.state {
        PullState::Open => worker.moved(&pull, sha).await?,
        PullState::Closed => Some(closed(false)),
        PullState::Merged { .. } => Some(closed(true)),
    };
    // Only now: what failed before is read again.
    *tag = etag;
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
                State::Queued | State::Running => (CheckState::Pending, String::new()),
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
                    (state, conclusion.words().to_owned())
                }
            };
            Check {
                name: check.name.clone(),
                state: state.into(),
                conclusion,
                url: check.url.clone().unwrap_or_default(),
            }
        })
        .collect()
}
