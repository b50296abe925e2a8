//! A task on a page, as `task get` prints it.

use jiff::Timestamp;
use mainloop_proto::v1::{CheckState, Step, Task};

use crate::{
    commands::show,
    format,
    output::{
        Output,
        style::{self, Style},
    },
    words,
};

/// The task, a fact a line, then its texts.
pub(super) fn lines(task: &Task, output: &Output) -> Vec<String> {
    let now = Timestamp::now();
    let mut lines = vec![format!(
        "{} {}",
        output.paint(Style::Bold, &task.short_id),
        output.paint(Style::Bold, &task.title)
    )];
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!(
                "  {}{value}",
                output.paint(Style::Dim, &format!("{name:<11}"))
            ));
        }
    };
    let state = output.paint(style::of_group(task.group()), &words::state(task));
    let step = match task.step() {
        Step::Unspecified => String::new(),
        step => format!(
            ", step {} for {}",
            words::step(step),
            format::since(task.step_time.as_ref(), now)
        ),
    };
    fact("state", format!("{state}{step}"));
    if let Some(failure) = &task.failure {
        let class = words::failure(failure.reason());
        fact(
            "failed",
            output.paint(Style::Red, &format!("{class}: {}", failure.message)),
        );
    }
    if let Some(wait) = &task.wait {
        fact("waits", wait.reason.clone());
    }
    fact("milestone", task.milestone.clone());
    fact("on", show::place(task));
    fact("model", task.model.clone());
    fact(
        "cost",
        format!(
            "{} of {}",
            format::money(task.cost_micros),
            format::money(task.budget_micros)
        ),
    );
    if task.attempt > 0 {
        let failed = if task.failures > 0 {
            format!(", {} failed", task.failures)
        } else {
            String::new()
        };
        fact("attempt", format!("{}{failed}", task.attempt));
    }
    fact("branch", task.branch.clone());
    fact(
        "issue",
        task.issue
            .as_ref()
            .map(|link| link.url.clone())
            .unwrap_or_default(),
    );
    fact(
        "pull",
        task.pull_request
            .as_ref()
            .map(|link| link.url.clone())
            .unwrap_or_default(),
    );
    fact("checks", checks(task, output));
    fact("diff", task.diffstat.clone());
    let mut labels: Vec<String> = task
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    fact("labels", labels.join(" "));
    fact(
        "by",
        format!(
            "{} at {}",
            task.created_by,
            format::time(task.create_time.as_ref(), now)
        ),
    );
    if task.unsandboxed {
        fact("sandbox", output.paint(Style::Red, "off"));
    }
    for item in &task.open_items {
        fact("needs you", format!("mainloop show {item}"));
    }
    for (heading, page) in [("Asked for", &task.description), ("Summary", &task.summary)] {
        if !page.is_empty() {
            lines.push(String::new());
            lines.push(output.paint(Style::Cyan, heading));
            lines.extend(page.lines().map(|line| format!("  {line}")));
        }
    }
    lines
}

/// `build ✓  lint ✗`.
fn checks(task: &Task, output: &Output) -> String {
    task.checks
        .iter()
        .map(|check| {
            let mark = output.paint(style::of_check(check.state()), mark(check.state()));
            format!("{mark} {}", check.name)
        })
        .collect::<Vec<_>>()
        .join("  ")
}

/// One column for a check's state.
pub(crate) fn mark(state: CheckState) -> &'static str {
    match state {
        CheckState::Passed => "✓",
        CheckState::Failed => "✗",
        CheckState::Pending => "●",
        CheckState::Skipped | CheckState::Unspecified => "-",
    }
}
