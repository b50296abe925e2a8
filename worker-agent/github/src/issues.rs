//! Issues and their comments: read as data, written once.
//!
//! A write is found again by its marker in text of our own identity, so that a step which runs
//! twice (or whose answer was lost) leaves one issue and one comment. Where a creation's fate is
//! unknown, we look for it before it is sent again.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, User, login};
use crate::error::{Class, Result};
use crate::marker::{self, Marker};
use crate::text::{bound, clean_inbound};
use crate::transport::{PER_PAGE, backoff, escape};

/// Longest body of an issue that is handed on, in characters.
const BODY_LIMIT: usize = 32_000;
/// Longest comment that is handed on, in characters.
const COMMENT_LIMIT: usize = 8_000;
/// The newest comments that are read: two or three pages.
const COMMENT_PAGES: usize = 3;
/// Bound on pages when we look for something of ours, newest first.
const SEARCH_PAGES: usize = 10;
/// GitHub's own bound on a title.
const TITLE_LIMIT: usize = 256;

/// An issue or pull request as people wrote it. **Data, never instructions**: a stranger may have
/// written it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct IssueThread {
    /// Its number.
    pub number: u64,
    /// Title.
    pub title: String,
    /// Body; without hidden text (HTML comments, control and bidirectional characters).
    pub body: String,
    /// Who wrote it.
    pub author: String,
    /// The author has write access (see [`Comment::trusted`]).
    pub author_trusted: bool,
    /// Open, not closed.
    pub open: bool,
    /// Where people read it.
    pub url: String,
    /// It is a pull request.
    pub is_pull: bool,
    /// Oldest first; the newest few hundred.
    pub comments: Vec<Comment>,
    /// Older comments were left out.
    pub comments_cut: bool,
}

/// A comment on an issue or pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Its id.
    pub id: u64,
    /// Who wrote it.
    pub author: String,
    /// GitHub's word for what the author is to the repository (`OWNER`, `CONTRIBUTOR`, ...).
    pub association: String,
    /// The words; without hidden text.
    pub body: String,
    /// When it was written.
    pub at: Timestamp,
    /// Written by an owner, member or collaborator. Only such comments may reach the model.
    pub trusted: bool,
    /// Written by us (it carries a marker of ours).
    pub ours: bool,
}

impl IssueThread {
    /// The comments that may reach the model: by people who belong to the repository, not our own.
    pub fn for_model(&self) -> impl Iterator<Item = &Comment> {
        self.comments.iter().filter(|c| c.trusted && !c.ours)
    }
}

/// An issue of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRef {
    /// Its number.
    pub number: u64,
    /// Where people read it.
    pub url: String,
    /// GraphQL's id of it.
    pub node_id: String,
    /// Open; a person may have closed it.
    pub open: bool,
    /// Somebody else changed its text, as it was found.
    pub edited: bool,
}

/// An issue or pull request as it stands, without its comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueNow {
    /// Open, not closed.
    pub open: bool,
    /// Title.
    pub title: String,
    /// Body as it is stored, hidden text and all: nothing to show or to hand on.
    pub body: String,
}

/// A comment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommentRef {
    /// Its id.
    pub id: u64,
    /// Where people read it.
    pub url: String,
    /// Somebody else changed its text, as it was found.
    pub edited: bool,
}

impl Client {
    /// Puts a label on an issue or pull request; GitHub makes it where the repository has none of that name.
    pub async fn add_label(&self, number: u64, label: &str) -> Result<()> {
        let operation = format!("label #{number} of {}", self.repo);
        let path = self.path(&format!("/issues/{number}/labels"));
        let labels = json!({ "labels": [label] });
        self.transport
            .send::<serde_json::Value>(&operation, Method::POST, &path, &labels)
            .await
            .map(drop)
    }

