//! Styles and painted lines, on a screen of cells.

use ratatui::{
    style::{Color, Modifier, Style as Look},
    text::{Line, Span},
};

use crate::{
    output::style::{Palette, Style},
    text,
};

/// How a style looks here; without colour where `NO_COLOR` forbids it.
pub(super) fn look(style: Style) -> Look {
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
pub(super) fn fit(line: Line<'static>, columns: usize) -> Line<'static> {
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
pub(super) fn folded(painted: &str, columns: usize) -> Vec<Line<'static>> {
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
