//! Markdown as a terminal shows it: headings, lists, quotes, code, emphasis. What it does not know stays as it is.

use super::style::{Palette, Style};
use crate::text;

/// Renders cleaned text into lines of at most so many columns; code is not wrapped.
///
/// People approve plans by what it shows: it drops marks, and never a word.
pub(crate) fn render(markdown: &str, palette: Palette, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for line in markdown.lines() {
        if let Some(open) = fence {
            let closes = line.trim().strip_prefix(open).is_some_and(|more| {
                more.is_empty() || more.bytes().all(|byte| byte == open.as_bytes()[0])
            });
            if closes {
                fence = None;
            } else {
                lines.push(palette.paint(Style::Cyan, &format!("    {line}")));
            }
        } else if let Some((open, info)) = opening(line) {
            fence = Some(open);
            if !info.is_empty() {
                lines.push(palette.paint(Style::Dim, &format!("    {open}{info}")));
            }
        } else {
            block(line, palette, columns, &mut lines);
        }
    }
    lines
}

/// The fence that the line opens a block of code with, and what follows it.
fn opening(line: &str) -> Option<(&str, &str)> {
    let trimmed = line.trim();
    let mark = trimmed
        .chars()
        .next()
        .filter(|mark| matches!(mark, '`' | '~'))?;
    let info = trimmed.trim_start_matches(mark);
    let open = &trimmed[..trimmed.len() - info.len()];
    // Backticks that close again on the line are code within it.
    (open.len() >= 3 && !(mark == '`' && info.contains('`'))).then_some((open, info))
}

/// Paths that the text mentions in backticks, each once, in their order.
pub(crate) fn mentioned_files(markdown: &str) -> Vec<&str> {
    let mut files = Vec::new();
    for code in markdown.split('`').skip(1).step_by(2) {
        let path = code.split(':').next().unwrap_or(code);
        let dotted = path
            .rsplit('/')
            .next()
            .and_then(|name| name.rsplit_once('.'))
            .is_some_and(|(_, extension)| {
                (1..=8).contains(&extension.len())
                    && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
                    && !extension.bytes().all(|byte| byte.is_ascii_digit())
            });
        let plain = path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/+@".contains(&byte));
        let path_like = plain && !path.is_empty() && !path.starts_with("http") && dotted;
        if path_like && !files.contains(&path) {
            files.push(path);
        }
    }
    files
}

fn block(line: &str, palette: Palette, columns: usize, lines: &mut Vec<String>) {
    let trimmed = line.trim_start();
    let indent = line.len() - trimmed.len();
    let hashes = trimmed.bytes().take_while(|byte| *byte == b'#').count();
    if (1..=6).contains(&hashes) && trimmed[hashes..].starts_with(' ') {
        let title = trimmed[hashes..].trim();
        let title = match title.trim_end_matches('#') {
            // Marks at the end stand apart: `C#` is a word.
            open if open.ends_with(' ') => open.trim_end(),
            _ => title,
        };
        for part in text::wrap(title, columns) {
            lines.push(palette.paint(Style::Bold, &part));
        }
        return;
    }
    if trimmed.len() >= 3 && trimmed.bytes().all(|byte| byte == b'-' || byte == b'*') {
        lines.push(palette.paint(Style::Dim, &"─".repeat(columns.min(40))));
        return;
    }
    if let Some(quoted) = trimmed.strip_prefix('>') {
        let bar = palette.paint(Style::Dim, "│");
        for part in text::wrap(quoted.trim_start(), columns.saturating_sub(2)) {
            lines.push(format!("{bar} {}", palette.paint(Style::Dim, &part)));
        }
        return;
    }
    let (marker, rest) = list_marker(trimmed);
    // Half at most: what it takes is repeated on every line.
    let hang = (indent + text::width(&marker)).min(columns / 2);
    let parts = flow(&inline(rest), palette, columns.saturating_sub(hang).max(20));
    for (at, part) in parts.iter().enumerate() {
        let lead = if at == 0 {
            format!("{}{marker}", " ".repeat(indent))
        } else {
            " ".repeat(hang)
        };
        lines.push(format!("{lead}{part}").trim_end().to_owned());
    }
}

fn list_marker(trimmed: &str) -> (String, &str) {
    for (from, to) in [
        ("- [ ] ", "☐ "),
        ("- [x] ", "☑ "),
        ("- ", "• "),
        ("* ", "• "),
        ("+ ", "• "),
    ] {
        if let Some(rest) = trimmed.strip_prefix(from) {
            return (to.to_owned(), rest);
        }
    }
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && trimmed[digits..].starts_with(". ") {
        let (marker, rest) = trimmed.split_at(digits + 2);
        return (marker.to_owned(), rest);
    }
    (String::new(), trimmed)
}

