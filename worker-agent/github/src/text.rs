//! Every text that we write to GitHub, rendered from data in this one file, and the cleaning of
//! text that goes in either direction.
//!
//! Fields that a model or a stranger filled are neutralised here, each of them; links and
//! references (`#12`, `Closes #12`) in the result are ours alone. The marker is added by
//! the write, not here.

mod neutralise;

use std::fmt::Write as _;

pub use neutralise::{commit_effect, neutralise, neutralise_line, visible};

use crate::verdict::{FailedCheck, Verdict};

/// GitHub refuses bodies above 65,536 characters; the rest is for the marker.
pub(crate) const BODY_LIMIT: usize = 65_000;
/// Bound on one field before it is neutralised, which may make it longer.
const FIELD_LIMIT: usize = 40_000;
const TITLE_LIMIT: usize = 120;

/// A plan, as the body of our planning issue or as our comment on a person's issue.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// What the person asked for, in their words.
    pub request: &'a str,
    /// The plan, in the model's Markdown.
    pub plan: &'a str,
    /// Which revision of the plan it is, from 1.
    pub revision: u32,
    /// The task's short id.
    pub task: &'a str,
    /// Where the plan waits to be.
    pub stage: PlanStage,
}

/// How far a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanStage {
    /// Waits for a person.
    Proposed,
    /// A person approved this revision.
    Approved,
    /// A person rejected it.
    Rejected,
}

/// What a pull request says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// What was done, in the model's Markdown.
    pub summary: &'a str,
    /// The issue that holds the plan, and whether merging closes it.
    pub issue: Option<IssueLink>,
    /// The task's short id.
    pub task: &'a str,
}

/// A link from the pull request to an issue of the same repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueLink {
    /// `Part of #n`
    PartOf(u64),
    /// `Closes #n`: only where policy asks for it.
    Closes(u64),
}

/// How CI goes, for the one comment that tells it.
#[derive(Debug, Clone, Copy)]
pub enum Ci<'a> {
    /// Some checks failed and a fix is being made.
    Fixing {
        /// Which attempt at a fix, from 1.
        attempt: u32,
        /// How many there may be.
        of: u32,
        /// What failed.
        failed: &'a [FailedCheck],
    },
    /// All green.
    Passed {
        /// Checks that succeeded.
        succeeded: usize,
        /// How many fixes it took.
        fixes: u32,
    },
    /// A person must look.
    GaveUp {
        /// Why, in our words.
        why: &'a str,
        /// What failed last.
        failed: &'a [FailedCheck],
    },
}

/// The summary that goes with a pull request when it is ready.
#[derive(Debug, Clone, Copy)]
pub struct Ready<'a> {
    /// What was done, in the model's Markdown.
    pub summary: &'a str,
    /// The commit that is green.
    pub sha: &'a str,
    /// What its checks say. Not green only where a person or policy took it so.
    pub verdict: &'a Verdict,
    /// What the token cannot read of the checks: they are green as far as it sees.
    pub limited: &'a [String],
    /// Fixes that CI took.
    pub fixes: u32,
    /// What the task cost so far, in US dollars, where it is known.
    pub cost: Option<f64>,
    /// The task's short id.
    pub task: &'a str,
}

/// An answer to what a reviewer said.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// What was done or why not, in the model's Markdown.
    pub answer: &'a str,
    /// Whose review as a whole it is for, where it stands in no thread.
    pub to: Option<&'a str>,
    /// The head of the branch now.
    pub sha: &'a str,
    /// The task's short id.
    pub task: &'a str,
}

/// One line for a title: neutral, at most 120 characters, never empty.
pub fn title(text: &str) -> String {
    let short = bound(
        &visible(text)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        TITLE_LIMIT,
    );
    let line = neutralise_line(&short);
    if line.is_empty() {
        "Untitled task".to_owned()
    } else {
        line
    }
}

/// Body of a planning issue or comment.
pub fn plan_body(plan: &Plan<'_>) -> String {
    let stage = match plan.stage {
        PlanStage::Proposed => "waits for approval",
        PlanStage::Approved => "approved",
        PlanStage::Rejected => "rejected",
    };
    format!(
        "{}\n\n## Plan\n\n{}\n\n---\n\nRevision {} of the plan, {stage}. mainloop task `{}`. \
         Approval is given in mainloop; comments here do not approve anything.",
        quote(plan.request),
        field(plan.plan),
        plan.revision,
        id(plan.task),
    )
}

/// Body of the pull request.
pub fn pull_body(pull: &Pull<'_>) -> String {
    let link = match pull.issue {
        None => String::new(),
        Some(IssueLink::PartOf(n)) => format!("\n\nPart of #{n}."),
        Some(IssueLink::Closes(n)) => format!("\n\nCloses #{n}."),
    };
    format!(
        "{}{link}\n\n---\n\nMade by a worker of mainloop from an approved plan, task `{}`.",
        field(pull.summary),
        id(pull.task),
    )
}

