//! What is wanted done about a transition: the difference between two states of a task, as desired state.

use jiff::{SignedDuration, Timestamp};

use super::{Timer, Want, step};
use crate::{Event, Gate, Limits, Phase, Run, Task, Wait, limits::later};

/// What of the desired state differs between two states of a task.
pub(super) fn wants(before: &Task, after: &Task, now: Timestamp, limits: &Limits) -> Vec<Want> {
    let mut wants = Vec::new();
    if before.run.holds_slot() && !after.run.holds_slot() {
        wants.push(Want::EndAttempt(before.attempt));
    }
    if before.attempt != after.attempt {
        wants.push(Want::StartAttempt(after.attempt));
    }
    if before.wait != after.wait {
        if matches!(before.wait, Wait::Human(_)) {
            wants.push(Want::WithdrawItem);
        }
        if let Wait::Human(gate) = &after.wait {
            wants.push(Want::OpenItem(gate.clone()));
        }
    }
    let moved = before.phase_version != after.phase_version;
    if moved || before.run != after.run || before.wait != after.wait || before.asked != after.asked
    {
        wants.push(Want::SetTimer(timer(after, now, limits)));
    }
    if moved && after.run == Run::Live {
        wants.push(Want::Assign);
    }
    if before.phase != after.phase
        && before.phase != Phase::Proposed
        && matches!(after.phase, Phase::Cancelled | Phase::Declined)
    {
        wants.push(Want::Tidy);
    }
    match (is_watched(before), is_watched(after)) {
        (false, true) => wants.push(Want::WatchPull),
        (true, false) => wants.push(Want::UnwatchPull),
        (true, true) | (false, false) => {}
    }
    wants
}

/// What an event says of a credential that other tasks use as well.
pub(super) fn holds(before: &Task, after: &Task, event: &Event) -> Option<Want> {
    if let Event::StepFailed { failure, .. } = event {
        let until = match &after.wait {
            Wait::Until { at, .. } => Some(*at),
            Wait::None | Wait::Human(_) | Wait::Ci => None,
        };
        let credential = failure.reason.row().holds?;
        return Some(Want::Hold(credential, until));
    }
    // However the item ends, nobody is left who could say that it is mended: the next task tries, and asks anew.
    match &before.wait {
        Wait::Human(Gate::Stuck(reason)) if before.wait != after.wait => {
            reason.row().holds.map(Want::Release)
        }
        Wait::Until { .. } if *event == Event::RetryRequested => Some(Want::TryHeld),
        _ => None,
    }
}

/// Whether the plane looks at the pull request: as long as there is one. A worker looks only while it awaits checks.
pub(super) fn is_watched(task: &Task) -> bool {
    task.pull.is_some() && !task.phase.is_final()
}

fn timer(task: &Task, now: Timestamp, limits: &Limits) -> Option<Timer> {
    match (&task.wait, task.run) {
        (Wait::Until { at, .. }, _) => Some(Timer::Wait(*at)),
        (Wait::Human(_), _) => unanswered(task, limits),
        (_, Run::Idle | Run::Queued) => None,
        (_, run) => {
            let limit = if run == Run::Starting {
                limits.start
            } else {
                limits.of(step(task)?)
            };
            Some(Timer::Deadline(later(
                now,
                limit.min(limits.task - task.worked),
            )))
        }
    }
}

/// What happens when a person does not answer.
fn unanswered(task: &Task, limits: &Limits) -> Option<Timer> {
    let asked = task.asked?;
    if asked.reminded.is_none() && limits.remind > SignedDuration::ZERO {
        return Some(Timer::Remind(later(asked.at, limits.remind)));
    }
    task.assumes_at(limits).map(Timer::Assume)
}
