//! Frames: a length, a kind, and either a JSON message or the raw bytes of one line.
//!
//! Lines travel raw because they are JSON themselves, and would double in quoting.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::MAX_FRAME;

const MESSAGE: u8 = 0;
const LINE: u8 = 1;
const STDERR: u8 = 2;

/// One frame, with `M` the messages of its direction.
#[derive(Debug)]
pub(crate) enum Frame<M> {
    Message(M),
    /// A line of Claude's stdin or stdout, by direction.
    Line(String),
    /// A line of Claude's stderr.
    Stderr(String),
}

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The peer sent a frame without a known kind.
    #[error("frame of unknown kind {0:?}")]
    Kind(Option<u8>),
    /// The peer's message does not parse, or ours does not print.
    #[error("message in a frame")]
    Message(#[from] serde_json::Error),
}

impl<M: Serialize + DeserializeOwned> Frame<M> {
    pub(crate) fn encode(&self) -> Result<Bytes, FrameError> {
        let mut buffer = BytesMut::new();
        match self {
            Self::Message(message) => {
                buffer.put_u8(MESSAGE);
                buffer.extend_from_slice(&serde_json::to_vec(message)?);
            }
            Self::Line(line) => {
                buffer.reserve(line.len() + 1);
                buffer.put_u8(LINE);
                buffer.extend_from_slice(line.as_bytes());
            }
            Self::Stderr(line) => {
                buffer.put_u8(STDERR);
                buffer.extend_from_slice(line.as_bytes());
            }
        }
        Ok(buffer.freeze())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let text = |rest: &[u8]| String::from_utf8_lossy(rest).into_owned();
        match bytes.split_first() {
            Some((&MESSAGE, rest)) => Ok(Self::Message(serde_json::from_slice(rest)?)),
            Some((&LINE, rest)) => Ok(Self::Line(text(rest))),
            Some((&STDERR, rest)) => Ok(Self::Stderr(text(rest))),
            other => Err(FrameError::Kind(other.map(|(kind, _)| *kind))),
        }
    }
}

pub(crate) fn reader(half: OwnedReadHalf) -> FramedRead<OwnedReadHalf, LengthDelimitedCodec> {
    FramedRead::new(half, codec())
}

pub(crate) fn writer(half: OwnedWriteHalf) -> FramedWrite<OwnedWriteHalf, LengthDelimitedCodec> {
    FramedWrite::new(half, codec())
}

pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_codec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::channel::{Order, Report, Signal};

    #[test]
    fn messages_and_lines_come_back() {
        let sent = Frame::Message(Order::ClaudeSignal(Signal::Interrupt))
            .encode()
            .unwrap();
        let Frame::Message(Order::ClaudeSignal(Signal::Interrupt)) =
            Frame::<Order>::decode(&sent).unwrap()
        else {
            panic!("another frame: {sent:?}");
        };
        let sent = Frame::<Order>::Line("{\"a\":\"b\"}".into())
            .encode()
            .unwrap();
        let Frame::Line(line) = Frame::<Order>::decode(&sent).unwrap() else {
            panic!("another frame: {sent:?}");
        };
        assert_eq!(line, "{\"a\":\"b\"}");
    }

    #[test]
    fn an_empty_frame_is_an_error() {
        assert!(matches!(
            Frame::<Report>::decode(&[]),
            Err(FrameError::Kind(None))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Frame::<Report>::decode(&bytes);
            let mut message = vec![0u8];
            message.extend(bytes);
            let _ = Frame::<Order>::decode(&message);
        }
    }
}
