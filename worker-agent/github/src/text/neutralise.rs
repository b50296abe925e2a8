//! Text that a model or a stranger wrote, made harmless before it goes to GitHub under our name.
//!
//! GitHub acts on what it reads: it notifies whom a text mentions, closes what it says it fixes,
//! links what it refers to, fetches images for whoever looks, and bots obey commands. None of that
//! may come from text that we did not write. A zero-width space inside each such token takes its
//! effect and leaves it readable.
//!
//! Fenced code is left alone as far as that is safe, so that it can be copied. For that we must
//! agree with GitHub about what is fenced: only fences at the left margin count, fences that
//! are indented by up to three spaces are moved there (GitHub would take them for fences or not,
//! depending on a list above), and an open fence is closed. HTML could hide a fence, so no tag
//! stays alive. What is already neutral is left as it is: applying it twice changes nothing.

/// Breaks a token, invisibly.
const BREAK: char = '\u{200b}';

/// `text` without effect on GitHub. See the module.
pub fn neutralise(text: &str) -> String {
    let text = visible(text);
    let mut out = String::with_capacity(text.len() + 64);
    let mut fence: Option<Fence> = None;
    // The last line of code that is not blank, or the info string that stays.
    let mut before = String::new();
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        match &fence {
            None => match Fence::opened_by(line) {
                Some(opened) => {
                    opened.write(&mut out);
                    before.clone_from(&opened.language);
                    fence = Some(opened);
                }
                None => prose(line, &mut out),
            },
            Some(open) if open.closed_by(line) => {
                out.push_str(line.trim());
                fence = None;
            }
            Some(_) => {
                code(line, &before, &mut out);
                if !line.trim().is_empty() {
                    line.clone_into(&mut before);
                }
            }
        }
    }
    if let Some(open) = fence {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out.extend(std::iter::repeat_n(open.mark, open.length));
    }
    out
}

/// One line of text without effect: for titles, names and table cells. Line ends become spaces.
pub fn neutralise_line(text: &str) -> String {
    let line = visible(text)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let mut out = String::with_capacity(line.len() + 16);
    prose(&line, &mut out);
    out
}

/// What a commit, its head and its message, would do on GitHub or hide from a reader; `None` where that is nothing.
pub fn commit_effect(commit: &str) -> Option<String> {
    if commit.chars().any(is_hidden) {
        return Some("has characters that a reader cannot see".to_owned());
    }
    let (_, message) = commit.split_once("\n\n")?;
    let mut before = "";
    for line in message.split('\n') {
        if let Some(at) = effects(line, before).first() {
            let from = line[..*at]
                .rfind(char::is_whitespace)
                .map_or(0, |at| at + 1);
            let word: String = line[from..]
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .chars()
                .take(60)
                .collect();
            return Some(if line[..*at].ends_with('@') {
                format!("mentions {word} in its message")
            } else {
                format!("closes {word} by its message")
            });
        }
        if !line.trim().is_empty() {
            before = line;
        }
    }
    None
}

fn is_hidden(c: char) -> bool {
    c != BREAK && !matches!(c, '\n' | '\t') && (c.is_control() || is_invisible(c))
}

/// Where a line of a commit's message has to be broken. `before` is the line before it that is not blank.
fn effects(line: &str, before: &str) -> Vec<usize> {
    let last = before.split_whitespace().next_back();
    let closes = has_closing_word(line) || last.is_some_and(has_closing_word);
    let bytes = line.as_bytes();
    line.char_indices()
        .filter(|(i, c)| {
            let next = bytes.get(i + 1).copied().unwrap_or(b' ');
            let previous = i.checked_sub(1).map_or(b' ', |at| bytes[at]);
            match c {
                '@' => next.is_ascii_alphanumeric() && !previous.is_ascii_alphanumeric(),
                '#' => closes && next.is_ascii_digit(),
                'h' | 'H' => closes && is_gh_reference(bytes, *i),
                '/' => closes && next.is_ascii_digit() && ends_in_reference(&bytes[..*i]),
                _ => false,
            }
        })
        .map(|(i, c)| i + c.len_utf8())
        .collect()
}

/// Without characters that a reader cannot see or that reorder what they see; line ends as `\n`.
pub fn visible(text: &str) -> String {
    text.replace("\r\n", "\n")
        .chars()
        .filter_map(|c| match c {
            '\r' => Some('\n'),
            '\u{2028}' | '\u{2029}' => Some(' '),
            '\n' | '\t' => Some(c),
            c if c.is_control() || is_invisible(c) => None,
            c => Some(c),
        })
        .collect()
}

/// Bidirectional controls, zero-width characters and tags. The joiners of emoji and of several
/// scripts stay.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

struct Fence {
    mark: char,
    length: usize,
    language: String,
}

