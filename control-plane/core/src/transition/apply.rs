//! What an event does to a task, where the table lets it.
use jiff::{SignedDuration, Timestamp};

use super::step;
use crate::{
    CiHold, Completion, Event, Failure, Gate, Limits, NoCi, Phase, PhaseKind as P, Plan,
    ReadyBeforeCi, Reason, Response, Run, Stage, Step, Task, Unanswered, Wait,
};

/// Changes `task` by `event` at `now`, or says why it does not fit.
pub(super) fn apply(
    task: &mut Task,
    event: &Event,
    now: Timestamp,
    limits: &Limits,
) -> Result<(), &'static str> {
    match event {
        Event::Confirmed => queue(task, Phase::Planning),
        Event::SpawnRejected | Event::PlanRejected => settle(task, Phase::Declined),
        Event::PlanApproved { hash } => {
            let plan = task.plan.as_mut().ok_or("there is no plan")?;
            if plan.hash != *hash {
                return Err("a newer plan was stored");
            }
            plan.approved = true;
            resume(task, Phase::Implementing);
        }
        Event::PlanRevised => resume(task, Phase::Planning),
        Event::Answered => {
            let Wait::Human(gate) = &task.wait else {
                return Err("nothing is asked");
            };
            let phase = match gate {
                Gate::Spawn | Gate::Plan => return Err("the open item takes no answer"),
                Gate::Stuck(
                    Reason::CiLimit
                    | Reason::SameFailure
                    | Reason::NoFix
                    | Reason::NoCi
                    | Reason::CiDeadline
                    | Reason::CiNotStarted
                    | Reason::CiApproval
                    | Reason::CiDraft,
                ) => Phase::FixingCi,
                Gate::Question(_) | Gate::Blocker(_) | Gate::Change(_) | Gate::Stuck(_) => {
                    task.phase.clone()
                }
            };
            human_word(task);
            resume(task, phase);
        }
        Event::AnswerAssumed => {
            if !matches!(task.wait, Wait::Human(Gate::Question(_))) {
                return Err("no question is open");
            }
            if limits.unanswered != Unanswered::Assume
                || !task.asked.is_some_and(|asked| asked.recommends)
            {
                return Err("it waits for a person");
            }
            resume(task, task.phase.clone());
        }
        Event::Reminded => {
            let asked = task.asked.as_mut().ok_or("nobody is asked")?;
            if asked.reminded.is_some() {
                return Err("they were reminded");
            }
            asked.reminded = Some(now);
        }
        Event::ChangeAllowed { hash } => {
            if task.wait != Wait::Human(Gate::Change(hash.clone())) {
                return Err("no such change is asked about");
            }
            human_word(task);
            resume(task, task.phase.clone());
        }
        Event::UncheckedAccepted => {
            if !matches!(
                task.wait,
                Wait::Human(Gate::Stuck(
                    Reason::NoCi | Reason::CiDeadline | Reason::CiNotStarted | Reason::CiApproval
                ))
            ) {
                return Err("the open item is not about missing checks");
            }
            human_word(task);
            task.green.clone_from(&task.head);
            resume(task, Phase::Ci);
        }
        Event::ReadyAllowed => {
            if task.wait != Wait::Human(Gate::Stuck(Reason::CiDraft)) {
                return Err("the open item is not about checks that skip drafts");
            }
            task.ready_first = true;
            resume(task, Phase::Ci);
        }
        Event::MoreAttempts { count } => {
            let gate = Wait::Human(Gate::Stuck(Reason::CiLimit));
            let same = Wait::Human(Gate::Stuck(Reason::SameFailure));
            let none = Wait::Human(Gate::Stuck(Reason::NoFix));
            if ![gate, same, none].contains(&task.wait) {
                return Err("the open item is not about checks that fail");
            }
            if *count == 0 {
                return Err("no turn is no more turn");
            }
            let spent = task.ci_attempts;
            human_word(task);
            task.ci_attempts = spent + 1;
            task.ci_allowed = Some(spent.saturating_add(*count));
            resume(task, Phase::FixingCi);
        }
        Event::StartedAfresh => {
            stuck_or_failed(task)?;
            human_word(task);
            task.generation += 1;
            task.head = None;
            task.green = None;
            task.pull = None;
            task.conflicted = false;
            task.ready_first = false;
            let approved = task.plan.as_ref().is_some_and(|plan| plan.approved);
            queue(
                task,
                if approved {
                    Phase::Implementing
                } else {
                    Phase::Planning
                },
            );
        }
        Event::ToppedUp => {
            if task.wait != Wait::Human(Gate::Stuck(Reason::Budget)) {
                return Err("the open item is not about money");
            }
            human_word(task);
            resume(task, task.phase.clone());
        }
        Event::TakenOver => {
            if !matches!(task.wait, Wait::Human(Gate::Stuck(_))) {
                return Err("it is not stuck");
            }
            settle(task, Phase::Completed(Completion::TakenOver));
        }
        Event::GivenUp => {
            if !matches!(
                task.wait,
                Wait::Human(
                    Gate::Question(_) | Gate::Blocker(_) | Gate::Change(_) | Gate::Stuck(_)
                )
            ) {
                return Err("nothing is asked");
            }
            let message = match &task.wait {
                Wait::Human(Gate::Stuck(reason)) => {
                    format!("given up by a person: {}", reason.row().title)
                }
                _ => "given up by a person".to_owned(),
            };
            fail(
                task,
                Failure {
                    reason: Reason::GivenUp,
                    message,
                },
            );
        }
        Event::CancelRequested => settle(task, Phase::Cancelled),
        Event::RetryRequested => {
            if !matches!(task.wait, Wait::Until { .. }) {
                stuck_or_failed(task)?;
            }
            human_word(task);
            match &task.phase {
                Phase::Failed { from, .. } => {
                    let phase = from.phase();
                    queue(task, phase);
                }
                phase => resume(task, phase.clone()),
            }
        }
        Event::Claimed => {
            if task.run != Run::Queued {
                return Err("it is not queued");
            }
            task.run = Run::Starting;
            task.attempt += 1;
        }
        Event::AttemptConnected => {
            if task.run != Run::Starting {
                return Err("it is not starting");
            }
            task.run = Run::Live;
            task.wait = working_wait(task);
        }
        Event::AttemptLost { why } => {
            if !task.run.holds_slot() {
                return Err("no attempt is live");
            }
            if waits_without_a_worker(task) {
                // The answer brings a new worker; waiting needs none.
                task.run = Run::Idle;
            } else {
                let message = format!("the worker was lost: {why}");
                stop(task, Reason::WorkerLost, message, None, now, limits);
            }
        }
        Event::Suspended => {
            if !task.run.holds_slot() {
                return Err("no attempt is live");
            }
            task.run = Run::Idle;
            // A person's answer brings a new worker by itself.
            if !waits_without_a_worker(task) {
                task.wait = Wait::Until {
                    at: now,
                    why: "the plane was stopped".to_owned(),
                };
            }
        }
        Event::DeadlinePassed => {
            let (reason, message) = match task.run {
                Run::Starting => (
                    Reason::StartDeadline,
                    "the worker did not start in time".to_owned(),
                ),
                Run::Live => (
                    Reason::StepDeadline,
                    "the step passed its deadline".to_owned(),
                ),
                Run::Idle | Run::Queued => return Err("no attempt is live"),
            };
            if matches!(task.wait, Wait::Human(_)) {
                return Err("it waits for a person");
            }
            if task.worked >= limits.task {
                task_deadline(task, now, limits);
            } else if task.run == Run::Live && step(task) == Some(Step::AwaitCi) {
                task.wait = Wait::Human(Gate::Stuck(Reason::CiDeadline));
            } else {
                stop(task, reason, message, None, now, limits);
            }
        }
        Event::CiNotStarted => {
            if task.run != Run::Live || step(task) != Some(Step::AwaitCi) {
                return Err("no checks are awaited");
            }
            if matches!(task.wait, Wait::Human(_)) {
                return Err("it waits for a person");
            }
            if task.worked >= limits.task {
                task_deadline(task, now, limits);
            } else {
                task.wait = Wait::Human(Gate::Stuck(Reason::CiNotStarted));
            }
        }
        Event::WaitElapsed => {
            if !matches!(task.wait, Wait::Until { .. }) {
                return Err("it waits for no point in time");
            }
            let phase = task.phase.clone();
            queue(task, phase);
        }

        Event::PlanStored { revision, hash } => {
            live(task)?;
            if *revision != task.plan.as_ref().map_or(1, |plan| plan.revision + 1) {
                return Err("it has the wrong revision");
            }
            task.plan = Some(Plan {
                revision: *revision,
                hash: hash.clone(),
                approved: false,
            });
            task.phase = Phase::PlanReview;
            task.wait = Wait::Human(Gate::Plan);
            task.failures = 0;
            task.waits = 0;
        }
        Event::NothingToChange => {
            live(task)?;
            settle(task, Phase::Completed(Completion::NoChange));
        }
        Event::QuestionAsked { id, .. } => {
            live(task)?;
            task.wait = Wait::Human(Gate::Question(id.clone()));
        }
        Event::BlockerReported { id } => {
            live(task)?;
            task.wait = Wait::Human(Gate::Blocker(id.clone()));
        }
        Event::ChangeHeld { hash } => {
            live(task)?;
            task.wait = Wait::Human(Gate::Change(hash.clone()));
        }
        Event::BranchPushed { sha } => {
            live_or_asking(task)?;
            if task.phase == Phase::Ci && task.head.as_ref() == Some(sha) {
                return Err("that commit is the head already");
            }
            task.head = Some(sha.clone());
            task.green = None;
            if task.phase == Phase::Ci {
                task.wait = working_wait(task);
            }
        }
        Event::PullOpened { number } => {
            live_or_asking(task)?;
            task.pull = Some(*number);
        }
        Event::WorkFinished { changed } => {
            live(task)?;
            let fixing = task.phase == Phase::FixingCi;
            task.conflicted = false;
            task.failures = 0;
            task.waits = 0;
            if task.head.is_none() || task.pull.is_none() {
                task.wait = Wait::Human(Gate::Stuck(Reason::NoChange));
            } else if fixing && !changed {
                task.wait = Wait::Human(Gate::Stuck(Reason::NoFix));
            } else {
                task.phase = Phase::Ci;
                task.wait = working_wait(task);
            }
        }
        Event::CiRunning { sha } => {
            awaits(task, sha)?;
            task.wait = Wait::Ci;
        }
        Event::CiPassed { sha } => {
            awaits(task, sha)?;
            task.green = Some(sha.clone());
            task.wait = Wait::None;
        }
        Event::CiFailed { sha, signature } => {
            awaits(task, sha)?;
            if task.signature.as_ref() == Some(signature) {
                task.wait = Wait::Human(Gate::Stuck(Reason::SameFailure));
            } else if task.ci_attempts >= task.ci_allowed.unwrap_or(limits.max_ci_attempts) {
                task.wait = Wait::Human(Gate::Stuck(Reason::CiLimit));
            } else {
                task.ci_attempts += 1;
                task.phase = Phase::FixingCi;
                task.wait = Wait::None;
            }
            task.signature = Some(signature.clone());
        }
        Event::CiHeld { sha, hold } => {
            awaits(task, sha)?;
            match hold {
                CiHold::Approval => task.wait = Wait::Human(Gate::Stuck(Reason::CiApproval)),
                // Once: who made it a draft again is asked.
                CiHold::Draft
                    if limits.ready_before_ci == ReadyBeforeCi::Always && !task.ready_first =>
                {
                    task.ready_first = true;
                    task.wait = Wait::Ci;
                }
                CiHold::Draft => task.wait = Wait::Human(Gate::Stuck(Reason::CiDraft)),
            }
        }
        Event::CiAbsent { sha } => {
            awaits(task, sha)?;
            match limits.no_ci {
                NoCi::Ask => task.wait = Wait::Human(Gate::Stuck(Reason::NoCi)),
                NoCi::Accept => {
                    task.green.clone_from(&task.head);
                    task.wait = Wait::None;
                }
                NoCi::Fail => fail(
                    task,
                    Failure {
                        reason: Reason::NoCi,
                        message: "the pull request has no checks, and policy asks for some"
                            .to_owned(),
                    },
                ),
            }
        }
        Event::MarkedReady { sha } => {
            live(task)?;
            if !task.plan.as_ref().is_some_and(|plan| plan.approved) {
                return Err("its plan is not approved");
            }
            if task.green.as_ref() != Some(sha) || task.head.as_ref() != Some(sha) {
                return Err("that commit is not the green head");
            }
            settle(task, Phase::Ready);
        }
        Event::StepFailed { failure, retry_at } => {
            live_or_asking(task)?;
            let Failure { reason, message } = failure.clone();
            let reason = if reason.is_the_planes() {
                Reason::Internal
            } else {
                reason
            };
            stop(task, reason, message, *retry_at, now, limits);
        }
        Event::ReviewReceived { pull, threads } => {
            is_ours(task, *pull)?;
            if *threads == 0 {
                return Err("everything is answered");
            }
            come_back(task);
            task.signature = None;
            task.review_rounds += 1;
            queue(task, Phase::AddressingReview);
            if task.review_rounds > limits.max_review_rounds {
                stuck(task, Reason::ReviewLimit);
            }
        }
        Event::Conflicted { pull, sha } => {
            is_ours(task, *pull)?;
            if task.phase == Phase::Ready {
                come_back(task);
                task.signature = None;
                queue(task, Phase::AddressingReview);
            } else {
                leave_checks(task, sha)?;
            }
            task.rebases += 1;
            task.conflicted = true;
            if task.rebases > limits.max_rebases {
                stuck(task, Reason::RebaseLimit);
            }
        }
        Event::RedAgain { sha } => {
            if task.head.as_ref() != Some(sha) {
                return Err("that commit is not the head");
            }
            // The signature stays: the failure that was mended last is told from a new one.
            come_back(task);
            task.green = None;
            task.reds += 1;
            queue(task, Phase::Ci);
            if task.reds > limits.max_ci_attempts {
                stuck(task, Reason::RedAgain);
            }
        }
        Event::PullMerged { pull } => {
            is_ours(task, *pull)?;
            settle(task, Phase::Completed(Completion::Merged));
        }
        Event::PullClosed { pull } => {
            is_ours(task, *pull)?;
            settle(task, Phase::Cancelled);
        }
    }
    Ok(())
}

