//! Tables aligned by what a terminal shows, cut to its width.

use super::style::{Palette, Style};
use crate::text;

/// Columns between two cells.
const GAP: usize = 2;
/// The narrowest that a column is cut to.
const MIN_COLUMN: usize = 8;

/// A table; its last columns give way first when the terminal is narrow.
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(headers: [&'static str; N]) -> Self {
        Self {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A row with as many cells as there are headers.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(Style, String); N]) {
        let cells = cells.map(|(style, text)| (style, text::one_line(&text)));
        self.rows.push(cells.into());
    }

    /// Lines without trailing space, at most so wide where a width is given.
    pub(crate) fn render(&self, palette: Palette, columns: Option<usize>) -> Vec<String> {
        let widths = self.widths(columns);
        let header = self
            .headers
            .iter()
            .map(|text| (Style::Dim, (*text).to_owned()))
            .collect();
        std::iter::once(&header)
            .chain(&self.rows)
            .map(|cells: &Vec<(Style, String)>| line(cells, &widths, palette))
            .collect()
    }

    fn widths(&self, columns: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.headers.iter().map(|text| text::width(text)).collect();
        for row in &self.rows {
            for (column, (_, cell)) in widths.iter_mut().zip(row) {
                *column = (*column).max(text::width(cell));
            }
        }
        let Some(columns) = columns else {
            return widths;
        };
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let mut excess = total.saturating_sub(columns);
        for width in widths.iter_mut().rev() {
            let give = excess.min(width.saturating_sub(MIN_COLUMN));
            *width -= give;
            excess -= give;
        }
        widths
    }
}

fn line(cells: &[(Style, String)], widths: &[usize], palette: Palette) -> String {
    let mut line = String::new();
    let last = cells.iter().rposition(|(_, text)| !text.is_empty());
    for (at, ((style, cell), width)) in cells.iter().zip(widths).enumerate() {
        let cell = text::truncate(cell, *width);
        line.push_str(&palette.paint(*style, &cell));
        if last.is_none_or(|last| at >= last) {
            break;
        }
        line.push_str(&" ".repeat(width - text::width(&cell) + GAP));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["ID", "TITLE"]);
        table.row([
            (Style::Bold, "k3f9".to_owned()),
            (Style::Plain, "日本語 title\nof two lines".to_owned()),
        ]);
        table.row([
            (Style::Bold, "longer-id".to_owned()),
            (Style::Plain, String::new()),
        ]);
        table
    }

    #[test]
    fn columns_align_by_width() {
        let lines = table().render(Palette::plain(), None);
        assert_eq!(
            lines,
            [
                "ID         TITLE",
                "k3f9       日本語 title of two lines",
                "longer-id"
            ]
        );
    }

    #[test]
    fn last_column_gives_way() {
        let lines = table().render(Palette::plain(), Some(20));
        assert_eq!(lines[1], "k3f9       日本語 t…");
        assert!(lines.iter().all(|line| text::width(line) <= 20));
    }
}
