//! What a pack holds, read without git.
//!
//! An object counts under the name that its bytes hash to, so a pack that somebody else reads differently can hide
//! objects from this reader, and never give one another content: what is not found here is refused or asked of the code
//! host. Everything is bounded: objects, bytes inflated, bytes kept. Commits, trees and small blobs are kept; a large
//! blob is passed over. A pack whose deltas lean on objects that it does not bring is not read.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read};

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use flate2::bufread::ZlibDecoder;
use tokio_util::sync::CancellationToken;

/// Objects in one pack.
const OBJECTS: u32 = 1_000_000;
/// Bytes that a pack may inflate to, deltas applied: minutes of work for a hostile one.
const INFLATED: u64 = 4 << 30;
/// Largest commit, tree or tag. A tree of 100,000 names has 5 MB.
const OBJECT: u64 = 32 << 20;
/// Largest blob that is kept: only files of CI definitions are ever looked at.
const BLOB: u64 = 1 << 20;
/// Bytes of kept objects and of deltas that wait for their base.
const KEPT: u64 = 128 << 20;
/// Of those, what blobs may take.
const KEPT_BLOBS: u64 = 32 << 20;

/// An object's name.
pub(super) type Oid = [u8; 20];

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// Why a pack is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It ends early, or does not inflate.
    #[error("its pack cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is no pack.
    #[error("its pack is malformed: {0}")]
    Malformed(&'static str),
    /// It is beyond a bound.
    #[error("its pack has too much to be checked: {0}")]
    TooLarge(&'static str),
    /// It leans on objects that it does not bring.
    #[error("its pack is a thin one: push with --no-thin")]
    Thin,
    /// Nobody waits for it any more.
    #[error("the push was cut")]
    Stopped,
}

/// The objects of a pack.
#[derive(Debug, Default)]
pub(super) struct Pack {
    objects: HashMap<Oid, (Kind, Vec<u8>)>,
}

/// A name in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub(super) mode: u32,
    pub(super) name: Vec<u8>,
    pub(super) oid: Oid,
}

impl Pack {
    /// Reads a pack up to its end, or until it is told to stop. An empty input is a pack without objects.
    pub(super) fn read(mut input: impl BufRead, stop: &CancellationToken) -> Result<Self, Error> {
        if input.fill_buf()?.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(input, stop);
        let mut head = [0; 12];
        reader.input.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(4);
        let (version, count) = rest.split_at(4);
        if magic != b"PACK" || !matches!(version, [0, 0, 0, 2 | 3]) {
            return Err(Error::Malformed("it does not begin as one"));
        }
        let count = u32::from_be_bytes(count.try_into().expect("four bytes are left of twelve"));
        if count > OBJECTS {
            return Err(Error::TooLarge("objects"));
        }
        for _ in 0..count {
            reader.goes_on()?;
            reader.entry()?;
        }
        // The checksum of the pack: each object is checked by its name instead.
        reader.input.read_exact(&mut [0; 20])?;
        if !reader.input.fill_buf()?.is_empty() {
            return Err(Error::Malformed("something follows it"));
        }
        if reader.waiting > 0 {
            return Err(Error::Thin);
        }
        Ok(reader.pack)
    }

    /// An object of a kind, where it came along.
    pub(super) fn get(&self, oid: &Oid, kind: Kind) -> Option<&[u8]> {
        let (found, data) = self.objects.get(oid)?;
        (*found == kind).then_some(data.as_slice())
    }

    /// All commits.
    pub(super) fn commits(&self) -> impl Iterator<Item = (&Oid, &[u8])> {
        self.objects
            .iter()
            .filter(|(_, (kind, _))| *kind == Kind::Commit)
            .map(|(oid, (_, data))| (oid, data.as_slice()))
    }
}

/// The tree of a commit.
pub(super) fn tree_of(commit: &[u8]) -> Option<Oid> {
    let line = commit.strip_prefix(b"tree ")?;
    (line.get(40) == Some(&b'\n'))
        .then(|| parse_oid(line.get(..40)?))
        .flatten()
}

