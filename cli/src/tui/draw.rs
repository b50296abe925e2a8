//! The screen, as a function of the model.

use jiff::Timestamp;
use mainloop_proto::v1::{InboxAction, InboxGroup, Step};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Margin, Rect},
    style::{Color, Modifier, Style as Look},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{
    model::{Entry, Model, Purpose, Tone},
    page::Page,
    rows::{GROUPS, Row},
};
use crate::{
    commands, format,
    output::style::{self, Palette, Style},
    text, words,
};

/// Columns that a page's text takes at most.
const PROSE: usize = 100;

const HELP: &str = "\
 List
   ↑ ↓  j k        move              Enter   open the item, or the row
   PgUp PgDn g G   move far          Space   open or close the row
   q  Esc          quit

 Item
   a   approve     r   reject        ↑ ↓ PgUp PgDn   scroll
   v   revise      Enter or 1-9   answer
   q  Esc          back to the list

 A line
   Enter  send     Esc  drop it      Ctrl-U  clear
";

pub(super) fn draw(frame: &mut Frame, model: &mut Model, now: Timestamp) {
    let [top, body, bottom, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(model), top);
    if let Some(page) = &mut model.page {
        let inner = body.inner(Margin::new(1, 0));
        frame.render_widget(item(page, inner, now), inner);
    } else {
        frame.render_widget(list(model, body, now), body);
    }
    let (line, cursor) = message(model);
    if let Some(column) = cursor {
        let column = u16::try_from(column)
            .unwrap_or(u16::MAX)
            .min(bottom.width.saturating_sub(1));
        frame.set_cursor_position((bottom.x + column, bottom.y));
    }
    frame.render_widget(tail(line, bottom.width, cursor.is_some()), bottom);
    frame.render_widget(Line::styled(hints(model), look(Style::Dim)), keys);
    if model.help {
        help(frame);
    }
}

fn header(model: &Model) -> Line<'static> {
    let mut spans = vec![Span::styled(" mainloop ", look(Style::Bold))];
    for group in GROUPS {
        let count = model.rows.iter().filter(|row| row.group == group).count();
        let look = if count == 0 {
            look(Style::Dim)
        } else {
            look(style::of_group(group))
        };
        spans.push(Span::styled(
            format!("  {count} {}", words::group(group)),
            look,
        ));
    }
    if !model.connected {
        spans.push(Span::styled(
            format!("   {} does not answer; trying again", model.address),
            look(Style::Red),
        ));
    }
    Line::from(spans)
}

