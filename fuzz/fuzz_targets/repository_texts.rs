//! Texts of a repository that are looked through: `.gitattributes`, `.gitmodules`, workflows, what its tests print.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_github::fuzzing::skips_drafts;
use mainloop_worker_agent::{sidecar::worker::fuzzing::left_out, trial::fuzzing::missing};

fuzz_target!(|text: &str| {
    for notes in left_out(text, text) {
        assert!(notes.len() <= 2 && notes.iter().all(|note| note.len() < 300));
    }
    if skips_drafts(text) {
        assert!(text.contains("ready_for_review") || text.contains("pull_request.draft"));
    }
    let names = missing(text);
    assert!(names.len() <= 16);
    for name in names {
        assert!(!name.is_empty() && name.len() <= 100);
        assert!(!name.contains(|c: char| c.is_whitespace() || c.is_control()));
    }
});
