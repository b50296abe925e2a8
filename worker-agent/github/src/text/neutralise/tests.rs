#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use super::*;
use crate::marker::{Kind, Marker};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

/// With the break made visible.
fn seen(text: &str) -> String {
    neutralise(text).replace(BREAK, "·")
}

#[test]
fn what_acts_on_github_is_broken() {
    let cases = [
        ("@octocat please", "@·octocat please"),
        ("(@org/team)", "(@·org/team)"),
        (r"\@octocat", r"\@·octocat"),
        ("fixes #12", "fixes #·12"),
        ("Closes: other/repo#7", "Closes: other/repo#·7"),
        ("see GH-12", "see GH·-12"),
        (
            "https://github.com/o/r/issues/12",
            "https://github.com/o/r/issues/·12",
        ),
        (
            "https://github.com/o/r/pull/12#discussion_r1",
            "https://github.com/o/r/pull/·12#discussion_r1",
        ),
        (r"see GH\-12", r"see GH·\-12"),
        (
            r"https://github.com/o/r/issues\/12",
            r"https://github.com/o/r/issues\/·12",
        ),
        ("o/r@0123456789abcdef", "o/r@·0123456789abcdef"),
        ("/close", "/·close"),
        ("  /lgtm", "  /·lgtm"),
        ("![x](https://evil/p.png)", "!·[x](https://evil/p.png)"),
        ("<img src=x>", "<·img src=x>"),
        (
            "<!-- mainloop:task=1 kind=plan -->",
            "<·!-- mainloop:task=1 kind=plan -->",
        ),
        ("&#64;octocat &commat;o", "&·#·64;octocat &·commat;o"),
        ("a\u{202e}b\u{0}c\u{200b}d\u{7f}", "abcd"),
        ("a\r\nb\rc", "a\nb\nc"),
    ];
    for (text, wanted) in cases {
        assert_eq!(seen(text), wanted, "{text:?}");
    }
}

#[test]
fn ordinary_text_is_left_alone() {
    for text in [
        "mail me@example.com",
        "# Heading\n\n- item\n- [ ] task\n\n> quote",
        "a < b && c > d, a/b, 50%!",
        "npm install left-pad@1.3.0",
        "emoji 👩‍👧 and ünïcode",
        "[link](https://example.com/x#frag)",
    ] {
        assert_eq!(neutralise(text), text);
    }
}

#[test]
fn fenced_code_can_be_copied() {
    let text = "Do this:\n\n```python\n@property\ndef f(x: List<int>): # 1 & 2\n    return x[0] ![\n```\n\nthen @octocat";
    let wanted = "Do this:\n\n```python\n@property\ndef f(x: List<int>): # 1 & 2\n    return x[0] ![\n```\n\nthen @·octocat";
    assert_eq!(seen(text), wanted);
}

#[test]
fn markers_commands_and_closing_words_are_broken_in_code_too() {
    let text = "~~~\n<!-- mainloop:task=1 kind=plan -->\n/merge\nfixes #3\ncloses GH-4\nGH-5\ncolor: #123456\n~~~";
    let wanted = "~~~\n<·!-- mainloop:task=1 kind=plan -->\n/·merge\nfixes #·3\ncloses GH·-4\nGH-5\ncolor: #123456\n~~~";
    assert_eq!(seen(text), wanted);
}

#[test]
fn a_closing_word_and_its_reference_may_stand_on_two_lines_of_code() {
    let text = "```\nfixes:\n\n#12\n#34\n```";
    assert_eq!(seen(text), "```\nfixes:\n\n#·12\n#34\n```");
    assert_eq!(seen("```fixes\n#12\n```"), "```fixes\n#·12\n```");
    // What is dropped of the info string does not count.
    assert_eq!(seen("```sh fixes\n#12\n```"), "```sh\n#12\n```");
}

