//! `Plan`: Claude reads the repository and writes a plan; the plan goes to the issue and to the plane.

use aws_lc_rs::digest;
use mainloop_github::{IssueRef, MarkerKind, text};
use mainloop_proto::v1::{
    FailureReason, IssueChange, Link, NothingToChange, PlanReady, PlanWork, PlanningStarted,
    milestone::Fact,
};

use super::Failure;
use crate::sidecar::{
    claude::{Mode, TurnEnd, prompts},
    worker::{PlanKeeper, Talk, Worker},
};

/// How often Claude is asked for a plan before the step fails.
const TURNS: usize = 2;
/// What it is told when it ended without one.
const NO_PLAN: &str = "You ended without handing a plan in. Write the complete plan to the plan file and call ExitPlanMode \
without arguments, or call `mcp__mainloop__nothing_to_change` with the reason if nothing needs to change.";

pub(super) async fn plan(
    worker: &mut Worker,
    version: i64,
    work: &PlanWork,
) -> Result<(), Failure> {
    worker
        .link
        .report(version, Fact::PlanningStarted(PlanningStarted {}));
    worker.close_superseded().await;
    let asked = worker
        .prompt_task(version, !work.previous_plan.is_empty())
        .await?;
    let (harness, _) = worker.work_tree().await?;
    let delimiter = prompts::Delimiter::random();
    let mut prompt = if work.feedback.is_empty() {
        prompts::plan(&asked, &delimiter)
    } else {
        prompts::revise(&asked, &work.previous_plan, &work.feedback, &delimiter)
    };
    let talk = Talk {
        version,
        harness: &harness,
        mode: Mode::Plan,
        opens_pull: false,
        threads: &[],
    };
    let mut keeper = Keeper {
        version,
        revision: work.revision,
        kept: false,
    };
    let mut conversation = worker.converse(&talk).await?;
    let mut turns = 0;
    let end = loop {
        let end = worker
            .turn(&talk, &mut conversation, &prompt, &mut keeper)
            .await?;
        turns += 1;
        if !matches!(end, TurnEnd::Completed { .. }) || keeper.kept || turns == TURNS {
            break end;
        }
        NO_PLAN.clone_into(&mut prompt);
    };
    worker.hang_up(conversation).await;
    match end {
        _ if keeper.kept => Ok(()),
        TurnEnd::NothingToChange { reason } => nothing_to_change(worker, version, &reason).await,
        TurnEnd::Completed { .. } => Err(Failure::new(
            FailureReason::NoPlan,
            "the model ended without a plan, also when asked again",
        )),
        other => Err(worker.turn_failure(other)),
    }
}

async fn nothing_to_change(worker: &mut Worker, version: i64, reason: &str) -> Result<(), Failure> {
    // A person who wrote an issue is told there; nobody needs a new issue that says that nothing is to be done.
    let issue = worker.task.issue_number;
    if let Ok(number) = u64::try_from(issue)
        && number > 0
    {
        let body = format!(
            "Nothing to change.\n\n{}\n\n---\n\nmainloop task `{}`.",
            text::neutralise(reason),
            worker.task.short_id
        );
        worker.link.writable().await;
        let marker = worker.marker(MarkerKind::Plan);
        match worker.github.ensure_comment(number, &marker, &body).await {
            Err(error) if error.is_gone() => worker.issue_changed(version, IssueChange::Gone),
            other => drop(other?),
        }
    }
    worker.hand_over();
    let fact = NothingToChange {
        reason: reason.to_owned(),
        issue: (issue > 0).then(|| Link {
            number: issue,
            url: String::new(),
        }),
    };
    worker
        .link
        .report_durably(version, Fact::NothingToChange(fact))
        .await;
    Ok(())
}

struct Keeper {
    version: i64,
    revision: i32,
    kept: bool,
}

impl PlanKeeper for Keeper {
    async fn keep(&mut self, worker: &mut Worker, plan: String) -> Result<(), Failure> {
        if self.kept {
            // A person may be reading the one that the plane has: it takes no second one of the same revision.
            return Ok(());
        }
        let plan = plan.replace('\0', "\u{fffd}");
        let stage = text::PlanStage::Proposed;
        let issue = write_plan(worker, self.version, &plan, self.revision, stage).await?;
        worker.tell_assumed().await?;
        let fact = PlanReady {
            hash: hash(&plan),
            text: plan,
            issue,
            revision: self.revision,
        };
        worker.hand_over();
        worker
            .link
            .report_durably(self.version, Fact::PlanReady(fact))
            .await;
        self.kept = true;
        Ok(())
    }
}

/// Puts the plan where people read it: a comment on the issue that a person wrote, else the body of an issue of ours.
/// Where the repository has no issues, or a person deleted the issue, the plane alone has it. What people changed there
/// is told, and changes nothing.
pub(super) async fn write_plan(
    worker: &mut Worker,
    version: i64,
    plan: &str,
    revision: i32,
    stage: text::PlanStage,
) -> Result<Option<Link>, Failure> {
    if worker.task.issue_number == 0 && !worker.base().await?.has_issues {
        worker.note("the repository has no issues: the plan is in the inbox alone".to_owned());
        return Ok(None);
    }
    let body = text::plan_body(&text::Plan {
        request: &worker.task.description,
        plan,
        revision: u32::try_from(revision).unwrap_or(0),
        task: &worker.task.short_id,
        stage,
    });
    let marker = worker.marker(MarkerKind::Plan);
    worker.link.writable().await;
    let written = match (worker.issue_number(), worker.task.issue_number) {
        (Some(number), 1..) => worker
            .github
            .ensure_comment(number, &marker, &body)
            .await
            .map(|comment| Written {
                number,
                url: comment.url,
                open: true,
                edited: comment.edited,
            }),
        (Some(number), _) => worker
            .github
            .update_planning_issue(number, &marker, &body)
            .await
            .map(Written::from),
        (None, _) => {
            let title = text::title(&worker.task.title);
            worker
                .github
                .ensure_planning_issue(&marker, &title, &body)
                .await
                .map(Written::from)
        }
    };
    let written = match written {
        Err(error) if error.is_gone() => {
            worker.issue_changed(version, IssueChange::Gone);
            worker.task.issue = None;
            return Ok(None);
        }
        other => other?,
    };
    let issue = Link {
        number: i32::try_from(written.number).unwrap_or(i32::MAX),
        url: written.url,
    };
    worker.task.issue = Some(issue.clone());
    if !written.open {
        worker.issue_changed(version, IssueChange::Closed);
    }
    if written.edited {
        worker.issue_changed(version, IssueChange::Edited);
    }
    Ok(Some(issue))
}

/// Where the plan was written, and what was found there.
struct Written {
    number: u64,
    url: String,
    open: bool,
    edited: bool,
}

impl From<IssueRef> for Written {
    fn from(issue: IssueRef) -> Self {
        Self {
            number: issue.number,
            url: issue.url,
            open: issue.open,
            edited: issue.edited,
        }
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn hash(text: &str) -> String {
    use std::fmt::Write;

    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut hex = String::new();
    for byte in digest.as_ref() {
        write!(hex, "{byte:02x}").expect("a String takes any text");
    }
    hex
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_plan_is_named_by_its_bytes() {
        assert_eq!(
            super::hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
