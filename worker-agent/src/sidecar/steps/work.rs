//! `Implement` and `FixCi`: Claude changes the work tree, commits are pushed as they come, a draft pull request shows them.

use mainloop_github::text;
use mainloop_proto::v1::{
    BranchPushed, CheckState, FailureReason, FixCiWork, ImplementWork, WorkFinished,
    milestone::Fact,
};

use super::{Failure, plan};
use crate::{
    channel::{self, Diffstat, Harness},
    sidecar::{
        claude::{FailureClass, Mode, TurnEnd, prompts},
        proxy::Refusal,
        worker::{Conversation, Leave, PlanKeeper, Talk, Worker},
    },
};

/// How often Claude is told why its push does not pass before a person is.
const TOLD: u32 = 2;

pub(super) async fn implement(
    worker: &mut Worker,
    version: i64,
    work: &ImplementWork,
) -> Result<(), Failure> {
    if plan::hash(&work.plan) != work.plan_hash {
        return Err(Failure::new(
            FailureReason::Internal,
            "the plan that the plane sent is not the one that was approved",
        ));
    }
    worker.implemented = Some(work.plan_hash.clone());
    worker.close_superseded().await;
    plan::write_plan(
        worker,
        version,
        &work.plan,
        work.plan_revision,
        text::PlanStage::Approved,
    )
    .await?;
    let task = worker.prompt_task(version, true).await?;
    let (harness, prepared) = worker.work_tree().await?;
    let prompt = prompts::implement(&task, &work.plan, &prompts::Delimiter::random());
    let prompt = if prepared.resumed {
        prompts::resume(&prompt)
    } else {
        prompt
    };
    let before = worker.head.clone();
    let summary = turn(worker, version, &harness, &prompt, &[], &mut NoPlan).await?;
    let summary = publish(worker, version, &harness, None, summary).await?;
    report(worker, version, &harness, before, summary).await
}

pub(super) async fn fix_ci(
    worker: &mut Worker,
    version: i64,
    work: &FixCiWork,
) -> Result<(), Failure> {
    worker.task.ci_attempts = work.attempt;
    let mut task = worker.prompt_task(version, true).await?;
    if !work.guidance.is_empty() {
        task.answers.push(prompts::Answered {
            question: "CI kept failing; how to go on?".to_owned(),
            answer: work.guidance.clone(),
            assumed: false,
        });
    }
    let (harness, _) = worker.work_tree().await?;
    let mut log = Some(work.log.clone());
    let checks: Vec<prompts::FailedCheck> = work
        .checks
        .iter()
        .filter(|check| check.state() == CheckState::Failed)
        .map(|check| prompts::FailedCheck {
            name: check.name.clone(),
            conclusion: check.conclusion.clone(),
            // One text holds the logs of all checks, and names each.
            log: log.take().unwrap_or_default(),
        })
        .collect();
    let prompt = prompts::fix_ci(
        &task,
        &work.plan,
        &checks,
        u32::try_from(work.attempt).unwrap_or(1),
        u32::try_from(work.max_attempts).unwrap_or(1),
        &prompts::Delimiter::random(),
    );
    let summary = turn(worker, version, &harness, &prompt, &[], &mut NoPlan).await?;
    let summary = publish(worker, version, &harness, None, summary).await?;
    report(worker, version, &harness, Some(work.sha.clone()), summary).await
}

/// One turn in which Claude may change things, and answer these threads of a review. Its last words.
pub(super) async fn turn(
    worker: &mut Worker,
    version: i64,
    harness: &Harness,
    prompt: &str,
    threads: &[String],
    keeper: &mut impl PlanKeeper,
) -> Result<String, Failure> {
    let talk = Talk {
        version,
        harness,
        mode: Mode::Work,
        opens_pull: true,
        threads,
    };
    worker.allow_pushes();
    harness.auto_push(true).await.map_err(Failure::git)?;
    let mut conversation = worker.converse(&talk).await?;
    let end = worker.turn(&talk, &mut conversation, prompt, keeper).await;
    let budget_is_spent = matches!(
        end,
        Ok(TurnEnd::Failed {
            class: FailureClass::Budget,
            ..
        })
    );
    let last_words = if budget_is_spent {
        Some(wrap_up(worker, &talk, &mut conversation).await)
    } else {
        None
    };
    worker.hang_up(conversation).await;
    let failure = match end? {
        TurnEnd::Completed { text, .. } => return Ok(text),
        other => worker.turn_failure(other),
    };
    let Some(last_words) = last_words else {
        return Err(failure);
    };
    let message = text::title(&worker.task.title);
    let pushed = match push(worker, version, harness, message).await {
        Ok(()) => "What is done is pushed.".to_owned(),
        // A person decides on the next attempt, which finds it.
        Err(NotPushed { error, .. }) => format!("Not everything is pushed: {error}."),
    };
    show(worker, version, harness).await?;
    Err(Failure {
        message: format!("{}\n\n{pushed} {last_words}", failure.message),
        ..failure
    })
}

