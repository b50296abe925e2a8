//! The screen, as a function of the model.

mod list;
mod paint;

use jiff::Timestamp;
use mainloop_proto::v1::InboxAction;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Margin, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use self::paint::{folded, look};
use super::{
    model::{Model, Purpose, Tone},
    page::Page,
    rows::GROUPS,
};
use crate::{
    commands,
    output::style::{self, Palette, Style},
    words,
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
   t   retry       m   more turns    f   start afresh
   b   top up      o   take over
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
        frame.render_widget(list::draw(model, body, now), body);
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
            "   the plane does not answer; trying again",
            look(Style::Red),
        ));
    }
    Line::from(spans)
}

fn item<'a>(page: &mut Page, area: Rect, now: Timestamp) -> Paragraph<'a> {
    let columns = usize::from(area.width).clamp(20, PROSE);
    let lines = commands::Page {
        item: &page.item,
        hides: page.hides,
        palette: Palette::new(true),
        columns,
        rendered: true,
        commands: false,
        now,
    }
    .lines();
    let lines: Vec<Line> = lines
        .iter()
        .flat_map(|line| line.split('\n'))
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
            Purpose::Confirm(action) => {
                let what = match action {
                    InboxAction::TopUp => "add the default budget to",
                    InboxAction::TakeOver => "go on by hand with",
                    _ => "approve",
                };
                format!(" {what} {}@{}? [y/N] ", page.item.id, page.item.revision)
            }
            Purpose::Words(InboxAction::Reject) => " reject, because: ".to_owned(),
            Purpose::Words(InboxAction::Revise) => " what should change: ".to_owned(),
            Purpose::Words(_) => " what it should know (may stay empty): ".to_owned(),
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
            Purpose::Confirm(_) => " y yes · any other key no".to_owned(),
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
        (InboxAction::Retry, "t retry"),
        (InboxAction::MoreAttempts, "m more turns"),
        (InboxAction::StartAfresh, "f afresh"),
        (InboxAction::TopUp, "b top up"),
        (InboxAction::TakeOver, "o take over"),
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
