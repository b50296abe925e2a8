//! Every way in which work stops short, with what the workflow does about it, what a person can choose, and the
//! sentences that say so. The troubleshooting page is rendered from this table.

/// What the workflow does when a step stops for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It counts as a failure and is tried again after a while; a person is asked when attempts are used up.
    Again,
    /// It counts as nothing: it is tried again when the limit or the outage is over, and a person is asked when that
    /// takes too long.
    Wait,
    /// A person is asked at once: trying again would not help.
    Ask,
}

/// A credential that all tasks of a plane share. While one is held, no task is started that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The model's.
    Model,
    /// The code host's.
    CodeHost,
}

impl Credential {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Model, Self::CodeHost];

    /// The word in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::CodeHost => "code_host",
        }
    }
}

/// What a person can do about an open item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Yes.
    Approve,
    /// Not yet: again, with these words.
    Revise,
    /// These are the answers, or the insight to go on with.
    Answer,
    /// The same once more: what was in the way is mended.
    Retry,
    /// So many more turns of mending.
    MoreAttempts,
    /// On a new branch from the base, with these words.
    StartAfresh,
    /// Let it cost so much more.
    TopUp,
    /// I go on by hand.
    TakeOver,
    /// No: declined, or given up.
    Reject,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Approve,
        Self::Revise,
        Self::Answer,
        Self::Retry,
        Self::MoreAttempts,
        Self::StartAfresh,
        Self::TopUp,
        Self::TakeOver,
        Self::Reject,
    ];

    /// The word in the database, in messages and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Revise => "revise",
            Self::Answer => "answer",
            Self::Retry => "retry",
            Self::MoreAttempts => "more_attempts",
            Self::StartAfresh => "start_afresh",
            Self::TopUp => "top_up",
            Self::TakeOver => "take_over",
            Self::Reject => "reject",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The reason.
    pub reason: Reason,
    /// What the workflow does.
    pub response: Response,
    /// Credential that is held for all tasks until the limit is over or a person says that it is mended.
    pub holds: Option<Credential>,
    /// What a person can choose where one is asked; giving up is always possible, and last.
    pub choices: &'static [Choice],
    /// What happened: a few words, for titles.
    pub title: &'static str,
    /// What it means: a sentence or two.
    pub meaning: &'static str,
    /// What whoever is asked does about it: a sentence or two.
    pub remedy: &'static str,
    /// What can be done while the task waits by itself; none where it never does.
    pub meanwhile: Option<&'static str>,
}

macro_rules! reasons {
    ($($(#[$holds:ident])? $name:ident $word:literal $response:ident $choices:ident $title:literal $meaning:literal $remedy:literal $($meanwhile:literal)?),+ $(,)?) => {
        /// Why work stopped short.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $name),+
        }

        impl Reason {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word in the database and the contract.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }
        }

        /// Every reason once, in the order of [`Reason::ALL`].
        pub const REASONS: &[Row] = &[$(Row {
            reason: Reason::$name,
            response: Response::$response,
            holds: holds!($($holds)?),
            choices: $choices,
            title: $title,
            meaning: $meaning,
            remedy: $remedy,
            meanwhile: meanwhile!($($meanwhile)?),
        }),+];
    };
}

macro_rules! holds {
    () => {
        None
    };
    ($credential:ident) => {
        Some(Credential::$credential)
    };
}

macro_rules! meanwhile {
    () => {
        None
    };
    ($words:literal) => {
        Some($words)
    };
}

