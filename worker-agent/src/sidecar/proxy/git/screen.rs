//! What is looked at in a push before any of it goes on: whether it changes what GitHub Actions runs, and whether a
//! commit's message would act on GitHub.
//!
//! Judged is the head of the push, for that is what runs: its definitions must be those of the base, those that the
//! branch has on the code host, or ones that a person allowed by their hash. Objects that the push does not bring are
//! asked of the code host by name. Messages are judged of all commits that it brings, whether or not they lead to the
//! head, but for those that are the base's own: a clone that has not fetched what the base has by now brings its whole
//! history. What cannot be judged is refused. Questions to the code host are few for one push and slow for many, as
//! what may be asked is shared with other tasks.

mod diff;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use mainloop_github::{Client, text};
use tokio::sync::OnceCell;

use super::commands::{self, Command};
use super::pack::{self, Kind, Oid, Pack, TreeEntry};
use super::spool::{self, Turn};
use crate::sidecar::pace::Pace;

/// The folder at the root that holds definitions.
const FOLDER: &str = ".github";
/// What of it GitHub Actions runs.
const WATCHED: [&str; 2] = ["workflows", "actions"];
/// Names in the trees of the code host that are remembered.
const NAMES: usize = 500_000;
/// Longest name, in bytes, that any file system takes.
const NAME: usize = 1024;
/// Names in one folder that are taken for the folder of definitions, or for one of those in it. One is all that a
/// repository has for a reason.
const ALIKE: usize = 4;
/// Heads of the base that are remembered.
const TIPS: usize = 8;
/// Questions that the code host is asked for one push, and for several at once.
const QUESTIONS: u32 = 300;
/// When it may be asked one more after these: 900 in an hour, of the 5000 that GitHub allows.
const QUESTION_EVERY: Duration = Duration::from_secs(4);
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

/// Why a push did not pass.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A person has to allow the change of CI definitions.
    Held(HeldChange),
    /// Policy lets no push change CI definitions.
    Definitions(String),
    /// A commit's message has to be another.
    Message(String),
    /// It cannot be looked at: too large, or not as git writes it.
    Unreadable(String),
    /// Pushes were closed when it came, or before all of it was sent: it can be made again when they are open.
    Closed,
    /// The code host did not say what has to be known of it.
    Unknown(Arc<mainloop_github::Error>),
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
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Known {
    base: Option<(String, String)>,
    /// Heads of the base as they were seen, the newest first.
    tips: VecDeque<String>,
    allowed: HashSet<String>,
    refusal: Option<Refusal>,
    /// Definitions of heads that passed.
    passed: HashMap<String, Definitions>,
    trees: HashMap<String, Arc<Vec<TreeEntry>>>,
    /// The change that was shown last, by the hashes of what it is between.
    shown: Option<((String, String), diff::Change)>,
}

/// A push that is looked at.
struct Looked {
    pack: Arc<Pack>,
    turn: Turn,
    /// How often the code host may still be asked for it.
    questions: AtomicU32,
    /// The head of the base.
    tip: OnceCell<Option<String>>,
}

impl Looked {
    fn new(pack: Pack, turn: &Turn) -> Self {
        Self {
            pack: Arc::new(pack),
            turn: Arc::clone(turn),
            questions: AtomicU32::new(QUESTIONS),
            tip: OnceCell::new(),
        }
    }

    /// Does something long on a thread of its own.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Pack) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let pack = Arc::clone(&self.pack);
        let done = spool::apart(&self.turn, move || work(&pack)).await;
        done.map_err(|error| Trouble::Unreadable(error.to_string()))
    }
}

/// What GitHub Actions runs of a commit: paths with the mode and the name of what is there. A folder stands for all
/// that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Definitions(BTreeMap<Vec<u8>, (u32, Oid)>);

/// Why a push does not pass.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// A person has to allow it.
    #[error("{}", waits(.0))]
    Held(HeldChange),
    /// Policy lets no push change CI definitions.
    #[error("{0}")]
    Definitions(String),
    /// A commit's message has to be another.
    #[error("{0}")]
    Message(String),
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

impl Trouble {
    /// For who drives the work. None where the push only has to be made anew.
    fn refusal(self) -> Option<Refusal> {
        let words = self.to_string();
        match self {
            Self::Held(held) => Some(Refusal::Held(held)),
            Self::Definitions(why) => Some(Refusal::Definitions(why)),
            Self::Message(why) => Some(Refusal::Message(why)),
            // An answer that is too large does not become smaller.
            Self::Unreadable(_) | Self::Unknown(mainloop_github::Error::TooLarge { .. }) => {
                Some(Refusal::Unreadable(words))
            }
            Self::Unknown(error) => Some(Refusal::Unknown(Arc::new(error))),
            Self::Moved => None,
        }
    }
}

