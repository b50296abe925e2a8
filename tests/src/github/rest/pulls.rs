//! Pull requests and their reviews.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::access::Role;
use super::super::call::{Call, Reply};
use super::super::changes::{self, Method, NewPull, NewReview, NewReviewComment};
use super::super::problem::Problem;
use super::super::site::{Site, now};
use super::super::{git, render};
use super::issues;

type Result = std::result::Result<Reply, Problem>;

/// GitHub lists at most this many commits of a pull request.
const COMMITS: usize = 250;

fn one(site: &Site, call: &Call, number: u64) -> std::result::Result<Value, Problem> {
    let repo = site.need_repo(&call.repo())?;
    let (issue, pull) = repo.pull(number)?;
    Ok(render::pull(site, repo, issue, pull)?)
}

pub(super) fn list(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let state = call.filter("state").unwrap_or("open");
    // GitHub ignores a head without an owner: `head=branch` lists every pull request.
    let head = call.filter("head").and_then(|head| head.split_once(':'));
    let mut found: Vec<_> = repo
        .pulls()
        .filter(|(issue, pull)| {
            (state == "all" || issue.open == (state == "open"))
                && head.is_none_or(|(owner, branch)| {
                    owner.eq_ignore_ascii_case(&repo.owner) && branch == pull.head
                })
                && call.filter("base").is_none_or(|base| base == pull.base)
        })
        .collect();
    if matches!(call.filter("sort"), Some("updated")) {
        found.sort_by_key(|(issue, _)| (issue.updated_at, issue.number));
    }
    if call.filter("direction") != Some("asc") {
        found.reverse();
    }
    Ok(Reply::List(
        found
            .into_iter()
            .map(|(issue, pull)| render::pull_simple(site, repo, issue, pull))
            .collect(),
    ))
}

pub(super) fn create(site: &mut Site, call: &Call) -> Result {
    issues::check_lengths("PullRequest", call)?;
    let repo = site.need_repo(&call.repo())?;
    if !repo.can_push(call.login()) {
        return Err(Problem::forbidden("must be a collaborator"));
    }
    let new = NewPull {
        title: call.text("title").unwrap_or_default(),
        body: call.text("body"),
        head: call.text("head").unwrap_or_default(),
        base: call.text("base").unwrap_or_default(),
        draft: call.body["draft"].as_bool().unwrap_or(false),
    };
    let number = changes::create_pull(site, &call.repo(), call.login(), &new)?;
    Ok(Reply::created(one(site, call, number)?))
}

pub(super) fn get(site: &mut Site, call: &Call) -> Result {
    let number = call.number("pull_number")?;
    if call.accept.contains("diff") {
        let repo = site.need_repo(&call.repo())?;
        let (_, pull) = repo.pull(number)?;
        let fork = git::merge_base(&repo.dir, &pull.base_sha, &pull.head_sha)
            .unwrap_or_else(|| pull.base_sha.clone());
        return Ok(Reply::Raw(
            "application/vnd.github.diff; charset=utf-8",
            git::diff(&repo.dir, &fork, &pull.head_sha)?.into_bytes(),
        ));
    }
    let seen = one(site, call, number)?;
    try_merge(site, call, number)?;
    Ok(Reply::ok(seen))
}

/// The look was what the site waited for.
fn try_merge(site: &mut Site, call: &Call, number: u64) -> std::result::Result<(), Problem> {
    let repo = site.repo_mut(&call.repo())?;
    let (_, pull) = repo.pull(number)?;
    let base = repo.branch(&pull.base).unwrap_or(&pull.base_sha).to_owned();
    if let Some(pull) = &mut repo.issue_mut(number)?.pull {
        pull.tried = Some((base, pull.head_sha.clone()));
    }
    Ok(())
}

pub(super) fn update(site: &mut Site, call: &Call) -> Result {
    issues::check_lengths("PullRequest", call)?;
    let number = call.number("pull_number")?;
    let repo = site.need_repo(&call.repo())?;
    issues::may_edit(repo, call.login(), &repo.pull(number)?.0.author)?;
    let base = call.text("base").map(|base| {
        repo.branch(base)
            .map(|sha| (base.to_owned(), sha.to_owned()))
            .ok_or_else(|| Problem::field("PullRequest", "base", "invalid"))
    });
    let base = base.transpose()?;
    let issue = site.repo_mut(&call.repo())?.issue_mut(number)?;
    issues::edit_text(issue, call);
    if let (Some(pull), Some((base, sha))) = (&mut issue.pull, base) {
        (pull.base, pull.base_sha) = (base, sha);
    }
    if let Some(state) = call.text("state") {
        changes::set_open(
            site,
            &call.repo(),
            call.login(),
            number,
            state == "open",
            None,
        )?;
    }
    Ok(Reply::ok(one(site, call, number)?))
}

pub(super) fn files(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (_, pull) = repo.pull(call.number("pull_number")?)?;
    let fork = git::merge_base(&repo.dir, &pull.base_sha, &pull.head_sha)
        .unwrap_or_else(|| pull.base_sha.clone());
    let files = git::changes(&repo.dir, &fork, &pull.head_sha)?;
    Ok(Reply::List(
        files
            .iter()
            .map(|file| render::file_change(site, repo, &pull.head_sha, file))
            .collect(),
    ))
}

pub(super) fn commits(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (_, pull) = repo.pull(call.number("pull_number")?)?;
    let mut log = git::log(
        &repo.dir,
        &format!("{}..{}", pull.base_sha, pull.head_sha),
        COMMITS,
    )?;
    log.reverse();
    Ok(Reply::List(
        log.iter()
            .map(|commit| render::commit(site, repo, commit))
            .collect(),
    ))
}

