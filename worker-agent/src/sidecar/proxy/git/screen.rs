//! What is looked at in a push before any of it goes on: whether it changes what GitHub Actions runs, and whether a
//! commit's message would act on GitHub.
//!
//! Judged is the head of the push, for that is what runs: its definitions must be those of the base, those that the
//! branch has on the code host, or ones that a person allowed by their hash. Objects that the push does not bring are
//! asked of the code host by name. What cannot be judged is refused.

mod diff;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use mainloop_github::{Client, text};

use super::commands::{self, Command};
use super::pack::{self, Kind, Oid, Pack, TreeEntry};

/// The folder at the root that holds definitions.
const FOLDER: &str = ".github";
/// What of it GitHub Actions runs.
const WATCHED: [&str; 2] = ["workflows", "actions"];
/// Names in the trees of the code host that are remembered.
const NAMES: usize = 500_000;
/// Longest name, in bytes, that any file system takes.
const NAME: usize = 1024;
/// The mode of a folder, and what tells kinds of entries apart.
const FOLDER_MODE: u32 = 0o040_000;
const KIND: u32 = 0o170_000;

/// What is done about a push that changes CI definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkflowFiles {
    /// It passes.
    Allow,
    /// A person is asked.
    Ask,
    /// It is refused.
    Refuse,
}

/// What pushes are looked at for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects are asked for that a push does not bring.
    pub github: Client,
    /// What is done about changed CI definitions.
    pub workflow_files: WorkflowFiles,
}

/// Why a push was turned away that can pass another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A person has to allow the change of CI definitions.
    Held(HeldChange),
    /// Policy lets no push change CI definitions.
    Definitions(String),
    /// A commit's message has to be another.
    Message(String),
    /// It cannot be looked at: too large, or not as git writes it.
    Unreadable(String),
}

/// A change of CI definitions that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldChange {
    /// Hash of the definitions as they would be: what a yes is for.
    pub hash: String,
    /// What changed.
    pub paths: Vec<String>,
    /// The change in Markdown, bounded and without hidden characters.
    pub diff: String,
}

/// Decides about pushes. Cheap to clone; clones share what they know.
#[derive(Clone, Debug)]
pub struct Screen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    github: Client,
    workflow_files: WorkflowFiles,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    base: Option<(String, String)>,
    allowed: HashSet<String>,
    refusal: Option<Refusal>,
    /// Definitions of heads that passed.
    passed: HashMap<String, Definitions>,
    trees: HashMap<String, Arc<Vec<TreeEntry>>>,
}

/// What GitHub Actions runs of a commit: paths with the mode and the name of what is there. A folder stands for all
/// that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Definitions(BTreeMap<Vec<u8>, (u32, Oid)>);

/// Why a push does not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It may pass another time.
    #[error("{}", .0.words())]
    Refused(Refusal),
    /// The code host did not say what is needed.
    #[error("the code host could not be asked what the push changes, try again: {0}")]
    Unknown(#[from] mainloop_github::Error),
    /// The branch is not what the push says it was.
    #[error("the branch has moved on the code host: fetch it and try again")]
    Moved,
    /// It leads to something that is nowhere.
    #[error("what the push changes cannot be told: {0}")]
    Unreadable(String),
}

impl Refusal {
    /// For who pushes, in one line.
    fn words(&self) -> String {
        match self {
            Self::Held(held) => format!(
                "this push changes {} and waits for a person. Go on with your work: they are asked when you are done, and it \
                 is pushed when they allow it",
                listed(&held.paths)
            ),
            Self::Definitions(why) | Self::Message(why) | Self::Unreadable(why) => why.clone(),
        }
    }
}

