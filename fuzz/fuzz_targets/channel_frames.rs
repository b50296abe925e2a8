//! What the harness sends on its channel: frame by frame, and as a connection that the sidecar holds.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::channel::fuzzing;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
});

fuzz_target!(|bytes: &[u8]| {
    fuzzing::frames(bytes);
    RUNTIME.block_on(fuzzing::session(bytes));
});