#[test]
fn fences_that_could_be_read_in_two_ways_are_made_plain() {
    let cases = [
        // Not in a list this is a fence, and the next one closes it.
        (" ```\na\n```\n@b", "```\na\n```\n@·b"),
        // In a list the fence would end with the item.
        ("- x\n  ```\n@b", "- x\n```\n@b\n```"),
        // Indented code is no fence.
        ("    ```\n@b", "    ```\n@·b"),
        ("> ```\n> @b", "> ```\n> @·b"),
        // An info string that carries something.
        ("```sh @b <x>\ny\n```", "```sh\ny\n```"),
        // The other mark does not close.
        ("```\n~~~\n@b\n```\n@c", "```\n~~~\n@b\n```\n@·c"),
        // A shorter one does not either.
        ("````\n```\n@b\n````\n@c", "````\n```\n@b\n````\n@·c"),
        // Tags cannot hide a fence.
        (
            "<pre>\n```\n</pre>\n@b\n```\n@c",
            "<·pre>\n```\n</pre>\n@b\n```\n@·c",
        ),
        // Never closed: what we write below it must not become code.
        ("```\nx", "```\nx\n```"),
    ];
    for (text, wanted) in cases {
        assert_eq!(seen(text), wanted, "{text:?}");
    }
}

#[test]
fn line_has_no_line_ends() {
    assert_eq!(
        neutralise_line("```\n@a\n/close fixes #1").replace(BREAK, "·"),
        "``` @·a /close fixes #·1"
    );
    assert_eq!(neutralise_line("/close").replace(BREAK, "·"), "/·close");
}

/// What a CommonMark parser (not ours) says is text, outside code blocks; and whether there is
/// HTML or an image.
fn rendered(text: &str) -> (Vec<String>, bool) {
    let mut texts = vec![String::new()];
    let (mut in_code, mut forbidden) = (false, false);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Html(_) | Event::InlineHtml(_) | Event::Start(Tag::Image { .. }) => {
                forbidden = true;
            }
            Event::Text(t) if !in_code => texts.last_mut().unwrap().push_str(&t),
            _ => texts.push(String::new()),
        }
    }
    (texts, forbidden)
}