pub(super) fn merge(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    if repo
        .role(call.login())
        .is_none_or(|role| role < Role::Write)
    {
        return Err(Problem::not_found());
    }
    let method = match call.text("merge_method") {
        Some("rebase") => {
            return Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Rebase merges are not allowed on this repository.",
            ));
        }
        Some("squash") => Method::Squash,
        _ => Method::Merge,
    };
    let sha = changes::merge(
        site,
        &call.repo(),
        call.login(),
        call.number("pull_number")?,
        method,
        call.text("sha"),
    )?;
    Ok(Reply::ok(
        json!({"sha": sha, "merged": true, "message": "Pull Request successfully merged"}),
    ))
}

pub(super) fn is_merged(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (_, pull) = repo.pull(call.number("pull_number")?)?;
    if pull.merged.is_none() {
        return Err(Problem::not_found());
    }
    Ok(Reply::Empty(StatusCode::NO_CONTENT))
}

pub(super) fn of_commit(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let rev = call.param("commit_sha");
    let sha = git::resolve(&repo.dir, rev)
        .ok_or_else(|| Problem::unprocessable(format!("No commit found for SHA: {rev}")))?;
    let holds = |head: &str| git::merge_base(&repo.dir, &sha, head).as_ref() == Some(&sha);
    let found = repo
        .pulls()
        .filter(|(_, pull)| holds(&pull.head_sha) && !holds(&pull.base_sha));
    Ok(Reply::List(
        found
            .map(|(issue, pull)| render::pull_simple(site, repo, issue, pull))
            .collect(),
    ))
}

pub(super) fn reviews(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (issue, pull) = repo.pull(call.number("pull_number")?)?;
    Ok(Reply::List(
        pull.reviews
            .iter()
            .map(|review| render::review(site, repo, issue, review))
            .collect(),
    ))
}

pub(super) fn review_comments(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let (issue, pull) = repo.pull(call.number("pull_number")?)?;
    let mut all: Vec<_> = pull
        .reviews
        .iter()
        .flat_map(|review| review.comments.iter().map(move |comment| (review, comment)))
        .collect();
    // Nobody edits a comment here, so that the last one made is the last one changed. Ids grow with time.
    all.sort_by_key(|(_, comment)| comment.id);
    if call.filter("direction") == Some("desc") {
        all.reverse();
    }
    Ok(Reply::List(
        all.into_iter()
            .map(|(review, comment)| render::review_comment(site, repo, issue, review, comment))
            .collect(),
    ))
}

pub(super) fn create_review(site: &mut Site, call: &Call) -> Result {
    let number = call.number("pull_number")?;
    let state = match call.text("event") {
        Some("APPROVE") => "APPROVED",
        Some("REQUEST_CHANGES") => "CHANGES_REQUESTED",
        _ => "COMMENTED",
    };
    let (issue, _) = site.need_repo(&call.repo())?.pull(number)?;
    if issue.author == call.login() && state != "COMMENTED" {
        let verb = if state == "APPROVED" {
            "approve"
        } else {
            "request changes on"
        };
        return Err(Problem::unprocessable(format!(
            "Can not {verb} your own pull request"
        )));
    }
    let drafts = call.body["comments"].as_array();
    let comments = drafts.into_iter().flatten().map(|draft| {
        let text = |name: &str| draft[name].as_str().unwrap_or_default().to_owned();
        NewReviewComment {
            path: text("path"),
            line: draft["line"].as_u64().unwrap_or(1),
            body: text("body"),
            reply_to: None,
        }
    });
    let new = NewReview {
        state,
        body: call.text("body").unwrap_or_default(),
        commit: call.text("commit_id"),
        comments: comments.collect(),
    };
    let review = changes::review(site, &call.repo(), call.login(), number, new)?;
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::ok(render::review(
        site,
        repo,
        repo.issue(number)?,
        &review,
    )))
}

pub(super) fn create_reply(site: &mut Site, call: &Call) -> Result {
    let (number, to) = (call.number("pull_number")?, call.number("comment_id")?);
    let body = call.text("body").unwrap_or_default();
    let review = changes::reply(site, &call.repo(), call.login(), number, to, body)?;
    let repo = site.need_repo(&call.repo())?;
    let comment = review.comments.first().ok_or_else(Problem::not_found)?;
    Ok(Reply::created(render::review_comment(
        site,
        repo,
        repo.issue(number)?,
        &review,
        comment,
    )))
}

pub(super) fn request_reviewers(site: &mut Site, call: &Call) -> Result {
    let number = call.number("pull_number")?;
    let repo = site.need_repo(&call.repo())?;
    let (issue, _) = repo.pull(number)?;
    let wanted: Vec<String> = call.body["reviewers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|login| login.as_str().map(str::to_owned))
        .collect();
    let of_the_repo = |login: &String| {
        repo.collaborators.contains_key(login) || login.eq_ignore_ascii_case(&repo.owner)
    };
    if wanted.contains(&issue.author) {
        return Err(Problem::unprocessable(
            "Review cannot be requested from pull request author.".to_owned(),
        ));
    }
    if !wanted.iter().all(of_the_repo) {
        return Err(Problem::unprocessable(
            "Reviews may only be requested from collaborators.".to_owned(),
        ));
    }
    let issue = site.repo_mut(&call.repo())?.issue_mut(number)?;
    issue.updated_at = now();
    if let Some(pull) = &mut issue.pull {
        for login in wanted {
            if !pull.asked.contains(&login) {
                pull.asked.push(login);
            }
        }
    }
    let repo = site.need_repo(&call.repo())?;
    let (issue, pull) = repo.pull(number)?;
    Ok(Reply::created(render::pull_simple(site, repo, issue, pull)))
}