/// The worker does its step. What it asked before is no longer asked: it went on without an answer.
fn live(task: &Task) -> Result<(), &'static str> {
    live_or_asking(task)?;
    match &task.wait {
        Wait::Human(gate) if !gate.is_the_workers() && !gate.looks_on() => {
            Err("it waits for a person")
        }
        Wait::Human(_) | Wait::None | Wait::Ci | Wait::Until { .. } => Ok(()),
    }
}

/// The worker is there.
fn live_or_asking(task: &Task) -> Result<(), &'static str> {
    if task.run == Run::Live {
        Ok(())
    } else {
        Err("no worker is live")
    }
}

/// Only a person's word moves it on, and no worker has anything to do until then.
fn waits_without_a_worker(task: &Task) -> bool {
    matches!(&task.wait, Wait::Human(gate) if !gate.looks_on())
}

/// The worker reads the checks of this very head.
fn awaits(task: &Task, sha: &str) -> Result<(), &'static str> {
    live(task)?;
    if step(task) != Some(Step::AwaitCi) {
        return Err("no checks are awaited");
    }
    if task.head.as_deref() != Some(sha) {
        return Err("that commit is not the head");
    }
    Ok(())
}

/// What was seen of a pull request is about the one that the task has now: another branch's may be closed meanwhile.
fn is_ours(task: &Task, pull: u32) -> Result<(), &'static str> {
    if task.pull == Some(pull) {
        Ok(())
    } else {
        Err("it is about another pull request")
    }
}