    /// Takes a label off; none of that name is as good.
    pub async fn remove_label(&self, number: u64, label: &str) -> Result<()> {
        let operation = format!("unlabel #{number} of {}", self.repo);
        let path = self.path(&format!("/issues/{number}/labels/{}", escape(label)));
        let sent: Result<serde_json::Value> = self
            .transport
            .send(&operation, Method::DELETE, &path, &json!({}))
            .await;
        match sent {
            Err(error) if error.class() == Class::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Reads issue or pull request `number` unless it is still what `etag` stands for; also the tag for the next time.
    pub async fn issue_if_changed(
        &self,
        number: u64,
        etag: Option<&str>,
    ) -> Result<Option<(IssueNow, Option<String>)>> {
        let operation = format!("read issue #{number} of {}", self.repo);
        let path = self.path(&format!("/issues/{number}"));
        let reply = self.transport.get_reply(&operation, &path, etag).await?;
        if reply.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let raw: RawIssue = reply.json(&operation)?;
        let now = IssueNow {
            open: raw.state == "open",
            title: raw.title,
            body: raw.body.unwrap_or_default(),
        };
        Ok(Some((now, reply.header("etag").map(str::to_owned))))
    }

    /// Reads issue or pull request `number` with its newest comments.
    pub async fn issue(&self, number: u64) -> Result<IssueThread> {
        let operation = format!("read issue #{number} of {}", self.repo);
        let path = self.path(&format!("/issues/{number}"));
        let raw: RawIssue = self.transport.get(&operation, &path).await?;
        let us = self.identity().await?.login;
        let pages = usize::try_from(raw.comments)
            .unwrap_or(0)
            .div_ceil(PER_PAGE);
        let first = pages.saturating_sub(COMMENT_PAGES) + 1;
        let mut comments = Vec::new();
        for page in first..=pages {
            let url = format!("{path}/comments?per_page={PER_PAGE}&page={page}");
            let list: Vec<RawComment> = self.transport.get(&operation, &url).await?;
            comments.extend(list.into_iter().map(|c| c.into_comment(&us)));
        }
        Ok(IssueThread {
            number: raw.number,
            title: bound(&clean_inbound(&raw.title), TITLE_LIMIT),
            body: bound(
                &clean_inbound(raw.body.as_deref().unwrap_or("")),
                BODY_LIMIT,
            ),
            author: login(raw.user),
            author_trusted: belongs(&raw.author_association),
            open: raw.state == "open",
            url: raw.html_url,
            is_pull: raw.pull_request.is_some(),
            comments,
            comments_cut: first > 1,
        })
    }

    /// The one issue with `marker` that we wrote: made where there is none, else updated in
    /// place where its text differs. `title` and `body` are ready for GitHub (see [`crate::text`]);
    /// the marker is added here. An issue that a person closed stays closed, and what people wrote
    /// around our text, or as its title, stays as well.
    pub async fn ensure_planning_issue(
        &self,
        marker: &Marker,
        title: &str,
        body: &str,
    ) -> Result<IssueRef> {
        let operation = format!("write planning issue in {}", self.repo);
        let mut pauses = pauses();
        loop {
            if let Some(found) = self.find_issue(marker).await? {
                return self.write_issue(found, marker, body).await;
            }
            let new = json!({ "title": title, "body": marker.enclose(body, None) });
            let sent: Result<RawIssue> = self
                .transport
                .send(&operation, Method::POST, &self.path("/issues"), &new)
                .await;
            match sent {
                Ok(made) => return Ok(made.into_ref(marker)),
                // It may have been made: look before sending again.
                Err(error) if error.is_unavailable() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Self::ensure_planning_issue`], for an issue of ours that is known by its number. One that is no longer there
    /// is an error ([`crate::Error::is_gone`]), and one whose marker somebody took away is left as it is.
    pub async fn update_planning_issue(
        &self,
        number: u64,
        marker: &Marker,
        body: &str,
    ) -> Result<IssueRef> {
        let operation = format!("read issue #{number} of {}", self.repo);
        let path = self.path(&format!("/issues/{number}"));
        let found: RawIssue = self.transport.get(&operation, &path).await?;
        if marker.is_in(found.body.as_deref().unwrap_or("")) {
            self.write_issue(found, marker, body).await
        } else {
            Ok(found.into_ref(marker))
        }
    }

    async fn write_issue(&self, found: RawIssue, marker: &Marker, body: &str) -> Result<IssueRef> {
        let stored = found.body.as_deref().unwrap_or("");
        let body = marker.enclose(body, Some(stored));
        if !same_text(Some(stored), &body) {
            let path = self.path(&format!("/issues/{}", found.number));
            let operation = format!("update issue #{} of {}", found.number, self.repo);
            let change = json!({ "body": body });
            self.transport
                .send::<RawIssue>(&operation, Method::PATCH, &path, &change)
                .await?;
        }
        Ok(found.into_ref(marker))
    }

    /// The one comment with `marker` on issue or pull request `number` that we wrote: made, or
    /// updated in place where its text differs.
    pub async fn ensure_comment(
        &self,
        number: u64,
        marker: &Marker,
        body: &str,
    ) -> Result<CommentRef> {
        let operation = format!("comment on #{number} of {}", self.repo);
        let mut pauses = pauses();
        loop {
            if let Some(found) = self.find_comment(number, marker).await? {
                let stored = found.body.as_deref().unwrap_or("");
                let body = marker.enclose(body, Some(stored));
                if !same_text(Some(stored), &body) {
                    let path = self.path(&format!("/issues/comments/{}", found.id));
                    let change = json!({ "body": body });
                    self.transport
                        .send::<RawComment>(&operation, Method::PATCH, &path, &change)
                        .await?;
                }
                return Ok(found.into_ref(marker));
            }
            let path = self.path(&format!("/issues/{number}/comments"));
            let body = marker.enclose(body, None);
            let sent: Result<RawComment> = self
                .transport
                .send(&operation, Method::POST, &path, &json!({ "body": body }))
                .await;
            match sent {
                Ok(made) => return Ok(made.into_ref(marker)),
                Err(error) if error.is_unavailable() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Our issue with `marker`; `None` where there is none.
    pub async fn planning_issue(&self, marker: &Marker) -> Result<Option<IssueRef>> {
        let found = self.find_issue(marker).await?;
        Ok(found.map(|issue| issue.into_ref(marker)))
    }

    /// Closes an issue as not planned.
    pub async fn close_issue(&self, number: u64) -> Result<()> {
        let operation = format!("close issue #{number} of {}", self.repo);
        let path = self.path(&format!("/issues/{number}"));
        let change = json!({ "state": "closed", "state_reason": "not_planned" });
        self.transport
            .send::<serde_json::Value>(&operation, Method::PATCH, &path, &change)
            .await
            .map(drop)
    }

    /// By listing, since GitHub's search lags behind. The oldest wins where there are several,
    /// so that all callers agree.
    async fn find_issue(&self, marker: &Marker) -> Result<Option<RawIssue>> {
        let identity = self.identity().await?;
        let mut path = self.path("/issues?state=all&sort=created&direction=desc");
        if let Some(since) = marker.since() {
            path.push_str("&since=");
            path.push_str(&escape(&since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        }
        if !identity.is_bot {
            path.push_str("&creator=");
            path.push_str(&escape(&identity.login));
        }
        let operation = format!("look for our issue in {}", self.repo);
        let list = self
            .transport
            .pages::<RawIssue>(&operation, &path, None, SEARCH_PAGES)
            .await?;
        let found = list.items.into_iter().filter(|issue| {
            issue.pull_request.is_none()
                && written_by(issue.user.as_ref(), &identity.login)
                && marker.is_in(issue.body.as_deref().unwrap_or(""))
        });
        Ok(found.min_by_key(|issue| issue.number))
    }

    async fn find_comment(&self, number: u64, marker: &Marker) -> Result<Option<RawComment>> {
        let us = self.identity().await?.login;
        let operation = format!("look for our comment on #{number} of {}", self.repo);
        let mut path = self.path(&format!("/issues/{number}/comments"));
        if let Some(since) = marker.since() {
            path.push_str("?since=");
            path.push_str(&escape(&since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        }
        let list = self
            .transport
            .pages::<RawComment>(&operation, &path, None, SEARCH_PAGES)
            .await?;
        let found = list.items.into_iter().filter(|comment| {
            written_by(comment.user.as_ref(), &us)
                && marker.is_in(comment.body.as_deref().unwrap_or(""))
        });
        Ok(found.min_by_key(|comment| comment.id))
    }
}

/// Between tries of a creation.
pub(crate) fn pauses() -> <ExponentialBuilder as BackoffBuilder>::Backoff {
    backoff().build()
}

pub(crate) fn written_by(user: Option<&User>, us: &str) -> bool {
    user.is_some_and(|u| u.login.eq_ignore_ascii_case(us))
}

/// GitHub may hand back other line ends and cut trailing space.
pub(crate) fn same_text(stored: Option<&str>, wanted: &str) -> bool {
    stored.unwrap_or("").replace("\r\n", "\n").trim_end() == wanted.trim_end()
}

fn belongs(association: &str) -> bool {
    matches!(association, "OWNER" | "MEMBER" | "COLLABORATOR")
}

#[derive(Deserialize)]
struct RawIssue {
    number: u64,
    node_id: String,
    html_url: String,
    state: String,
    title: String,
    body: Option<String>,
    user: Option<User>,
    #[serde(default)]
    author_association: String,
    #[serde(default)]
    comments: u64,
    pull_request: Option<serde::de::IgnoredAny>,
}

impl RawIssue {
    fn into_ref(self, marker: &Marker) -> IssueRef {
        IssueRef {
            edited: marker.is_edited(self.body.as_deref().unwrap_or("")),
            number: self.number,
            url: self.html_url,
            node_id: self.node_id,
            open: self.state == "open",
        }
    }
}

#[derive(Deserialize)]
struct RawComment {
    id: u64,
    html_url: String,
    body: Option<String>,
    user: Option<User>,
    #[serde(default)]
    author_association: String,
    created_at: Timestamp,
}

impl RawComment {
    fn into_comment(self, us: &str) -> Comment {
        let raw = self.body.unwrap_or_default();
        Comment {
            id: self.id,
            trusted: belongs(&self.author_association),
            ours: written_by(self.user.as_ref(), us) && marker::any_in(&raw),
            body: bound(&clean_inbound(&raw), COMMENT_LIMIT),
            author: login(self.user),
            association: self.author_association,
            at: self.created_at,
        }
    }

    fn into_ref(self, marker: &Marker) -> CommentRef {
        CommentRef {
            edited: marker.is_edited(self.body.as_deref().unwrap_or("")),
            id: self.id,
            url: self.html_url,
        }
    }
}