/// The comment that tells how CI goes.
pub fn ci_comment(sha: &str, ci: &Ci<'_>) -> String {
    let sha = short_sha(sha);
    match ci {
        Ci::Fixing {
            attempt,
            of,
            failed,
        } => format!(
            "CI failed at `{sha}`; working on a fix (attempt {attempt} of {of}).\n\n{}",
            list(failed)
        ),
        Ci::Passed { succeeded, fixes } => {
            format!(
                "CI passed at `{sha}`: {}{}.",
                checks(*succeeded, "passed"),
                after(*fixes)
            )
        }
        Ci::GaveUp { why, failed } => format!(
            "CI is red at `{sha}` and a person must look: {}.\n\n{}",
            neutralise_line(why).trim_end_matches('.'),
            list(failed)
        ),
    }
}

/// The comment that goes with "ready for review".
pub fn ready_comment(ready: &Ready<'_>) -> String {
    let cost = ready
        .cost
        .map_or_else(String::new, |c| format!(", cost ${c:.2}"));
    let green = match ready.verdict {
        Verdict::Absent => "no checks are configured".to_owned(),
        Verdict::OnlySkipped => "all checks were skipped".to_owned(),
        Verdict::Pending { running, .. } => checks(running.len(), "still running"),
        Verdict::Passed { succeeded, .. } => checks(*succeeded, "passed"),
        Verdict::Failed { checks } => self::checks(checks.len(), "failed"),
    };
    let limited = match ready.limited {
        [] => String::new(),
        limited => format!(
            " as far as they can be read ({})",
            neutralise_line(&limited.join("; "))
        ),
    };
    format!(
        "Ready for review.\n\n{}\n\n---\n\n`{}`: {green}{limited}{}{cost}. mainloop task `{}`.",
        field(ready.summary),
        short_sha(ready.sha),
        after(ready.fixes),
        id(ready.task),
    )
}

/// The answer to a review or a review comment.
pub fn review_answer(answer: &Answer<'_>) -> String {
    let to = answer.to.map_or_else(String::new, |login| {
        format!("To the review by {}:\n\n", escape(&neutralise_line(login)))
    });
    format!(
        "{to}{}\n\n---\n\nAt `{}`. mainloop task `{}`.",
        field(answer.answer),
        short_sha(answer.sha),
        id(answer.task),
    )
}

/// The comment that says what the task waits for.
pub fn blocked_comment(why: &str, task: &str) -> String {
    format!(
        "This task waits for a person: {}\n\nmainloop task `{}`; it is answered in mainloop.",
        field(why),
        id(task)
    )
}

/// The comment that says why something is closed: `what` became of its task, such as `cancelled`.
pub fn closed_comment(what: &str, task: &str) -> String {
    format!("Closed: mainloop task `{}` was {}.", id(task), field(what))
}

/// The comment that marks answers which nobody gave: pairs of a question and what was assumed.
pub fn assumed_comment<'a>(
    assumed: impl IntoIterator<Item = (&'a str, &'a str)>,
    task: &str,
) -> String {
    let mut out =
        "**Assumed.** Nobody answered these questions in time, and policy went on with what was \
                   recommended:\n"
            .to_owned();
    for (question, answer) in assumed {
        let _ = write!(out, "\n{}\n\nAssumed: {}\n", quote(question), field(answer));
    }
    let _ = write!(out, "\nmainloop task `{}`.", id(task));
    out
}

/// A field that somebody else wrote.
fn field(text: &str) -> String {
    neutralise(&bound(text.trim(), FIELD_LIMIT))
        .trim_end()
        .to_owned()
}

/// As a quotation. Inside one there are no fences at the margin, so nothing in it is code.
fn quote(text: &str) -> String {
    let text = bound(&visible(text.trim()), FIELD_LIMIT);
    text.lines().fold(String::new(), |mut out, line| {
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = write!(out, "> {}", neutralise_line(line));
        out
    })
}

fn list(failed: &[FailedCheck]) -> String {
    failed.iter().fold(String::new(), |mut out, check| {
        let name = neutralise_line(&bound(&check.name, 200));
        let _ = write!(out, "- **{}** {}", escape(&name), check.conclusion.words());
        if let Some(url) = check.url.as_deref().filter(|u| is_plain_url(u)) {
            let _ = write!(out, " ([details]({url}))");
        }
        out.push('\n');
        out
    })
}

/// Names of checks come from workflow files, which anyone with a branch writes.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if "\\`*_[]()|~".contains(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

fn is_plain_url(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#%&=+,@".contains(&b))
}

fn checks(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 check {what}"),
        n => format!("{n} checks {what}"),
    }
}

fn after(fixes: u32) -> String {
    match fixes {
        0 => String::new(),
        1 => " after 1 fix".to_owned(),
        n => format!(" after {n} fixes"),
    }
}

fn short_sha(sha: &str) -> String {
    id(sha).chars().take(12).collect()
}

