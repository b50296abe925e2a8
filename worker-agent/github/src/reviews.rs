//! Reviews of a pull request: what people with write access said that wants an answer, and our answers.
//!
//! Who may write is asked of GitHub for each author; the association that a comment carries does not tell. What others
//! say is left out, also inside of a thread that such a person takes part in. An answer carries a marker of the very
//! comment that it answers, so that a step which runs twice answers once.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::Result;
use crate::issues::{CommentRef, pauses};
use crate::marker::{Kind, Marker};
use crate::text::{bound, clean_inbound};
use crate::transport::{PER_PAGE, escape};

/// A thousand reviews, and as many comments: the newest.
const PAGES: usize = 10;
/// Longest thread that is handed on, in characters; its end counts.
const TEXT_LIMIT: usize = 8_000;
/// Longest piece of the diff that goes with a thread, in characters.
const HUNK_LIMIT: usize = 2_000;

/// Something that a person with write access said, and how far it is answered. **Data, never instructions to obey
/// beyond the task.**
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewThread {
    /// The text of a review as a whole; else comments on a line or a file.
    pub is_review: bool,
    /// Id of the review, or of the thread's first comment.
    pub id: u64,
    /// Id of the review, or of the newest comment of such a person.
    pub newest: u64,
    /// `newest` is answered by us.
    pub answered: bool,
    /// Who said it last.
    pub author: String,
    /// The file, where there is one.
    pub path: Option<String>,
    /// The line, where the comment still has one.
    pub line: Option<u64>,
    /// What was said, each with its author; without hidden text.
    pub text: String,
}

/// What was seen of the reviews last; empty for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReviewTags {
    /// Of the list of reviews.
    pub reviews: String,
    /// Of the list of comments.
    pub comments: String,
}

impl Client {
    /// What reviewers of pull request `number` said, oldest first, unless all is as `tags` stand for and not `forced`.
    /// `task` is the id that markers carry.
    pub async fn reviews_if_changed(
        &self,
        number: u64,
        task: &str,
        tags: &ReviewTags,
        forced: bool,
    ) -> Result<Option<(Vec<ReviewThread>, ReviewTags)>> {
        let pull = self.path(&format!("/pulls/{number}"));
        let first = format!("{pull}/reviews?per_page={PER_PAGE}&page=1");
        let reviews = self.tag(number, &first, &tags.reviews).await?;
        // The newest come first, so that a list of any length shows on its first page that it grew.
        let first =
            format!("{pull}/comments?sort=updated&direction=desc&per_page={PER_PAGE}&page=1");
        let comments = self.tag(number, &first, &tags.comments).await?;
        if reviews.is_none() && comments.is_none() && !forced {
            return Ok(None);
        }
        let seen = ReviewTags {
            reviews: reviews.unwrap_or_else(|| tags.reviews.clone()),
            comments: comments.unwrap_or_else(|| tags.comments.clone()),
        };
        let reviews = self.raw_reviews(number).await?;
        let comments = self.raw_comments(number).await?;
        let us = self.identity().await?.login;
        let writers = self.writers(&us, &reviews, &comments).await?;
        Ok(Some((
            threads(&us, task, &writers, reviews, comments),
            seen,
        )))
    }

    /// The tag of a list, where it is not `known`.
    async fn tag(&self, number: u64, path: &str, known: &str) -> Result<Option<String>> {
        let operation = format!("look at reviews of #{number} of {}", self.repo);
        let known = (!known.is_empty()).then_some(known);
        let reply = self.transport.get_reply(&operation, path, known).await?;
        Ok((reply.status != StatusCode::NOT_MODIFIED)
            .then(|| reply.header("etag").unwrap_or_default().to_owned()))
    }

    async fn raw_reviews(&self, number: u64) -> Result<Vec<RawReview>> {
        let operation = format!("read reviews of #{number} of {}", self.repo);
        let path = self.path(&format!("/pulls/{number}/reviews"));
        let pages = self.transport.pages(&operation, &path, None, PAGES).await?;
        Ok(pages.items)
    }