/// What is mended elsewhere.
const MEND: &[Choice] = &[
    Choice::Retry,
    Choice::Answer,
    Choice::StartAfresh,
    Choice::TakeOver,
    Choice::Reject,
];
/// What another word to the worker can mend.
const STEER: &[Choice] = &[
    Choice::Answer,
    Choice::Retry,
    Choice::StartAfresh,
    Choice::TakeOver,
    Choice::Reject,
];
/// Checks that do not become green.
const CHECKS: &[Choice] = &[
    Choice::Answer,
    Choice::MoreAttempts,
    Choice::StartAfresh,
    Choice::TakeOver,
    Choice::Reject,
];
/// Checks that nobody makes.
const UNCHECKED: &[Choice] = &[
    Choice::Approve,
    Choice::Retry,
    Choice::Answer,
    Choice::TakeOver,
    Choice::Reject,
];
/// What is too large to be worked on here.
const UNCLONED: &[Choice] = &[Choice::Retry, Choice::TakeOver, Choice::Reject];
/// What a person has to allow.
const LEAVE: &[Choice] = &[Choice::Approve, Choice::Revise, Choice::Reject];
/// Checks that wait for a person on the code host.
const HELD: &[Choice] = &[
    Choice::Retry,
    Choice::Approve,
    Choice::Answer,
    Choice::TakeOver,
    Choice::Reject,
];
/// Money.
const MONEY: &[Choice] = &[
    Choice::TopUp,
    Choice::StartAfresh,
    Choice::TakeOver,
    Choice::Reject,
];

