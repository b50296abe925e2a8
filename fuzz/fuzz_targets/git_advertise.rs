//! What the code host says it can do, on its way to a client that wants to push.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::git::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    for cut in [1, 4, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        fuzzing::advertise(bytes, cut);
    }
});
