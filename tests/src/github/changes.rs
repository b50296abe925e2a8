//! The changes that requests, pushes and people make to the site, and what follows from them: a push moves the heads of
//! pull requests and starts workflows, a merge closes the issues that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use http::StatusCode;
use regex::Regex;

use super::access::Role;
use super::ci;
use super::git;
use super::problem::Problem;
use super::site::{
    Comment, Issue, Label, Merged, Pull, Push, Repo, Review, ReviewComment, Site, now,
};

type Result<T> = std::result::Result<T, Problem>;

pub(super) struct NewRepo<'a> {
    pub(super) owner: &'a str,
    pub(super) name: &'a str,
    pub(super) private: bool,
}

pub(super) struct NewPull<'a> {
    pub(super) title: &'a str,
    pub(super) body: Option<&'a str>,
    pub(super) head: &'a str,
    pub(super) base: &'a str,
    pub(super) draft: bool,
}

const DEFAULT_LABELS: [(&str, &str, &str); 3] = [
    ("bug", "d73a4a", "Something isn't working"),
    (
        "documentation",
        "0075ca",
        "Improvements or additions to documentation",
    ),
    ("enhancement", "a2eeef", "New feature or request"),
];

/// An empty repository.
pub(super) fn create_repo(site: &mut Site, new: &NewRepo<'_>) -> Result<()> {
    let full = format!("{}/{}", new.owner, new.name);
    let dir = site
        .dir
        .join("repos")
        .join(new.owner)
        .join(format!("{}.git", new.name));
    git::init(&dir, "main")?;
    site.add_user(new.owner);
    let id = site.id();
    let labels = DEFAULT_LABELS.map(|(name, color, text)| Label {
        id: site.id(),
        name: name.into(),
        color: color.into(),
        description: Some(text.into()),
    });
    let repo = Repo {
        id,
        owner: new.owner.to_owned(),
        name: new.name.to_owned(),
        private: new.private,
        archived: false,
        size_kib: 0,
        has_issues: true,
        drafts: true,
        mergeable_late: false,
        default_branch: "main".to_owned(),
        collaborators: [(new.owner.to_owned(), Role::Admin)].into(),
        labels: labels.into(),
        issues: BTreeMap::new(),
        deleted: BTreeSet::new(),
        refs: BTreeMap::new(),
        pushes: Vec::new(),
        suites: Vec::new(),
        check_runs: Vec::new(),
        statuses: Vec::new(),
        runs: Vec::new(),
        ci: ci::CiPolicy::default(),
        created_at: now(),
        pushed_at: now(),
        dir,
    };
    site.repos.insert(full.to_lowercase(), repo);
    Ok(())
}

/// A commit by a person straight on a branch, as if pushed.
pub(super) fn push_files(
    site: &mut Site,
    repo: &str,
    login: &str,
    branch: &str,
    message: &str,
    files: &git::Files,
) -> Result<String> {
    let (name, email) = site.signature(login);
    let target = site.need_repo(repo)?;
    let parent = target
        .branch(branch)
        .or_else(|| target.branch(&target.default_branch));
    let sha = git::write_commit(
        &target.dir,
        branch,
        parent,
        &format!("{name} <{email}>"),
        message,
        files,
    )?;
    pushed(site, repo, login)?;
    Ok(sha)
}

/// Compares the refs on disk with those that the site knows, and lets follow what follows from each that moved.
pub(super) fn pushed(site: &mut Site, name: &str, login: &str) -> Result<()> {
    let repo = site.repo_mut(name)?;
    let fresh = git::refs(&repo.dir)?;
    let known = std::mem::replace(&mut repo.refs, fresh.clone());
    let mut moved = Vec::new();
    for reference in fresh
        .keys()
        .chain(known.keys().filter(|name| !fresh.contains_key(*name)))
    {
        let (before, after) = (known.get(reference).cloned(), fresh.get(reference).cloned());
        if before == after || reference.starts_with("refs/pull/") {
            continue;
        }
        let forced = match (&before, &after) {
            (Some(before), Some(after)) => {
                git::merge_base(&repo.dir, before, after).as_ref() != Some(before)
            }
            _ => false,
        };
        let push = Push {
            login: login.to_owned(),
            name: reference.clone(),
            before,
            after,
            forced,
            at: now(),
        };
        repo.pushed_at = push.at;
        repo.pushes.push(push.clone());
        moved.push(push);
    }
    for push in moved {
        let Some(branch) = push.name.strip_prefix("refs/heads/") else {
            continue;
        };
        follow_branch(site, name, branch, &push)?;
    }
    Ok(())
}

