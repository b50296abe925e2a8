//! The lines of a watch that stay: milestones, what a person is asked, how it ended.

use jiff::Timestamp;
use mainloop_proto::v1::{InboxItem, InboxItemKind, Task, TaskEvent};

use crate::{
    commands::show,
    format,
    item::ItemRef,
    output::{
        Output,
        style::{self, Style},
    },
    text, words,
};

/// Before lines that belong to the one above them: the columns of its time.
const INDENT: &str = "          ";

/// An event in a line.
pub(super) fn milestone(event: &TaskEvent, output: &Output) -> String {
    let words = if event.text.is_empty() {
        &event.kind
    } else {
        &event.text
    };
    stamped(
        event.time.as_ref(),
        Style::Plain,
        &text::one_line(words),
        output,
    )
}

/// What a person is asked, in a line.
pub(super) fn question_line(item: &InboxItem, output: &Output) -> String {
    let id = ItemRef::of(item);
    let line = format!("needs you: {id}: {}  (mainloop show {id})", item.title);
    stamped(item.open_time.as_ref(), Style::Plain, &line, output)
}

/// What a person is asked, with its options and all that can be typed.
pub(super) fn question(item: &InboxItem, output: &Output) -> Vec<String> {
    let palette = output.palette();
    let id = ItemRef::of(item);
    let headline = format!("needs you: {id}: {}", item.title);
    let mut lines = vec![stamped(
        item.open_time.as_ref(),
        Style::Yellow,
        &headline,
        output,
    )];
    for question in &item.questions {
        // A single question may be the item's title, which stands above.
        if question.text != item.title {
            let asked = question
                .text
                .lines()
                .map(|line| palette.paint(Style::Bold, line));
            lines.extend(asked.map(|line| format!("{INDENT}{line}")));
        }
        let options = show::options(question, palette);
        lines.extend(options.into_iter().map(|line| format!("{INDENT}{line}")));
    }
    if item.kind() != InboxItemKind::Question {
        lines.push(format!("{INDENT}mainloop show {id}"));
    }
    let commands = words::commands_for(item);
    lines.extend(
        commands
            .into_iter()
            .map(|command| format!("{INDENT}{command}")),
    );
    lines
}

/// An item of which only the id is known.
pub(super) fn unread(item: &str, output: &Output) -> String {
    stamped(
        None,
        Style::Yellow,
        &format!("needs you: mainloop show {item}"),
        output,
    )
}

/// How the task ended, and where its pages are.
pub(super) fn ending(task: &Task, output: &Output) -> Vec<String> {
    let end = format::timestamp(task.settle_time.as_ref())
        .or_else(|| format::timestamp(task.update_time.as_ref()))
        .unwrap_or_else(Timestamp::now);
    let mut facts = vec![words::state(task)];
    if let Some(failure) = &task.failure {
        facts.push(failure.message.clone());
    }
    if !task.diffstat.is_empty() {
        facts.push(task.diffstat.clone());
    }
    facts.push(format!("cost {}", format::money(task.cost_micros)));
    if task.confirm_time.is_some() {
        facts.push(format!(
            "took {}",
            format::since(task.confirm_time.as_ref(), end)
        ));
    }
    let headline = format!("{}: {}", task.short_id, facts.join(", "));
    let mut lines = vec![output.paint(style::of_group(task.group()), &headline)];
    for (name, link) in [("issue", &task.issue), ("pull", &task.pull_request)] {
        if let Some(link) = link {
            lines.push(format!("  {name:<6} {}", link.url));
        }
    }
    lines
}

fn stamped(
    time: Option<&prost_types::Timestamp>,
    style: Style,
    text: &str,
    output: &Output,
) -> String {
    let time = format::time(time, Timestamp::now());
    format!(
        "{}  {}",
        output.paint(Style::Dim, &time),
        output.paint(style, text)
    )
}
