#![allow(clippy::unwrap_used)]
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

fn read(bytes: &[u8]) -> Result<Pack, Error> {
    Pack::read(bytes, &CancellationToken::new())
}

fn git(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    output.stdout
}

fn text(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(git(dir, args, b""))
        .unwrap()
        .trim()
        .to_owned()
}

/// A repository whose trees and files make deltas of each other.
fn history() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    git(path, &["init", "-q"], b"");
    for round in 0..6 {
        for file in 0..60 {
            let body = format!("file {file}\n").repeat(40);
            std::fs::write(path.join(format!("file-{file:03}.txt")), body).unwrap();
        }
        let changed = format!("line {round}\n") + &"the same\n".repeat(400);
        std::fs::write(path.join("changing.txt"), changed).unwrap();
        let lines: Vec<String> = (0..300_000).map(|n| format!("{n} {round}")).collect();
        let large = lines.join("\n");
        std::fs::write(path.join("large.txt"), large).unwrap();
        git(path, &["add", "-A"], b"");
        git(path, &["commit", "-qm", &format!("round {round}")], b"");
    }
    dir
}

/// All that is in the repository, and each commit, tree and small blob under its name.
fn is_whole(dir: &Path, pack: &Pack) {
    let listed = text(dir, &["cat-file", "--batch-check", "--batch-all-objects"]);
    let mut commits = 0;
    for line in listed.lines() {
        let mut words = line.split(' ');
        let (oid, kind, size) = (
            words.next().unwrap(),
            words.next().unwrap(),
            words.next().unwrap(),
        );
        let small = size.parse::<u64>().unwrap() <= BLOB;
        let name = parse_oid(oid.as_bytes()).unwrap();
        let kind = match kind {
            "commit" => Kind::Commit,
            "tree" => Kind::Tree,
            _ => Kind::Blob,
        };
        commits += usize::from(kind == Kind::Commit);
        let found = pack.get(&name, kind);
        assert_eq!(found.is_some(), small, "{line}");
        if let Some(found) = found {
            assert_eq!(
                found,
                git(dir, &["cat-file", kind.word(), oid], b""),
                "{line}"
            );
        }
    }
    assert_eq!(pack.commits().count(), commits);
}

#[test]
fn every_object_of_a_pack_is_found_whatever_its_deltas() {
    let dir = history();
    let path = dir.path();
    for options in [
        &["--revs", "--delta-base-offset"][..],
        &["--revs"],
        &["--revs", "--window=0"],
    ] {
        let mut args = vec!["pack-objects", "-q", "--stdout"];
        args.extend(options);
        let packed = git(path, &args, b"HEAD\n");
        let pack = read(&packed[..]).unwrap();
        is_whole(path, &pack);
        let head = parse_oid(text(path, &["rev-parse", "HEAD"]).as_bytes()).unwrap();
        let tree = tree_of(pack.get(&head, Kind::Commit).unwrap()).unwrap();
        assert_eq!(hex(&tree), text(path, &["rev-parse", "HEAD^{tree}"]));
        let names = entries(pack.get(&tree, Kind::Tree).unwrap()).unwrap();
        assert_eq!(names.len(), 62);
        assert_eq!(names[0].name, b"changing.txt");
        assert_eq!(names[0].mode, 0o100_644);
    }
}

#[test]
fn a_pack_that_leans_on_what_it_does_not_bring_is_refused() {
    let dir = history();
    let packed = git(
        dir.path(),
        &["pack-objects", "-q", "--stdout", "--revs", "--thin"],
        b"HEAD\n^HEAD~1\n",
    );
    assert!(matches!(read(&packed[..]), Err(Error::Thin)));
}

#[test]
fn a_pack_that_is_cut_or_goes_on_is_refused_and_none_is_empty() {
    let dir = history();
    let packed = git(
        dir.path(),
        &["pack-objects", "-q", "--stdout", "--revs"],
        b"HEAD\n^HEAD~1\n",
    );
    for cut in [1, 11, 12, packed.len() / 2, packed.len() - 1] {
        assert!(read(&packed[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [&packed[..], b"x"].concat();
    assert!(matches!(read(&longer[..]), Err(Error::Malformed(_))));
    assert_eq!(read(&b""[..]).unwrap().commits().count(), 0);
}

/// A pack with one object of this type and of the size that its head tells.
fn one(kind: u8, told: u64, data: &[u8]) -> Vec<u8> {
    let mut out = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    let mut rest = told >> 4;
    let mut byte = (kind << 4) | u8::try_from(told & 15).unwrap();
    while rest > 0 {
        out.push(byte | 0x80);
        byte = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
    }
    out.push(byte);
    let mut encoder = flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap();
    out.extend([0; 20]);
    out
}

#[test]
fn bombs_and_lies_about_sizes_are_refused() {
    let zeros = vec![0; 40 << 20];
    for (pack, word) in [
        (one(2, 40 << 20, &zeros), "too much"),
        (one(3, 5 << 30, b"x"), "too much"),
        (one(2, 3, b"xxxx"), "another size"),
        (one(3, 40, b"xxxx"), "another size"),
        (one(3, 2 << 20, &zeros), "another size"),
        (one(5, 1, b"x"), "type"),
        (b"PACK\0\0\0\x02\xff\0\0\0".to_vec(), "too much"),
        (b"PACK\0\0\0\x09\0\0\0\0".to_vec(), "begin"),
    ] {
        let error = read(&pack[..]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_pack_that_nobody_waits_for_is_read_no_further() {
    let stop = CancellationToken::new();
    stop.cancel();
    let read = Pack::read(&one(1, 1, b"x")[..], &stop);
    assert!(matches!(read, Err(Error::Stopped)), "{read:?}");
}

#[test]
fn parents_are_the_lines_behind_the_tree() {
    let (tree, one, two) = ("1".repeat(40), "2".repeat(40), "3".repeat(40));
    let commit = format!(
        "tree {tree}\nparent {one}\nparent {two}\nauthor a <a@b> 0 +0000\n\nparent {tree}\n"
    );
    let parents: Vec<String> = parents_of(commit.as_bytes()).map(|oid| hex(&oid)).collect();
    assert_eq!(parents, [one, two]);
    assert_eq!(parents_of(b"").count(), 0);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = read(&bytes[..]);
        let _ = patched(&bytes, &bytes);
        let _ = entries(&bytes);
        let _ = tree_of(&bytes);
    }

    #[test]
    fn arbitrary_objects_never_panic(kind in 0_u8..8, data: Vec<u8>) {
        let _ = read(&one(kind, data.len() as u64, &data)[..]);
    }
}
