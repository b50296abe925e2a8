//! For the crate in `/fuzz` alone.

use std::net::IpAddr;

use super::{Never, address, allow};

/// A host in its normal form.
pub fn normal(host: &str) -> Option<String> {
    allow::normal(host)
}

/// Whether a host is, or is below, one that is never reached.
pub fn is_never(never: &str, port: Option<u16>, host: &str, asked: u16) -> bool {
    Never::new(never, port).matches(host, asked)
}

/// Whether an entry of the allow-list, where it reads, matches a host in its normal form.
pub fn is_allowed(pattern: &str, host: &str, port: u16) -> Option<bool> {
    let pattern: super::HostPattern = pattern.parse().ok()?;
    Some(pattern.matches(host, port))
}

/// Whether an address may be dialled where no network is named.
pub fn may_dial(address: IpAddr) -> bool {
    address::may_dial(address, &[])
}
