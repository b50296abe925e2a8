//! Logs of CI, and text of strangers on its way to a model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_github::{Failure, fuzzing, signature, trim_log};

fuzz_target!(|text: &str| {
    let short = trim_log(text, 500);
    assert!(short.len() <= 520, "{} bytes", short.len());
    assert!(!short.contains('\u{1b}'));
    let _ = signature(&[Failure {
        check: "test",
        log: text,
    }]);
    let clean = fuzzing::clean_inbound(text);
    assert!(!clean.contains("<!--"));
});