/// Resolves a conflict instead of awaiting checks, which the code host does not run until then.
fn leave_checks(task: &mut Task, sha: &str) -> Result<(), &'static str> {
    if task.head.as_deref() != Some(sha) {
        return Err("that commit is not the head");
    }
    match &task.wait {
        // The conflict is why nothing ran.
        Wait::Human(Gate::Stuck(
            Reason::NoCi
            | Reason::CiDeadline
            | Reason::CiNotStarted
            | Reason::CiApproval
            | Reason::CiDraft,
        )) => resume(task, Phase::AddressingReview),
        Wait::Human(_) => return Err("it waits for a person"),
        // Who waits for a point in time, or for a worker, goes on waiting.
        Wait::None | Wait::Ci | Wait::Until { .. } => {
            enter(task, Phase::AddressingReview);
            if task.run == Run::Live {
                task.wait = Wait::None;
            }
        }
    }
    task.green = None;
    Ok(())
}

/// What a worker that is there waits for, unless it asked somebody.
fn working_wait(task: &Task) -> Wait {
    match step(task) {
        Some(Step::AwaitCi) => Wait::Ci,
        Some(
            Step::Plan
            | Step::Implement
            | Step::FixCi
            | Step::MarkReady
            | Step::AddressReview
            | Step::Rebase,
        )
        | None => Wait::None,
    }
}