fn follow_branch(site: &mut Site, name: &str, branch: &str, push: &Push) -> Result<()> {
    if let Some(sha) = &push.after {
        ci::trigger(site, name, ("push", ""), &push.login, branch, sha)?;
    }
    let repo = site.repo_mut(name)?;
    let mut changed = Vec::new();
    for issue in repo.issues.values_mut().filter(|issue| issue.open) {
        let Some(pull) = issue.pull.as_mut().filter(|pull| pull.head == branch) else {
            continue;
        };
        issue.updated_at = now();
        if let Some(sha) = &push.after {
            pull.head_sha.clone_from(sha);
            git::set_ref(&repo.dir, &format!("refs/pull/{}/head", issue.number), sha)?;
            changed.push((issue.number, sha.clone()));
        } else {
            issue.open = false;
            issue.closed_at = Some(now());
        }
    }
    repo.refs = git::refs(&repo.dir)?;
    for (number, sha) in changed {
        notice_landed(site, name, number, &push.login)?;
        if site.need_repo(name)?.issue(number)?.open {
            let event = ("pull_request", "synchronize");
            ci::trigger(site, name, event, &push.login, branch, &sha)?;
        }
    }
    let based: Vec<u64> = site
        .need_repo(name)?
        .pulls()
        .filter(|(issue, pull)| issue.open && pull.base == branch)
        .map(|(issue, _)| issue.number)
        .collect();
    for number in based {
        notice_landed(site, name, number, &push.login)?;
    }
    Ok(())
}

/// A pull request whose head reached its base by a push is merged, as on GitHub.
fn notice_landed(site: &mut Site, name: &str, number: u64, login: &str) -> Result<()> {
    let repo = site.need_repo(name)?;
    let (_, pull) = repo.pull(number)?;
    let Some(base) = repo.branch(&pull.base).map(str::to_owned) else {
        return Ok(());
    };
    let contained =
        git::merge_base(&repo.dir, &base, &pull.head_sha).as_ref() == Some(&pull.head_sha);
    if contained && pull.base_sha != base {
        record_merge(site, name, number, login, &base)?;
    }
    Ok(())
}

pub(super) fn create_issue(
    site: &mut Site,
    name: &str,
    login: &str,
    title: &str,
    body: Option<&str>,
) -> Result<u64> {
    site.need_repo(name)?;
    let id = site.id();
    let repo = site.repo_mut(name)?;
    if !repo.has_issues {
        return Err(Problem::new(
            StatusCode::GONE,
            "Issues has been disabled in this repository.",
        ));
    }
    if title.trim().is_empty() {
        return Err(Problem::field("Issue", "title", "missing_field"));
    }
    let number = repo.next_number();
    repo.issues
        .insert(number, new_issue(id, number, login, title, body));
    Ok(number)
}

fn new_issue(id: u64, number: u64, login: &str, title: &str, body: Option<&str>) -> Issue {
    Issue {
        id,
        number,
        title: title.to_owned(),
        body: body.map(str::to_owned),
        author: login.to_owned(),
        open: true,
        state_reason: None,
        labels: Vec::new(),
        assignees: Vec::new(),
        comments: Vec::new(),
        created_at: now(),
        updated_at: now(),
        closed_at: None,
        closed_by: None,
        pull: None,
    }
}

pub(super) fn comment(
    site: &mut Site,
    name: &str,
    login: &str,
    number: u64,
    body: &str,
) -> Result<u64> {
    let id = site.id();
    let issue = site.repo_mut(name)?.issue_mut(number)?;
    issue.updated_at = now();
    issue.comments.push(Comment {
        id,
        author: login.to_owned(),
        body: body.to_owned(),
        created_at: now(),
        updated_at: now(),
    });
    Ok(id)
}

/// What a review says of itself; its comments get their ids here.
pub(super) struct NewReview<'a> {
    pub(super) state: &'a str,
    pub(super) body: &'a str,
    /// The head where not given.
    pub(super) commit: Option<&'a str>,
    pub(super) comments: Vec<NewReviewComment>,
}

/// A comment of a review.
pub(super) struct NewReviewComment {
    pub(super) path: String,
    pub(super) line: u64,
    pub(super) body: String,
    pub(super) reply_to: Option<u64>,
}

/// Adds a review, and takes its author from those who were asked for one.
pub(super) fn review(
    site: &mut Site,
    name: &str,
    login: &str,
    number: u64,
    new: NewReview<'_>,
) -> Result<Review> {
    let head = site.need_repo(name)?.pull(number)?.1.head_sha.clone();
    let mut comments = Vec::new();
    for comment in new.comments {
        comments.push(ReviewComment {
            id: site.id(),
            reply_to: comment.reply_to,
            path: comment.path,
            line: comment.line,
            body: comment.body,
        });
    }
    let review = Review {
        id: site.id(),
        author: login.to_owned(),
        body: new.body.to_owned(),
        state: new.state.to_owned(),
        commit: new.commit.map_or(head, str::to_owned),
        at: now(),
        comments,
    };
    let issue = site.repo_mut(name)?.issue_mut(number)?;
    issue.updated_at = now();
    let pull = issue.pull.as_mut().ok_or_else(Problem::not_found)?;
    pull.asked.retain(|asked| asked != login);
    pull.reviews.push(review.clone());
    Ok(review)
}

