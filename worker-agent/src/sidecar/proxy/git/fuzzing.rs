//! For the crate in `/fuzz` alone.

use tokio_util::sync::CancellationToken;

use super::advertise;
use super::commands::{self, Answer, Command, Head};
use super::pack::{self, Kind, Pack};
use super::pktline::{self, Next, Packet};
use super::report::{self, Outcome, Report};
use super::screen;

/// The head of a push. Where it is cut never changes what it asks for; what passes is one update that git reads the
/// same way, and the refusal that we write for it is read as one.
pub fn push(body: &[u8], cut: usize) {
    let head = commands::read(body);
    let part = commands::read(&body[..cut.min(body.len())]);
    assert!(part == Head::Incomplete || part == head);
    match head {
        Head::Update(command) => {
            let Next::Packet(Packet::Line(line), taken) = pktline::next(body) else {
                panic!("an update without a packet");
            };
            assert_eq!(&body[taken..taken + 4], pktline::FLUSH);
            let wanted = format!("{} {} {}", command.old, command.new, command.reference);
            assert!(line.starts_with(wanted.as_bytes()) && !wanted.contains('\0'));
            refused(&command);
        }
        Head::Refused {
            first: Some(command),
            ..
        } => refused(&command),
        Head::Refused { first: None, .. } | Head::Incomplete | Head::Probe => {}
    }
}

/// What the code host says it can do. Where it is cut changes nothing, and nothing but the capability is added.
pub fn advertise(bytes: &[u8], cut: usize) {
    const ADDED: &[u8] = b" no-thin\n";
    let whole = advertise::with_capability(bytes);
    let (head, tail) = bytes.split_at(cut.min(bytes.len()));
    if let Some(told) = advertise::with_capability(head) {
        assert_eq!(whole, Some([&told[..], tail].concat()));
    }
    if let Some(told) = whole.filter(|told| told != bytes) {
        assert!(told.len() <= bytes.len() + ADDED.len());
        assert!(told.windows(ADDED.len()).any(|part| part == ADDED));
        // The packets behind the one that is longer now are where they were.
        let same = told.iter().rev().zip(bytes.iter().rev());
        let same = same.take_while(|(told, read)| told == read).count();
        assert!(told.len() - same <= 4 * (4 + pktline::LONGEST));
    }
}

/// A change of one file, from these lines to those, as a person is shown it.
pub fn diff(old: &str, new: &str, room: usize) {
    screen::fuzzing::diff(old, new, room);
}

/// A pack. Each object that is found has the name that it hashes to, and its parts are read without a fall.
pub fn pack(bytes: &[u8]) {
    let Ok(found) = Pack::read(bytes, &CancellationToken::new()) else {
        return;
    };
    for (oid, commit) in found.commits() {
        assert!(found.get(oid, Kind::Commit).is_some() && found.get(oid, Kind::Blob).is_none());
        if let Some(tree) = pack::tree_of(commit)
            && let Some(tree) = found.get(&tree, Kind::Tree)
        {
            let _ = pack::entries(tree);
        }
    }
}

fn refused(command: &Command) {
    if let Some(bytes) = report::refusal(command, "no") {
        let mut report = Report::new(command.answer);
        report.feed(&bytes);
        let told = report.outcome(&command.reference);
        assert_eq!(told, Outcome::Rejected("no".to_owned()));
    }
}

/// The code host's report. Where it is cut never changes what it says, and only `ok` for the very ref is a push.
pub fn report(bytes: &[u8], cut: usize, side_band: bool) {
    const REFERENCE: &str = "refs/heads/mainloop/k3f9-x";
    let answer = Answer {
        report: true,
        side_band,
    };
    let mut whole = Report::new(answer);
    whole.feed(bytes);
    let (head, tail) = bytes.split_at(cut.min(bytes.len()));
    let mut parts = Report::new(answer);
    parts.feed(head);
    parts.feed(tail);
    let outcome = whole.outcome(REFERENCE);
    assert_eq!(parts.outcome(REFERENCE), outcome);
    if outcome == Outcome::Ok && !side_band {
        let ok = format!("ok {REFERENCE}");
        assert!(bytes.windows(ok.len()).any(|part| part == ok.as_bytes()));
    }
}
