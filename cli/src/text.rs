//! Text of strangers, made safe for a terminal, and measured as a terminal measures it.
//!
//! Everything that comes from the plane may quote a repository, an issue or a model. None of it may move the cursor, set a
//! title, reorder what is read, or hide.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Spaces that a tab becomes.
const TAB: &str = "    ";

/// Removes escape sequences, control, bidirectional and invisible characters. Line ends stay, as `\n`; tabs become spaces.
pub(crate) fn sanitize(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\n' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            '\r' => {
                if !rest.starts_with('\n') {
                    clean.push('\n');
                }
            }
            '\t' => clean.push_str(TAB),
            '\u{1b}' => rest = after_escape(rest),
            '\u{9b}' => rest = after_control_sequence(rest),
            hidden if is_hidden(hidden) => {}
            plain => clean.push(plain),
        }
    }
    clean
}

/// As `sanitize`, on one line.
pub(crate) fn one_line(text: &str) -> String {
    sanitize(text)
        .split('\n')
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// True for characters that a reader does not see and that change what they see.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            // The last variation selector and the joiner make emoji.
            | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// True where `sanitize` takes something away that a terminal would hide or obey.
pub(crate) fn hides_something(text: &str) -> bool {
    text.replace("\r\n", "\n")
        .chars()
        .any(|character| is_hidden(character) && !matches!(character, '\n' | '\t'))
}

/// Columns that the text takes.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text in at most so many columns, with `…` where something was cut.
pub(crate) fn truncate(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for character in text.chars() {
        let wide = columns_of(character);
        if used + wide > columns.saturating_sub(1) {
            break;
        }
        used += wide;
        cut.push(character);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Breaks one line at spaces into lines of at most so many columns; a word that is longer is cut.
pub(crate) fn wrap(line: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    let mut current = String::new();
    for word in line.split(' ') {
        let mut word = word;
        if !current.is_empty() {
            if width(&current) + 1 + width(word) <= columns {
                current.push(' ');
                current.push_str(word);
                continue;
            }
            lines.push(std::mem::take(&mut current));
        }
        while width(word) > columns {
            let at = byte_at_column(word, columns);
            lines.push(word[..at].to_owned());
            word = &word[at..];
        }
        word.clone_into(&mut current);
    }
    lines.push(current);
    lines
}

/// Columns that a character adds at most. The selector makes an emoji, which is wide, of a narrow character before it.
fn columns_of(character: char) -> usize {
    match character {
        '\u{fe0f}' => 1,
        other => other.width().unwrap_or(0),
    }
}

/// The byte after so many columns of the text, and after its first character at least.
pub(crate) fn byte_at_column(text: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += columns_of(character);
        if used > columns && at > 0 {
            return at;
        }
    }
    text.len()
}

/// What follows an ESC: a sequence is dropped whole, so that no `[31m` stays behind as text.
fn after_escape(rest: &str) -> &str {
    match rest.chars().next() {
        Some('[') => after_control_sequence(&rest[1..]),
        Some(']' | 'P' | 'X' | '^' | '_') => after_string(&rest[1..]),
        Some('\u{20}'..='\u{2f}') => {
            let rest = rest.trim_start_matches(|c| matches!(c, '\u{20}'..='\u{2f}'));
            skip(rest, |c| matches!(c, '\u{30}'..='\u{7e}'))
        }
        _ => skip(rest, |c| matches!(c, '\u{30}'..='\u{7e}')),
    }
}

fn after_control_sequence(rest: &str) -> &str {
    let rest = rest.trim_start_matches(|c| matches!(c, '\u{20}'..='\u{3f}'));
    skip(rest, |c| matches!(c, '\u{40}'..='\u{7e}'))
}

/// Behind the end of an operating system command or the like. One that does not end on its line is no sequence: its text stays
/// visible, so that nothing can hide behind an opening that is never closed.
fn after_string(rest: &str) -> &str {
    let line = rest.find('\n').unwrap_or(rest.len());
    let bell = rest[..line].find('\u{7}').map(|at| at + 1);
    let terminator = rest[..line].find("\u{1b}\\").map(|at| at + 2);
    match (bell, terminator) {
        (Some(a), Some(b)) => &rest[a.min(b)..],
        (Some(end), None) | (None, Some(end)) => &rest[end..],
        (None, None) => rest,
    }
}

fn skip(rest: &str, wanted: impl Fn(char) -> bool) -> &str {
    match rest.chars().next() {
        Some(character) if wanted(character) => &rest[character.len_utf8()..],
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_leave_nothing_behind() {
        assert_eq!(sanitize("a\u{1b}[31;1mred\u{1b}[0m b"), "ared b");
        assert_eq!(sanitize("\u{1b}]0;title\u{7}text"), "text");
        assert_eq!(
            sanitize("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\"),
            "link"
        );
        assert_eq!(sanitize("\u{1b}(Bplain\u{1b}7"), "plain");
        assert_eq!(sanitize("\u{9b}2Jgone"), "gone");
        assert_eq!(
            sanitize("\u{1b}]0;never closed\nshown"),
            "0;never closed\nshown"
        );
        assert_eq!(sanitize("\u{1b}"), "");
    }

    #[test]
    fn control_and_bidirectional_characters_go() {
        assert_eq!(
            sanitize("if \u{202e}drow\u{202c} \u{2066}x\u{2069}"),
            "if drow x"
        );
        assert_eq!(sanitize("a\u{0}b\u{8}c\u{7f}d\u{85}e"), "abcde");
        assert_eq!(sanitize("hid\u{e0041}den\u{200b}"), "hidden");
        assert_eq!(
            sanitize("a\u{fe01}\u{e0100}b\u{34f}\u{3164}c\u{115f}\u{ffa0}"),
            "abc"
        );
        assert_eq!(sanitize("a\tb\r\nc\rd\u{2028}e"), "a    b\nc\nd\ne");
        assert_eq!(
            sanitize("naïve 日本 👩\u{200d}💻"),
            "naïve 日本 👩\u{200d}💻"
        );
    }

    #[test]
    fn what_hides_is_told_from_what_is_laid_out() {
        for text in ["a\u{1b}[8mb", "a\u{202e}b", "a\u{fe01}", "a\rb", "\u{0}"] {
            assert!(hides_something(text), "{text:?}");
        }
        for text in ["a\tb\r\nc", "naïve 日本 👩\u{200d}💻 ☎\u{fe0f}"] {
            assert!(!hides_something(text), "{text:?}");
        }
    }

    #[test]
    fn one_line_joins_what_it_breaks() {
        assert_eq!(one_line("  fix\n\n the bug\r\n"), "fix the bug");
    }

    #[test]
    fn truncation_counts_columns() {
        assert_eq!(truncate("short", 5), "short");
        assert_eq!(truncate("longer", 5), "long…");
        assert_eq!(truncate("日本語", 4), "日…");
        let phones = "☎\u{fe0f}☎\u{fe0f}☎\u{fe0f}";
        assert_eq!(truncate(phones, 5), "☎\u{fe0f}☎\u{fe0f}…");
        assert_eq!(truncate("x", 0), "");
    }

    #[test]
    fn wrapping_keeps_words_and_cuts_what_is_too_long() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 10), [""]);
    }
}
