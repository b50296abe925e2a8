//! The code host's report on a push, bare and in a side band.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::git::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    for side_band in [false, true] {
        fuzzing::report(bytes, bytes.len() / 2, side_band);
        fuzzing::report(bytes, 3, side_band);
    }
});
