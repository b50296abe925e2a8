//! A change of CI definitions as a person reads it: every path, then what changed in each, bounded. Characters that a
//! terminal or a reader would not show are written out, and no file's content ends its block of code.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use mainloop_github::text;
use similar::TextDiff;

use super::super::pack::{self, Kind, Oid};
use super::{Definitions, Looked, Screen, Trouble, is_folder};

/// Files that one change may touch; more cannot be judged by anybody.
const FILES: usize = 100;
/// Folders that are looked into.
const FOLDERS: usize = 100;
/// Bytes of a file that is shown.
const FILE: usize = 128 * 1024;
/// Bytes of the lines that are shown of one file.
const SHOWN: usize = 16 * 1024;
/// Of all files.
const ALL_SHOWN: usize = 64 * 1024;
/// Bytes of all that a person is shown, paths included. What carries it to them takes no more than four times that.
const TOLD: usize = 256 * 1024;
/// Longest path that is looked at, in bytes: no checkout takes a longer one.
const PATH: usize = 4096;
/// Characters of a path that are shown.
const PATH_SHOWN: usize = 200;
/// Characters of a line that are shown.
const LINE: usize = 500;
/// What ends a line that is cut.
const GOES_ON: &str = " …(the line goes on)";
/// How long the files of a change may be compared, all of them together.
pub(super) const COMPARE: Duration = Duration::from_secs(2);

/// What changed.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) paths: Vec<String>,
    pub(super) markdown: String,
}

/// A file that differs, as a person is shown it.
struct File {
    path: String,
    what: &'static str,
    /// Before and after; `None` where that cannot be shown.
    texts: Option<(String, String)>,
}

type Side = Option<(u32, Oid)>;

/// The change from one state of the definitions to another.
pub(super) async fn between(
    screen: &Screen,
    looked: &Looked,
    before: &Definitions,
    after: &Definitions,
) -> Result<Change, Trouble> {
    let mut told = Vec::new();
    for (path, (old, new)) in files(screen, looked, before, after).await? {
        let what = match (old, new) {
            (None, _) => "new",
            (_, None) => "deleted",
            (Some((before, _)), Some((after, _))) if before != after => "another kind of file",
            _ => "changed",
        };
        let (old, new) = (
            content(screen, looked, old).await?,
            content(screen, looked, new).await?,
        );
        told.push(File {
            path: shown_path(&path),
            what,
            texts: old.zip(new),
        });
    }
    let change = looked.apart(move |_| written(told)).await?;
    let told = change.paths.iter().map(String::len).sum::<usize>() + change.markdown.len();
    if told > TOLD {
        return Err(Trouble::Unreadable(
            "the paths that it changes are too long to be shown".to_owned(),
        ));
    }
    Ok(change)
}

/// A path without what would end a span of code, and not too long.
fn shown_path(path: &[u8]) -> String {
    let path = revealed(&String::from_utf8_lossy(path)).replace('`', "'");
    match path.char_indices().nth(PATH_SHOWN) {
        Some((at, _)) => format!("{}…", &path[..at]),
        None => path,
    }
}

/// The list of the files, then what changed in each.
fn written(files: Vec<File>) -> Change {
    let deadline = Instant::now() + COMPARE;
    let mut list = String::new();
    let mut blocks = String::new();
    let mut left_out = Vec::new();
    for File { path, what, texts } in &files {
        writeln!(list, "- `{path}`: {what}").expect("a String takes any text");
        let Some((old, new)) = texts.as_ref().filter(|_| Instant::now() < deadline) else {
            left_out.push(path.as_str());
            continue;
        };
        let room = ALL_SHOWN.saturating_sub(blocks.len());
        let (shown, whole) = shown(old, new, room, deadline);
        if !whole {
            left_out.push(path);
        }
        if !shown.is_empty() {
            let fence = fence(&shown);
            writeln!(blocks, "\n`{path}`\n\n{fence}diff\n{shown}{fence}")
                .expect("a String takes any text");
        }
    }
    let mut markdown = list;
    if !left_out.is_empty() {
        writeln!(
            markdown,
            "\n**Not all of it is shown**: too long, or no text, in `{}`.",
            left_out.join("`, `")
        )
        .expect("a String takes any text");
    }
    markdown.push_str(&blocks);
    Change {
        paths: files.into_iter().map(|file| file.path).collect(),
        markdown,
    }
}

/// Every file that differs.
async fn files(
    screen: &Screen,
    looked: &Looked,
    before: &Definitions,
    after: &Definitions,
) -> Result<BTreeMap<Vec<u8>, (Side, Side)>, Trouble> {
    let too_many = || Trouble::Unreadable("it changes too many files".to_owned());
    let mut found = BTreeMap::new();
    let mut open = paired(&before.0, &after.0);
    let mut folders = 0;
    while let Some((path, sides)) = open.pop() {
        let (old, new) = sides;
        if old == new {
            continue;
        }
        if path.len() > PATH {
            return Err(Trouble::Unreadable("a path is too long".to_owned()));
        }
        let mut inside = [BTreeMap::new(), BTreeMap::new()];
        for (side, inside) in [old, new].into_iter().zip(&mut inside) {
            let Some((_, oid)) = side.filter(|(mode, _)| is_folder(*mode)) else {
                continue;
            };
            folders += 1;
            if folders > FOLDERS {
                return Err(too_many());
            }
            let tree = screen.tree(looked, &oid).await?.ok_or_else(|| {
                Trouble::Unreadable(format!("{} is not there", String::from_utf8_lossy(&path)))
            })?;
            for entry in tree.iter() {
                let path = [&path[..], b"/", &entry.name].concat();
                inside.insert(path, (entry.mode, entry.oid));
            }
        }
        let [inside_old, inside_new] = inside;
        open.extend(paired(&inside_old, &inside_new));
        let file = |side: Side| side.filter(|(mode, _)| !is_folder(*mode));
        if file(old).is_some() || file(new).is_some() {
            found.insert(path, (file(old), file(new)));
        }
        if found.len() > FILES || open.len() > FILES * FILES {
            return Err(too_many());
        }
    }
    Ok(found)
}

