//! What a push asks for, read before any of it goes on.

use std::collections::VecDeque;

use bytes::Bytes;

use super::pktline::{self, Next, Packet};

/// The command section of a push, which is read up to here.
pub(super) const SECTION: usize = 64 * 1024;

/// One ref update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) old: String,
    pub(super) new: String,
    pub(super) reference: String,
    /// How the client wants to be answered.
    pub(super) answer: Answer,
}

/// The capabilities that shape an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) report: bool,
    pub(super) side_band: bool,
}

/// The head of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More bytes are needed.
    Incomplete,
    /// A lone flush, with which git tries the connection before a large push.
    Probe,
    /// Exactly one update.
    Update(Command),
    /// Something that is never passed on.
    Refused {
        /// The ref of the first command, where it was read.
        first: Option<Command>,
        reason: &'static str,
    },
}

/// Reads the command section at the head of a body.
pub(super) fn read(buffer: &[u8]) -> Head {
    let mut rest = buffer;
    let mut found: Option<Command> = None;
    loop {
        match pktline::next(rest) {
            Next::Incomplete if buffer.len() > SECTION => {
                return refused(found, "the list of commands is too long");
            }
            Next::Incomplete => return Head::Incomplete,
            Next::Malformed => return refused(found, "the list of commands is malformed"),
            Next::Packet(Packet::Flush, _) => return found.map_or(Head::Probe, Head::Update),
            Next::Packet(Packet::Line(_), _) if found.is_some() => {
                return refused(found, "a push may hold one command only");
            }
            Next::Packet(Packet::Line(line), taken) => {
                match command(line) {
                    Ok(command) => found = Some(command),
                    Err((first, reason)) => return refused(first, reason),
                }
                rest = &rest[taken..];
            }
        }
    }
}

/// The length of the command section of an [`Head::Update`], its flush included.
pub(super) fn section(buffer: &[u8]) -> usize {
    let mut length = 0;
    while let Next::Packet(packet, taken) = pktline::next(&buffer[length..]) {
        length += taken;
        if packet == Packet::Flush {
            break;
        }
    }
    length
}

/// Takes the first `length` bytes off chunks.
pub(super) fn split(chunks: &mut VecDeque<Bytes>, length: usize) -> Bytes {
    let mut head = Vec::with_capacity(length);
    while head.len() < length
        && let Some(mut chunk) = chunks.pop_front()
    {
        let part = chunk.split_to(chunk.len().min(length - head.len()));
        head.extend_from_slice(&part);
        if !chunk.is_empty() {
            chunks.push_front(chunk);
        }
    }
    head.into()
}

fn refused(first: Option<Command>, reason: &'static str) -> Head {
    Head::Refused { first, reason }
}

/// Reads `old new ref NUL capabilities`.
fn command(line: &[u8]) -> Result<Command, (Option<Command>, &'static str)> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Err((None, "the command is not text"));
    };
    let line = line.strip_suffix('\n').unwrap_or(line);
    if line.starts_with("shallow ") {
        return Err((None, "a push from a shallow clone is not allowed"));
    }
    if line.starts_with("push-cert") {
        return Err((None, "a signed push is not allowed"));
    }
    let (update, capabilities) = line.split_once('\0').unwrap_or((line, ""));
    if capabilities.contains('\0') {
        return Err((None, "the command is malformed"));
    }
    let mut words = update.splitn(3, ' ');
    let (Some(old), Some(new), Some(reference)) = (words.next(), words.next(), words.next()) else {
        return Err((None, "the command is malformed"));
    };
    if !is_id(old) || !is_id(new) || old.len() != new.len() {
        return Err((None, "the command names no object ids"));
    }
    let mut command = Command {
        old: old.into(),
        new: new.into(),
        reference: reference.into(),
        answer: Answer::default(),
    };
    let mut options = false;
    // Any white space separates them for git, and a value may follow.
    for capability in capabilities.split(|c: char| c.is_ascii_whitespace() || c == '\u{b}') {
        match capability {
            "report-status" | "report-status-v2" => command.answer.report = true,
            "side-band-64k" => command.answer.side_band = true,
            other => options |= other.starts_with("push-options"),
        }
    }
    if options {
        return Err((Some(command), "push options are not allowed"));
    }
    Ok(command)
}

/// Whether this is an object id, SHA-1 or SHA-256, in hex.
fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether an id stands for nothing, as the new side of a deletion does.
pub(super) fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::pktline::FLUSH;
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn body(lines: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            pktline::write(&mut out, line.as_bytes());
        }
        out.extend_from_slice(FLUSH);
        out.extend_from_slice(b"PACK....");
        out
    }

    #[test]
    fn one_update_is_read() {
        let head = read(&body(&[format!(
            "{A} {B} refs/heads/x\0 report-status-v2 side-band-64k object-format=sha1 agent=git/2"
        )]));
        let answer = Answer {
            report: true,
            side_band: true,
        };
        assert_eq!(
            head,
            Head::Update(Command {
                old: A.into(),
                new: B.into(),
                reference: "refs/heads/x".into(),
                answer
            })
        );
        assert_eq!(read(FLUSH), Head::Probe);
    }

    #[test]
    fn everything_else_is_refused() {
        let first = format!("{A} {B} refs/heads/x\0report-status");
        for (lines, word) in [
            (
                vec![first.clone(), format!("{A} {B} refs/heads/main")],
                "one command",
            ),
            (vec![first.clone(), first.clone()], "one command"),
            (vec![format!("shallow {A}"), first.clone()], "shallow"),
            (vec![first.clone(), format!("shallow {A}")], "one command"),
            (vec!["push-cert\0report-status\n".into()], "signed"),
            (
                vec![format!("{A} {B} refs/heads/x\0report-status push-options")],
                "options",
            ),
            (
                vec![format!(
                    "{A} {B} refs/heads/x\0report-status push-options\n"
                )],
                "options",
            ),
            (
                vec![format!(
                    "{A} {B} refs/heads/x\0report-status\tpush-options=1"
                )],
                "options",
            ),
            // Git reads capabilities up to the next NUL.
            (
                vec![format!(
                    "{A} {B} refs/heads/x\0report-status\0 side-band-64k"
                )],
                "malformed",
            ),
            (vec![format!("{A} refs/heads/x")], "malformed"),
            (vec![format!("{A} zz refs/heads/x")], "ids"),
            (vec![format!("{A} {B}{B} refs/heads/x")], "ids"),
            (vec![String::new()], "malformed"),
        ] {
            match read(&body(&lines)) {
                Head::Refused { reason, .. } => {
                    assert!(reason.contains(word), "{lines:?}: {reason}");
                }
                other => panic!("{lines:?} gave {other:?}"),
            }
        }
        assert!(matches!(read(b"garbage"), Head::Refused { .. }));
    }

    #[test]
    fn the_section_is_taken_off_however_it_was_cut() {
        let whole = body(&[format!("{A} {B} refs/heads/x\0report-status")]);
        let length = section(&whole);
        assert!(whole[..length].ends_with(FLUSH) && whole[length..].starts_with(b"PACK"));
        for size in [1, 7, 60, whole.len()] {
            let mut chunks: VecDeque<Bytes> =
                whole.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(split(&mut chunks, length), &whole[..length]);
            let rest: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
            assert_eq!(rest, &whole[length..]);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_cut_head_is_incomplete(cut in 0usize..80) {
            let whole = body(&[format!("{A} {B} refs/heads/x\0report-status")]);
            proptest::prop_assert_eq!(read(&whole[..cut]), Head::Incomplete);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