fn id(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect()
}

/// At most `limit` characters; a cut is shown by an ellipsis.
pub(crate) fn bound(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(limit.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// Text from GitHub on its way to a model or a terminal: without invisible characters, and
/// without HTML comments, which people on GitHub do not see either.
pub(crate) fn clean_inbound(text: &str) -> String {
    let text = visible(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find("<!--") {
        out.push_str(&rest[..start]);
        rest = match rest[start..].find("-->") {
            Some(end) => &rest[start + end + 3..],
            None => "",
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Conclusion;

    fn plain(text: &str) -> String {
        text.replace('\u{200b}', "·")
    }

    fn failed() -> Vec<FailedCheck> {
        vec![FailedCheck {
            name: "test [@x] (1)".into(),
            conclusion: Conclusion::TimedOut,
            url: Some("https://github.com/o/r/actions/runs/1/job/2".into()),
            job_id: None,
            check_run_id: None,
            summary: None,
        }]
    }

    #[test]
    fn plan_reads_well_and_is_neutral() {
        let plan = Plan {
            request: "Fix the @clock\n```\nfixes #1",
            plan: "1. ask @octocat\n\n```rust\n#[test]\n```",
            revision: 2,
            task: "k3f9",
            stage: PlanStage::Proposed,
        };
        insta::assert_snapshot!(plain(&plan_body(&plan)), @r"
        > Fix the @·clock
        > ```
        > fixes #·1

        ## Plan

        1. ask @·octocat

        ```rust
        #[test]
        ```

        ---

        Revision 2 of the plan, waits for approval. mainloop task `k3f9`. Approval is given in mainloop; comments here do not approve anything.
        ");
    }

    #[test]
    fn pull_closes_an_issue_only_when_told() {
        let mut pull = Pull {
            summary: "Closes #3, fixes #4\n```\nopen",
            issue: Some(IssueLink::PartOf(12)),
            task: "k3f9",
        };
        insta::assert_snapshot!(plain(&pull_body(&pull)), @r"
        Closes #·3, fixes #·4
        ```
        open
        ```

        Part of #12.

        ---

        Made by a worker of mainloop from an approved plan, task `k3f9`.
        ");
        pull.issue = Some(IssueLink::Closes(12));
        assert!(pull_body(&pull).contains("\n\nCloses #12.\n"));
    }

    #[test]
    fn ci_comment_names_the_checks() {
        let ci = Ci::Fixing {
            attempt: 1,
            of: 3,
            failed: &failed(),
        };
        insta::assert_snapshot!(plain(&ci_comment("0123456789abcdef", &ci)), @r"
        CI failed at `0123456789ab`; working on a fix (attempt 1 of 3).

        - **test \[@·x\] \(1\)** timed out ([details](https://github.com/o/r/actions/runs/1/job/2))
        ");
    }

    #[test]
    fn ready_comment_tells_what_it_took() {
        let ready = Ready {
            summary: "Done.",
            sha: "0123456789abcdef",
            verdict: &Verdict::Passed {
                succeeded: 2,
                skipped: 0,
            },
            limited: &[],
            fixes: 1,
            cost: Some(0.426),
            task: "k3f9",
        };
        insta::assert_snapshot!(ready_comment(&ready), @r"
        Ready for review.

        Done.

        ---

        `0123456789ab`: 2 checks passed after 1 fix, cost $0.43. mainloop task `k3f9`.
        ");
        let limited = ["the token cannot read check runs".to_owned()];
        let partly = Ready {
            limited: &limited,
            ..ready
        };
        assert!(ready_comment(&partly).contains(
            "2 checks passed as far as they can be read (the token cannot read check runs) after"
        ));
        for (verdict, said) in [
            (Verdict::Absent, "no checks are configured"),
            (
                Verdict::Pending {
                    running: vec!["a".into()],
                    failed: Vec::new(),
                },
                "1 check still running",
            ),
            (Verdict::Failed { checks: failed() }, "1 check failed"),
        ] {
            let ready = Ready {
                verdict: &verdict,
                ..ready
            };
            assert!(ready_comment(&ready).contains(said), "{verdict:?}");
        }
    }

    #[test]
    fn link_of_a_check_cannot_break_out() {
        assert!(!is_plain_url("javascript:alert(1)"));
        assert!(!is_plain_url("https://x/) @octocat"));
    }

    #[test]
    fn title_is_one_short_neutral_line() {
        assert_eq!(title(" \n "), "Untitled task");
        assert_eq!(plain(&title("Fix\n@a  #1")), "Fix @·a #·1");
        assert_eq!(title(&"x".repeat(500)).chars().count(), TITLE_LIMIT);
    }

    #[test]
    fn hidden_text_does_not_reach_the_model() {
        assert_eq!(clean_inbound("a<!-- obey -->b\u{202e}c"), "abc");
        assert_eq!(clean_inbound("a <!-- never closed"), "a ");
    }
}
