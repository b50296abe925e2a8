//! The words that stand in the database for the workflow's values, each in one place.

use jiff::Timestamp;
use mainloop_core::{Completion, Gate, Reason, Run, Stage, Timer};

/// `(gate, gate_ref)`.
pub fn gate(gate: &Gate) -> (&'static str, Option<&str>) {
    match gate {
        Gate::Spawn => ("spawn", None),
        Gate::Plan => ("plan", None),
        Gate::Question(id) => ("question", Some(id)),
        Gate::Blocker(id) => ("worker", Some(id)),
        Gate::Change(hash) => ("change", Some(hash)),
        Gate::Stuck(reason) => ("stuck", Some(reason.word())),
    }
}

/// The gate that `(gate, gate_ref)` stands for.
pub fn to_gate(word: &str, reference: Option<String>) -> Option<Gate> {
    Some(match word {
        "spawn" => Gate::Spawn,
        "plan" => Gate::Plan,
        "question" => Gate::Question(reference?),
        "worker" => Gate::Blocker(reference?),
        "change" => Gate::Change(reference?),
        "stuck" => Gate::Stuck(Reason::of_word(&reference?)?),
        _ => return None,
    })
}

/// The kind of inbox item that a gate opens.
pub fn item_kind(gate: &Gate) -> &'static str {
    match gate {
        Gate::Spawn => "spawn",
        Gate::Plan => "plan",
        Gate::Question(_) => "question",
        Gate::Blocker(_) | Gate::Change(_) | Gate::Stuck(_) => "blocker",
    }
}

/// A run's word.
pub fn run(run: Run) -> &'static str {
    match run {
        Run::Idle => "idle",
        Run::Queued => "queued",
        Run::Starting => "starting",
        Run::Live => "live",
    }
}

/// The run that a word stands for.
pub fn to_run(word: &str) -> Option<Run> {
    [Run::Idle, Run::Queued, Run::Starting, Run::Live]
        .into_iter()
        .find(|candidate| run(*candidate) == word)
}

/// A timer's word.
pub fn timer(timer: Timer) -> &'static str {
    match timer {
        Timer::Deadline(_) => "deadline",
        Timer::Wait(_) => "wait",
        Timer::Remind(_) => "remind",
        Timer::Assume(_) => "assume",
    }
}

/// The timer that a word stands for.
pub fn to_timer(word: &str, at: Timestamp) -> Option<Timer> {
    [
        Timer::Deadline(at),
        Timer::Wait(at),
        Timer::Remind(at),
        Timer::Assume(at),
    ]
    .into_iter()
    .find(|candidate| timer(*candidate) == word)
}

/// A completion's word.
pub fn completion(completion: Completion) -> &'static str {
    match completion {
        Completion::Merged => "merged",
        Completion::NoChange => "no_change",
        Completion::TakenOver => "taken_over",
    }
}

/// The completion that a word stands for.
pub fn to_completion(word: &str) -> Option<Completion> {
    [
        Completion::Merged,
        Completion::NoChange,
        Completion::TakenOver,
    ]
    .into_iter()
    .find(|candidate| completion(*candidate) == word)
}

/// A stage's word.
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Planning => "planning",
        Stage::Implementing => "implementing",
        Stage::Ci => "ci",
        Stage::FixingCi => "fixing_ci",
        Stage::AddressingReview => "addressing_review",
    }
}

/// The stage that a word stands for.
pub fn to_stage(word: &str) -> Option<Stage> {
    [
        Stage::Planning,
        Stage::Implementing,
        Stage::Ci,
        Stage::FixingCi,
        Stage::AddressingReview,
    ]
    .into_iter()
    .find(|candidate| stage(*candidate) == word)
}