reasons! {
    // Checks
    CiLimit "ci_limit" Ask CHECKS
        "CI keeps failing"
        "Checks still fail after as many turns of mending as policy allows."
        "Read the failing checks below; say what the worker overlooks, allow more turns, or take the branch over.",
    SameFailure "same_failure" Ask CHECKS
        "CI fails in the same way"
        "Checks failed twice in the same way, so another turn without help would change nothing."
        "Read the failing checks below and say what the worker overlooks.",
    NoFix "no_fix" Ask CHECKS
        "CI failure not mended"
        "The worker was asked to mend the checks and changed nothing."
        "Say what to change, or take the branch over.",
    CiDeadline "ci_deadline" Ask UNCHECKED
        "CI does not finish"
        "The checks of the head were not decided in time."
        "See whether a check hangs or a runner is missing, and retry to wait once more.",
    CiNotStarted "ci_not_started" Ask UNCHECKED
        "CI does not start"
        "Checks of the head were queued all the time, and no runner took one."
        "See whether a runner with the labels that the jobs ask for is there and free, and retry to wait once more.",
    CiApproval "ci_approval" Ask HELD
        "CI waits for an approval"
        "A maintainer must approve the workflow run, or act on the check, on the code host."
        "Approve it there: the task goes on by itself when checks run. Approve here to take the head as it is.",
    CiDraft "ci_draft" Ask UNCHECKED
        "CI skips drafts"
        "Nothing checks the head: the pull request is a draft, and the repository's workflows leave drafts out."
        "Approve to have it marked ready for review so that its checks run; `limits.ready_before_ci` does so without asking.",
    NoCi "no_ci" Ask UNCHECKED
        "No CI"
        "The head of the pull request has no checks, so nothing says whether it works."
        "Approve to take it as it is, retry when checks are set up, or say what the worker is to change.",
    NoChange "no_change" Ask STEER
        "No change was made"
        "The worker finished the approved plan without pushing a change."
        "Say what it missed.",

    // Review
    ReviewLimit "review_limit" Ask STEER
        "Review goes round in circles"
        "Reviewers had more to say after as many rounds as policy allows."
        "Read the pull request; say how to go on, retry for another round, or take the branch over.",
    RebaseLimit "rebase_limit" Ask STEER
        "Conflicts with the base again and again"
        "The pull request conflicts with its base after as many merges as policy allows."
        "Merge or close what it conflicts with, then retry; or take the branch over.",
    RedAgain "red_again" Ask STEER
        "Checks turn red again and again"
        "Checks of a head that was green turned red more often than policy allows."
        "See whether a check is flaky: mend it and retry, or say what the worker is to change.",
    Unmerged "unmerged" Ask STEER
        "Conflict not resolved"
        "The worker was asked to merge the base and resolve what conflicts, and left the merge unfinished."
        "Say how to resolve it, or take the branch over.",

    // The model
    #[Model] ModelCredential "model_credential" Ask MEND
        "Model credential refused"
        "The model's service does not accept the credential: it is wrong, expired or revoked."
        "Start the plane with a valid credential (`mainloop doctor` tries it), then retry. Other tasks wait for it as well.",
    #[Model] ModelCredit "model_credit" Ask MEND
        "Model account out of credit"
        "The model's service says that the account has no credit left."
        "Buy credit or raise the account's limit, then retry. Other tasks wait for it as well.",
    ModelNotAllowed "model_not_allowed" Ask MEND
        "Model not available"
        "The model does not exist, the credential may not use it, or policy refuses what is asked of it."
        "Create the task with another `--model`, give the credential access, or mend the policy; then retry.",
    #[Model] ModelLimit "model_limit" Wait MEND
        "Model limit reached"
        "The credential has reached a rate or usage limit."
        "Retry once the limit is over, or start the plane with another credential. Other tasks wait for it as well."
        "`mainloop task retry` tries at once, and so does a plane that is started anew, with another credential say.",
    ModelOverloaded "model_overloaded" Wait MEND
        "Model overloaded"
        "The model's service is overloaded and answers nobody."
        "Look at the service's status page, and retry once it answers again."
        "When it lasts, look at the service's status page.",
    ModelUnavailable "model_unavailable" Wait MEND
        "Model does not answer"
        "The model's service failed or could not be reached."
        "See whether this machine reaches the service (`mainloop doctor`), and retry once it does."
        "When it lasts, see whether this machine reaches the service (`mainloop doctor`).",
    ModelContext "model_context" Ask STEER
        "Conversation too long"
        "The prompt is longer than the model takes, also after it was summarised."
        "Start afresh, with a smaller task or a hint where to look.",
    ModelRefused "model_refused" Ask STEER
        "Model refused"
        "The model declined to go on with what it was asked or had read."
        "Say the task in other words, or start afresh.",
    ModelTurns "model_turns" Ask STEER
        "Too many model turns"
        "The model used up the number of turns that a step may take."
        "Say what to concentrate on, and it goes on.",
    NoPlan "no_plan" Again STEER
        "No plan came"
        "The model ended without handing a plan in, also when asked again."
        "Say more precisely what the plan is to cover.",
    ClaudeExited "claude_exited" Again MEND
        "Claude Code ended unexpectedly"
        "The Claude Code CLI exited or lost its session in the middle of a turn."
        "Look at the task's log; when it happens again, see whether memory is short (`mainloop doctor`).",
    Stalled "stalled" Ask STEER
        "Worker stalled"
        "Nothing came from Claude or its tools for too long, or it made the same call for ever, also after an interrupt and a hint."
        "Look at the last lines below, and say how to go on without what hangs.",
    Budget "budget" Ask MONEY
        "Budget used up"
        "The task has cost what it may cost. What was done is committed and pushed."
        "Top it up, or take over what is there.",

    // The code host
    #[CodeHost] GithubCredential "github_credential" Ask MEND
        "GitHub token refused"
        "GitHub does not accept the token: it is wrong, expired or revoked."
        "Start the plane with a valid token (`mainloop doctor` tries it), then retry. Other tasks wait for it as well.",
    GithubPermission "github_permission" Ask MEND
        "GitHub permission missing"
        "The token may not do what the step needs on this repository."
        "Give the token the right that the message names (classic: `repo`, `workflow`; App: contents, issues, pull requests, checks), then retry.",
    GithubWorkflow "github_workflow" Ask MEND
        "Push of workflow files refused"
        "The change touches .github/workflows, and the token may not push such files."
        "Give the token the scope `workflow`, or take the branch over and push it yourself.",
    WorkflowChange "workflow_change" Ask LEAVE
        "Change of CI definitions"
        "The worker wants to push a change of what GitHub Actions runs, which may use the repository's secrets. Nothing of it is on GitHub yet."
        "Read the change: approve to let exactly this pass, or say what to do instead; another change asks again.",
    WorkflowRefused "workflow_refused" Ask STEER
        "Change of CI definitions refused"
        "Policy lets no worker change what GitHub Actions runs, and the worker did not undo such a change when told."
        "Say how to do without it, or take the branch over. `workflow_files` in the policy decides.",
    CloneTimeout "clone_timeout" Ask MEND
        "Clone took too long"
        "Fetching the repository, with the whole history of its base branch, took longer than half an hour."
        "See whether the network or GitHub is slow, then retry; a repository that is always so slow does not fit workers.",
    RepositoryTooLarge "repository_too_large" Ask UNCLONED
        "Repository too large"
        "The repository is larger than policy lets workers clone."
        "Make it smaller and retry; or raise `max_repository_mib` in the policy, start the plane anew and create the task again.",
    RepositoryAbsent "repository_absent" Ask MEND
        "Repository not found"
        "GitHub knows no such repository, or the token does not see it."
        "Check the URL and the token's access, then retry.",
    RepositoryArchived "repository_archived" Ask MEND
        "Repository archived"
        "The repository is archived: nothing can be pushed and no issue or pull request opened."
        "Unarchive it and retry, or give up.",
    RepositoryEmpty "repository_empty" Ask MEND
        "Repository empty"
        "The repository has no commit, so there is nothing to branch from."
        "Push a first commit, then retry.",
    BaseGone "base_gone" Ask MEND
        "Base branch not found"
        "The branch that the work starts from does not exist, or no longer does."
        "Create the branch again, then retry; or create the task with another `--base`.",
    PullGone "pull_gone" Ask MEND
        "Issue or pull request not found"
        "An issue or pull request of the task was deleted, moved or locked."
        "Restore it and retry, or start afresh.",
    BranchProtected "branch_protected" Ask MEND
        "Push refused by a branch rule"
        "A protection rule or ruleset of the repository covers mainloop's branch."
        "Exempt branches `mainloop/**` from the rule, then retry; or take the branch over.",
    SignedCommits "signed_commits" Ask MEND
        "Signed commits required"
        "The repository takes signed commits alone on this branch."
        "Exempt branches `mainloop/**` from the rule, then retry; or take the branch over and sign.",
    PushRejected "push_rejected" Ask STEER
        "Push rejected"
        "A hook of the code host rejected the push."
        "The message says why: tell the worker what to change, or mend the rule and retry.",
    PushUnchecked "push_unchecked" Ask STEER
        "Push cannot be checked"
        "The push is too large, or not as git writes it, so mainloop cannot tell what it changes. Nothing of it is on GitHub."
        "The message says what it is: say what to leave out or to do otherwise, or take the branch over.",
    #[CodeHost] GithubLimit "github_limit" Wait MEND
        "GitHub rate limit"
        "GitHub limits the token's requests."
        "Retry once the limit is over. Other tasks wait for it as well."
        "`mainloop task retry` tries at once, and so does a plane that is started anew, with another token say.",
    GithubUnavailable "github_unavailable" Wait MEND
        "GitHub does not answer"
        "GitHub failed or could not be reached."
        "Look at GitHub's status page, and retry once it answers again."
        "When it lasts, look at GitHub's status page.",
    Github "github" Ask MEND
        "GitHub refused the request"
        "GitHub did not do what the step asked for."
        "The message says why; mend it and retry.",
    Git "git" Again MEND
        "Git failed"
        "Cloning, committing or pushing failed."
        "The message says why; mend it and retry.",

    // The machine
    Sandbox "sandbox" Again MEND
        "Sandbox did not start"
        "The worker's sandbox could not be started."
        "Run `mainloop doctor`: it tries the sandbox and says how to mend it.",
    Setup "setup" Ask STEER
        "Setup command failed"
        "A setup command of the repository's .mainloop.toml failed or took too long."
        "The last lines are below: mend the command, allow a host or mount a toolchain (`mainloop doctor`), then retry.",
    Disk "disk" Again MEND
        "Disk full"
        "There is no room left where workers live."
        "Free disk space, then retry.",
    DiskLimit "disk_limit" Ask STEER
        "Worker's folder too large"
        "The worker's folder holds more than policy lets it, and the worker was ended."
        "Say what not to write, or raise `worker.disk_mib` in the policy, restart the plane and retry.",
    OutOfMemory "out_of_memory" Ask STEER
        "Out of memory"
        "Claude Code was killed for want of memory: the worker's limit was reached, or the machine had no more."
        "Say how to need less (fewer jobs at once), or raise `worker.memory_mib` in the policy, restart the plane and retry.",
    WorkerLost "worker_lost" Again MEND
        "Worker lost"
        "The worker's process ended or was not heard of for too long."
        "Look at the task's log and the plane's; retry begins at the pushed branch.",
    StartDeadline "start_deadline" Again MEND
        "Worker did not start in time"
        "The worker's agent did not reach the plane in time."
        "See whether the machine is overloaded (`mainloop status`), then retry.",
    StepDeadline "step_deadline" Again STEER
        "Step took too long"
        "The step passed its deadline as often as it may."
        "Say what to concentrate on, or retry; `limits` in the policy holds the deadlines.",
    TaskDeadline "task_deadline" Ask STEER
        "Task took too long"
        "Workers were busy with the task for as long as `task_seconds` allows, without the time that people took."
        "Retry to allow as much time once more, or take it over.",
    Internal "internal" Ask MEND
        "mainloop cannot go on"
        "Something that must not happen did: plane and worker disagree."
        "Retry; when it happens again, report it with the task's events.",

    // People
    GivenUp "given_up" Ask STEER
        "Given up"
        "A person gave up on it."
        "`mainloop task retry` takes it up again.",
}

