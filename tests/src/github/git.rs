//! Git on the bare repositories, by the `git` command line. No configuration of the machine or of its user is read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Debug)]
pub(super) struct GitError(String);

impl std::fmt::Display for GitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GitError {}

type Result<T> = std::result::Result<T, GitError>;

/// Files to write, by path; `None` removes.
pub type Files = BTreeMap<String, Option<Vec<u8>>>;

#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) name: String,
    pub(super) email: String,
    pub(super) date: String,
}

#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) sha: String,
    pub(super) tree: String,
    pub(super) parents: Vec<String>,
    pub(super) author: Signature,
    pub(super) committer: Signature,
    pub(super) message: String,
}

#[derive(Clone, Debug)]
pub(super) struct FileChange {
    pub(super) path: String,
    pub(super) previous: Option<String>,
    pub(super) status: &'static str,
    pub(super) additions: u64,
    pub(super) deletions: u64,
    pub(super) blob: String,
    pub(super) patch: Option<String>,
}

/// An entry of a tree.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) mode: String,
    pub(super) sha: String,
    pub(super) size: u64,
    pub(super) name: String,
}

/// What a root commit is compared with. Git knows it without storing it.
pub(super) const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// The environment in which every git of the emulator runs.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("GIT_CONFIG_COUNT", "4"),
    ("GIT_CONFIG_KEY_0", "safe.directory"),
    ("GIT_CONFIG_VALUE_0", "*"),
    ("GIT_CONFIG_KEY_1", "http.receivepack"),
    ("GIT_CONFIG_VALUE_1", "true"),
    // Background maintenance would outlive the command and race with the removal of the folder.
    ("GIT_CONFIG_KEY_2", "gc.auto"),
    ("GIT_CONFIG_VALUE_2", "0"),
    ("GIT_CONFIG_KEY_3", "receive.autogc"),
    ("GIT_CONFIG_VALUE_3", "false"),
];

pub(super) fn command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .env_clear()
        .envs(ENVIRONMENT.iter().copied());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn run(dir: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let output = command(dir)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| GitError(format!("run git {args:?}: {e}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(GitError(format!(
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

fn text(dir: &Path, args: &[&str]) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(dir, args)?)
        .trim_end()
        .to_owned())
}

/// A bare repository that serves partial clones, and refuses pushes to the refs that GitHub keeps for itself.
/// From now on each push is refused with these words, as a protection rule or a hook would.
pub(super) fn set_rule(dir: &Path, words: &str) -> Result<()> {
    run(dir, &["config", "emulator.rule", words]).map(drop)
}

pub(super) fn init(dir: &Path, default_branch: &str) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| GitError(format!("create {}: {e}", dir.display())))?;
    run(
        dir,
        &[
            "init",
            "--quiet",
            "--bare",
            "--initial-branch",
            default_branch,
        ],
    )?;
    run(dir, &["config", "uploadpack.allowFilter", "true"])?;
    run(dir, &["config", "uploadpack.allowAnySHA1InWant", "true"])?;
    run(dir, &["config", "receive.hideRefs", "refs/pull"])?;
    let hook = dir.join("hooks/pre-receive");
    let write = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::create_dir_all(dir.join("hooks"))?;
        std::fs::write(&hook, PRE_RECEIVE)?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))
    };
    write().map_err(|e| GitError(format!("write {}: {e}", hook.display())))
}

/// GitHub refuses a push by a rule of the repository, and one that touches a workflow when the token may not change
/// workflows.
const PRE_RECEIVE: &str = r#"#!/bin/sh
rule=$(git config emulator.rule) && { echo "$rule" >&2; exit 1; }
[ -n "$EMULATOR_NO_WORKFLOWS" ] || exit 0
empty=$(git hash-object -t tree /dev/null)
while read -r old new ref; do
    case $new in *[!0]*) ;; *) continue ;; esac
    for commit in $(git rev-list "$new" --not --all); do
        parent=$(git rev-parse -q --verify "$commit^1" || echo "$empty")
        file=$(git diff --name-only "$parent" "$commit" -- .github/workflows | head -n 1)
        if [ -n "$file" ]; then
            echo "refusing to allow a Personal Access Token to create or update workflow \`$file\` without \`workflow\` scope" >&2
            exit 1
        fi
    done
done
"#;

/// Every ref with the commit that it points to.
pub(super) fn refs(dir: &Path) -> Result<BTreeMap<String, String>> {
    let out = text(dir, &["for-each-ref", "--format=%(refname) %(objectname)"])?;
    Ok(out
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, sha)| (name.to_owned(), sha.to_owned()))
        .collect())
}

pub(super) fn set_ref(dir: &Path, name: &str, sha: &str) -> Result<()> {
    run(dir, &["update-ref", name, sha]).map(drop)
}

pub(super) fn delete_ref(dir: &Path, name: &str) -> Result<()> {
    run(dir, &["update-ref", "-d", name]).map(drop)
}

