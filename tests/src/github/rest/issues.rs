//! Issues, comments, labels, assignees.

use http::StatusCode;

use super::super::access::Role;
use super::super::call::{Call, Reply};
use super::super::problem::Problem;
use super::super::site::{Issue, Label, Repo, Site, now};
use super::super::{changes, render};

type Result = std::result::Result<Reply, Problem>;

/// GitHub's bound on the characters of a body.
pub(super) const BODY_MAX: usize = 65_536;
/// And of a title.
pub(super) const TITLE_MAX: usize = 256;

pub(super) fn check_lengths(resource: &str, call: &Call) -> std::result::Result<(), Problem> {
    if call
        .text("title")
        .is_some_and(|title| title.chars().count() > TITLE_MAX)
    {
        return Err(Problem::custom(
            resource,
            format!("title is too long (maximum is {TITLE_MAX} characters)"),
        ));
    }
    if call
        .text("body")
        .is_some_and(|body| body.chars().count() > BODY_MAX)
    {
        return Err(Problem::custom(
            resource,
            format!("body is too long (maximum is {BODY_MAX} characters)"),
        ));
    }
    Ok(())
}

fn one(site: &Site, call: &Call, number: u64) -> std::result::Result<serde_json::Value, Problem> {
    let repo = site.need_repo(&call.repo())?;
    Ok(render::issue(site, repo, repo.issue(number)?))
}

pub(super) fn list(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let state = call.filter("state").unwrap_or("open");
    let labels: Vec<&str> = call
        .filter("labels")
        .map_or_else(Vec::new, |names| names.split(',').map(str::trim).collect());
    let since = call
        .filter("since")
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let matches = |issue: &&Issue| {
        (state == "all" || issue.open == (state == "open"))
            && call
                .filter("creator")
                .is_none_or(|login| login.eq_ignore_ascii_case(&issue.author))
            && call.filter("assignee").is_none_or(|login| {
                login == "*" && !issue.assignees.is_empty()
                    || issue.assignees.iter().any(|name| name == login)
            })
            && labels.iter().all(|label| {
                issue
                    .labels
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(label))
            })
            && since.is_none_or(|since| issue.updated_at >= since)
    };
    let mut found: Vec<&Issue> = repo.issues.values().filter(matches).collect();
    match call.filter("sort").unwrap_or("created") {
        "updated" => found.sort_by_key(|issue| (issue.updated_at, issue.number)),
        "comments" => found.sort_by_key(|issue| (issue.comments.len(), issue.number)),
        _ => found.sort_by_key(|issue| issue.number),
    }
    if call.filter("direction") != Some("asc") {
        found.reverse();
    }
    Ok(Reply::List(
        found
            .into_iter()
            .map(|issue| render::issue(site, repo, issue))
            .collect(),
    ))
}

pub(super) fn create(site: &mut Site, call: &Call) -> Result {
    check_lengths("Issue", call)?;
    let title = match &call.body["title"] {
        serde_json::Value::Number(number) => number.to_string(),
        title => title.as_str().unwrap_or_default().to_owned(),
    };
    let number =
        changes::create_issue(site, &call.repo(), call.login(), &title, call.text("body"))?;
    let repo = site.need_repo(&call.repo())?;
    // Labels and assignees of somebody without push access are dropped without a word, as GitHub does it.
    if repo.can_push(call.login()) {
        changes::set_labels(
            site,
            &call.repo(),
            number,
            call.texts("labels").unwrap_or_default(),
        )?;
        assign(
            site,
            call,
            number,
            call.texts("assignees").unwrap_or_default(),
        )?;
    }
    Ok(Reply::created(one(site, call, number)?))
}

pub(super) fn get(site: &mut Site, call: &Call) -> Result {
    Ok(Reply::ok(one(site, call, call.number("issue_number")?)?))
}

pub(super) fn may_edit(repo: &Repo, login: &str, author: &str) -> std::result::Result<(), Problem> {
    if login == author || repo.role(login).is_some_and(|role| role >= Role::Triage) {
        return Ok(());
    }
    Err(Problem::forbidden("Must have admin rights to Repository."))
}

pub(super) fn update(site: &mut Site, call: &Call) -> Result {
    check_lengths("Issue", call)?;
    let number = call.number("issue_number")?;
    let repo = site.need_repo(&call.repo())?;
    may_edit(repo, call.login(), &repo.issue(number)?.author)?;
    edit_text(site.repo_mut(&call.repo())?.issue_mut(number)?, call);
    if let Some(labels) = call.texts("labels") {
        changes::set_labels(site, &call.repo(), number, labels)?;
    }
    if let Some(assignees) = call.texts("assignees") {
        site.repo_mut(&call.repo())?
            .issue_mut(number)?
            .assignees
            .clear();
        assign(site, call, number, assignees)?;
    }
    if let Some(state) = call.text("state") {
        changes::set_open(
            site,
            &call.repo(),
            call.login(),
            number,
            state == "open",
            call.text("state_reason"),
        )?;
    }
    Ok(Reply::ok(one(site, call, number)?))
}

/// Title and body, shared with pull requests. A body of null empties it.
pub(super) fn edit_text(issue: &mut Issue, call: &Call) {
    if let Some(title) = call.text("title") {
        title.clone_into(&mut issue.title);
    }
    if call.body.get("body").is_some() {
        issue.body = call.text("body").map(str::to_owned);
    }
    issue.updated_at = now();
}

fn assign(
    site: &mut Site,
    call: &Call,
    number: u64,
    logins: Vec<String>,
) -> std::result::Result<(), Problem> {
    let repo = site.need_repo(&call.repo())?;
    let able: Vec<String> = logins
        .into_iter()
        .filter(|login| repo.collaborators.contains_key(login))
        .collect();
    let issue = site.repo_mut(&call.repo())?.issue_mut(number)?;
    for login in able {
        if !issue.assignees.contains(&login) {
            issue.assignees.push(login);
        }
    }
    Ok(())
}