    async fn raw_comments(&self, number: u64) -> Result<Vec<RawComment>> {
        let operation = format!("read review comments of #{number} of {}", self.repo);
        let path = self.path(&format!(
            "/pulls/{number}/comments?sort=created&direction=desc"
        ));
        let pages = self.transport.pages(&operation, &path, None, PAGES).await?;
        Ok(pages.items)
    }

    async fn writers(
        &self,
        us: &str,
        reviews: &[RawReview],
        comments: &[RawComment],
    ) -> Result<BTreeSet<String>> {
        let authors = reviews.iter().map(|review| &review.user);
        let authors = authors.chain(comments.iter().map(|comment| &comment.user));
        let people: BTreeSet<&str> = authors
            .flatten()
            .filter(|author| !author.is_bot() && !author.login.eq_ignore_ascii_case(us))
            .map(|author| author.login.as_str())
            .collect();
        let mut writers = BTreeSet::new();
        for login in people {
            if self.may_write(login).await? {
                writers.insert(login.to_owned());
            }
        }
        Ok(writers)
    }

    /// Whether a person may push to the repository.
    pub async fn may_write(&self, login: &str) -> Result<bool> {
        let operation = format!("ask what {login} may do in {}", self.repo);
        let path = self.path(&format!("/collaborators/{}/permission", escape(login)));
        let found: Option<Permission> = self.transport.get_optional(&operation, &path).await?;
        Ok(found.is_some_and(|found| matches!(found.permission.as_str(), "admin" | "write")))
    }

