//! Replies of the model host: the usage in a stream and in a document, the headers of its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::model::{Price, fuzzing};

fuzz_target!(|bytes: &[u8]| {
    let price = Price {
        model_prefix: String::new(),
        input: 3_000_000,
        output: 15_000_000,
        cache_read: 300_000,
        cache_write_5m: 3_750_000,
        cache_write_1h: 6_000_000,
    };
    let whole = fuzzing::stream([bytes]);
    assert_eq!(
        fuzzing::stream(bytes.chunks(7)),
        whole,
        "cuts change nothing"
    );
    let (usage, _) = whole;
    price.cost_micros(usage);
    if let Some(usage) = fuzzing::document(bytes) {
        price.cost_micros(usage);
    }
    fuzzing::limits(&[
        ("retry-after", bytes),
        ("anthropic-ratelimit-unified-reset", bytes),
    ]);
    fuzzing::limits(&[
        ("anthropic-ratelimit-tokens-remaining", b"0"),
        ("anthropic-ratelimit-tokens-reset", bytes),
    ]);
});