/// `code` and **strong** as spans; a mark without its partner on the line stays text.
fn inline(line: &str) -> Vec<(Style, &str)> {
    let mut spans = Vec::new();
    let mut plain = 0;
    let mut at = 0;
    while let Some(found) = line[at..].find(['`', '*']) {
        at += found;
        let rest = &line[at..];
        let (mark, style) = if rest.starts_with('`') {
            ("`", Style::Cyan)
        } else {
            ("**", Style::Bold)
        };
        let inner = rest
            .strip_prefix(mark)
            .and_then(|after| after.find(mark).map(|end| &after[..end]))
            .filter(|inner| !inner.is_empty());
        if let Some(inner) = inner {
            spans.push((Style::Plain, &line[plain..at]));
            spans.push((style, inner));
            at += inner.len() + 2 * mark.len();
            plain = at;
        } else {
            at += 1;
        }
    }
    spans.push((Style::Plain, &line[plain..]));
    spans
}

/// Fills lines with the words of the spans, measured without their paint. Code and strong text may go over a line's end.
fn flow(spans: &[(Style, &str)], palette: Palette, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    let mut word: Vec<(Style, &str)> = Vec::new();
    let mut close = |word: &mut Vec<(Style, &str)>, line: &mut String, used: &mut usize| {
        let wide: usize = word.iter().map(|(_, text)| text::width(text)).sum();
        if *used > 0 && *used + 1 + wide > columns {
            lines.push(std::mem::take(line));
            *used = 0;
        } else if *used > 0 {
            line.push(' ');
            *used += 1;
        }
        for (style, text) in word.drain(..) {
            line.push_str(&palette.paint(style, text));
        }
        *used += wide;
    };
    for (style, text) in spans {
        for (at, piece) in text.split(' ').enumerate() {
            if at > 0 {
                close(&mut word, &mut line, &mut used);
            }
            if !piece.is_empty() {
                word.push((*style, piece));
            }
        }
    }
    close(&mut word, &mut line, &mut used);
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_reads_as_a_page() {
        let plan = "# Plan\n\nAdd **a retry** to `src/fetch.rs`:\n- first a rather long point that wraps\n  1. nested\n\n```rust\nfn x() {}\n```\n> quoted\n---\n- [ ] open `mark";
        insta::assert_snapshot!(render(plan, Palette::plain(), 30).join("\n"), @r"
        Plan

        Add a retry to src/fetch.rs:
        • first a rather long point
          that wraps
          1. nested

            ```rust
            fn x() {}
        │ quoted
        ──────────────────────────────
        ☐ open `mark
        ");
    }

    #[test]
    fn no_word_of_a_plan_is_dropped() {
        let pages = [
            "~~~ Then add the contents\nof the file\n~~~ an empty block\n~~~\nafter",
            "```` four\n``` shorter\ninside\n````\nafter",
            "```js\n~~~ other marks\n``` js again\n   ```   \nafter",
            "```one line``` and `more`",
            "```never closed\nto the end\n~~~ words",
            "# Port to C#\n## Twice ##\n# #\n####### seven\n#word",
            "> > nested > words\n>- item\n1. one\n1.two\n-dash\n- [x] done\n- [y] kept",
            "**bold** and **open and ``two ticks`` and *star* and `code **in** code`",
            "--- words\n-*-\n<!-- comment --> [link](https://x.y) ![image](https://z)",
        ];
        for page in pages {
            let shown = render(page, Palette::plain(), 30).join("\n");
            let words = page
                .split(|letter: char| !letter.is_alphanumeric())
                .filter(|word| !word.is_empty() && *word != "x" && *word != "1");
            for word in words {
                assert!(shown.contains(word), "{word:?} of {page:?} in:\n{shown}");
            }
        }
        assert_eq!(render("# Port to C#", Palette::plain(), 30), ["Port to C#"]);
    }

    #[test]
    fn a_deep_indent_is_not_repeated_on_every_line() {
        let line = format!("{}- {}", " ".repeat(10_000), "word ".repeat(1_000));
        let shown = render(&line, Palette::plain(), 80);
        assert!(shown.len() > 100);
        assert!(shown[1..].iter().all(|line| text::width(line) <= 80));
    }

    #[test]
    fn mentioned_files_are_paths_only() {
        let plan = "Change `src/fetch.rs:12` and `Cargo.toml`, call `fetch()`, `src/fetch.rs`, `v1.2`, `https://x.y/z.rs`, `../a.py`";
        assert_eq!(
            mentioned_files(plan),
            ["src/fetch.rs", "Cargo.toml", "../a.py"]
        );
    }
}
