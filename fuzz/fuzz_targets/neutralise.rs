//! Text that goes to GitHub under our name. A Markdown parser that is not ours says where GitHub would look.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_github::text::{neutralise_line, title};
use mainloop_github::{Marker, MarkerKind, neutralise};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

fuzz_target!(|text: &str| {
    let out = neutralise(text);
    assert_eq!(neutralise(&out), out, "twice is once");
    assert!(!Marker::new("1", MarkerKind::Plan).is_in(&out) && !out.contains("<!--"));
    for part in rendered(&out) {
        assert!(!is_live(&part), "{part:?} is live in {out:?}");
    }
    // A squash commit's message is the raw text, code and all.
    assert!(!closes(&out), "{out:?} closes");
    assert!(!out.lines().any(is_command), "{out:?} commands");

    let line = neutralise_line(text);
    assert_eq!(neutralise_line(&line), line, "twice is once");
    assert!(!line.contains('\n') && !is_live(&line) && !closes(&line) && !is_command(&line));
    assert!(!title(text).is_empty());
});

/// Text outside of code blocks, each piece that stands together.
fn rendered(text: &str) -> Vec<String> {
    let mut texts = vec![String::new()];
    let mut in_code = false;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Html(_) | Event::InlineHtml(_) | Event::Start(Tag::Image { .. }) => {
                panic!("HTML or an image in {text:?}")
            }
            Event::Text(part) if !in_code => {
                texts.last_mut().expect("one at least").push_str(&part);
            }
            _ => texts.push(String::new()),
        }
    }
    texts
}

/// A mention, a reference to an issue, or one to a commit.
fn is_live(text: &str) -> bool {
    let bytes = text.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(b' ');
    (0..bytes.len()).any(|i| {
        let before = if i == 0 { b' ' } else { at(i - 1) };
        let joins = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match bytes[i] {
            b'@' => {
                let is_mention =
                    !(joins(before) || before == b'`') && at(i + 1).is_ascii_alphanumeric();
                let is_commit = (1..=7).all(|n| matches!(at(i + n), b'0'..=b'9' | b'a'..=b'f'));
                is_mention || is_commit
            }
            b'#' => at(i + 1).is_ascii_digit(),
            b'g' | b'G' => {
                !joins(before)
                    && before.is_ascii()
                    && at(i + 1).eq_ignore_ascii_case(&b'h')
                    && at(i + 2) == b'-'
                    && at(i + 3).is_ascii_digit()
            }
            b'/' => {
                at(i + 1).is_ascii_digit()
                    && ["/issues", "/pull", "/discussions"]
                        .iter()
                        .any(|part| text[..i].ends_with(part))
            }
            _ => false,
        }
    })
}

/// A closing word and a reference, as `fixes: #1`.
fn closes(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    [
        "close", "closes", "closed", "fix", "fixes", "fixed", "resolve", "resolves", "resolved",
    ]
    .iter()
    .any(|word| {
        lower.match_indices(word).any(|(at, _)| {
            let after = &lower[at + word.len()..];
            let rest = after.trim_start_matches(':').trim_start();
            if rest.len() == after.len() {
                return false;
            }
            let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
            rest.strip_prefix('#').is_some_and(is_number)
                || rest.strip_prefix("gh-").is_some_and(is_number)
        })
    })
}

fn is_command(line: &str) -> bool {
    let bare = line.trim_start();
    bare.strip_prefix('/')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}
