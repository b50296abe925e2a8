//! The answer to a push: reading the code host's, and writing one in its place.

use super::commands::{Answer, Command};
use super::pktline::{self, FLUSH, Next, Packet};

/// How much of a report is kept; one command needs a few hundred bytes.
const REPORT: usize = 64 * 1024;

/// Longest packet.
const PACKET: usize = 65_520;

/// Reads the `report-status` of a push while its bytes pass.
#[derive(Debug)]
pub(super) struct Report {
    side_band: bool,
    /// The outer stream's bytes that do not make a packet yet.
    pending: Vec<u8>,
    /// The report itself.
    text: Vec<u8>,
    broken: bool,
}

/// What the code host says about the one command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The ref was updated.
    Ok,
    /// It was not, for this reason.
    Rejected(String),
    /// The report does not say.
    Unknown,
}

impl Report {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            side_band: answer.side_band,
            pending: Vec::new(),
            text: Vec::new(),
            broken: false,
        }
    }

    /// Takes the next bytes, however they are cut.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if !self.side_band {
            self.keep(bytes);
            return;
        }
        for piece in bytes.chunks(PACKET) {
            self.pending.extend_from_slice(piece);
            let pending = std::mem::take(&mut self.pending);
            let mut rest = &pending[..];
            loop {
                match pktline::next(rest) {
                    Next::Packet(Packet::Line([1, data @ ..]), taken) => {
                        self.keep(data);
                        rest = &rest[taken..];
                    }
                    Next::Packet(_, taken) => rest = &rest[taken..],
                    Next::Incomplete => break,
                    Next::Malformed => {
                        self.broken = true;
                        return;
                    }
                }
            }
            self.pending = rest.to_vec();
        }
    }

    /// What was said about a ref. Only an explicit `ok` after `unpack ok` is one.
    pub(super) fn outcome(&self, reference: &str) -> Outcome {
        if self.broken {
            return Outcome::Unknown;
        }
        let mut rest = &self.text[..];
        let mut unpacked = false;
        while let Next::Packet(Packet::Line(line), taken) = pktline::next(rest) {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end_matches('\n');
            if let Some(result) = line.strip_prefix("unpack ") {
                unpacked = result == "ok";
                if !unpacked {
                    return Outcome::Rejected(format!("unpack {result}"));
                }
            } else if line.strip_prefix("ok ") == Some(reference) && unpacked {
                return Outcome::Ok;
            } else if let Some(reason) = line
                .strip_prefix("ng ")
                .and_then(|ng| ng.strip_prefix(reference))
            {
                return Outcome::Rejected(reason.trim_start().to_owned());
            }
            rest = &rest[taken..];
        }
        Outcome::Unknown
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.text.len() + bytes.len() > REPORT {
            self.broken = true;
        } else {
            self.text.extend_from_slice(bytes);
        }
    }
}

/// A report that refuses a command, which git prints beside the ref. `None` where the client asked for no report.
pub(super) fn refusal(command: &Command, reason: &str) -> Option<Vec<u8>> {
    if !command.answer.report
        || command.reference.contains(['\n', '\0'])
        || command.reference.len() > 1024
    {
        return None;
    }
    let mut report = Vec::new();
    pktline::write(&mut report, b"unpack ok\n");
    pktline::write(
        &mut report,
        format!("ng {} {reason}\n", command.reference).as_bytes(),
    );
    report.extend_from_slice(FLUSH);
    if !command.answer.side_band {
        return Some(report);
    }
    let mut banded = Vec::new();
    report.insert(0, 1);
    pktline::write(&mut banded, &report);
    banded.extend_from_slice(FLUSH);
    Some(banded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn command(side_band: bool) -> Command {
        Command {
            old: "a".repeat(40),
            new: "b".repeat(40),
            reference: "refs/heads/x".into(),
            answer: Answer {
                report: true,
                side_band,
            },
        }
    }

    fn banded(lines: &[&str]) -> Vec<u8> {
        let mut report = vec![1];
        for line in lines {
            pktline::write(&mut report, line.as_bytes());
        }
        report.extend_from_slice(FLUSH);
        let mut out = Vec::new();
        pktline::write(&mut out, b"\x02remote: hello\n");
        let (head, tail) = report.split_at(7);
        pktline::write(&mut out, head);
        pktline::write(&mut out, &[&[1], tail].concat());
        out.extend_from_slice(FLUSH);
        out
    }

    fn outcome(lines: &[&str]) -> Outcome {
        let mut report = Report::new(command(true).answer);
        report.feed(&banded(lines));
        report.outcome("refs/heads/x")
    }

    #[test]
    fn only_an_explicit_ok_is_a_push() {
        assert_eq!(outcome(&["unpack ok\n", "ok refs/heads/x\n"]), Outcome::Ok);
        assert_eq!(
            outcome(&["unpack ok\n", "ok refs/heads/x\n", "option old-oid 1\n"]),
            Outcome::Ok
        );
        assert_eq!(
            outcome(&["unpack ok\n", "ok refs/heads/xy\n"]),
            Outcome::Unknown
        );
        assert_eq!(outcome(&["ok refs/heads/x\n"]), Outcome::Unknown);
        assert_eq!(outcome(&["unpack ok\n"]), Outcome::Unknown);
        assert_eq!(
            outcome(&["unpack index-pack failed\n"]),
            Outcome::Rejected("unpack index-pack failed".into())
        );
        let hook = ["unpack ok\n", "ng refs/heads/x hook declined\n"];
        assert_eq!(outcome(&hook), Outcome::Rejected("hook declined".into()));
    }

    #[test]
    fn a_written_refusal_is_read_as_one() {
        for side_band in [false, true] {
            let command = command(side_band);
            let mut report = Report::new(command.answer);
            report.feed(&refusal(&command, "the plan is not approved").unwrap());
            assert_eq!(
                report.outcome("refs/heads/x"),
                Outcome::Rejected("the plan is not approved".into())
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_change_the_outcome(size in 1usize..40) {
            let mut report = Report::new(command(true).answer);
            for piece in banded(&["unpack ok\n", "ok refs/heads/x\n"]).chunks(size) {
                report.feed(piece);
            }
            proptest::prop_assert_eq!(report.outcome("refs/heads/x"), Outcome::Ok);
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks: Vec<Vec<u8>>, side_band: bool) {
            let mut report = Report::new(Answer { report: true, side_band });
            for chunk in &chunks {
                report.feed(chunk);
            }
            let _ = report.outcome("refs/heads/x");
        }
    }
}