/// The commit that a branch, tag, sha or short sha names.
pub(super) fn resolve(dir: &Path, rev: &str) -> Option<String> {
    if rev.starts_with('-') {
        return None;
    }
    let tries = [
        format!("refs/heads/{rev}^{{commit}}"),
        format!("refs/tags/{rev}^{{commit}}"),
        format!("{rev}^{{commit}}"),
    ];
    tries.iter().find_map(|name| {
        text(
            dir,
            &["rev-parse", "--quiet", "--verify", "--end-of-options", name],
        )
        .ok()
    })
}

/// Writes a commit on `branch` from `parent` (none: a root commit) and returns its sha.
pub(super) fn write_commit(
    dir: &Path,
    branch: &str,
    parent: Option<&str>,
    who: &str,
    message: &str,
    files: &Files,
) -> Result<String> {
    let name = format!("refs/heads/{branch}");
    let seconds = jiff::Timestamp::now().as_second();
    let mut stream = Vec::new();
    let mut head = String::new();
    let _ = writeln!(
        head,
        "commit {name}\ncommitter {who} {seconds} +0000\ndata {}\n{message}",
        message.len()
    );
    if let Some(parent) = parent {
        let _ = writeln!(head, "from {parent}");
    }
    stream.extend_from_slice(head.as_bytes());
    for (path, content) in files {
        let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
        match content {
            None => stream.extend_from_slice(format!("D \"{quoted}\"\n").as_bytes()),
            Some(bytes) => {
                let mode = if bytes.starts_with(b"#!") {
                    "100755"
                } else {
                    "100644"
                };
                stream.extend_from_slice(
                    format!("M {mode} inline \"{quoted}\"\ndata {}\n", bytes.len()).as_bytes(),
                );
                stream.extend_from_slice(bytes);
                stream.push(b'\n');
            }
        }
    }
    stream.extend_from_slice(b"\ndone\n");
    let mut child = command(dir)
        .args(["fast-import", "--quiet", "--done", "--force"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| GitError(format!("run git fast-import: {e}")))?;
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&stream));
    let output = child
        .wait_with_output()
        .map_err(|e| GitError(format!("wait for git fast-import: {e}")))?;
    if !output.status.success() || written.is_err() {
        return Err(GitError(format!(
            "git fast-import: {}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    text(dir, &["rev-parse", &name])
}

const FIELDS: &str =
    "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00%x01";

/// Commits in the order of `git log`; `range` is a sha or `a..b`.
pub(super) fn log(dir: &Path, range: &str, limit: usize) -> Result<Vec<Commit>> {
    let out = text(
        dir,
        &[
            "log",
            &format!("-{limit}"),
            FIELDS,
            "--end-of-options",
            range,
        ],
    )?;
    Ok(out
        .split('\u{1}')
        .filter_map(|record| parse(record.trim_start_matches('\n')))
        .collect())
}

pub(super) fn commit(dir: &Path, sha: &str) -> Result<Commit> {
    log(dir, sha, 1)?
        .pop()
        .ok_or_else(|| GitError(format!("no commit {sha}")))
}

fn parse(record: &str) -> Option<Commit> {
    let mut parts = record.split('\0').map(str::to_owned);
    let mut next = || parts.next();
    let (sha, tree, parents) = (next()?, next()?, next()?);
    let mut signature = || {
        Some(Signature {
            name: next()?,
            email: next()?,
            date: next()?,
        })
    };
    let (author, committer) = (signature()?, signature()?);
    let message = next()?.trim_end().to_owned();
    Some(Commit {
        sha,
        tree,
        parents: parents.split_whitespace().map(str::to_owned).collect(),
        author,
        committer,
        message,
    })
}

pub(super) fn merge_base(dir: &Path, left: &str, right: &str) -> Option<String> {
    text(dir, &["merge-base", left, right]).ok()
}

/// Commits that only `left` has, and that only `right` has.
pub(super) fn distance(dir: &Path, left: &str, right: &str) -> Result<(u64, u64)> {
    let out = text(
        dir,
        &[
            "rev-list",
            "--left-right",
            "--count",
            &format!("{left}...{right}"),
        ],
    )?;
    let mut counts = out.split_whitespace().map(|n| n.parse().unwrap_or(0));
    Ok((counts.next().unwrap_or(0), counts.next().unwrap_or(0)))
}

pub(super) fn diff(dir: &Path, from: &str, to: &str) -> Result<String> {
    text(
        dir,
        &["diff", "--no-color", "--no-ext-diff", "-M", from, to],
    )
}

pub(super) fn changes(dir: &Path, from: &str, to: &str) -> Result<Vec<FileChange>> {
    let raw = text(
        dir,
        &[
            "diff",
            "--raw",
            "--numstat",
            "--no-abbrev",
            "-M",
            "-z",
            from,
            to,
        ],
    )?;
    let mut files: Vec<FileChange> = Vec::new();
    let mut fields = raw.split('\0').filter(|field| !field.is_empty());
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    while let Some(field) = fields.next() {
        if let Some(rest) = field.strip_prefix(':') {
            let parts: Vec<&str> = rest.split(' ').collect();
            let (old, new, letter) = (
                parts.get(2).copied().unwrap_or(""),
                parts.get(3).copied().unwrap_or(""),
                parts.get(4).copied().unwrap_or("M"),
            );
            let first = fields.next().unwrap_or("").to_owned();
            let moved = letter.starts_with('R') || letter.starts_with('C');
            let (path, previous) = if moved {
                (fields.next().unwrap_or("").to_owned(), Some(first))
            } else {
                (first, None)
            };
            let status = match letter.as_bytes().first() {
                Some(b'A') => "added",
                Some(b'D') => "removed",
                Some(b'R') => "renamed",
                Some(b'C') => "copied",
                Some(b'T') => "changed",
                _ => "modified",
            };
            let blob = if status == "removed" { old } else { new }.to_owned();
            files.push(FileChange {
                path,
                previous,
                status,
                additions: 0,
                deletions: 0,
                blob,
                patch: None,
            });
        } else {
            let mut parts = field.splitn(3, '\t');
            let added = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let removed = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let path = match parts.next() {
                Some(path) if !path.is_empty() => path.to_owned(),
                _ => {
                    fields.next();
                    fields.next().unwrap_or("").to_owned()
                }
            };
            counts.insert(path, (added, removed));
        }
    }
    for file in &mut files {
        (file.additions, file.deletions) = counts.get(&file.path).copied().unwrap_or_default();
        let patch = text(
            dir,
            &[
                "diff",
                "--no-color",
                "--no-ext-diff",
                "-M",
                from,
                to,
                "--",
                &file.path,
            ],
        )?;
        file.patch = patch.find("\n@@").map(|at| patch[at + 1..].to_owned());
    }
    Ok(files)
}

/// The entry at `path` of a commit; a folder's mode is `040000`.
pub(super) fn entry(dir: &Path, commit: &str, path: &str) -> Option<Entry> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        let sha = text(dir, &["rev-parse", &format!("{commit}^{{tree}}")]).ok()?;
        return Some(Entry {
            mode: "040000".into(),
            sha,
            size: 0,
            name: String::new(),
        });
    }
    entries(dir, commit, path).ok()?.pop()
}

/// The entries of a folder (a path that ends with `/`, or is empty), or the one that a path names.
pub(super) fn entries(dir: &Path, commit: &str, path: &str) -> Result<Vec<Entry>> {
    let mut args = vec!["ls-tree", "--long", "-z", commit];
    if !path.is_empty() {
        args.extend(["--", path]);
    }
    let out = text(dir, &args)?;
    let parse = |line: &str| {
        let (meta, name) = line.split_once('\t')?;
        let mut meta = meta.split_whitespace();
        let (mode, _kind, sha) = (meta.next()?, meta.next()?, meta.next()?);
        let size = meta.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Entry {
            mode: mode.to_owned(),
            sha: sha.to_owned(),
            size,
            name: name.to_owned(),
        })
    };
    Ok(out.split('\0').filter_map(parse).collect())
}

