//! Hosts that the forward proxy is asked for, entries of its list, and addresses.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::forward::fuzzing;

// An address of 16 bytes, then the target and the entry of the list on a line each.
fuzz_target!(|input: &[u8]| {
    let Some((bytes, text)) = input.split_first_chunk::<16>() else {
        return;
    };
    let Some((target, pattern)) = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.split_once('\n'))
    else {
        return;
    };
    address(IpAddr::V4(Ipv4Addr::new(
        bytes[0], bytes[1], bytes[2], bytes[3],
    )));
    address(IpAddr::V6(Ipv6Addr::from(*bytes)));

    // As hyper hands it on.
    let Ok(authority) = target.parse::<http::uri::Authority>() else {
        return;
    };
    let port = authority.port_u16().unwrap_or(80);
    let Some(host) = fuzzing::normal(authority.host()) else {
        return;
    };
    assert_eq!(fuzzing::normal(&host).as_ref(), Some(&host));
    assert!(!host.contains(['@', '/', '[', ']', '%', ' ']));
    assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()));

    let is_code_host = host == "github.com" || host.ends_with(".github.com");
    assert_eq!(
        fuzzing::is_never("GitHub.com.", Some(443), &host, port),
        is_code_host
    );
    if let Some(true) = fuzzing::is_allowed(pattern, &host, port) {
        let bare = pattern.to_lowercase();
        match bare.strip_prefix("*.") {
            Some(suffix) => {
                let suffix = suffix
                    .split(':')
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches('.');
                assert!(host.ends_with(suffix) && host.len() > suffix.len() + 1);
            }
            None => assert!(
                host.parse::<IpAddr>().is_ok() || bare.starts_with(&host),
                "{pattern:?} allows {host:?}"
            ),
        }
        assert!(pattern.contains(':') || matches!(port, 80 | 443));
    }
});

/// The standard library's own idea of what is not public.
fn address(address: IpAddr) {
    let is_local = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_ipv4().is_some()
        }
    };
    assert!(!(is_local && fuzzing::may_dial(address)), "{address}");
}
