//! The words that stand in the database for the workflow's values, each in one place.

use mainloop_core::{Blocker, Completion, FailureClass, Gate, Run, Stage};

/// `(gate, gate_ref)`.
pub fn gate(gate: &Gate) -> (&'static str, Option<&str>) {
    match gate {
        Gate::Spawn => ("spawn", None),
        Gate::Plan => ("plan", None),
        Gate::Question(id) => ("question", Some(id)),
        Gate::Blocker(Blocker::Worker(id)) => ("worker", Some(id)),
        Gate::Blocker(Blocker::CiLimit) => ("ci_limit", None),
        Gate::Blocker(Blocker::SameFailure) => ("same_failure", None),
        Gate::Blocker(Blocker::NoFix) => ("no_fix", None),
        Gate::Blocker(Blocker::CiDeadline) => ("ci_deadline", None),
        Gate::Blocker(Blocker::NoCi) => ("no_ci", None),
        Gate::Blocker(Blocker::NoChange) => ("no_change", None),
    }
}

/// The gate that `(gate, gate_ref)` stands for.
pub fn to_gate(word: &str, reference: Option<String>) -> Option<Gate> {
    Some(match word {
        "spawn" => Gate::Spawn,
        "plan" => Gate::Plan,
        "question" => Gate::Question(reference?),
        "worker" => Gate::Blocker(Blocker::Worker(reference?)),
        "ci_limit" => Gate::Blocker(Blocker::CiLimit),
        "same_failure" => Gate::Blocker(Blocker::SameFailure),
        "no_fix" => Gate::Blocker(Blocker::NoFix),
        "ci_deadline" => Gate::Blocker(Blocker::CiDeadline),
        "no_ci" => Gate::Blocker(Blocker::NoCi),
        "no_change" => Gate::Blocker(Blocker::NoChange),
        _ => return None,
    })
}

/// The kind of inbox item that a gate opens.
pub fn item_kind(gate: &Gate) -> &'static str {
    match gate {
        Gate::Spawn => "spawn",
        Gate::Plan => "plan",
        Gate::Question(_) => "question",
        Gate::Blocker(_) => "blocker",
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

/// A completion's word.
pub fn completion(completion: Completion) -> &'static str {
    match completion {
        Completion::Merged => "merged",
        Completion::NoChange => "no_change",
    }
}

/// The completion that a word stands for.
pub fn to_completion(word: &str) -> Option<Completion> {
    [Completion::Merged, Completion::NoChange]
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
    }
}

/// The stage that a word stands for.
pub fn to_stage(word: &str) -> Option<Stage> {
    [
        Stage::Planning,
        Stage::Implementing,
        Stage::Ci,
        Stage::FixingCi,
    ]
    .into_iter()
    .find(|candidate| stage(*candidate) == word)
}

/// Every class of failure with its word.
const CLASSES: [(FailureClass, &str); 12] = [
    (FailureClass::Worker, "worker"),
    (FailureClass::Deadline, "deadline"),
    (FailureClass::ModelCredential, "model_credential"),
    (FailureClass::ModelService, "model_service"),
    (FailureClass::ModelResult, "model_result"),
    (FailureClass::Budget, "budget"),
    (FailureClass::GithubCredential, "github_credential"),
    (FailureClass::Github, "github"),
    (FailureClass::Git, "git"),
    (FailureClass::Environment, "environment"),
    (FailureClass::Ci, "ci"),
    (FailureClass::GivenUp, "given_up"),
];

/// A failure class's word.
pub fn failure_class(class: FailureClass) -> &'static str {
    CLASSES
        .iter()
        .find(|(candidate, _)| *candidate == class)
        .map_or("worker", |(_, word)| word)
}

/// The failure class that a word stands for.
pub fn to_failure_class(word: &str) -> Option<FailureClass> {
    CLASSES
        .iter()
        .find(|(_, candidate)| *candidate == word)
        .map(|(class, _)| *class)
}
