//! Lines of the CLI's stream-json output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::claude::fuzzing;

fuzz_target!(|text: &str| text.lines().for_each(fuzzing::line));
