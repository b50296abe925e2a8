//! Pull requests: one per task's branch, a draft until it is ready.
//!
//! GitHub allows one open pull request per head and base, which makes creation safe to repeat;
//! ready and draft are set by GraphQL, the only API that has them.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, User, login};
use crate::error::{Class, Error, Result};
use crate::issues::{pauses, same_text};
use crate::marker::Marker;
use crate::transport::{escape, escape_path};

/// Pull requests of one branch are few; this bounds the look for ours.
const SEARCH_PAGES: usize = 3;

/// A pull request as it was when we looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRef {
    /// Its number.
    pub number: u64,
    /// Where people read it.
    pub url: String,
    /// GraphQL's id of it.
    pub node_id: String,
    /// Not ready for review yet.
    pub draft: bool,
    /// The commit at its head.
    pub head_sha: String,
    /// The branch at its head.
    pub head: String,
    /// The branch that it goes into.
    pub base: String,
    /// Open, closed or merged.
    pub state: PullState,
    /// Title.
    pub title: String,
    /// Body as it is stored, hidden text and all: nothing to show or to hand on.
    pub body: String,
    /// Who opened it.
    pub author: String,
    /// Whether it merges cleanly; `None` while GitHub still computes it.
    pub mergeable: Option<bool>,
    /// Size of the change, where GitHub told it (a list does not).
    pub size: Option<Size>,
}

/// Where a pull request is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullState {
    /// Waits for review or work.
    Open,
    /// Closed without a merge.
    Closed,
    /// Merged.
    Merged {
        /// The commit that the merge made, where there is one.
        commit: Option<String>,
        /// Who merged it.
        by: Option<String>,
    },
}

/// Size of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines added.
    pub additions: u64,
    /// Lines removed.
    pub deletions: u64,
    /// Files touched.
    pub files: u64,
}

/// What [`Client::ensure_draft_pull`] opens.
#[derive(Debug, Clone, Copy)]
pub struct NewPull<'a> {
    /// The task's branch, already pushed, in this same repository.
    pub head: &'a str,
    /// The branch to go into.
    pub base: &'a str,
    /// Title, ready for GitHub.
    pub title: &'a str,
    /// Body, ready for GitHub; the marker is added.
    pub body: &'a str,
    /// As a draft. Private repositories of free plans have none: GitHub answers 422, and
    /// [`drafts_unsupported`] recognises it.
    pub draft: bool,
}

/// Answer to a conditional read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conditional {
    /// As it was. Costs nothing of the primary rate limit.
    NotModified,
    /// New, or read for the first time.
    Changed {
        /// As it is now.
        pull: Box<PullRef>,
        /// To be given next time.
        etag: Option<String>,
    },
}

/// Whether `error` says that the repository has no draft pull requests.
pub fn drafts_unsupported(error: &Error) -> bool {
    matches!(error, Error::Api { status: 422, message, .. }
        if message.to_lowercase().contains("draft pull requests are not supported"))
}