/// Some names for a sentence.
fn listed(paths: &[String]) -> String {
    match paths {
        [] => "CI definitions".to_owned(),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

/// A name as file systems that do not tell cases apart, or drop what is invisible or trails, read it.
fn folded(name: &[u8]) -> String {
    if name.len() > NAME {
        return String::new();
    }
    let name: String = String::from_utf8_lossy(name)
        .chars()
        .filter(|character| !text::visible(&character.to_string()).is_empty())
        .filter(|character| !matches!(character, '\u{200c}' | '\u{200d}'))
        .flat_map(char::to_lowercase)
        .collect();
    name.trim_end_matches(['.', ' ']).to_owned()
}

fn is_folder(mode: u32) -> bool {
    mode & KIND == FOLDER_MODE
}

impl Definitions {
    fn hash(&self) -> String {
        let mut listed = Vec::new();
        for (path, (mode, oid)) in &self.0 {
            // No name in a tree has a NUL.
            listed.extend_from_slice(path);
            listed.extend_from_slice(format!("\0{mode:o} {}\0", pack::hex(oid)).as_bytes());
        }
        pack::hex(digest(&SHA256, &listed).as_ref())
    }
}

impl Screen {
    /// A screen that knows no base yet.
    pub(super) fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            github: options.github,
            workflow_files: options.workflow_files,
            known: Mutex::default(),
        }))
    }

    /// The branch that the work goes to, and the commit of it that it starts from.
    pub fn set_base(&self, branch: &str, sha: &str) {
        self.known().base = Some((branch.to_owned(), sha.to_owned()));
    }

    /// A person allowed the definitions with this hash.
    pub fn allow(&self, hash: &str) {
        self.known().allowed.insert(hash.to_owned());
    }

    /// Why the last push was turned away, if that can change; told once.
    pub fn take_refusal(&self) -> Option<Refusal> {
        self.known().refusal.take()
    }

    /// Another push comes: why the last one was turned away no longer counts.
    pub(super) fn begin(&self) {
        self.known().refusal = None;
    }

    /// Notes that a push cannot be looked at, and why; returns that.
    pub(super) fn give_up(&self, why: String) -> String {
        self.known().refusal = Some(Refusal::Unreadable(why.clone()));
        why
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a push may go on.
    pub(super) async fn check(&self, command: &Command, pack: &Pack) -> Result<(), Trouble> {
        let checked = self.judge(command, pack).await;
        if let Err(Trouble::Refused(refusal)) = &checked {
            self.known().refusal = Some(refusal.clone());
        }
        checked
    }

    async fn judge(&self, command: &Command, pack: &Pack) -> Result<(), Trouble> {
        messages(pack)?;
        if self.0.workflow_files == WorkflowFiles::Allow {
            return Ok(());
        }
        let new = self.definitions(pack, &command.new).await?;
        let base = self.known().base.clone();
        let Some((branch, base)) = base else {
            return Err(Trouble::Unreadable("its base is not known yet".to_owned()));
        };
        let pushed = self.pushed(command).await?;
        let at_base = self.definitions_at(&base).await?;
        let is_known = pushed.as_ref() == Some(&new)
            || at_base == new
            || self.known().allowed.contains(&new.hash());
        if is_known || self.is_at_tip(&branch, &base, &new).await? {
            self.known().passed.insert(command.new.clone(), new);
            return Ok(());
        }
        let before = pushed.unwrap_or(at_base);
        let change = diff::between(self, pack, &before, &new).await?;
        Err(Trouble::Refused(match self.0.workflow_files {
            WorkflowFiles::Refuse => Refusal::Definitions(format!(
                "policy lets no worker change what GitHub Actions runs: undo the change of {} in a new commit",
                listed(&change.paths)
            )),
            WorkflowFiles::Allow | WorkflowFiles::Ask => Refusal::Held(HeldChange {
                hash: new.hash(),
                paths: change.paths,
                diff: change.markdown,
            }),
        }))
    }

    /// Definitions that the branch has on the code host; none where the push makes it.
    async fn pushed(&self, command: &Command) -> Result<Option<Definitions>, Trouble> {
        let old = &command.old;
        if commands::is_zero(old) {
            return Ok(None);
        }
        // What passed here was judged, wherever the branch is by now. Anything else must be its head.
        if !self.known().passed.contains_key(old) {
            let branch = command.reference.trim_start_matches("refs/heads/");
            let head = self.0.github.branch_head(branch).await?;
            if head.as_ref() != Some(old) {
                return Err(Trouble::Moved);
            }
        }
        self.definitions_at(old).await.map(Some)
    }

    /// Whether these are the definitions of the base branch as it is now: merged into the work.
    async fn is_at_tip(
        &self,
        branch: &str,
        base: &str,
        new: &Definitions,
    ) -> Result<bool, Trouble> {
        match self.0.github.branch_head(branch).await? {
            Some(tip) if tip != base => Ok(self.definitions_at(&tip).await? == *new),
            _ => Ok(false),
        }
    }

    /// Definitions of a commit that the code host has.
    async fn definitions_at(&self, commit: &str) -> Result<Definitions, Trouble> {
        if let Some(known) = self.known().passed.get(commit) {
            return Ok(known.clone());
        }
        self.definitions(&Pack::default(), commit).await
    }

    async fn definitions(&self, pack: &Pack, commit: &str) -> Result<Definitions, Trouble> {
        let missing = || Trouble::Unreadable(format!("commit {commit} is not there"));
        let oid = pack::parse_oid(commit.as_bytes())
            .ok_or_else(|| Trouble::Unreadable(format!("{commit} is no SHA-1 name")))?;
        let root = match pack.get(&oid, Kind::Commit) {
            Some(commit) => {
                let tree = pack::tree_of(commit).ok_or_else(missing)?;
                self.tree(pack, &tree).await?
            }
            None => self.hosted(commit).await?,
        };
        let mut found = Definitions::default();
        for entry in root
            .ok_or_else(missing)?
            .iter()
            .filter(|entry| folded(&entry.name) == FOLDER)
        {
            if !is_folder(entry.mode) {
                found.0.insert(entry.name.clone(), (entry.mode, entry.oid));
                continue;
            }
            let folder = self.tree(pack, &entry.oid).await?.ok_or_else(missing)?;
            for inner in folder
                .iter()
                .filter(|inner| WATCHED.contains(&folded(&inner.name).as_str()))
            {
                let path = [&entry.name[..], b"/", &inner.name].concat();
                found.0.insert(path, (inner.mode, inner.oid));
            }
        }
        Ok(found)
    }

    /// A tree, of the pack or of the code host.
    async fn tree(&self, pack: &Pack, oid: &Oid) -> Result<Option<Arc<Vec<TreeEntry>>>, Trouble> {
        match pack.get(oid, Kind::Tree) {
            Some(tree) => pack::entries(tree)
                .map(|entries| Some(Arc::new(entries)))
                .ok_or_else(|| Trouble::Unreadable("a tree is malformed".to_owned())),
            None => self.hosted(&pack::hex(oid)).await,
        }
    }

    /// A tree of the code host, by its own name or a commit's.
    async fn hosted(&self, sha: &str) -> Result<Option<Arc<Vec<TreeEntry>>>, Trouble> {
        if let Some(tree) = self.known().trees.get(sha) {
            return Ok(Some(Arc::clone(tree)));
        }
        let Some(tree) = self.0.github.tree(sha).await? else {
            return Ok(None);
        };
        let entries = tree
            .into_iter()
            .map(|entry| {
                Some(TreeEntry {
                    mode: entry.mode,
                    name: entry.name.into_bytes(),
                    oid: pack::parse_oid(entry.sha.as_bytes())?,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Trouble::Unreadable("the code host names an object oddly".to_owned()))?;
        let entries = Arc::new(entries);
        let mut known = self.known();
        let names: usize = known.trees.values().map(|tree| tree.len()).sum();
        if names + entries.len() > NAMES {
            known.trees.clear();
        }
        known.trees.insert(sha.to_owned(), Arc::clone(&entries));
        Ok(Some(entries))
    }
}

/// No commit may notify or close anything, or hide what it says.
fn messages(pack: &Pack) -> Result<(), Trouble> {
    for (oid, commit) in pack.commits() {
        let effect = match std::str::from_utf8(commit) {
            Ok(commit) => text::commit_effect(commit),
            Err(_) => Some("is not UTF-8".to_owned()),
        };
        if let Some(effect) = effect {
            let sha = pack::hex(oid);
            return Err(Trouble::Refused(Refusal::Message(format!(
                "commit {} {effect}: write it in other words (git commit --amend, or git rebase for an earlier one), then push \
                 again",
                &sha[..12]
            ))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_file_system_takes_for_the_folder_are_it() {
        for name in [
            ".github",
            ".GitHub",
            ".GITHUB",
            ".github.",
            ".github ",
            ".gith\u{200c}ub",
            ".git\u{feff}hub",
        ] {
            assert_eq!(folded(name.as_bytes()), FOLDER, "{name:?}");
        }
        for name in ["github", ".github2", ".git", "x.github"] {
            assert_ne!(folded(name.as_bytes()), FOLDER, "{name:?}");
        }
        assert_ne!(folded(b".github\xff"), FOLDER);
        assert_ne!(
            folded(format!(".github{}", ".".repeat(NAME)).as_bytes()),
            FOLDER
        );
    }

    #[test]
    fn a_hash_tells_definitions_apart() {
        let with = |path: &str, mode, oid| {
            let mut definitions = Definitions::default();
            definitions
                .0
                .insert(path.as_bytes().to_vec(), (mode, [oid; 20]));
            definitions.hash()
        };
        let hashes = HashSet::from([
            Definitions::default().hash(),
            with(".github/workflows", 0o040_000, 1),
            with(".github/workflows", 0o120_000, 1),
            with(".github/workflows", 0o040_000, 2),
            with(".github/Workflows", 0o040_000, 1),
        ]);
        assert_eq!(hashes.len(), 5);
    }
}