pub(super) fn add_assignees(site: &mut Site, call: &Call) -> Result {
    let number = call.number("issue_number")?;
    assign(
        site,
        call,
        number,
        call.texts("assignees").unwrap_or_default(),
    )?;
    Ok(Reply::created(one(site, call, number)?))
}

pub(super) fn list_comments(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let issue = repo.issue(call.number("issue_number")?)?;
    let since = call
        .filter("since")
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let comments = issue
        .comments
        .iter()
        .filter(|comment| since.is_none_or(|since| comment.updated_at >= since));
    Ok(Reply::List(
        comments
            .map(|comment| render::comment(site, repo, issue, comment))
            .collect(),
    ))
}

pub(super) fn create_comment(site: &mut Site, call: &Call) -> Result {
    check_lengths("IssueComment", call)?;
    let number = call.number("issue_number")?;
    let body = call.text("body").unwrap_or_default();
    if body.trim().is_empty() {
        return Err(Problem::field("IssueComment", "body", "missing_field"));
    }
    let id = changes::comment(site, &call.repo(), call.login(), number, body)?;
    Ok(Reply::created(comment(site, call, id)?))
}

fn owner_of(repo: &Repo, id: u64) -> std::result::Result<&Issue, Problem> {
    let has = |issue: &&Issue| issue.comments.iter().any(|comment| comment.id == id);
    repo.issues
        .values()
        .find(has)
        .ok_or_else(Problem::not_found)
}

fn comment(site: &Site, call: &Call, id: u64) -> std::result::Result<serde_json::Value, Problem> {
    let repo = site.need_repo(&call.repo())?;
    let issue = owner_of(repo, id)?;
    let found = issue
        .comments
        .iter()
        .find(|comment| comment.id == id)
        .ok_or_else(Problem::not_found)?;
    Ok(render::comment(site, repo, issue, found))
}

pub(super) fn get_comment(site: &mut Site, call: &Call) -> Result {
    Ok(Reply::ok(comment(site, call, call.number("comment_id")?)?))
}

/// The issue that holds a comment which the caller may change.
fn own_comment(site: &Site, call: &Call, id: u64) -> std::result::Result<u64, Problem> {
    let repo = site.need_repo(&call.repo())?;
    let issue = owner_of(repo, id)?;
    let author = issue
        .comments
        .iter()
        .find(|comment| comment.id == id)
        .map_or("", |comment| comment.author.as_str());
    if author != call.login() && !repo.can_push(call.login()) {
        return Err(Problem::forbidden("Must have admin rights to Repository."));
    }
    Ok(issue.number)
}

pub(super) fn update_comment(site: &mut Site, call: &Call) -> Result {
    check_lengths("IssueComment", call)?;
    let id = call.number("comment_id")?;
    let number = own_comment(site, call, id)?;
    let issue = site.repo_mut(&call.repo())?.issue_mut(number)?;
    for comment in issue.comments.iter_mut().filter(|comment| comment.id == id) {
        call.text("body")
            .unwrap_or_default()
            .clone_into(&mut comment.body);
        comment.updated_at = now();
    }
    Ok(Reply::ok(comment(site, call, id)?))
}

pub(super) fn delete_comment(site: &mut Site, call: &Call) -> Result {
    let id = call.number("comment_id")?;
    let number = own_comment(site, call, id)?;
    site.repo_mut(&call.repo())?
        .issue_mut(number)?
        .comments
        .retain(|comment| comment.id != id);
    Ok(Reply::Empty(StatusCode::NO_CONTENT))
}

pub(super) fn labels(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::List(render::labels(
        site,
        repo,
        repo.issue(call.number("issue_number")?)?,
    )))
}

pub(super) fn add_labels(site: &mut Site, call: &Call) -> Result {
    let number = call.number("issue_number")?;
    let mut labels = site.need_repo(&call.repo())?.issue(number)?.labels.clone();
    let list = call.body.as_array().cloned();
    let added = list.map_or_else(
        || call.texts("labels").unwrap_or_default(),
        |list| {
            list.iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        },
    );
    for label in added {
        if !labels
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&label))
        {
            labels.push(label);
        }
    }
    changes::set_labels(site, &call.repo(), number, labels)?;
    self::labels(site, call)
}

pub(super) fn remove_label(site: &mut Site, call: &Call) -> Result {
    let number = call.number("issue_number")?;
    let issue = site.repo_mut(&call.repo())?.issue_mut(number)?;
    let before = issue.labels.len();
    issue
        .labels
        .retain(|label| !label.eq_ignore_ascii_case(call.param("name")));
    if issue.labels.len() == before {
        return Err(Problem::new(StatusCode::NOT_FOUND, "Label does not exist"));
    }
    labels(site, call)
}

pub(super) fn repo_labels(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::List(
        repo.labels
            .iter()
            .map(|label| render::label(site, repo, label))
            .collect(),
    ))
}

pub(super) fn create_label(site: &mut Site, call: &Call) -> Result {
    let name = call.text("name").unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Problem::field("Label", "name", "missing_field"));
    }
    let id = site.id();
    let repo = site.repo_mut(&call.repo())?;
    if repo
        .labels
        .iter()
        .any(|label| label.name.eq_ignore_ascii_case(&name))
    {
        return Err(Problem::field("Label", "name", "already_exists"));
    }
    let new = Label {
        id,
        name,
        color: call.text("color").unwrap_or("ededed").to_owned(),
        description: call.text("description").map(str::to_owned),
    };
    repo.labels.push(new.clone());
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::created(render::label(site, repo, &new)))
}
