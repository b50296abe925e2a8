//! `MarkReady`: the pull request of the green head becomes ready for review, and says what was done.
//!
//! GitHub's call has no expected head. So: Claude cannot push (the gate is closed), look, act, look again, and take it
//! back if a person moved the head meanwhile. A head that moved is reported; the plane has its checks awaited.

use mainloop_github::{MarkerKind, PullState, text};
use mainloop_proto::v1::{FailureReason, MarkReadyWork, MarkedReady, milestone::Fact};

use super::Failure;
use crate::sidecar::worker::Worker;

/// Takes the draft flag off before the checks, because they skip drafts. A head that moved meanwhile is reported.
pub(super) async fn ready_first(worker: &mut Worker, sha: &str) -> Result<Option<Fact>, Failure> {
    let Some(number) = worker.pull_number() else {
        return Ok(None);
    };
    let pull = worker.github.pull(number).await?;
    if !pull.draft || pull.state != PullState::Open {
        return Ok(None);
    }
    if let Some(moved) = worker.moved(&pull, sha).await? {
        return Ok(Some(moved));
    }
    worker.link.writable().await;
    let now = worker.github.mark_ready(&pull).await?;
    worker.note(format!(
        "marked pull request #{number} ready for review, because its checks skip drafts"
    ));
    let moved = worker.moved(&now, sha).await?;
    if moved.is_some() {
        worker.github.convert_to_draft(&now).await?;
    }
    Ok(moved)
}

pub(super) async fn mark_ready(
    worker: &mut Worker,
    version: i64,
    work: &MarkReadyWork,
) -> Result<(), Failure> {
    worker.refuse_pushes();
    if worker
        .implemented
        .as_ref()
        .is_some_and(|plan| *plan != work.plan_hash)
    {
        return Err(Failure::new(
            FailureReason::Internal,
            "the approved plan is not the one that was implemented",
        ));
    }
    let pull = worker.pull().await?;
    let number = pull.number;
    if worker.is_over(version, &pull).await {
        return Ok(());
    }
    if let Some(fact) = worker.moved(&pull, &work.sha).await? {
        worker.hand_over();
        worker.link.report_durably(version, fact).await;
        return Ok(());
    }
    let checks = worker.github.checks(&work.sha).await?;
    worker.link.writable().await;
    if pull.draft {
        let now = worker.github.mark_ready(&pull).await?;
        if let Some(fact) = worker.moved(&now, &work.sha).await? {
            worker.github.convert_to_draft(&now).await?;
            worker.hand_over();
            worker.link.report_durably(version, fact).await;
            return Ok(());
        }
    }
    if !pull.draft {
        worker
            .github
            .remove_label(number, super::UNFINISHED)
            .await?;
        ask_again(worker, number, &work.sha).await?;
    }
    let body = text::ready_comment(&text::Ready {
        summary: &worker.task.summary,
        sha: &work.sha,
        verdict: &mainloop_github::verdict(&checks),
        limited: &checks.limited,
        fixes: u32::try_from(worker.task.ci_attempts).unwrap_or(0),
        cost: Some(worker.cost_usd()),
        task: &worker.task.short_id,
    });
    worker
        .github
        .ensure_comment(number, &worker.marker(MarkerKind::Ready), &body)
        .await?;
    worker.hand_over();
    let fact = MarkedReady {
        sha: work.sha.clone(),
    };
    worker
        .link
        .report_durably(version, Fact::MarkedReady(fact))
        .await;
    Ok(())
}

/// Those who wanted changes are asked to look at the new head. One who cannot be asked is in nobody's way.
async fn ask_again(worker: &Worker, number: u64, sha: &str) -> Result<(), Failure> {
    for login in worker.github.reviewers_to_ask(number, sha).await? {
        if !worker.github.may_write(&login).await? {
            continue;
        }
        if let Err(error) = worker.github.request_review(number, &login).await {
            worker.note(format!(
                "{login} could not be asked for another review: {}",
                crate::sidecar::chain(&error)
            ));
        }
    }
    Ok(())
}
