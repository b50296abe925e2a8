//! A repository's `.mainloop.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::worker::fuzzing;

fuzz_target!(|text: &str| {
    if let Err(message) = fuzzing::wishes(text) {
        assert!(message.starts_with(".mainloop.toml of the base commit"));
    }
});
