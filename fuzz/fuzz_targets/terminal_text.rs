//! Text of strangers on its way to a terminal.
#![no_main]

#[path = "../../cli/src/text.rs"]
#[allow(dead_code)]
mod text;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|given: &str| {
    let clean = text::sanitize(given);
    for character in clean.chars() {
        assert!(
            character == '\n' || !(character.is_control() || is_bidirectional(character)),
            "{character:?} of {given:?}"
        );
        assert!(character == '\n' || !text::is_hidden(character));
    }
    assert_eq!(text::sanitize(&clean), clean, "twice is once");
    assert!(!text::hides_something(&clean));
    if !text::hides_something(given) {
        let laid_out = given
            .replace("\r\n", "\n")
            .replace(['\u{2028}', '\u{2029}'], "\n")
            .replace('\t', "    ");
        assert_eq!(clean, laid_out);
    }
    let one = text::one_line(given);
    assert!(!one.contains('\n'));
    for columns in [1, 7, 80] {
        assert!(text::width(&text::truncate(&one, columns)) <= columns);
        for line in clean.lines() {
            let wrapped = text::wrap(line, columns);
            let visible = |text: &str| text.replace(' ', "");
            assert_eq!(visible(&wrapped.concat()), visible(line));
        }
    }
});

/// Written out here, so that a gap in the list of `text` shows.
fn is_bidirectional(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}