impl Reason {
    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        REASONS
            .iter()
            .find(|row| row.reason == self)
            .expect("the table has a row for each reason, as a test shows")
    }

    /// Whether the plane alone finds it, and no worker can say so.
    pub fn is_the_planes(self) -> bool {
        matches!(
            self,
            Self::CiLimit
                | Self::SameFailure
                | Self::NoFix
                | Self::CiDeadline
                | Self::CiNotStarted
                | Self::CiApproval
                | Self::CiDraft
                | Self::NoCi
                | Self::NoChange
                | Self::ReviewLimit
                | Self::RebaseLimit
                | Self::RedAgain
                | Self::WorkerLost
                | Self::StartDeadline
                | Self::StepDeadline
                | Self::TaskDeadline
                | Self::WorkflowChange
                | Self::GivenUp
        )
    }

    /// The reason that a word stands for.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.word() == word)
    }
}

/// The table as a part of the troubleshooting page: by what people see, with what it means and what to do.
pub fn troubleshooting() -> String {
    use std::fmt::Write;

    let mut text = String::new();
    for row in REASONS.iter().filter(|row| row.reason != Reason::GivenUp) {
        let follows = match (row.response, row.holds) {
            (Response::Ask, None) => "A person is asked at once.",
            (Response::Ask, Some(_)) => {
                "A person is asked at once, and no other task that needs the credential is started."
            }
            (Response::Again, _) => {
                "It is tried again, up to `max_attempts` times; then a person is asked."
            }
            (Response::Wait, None) => {
                "The task waits and tries again by itself, up to `max_waits` times in a row; then a person is asked, and \
                 at once where `resume_after_limit` is off."
            }
            (Response::Wait, Some(_)) => {
                "The task waits until the limit is over, and with it every other that needs the credential, up to \
                 `max_waits` times in a row; then a person is asked, and at once where `resume_after_limit` is off."
            }
        };
        let remedy = match row.meanwhile {
            Some(meanwhile) => format!("{meanwhile} When you are asked: {}", lower(row.remedy)),
            None => row.remedy.to_owned(),
        };
        let choices: Vec<String> = row
            .choices
            .iter()
            .map(|choice| choice.word().replace('_', " ").replace("reject", "give up"))
            .collect();
        writeln!(
            text,
            "**{}** (`{}`). {} {follows} {remedy}\nChoices: {}.\n",
            row.title,
            row.reason.word(),
            row.meaning,
            choices.join(", ")
        )
        .expect("a String takes any text");
    }
    text
}

/// A sentence as the rest of one.
fn lower(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}