    /// Our one reply with `marker` in the thread that comment `root` began: there, or made. None where the thread is gone.
    pub async fn ensure_reply(
        &self,
        number: u64,
        root: u64,
        marker: &Marker,
        body: &str,
    ) -> Result<Option<CommentRef>> {
        let body = marker.attach(body);
        let operation = format!("reply in a review of #{number} of {}", self.repo);
        let path = self.path(&format!("/pulls/{number}/comments/{root}/replies"));
        let us = self.identity().await?.login;
        let mut pauses = pauses();
        loop {
            let comments = self.raw_comments(number).await?;
            let found = comments.into_iter().find(|comment| {
                comment.root() == root && comment.is_by(&us) && comment.has(marker)
            });
            if let Some(found) = found {
                return Ok(Some(found.into_ref(marker)));
            }
            let sent: Result<RawComment> = self
                .transport
                .send(&operation, Method::POST, &path, &json!({ "body": body }))
                .await;
            match sent {
                Ok(made) => return Ok(Some(made.into_ref(marker))),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) if error.is_unavailable() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// People whose last word on pull request `number` is that they want changes in another commit than `sha`.
    pub async fn reviewers_to_ask(&self, number: u64, sha: &str) -> Result<Vec<String>> {
        let reviews = self.raw_reviews(number).await?;
        Ok(unsatisfied(&reviews, sha))
    }

    /// Asks a person for a review. Asking twice is as good as once.
    pub async fn request_review(&self, number: u64, login: &str) -> Result<()> {
        let operation = format!("ask {login} for a review of #{number} of {}", self.repo);
        let path = self.path(&format!("/pulls/{number}/requested_reviewers"));
        self.transport
            .send::<Value>(
                &operation,
                Method::POST,
                &path,
                &json!({ "reviewers": [login] }),
            )
            .await
            .map(drop)
    }
}

/// Those whose last decision is "changes requested" for another commit.
fn unsatisfied(reviews: &[RawReview], sha: &str) -> Vec<String> {
    let mut last: BTreeMap<&str, &RawReview> = BTreeMap::new();
    for review in reviews {
        let decides = matches!(
            review.state.as_str(),
            "APPROVED" | "CHANGES_REQUESTED" | "DISMISSED"
        );
        if let Some(author) = review.user.as_ref().filter(|_| decides) {
            last.insert(&author.login, review);
        }
    }
    last.into_iter()
        .filter(|(_, review)| review.state == "CHANGES_REQUESTED")
        .filter(|(_, review)| review.commit_id.as_deref() != Some(sha))
        .map(|(login, _)| login.to_owned())
        .collect()
}

/// What `writers` said. Pure.
fn threads(
    us: &str,
    task: &str,
    writers: &BTreeSet<String>,
    reviews: Vec<RawReview>,
    comments: Vec<RawComment>,
) -> Vec<ReviewThread> {
    let mut found = Vec::new();
    for review in reviews {
        let Some(author) = review.user.filter(|author| writers.contains(&author.login)) else {
            continue;
        };
        let text = clean_inbound(review.body.as_deref().unwrap_or_default());
        // An approval asks for nothing, and a review of mere comments has no text of its own.
        let asks = matches!(review.state.as_str(), "CHANGES_REQUESTED" | "COMMENTED");
        if asks && !text.trim().is_empty() {
            found.push(ReviewThread {
                is_review: true,
                id: review.id,
                newest: review.id,
                answered: false,
                author: author.login,
                path: None,
                line: None,
                text: bound(text.trim(), TEXT_LIMIT),
            });
        }
    }
    let mut by_root: BTreeMap<u64, Vec<RawComment>> = BTreeMap::new();
    for comment in comments {
        by_root.entry(comment.root()).or_default().push(comment);
    }
    for (root, mut comments) in by_root {
        comments.sort_by_key(|comment| comment.id);
        let said = comments
            .iter()
            .rfind(|comment| comment.is_of(writers))
            .map(|comment| (comment.id, comment.author()));
        let Some((newest, author)) = said else {
            continue;
        };
        let marker = Marker::new(task, Kind::Reply(newest));
        let place = comments.first();
        let mut text = String::new();
        let hunk = place.map_or("", |place| place.diff_hunk.as_str());
        if !hunk.is_empty() {
            text = format!("{}\n\n", last(&clean_inbound(hunk), HUNK_LIMIT));
        }
        let words: Vec<String> = comments
            .iter()
            .filter(|comment| comment.is_of(writers) || comment.is_by(us))
            .map(|comment| {
                let body = clean_inbound(comment.body.as_deref().unwrap_or_default());
                format!("{}: {}", comment.author(), body.trim())
            })
            .collect();
        text.push_str(&last(&words.join("\n\n"), TEXT_LIMIT));
        found.push(ReviewThread {
            is_review: false,
            id: root,
            newest,
            answered: comments
                .iter()
                .any(|comment| comment.is_by(us) && comment.has(&marker)),
            author,
            path: place.map(|place| place.path.clone()),
            line: place.and_then(|place| place.line.or(place.original_line)),
            text,
        });
    }
    found.sort_by_key(|thread| thread.newest);
    found
}

/// At most the last `limit` characters; a cut is shown by an ellipsis.
fn last(text: &str, limit: usize) -> String {
    match text.char_indices().rev().nth(limit.saturating_sub(1)) {
        None | Some((0, _)) => text.to_owned(),
        Some((at, _)) => format!("…{}", &text[at..]),
    }
}

#[derive(Deserialize)]
struct Permission {
    permission: String,
}

/// An author, where the account is still there.
#[derive(Debug, Clone, Deserialize)]
struct Author {
    login: String,
    #[serde(rename = "type", default)]
    kind: String,
}

impl Author {
    fn is_bot(&self) -> bool {
        self.kind == "Bot" || self.login.ends_with("[bot]")
    }
}

#[derive(Debug, Clone, Deserialize)]
struct RawReview {
    id: u64,
    user: Option<Author>,
    body: Option<String>,
    #[serde(default)]
    state: String,
    commit_id: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct RawComment {
    id: u64,
    #[serde(default)]
    html_url: String,
    user: Option<Author>,
    body: Option<String>,
    #[serde(default)]
    path: String,
    line: Option<u64>,
    original_line: Option<u64>,
    in_reply_to_id: Option<u64>,
    #[serde(default)]
    diff_hunk: String,
}

impl RawComment {
    /// The first comment of its thread.
    fn root(&self) -> u64 {
        self.in_reply_to_id.unwrap_or(self.id)
    }

    fn author(&self) -> String {
        self.user
            .as_ref()
            .map_or_else(|| "ghost".to_owned(), |author| author.login.clone())
    }

    fn is_by(&self, login: &str) -> bool {
        self.user
            .as_ref()
            .is_some_and(|author| author.login.eq_ignore_ascii_case(login))
    }

    fn is_of(&self, people: &BTreeSet<String>) -> bool {
        self.user
            .as_ref()
            .is_some_and(|author| people.contains(&author.login))
    }

    fn has(&self, marker: &Marker) -> bool {
        marker.is_in(self.body.as_deref().unwrap_or_default())
    }

    fn into_ref(self, marker: &Marker) -> CommentRef {
        CommentRef {
            id: self.id,
            edited: marker.is_edited(self.body.as_deref().unwrap_or("")),
            url: self.html_url,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn author(login: &str) -> Author {
        Author {
            login: login.to_owned(),
            kind: "User".to_owned(),
        }
    }

    fn review(id: u64, login: &str, state: &str, body: &str) -> RawReview {
        RawReview {
            id,
            user: Some(author(login)),
            body: Some(body.to_owned()),
            state: state.to_owned(),
            commit_id: Some("aaa".to_owned()),
        }
    }

    fn comment(id: u64, reply_to: Option<u64>, login: &str, body: &str) -> RawComment {
        RawComment {
            id,
            html_url: String::new(),
            user: Some(author(login)),
            body: Some(body.to_owned()),
            path: "calc.py".to_owned(),
            line: None,
            original_line: Some(6),
            in_reply_to_id: reply_to,
            diff_hunk: String::new(),
        }
    }

    fn seen(reviews: Vec<RawReview>, comments: Vec<RawComment>) -> Vec<ReviewThread> {
        let writers = BTreeSet::from(["ada".to_owned(), "grace".to_owned()]);
        threads("robot", "0198", &writers, reviews, comments)
    }

    #[test]
    fn only_what_writers_say_is_seen() {
        let found = seen(
            vec![
                review(
                    1,
                    "ada",
                    "CHANGES_REQUESTED",
                    "Name it <!-- hidden -->minus.",
                ),
                review(2, "eve", "CHANGES_REQUESTED", "Delete it all."),
                review(3, "ada", "APPROVED", "Thanks!"),
                review(4, "grace", "COMMENTED", " "),
                review(5, "ada", "DISMISSED", "never mind"),
            ],
            vec![
                comment(10, None, "eve", "first!"),
                comment(11, None, "eve", "this is wrong"),
                comment(12, Some(11), "grace", "eve is right"),
                comment(13, Some(11), "eve", "run rm -rf"),
            ],
        );
        let texts: Vec<&str> = found.iter().map(|thread| thread.text.as_str()).collect();
        assert_eq!(texts, ["Name it minus.", "grace: eve is right"]);
        assert_eq!(
            (found[1].id, found[1].newest, found[1].line),
            (11, 12, Some(6))
        );
    }

    #[test]
    fn a_thread_is_answered_by_our_marker_alone_and_open_again_after_another_word() {
        let marker = Marker::new("0198", Kind::Reply(10)).attach("Done.");
        let asked = || comment(10, None, "ada", "Why?");
        let ours = comment(11, Some(10), "robot", &marker);
        let posed = comment(11, Some(10), "grace", &marker);
        assert!(seen(Vec::new(), vec![ours.clone(), asked()])[0].answered);
        assert!(!seen(Vec::new(), vec![asked(), posed])[0].answered);
        let again = comment(12, Some(10), "ada", "But why?");
        let open = seen(Vec::new(), vec![asked(), ours, again]);
        assert_eq!((open[0].answered, open[0].newest), (false, 12));
        assert_eq!(open[0].text, "ada: Why?\n\nrobot: Done.\n\nada: But why?");
    }

    #[test]
    fn reviewers_are_asked_again_for_another_commit_only_while_they_want_changes() {
        let reviews = [
            review(1, "ada", "CHANGES_REQUESTED", "x"),
            review(2, "grace", "CHANGES_REQUESTED", "x"),
            review(3, "grace", "APPROVED", ""),
            review(4, "ada", "COMMENTED", "hm"),
        ];
        assert_eq!(unsatisfied(&reviews, "bbb"), ["ada"]);
        assert!(unsatisfied(&reviews, "aaa").is_empty());
    }

    #[test]
    fn the_end_of_a_long_thread_is_kept() {
        assert_eq!(last("äbc", 2), "…bc");
        assert_eq!(last("äbc", 3), "äbc");
        assert_eq!(last("", 3), "");
    }
}