/// For who pushes, in one line.
fn waits(held: &HeldChange) -> String {
    format!(
        "this push changes {} and waits for a person. Go on with your work: they are asked when you are done, and it is \
         pushed when they allow it",
        listed(&held.paths)
    )
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

/// The entries whose names are taken for one of these.
fn alike(entries: &[TreeEntry], names: &[&str]) -> Result<Vec<TreeEntry>, Trouble> {
    let found: Vec<TreeEntry> = entries
        .iter()
        .filter(|entry| names.contains(&folded(&entry.name).as_str()))
        .take(ALIKE + 1)
        .cloned()
        .collect();
    if found.len() > ALIKE {
        return Err(Trouble::Unreadable(format!(
            "too many names are taken for {}",
            names.join(" or ")
        )));
    }
    Ok(found)
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
            pace: Mutex::new(Pace::new(QUESTIONS, QUESTION_EVERY)),
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

    /// Looks where the base is by now: a merge of it brings the definitions that it has.
    pub async fn see_base(&self) {
        let base = self.known().base.clone();
        let Some((branch, _)) = base else { return };
        match self.0.github.branch_head(&branch).await {
            Ok(Some(tip)) => self.remember(tip),
            Ok(None) => {}
            Err(error) => {
                let error = crate::sidecar::chain(&error);
                tracing::warn!(error, "could not look where the base is");
            }
        }
    }

    fn remember(&self, tip: String) {
        let mut known = self.known();
        if !known.tips.contains(&tip) {
            known.tips.push_front(tip);
            known.tips.truncate(TIPS);
        }
    }

    /// Why the last push did not pass, where it was looked at; told once.
    pub fn take_refusal(&self) -> Option<Refusal> {
        self.known().refusal.take()
    }

    /// Another push comes: why the last one was turned away no longer counts.
    pub(super) fn begin(&self) {
        self.known().refusal = None;
    }

    /// Notes why a push does not pass.
    pub(super) fn note(&self, refusal: Refusal) {
        self.known().refusal = Some(refusal);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a push may go on; why it may not, in one line.
    pub(super) async fn check(
        &self,
        command: &Command,
        pack: Pack,
        turn: &Turn,
    ) -> Result<(), String> {
        let looked = Looked::new(pack, turn);
        self.judge(command, &looked).await.map_err(|trouble| {
            let words = trouble.to_string();
            if let Some(refusal) = trouble.refusal() {
                self.note(refusal);
            }
            words
        })
    }

    async fn judge(&self, command: &Command, looked: &Looked) -> Result<(), Trouble> {
        self.messages(command, looked).await?;
        if self.0.workflow_files == WorkflowFiles::Allow {
            return Ok(());
        }
        let new = self.definitions(looked, &command.new).await?;
        let base = self.known().base.clone();
        let Some((_, base)) = base else {
            return Err(Trouble::Unreadable("its base is not known yet".to_owned()));
        };
        let pushed = self.pushed(command, looked).await?;
        let at_base = self.definitions_at(looked, &base).await?;
        let is_known = pushed.as_ref() == Some(&new)
            || at_base == new
            || self.known().allowed.contains(&new.hash());
        if is_known || self.is_of_base(looked, &new).await? {
            self.known().passed.insert(command.new.clone(), new);
            return Ok(());
        }
        let before = pushed.unwrap_or(at_base);
        let change = self.change(looked, &before, &new).await?;
        Err(match self.0.workflow_files {
            WorkflowFiles::Refuse => Trouble::Definitions(format!(
                "policy lets no worker change what GitHub Actions runs: undo the change of {} in a new commit",
                listed(&change.paths)
            )),
            WorkflowFiles::Allow | WorkflowFiles::Ask => Trouble::Held(HeldChange {
                hash: new.hash(),
                paths: change.paths,
                diff: change.markdown,
            }),
        })
    }

    /// What a person reads of a change. One that is pushed again and again is made once.
    async fn change(
        &self,
        looked: &Looked,
        before: &Definitions,
        after: &Definitions,
    ) -> Result<diff::Change, Trouble> {
        let between = (before.hash(), after.hash());
        if let Some((_, change)) = self
            .known()
            .shown
            .as_ref()
            .filter(|(shown, _)| *shown == between)
        {
            return Ok(change.clone());
        }
        let change = diff::between(self, looked, before, after).await?;
        self.known().shown = Some((between, change.clone()));
        Ok(change)
    }

    /// No commit that the push brings may notify or close anything, or hide what it says. What the code host has of the
    /// base is not new, whoever brings it.
    async fn messages(&self, command: &Command, looked: &Looked) -> Result<(), Trouble> {
        let Some(head) = pack::parse_oid(command.new.as_bytes()) else {
            return Err(no_name(&command.new));
        };
        let base = self.known().base.clone();
        let base = base.and_then(|(_, sha)| pack::parse_oid(sha.as_bytes()));
        let mut acting = looked
            .apart(move |pack| {
                let known = history(pack, base.into_iter().collect());
                let commits = pack.commits().filter(|(oid, _)| !known.contains(*oid));
                let acting = commits.filter(|(_, commit)| effect(commit).is_some());
                let mut acting: Vec<Oid> = acting.map(|(oid, _)| *oid).collect();
                acting.sort_unstable();
                acting
            })
            .await?;
        while let Some(commit) = acting.first().copied() {
            let Some(joint) = self.joint(looked, head, commit).await? else {
                let found = looked.pack.get(&commit, Kind::Commit);
                let effect = found.and_then(effect).unwrap_or_default();
                return Err(Trouble::Message(format!(
                    "commit {} {effect}: write it in other words (git commit --amend, or git rebase for an earlier one), then \
                     push again",
                    &pack::hex(&commit)[..12]
                )));
            };
            acting = looked
                .apart(move |pack| {
                    let known = history(pack, vec![joint]);
                    acting.retain(|oid| !known.contains(oid));
                    acting
                })
                .await?;
        }
        Ok(())
    }

    /// Where the history of a commit of the base joins that of the head: the newest of the base's commits on the way to
    /// the head. `None` where the commit is not the base's.
    async fn joint(&self, looked: &Looked, head: Oid, commit: Oid) -> Result<Option<Oid>, Trouble> {
        if !self.is_the_bases(looked, &commit).await? {
            return Ok(None);
        }
        let way = looked.apart(move |pack| way(pack, head, commit)).await?;
        // What leads to a commit of the base is the base's: the end of that is found by halves.
        let (mut within, mut beyond) = (0, way.len());
        while beyond - within > 1 {
            let middle = within + (beyond - within) / 2;
            if self.is_the_bases(looked, &way[middle]).await? {
                within = middle;
            } else {
                beyond = middle;
            }
        }
        Ok(Some(way[within]))
    }

    /// Whether the base, as the code host has it now, has this commit in its history.
    async fn is_the_bases(&self, looked: &Looked, commit: &Oid) -> Result<bool, Trouble> {
        let Some(tip) = self.tip(looked).await? else {
            return Ok(false);
        };
        // What is in the history of where the work began is known without asking.
        let began = self
            .known()
            .base
            .as_ref()
            .is_some_and(|(_, sha)| *sha == tip);
        if began {
            return Ok(false);
        }
        let github = self.question(looked).await?;
        Ok(github.is_in(&pack::hex(commit), &tip).await?)
    }

    /// The head of the base as it is now.
    async fn tip(&self, looked: &Looked) -> Result<Option<String>, Trouble> {
        let ask = async || {
            let base = self.known().base.clone();
            let Some((branch, _)) = base else {
                return Ok::<_, Trouble>(None);
            };
            let tip = self.question(looked).await?.branch_head(&branch).await?;
            if let Some(tip) = &tip {
                self.remember(tip.clone());
            }
            Ok(tip)
        };
        looked.tip.get_or_try_init(ask).await.cloned()
    }

    /// Waits until the code host may be asked once more.
    async fn question(&self, looked: &Looked) -> Result<&Client, Trouble> {
        let left = looked
            .questions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if left.is_err() {
            return Err(Trouble::Unreadable(
                "too much would have to be asked of the code host".to_owned(),
            ));
        }
        loop {
            let pace = &self.0.pace;
            let may = pace
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(Instant::now());
            if may {
                return Ok(&self.0.github);
            }
            tokio::time::sleep(QUESTION_EVERY).await;
        }
    }

    /// Definitions that the branch has on the code host; none where the push makes it.
    async fn pushed(
        &self,
        command: &Command,
        looked: &Looked,
    ) -> Result<Option<Definitions>, Trouble> {
        let old = &command.old;
        if commands::is_zero(old) {
            return Ok(None);
        }
        // What passed here was judged, wherever the branch is by now. Anything else must be its head.
        if !self.known().passed.contains_key(old) {
            let branch = command.reference.trim_start_matches("refs/heads/");
            let head = self.question(looked).await?.branch_head(branch).await?;
            if head.as_ref() != Some(old) {
                return Err(Trouble::Moved);
            }
        }
        self.definitions_at(looked, old).await.map(Some)
    }

    /// Whether these are the definitions of the base branch as it is now, or was when it was looked at: merged into the
    /// work. Only what was its head counts, for what else is in its history nobody may have wanted to run.
    async fn is_of_base(&self, looked: &Looked, new: &Definitions) -> Result<bool, Trouble> {
        self.tip(looked).await?;
        let tips = self.known().tips.clone();
        for tip in tips {
            match self.definitions_at(looked, &tip).await {
                Ok(definitions) if definitions == *new => return Ok(true),
                // One that was written anew may be gone.
                Ok(_) | Err(Trouble::Unreadable(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(false)
    }

    /// Definitions of a commit that the code host has.
    async fn definitions_at(&self, looked: &Looked, commit: &str) -> Result<Definitions, Trouble> {
        if let Some(known) = self.known().passed.get(commit) {
            return Ok(known.clone());
        }
        self.definitions(looked, commit).await
    }

    async fn definitions(&self, looked: &Looked, commit: &str) -> Result<Definitions, Trouble> {
        let missing = || Trouble::Unreadable(format!("commit {commit} is not there"));
        let oid = pack::parse_oid(commit.as_bytes()).ok_or_else(|| no_name(commit))?;
        let root = match looked.pack.get(&oid, Kind::Commit) {
            Some(commit) => {
                let tree = pack::tree_of(commit).ok_or_else(missing)?;
                self.tree(looked, &tree).await?
            }
            None => self.hosted(looked, commit).await?,
        };
        let root = root.ok_or_else(missing)?;
        let mut found = Definitions::default();
        for entry in looked.apart(move |_| alike(&root, &[FOLDER])).await?? {
            if !is_folder(entry.mode) {
                found.0.insert(entry.name, (entry.mode, entry.oid));
                continue;
            }
            let folder = self.tree(looked, &entry.oid).await?.ok_or_else(missing)?;
            for inner in looked.apart(move |_| alike(&folder, &WATCHED)).await?? {
                let path = [&entry.name[..], b"/", &inner.name].concat();
                found.0.insert(path, (inner.mode, inner.oid));
            }
        }
        Ok(found)
    }

    /// A tree, of the pack or of the code host.
    async fn tree(
        &self,
        looked: &Looked,
        oid: &Oid,
    ) -> Result<Option<Arc<Vec<TreeEntry>>>, Trouble> {
        let oid = *oid;
        let read = move |pack: &Pack| pack.get(&oid, Kind::Tree).map(pack::entries);
        match looked.apart(read).await? {
            Some(entries) => entries
                .map(|entries| Some(Arc::new(entries)))
                .ok_or_else(|| Trouble::Unreadable("a tree is malformed".to_owned())),
            None => self.hosted(looked, &pack::hex(&oid)).await,
        }
    }

    /// A tree of the code host, by its own name or a commit's.
    async fn hosted(
        &self,
        looked: &Looked,
        sha: &str,
    ) -> Result<Option<Arc<Vec<TreeEntry>>>, Trouble> {
        if let Some(tree) = self.known().trees.get(sha) {
            return Ok(Some(Arc::clone(tree)));
        }
        let Some(tree) = self.question(looked).await?.tree(sha).await? else {
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

fn no_name(sha: &str) -> Trouble {
    Trouble::Unreadable(format!("{sha} is no SHA-1 name"))
}

/// What a commit would do on the code host, or hides.
fn effect(commit: &[u8]) -> Option<String> {
    match std::str::from_utf8(commit) {
        Ok(commit) => text::commit_effect(commit),
        Err(_) => Some("is not UTF-8".to_owned()),
    }
}

/// These commits and all that they come from, as far as the pack has them.
fn history(pack: &Pack, from: Vec<Oid>) -> HashSet<Oid> {
    let (mut found, mut open) = (HashSet::new(), from);
    while let Some(oid) = open.pop() {
        if let Some(commit) = pack.get(&oid, Kind::Commit)
            && found.insert(oid)
        {
            open.extend(pack::parents_of(commit));
        }
    }
    found
}

/// A way from a commit to the head that comes from it, both included. The commit alone where the head does not.
fn way(pack: &Pack, head: Oid, commit: Oid) -> Vec<Oid> {
    let mut children: HashMap<Oid, Oid> = HashMap::new();
    let mut open = VecDeque::from([head]);
    while let Some(child) = open.pop_front()
        && child != commit
    {
        for parent in pack
            .get(&child, Kind::Commit)
            .into_iter()
            .flat_map(pack::parents_of)
        {
            children.entry(parent).or_insert_with(|| {
                open.push_back(parent);
                child
            });
        }
    }
    let mut way = vec![commit];
    while let Some(child) = way.last().and_then(|last| children.get(last)) {
        way.push(*child);
    }
    way
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
