//! Repositories that a test begins with.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use super::access::Role;
use super::changes::{self, NewRepo};
use super::git::{self, Files};
use super::problem::Problem;
use super::site::Site;

/// A repository to be made: private, with issues, on branch `main`, unless said otherwise.
#[derive(Debug)]
pub struct Seed {
    owner: String,
    name: String,
    private: bool,
    archived: bool,
    issues: bool,
    files: Files,
    collaborators: BTreeMap<String, Role>,
}

impl Seed {
    /// # Panics
    /// Where the name is not `owner/name`.
    pub fn new(full_name: &str) -> Self {
        let (owner, name) = full_name
            .split_once('/')
            .expect("a repository's name is owner/name");
        Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            private: true,
            archived: false,
            issues: true,
            files: Files::new(),
            collaborators: BTreeMap::new(),
        }
    }

    /// A file of the first commit. One that begins with `#!` is executable.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files
            .insert(path.to_owned(), Some(content.as_ref().to_vec()));
        self
    }

    /// Every file below a folder of this machine, but for `.git`.
    pub fn folder(mut self, folder: &Path) -> anyhow::Result<Self> {
        let mut open = vec![folder.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in
                std::fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?
            {
                let path = entry?.path();
                if path.is_dir() {
                    if path.file_name().is_none_or(|name| name != ".git") {
                        open.push(path);
                    }
                    continue;
                }
                let content =
                    std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let relative = path.strip_prefix(folder)?.to_string_lossy().into_owned();
                self.files.insert(relative, Some(content));
            }
        }
        Ok(self)
    }

    #[must_use]
    pub fn public(mut self) -> Self {
        self.private = false;
        self
    }

    #[must_use]
    pub fn archived(mut self) -> Self {
        self.archived = true;
        self
    }

    #[must_use]
    pub fn without_issues(mut self) -> Self {
        self.issues = false;
        self
    }

    #[must_use]
    pub fn collaborator(mut self, login: &str, role: Role) -> Self {
        self.collaborators.insert(login.to_owned(), role);
        self
    }

    pub(super) fn plant(self, site: &mut Site) -> Result<(), Problem> {
        changes::create_repo(
            site,
            &NewRepo {
                owner: &self.owner,
                name: &self.name,
                private: self.private,
            },
        )?;
        let full = format!("{}/{}", self.owner, self.name);
        for login in self.collaborators.keys() {
            site.add_user(login);
        }
        let (name, email) = site.signature(&self.owner);
        let repo = site.repo_mut(&full)?;
        repo.collaborators.extend(self.collaborators);
        repo.archived = self.archived;
        repo.has_issues = self.issues;
        git::write_commit(
            &repo.dir,
            "main",
            None,
            &format!("{name} <{email}>"),
            "Initial commit",
            &self.files,
        )?;
        repo.refs = git::refs(&repo.dir)?;
        Ok(())
    }
}
