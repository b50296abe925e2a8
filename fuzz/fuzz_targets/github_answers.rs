//! Bodies of GitHub's answers: what the steps read, errors, GraphQL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_github::{fuzzing, verdict};

fuzz_target!(|body: &[u8]| {
    fuzzing::answer(body);
    if let Some(checks) = fuzzing::checks(body) {
        let _ = verdict(&checks);
    }
    let _ = fuzzing::graphql(body);
    for status in [401, 403, 404, 422, 429, 503] {
        let headers: [(&str, &[u8]); 2] = [("retry-after", body), ("x-ratelimit-remaining", b"0")];
        let error = fuzzing::error(status, &headers, body).expect("a status");
        assert!(error.to_string().chars().count() < 1000);
        let _ = error.class();
    }
});
