//! A change of CI definitions as a person is shown it: the file before, a NUL, the file after.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::git::fuzzing;

fuzz_target!(|text: &str| {
    let (old, new) = text.split_once('\0').unwrap_or(("", text));
    for room in [0, 100, 64 * 1024] {
        fuzzing::diff(old, new, room);
    }
});