impl Fence {
    fn opened_by(line: &str) -> Option<Self> {
        let (mark, length, info) = fence_mark(line)?;
        if mark == '`' && info.contains('`') {
            return None;
        }
        let language = info
            .split_whitespace()
            .next()
            .unwrap_or("")
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_+.".contains(*c))
            .collect();
        Some(Self {
            mark,
            length,
            language,
        })
    }

    fn closed_by(&self, line: &str) -> bool {
        fence_mark(line).is_some_and(|(mark, length, info)| {
            mark == self.mark && length >= self.length && info.trim().is_empty()
        })
    }

    fn write(&self, out: &mut String) {
        out.extend(std::iter::repeat_n(self.mark, self.length));
        out.push_str(&self.language);
    }
}

/// The mark, how often, and what follows; `None` where the line is no fence.
fn fence_mark(line: &str) -> Option<(char, usize, &str)> {
    let bare = line.trim_start_matches(' ');
    if line.len() - bare.len() > 3 {
        return None;
    }
    let mark = bare.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = bare.trim_start_matches(mark);
    let length = bare.len() - rest.len();
    (length >= 3).then_some((mark, length, rest))
}

/// A line outside fenced code.
fn prose(line: &str, out: &mut String) {
    let bytes = line.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(b' ');
    let command = command_at(line);
    for (i, c) in line.char_indices() {
        out.push(c);
        let next = at(i + 1);
        let before = if i == 0 { b' ' } else { at(i - 1) };
        let breaks = match c {
            '@' => {
                next.is_ascii_alphanumeric()
                    && (!before.is_ascii_alphanumeric() || is_sha(&bytes[i + 1..]))
            }
            '#' => next.is_ascii_digit(),
            // A character reference would become one of the others after we looked.
            '&' => next == b'#' || next.is_ascii_alphabetic(),
            '<' => next.is_ascii_alphabetic() || matches!(next, b'/' | b'!' | b'?'),
            '!' => next == b'[',
            'h' | 'H' => is_gh_reference(bytes, i),
            '/' => {
                command == Some(i) || (next.is_ascii_hexdigit() && ends_in_reference(&bytes[..i]))
            }
            _ => false,
        };
        if breaks {
            out.push(BREAK);
        }
    }
}

/// A line of fenced code. GitHub does nothing with it, but bots read raw text, a squash commit's
/// message is raw text, and our own markers are looked for in raw text.
fn code(line: &str, before: &str, out: &mut String) {
    // The word may end one line, and what it closes begin the next.
    let last = before.split_whitespace().next_back();
    let closes = has_closing_word(line) || last.is_some_and(has_closing_word);
    let bytes = line.as_bytes();
    let command = command_at(line);
    for (i, c) in line.char_indices() {
        out.push(c);
        let next = bytes.get(i + 1).copied().unwrap_or(b' ');
        let breaks = match c {
            '<' => line[i..].starts_with("<!--"),
            '#' => closes && next.is_ascii_digit(),
            'h' | 'H' => closes && is_gh_reference(bytes, i),
            '/' => {
                command == Some(i)
                    || (closes && next.is_ascii_digit() && ends_in_reference(&bytes[..i]))
            }
            _ => false,
        };
        if breaks {
            out.push(BREAK);
        }
    }
}

fn has_closing_word(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["clos", "fix", "resolv"]
        .iter()
        .any(|word| lower.contains(word))
}

/// Where the slash is of a line that begins with a command such as `/close`.
fn command_at(line: &str) -> Option<usize> {
    let bare = line.trim_start();
    let at = line.len() - bare.len();
    let mut bytes = bare.bytes();
    (bytes.next() == Some(b'/') && bytes.next().is_some_and(|b| b.is_ascii_alphabetic()))
        .then_some(at)
}

/// `owner/repo@sha` refers to a commit.
fn is_sha(rest: &[u8]) -> bool {
    rest.iter()
        .take(7)
        .filter(|b| b.is_ascii_hexdigit())
        .count()
        == 7
}

/// `GH-12`, seen at its `H`. In Markdown the dash may be escaped.
fn is_gh_reference(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at + 1..];
    let rest = rest.strip_prefix(b"\\").unwrap_or(rest);
    at > 0
        && bytes[at - 1].eq_ignore_ascii_case(&b'g')
        && !(at > 1 && bytes[at - 2].is_ascii_alphanumeric())
        && matches!(rest, [b'-', digit, ..] if digit.is_ascii_digit())
}

/// Whether an address up to here goes on with the number of an issue or the name of a commit.
/// The slash between them may be escaped.
fn ends_in_reference(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"\\").unwrap_or(before);
    [
        "/issues",
        "/pull",
        "/pulls",
        "/discussions",
        "/commit",
        "/commits",
    ]
    .iter()
    .any(|word| {
        before.len() >= word.len()
            && before[before.len() - word.len()..].eq_ignore_ascii_case(word.as_bytes())
    })
}

#[cfg(test)]
mod tests;
