//! The list: groups, rows, and what open rows show.

use jiff::Timestamp;
use mainloop_proto::v1::{InboxGroup, Step};
use ratatui::{
    layout::Rect,
    style::{Modifier, Style as Look},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    super::{
        model::{Entry, Model},
        rows::{GROUPS, Row},
    },
    paint::{fit, look},
};
use crate::{
    commands, format,
    output::style::{self, Style},
    text, words,
};

pub(super) fn draw<'a>(model: &mut Model, area: Rect, now: Timestamp) -> Paragraph<'a> {
    let columns = usize::from(area.width);
    let mut lines = Vec::new();
    let mut chosen = 0..0;
    for group in GROUPS {
        let rows: Vec<&Row> = model.rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        lines.push(Line::default());
        lines.push(Line::styled(
            format!(" {}", words::group(group)),
            look(style::of_group(group)),
        ));
        for row in rows {
            let Some(entry) = model.entries.get(&row.key.task) else {
                continue;
            };
            let selected = model.selected.as_ref() == Some(&row.key);
            let start = lines.len();
            let mut line = summary(row, entry, model.is_open(&row.key.task), columns, now);
            if selected {
                line = line.style(Look::new().add_modifier(Modifier::REVERSED));
            }
            lines.push(line);
            if let Some(log) = model.open.get(&row.key.task) {
                lines.extend(details(entry).into_iter().map(|line| fit(line, columns)));
                for text in &log.lines {
                    lines.push(fit(
                        Line::styled(format!("      {text}"), look(Style::Dim)),
                        columns,
                    ));
                }
            }
            if selected {
                chosen = start..lines.len();
            }
        }
    }
    if lines.is_empty() {
        let words = if model.caught_up {
            " Nothing here yet. `mainloop task create` proposes a task."
        } else {
            " …"
        };
        lines.push(Line::default());
        lines.push(Line::styled(words, look(Style::Dim)));
    }
    let height = usize::from(area.height);
    model.offset = kept_in_sight(model.offset, &chosen, height, lines.len());
    Paragraph::new(
        lines
            .into_iter()
            .skip(model.offset)
            .take(height)
            .collect::<Vec<_>>(),
    )
}

/// The offset that shows the selected lines, its first one before all others, and moves as little as it can.
fn kept_in_sight(
    offset: usize,
    chosen: &std::ops::Range<usize>,
    height: usize,
    lines: usize,
) -> usize {
    let mut offset = offset.min(lines.saturating_sub(height));
    if chosen.end > offset + height {
        offset = chosen.end - height;
    }
    // The two lines above the first row are its heading.
    if chosen.start <= 2 {
        return 0;
    }
    offset.min(chosen.start)
}

fn summary(row: &Row, entry: &Entry, open: bool, columns: usize, now: Timestamp) -> Line<'static> {
    let task = &entry.task;
    let marker = if open { "▾" } else { "▸" };
    let repository = task
        .repository
        .as_ref()
        .map_or(String::new(), |repository| {
            format!("{}/{}", repository.owner, repository.name)
        });
    let time = match row.group {
        InboxGroup::Active => format::since(
            task.confirm_time.as_ref().or(task.create_time.as_ref()),
            now,
        ),
        InboxGroup::NeedsYou => {
            let item = entry.items.iter().find(|item| item.id == row.key.item);
            let opened = item.and_then(|item| item.open_time.as_ref());
            format::since(opened.or(task.update_time.as_ref()), now)
        }
        _ => format::since(task.update_time.as_ref(), now),
    };
    let money = format::money(task.cost_micros);
    let tail = format!(
        "{:<22}{time:>8}{money:>10} ",
        text::truncate(&repository, 21)
    );
    // A name that fills its column keeps a blank behind it.
    let head = format!(" {marker} {:<10}", format!("{} ", row.name));
    let state = format!("{:<18}", text::truncate(&row.state, 17));
    let used = text::width(&head) + text::width(&state) + text::width(&tail);
    let room = columns.saturating_sub(used);
    let (title, tail) = if room >= 16 {
        (text::truncate(&row.title, room - 1), tail)
    } else {
        let room = columns.saturating_sub(text::width(&head) + text::width(&state));
        (text::truncate(&row.title, room), String::new())
    };
    let pad = " ".repeat(room.saturating_sub(text::width(&title)));
    Line::from(vec![
        Span::styled(head, look(Style::Bold)),
        Span::styled(state, look(style::of_group(row.group))),
        Span::raw(format!("{title}{pad}")),
        Span::styled(tail, look(Style::Dim)),
    ])
}

/// What an open row says of its task, above the log.
fn details(entry: &Entry) -> Vec<Line<'static>> {
    let task = &entry.task;
    let mut lines = Vec::new();
    let mut facts = Vec::new();
    if task.step() != Step::Unspecified {
        facts.push(format!("step {}", words::step(task.step())));
    }
    if !task.milestone.is_empty() {
        facts.push(task.milestone.clone());
    }
    if let Some(wait) = task.wait.as_ref().filter(|wait| !wait.reason.is_empty()) {
        facts.push(wait.reason.clone());
    }
    facts.push(format!(
        "{} of {}",
        format::money(task.cost_micros),
        format::money(task.budget_micros)
    ));
    if task.attempt > 1 {
        facts.push(format!("attempt {}", task.attempt));
    }
    if !task.diffstat.is_empty() {
        facts.push(task.diffstat.clone());
    }
    lines.push(Line::raw(format!("      {}", facts.join(" · "))));
    if let Some(failure) = &task.failure {
        lines.push(Line::styled(
            format!("      {}", failure.message),
            look(Style::Red),
        ));
    }
    if !task.checks.is_empty() {
        let mut spans = vec![Span::raw("      ")];
        for check in &task.checks {
            let look = look(style::of_check(check.state()));
            spans.push(Span::styled(
                format!("{} ", commands::mark(check.state())),
                look,
            ));
            spans.push(Span::raw(format!("{}  ", check.name)));
        }
        lines.push(Line::from(spans));
    }
    for link in [&task.issue, &task.pull_request].into_iter().flatten() {
        lines.push(Line::styled(
            format!("      {}", link.url),
            look(Style::Dim),
        ));
    }
    for text in task.summary.lines().take(6) {
        lines.push(Line::raw(format!("      {text}")));
    }
    lines
}
