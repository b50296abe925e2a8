//! The command section at the head of a push.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::git::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    for cut in [1, 4, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        fuzzing::push(bytes, cut);
    }
});
