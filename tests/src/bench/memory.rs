//! What a process holds in memory, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::figure::{Row, Unit, median};
use crate::world::wait::{PATIENCE, until};

/// Looks in a row that see the same before a process counts as at rest.
const SAME: usize = 10;

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// All of it.
    pub(super) resident: u64,
    /// What is its own; the rest are pages of files, mostly its program.
    pub(super) anonymous: u64,
}

impl Memory {
    /// Of a process that lives.
    pub(super) fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.split_whitespace().next());
            let kilobytes = kilobytes.and_then(|text| text.parse::<u64>().ok());
            kilobytes
                .map(|kilobytes| kilobytes * 1024)
                .with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self {
            resident: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
        })
    }

    /// Of a process once it changes no more for a while.
    pub(super) async fn at_rest(pid: i32) -> Result<Self> {
        let mut seen = Vec::new();
        until(
            &format!("the memory of process {pid} to stay the same"),
            PATIENCE.min(Duration::from_mins(1)),
            async || match Self::of(pid) {
                Ok(now) => {
                    if seen.last() != Some(&now) {
                        seen.clear();
                    }
                    seen.push(now);
                    if seen.len() >= SAME {
                        Ok(Ok(now))
                    } else {
                        Err(format!("{now:?}"))
                    }
                }
                Err(error) => Ok(Err(error)),
            },
        )
        .await?
    }
}

/// The row of one kind of process, seen several times.
pub(super) fn rows(name: &str, seen: &[Memory], target: f64) -> Vec<Row> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "memory in megabytes needs no more digits"
    )]
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let resident = seen.iter().map(|memory| megabytes(memory.resident));
    let own: Vec<f64> = seen
        .iter()
        .map(|memory| megabytes(memory.anonymous))
        .collect();
    let note = format!(
        "of it {:.2} MB its own, the rest pages of its program",
        median(&own)
    );
    vec![
        Row::plain(name, Unit::Megabytes, resident.collect())
            .noting(&note)
            .at_most(target),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_holds_memory_of_its_own() {
        let own = Memory::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(
            own.anonymous > 0 && own.anonymous <= own.resident,
            "{own:?}"
        );
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Memory::of(i32::MAX).is_err());
    }
}