fn list<'a>(model: &mut Model, area: Rect, now: Timestamp) -> Paragraph<'a> {
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
    let head = format!(" {marker} {:<10}", row.name);
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

fn item<'a>(page: &mut Page, area: Rect, now: Timestamp) -> Paragraph<'a> {
    let columns = usize::from(area.width).clamp(20, PROSE);
    let lines = commands::Page {
        item: &page.item,
        palette: Palette::new(true),
        columns,
        rendered: true,
        commands: false,
        now,
    }
    .lines();
    let lines: Vec<Line> = lines
        .iter()
        .flat_map(|line| folded(line, columns))
        .collect();
    let height = usize::from(area.height);
    page.scroll = page.scroll.min(lines.len().saturating_sub(height));
    Paragraph::new(
        lines
            .into_iter()
            .skip(page.scroll)
            .take(height)
            .collect::<Vec<_>>(),
    )
}

/// The line above the keys: what is typed, or the last notice.
fn message(model: &Model) -> (Line<'static>, Option<usize>) {
    if let (Some(input), Some(page)) = (&model.input, &model.page) {
        let prompt = match &input.purpose {
            Purpose::Confirm => format!(" approve {}@{}? [y/N] ", page.item.id, page.item.revision),
            Purpose::Words(InboxAction::Reject) => " reject, because: ".to_owned(),
            Purpose::Words(_) => " what should change: ".to_owned(),
            Purpose::Answer(answers) if page.item.questions.len() > 1 => {
                format!(
                    " answer {} of {}: ",
                    answers.len() + 1,
                    page.item.questions.len()
                )
            }
            Purpose::Answer(_) => " answer: ".to_owned(),
        };
        let mut spans = Vec::new();
        if let Some((_, words)) = &model.notice {
            spans.push(Span::styled(format!(" {words} ·"), look(Style::Red)));
        }
        spans.push(Span::styled(prompt, look(Style::Bold)));
        spans.push(Span::raw(input.text.clone()));
        let line = Line::from(spans);
        let width = line.width();
        return (line, Some(width));
    }
    let line = match &model.notice {
        Some((Tone::Good, words)) => Line::styled(format!(" {words}"), look(Style::Green)),
        Some((Tone::Bad, words)) => Line::styled(format!(" {words}"), look(Style::Red)),
        None => Line::default(),
    };
    (line, None)
}

/// Of a line that is being typed, its end is shown.
fn tail(line: Line<'static>, width: u16, typing: bool) -> Paragraph<'static> {
    let over = line
        .width()
        .saturating_sub(usize::from(width).saturating_sub(1));
    let over = if typing {
        u16::try_from(over).unwrap_or(u16::MAX)
    } else {
        0
    };
    Paragraph::new(line).scroll((0, over))
}

fn hints(model: &Model) -> String {
    if let Some(input) = &model.input {
        return match input.purpose {
            Purpose::Confirm => " y yes · any other key no".to_owned(),
            _ => " Enter send · Esc drop".to_owned(),
        };
    }
    let Some(page) = &model.page else {
        return " ↑↓ move · Enter open · Space logs · ? help · q quit".to_owned();
    };
    let mut hints = Vec::new();
    for (action, hint) in [
        (InboxAction::Approve, "a approve"),
        (InboxAction::Revise, "v revise"),
        (InboxAction::Reject, "r reject"),
        (InboxAction::Answer, "Enter answer"),
    ] {
        if page.can(action) {
            hints.push(hint);
        }
    }
    hints.extend(["↑↓ scroll", "Esc back"]);
    format!(" {}", hints.join(" · "))
}

fn help(frame: &mut Frame) {
    let height = u16::try_from(HELP.lines().count() + 2).unwrap_or(u16::MAX);
    let area = frame.area();
    let popup = area.centered(
        Constraint::Length(72.min(area.width)),
        Constraint::Length(height.min(area.height)),
    );
    frame.render_widget(Clear, popup);
    frame.render_widget(
        Paragraph::new(HELP).block(Block::bordered().title(" keys ")),
        popup,
    );
}

/// How a style looks here; without colour where `NO_COLOR` forbids it.
fn look(style: Style) -> Look {
    let color = |color| {
        if Palette::new(true).is_colored() {
            Look::new().fg(color)
        } else {
            Look::new()
        }
    };
    match style {
        Style::Plain => Look::new(),
        Style::Bold => Look::new().add_modifier(Modifier::BOLD),
        Style::Dim => Look::new().add_modifier(Modifier::DIM),
        Style::Red => color(Color::Red),
        Style::Green => color(Color::Green),
        Style::Yellow => color(Color::Yellow),
        Style::Cyan => color(Color::Cyan),
    }
}

/// A line cut to the screen.
fn fit(line: Line<'static>, columns: usize) -> Line<'static> {
    let mut room = columns;
    let mut spans = Vec::new();
    for span in line.spans {
        let text = text::truncate(&span.content, room);
        room -= text::width(&text).min(room);
        spans.push(Span::styled(text, span.style));
        if room == 0 {
            break;
        }
    }
    Line::from(spans).style(line.style)
}

/// A line painted by `Palette` as lines of the screen, broken where it is too long. The only escape sequences in it are the
/// palette's: what comes from outside was cleaned.
fn folded(painted: &str, columns: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Vec::new()];
    let mut used = 0;
    let mut current = Look::new();
    for (at, part) in painted.split('\u{1b}').enumerate() {
        let text = match (at, part.split_once('m')) {
            (1.., Some((code, text))) => {
                current = look(Palette::style_of(code.trim_start_matches('[')));
                text
            }
            _ => part,
        };
        for word in text.split_inclusive(' ') {
            if used > 0 && used + text::width(word.trim_end()) > columns {
                lines.push(Vec::new());
                used = 0;
            }
            let mut rest = word;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(text::byte_at_column(rest, columns));
                if used > 0 && used + text::width(piece.trim_end()) > columns {
                    lines.push(Vec::new());
                    used = 0;
                }
                used += text::width(piece);
                if let Some(line) = lines.last_mut() {
                    line.push(Span::styled(piece.to_owned(), current));
                }
                rest = after;
            }
        }
    }
    lines.into_iter().map(Line::from).collect()
}
