//! What the code host says it can do, on its way to a client that wants to push: `no-thin` is added, so that a push
//! brings all that its deltas lean on and can be read by itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use hyper::body::Frame;

use super::pktline::{self, Next, Packet};
use crate::sidecar::proxy::body::{Body, BodyError};

/// What is added to the line of capabilities.
const ADDED: &[u8] = b" no-thin\n";
/// How much of an answer is read until it has named the capabilities.
const HEAD: usize = 128 * 1024;
/// Lines before the one that has them: `# service=...`, a flush, perhaps a version.
const LINES: usize = 4;

/// Adds the capability. An answer that has none passes as it is.
pub(super) async fn without_thin_packs(response: Response<Body>) -> Response<Body> {
    if !response.status().is_success() {
        return response;
    }
    let (mut head, mut body) = response.into_parts();
    let mut read = Vec::new();
    let first = loop {
        match with_capability(&read) {
            Some(first) => break first,
            None if read.len() > HEAD => break read,
            None => {}
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    read.extend_from_slice(&data);
                }
            }
            // What follows says the same to the client.
            Some(Err(_)) | None => break read,
        }
    };
    head.headers.remove(CONTENT_LENGTH);
    let body = Prefixed {
        first: Some(first.into()),
        rest: body,
    };
    Response::from_parts(head, body.boxed_unsync())
}

/// The answer with the capability; `None` where more of it is needed.
pub(super) fn with_capability(read: &[u8]) -> Option<Vec<u8>> {
    let mut rest = read;
    for _ in 0..LINES {
        match pktline::next(rest) {
            Next::Incomplete => return None,
            Next::Malformed => break,
            // A line without room passes as it is: at worst, a thin pack is refused as unreadable.
            Next::Packet(Packet::Line(line), taken)
                if line.contains(&0) && line.len() + ADDED.len() <= pktline::LONGEST =>
            {
                let mut line = line.strip_suffix(b"\n").unwrap_or(line).to_vec();
                line.extend_from_slice(ADDED);
                let mut out = read[..read.len() - rest.len()].to_vec();
                pktline::write(&mut out, &line);
                out.extend_from_slice(&rest[taken..]);
                return Some(out);
            }
            Next::Packet(_, taken) => rest = &rest[taken..],
        }
    }
    Some(read.to_vec())
}

/// A body with something before it.
struct Prefixed {
    first: Option<Bytes>,
    rest: Body,
}

impl hyper::body::Body for Prefixed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::pktline::FLUSH;
    use super::*;

    #[test]
    fn the_capability_is_added_once_the_line_is_there() {
        let mut answer = Vec::new();
        pktline::write(&mut answer, b"# service=git-receive-pack\n");
        answer.extend_from_slice(FLUSH);
        pktline::write(
            &mut answer,
            b"aaaa refs/heads/main\0report-status ofs-delta\n",
        );
        let cut = answer.len();
        pktline::write(&mut answer, b"bbbb refs/heads/x\n");
        answer.extend_from_slice(FLUSH);
        for end in [0, 3, 20, cut - 1] {
            assert_eq!(with_capability(&answer[..end]), None, "{end}");
        }
        let told = String::from_utf8(with_capability(&answer).unwrap()).unwrap();
        assert!(told.contains("report-status ofs-delta no-thin\n"), "{told}");
        assert!(told.ends_with("bbbb refs/heads/x\n0000"), "{told}");
        assert_eq!(with_capability(b"garbage"), Some(b"garbage".to_vec()));
    }

    #[test]
    fn a_line_without_room_for_it_passes_as_it_is() {
        for length in [pktline::LONGEST, 0xffff - 4] {
            let mut line = b"aaaa refs/heads/main\0report-status".to_vec();
            line.resize(length, b' ');
            let mut answer = Vec::new();
            pktline::write(&mut answer, &line);
            for _ in 0..LINES {
                answer.extend_from_slice(FLUSH);
            }
            assert!(with_capability(&answer) == Some(answer));
        }
    }
}