/// Replies in the thread of a review comment. As on GitHub, the reply is a review of its own.
pub(super) fn reply(
    site: &mut Site,
    name: &str,
    login: &str,
    number: u64,
    to: u64,
    body: &str,
) -> Result<Review> {
    let repo = site.need_repo(name)?;
    repo.pull(number)?;
    let comments = repo.review_comments(number);
    let (_, first) = comments
        .into_iter()
        .find(|(_, comment)| comment.id == to)
        .ok_or_else(Problem::not_found)?;
    if first.reply_to.is_some() {
        return Err(Problem::unprocessable(
            "in_reply_to can only be set with a top-level comment's id".to_owned(),
        ));
    }
    let comment = NewReviewComment {
        path: first.path.clone(),
        line: first.line,
        body: body.to_owned(),
        reply_to: Some(to),
    };
    let new = NewReview {
        state: "COMMENTED",
        body: "",
        commit: None,
        comments: vec![comment],
    };
    review(site, name, login, number, new)
}

pub(super) fn set_open(
    site: &mut Site,
    name: &str,
    login: &str,
    number: u64,
    open: bool,
    reason: Option<&str>,
) -> Result<()> {
    let issue = site.repo_mut(name)?.issue_mut(number)?;
    if issue
        .pull
        .as_ref()
        .is_some_and(|pull| pull.merged.is_some())
        && open
    {
        return Err(Problem::custom(
            "PullRequest",
            "state cannot be changed. The pull request cannot be reopened.",
        ));
    }
    if issue.open == open {
        return Ok(());
    }
    issue.open = open;
    issue.updated_at = now();
    issue.closed_at = (!open).then(now);
    issue.closed_by = (!open).then(|| login.to_owned());
    let default = if open { "reopened" } else { "completed" };
    issue.state_reason = issue
        .pull
        .is_none()
        .then(|| reason.unwrap_or(default).to_owned());
    Ok(())
}

pub(super) fn set_labels(
    site: &mut Site,
    name: &str,
    number: u64,
    labels: Vec<String>,
) -> Result<()> {
    for label in &labels {
        if !site
            .need_repo(name)?
            .labels
            .iter()
            .any(|known| known.name.eq_ignore_ascii_case(label))
        {
            let id = site.id();
            let new = Label {
                id,
                name: label.clone(),
                color: "ededed".into(),
                description: None,
            };
            site.repo_mut(name)?.labels.push(new);
        }
    }
    let issue = site.repo_mut(name)?.issue_mut(number)?;
    issue.labels = labels;
    issue.updated_at = now();
    Ok(())
}

pub(super) fn create_pull(
    site: &mut Site,
    name: &str,
    login: &str,
    new: &NewPull<'_>,
) -> Result<u64> {
    let repo = site.need_repo(name)?;
    let head = new
        .head
        .strip_prefix(&format!("{}:", repo.owner))
        .unwrap_or(new.head);
    if new.title.trim().is_empty() {
        return Err(Problem::field("PullRequest", "title", "missing_field"));
    }
    let Some(base_sha) = repo.branch(new.base).map(str::to_owned) else {
        return Err(Problem::field("PullRequest", "base", "invalid"));
    };
    let Some(head_sha) = repo.branch(head).map(str::to_owned) else {
        return Err(Problem::field("PullRequest", "head", "invalid"));
    };
    if new.draft && !repo.drafts {
        return Err(Problem::unprocessable(
            "Draft pull requests are not supported in this repository.".to_owned(),
        ));
    }
    if repo
        .pulls()
        .any(|(issue, pull)| issue.open && pull.head == head && pull.base == new.base)
    {
        return Err(Problem::custom(
            "PullRequest",
            format!("A pull request already exists for {}:{head}.", repo.owner),
        ));
    }
    if git::distance(&repo.dir, &base_sha, &head_sha)?.1 == 0 {
        return Err(Problem::custom(
            "PullRequest",
            format!("No commits between {} and {head}", new.base),
        ));
    }
    let (head, issue_id, pull_id) = (head.to_owned(), site.id(), site.id());
    let repo = site.repo_mut(name)?;
    let number = repo.next_number();
    git::set_ref(&repo.dir, &format!("refs/pull/{number}/head"), &head_sha)?;
    repo.refs = git::refs(&repo.dir)?;
    let pull = Pull {
        id: pull_id,
        head: head.clone(),
        head_sha: head_sha.clone(),
        base: new.base.to_owned(),
        base_sha,
        draft: new.draft,
        merged: None,
        tried: None,
        asked: Vec::new(),
        reviews: Vec::new(),
    };
    repo.issues.insert(
        number,
        Issue {
            pull: Some(pull),
            ..new_issue(issue_id, number, login, new.title, new.body)
        },
    );
    let event = ("pull_request", "opened");
    ci::trigger(site, name, event, login, &head, &head_sha)?;
    Ok(number)
}

