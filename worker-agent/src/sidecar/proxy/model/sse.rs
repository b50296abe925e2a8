//! Reads usage off a reply while its bytes pass.
//!
//! It is shown each chunk after the chunk was handed on, so that it can delay nothing. What it cannot read counts as
//! output: an estimate may charge too much, never too little for the bytes that passed.

use serde::Deserialize;

use super::usage::{Reported, Usage};

/// Longest event that is parsed. Longer ones are deltas, and their bytes are counted instead.
const EVENT: usize = 256 * 1024;

/// Bytes of text that are taken for one token in an estimate. Real text has about four.
const BYTES_PER_TOKEN: u64 = 3;

/// The meter of one event stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    line: Vec<u8>,
    overlong: u64,
    data: Vec<u8>,
    usage: Usage,
    delta_bytes: u64,
    started: bool,
    finished: bool,
}

impl Stream {
    /// Takes the next bytes, however they are cut.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// Whether `message_start` was seen, so that the input is counted.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// The input alone, which is certain from `message_start` on.
    pub(super) fn input(&self) -> Usage {
        Usage {
            output: 0,
            ..self.usage
        }
    }

    /// Whether the host's last counts were seen.
    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    /// What to charge: the host's counts, or for a reply that was cut, the larger of those and an estimate.
    pub(super) fn usage(&self) -> Usage {
        if self.finished {
            return self.usage;
        }
        let unread = self.overlong + self.data.len() as u64 + self.line.len() as u64;
        let estimate = (self.delta_bytes + unread).div_ceil(BYTES_PER_TOKEN);
        Usage {
            output: self.usage.output.max(estimate),
            ..self.usage
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.overlong > 0 || self.line.len() + bytes.len() > EVENT {
            self.overlong += bytes.len() as u64;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if self.overlong > 0 {
            self.delta_bytes += self.overlong + line.len() as u64;
            self.overlong = 0;
        } else {
            let text = line.strip_suffix(b"\r").unwrap_or(&line);
            if text.is_empty() {
                self.end_event();
            } else if let Some(data) = text.strip_prefix(b"data:") {
                if self.data.len() + data.len() > EVENT {
                    self.delta_bytes += (self.data.len() + data.len()) as u64;
                    self.data.clear();
                } else {
                    self.data.extend_from_slice(data);
                    self.data.push(b'\n');
                }
            }
        }
        line.clear();
        self.line = line;
    }

    fn end_event(&mut self) {
        if self.data.is_empty() {
            return;
        }
        match serde_json::from_slice::<Frame>(&self.data) {
            Ok(Frame::MessageStart { message }) => {
                self.started = true;
                message.usage.unwrap_or_default().raise(&mut self.usage);
            }
            Ok(Frame::MessageDelta { usage }) => {
                self.started = true;
                // The delta carries the final counts; a host that leaves them out is estimated.
                if let Some(usage) = usage {
                    usage.raise(&mut self.usage);
                    self.finished = true;
                }
            }
            Ok(Frame::Other) => {}
            Ok(Frame::ContentBlockDelta) | Err(_) => self.delta_bytes += self.data.len() as u64,
        }
        self.data.clear();
    }
}

/// The usage of a reply that is one JSON document.
pub(super) fn of_document(bytes: &[u8]) -> Option<Usage> {
    let reply: Message = serde_json::from_slice(bytes).ok()?;
    let mut usage = Usage::default();
    reply.usage?.raise(&mut usage);
    Some(usage)
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame {
    MessageStart {
        message: Message,
    },
    MessageDelta {
        usage: Option<Reported>,
    },
    ContentBlockDelta,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    usage: Option<Reported>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REPLY: &str = concat!(
        "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":7,\"output_tokens\":1}},\"type\":\"message_start\"}\n\n",
        "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\r\n\r\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":42}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn whole() -> Usage {
        Usage {
            input: 10,
            output: 42,
            cache_read: 7,
            ..Usage::default()
        }
    }

    #[test]
    fn a_whole_reply_is_charged_as_reported() {
        let mut stream = Stream::default();
        stream.feed(REPLY.as_bytes());
        assert_eq!(stream.usage(), whole());
    }

    #[test]
    fn a_cut_reply_is_charged_for_what_passed_rounded_up() {
        let mut stream = Stream::default();
        stream.feed(&REPLY.as_bytes()[..REPLY.find("event: ping").unwrap()]);
        let usage = stream.usage();
        assert_eq!((usage.input, usage.cache_read), (10, 7));
        assert!(usage.output > 1, "{usage:?}");
    }

    #[test]
    fn an_endless_line_is_counted_and_not_kept() {
        let mut stream = Stream::default();
        for _ in 0..64 {
            stream.feed(&vec![b'x'; 64 * 1024]);
        }
        assert!(stream.line.len() <= EVENT);
        assert_eq!(
            stream.usage().output,
            (64 * 64 * 1024_u64).div_ceil(BYTES_PER_TOKEN)
        );
        stream.feed(b"\n\n");
        stream.feed(REPLY.as_bytes());
        assert_eq!(stream.usage(), whole());
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_change_the_count(cuts in proptest::collection::vec(0..REPLY.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, REPLY.len()]);
            cuts.sort_unstable();
            let mut stream = Stream::default();
            for pair in cuts.windows(2) {
                stream.feed(&REPLY.as_bytes()[pair[0]..pair[1]]);
            }
            proptest::prop_assert_eq!(stream.usage(), whole());
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks: Vec<Vec<u8>>) {
            let mut stream = Stream::default();
            for chunk in &chunks {
                stream.feed(chunk);
            }
            let _ = (stream.usage(), of_document(&chunks.concat()));
        }
    }
}