/// A turn of mending counts from its beginning.
fn enter(task: &mut Task, phase: Phase) {
    if phase == Phase::FixingCi {
        task.ci_attempts = task.ci_attempts.max(1);
    }
    task.phase = phase;
}

/// A worker is wanted for this phase.
fn queue(task: &mut Task, phase: Phase) {
    enter(task, phase);
    task.run = Run::Queued;
    task.wait = Wait::None;
}

/// Goes on with the worker that stayed, or asks for a new one.
fn resume(task: &mut Task, phase: Phase) {
    match task.run {
        Run::Live => {
            enter(task, phase);
            task.wait = Wait::None;
            task.wait = working_wait(task);
        }
        Run::Idle | Run::Queued | Run::Starting => queue(task, phase),
    }
}

fn settle(task: &mut Task, phase: Phase) {
    task.phase = phase;
    task.run = Run::Idle;
    task.wait = Wait::None;
}

fn fail(task: &mut Task, failure: Failure) {
    let from = match task.phase.kind() {
        P::Implementing => Stage::Implementing,
        P::Ci => Stage::Ci,
        P::FixingCi => Stage::FixingCi,
        P::AddressingReview => Stage::AddressingReview,
        P::Proposed
        | P::Planning
        | P::PlanReview
        | P::Ready
        | P::Completed
        | P::Failed
        | P::Cancelled
        | P::Declined => Stage::Planning,
    };
    settle(task, Phase::Failed { failure, from });
}

