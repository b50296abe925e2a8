//! The lines of a live view: where the task is, what it costs, the last of Claude's work, checks, links.

use std::collections::VecDeque;

use jiff::Timestamp;
use mainloop_proto::v1::{Step, StreamTaskLogsResponse, Task};

use super::mark;
use crate::{
    format,
    output::style::{self, Palette, Style},
    text, words,
};

/// Lines of the worker's log that are shown.
const SHOWN_LINES: usize = 8;
/// Characters of a log line that are kept: no terminal shows more.
const KEPT_COLUMNS: usize = 400;

/// What the live view knows. Everything in it is cleaned.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) task: Task,
    /// Shown instead of the log while the plane is away.
    pub(super) trouble: Option<String>,
    log: VecDeque<String>,
}

impl Live {
    /// Takes in a chunk of the log.
    pub(super) fn log(&mut self, chunk: &StreamTaskLogsResponse) {
        let source = words::source(chunk.source());
        for line in chunk.text.lines().filter(|line| !line.trim().is_empty()) {
            if self.log.len() == SHOWN_LINES {
                self.log.pop_front();
            }
            let line = text::truncate(line.trim_end(), KEPT_COLUMNS);
            self.log.push_back(format!("{source:<6} {line}"));
        }
    }

    /// The view, no line wider than `columns` and no more lines than `rows` allow.
    pub(super) fn frame(
        &self,
        palette: Palette,
        columns: usize,
        rows: usize,
        now: Timestamp,
    ) -> Vec<String> {
        let fit = |style, text: &str| palette.paint(style, &text::truncate(text, columns));
        let task = &self.task;
        let mut lines = vec![
            fit(Style::Dim, &"─".repeat(columns.min(100))),
            fit(Style::Bold, &format!("{}  {}", task.short_id, task.title)),
            fit(style::of_group(task.group()), &self.state(now)),
        ];
        let mut tail = Vec::new();
        if !task.checks.is_empty() {
            let checks = task
                .checks
                .iter()
                .map(|check| format!("{} {}", mark(check.state()), check.name))
                .collect::<Vec<_>>()
                .join("  ");
            tail.push(fit(Style::Plain, &format!("checks  {checks}")));
        }
        for (name, link) in [("issue", &task.issue), ("pull", &task.pull_request)] {
            if let Some(link) = link {
                tail.push(fit(Style::Dim, &format!("{name:<7} {}", link.url)));
            }
        }
        let room = rows.saturating_sub(lines.len() + tail.len() + 1);
        if let Some(trouble) = &self.trouble {
            lines.push(fit(Style::Red, trouble));
        } else {
            let skipped = self.log.len().saturating_sub(room);
            for line in self.log.iter().skip(skipped) {
                lines.push(fit(Style::Dim, &format!("  {line}")));
            }
        }
        lines.extend(tail);
        lines
    }

    /// `implementing · step implement 2m 03s · $0.0123 of $5.00 · attempt 2`.
    fn state(&self, now: Timestamp) -> String {
        let task = &self.task;
        let mut parts = vec![words::state(task)];
        if task.step() != Step::Unspecified {
            parts.push(format!(
                "step {} {}",
                words::step(task.step()),
                format::since(task.step_time.as_ref(), now)
            ));
        }
        if let Some(wait) = task.wait.as_ref().filter(|wait| !wait.reason.is_empty()) {
            parts.push(wait.reason.clone());
        }
        if task.confirm_time.is_some() {
            let end = format::timestamp(task.settle_time.as_ref()).unwrap_or(now);
            parts.push(format!(
                "{} in all",
                format::since(task.confirm_time.as_ref(), end)
            ));
        }
        parts.push(format!(
            "{} of {}",
            format::money(task.cost_micros),
            format::money(task.budget_micros)
        ));
        if task.attempt > 1 {
            parts.push(format!("attempt {}", task.attempt));
        }
        if task.ci_attempts > 0 {
            parts.push(format!("CI fix {}", task.ci_attempts));
        }
        if task.unsandboxed {
            parts.push("NO SANDBOX".to_owned());
        }
        parts.join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use mainloop_proto::v1::{Check, CheckState, InboxGroup, Link, LogSource, TaskState};

    use super::*;

    #[allow(clippy::unnecessary_wraps)]
    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn live() -> Live {
        let mut live = Live {
            task: Task {
                short_id: "k3f9".to_owned(),
                title: "Retry on 503".to_owned(),
                state: TaskState::FixingCi.into(),
                group: InboxGroup::Active.into(),
                step: Step::FixCi.into(),
                step_time: at(1_000),
                confirm_time: at(400),
                cost_micros: 420_000,
                budget_micros: 5_000_000,
                attempt: 2,
                ci_attempts: 1,
                checks: vec![
                    Check {
                        name: "build".to_owned(),
                        state: CheckState::Passed.into(),
                        ..Check::default()
                    },
                    Check {
                        name: "test".to_owned(),
                        state: CheckState::Failed.into(),
                        ..Check::default()
                    },
                ],
                pull_request: Some(Link {
                    number: 2,
                    url: "https://host/acme/widgets/pull/2".to_owned(),
                }),
                ..Task::default()
            },
            ..Live::default()
        };
        for number in 1..=10 {
            live.log(&StreamTaskLogsResponse {
                source: LogSource::Claude.into(),
                text: format!("line {number}\n\n"),
                ..StreamTaskLogsResponse::default()
            });
        }
        live
    }

    fn frame(live: &Live, columns: usize, rows: usize) -> Vec<String> {
        let now = Timestamp::new(1_063, 0).expect("in range");
        live.frame(Palette::plain(), columns, rows, now)
    }

    #[test]
    fn view_shows_state_work_checks_and_links() {
        insta::assert_snapshot!(frame(&live(), 90, 40).join("\n"), @r"
        ──────────────────────────────────────────────────────────────────────────────────────────
        k3f9  Retry on 503
        fixing ci · step fix CI 1m 03s · 11m 03s in all · $0.4200 of $5.00 · attempt 2 · CI fix 1
          claude line 3
          claude line 4
          claude line 5
          claude line 6
          claude line 7
          claude line 8
          claude line 9
          claude line 10
        checks  ✓ build  ✗ test
        pull    https://host/acme/widgets/pull/2
        ");
    }

    #[test]
    fn view_fits_a_small_terminal() {
        let lines = frame(&live(), 20, 8);
        assert!(lines.len() < 8, "{lines:?}");
        assert!(
            lines.iter().all(|line| text::width(line) <= 20),
            "{lines:?}"
        );
        assert!(lines.contains(&"  claude line 10".to_owned()), "{lines:?}");
    }

    #[test]
    fn trouble_takes_the_place_of_the_log() {
        let mut live = live();
        live.trouble = Some("the plane does not answer".to_owned());
        let lines = frame(&live, 60, 40);
        assert!(lines.contains(&"the plane does not answer".to_owned()));
        assert!(!lines.iter().any(|line| line.contains("claude")));
    }
}
