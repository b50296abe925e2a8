//! What `git diff --numstat -z` and `git diff --shortstat` print.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::channel::Diffstat;
use mainloop_worker_agent::harness::fuzzing;

fuzz_target!(|text: &str| {
    let stat = fuzzing::numstat(text);
    assert!(stat.paths.len() <= Diffstat::MAX_PATHS && stat.paths.len() as u64 <= stat.files);
    fuzzing::shortstat(text);
});