/// The parents of a commit, as git reads them: the lines behind its tree.
pub(super) fn parents_of(commit: &[u8]) -> impl Iterator<Item = Oid> {
    commit
        .split(|byte| *byte == b'\n')
        .skip(1)
        .map_while(|line| parse_oid(line.strip_prefix(b"parent ")?))
}

/// The names in a tree, in its own order. `None` where it is none.
pub(super) fn entries(tree: &[u8]) -> Option<Vec<TreeEntry>> {
    let mut found = Vec::new();
    let mut rest = tree;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let (mode, after) = (&rest[..space], &rest[space + 1..]);
        let end = after.iter().position(|byte| *byte == 0)?;
        let (name, after) = (&after[..end], &after[end + 1..]);
        found.push(TreeEntry {
            mode: u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?,
            name: name.to_vec(),
            oid: after.get(..20)?.try_into().ok()?,
        });
        rest = &after[20..];
    }
    Some(found)
}

/// An object's name from its hex.
pub(super) fn parse_oid(hex: &[u8]) -> Option<Oid> {
    let text = std::str::from_utf8(hex).ok()?;
    if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut oid = [0; 20];
    for (byte, pair) in oid.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(oid)
}

/// The hex of an object's name.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a String takes any text");
        out
    })
}

fn name(kind: Kind, size: u64) -> Context {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(format!("{} {size}\0", kind.word()).as_bytes());
    hash
}

fn finish(hash: Context) -> Oid {
    let digest = hash.finish();
    digest.as_ref().try_into().expect("SHA-1 has twenty bytes")
}

/// What is at a place of the pack.
#[derive(Clone, Copy)]
enum Slot {
    /// An object that is kept.
    Kept(Oid),
    /// A blob that is not.
    Passed,
}

/// A delta whose base has not been met yet, and where it is.
struct Waiting {
    at: u64,
    delta: Vec<u8>,
}

struct Reader<'a, R> {
    input: Counted<R>,
    stop: &'a CancellationToken,
    pack: Pack,
    slots: HashMap<u64, Slot>,
    /// Blobs whose names are known and whose bytes are not.
    passed: HashSet<Oid>,
    by_place: HashMap<u64, Vec<Waiting>>,
    by_name: HashMap<Oid, Vec<Waiting>>,
    waiting: usize,
    inflated: u64,
    kept: u64,
    kept_blobs: u64,
}

impl<'a, R: BufRead> Reader<'a, R> {
    fn new(input: R, stop: &'a CancellationToken) -> Self {
        Self {
            input: Counted { input, at: 0 },
            stop,
            pack: Pack::default(),
            slots: HashMap::new(),
            passed: HashSet::new(),
            by_place: HashMap::new(),
            by_name: HashMap::new(),
            waiting: 0,
            inflated: 0,
            kept: 0,
            kept_blobs: 0,
        }
    }

