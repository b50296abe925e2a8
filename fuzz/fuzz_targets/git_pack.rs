//! The pack of a push, and the objects in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::git::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::pack(bytes));
