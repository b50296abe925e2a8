//! Plans as a terminal shows them: marks go, words stay.
#![no_main]

#[path = "../../cli/src/text.rs"]
#[allow(dead_code)]
mod text;

#[path = "../../cli/src/output"]
#[allow(dead_code)]
mod output {
    pub(crate) mod markdown;
    pub(crate) mod style;
}

use libfuzzer_sys::fuzz_target;
use output::{markdown, style::Palette};

fuzz_target!(|given: &str| {
    let plan = text::sanitize(given);
    for columns in [1, 30, 100] {
        let shown = markdown::render(&plan, Palette::new(false), columns).concat();
        // A ticked box is drawn.
        let words = |text: &str| -> String {
            text.chars()
                .filter(|letter| letter.is_alphanumeric() && *letter != 'x')
                .collect()
        };
        assert_eq!(words(&shown), words(&plan));
    }
    for path in markdown::mentioned_files(&plan) {
        assert!(plan.contains(path));
    }
});