impl Client {
    /// The pull request of `new.head`: ours that is open, else ours that was closed or merged
    /// (the caller decides what that means), else a new one. One that is there is left as it
    /// is; [`Client::update_pull`] changes its text.
    pub async fn ensure_draft_pull(&self, marker: &Marker, new: &NewPull<'_>) -> Result<PullRef> {
        let operation = format!("open pull request for {} in {}", new.head, self.repo);
        let body = json!({
            "title": new.title,
            "head": new.head,
            "base": new.base,
            "body": marker.attach(new.body),
            "draft": new.draft,
        });
        let mut pauses = pauses();
        loop {
            if let Some(found) = self.find_pull(marker, new.head, new.base).await? {
                return Ok(found);
            }
            let sent: Result<RawPull> = self
                .transport
                .send(&operation, Method::POST, &self.path("/pulls"), &body)
                .await;
            let error = match sent {
                Ok(made) => return Ok(made.into_pull()),
                Err(error) => error,
            };
            // Lost answer, or another run of this step was faster: look again.
            let look_again = error.is_unavailable()
                || (error.is_validation() && error.to_string().contains("already exists"));
            match pauses.next().filter(|_| look_again) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn find_pull(&self, marker: &Marker, head: &str, base: &str) -> Result<Option<PullRef>> {
        let operation = format!("look for the pull request of {head} in {}", self.repo);
        let path = self.path(&format!(
            "/pulls?state=all&sort=created&direction=desc&head={}",
            escape(&format!("{}:{head}", self.repo.owner)),
        ));
        let list = self
            .transport
            .pages::<RawPull>(&operation, &path, None, SEARCH_PAGES)
            .await?;
        let us = self.identity().await?.login;
        let mut closed = None;
        for raw in list.items {
            // An API that does not know the filter would hand over other people's work.
            if raw.head.reference != head || raw.base.reference != base {
                continue;
            }
            let author = raw.user.as_ref().map_or("ghost", |u| u.login.as_str());
            let by_us = author.eq_ignore_ascii_case(&us);
            if raw.state == "open" {
                if !by_us {
                    return Err(Error::ForeignPull {
                        number: raw.number,
                        author: author.to_owned(),
                        head: head.to_owned(),
                    });
                }
                return Ok(Some(raw.into_pull()));
            }
            if by_us && closed.is_none() && marker.is_in(raw.body.as_deref().unwrap_or("")) {
                closed = Some(raw.into_pull());
            }
        }
        Ok(closed)
    }

    /// Reads pull request `number`.
    pub async fn pull(&self, number: u64) -> Result<PullRef> {
        let operation = format!("read pull request #{number} of {}", self.repo);
        let raw: RawPull = self
            .transport
            .get(&operation, &self.pull_path(number))
            .await?;
        Ok(raw.into_pull())
    }

    /// Reads pull request `number` unless it is still what `etag` stands for.
    pub async fn pull_if_changed(&self, number: u64, etag: Option<&str>) -> Result<Conditional> {
        let operation = format!("read pull request #{number} of {}", self.repo);
        let reply = self
            .transport
            .get_reply(&operation, &self.pull_path(number), etag)
            .await?;
        if reply.status == StatusCode::NOT_MODIFIED {
            return Ok(Conditional::NotModified);
        }
        let raw: RawPull = reply.json(&operation)?;
        Ok(Conditional::Changed {
            pull: Box::new(raw.into_pull()),
            etag: reply.header("etag").map(str::to_owned),
        })
    }

    /// Takes the draft flag off and returns the pull request as it is afterwards. GitHub's call
    /// has no expected head: the caller compares [`PullRef::head_sha`] with what it meant, and
    /// converts back where it moved.
    pub async fn mark_ready(&self, pull: &PullRef) -> Result<PullRef> {
        self.set_draft(pull, false).await
    }

    /// Makes the pull request a draft again.
    pub async fn convert_to_draft(&self, pull: &PullRef) -> Result<PullRef> {
        self.set_draft(pull, true).await
    }

    async fn set_draft(&self, pull: &PullRef, draft: bool) -> Result<PullRef> {
        let mutation = if draft {
            "convertPullRequestToDraft"
        } else {
            "markPullRequestReadyForReview"
        };
        let query = format!(
            "mutation($id: ID!) {{ {mutation}(input: {{pullRequestId: $id}}) {{ pullRequest {{ isDraft }} }} }}"
        );
        let operation = format!(
            "mark pull request #{} of {} as {}",
            pull.number,
            self.repo,
            if draft { "a draft" } else { "ready" }
        );
        let mut pauses = pauses();
        loop {
            let now = self.pull(pull.number).await?;
            if now.draft == draft {
                return Ok(now);
            }
            let sent: Result<Value> = self
                .transport
                .graphql(&operation, &query, &json!({ "id": now.node_id }))
                .await;
            match sent {
                Ok(_) => {
                    let after = self.pull(pull.number).await?;
                    if after.draft == draft {
                        return Ok(after);
                    }
                    // A replica that lags behind: what we just did is true.
                    return Ok(PullRef { draft, ..after });
                }
                Err(error) if error.is_unavailable() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the pull request this title and body (the marker is added) where they differ.
    pub async fn update_pull(
        &self,
        number: u64,
        marker: &Marker,
        title: &str,
        body: &str,
    ) -> Result<PullRef> {
        let body = marker.attach(body);
        let path = self.pull_path(number);
        let operation = format!("update pull request #{number} of {}", self.repo);
        let now: RawPull = self.transport.get(&operation, &path).await?;
        if now.title == title && same_text(now.body.as_deref(), &body) {
            return Ok(now.into_pull());
        }
        let change = json!({ "title": title, "body": body });
        let raw: RawPull = self
            .transport
            .send(&operation, Method::PATCH, &path, &change)
            .await?;
        Ok(raw.into_pull())
    }

    /// Closes the pull request without merging it; its branch stays.
    pub async fn close_pull(&self, number: u64) -> Result<PullRef> {
        let operation = format!("close pull request #{number} of {}", self.repo);
        let change = json!({ "state": "closed" });
        let raw: RawPull = self
            .transport
            .send(&operation, Method::PATCH, &self.pull_path(number), &change)
            .await?;
        Ok(raw.into_pull())
    }

    /// Our open pull requests of a branch of this repository.
    pub async fn open_pulls(&self, head: &str) -> Result<Vec<PullRef>> {
        let operation = format!("list the pull requests of {head} in {}", self.repo);
        let path = self.path(&format!(
            "/pulls?state=open&head={}",
            escape(&format!("{}:{head}", self.repo.owner)),
        ));
        let list = self
            .transport
            .pages::<RawPull>(&operation, &path, None, SEARCH_PAGES)
            .await?;
        let us = self.identity().await?.login;
        // An API that does not know the filter would hand over other people's work.
        let ours = list.items.into_iter().filter(|raw| {
            raw.head.reference == head
                && raw.state == "open"
                && raw
                    .user
                    .as_ref()
                    .is_some_and(|user| user.login.eq_ignore_ascii_case(&us))
        });
        Ok(ours.map(RawPull::into_pull).collect())
    }

    /// Deletes a branch; none of that name is as good.
    pub async fn delete_branch(&self, branch: &str) -> Result<()> {
        let operation = format!("delete branch {branch} of {}", self.repo);
        let path = self.path(&format!("/git/refs/heads/{}", escape_path(branch)));
        match self.transport.delete(&operation, &path).await {
            // GitHub answers 422 where the reference does not exist.
            Err(error) if matches!(error.class(), Class::NotFound | Class::Validation) => Ok(()),
            other => other,
        }
    }

    fn pull_path(&self, number: u64) -> String {
        self.path(&format!("/pulls/{number}"))
    }
}

#[derive(Deserialize)]
struct RawPull {
    number: u64,
    node_id: String,
    html_url: String,
    state: String,
    title: String,
    body: Option<String>,
    user: Option<User>,
    #[serde(default)]
    draft: bool,
    head: RawEnd,
    base: RawEnd,
    merged_at: Option<jiff::Timestamp>,
    merged_by: Option<User>,
    merge_commit_sha: Option<String>,
    mergeable: Option<bool>,
    additions: Option<u64>,
    deletions: Option<u64>,
    changed_files: Option<u64>,
}

#[derive(Deserialize)]
struct RawEnd {
    #[serde(rename = "ref")]
    reference: String,
    sha: String,
}

impl RawPull {
    fn into_pull(self) -> PullRef {
        let state = match (self.merged_at, self.state.as_str()) {
            (Some(_), _) => PullState::Merged {
                commit: self.merge_commit_sha,
                by: self.merged_by.map(|u| u.login),
            },
            (None, "open") => PullState::Open,
            (None, _) => PullState::Closed,
        };
        PullRef {
            number: self.number,
            url: self.html_url,
            node_id: self.node_id,
            draft: self.draft,
            head_sha: self.head.sha,
            head: self.head.reference,
            base: self.base.reference,
            state,
            title: self.title,
            body: self.body.unwrap_or_default(),
            author: login(self.user),
            mergeable: self.mergeable,
            size: self
                .additions
                .zip(self.deletions)
                .zip(self.changed_files)
                .map(|((additions, deletions), files)| Size {
                    additions,
                    deletions,
                    files,
                }),
        }
    }
}
