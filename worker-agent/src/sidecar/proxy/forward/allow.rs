//! Which hosts may be asked for.

use std::net::IpAddr;

/// One entry of the allow-list: `host`, `*.suffix`, either with `:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: String,
    suffix: bool,
    port: Option<u16>,
}

/// An entry of the allow-list that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read host pattern {0:?}: it must be host, *.suffix, host:port or *.suffix:port")]
pub struct PatternError(String);

impl std::str::FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError(text.to_owned());
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| bad())?))
            }
            _ => (text, None),
        };
        let (name, suffix) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (host, false),
        };
        let name = normal(name).ok_or_else(bad)?;
        Ok(Self { name, suffix, port })
    }
}

impl HostPattern {
    /// A host in its normal form; ports 80 and 443 unless the pattern names one.
    pub(super) fn matches(&self, host: &str, port: u16) -> bool {
        let port_fits = self
            .port
            .map_or(matches!(port, 80 | 443), |own| own == port);
        port_fits
            && if self.suffix {
                is_below(host, &self.name)
            } else {
                host == self.name
            }
    }
}

/// Whether a name is a subdomain of another.
pub(super) fn is_below(host: &str, parent: &str) -> bool {
    host.strip_suffix(parent)
        .is_some_and(|head| head.len() > 1 && head.ends_with('.'))
}

/// Lower case, without brackets or the root's dot; `None` for what is no host. An address is written in one way.
pub(super) fn normal(host: &str) -> Option<String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let valid = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        });
    valid.then_some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_match_what_they_name() {
        for (pattern, host, port, want) in [
            ("crates.io", "crates.io", 443, true),
            ("Crates.IO.", "crates.io", 80, true),
            ("crates.io", "static.crates.io", 443, false),
            ("crates.io", "crates.io", 22, false),
            ("*.crates.io", "static.crates.io", 443, true),
            ("*.crates.io", "a.b.crates.io", 443, true),
            ("*.crates.io", "crates.io", 443, false),
            ("*.crates.io", "evilcrates.io", 443, false),
            ("*.crates.io", ".crates.io", 443, false),
            ("mirror:8081", "mirror", 8081, true),
            ("mirror:8081", "mirror", 443, false),
            ("[::1]:8081", "::1", 8081, true),
            ("127.0.0.1", "127.0.0.1", 80, true),
        ] {
            let parsed: HostPattern = pattern.parse().unwrap();
            assert_eq!(
                parsed.matches(host, port),
                want,
                "{pattern} against {host}:{port}"
            );
        }
        for bad in [
            "", "*", "*.", "a b", "a:b", "a:99999", "http://x", "a/..", "a..b", "é",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
