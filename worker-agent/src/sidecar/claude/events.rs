//! What the driver tells its caller. Owns the bounds on text that came from the CLI: nothing larger leaves this module.

use std::time::Duration;

/// Longest text of one event, in bytes. Enough for a long answer; a log line larger than this helps nobody.
pub const MAX_TEXT: usize = 16 * 1024;
/// Longest one-line summary of a tool call or its result, in bytes.
pub const MAX_SUMMARY: usize = 240;
/// Longest plan, in bytes. It becomes an issue's body, which GitHub bounds at 65,536 characters.
pub const MAX_PLAN: usize = 60_000;

/// Something that happened in the CLI. All but [`Question`](Event::Question), [`Blocker`](Event::Blocker), [`Plan`](Event::Plan),
/// [`NothingToChange`](Event::NothingToChange), [`ThreadAnswer`](Event::ThreadAnswer) and [`Withdrawn`](Event::Withdrawn) are for people to read and may be dropped under pressure.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A turn began; which model answers and whether the tools of this driver are connected.
    Started {
        model: String,
        tools_connected: bool,
    },
    /// A block of Claude's text.
    Text(String),
    /// Claude calls a tool; one line that says what it does, and what stands for all that is given to it.
    ToolUse {
        name: String,
        summary: String,
        hash: u64,
    },
    /// A tool answered.
    ToolResult { is_error: bool, summary: String },
    /// Claude reports progress in its own words.
    Progress(String),
    /// The CLI repeats a request to the model after `delay`.
    Retry {
        attempt: u32,
        delay: Duration,
        status: Option<u16>,
        error: String,
    },
    /// The conversation was summarised to fit the model's window.
    Compacted { tokens_before: Option<u64> },
    /// Another model answers from here on.
    ModelFallback { from: String, to: String },
    /// A permission request was refused by policy.
    Denied { tool: String, reason: String },
    /// Money and tokens after a turn. `total_usd` is the CLI's own estimate and counts the whole session.
    Cost { total_usd: f64, usage: Usage },
    /// A line of the CLI's stderr, or one on stdout that is not JSON.
    Stderr(String),
    /// A notice of the CLI.
    Notice(String),
    /// A line of a kind that this driver does not know.
    Unknown(String),
    /// So many of the events above were dropped here because nobody read them in time.
    Dropped(u64),
    /// Claude asks; answer with [`Handle::answer`](super::Handle::answer). There is no time limit.
    Question {
        id: String,
        questions: Vec<Question>,
        context: Option<String>,
    },
    /// Claude cannot go on; answer as a question.
    Blocker {
        id: String,
        kind: BlockerKind,
        what: String,
        detail: String,
    },
    /// The CLI no longer waits for the answer to this question or blocker.
    Withdrawn { id: String },
    /// The plan, complete. Store it, then call [`Handle::plan_stored`](super::Handle::plan_stored).
    Plan { text: String },
    /// Claude found that nothing needs to change. The turn ends by itself.
    NothingToChange { reason: String },
    /// Claude answers a thread of a review that it was shown.
    ThreadAnswer { thread: String, text: String },
}

/// One question to a human.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub question: String,
    /// A few words that name the subject; may be empty.
    pub header: String,
    /// May be empty: then free text is asked for. Free text is always allowed.
    pub options: Vec<QuestionOption>,
    /// More than one option may be chosen.
    pub multi_select: bool,
}

/// One choice of a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionOption {
    pub label: String,
    pub description: String,
}

/// What a human answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One reply per question, in their order; a label, several joined with `", "`, or free text. A missing one counts as unanswered.
    Replies(Vec<String>),
    /// Do not go on with this; the text says why or what to do instead.
    Stop(String),
}

/// Why Claude says that it is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockerKind {
    /// A credential, permission or account is missing.
    Access,
    /// A host, package or service cannot be reached.
    Network,
    /// A tool or a version of one is missing.
    Tooling,
    /// The task contradicts itself or the repository.
    Requirements,
    Other,
}

/// Tokens of one result of the CLI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cache_write: u64,
    pub cache_read: u64,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEnd {
    /// Claude finished; `text` is its last answer, `total_usd` the session's estimated cost so far.
    Completed {
        text: String,
        turns: u32,
        total_usd: f64,
    },
    /// The plan was stored; `text` is exactly what [`Event::Plan`] carried.
    Planned {
        text: String,
    },
    NothingToChange {
        reason: String,
    },
    /// [`Handle::interrupt`](super::Handle::interrupt) ended it.
    Interrupted,
    /// The model or the CLI failed; the process still lives. `status` is the HTTP status where there was one.
    Failed {
        class: FailureClass,
        status: Option<u16>,
        message: String,
    },
    /// The process is gone. `stderr` holds its last lines.
    ProcessExited {
        code: Option<i32>,
        signal: Option<i32>,
        stderr: String,
    },
}

/// Why a turn failed, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The credential is refused.
    Authentication,
    /// The account cannot pay.
    Billing,
    RateLimited,
    Overloaded,
    /// The model does not exist or is not open to this credential.
    ModelUnavailable,
    PromptTooLong,
    /// The task's budget is used up: the sidecar's own proxy said so.
    Budget,
    /// The model's service failed.
    Server,
    /// The model's service could not be reached.
    Network,
    MaxTurns,
    /// The model declined to answer.
    Refused,
    /// The session to resume does not exist.
    SessionLost,
    Other,
}

/// At most `max` bytes of `text`, cut at a character and marked where cut.
pub(crate) fn clip(text: &str, max: usize) -> String {
    const MARK: &str = " […]";
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

/// `text` as one line of at most [`MAX_SUMMARY`] bytes.
pub(crate) fn one_line(text: &str) -> String {
    // Looks at a bounded head only, so that a huge result costs nothing.
    let head = clip(text, 4 * MAX_SUMMARY);
    clip(
        &head.split_whitespace().collect::<Vec<_>>().join(" "),
        MAX_SUMMARY,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character_and_marked() {
        assert_eq!(clip("short", 10), "short");
        assert_eq!(clip("ääääääääää", 12), "äää […]");
        assert_eq!(one_line("a\n  b\tc"), "a b c");
    }

    proptest! {
        #[test]
        fn clipped_text_is_within_its_bound(text in ".*", max in 8usize..64) {
            prop_assert!(clip(&text, max).len() <= max);
        }
    }
}