/// The bytes of an object of a kind; `None` where there is none of that name.
pub(super) fn object(dir: &Path, kind: &str, sha: &str) -> Option<Vec<u8>> {
    let is_name = sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name
        .then(|| run(dir, &["cat-file", kind, sha]).ok())
        .flatten()
}

/// The entries of a tree, or of a commit's, by their own names.
pub(super) fn tree(dir: &Path, sha: &str) -> Option<Vec<Entry>> {
    object(dir, "tree", sha)?;
    entries(dir, sha, "").ok()
}

pub(super) fn blob(dir: &Path, sha: &str) -> Result<Vec<u8>> {
    run(dir, &["cat-file", "blob", sha])
}

/// The tree that a merge makes; `None` on a conflict.
fn merged_tree(dir: &Path, base: &str, head: &str) -> Result<Option<String>> {
    let output = command(dir)
        .args([
            "merge-tree",
            "--write-tree",
            "--no-messages",
            "--allow-unrelated-histories",
            base,
            head,
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| GitError(format!("run git merge-tree: {e}")))?;
    match output.status.code() {
        Some(0) => Ok(Some(
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )),
        Some(1) => Ok(None),
        _ => Err(GitError(format!(
            "git merge-tree: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

pub(super) fn mergeable(dir: &Path, base: &str, head: &str) -> Result<bool> {
    Ok(merged_tree(dir, base, head)?.is_some())
}

/// Merges `head` into `base` and returns the new commit, which no ref names yet; `None` on a conflict.
pub(super) fn merge(
    dir: &Path,
    base: &str,
    head: &str,
    squash: bool,
    who: (&str, &str),
    message: &str,
) -> Result<Option<String>> {
    let Some(tree) = merged_tree(dir, base, head)? else {
        return Ok(None);
    };
    let mut command = command(dir);
    command.args(["commit-tree", &tree, "-m", message, "-p", base]);
    if !squash {
        command.args(["-p", head]);
    }
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), who.0)
            .env(format!("GIT_{role}_EMAIL"), who.1);
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| GitError(format!("run git commit-tree: {e}")))?;
    if !output.status.success() {
        return Err(GitError(format!(
            "git commit-tree: {}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(Some(
        String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    ))
}
