//! A short name for a failure, the same each time the same thing fails. Pure.
//!
//! CI that fails twice with one signature was not fixed by what was done in between. Everything
//! that differs between two runs of the same failure (times, durations, addresses, ids, temporary
//! folders) is removed first.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use crate::logs::error_lines;

/// The last error lines of a log that take part.
const LINES: usize = 12;

/// One failing check and the log of it that [`crate::Client::failure_log`] gave.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The check's name.
    pub check: &'a str,
    /// Its log; may be empty.
    pub log: &'a str,
}

/// Sixteen hex digits. The order of `failures` does not matter.
pub fn signature(failures: &[Failure<'_>]) -> String {
    let mut parts: Vec<String> = failures
        .iter()
        .map(|failure| {
            let mut lines: Vec<String> = error_lines(failure.log)
                .into_iter()
                .map(normalise)
                .filter(|line| !line.is_empty())
                .collect();
            let start = lines.len().saturating_sub(LINES);
            let last = lines.split_off(start);
            format!("{}\n{}", normalise(failure.check), last.join("\n"))
        })
        .collect();
    parts.sort();
    format!("{:016x}", fnv(parts.join("\0").as_bytes()))
}

/// What stays the same of a line when the same thing fails again.
fn normalise(line: &str) -> String {
    static NOISE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(?P<temp>(?:/private)?/(?:tmp|var/folders|var/tmp|home/runner/work/_temp)/[^\s:'\x22()]*)",
            r"|(?P<hex>\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]*[0-9][0-9a-fA-F]*(?:-[0-9a-fA-F]{4,})+\b|\b[0-9a-fA-F]{7,}\b)",
            r"|(?P<number>[0-9]+(?:[.:,][0-9]+)*)(?:\s*(?:ns|us|µs|ms|s|sec|secs|seconds|m|min|h)\b)?",
        ))
        .expect("the pattern is a constant")
    });
    let text = NOISE.replace_all(line.trim(), |found: &Captures<'_>| {
        if found.name("temp").is_some() {
            "<tmp>"
        } else if found.name("hex").is_some() {
            "<id>"
        } else {
            "<n>"
        }
    });
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// FNV-1a, 64 bits: stable across versions and machines, which the standard hasher is not.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(check: &str, log: &str) -> String {
        signature(&[Failure { check, log }])
    }

    #[test]
    fn same_failure_in_another_run_has_the_same_signature() {
        let first = "running 12 tests\nthread 'adds' (4711) panicked at src/lib.rs:17:5:\nassertion failed: left == right in /tmp/.tmpAb12/x.json\ntest result: FAILED. 11 passed; 1 failed; finished in 0.31s\nerror: test failed, commit 3f2a9c1d\n";
        let again = "running 12 tests\nthread 'adds' (4820) panicked at src/lib.rs:18:5:\nassertion failed: left == right in /tmp/.tmpQz99/x.json\ntest result: FAILED. 11 passed; 1 failed; finished in 1.7 s\nerror: test failed, commit 99ab01ff\n";
        assert_eq!(of("test", first), of("test", again));
    }

    #[test]
    fn another_error_or_check_has_another_signature() {
        let log = "error: expected `;`, found `}`";
        assert_ne!(of("test", log), of("test", "error: cannot find value `x`"));
        assert_ne!(of("test", log), of("lint", log));
        assert_ne!(of("test", log), of("test", ""));
    }

    #[test]
    fn order_of_checks_does_not_matter() {
        let a = Failure {
            check: "a",
            log: "error: one",
        };
        let b = Failure {
            check: "b",
            log: "error: two",
        };
        assert_eq!(signature(&[a, b]), signature(&[b, a]));
    }

    #[test]
    fn the_value_is_stable_across_versions() {
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn words_stay_and_noise_goes() {
        let cases = [
            ("took 3.25s (12 ms)", "took <n> (<n>)"),
            ("at 2026-11-21T10:00:00.123Z", "at <n>-<n>-<n>T<n>Z"),
            ("id 01932c07-7a00-7abc-8def-0123456789ab", "id <id>"),
            (
                "open /tmp/x/y.txt: no such file",
                "open <tmp>: no such file",
            ),
            ("added defaced feed", "added <id> feed"),
        ];
        for (line, wanted) in cases {
            assert_eq!(normalise(line), wanted, "{line}");
        }
    }
}
