//! Git's packet lines: four hex digits of length, then the payload.

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// `0000`.
    Flush,
    /// A payload, perhaps empty.
    Line(&'a [u8]),
}

/// What is at the head of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A packet, and the bytes that it took.
    Packet(Packet<'a>, usize),
    /// More bytes are needed.
    Incomplete,
    /// This is not a packet that may stand here.
    Malformed,
}

/// Reads the first packet. Delimiters of protocol 2 (`0001` to `0003`) are malformed here: pushes never use them.
pub(super) fn next(buffer: &[u8]) -> Next<'_> {
    let Some(head) = buffer.get(..4) else {
        return if buffer.iter().all(u8::is_ascii_hexdigit) {
            Next::Incomplete
        } else {
            Next::Malformed
        };
    };
    // `from_str_radix` alone would take a sign.
    let length = match std::str::from_utf8(head) {
        Ok(text) if head.iter().all(u8::is_ascii_hexdigit) => usize::from_str_radix(text, 16).ok(),
        _ => None,
    };
    match length {
        Some(0) => Next::Packet(Packet::Flush, 4),
        Some(length @ 4..) => match buffer.get(4..length) {
            Some(payload) => Next::Packet(Packet::Line(payload), length),
            None => Next::Incomplete,
        },
        _ => Next::Malformed,
    }
}

/// The most bytes that a packet may carry.
pub(super) const LONGEST: usize = 65_516;

/// Appends a packet with a payload, which must not be longer than `LONGEST`.
pub(super) fn write(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend_from_slice(payload);
}

/// The packet that ends a list.
pub(super) const FLUSH: &[u8] = b"0000";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn packets_are_read() {
        for (bytes, want) in [
            (&b"0000rest"[..], Next::Packet(Packet::Flush, 4)),
            (b"0006hirest", Next::Packet(Packet::Line(b"hi"), 6)),
            (b"0004", Next::Packet(Packet::Line(b""), 4)),
            (b"", Next::Incomplete),
            (b"00", Next::Incomplete),
            (b"0009hi", Next::Incomplete),
            (b"0001", Next::Malformed),
            (b"+006hi", Next::Malformed),
            (b"PACK", Next::Malformed),
            (b"x", Next::Malformed),
        ] {
            assert_eq!(next(bytes), want, "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..2000), rest: Vec<u8>) {
            let mut bytes = Vec::new();
            write(&mut bytes, &payload);
            let length = bytes.len();
            bytes.extend(rest);
            proptest::prop_assert_eq!(next(&bytes), Next::Packet(Packet::Line(&payload), length));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = next(&bytes);
        }
    }
}