/// One short turn beyond the budget, to commit and to sum up. What a person reads of it.
async fn wrap_up(worker: &mut Worker, talk: &Talk<'_>, conversation: &mut Conversation) -> String {
    worker.note("the budget is spent: one last turn, to commit and to sum up".to_owned());
    worker.allow_a_last_turn();
    let prompt = prompts::wrap_up();
    match worker.turn(talk, conversation, &prompt, &mut NoPlan).await {
        Ok(TurnEnd::Completed { text, .. }) => {
            format!("Claude's summary:\n\n{text}")
        }
        Ok(_) | Err(_) => "Claude did not come to sum up.".to_owned(),
    }
}

/// A push that did not pass: in the harness's words, and why, where the proxy knows.
struct NotPushed {
    error: channel::Error,
    refusal: Option<Refusal>,
}

/// Commits what the turn left under `message`, and pushes. A push that the plane's absence cut short is made again.
async fn push(
    worker: &mut Worker,
    version: i64,
    harness: &Harness,
    message: String,
) -> Result<(), NotPushed> {
    loop {
        worker.link.writable().await;
        worker.allow_pushes();
        worker.renew();
        // That of a push before this one.
        worker.take_refusal();
        let pushed = harness.publish(message.clone()).await;
        worker.drain_proxy_events(version);
        let Err(error) = pushed else {
            return Ok(());
        };
        match worker.take_refusal() {
            Some(Refusal::Closed) => worker.note(
                "touch with mainloop was lost in the middle of a push: it is pushed again"
                    .to_owned(),
            ),
            refusal => return Err(NotPushed { error, refusal }),
        }
    }
}

/// Publishes what the turn left, under the task's title where nothing else is said, and sees to the pull request. Where the
/// push does not pass as it is, a person or Claude is asked. The last words of the last turn, which are `summary` at first.
pub(super) async fn publish(
    worker: &mut Worker,
    version: i64,
    harness: &Harness,
    message: Option<String>,
    mut summary: String,
) -> Result<String, Failure> {
    let message = message.unwrap_or_else(|| text::title(&worker.task.title));
    let mut told = 0;
    loop {
        let Err(not_pushed) = push(worker, version, harness, message.clone()).await else {
            show(worker, version, harness).await?;
            return Ok(summary);
        };
        let prompt = match not_pushed.refusal {
            None | Some(Refusal::Closed) => return Err(Failure::git(not_pushed.error)),
            Some(Refusal::Unknown(error)) => return Err(Failure::github(&error)),
            Some(Refusal::Unreadable(why)) => {
                return Err(Failure::new(FailureReason::PushUnchecked, why));
            }
            Some(Refusal::Held(held)) => {
                harness.auto_push(false).await.map_err(Failure::git)?;
                match worker.ask_leave(version, held).await {
                    Leave::Given => continue,
                    Leave::NotGiven(words) => prompts::change_not_allowed(&words),
                }
            }
            Some(Refusal::Definitions(why) | Refusal::Message(why)) if told < TOLD => {
                told += 1;
                prompts::push_refused(&why)
            }
            Some(Refusal::Definitions(why)) => {
                return Err(Failure::new(FailureReason::WorkflowRefused, why));
            }
            Some(Refusal::Message(why)) => {
                return Err(Failure::new(FailureReason::PushRejected, why));
            }
        };
        summary = turn(worker, version, harness, &prompt, &[], &mut NoPlan).await?;
    }
}

/// Ends the pushes of a turn: what is on GitHub is told, and has its pull request.
async fn show(worker: &mut Worker, version: i64, harness: &Harness) -> Result<(), Failure> {
    harness.auto_push(false).await.map_err(Failure::git)?;
    worker.refuse_pushes();
    // A push of an attempt that died before it could report is seen here, at the code host.
    let branch = worker.branch.clone();
    if let Some(head) = worker.github.branch_head(&branch).await?
        && worker.head.as_ref() != Some(&head)
    {
        worker.head = Some(head.clone());
        let fact = BranchPushed { branch, sha: head };
        worker.link.report(version, Fact::BranchPushed(fact));
    }
    if worker.head.is_some() {
        worker.ensure_pull(version).await?;
    }
    worker.tell_assumed().await
}

/// Reports the result of what was published, against the head before it.
pub(super) async fn report(
    worker: &mut Worker,
    version: i64,
    harness: &Harness,
    before: Option<String>,
    summary: String,
) -> Result<(), Failure> {
    let diffstat = harness.diffstat().await.map_err(Failure::git)?;
    worker.task.summary.clone_from(&summary);
    let fact = WorkFinished {
        head_sha: worker.head.clone().unwrap_or_default(),
        diffstat: sentence(&diffstat),
        summary,
        changed: worker.head.is_some() && worker.head != before,
    };
    worker.hand_over();
    worker
        .link
        .report_durably(version, Fact::WorkFinished(fact))
        .await;
    Ok(())
}

fn sentence(diffstat: &Diffstat) -> String {
    let files = match diffstat.files {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    format!("{files}, +{} -{}", diffstat.added, diffstat.removed)
}

/// A turn that works has no plan to hand in; the driver refuses one.
pub(super) struct NoPlan;

impl PlanKeeper for NoPlan {
    async fn keep(&mut self, _: &mut Worker, _: String) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diffstat_reads_as_a_sentence() {
        let stat = |files, added, removed| {
            sentence(&Diffstat {
                files,
                added,
                removed,
                paths: Vec::new(),
            })
        };
        assert_eq!(stat(1, 2, 0), "1 file, +2 -0");
        assert_eq!(stat(3, 40, 2), "3 files, +40 -2");
    }
}