    fn goes_on(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<(), Error> {
        let at = self.input.at;
        let first = self.byte()?;
        let mut size = u64::from(first & 0x0f);
        let mut shift = 4;
        let mut byte = first;
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if shift > 50 {
                return Err(Error::Malformed("a size"));
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        self.inflated = self.inflated.saturating_add(size);
        if self.inflated > INFLATED {
            return Err(Error::TooLarge("bytes"));
        }
        match (first >> 4) & 7 {
            1 => self.whole(at, Kind::Commit, size),
            2 => self.whole(at, Kind::Tree, size),
            3 => self.whole(at, Kind::Blob, size),
            4 => self.whole(at, Kind::Tag, size),
            6 => {
                let back = self.distance()?;
                let base = at
                    .checked_sub(back)
                    .filter(|_| back > 0)
                    .ok_or(Error::Malformed("the place of a base"))?;
                match self.slots.get(&base).copied() {
                    Some(Slot::Kept(oid)) => self.delta(at, oid, size),
                    Some(Slot::Passed) => self.pass(at, size),
                    None => {
                        let delta = self.keep_delta(size)?;
                        self.by_place
                            .entry(base)
                            .or_default()
                            .push(Waiting { at, delta });
                        Ok(())
                    }
                }
            }
            7 => {
                let mut base = [0; 20];
                self.input.read_exact(&mut base)?;
                if self.pack.objects.contains_key(&base) {
                    self.delta(at, base, size)
                } else if self.passed.contains(&base) {
                    self.pass(at, size)
                } else {
                    let delta = self.keep_delta(size)?;
                    self.by_name
                        .entry(base)
                        .or_default()
                        .push(Waiting { at, delta });
                    Ok(())
                }
            }
            _ => Err(Error::Malformed("the type of an object")),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// How far back the base of a delta is.
    fn distance(&mut self) -> Result<u64, Error> {
        let mut byte = self.byte()?;
        let mut back = u64::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            back = back
                .checked_add(1)
                .filter(|back| back.leading_zeros() > 7)
                .ok_or(Error::Malformed("the place of a base"))?;
            back = (back << 7) | u64::from(byte & 0x7f);
        }
        Ok(back)
    }

    /// Inflates exactly `size` bytes.
    fn inflate(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        // One more shows an object that is longer than it says, and makes the decoder see the end.
        ZlibDecoder::new(&mut self.input)
            .take(size + 1)
            .read_to_end(&mut data)?;
        if data.len() as u64 != size {
            return Err(Error::Malformed("an object has another size than it says"));
        }
        Ok(data)
    }

    /// An object that is no delta.
    fn whole(&mut self, at: u64, kind: Kind, size: u64) -> Result<(), Error> {
        if kind != Kind::Blob {
            if size > OBJECT {
                return Err(Error::TooLarge("a commit or tree"));
            }
            let data = self.inflate(size)?;
            return self.add(at, kind, data);
        }
        if self.takes_blob(size) {
            let data = self.inflate(size)?;
            return self.add(at, kind, data);
        }
        let mut hash = name(kind, size);
        let mut decoder = ZlibDecoder::new(&mut self.input).take(size + 1);
        let mut chunk = [0; 16 * 1024];
        let mut seen = 0;
        loop {
            match decoder.read(&mut chunk)? {
                0 => break,
                _ if self.stop.is_cancelled() => return Err(Error::Stopped),
                count => {
                    hash.update(&chunk[..count]);
                    seen += count as u64;
                }
            }
        }
        if seen != size {
            return Err(Error::Malformed("an object has another size than it says"));
        }
        let oid = finish(hash);
        self.passed.insert(oid);
        self.settle_passed(at);
        self.settle_name(oid);
        Ok(())
    }

    fn takes_blob(&self, size: u64) -> bool {
        size <= BLOB && self.kept_blobs + size <= KEPT_BLOBS
    }

    fn room(&mut self, size: u64) -> Result<(), Error> {
        self.kept += size;
        if self.kept > KEPT {
            return Err(Error::TooLarge("commits and trees"));
        }
        Ok(())
    }

    fn keep_delta(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > OBJECT {
            return Err(Error::TooLarge("a delta"));
        }
        self.room(size)?;
        self.waiting += 1;
        self.inflate(size)
    }

    /// A delta on an object that is kept.
    fn delta(&mut self, at: u64, base: Oid, size: u64) -> Result<(), Error> {
        let (kind, _) = self.pack.objects[&base];
        if size > OBJECT {
            return if kind == Kind::Blob {
                self.pass(at, size)
            } else {
                Err(Error::TooLarge("a delta"))
            };
        }
        let delta = self.inflate(size)?;
        if let Some(data) = self.apply(base, &delta)? {
            self.add(at, kind, data)
        } else {
            self.settle_passed(at);
            Ok(())
        }
    }

    /// The object that a delta makes of a kept one; `None` for a blob that is not kept.
    fn apply(&mut self, base: Oid, delta: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let (kind, size) = {
            let (kind, _) = &self.pack.objects[&base];
            (*kind, result_size(delta)?)
        };
        if kind == Kind::Blob && !self.takes_blob(size) {
            return Ok(None);
        }
        if size > OBJECT {
            return Err(Error::TooLarge("a commit or tree"));
        }
        self.inflated = self.inflated.saturating_add(size);
        if self.inflated > INFLATED {
            return Err(Error::TooLarge("bytes"));
        }
        let (_, base) = &self.pack.objects[&base];
        patched(base, delta).map(Some)
    }

    /// A delta on a blob that is not kept: it makes another such.
    fn pass(&mut self, at: u64, size: u64) -> Result<(), Error> {
        let read = io::copy(
            &mut ZlibDecoder::new(&mut self.input).take(size + 1),
            &mut io::sink(),
        )?;
        if read != size {
            return Err(Error::Malformed("an object has another size than it says"));
        }
        self.settle_passed(at);
        Ok(())
    }

    /// Keeps an object, and makes those that waited for it.
    fn add(&mut self, at: u64, kind: Kind, data: Vec<u8>) -> Result<(), Error> {
        let mut open = vec![(at, kind, data)];
        while let Some((at, kind, data)) = open.pop() {
            self.goes_on()?;
            let size = data.len() as u64;
            let mut hash = name(kind, size);
            hash.update(&data);
            let oid = finish(hash);
            self.slots.insert(at, Slot::Kept(oid));
            if !self.pack.objects.contains_key(&oid) {
                self.room(size)?;
                if kind == Kind::Blob {
                    self.kept_blobs += size;
                }
                self.pack.objects.insert(oid, (kind, data));
            }
            let mut ready = self.by_place.remove(&at).unwrap_or_default();
            ready.extend(self.by_name.remove(&oid).unwrap_or_default());
            self.waiting -= ready.len();
            for waiting in ready {
                match self.apply(oid, &waiting.delta)? {
                    Some(data) => open.push((waiting.at, kind, data)),
                    None => self.settle_passed(waiting.at),
                }
            }
        }
        Ok(())
    }

    /// What is at `at` is a blob that is not kept, and so is what waited for it.
    fn settle_passed(&mut self, at: u64) {
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            self.slots.insert(at, Slot::Passed);
            let waited = self.by_place.remove(&at).unwrap_or_default();
            self.waiting -= waited.len();
            open.extend(waited.iter().map(|waiting| waiting.at));
        }
    }

    fn settle_name(&mut self, oid: Oid) {
        let waited = self.by_name.remove(&oid).unwrap_or_default();
        self.waiting -= waited.len();
        for waiting in waited {
            self.settle_passed(waiting.at);
        }
    }
}

/// A size in a delta's head, and what follows it.
fn delta_size(delta: &[u8]) -> Result<(u64, &[u8]), Error> {
    let mut size = 0;
    for (index, byte) in delta.iter().enumerate().take(8) {
        size |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((size, &delta[index + 1..]));
        }
    }
    Err(Error::Malformed("a delta"))
}

fn result_size(delta: &[u8]) -> Result<u64, Error> {
    let (_, rest) = delta_size(delta)?;
    delta_size(rest).map(|(size, _)| size)
}

/// What a delta makes of its base.
fn patched(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, Error> {
    const WRONG: Error = Error::Malformed("a delta");
    let (from, rest) = delta_size(delta)?;
    let (to, mut rest) = delta_size(rest)?;
    if from != base.len() as u64 {
        return Err(WRONG);
    }
    let to = usize::try_from(to).map_err(|_| WRONG)?;
    let mut out = Vec::new();
    while let Some((&order, after)) = rest.split_first() {
        rest = after;
        let piece = if order & 0x80 != 0 {
            let mut number = |bits: std::ops::Range<u8>| {
                let mut value = 0_usize;
                for (place, bit) in bits.enumerate() {
                    if order & (1 << bit) != 0 {
                        let (&byte, after) = rest.split_first().ok_or(WRONG)?;
                        value |= usize::from(byte) << (8 * place);
                        rest = after;
                    }
                }
                Ok::<_, Error>(value)
            };
            let start = number(0..4)?;
            let length = match number(4..7)? {
                0 => 0x1_0000,
                length => length,
            };
            base.get(start..start + length).ok_or(WRONG)?
        } else if order == 0 {
            return Err(WRONG);
        } else {
            let (piece, after) = rest.split_at_checked(usize::from(order)).ok_or(WRONG)?;
            rest = after;
            piece
        };
        if out.len() + piece.len() > to {
            return Err(WRONG);
        }
        out.extend_from_slice(piece);
    }
    if out.len() == to { Ok(out) } else { Err(WRONG) }
}

/// Counts what was read.
struct Counted<R> {
    input: R,
    at: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
        self.input.consume(amount);
    }
}

#[cfg(test)]
mod tests;