/// Lets a pull request go into another branch.
pub(super) fn retarget(site: &mut Site, name: &str, number: u64, base: &str) -> Result<()> {
    let repo = site.repo_mut(name)?;
    let Some(sha) = repo.branch(base).map(str::to_owned) else {
        return Err(Problem::field("PullRequest", "base", "invalid"));
    };
    let issue = repo.issue_mut(number)?;
    issue.updated_at = now();
    let pull = issue.pull.as_mut().ok_or_else(Problem::not_found)?;
    (pull.base, pull.base_sha) = (base.to_owned(), sha);
    Ok(())
}

/// Marks a pull request ready for review, or makes it a draft again.
pub(super) fn set_draft(
    site: &mut Site,
    name: &str,
    login: &str,
    number: u64,
    draft: bool,
) -> Result<()> {
    let issue = site.repo_mut(name)?.issue_mut(number)?;
    issue.updated_at = now();
    let pull = issue.pull.as_mut().ok_or_else(Problem::not_found)?;
    if pull.draft == draft {
        return Ok(());
    }
    pull.draft = draft;
    let (head, sha) = (pull.head.clone(), pull.head_sha.clone());
    let activity = if draft {
        "converted_to_draft"
    } else {
        "ready_for_review"
    };
    ci::trigger(site, name, ("pull_request", activity), login, &head, &sha)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Merge,
    Squash,
}

/// Merges by a real merge commit (or a squashed one) on the base branch. `expected` is the head that the caller saw.
pub(super) fn merge(
    site: &mut Site,
    name: &str,
    login: &str,
    number: u64,
    method: Method,
    expected: Option<&str>,
) -> Result<String> {
    let repo = site.need_repo(name)?;
    let (issue, pull) = repo.pull(number)?;
    let not_allowed = |message: &str| Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, message));
    if pull.merged.is_some() {
        return not_allowed("Pull Request is not mergeable");
    }
    if !issue.open {
        return not_allowed("Pull Request is closed");
    }
    if pull.draft {
        return not_allowed("Pull Request is still a draft");
    }
    if expected.is_some_and(|sha| sha != pull.head_sha) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "Head branch was modified. Review and try the merge again.",
        ));
    }
    let Some(base) = repo.branch(&pull.base) else {
        return not_allowed("Base branch does not exist");
    };
    let message = match method {
        Method::Merge => format!(
            "Merge pull request #{number} from {}/{}\n\n{}",
            repo.owner, pull.head, issue.title
        ),
        Method::Squash => format!("{} (#{number})", issue.title),
    };
    let (who, email) = site.signature(login);
    let merged = git::merge(
        &repo.dir,
        base,
        &pull.head_sha,
        method == Method::Squash,
        (&who, &email),
        &message,
    )?;
    let Some(sha) = merged else {
        return not_allowed("Pull Request is not mergeable");
    };
    git::set_ref(&repo.dir, &format!("refs/heads/{}", pull.base), &sha)?;
    record_merge(site, name, number, login, &sha)?;
    pushed(site, name, login)?;
    Ok(sha)
}

fn record_merge(site: &mut Site, name: &str, number: u64, login: &str, sha: &str) -> Result<()> {
    set_open(site, name, login, number, false, None)?;
    let repo = site.repo_mut(name)?;
    let default_branch = repo.default_branch.clone();
    let issue = repo.issue_mut(number)?;
    let text = format!(
        "{}\n{}",
        issue.title,
        issue.body.as_deref().unwrap_or_default()
    );
    let Some(pull) = &mut issue.pull else {
        return Err(Problem::not_found());
    };
    pull.merged = Some(Merged {
        at: now(),
        by: login.to_owned(),
        sha: sha.to_owned(),
    });
    if pull.base != default_branch {
        return Ok(());
    }
    for linked in closing_references(&text) {
        if site
            .need_repo(name)?
            .issues
            .get(&linked)
            .is_some_and(|issue| issue.pull.is_none())
        {
            set_open(site, name, login, linked, false, None)?;
        }
    }
    Ok(())
}

/// The issues that a text closes by GitHub's keywords.
pub(super) fn closing_references(text: &str) -> Vec<u64> {
    static KEYWORD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+#(\d+)\b")
            .expect("the pattern is constant")
    });
    KEYWORD
        .captures_iter(text)
        .filter_map(|found| found[1].parse().ok())
        .collect()
}