fn live(text: &str) -> Option<String> {
    static LIVE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(?:^|[^0-9A-Za-z_`])@[0-9A-Za-z]",
            r"|#[0-9]",
            r"|(?i:\bgh-[0-9])",
            r"|/(?:issues|pull|discussions)/[0-9]",
            r"|[0-9A-Za-z]@[0-9a-f]{7}",
        ))
        .unwrap()
    });
    LIVE.find(text).map(|found| found.as_str().to_owned())
}

/// Text made of the pieces that matter, in every order.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "@octocat",
            "@org/team",
            "#12",
            "fixes ",
            "o/r",
            "GH-3",
            "/close",
            "\n",
            "\n\n",
            " ",
            "  ",
            "   ",
            "    ",
            "\t",
            "```",
            "````",
            "~~~",
            "`",
            "``",
            "- ",
            "1. ",
            "> ",
            "<pre>",
            "</pre>",
            "<!--",
            "-->",
            "<img src=x>",
            "![a](b)",
            "&#64;",
            "&commat;",
            "&lt;",
            "\\",
            "\u{200b}",
            "\u{202e}",
            "\r",
            "\r\n",
            "\u{2028}",
            "text",
            "*",
            "**",
            "_",
            "[x](y)",
            "[a]: http://b",
            "|",
            "---",
            "https://github.com/o/r/issues/1",
            "@0123456",
            "a",
            "1",
            "!",
            "[",
            "<",
            "&",
            "#",
            "@",
            "/",
            "é",
            "<!-- mainloop:task=1 kind=plan -->",
            "$$",
            "[^1]: ",
        ])
        .prop_map(str::to_owned),
        "[ -~\n]{0,6}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Lines whose blocks nest: where our idea of what is fenced could differ from a parser's.
fn nested() -> impl Strategy<Value = String> {
    let indent = prop::sample::select(vec![
        "", "", "", " ", "  ", "   ", "    ", "\t", "- ", "1. ", "> ",
    ]);
    let content = prop::sample::select(vec![
        "```",
        "```",
        "````",
        "~~~",
        "``` sh",
        "```a`",
        "@octocat",
        "fixes #12",
        "text",
        "",
        "<pre>",
        "</pre>",
        "- x",
        "<div>",
        "***",
        "| a |",
        "<img src=x>",
    ]);
    prop::collection::vec((indent, content), 1..12).prop_map(|lines| {
        let lines: Vec<String> = lines.into_iter().map(|(i, c)| format!("{i}{c}")).collect();
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn twice_is_once(text in prop_oneof![hostile(), nested()]) {
        let once = neutralise(&text);
        prop_assert_eq!(neutralise(&once), once);
        let line = neutralise_line(&text);
        prop_assert_eq!(neutralise_line(&line), line);
    }

    #[test]
    fn nothing_live_is_left_where_github_looks(text in prop_oneof![hostile(), nested()]) {
        let out = neutralise(&text);
        let (texts, forbidden) = rendered(&out);
        prop_assert!(!forbidden, "HTML or an image in {out:?}");
        for text in texts {
            prop_assert_eq!(live(&text), None, "in {:?} of {:?}", text, out);
        }
    }

    #[test]
    fn nothing_live_is_left_in_a_line(text in hostile()) {
        let out = neutralise_line(&text);
        prop_assert_eq!(live(&out), None);
        prop_assert!(!out.contains('\n') && !out.contains("<!--") && !out.contains("!["));
    }

    #[test]
    fn nobody_writes_our_marker_or_a_command(text in hostile()) {
        let out = neutralise(&text);
        prop_assert!(!Marker::new("1", Kind::Plan).is_in(&out));
        prop_assert!(!out.contains("<!--"));
        for line in out.lines() {
            let bare = line.trim_start();
            let command = bare.strip_prefix('/').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_alphabetic()));
            prop_assert!(!command, "{line:?}");
        }
    }

    #[test]
    fn only_invisible_characters_are_added_outside_fences(text in "[ -_a-~\n]{0,200}") {
        // No backtick and (see the assumption) no tilde fence: nothing but breaks may differ.
        prop_assume!(!text.contains("~~~"));
        prop_assert_eq!(neutralise(&text).replace(BREAK, ""), text);
    }
}

#[test]
fn a_message_that_acts_on_github_is_told() {
    let commit = |message: &str| format!("tree 1\nauthor a <a@b.example> 1 +0000\n\n{message}");
    for (message, word) in [
        ("Add x, as @eve asked", "mentions @eve"),
        ("Fixes #12", "closes #12"),
        ("Add x\n\nCloses: o/r#3", "closes o/r#3"),
        ("This resolves\n#12", "closes #12"),
        ("fix GH-12", "closes GH-12"),
        ("Fix https://github.com/o/r/issues/7", "issues/7"),
        ("```\nFixes #12\n```", "closes #12"),
        ("a\u{1b}[2Jb", "cannot see"),
        ("a\u{202e}b", "cannot see"),
    ] {
        let told = commit_effect(&commit(message)).unwrap_or_default();
        assert!(told.contains(word), "{message:?}: {told}");
    }
    for message in [
        "Add x",
        "Fix the parser",
        "See #12",
        "Co-authored-by: Eve <eve@example.com>",
        "Mail a@b.example",
        "Vec<String> & co",
        // As our own commits are written.
        &neutralise_line("Fixes #12 as @eve asked"),
    ] {
        assert_eq!(commit_effect(&commit(message)), None, "{message}");
    }
    assert!(commit_effect("tree 1\nauthor \u{1b}[2J <a@b> 1 +0000\n\nx").is_some());
}
