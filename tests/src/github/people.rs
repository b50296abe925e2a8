//! What people do on the site, past the API: they are not held to a token, only to what the site can do at all.

use super::GitHub;
use super::changes::{self, Method, NewPull, NewReview, NewReviewComment};
use super::git::{self, Files};
use super::site::now;

/// Somebody with a browser and a clone of their own.
pub struct Person<'a> {
    github: &'a GitHub,
    login: String,
}

impl<'a> Person<'a> {
    pub(super) fn new(github: &'a GitHub, login: &str) -> Self {
        Self {
            github,
            login: login.to_owned(),
        }
    }

    /// Opens an issue and returns its number.
    pub fn open_issue(&self, repo: &str, title: &str, body: &str) -> anyhow::Result<u64> {
        self.github
            .act(|site| changes::create_issue(site, repo, &self.login, title, Some(body)))
    }

    pub fn edit_issue(
        &self,
        repo: &str,
        number: u64,
        title: &str,
        body: &str,
    ) -> anyhow::Result<()> {
        self.github.act(|site| {
            let issue = site.repo_mut(repo)?.issue_mut(number)?;
            title.clone_into(&mut issue.title);
            issue.body = Some(body.to_owned());
            issue.updated_at = now();
            Ok(())
        })
    }

    /// Changes title and body of a pull request.
    pub fn edit_pull(
        &self,
        repo: &str,
        number: u64,
        title: &str,
        body: &str,
    ) -> anyhow::Result<()> {
        self.edit_issue(repo, number, title, body)
    }

    /// Deletes an issue for good.
    pub fn delete_issue(&self, repo: &str, number: u64) -> anyhow::Result<()> {
        self.github.act(|site| {
            let repo = site.repo_mut(repo)?;
            repo.issue(number)?;
            repo.issues.remove(&number);
            repo.deleted.insert(number);
            Ok(())
        })
    }

    /// Lets a pull request go into another branch.
    pub fn retarget(&self, repo: &str, number: u64, base: &str) -> anyhow::Result<()> {
        self.github
            .act(|site| changes::retarget(site, repo, number, base))
    }

    /// Comments on an issue or a pull request and returns the comment's id.
    pub fn comment(&self, repo: &str, number: u64, body: &str) -> anyhow::Result<u64> {
        self.github.act(|site| {
            site.need_repo(repo)?.issue(number)?;
            changes::comment(site, repo, &self.login, number, body)
        })
    }

    /// Closes an issue or a pull request.
    pub fn close(&self, repo: &str, number: u64) -> anyhow::Result<()> {
        self.github
            .act(|site| changes::set_open(site, repo, &self.login, number, false, None))
    }

    pub fn reopen(&self, repo: &str, number: u64) -> anyhow::Result<()> {
        self.github
            .act(|site| changes::set_open(site, repo, &self.login, number, true, None))
    }

    /// Opens a pull request and returns its number.
    pub fn open_pull(
        &self,
        repo: &str,
        head: &str,
        title: &str,
        draft: bool,
    ) -> anyhow::Result<u64> {
        self.github.act(|site| {
            let base = site.need_repo(repo)?.default_branch.clone();
            let new = NewPull {
                title,
                body: None,
                head,
                base: &base,
                draft,
            };
            changes::create_pull(site, repo, &self.login, &new)
        })
    }

    pub fn mark_ready(&self, repo: &str, number: u64) -> anyhow::Result<()> {
        self.github
            .act(|site| changes::set_draft(site, repo, &self.login, number, false))
    }

    pub fn convert_to_draft(&self, repo: &str, number: u64) -> anyhow::Result<()> {
        self.github
            .act(|site| changes::set_draft(site, repo, &self.login, number, true))
    }

    /// Merges by a merge commit and returns its sha.
    pub fn merge(&self, repo: &str, number: u64) -> anyhow::Result<String> {
        self.github
            .act(|site| changes::merge(site, repo, &self.login, number, Method::Merge, None))
    }

    /// Commits files on a branch (made from the default branch where missing) and returns the new sha. `None` removes a file.
    pub fn push(
        &self,
        repo: &str,
        branch: &str,
        message: &str,
        files: &Files,
    ) -> anyhow::Result<String> {
        self.github
            .act(|site| changes::push_files(site, repo, &self.login, branch, message, files))
    }

    /// One file, as [`Person::push`].
    pub fn push_file(
        &self,
        repo: &str,
        branch: &str,
        path: &str,
        content: &str,
    ) -> anyhow::Result<String> {
        let files = Files::from([(path.to_owned(), Some(content.as_bytes().to_vec()))]);
        self.push(repo, branch, &format!("Update {path}"), &files)
    }

    /// Deletes a branch; pull requests from it are closed.
    pub fn delete_branch(&self, repo: &str, branch: &str) -> anyhow::Result<()> {
        self.github.act(|site| {
            let dir = &site.need_repo(repo)?.dir;
            git::delete_ref(dir, &format!("refs/heads/{branch}"))?;
            changes::pushed(site, repo, &self.login)
        })
    }

    /// Reviews a pull request: `APPROVED`, `CHANGES_REQUESTED` or `COMMENTED`.
    pub fn review(&self, repo: &str, number: u64, state: &str, body: &str) -> anyhow::Result<u64> {
        self.review_with(repo, number, state, body, &[])
    }

    /// As [`Person::review`], with comments: each a path, a line and its text.
    pub fn review_with(
        &self,
        repo: &str,
        number: u64,
        state: &str,
        body: &str,
        comments: &[(&str, u64, &str)],
    ) -> anyhow::Result<u64> {
        self.github.act(|site| {
            let new = NewReview {
                state,
                body,
                commit: None,
                comments: comments
                    .iter()
                    .map(|(path, line, body)| NewReviewComment {
                        path: (*path).to_owned(),
                        line: *line,
                        body: (*body).to_owned(),
                        reply_to: None,
                    })
                    .collect(),
            };
            Ok(changes::review(site, repo, &self.login, number, new)?.id)
        })
    }

    /// Replies in the thread that a review comment began.
    pub fn reply(&self, repo: &str, number: u64, to: u64, body: &str) -> anyhow::Result<()> {
        self.github
            .act(|site| changes::reply(site, repo, &self.login, number, to, body).map(drop))
    }
}