/// A ready pull request is taken up again: what was counted on the way to it is past.
fn come_back(task: &mut Task) {
    task.failures = 0;
    task.waits = 0;
    task.ci_attempts = 0;
    task.ci_allowed = None;
}

/// A person is asked before a worker goes on.
fn stuck(task: &mut Task, reason: Reason) {
    task.run = Run::Idle;
    task.wait = Wait::Human(Gate::Stuck(reason));
}

/// Work stops short: it goes on by itself later, or a person is asked.
fn stop(
    task: &mut Task,
    reason: Reason,
    message: String,
    named: Option<Timestamp>,
    now: Timestamp,
    limits: &Limits,
) {
    task.run = Run::Idle;
    let again = match reason.row().response {
        Response::Ask => None,
        Response::Again => {
            task.failures += 1;
            (task.failures < limits.max_attempts).then(|| limits.retry_at(task.failures, now))
        }
        Response::Wait => {
            task.waits += 1;
            (limits.resume_after_limit && task.waits <= limits.max_waits)
                .then(|| limits.wait_until(named, task.waits, now))
        }
    };
    task.wait = match again {
        Some(at) => Wait::Until { at, why: message },
        None => Wait::Human(Gate::Stuck(reason)),
    };
}

/// Workers were busy with the task for as long as they may.
fn task_deadline(task: &mut Task, now: Timestamp, limits: &Limits) {
    let message = "workers were busy with it for as long as policy allows".to_owned();
    stop(task, Reason::TaskDeadline, message, None, now, limits);
}

/// A person's word can take it up again.
fn stuck_or_failed(task: &Task) -> Result<(), &'static str> {
    match (&task.phase, &task.wait) {
        (Phase::Failed { .. }, _) | (_, Wait::Human(Gate::Stuck(_))) => Ok(()),
        _ => Err("it has not failed, and is not stuck"),
    }
}

/// A person has looked: the counters that led to them begin anew.
fn human_word(task: &mut Task) {
    come_back(task);
    task.signature = None;
    task.review_rounds = 0;
    task.rebases = 0;
    task.reds = 0;
    task.worked = SignedDuration::ZERO;
}