type Entries = BTreeMap<Vec<u8>, (u32, Oid)>;

fn paired(before: &Entries, after: &Entries) -> Vec<(Vec<u8>, (Side, Side))> {
    let mut pairs: BTreeMap<&Vec<u8>, (Side, Side)> = BTreeMap::new();
    for (path, side) in before {
        pairs.entry(path).or_default().0 = Some(*side);
    }
    for (path, side) in after {
        pairs.entry(path).or_default().1 = Some(*side);
    }
    pairs
        .into_iter()
        .map(|(path, sides)| (path.clone(), sides))
        .collect()
}

/// What is in a file, as text; `None` where that cannot be shown.
async fn content(screen: &Screen, looked: &Looked, side: Side) -> Result<Option<String>, Trouble> {
    let Some((mode, oid)) = side else {
        return Ok(Some(String::new()));
    };
    let sha = pack::hex(&oid);
    if mode & super::KIND == 0o160_000 {
        return Ok(Some(format!("(a submodule at commit {sha})\n")));
    }
    let bytes = match looked.pack.get(&oid, Kind::Blob) {
        Some(bytes) => Some(bytes.to_vec()),
        None => match screen.question(looked).await?.blob(&sha, FILE).await {
            Err(mainloop_github::Error::TooLarge { .. }) => None,
            other => other?,
        },
    };
    let text = bytes
        .filter(|bytes| bytes.len() <= FILE)
        .and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(match mode {
        0o120_000 => text.map(|target| format!("(a symbolic link to {target})\n")),
        0o100_755 => text.map(|text| format!("(executable)\n{text}")),
        _ => text,
    })
}

/// The lines that differ, and whether these are all.
pub(super) fn shown(old: &str, new: &str, room: usize, deadline: Instant) -> (String, bool) {
    let diff = TextDiff::configure()
        .deadline(deadline)
        .diff_lines(old, new);
    let diff = diff.unified_diff().context_radius(3).to_string();
    let room = room.min(SHOWN);
    let (mut out, mut whole) = (String::new(), true);
    for line in diff.lines() {
        let line = revealed(line);
        let cut = line.char_indices().nth(LINE).map(|(at, _)| at);
        let line = cut.map_or(line.as_str(), |at| &line[..at]);
        // Room for the end of a line that is cut as well.
        if out.len() + line.len() + GOES_ON.len() + 1 > room {
            return (out, false);
        }
        out.push_str(line);
        if cut.is_some() {
            out.push_str(GOES_ON);
            whole = false;
        }
        out.push('\n');
    }
    (out, whole)
}

/// With every character written out that a reader would not see, or that would act on a terminal.
fn revealed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let is_hidden = character != '\t'
            && (character.is_control()
                || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200c}' | '\u{200d}')
                || text::visible(&character.to_string()).is_empty());
        if is_hidden {
            write!(out, "<U+{:04X}>", u32::from(character)).expect("a String takes any text");
        } else {
            out.push(character);
        }
    }
    out
}

/// A fence that nothing in the text ends.
pub(super) fn fence(text: &str) -> String {
    let longest = text
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_written_out() {
        assert_eq!(
            revealed("a\u{1b}[2J\u{202e}b\tc\u{200b}"),
            "a<U+001B>[2J<U+202E>b\tc<U+200B>"
        );
    }

    #[test]
    fn lines_that_differ_are_shown_and_a_cut_is_told() {
        let shown = |old: &str, new: &str, room| shown(old, new, room, Instant::now() + COMPARE);
        let (text, whole) = shown("a\nb\nc\n", "a\nx\nc\n", ALL_SHOWN);
        assert!(whole);
        assert!(text.contains("-b\n+x\n"), "{text}");
        let (text, whole) = shown("", &"y\n".repeat(40_000), ALL_SHOWN);
        assert!(!whole && text.len() <= SHOWN);
        let (text, whole) = shown("", &"y".repeat(2 * LINE), ALL_SHOWN);
        assert!(!whole && text.contains("goes on"), "{text}");
        let (text, whole) = shown("", "y\n", 0);
        assert!(!whole && text.is_empty());
    }

    #[test]
    fn the_longest_change_that_is_told_fits_into_a_frame() {
        let file = |n: usize| File {
            path: shown_path(format!("{n}{}", "\u{1b}".repeat(PATH)).as_bytes()),
            what: "another kind of file",
            texts: Some(("x\n".repeat(FILE / 2), "`\n".repeat(FILE / 2))),
        };
        let Change { paths, markdown } = written((0..FILES).map(file).collect());
        assert!(
            paths
                .iter()
                .all(|path| path.chars().count() <= PATH_SHOWN + 1)
        );
        let told = paths.iter().map(String::len).sum::<usize>() + markdown.len();
        assert!(told < TOLD, "{told}");
    }

    #[test]
    fn no_content_ends_its_block() {
        assert_eq!(fence("+```` x\n"), "`````");
        assert_eq!(fence("+x\n"), "```");
    }
}
