//! The site's data as GitHub's JSON objects. Complete by GitHub's own description: the contract checks every answer.

mod checks;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

pub(super) use checks::{
    annotation, check_run, combined_status, job, job_html, run, status, suite,
};

use super::access::Role;
use super::ci::Conclusion;
use super::git::{self, Commit, FileChange, GitError};
use super::site::{Comment, Issue, Label, Pull, Repo, Review, ReviewComment, Site, User};

pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn maybe_time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| time(at).into())
}

/// An opaque id of a node, as GraphQL takes it.
pub(super) fn node_id(kind: &str, id: u64) -> String {
    format!(
        "{kind}_kwDO{}",
        STANDARD.encode(id.to_be_bytes()).trim_end_matches('=')
    )
}

fn extend(target: &mut Value, more: Value) {
    if let (Value::Object(target), Value::Object(more)) = (target, more) {
        target.extend(more);
    }
}

/// The links of an object: `{prefix}{tail}` for each pair of key and tail.
fn links(prefix: &str, tails: &[(&str, &str)]) -> Value {
    Value::Object(
        tails
            .iter()
            .map(|(key, tail)| ((*key).to_owned(), format!("{prefix}{tail}").into()))
            .collect::<Map<_, _>>(),
    )
}

pub(super) fn api(site: &Site) -> String {
    format!("{}/api/v3", site.base)
}

fn repo_api(site: &Site, repo: &Repo) -> String {
    format!("{}/repos/{}", api(site), repo.full_name())
}

fn repo_html(site: &Site, repo: &Repo) -> String {
    format!("{}/{}", site.base, repo.full_name())
}

pub(super) fn user(site: &Site, login: &str) -> Value {
    let ghost = User {
        id: 1,
        login: "ghost".to_owned(),
        bot: false,
    };
    let user = site.users.get(login).unwrap_or(&ghost);
    let login = &user.login;
    // An App's bot is `slug[bot]`, and its page that of the App.
    let escaped = login.replace('[', "%5B").replace(']', "%5D");
    let page = match login.strip_suffix("[bot]") {
        Some(slug) => format!("{}/apps/{slug}", site.base),
        None => format!("{}/{login}", site.base),
    };
    let mut value = json!({
        "login": login,
        "id": user.id,
        "node_id": node_id("U", user.id),
        "avatar_url": format!("{}/avatars/{escaped}", site.base),
        "gravatar_id": "",
        "html_url": page,
        "type": if user.bot { "Bot" } else { "User" },
        "site_admin": false,
    });
    extend(
        &mut value,
        links(
            &format!("{}/users/{escaped}", api(site)),
            &[
                ("url", ""),
                ("followers_url", "/followers"),
                ("following_url", "/following{/other_user}"),
                ("gists_url", "/gists{/gist_id}"),
                ("starred_url", "/starred{/owner}{/repo}"),
                ("subscriptions_url", "/subscriptions"),
                ("organizations_url", "/orgs"),
                ("repos_url", "/repos"),
                ("events_url", "/events{/privacy}"),
                ("received_events_url", "/received_events"),
            ],
        ),
    );
    value
}

pub(super) fn public_user(site: &Site, login: &str) -> Value {
    let mut value = user(site, login);
    extend(
        &mut value,
        json!({
            "name": login, "company": null, "blog": "", "location": null, "email": null, "hireable": null, "bio": null,
            "public_repos": 0, "public_gists": 0, "followers": 0, "following": 0,
            "created_at": time(site.started), "updated_at": time(site.started),
        }),
    );
    value
}

pub(super) fn private_user(site: &Site, login: &str) -> Value {
    let mut value = public_user(site, login);
    extend(
        &mut value,
        json!({
            "collaborators": 0, "disk_usage": 0, "owned_private_repos": 0, "private_gists": 0, "total_private_repos": 0,
            "two_factor_authentication": true,
        }),
    );
    value
}

fn minimal_repo(site: &Site, repo: &Repo) -> Value {
    let mut value = json!({
        "id": repo.id,
        "node_id": node_id("R", repo.id),
        "name": repo.name,
        "full_name": repo.full_name(),
        "private": repo.private,
        "owner": user(site, &repo.owner),
        "html_url": repo_html(site, repo),
        "description": null,
        "fork": false,
    });
    extend(
        &mut value,
        links(
            &repo_api(site, repo),
            &[
                ("url", ""),
                ("archive_url", "/{archive_format}{/ref}"),
                ("assignees_url", "/assignees{/user}"),
                ("blobs_url", "/git/blobs{/sha}"),
                ("branches_url", "/branches{/branch}"),
                ("collaborators_url", "/collaborators{/collaborator}"),
                ("comments_url", "/comments{/number}"),
                ("commits_url", "/commits{/sha}"),
                ("compare_url", "/compare/{base}...{head}"),
                ("contents_url", "/contents/{+path}"),
                ("contributors_url", "/contributors"),
                ("deployments_url", "/deployments"),
                ("downloads_url", "/downloads"),
                ("events_url", "/events"),
                ("forks_url", "/forks"),
                ("git_commits_url", "/git/commits{/sha}"),
                ("git_refs_url", "/git/refs{/sha}"),
                ("git_tags_url", "/git/tags{/sha}"),
                ("hooks_url", "/hooks"),
                ("issue_comment_url", "/issues/comments{/number}"),
                ("issue_events_url", "/issues/events{/number}"),
                ("issues_url", "/issues{/number}"),
                ("keys_url", "/keys{/key_id}"),
                ("labels_url", "/labels{/name}"),
                ("languages_url", "/languages"),
                ("merges_url", "/merges"),
                ("milestones_url", "/milestones{/number}"),
                (
                    "notifications_url",
                    "/notifications{?since,all,participating}",
                ),
                ("pulls_url", "/pulls{/number}"),
                ("releases_url", "/releases{/id}"),
                ("stargazers_url", "/stargazers"),
                ("statuses_url", "/statuses/{sha}"),
                ("subscribers_url", "/subscribers"),
                ("subscription_url", "/subscription"),
                ("tags_url", "/tags"),
                ("teams_url", "/teams"),
                ("trees_url", "/git/trees{/sha}"),
            ],
        ),
    );
    // A URI template is no URI, and the description asks for one here.
    value["notifications_url"] = format!("{}/notifications", repo_api(site, repo)).into();
    value
}

fn repo_in_pull(site: &Site, repo: &Repo) -> Value {
    let open = repo.issues.values().filter(|issue| issue.open).count();
    let html = repo_html(site, repo);
    let mut value = minimal_repo(site, repo);
    extend(
        &mut value,
        json!({
            "clone_url": format!("{html}.git"), "git_url": format!("{html}.git"), "ssh_url": format!("git@localhost:{}.git", repo.full_name()), "svn_url": html,
            "default_branch": repo.default_branch, "visibility": if repo.private { "private" } else { "public" },
            "archived": repo.archived, "disabled": false, "homepage": null, "language": null, "license": null, "mirror_url": null, "size": repo.size_kib,
            "has_issues": repo.has_issues, "has_projects": false, "has_wiki": false, "has_pages": false, "has_downloads": true, "has_discussions": false,
            "forks": 0, "forks_count": 0, "stargazers_count": 0, "watchers": 0, "watchers_count": 0, "open_issues": open, "open_issues_count": open,
            "is_template": false, "topics": [], "allow_forking": true, "web_commit_signoff_required": false,
            "pushed_at": time(repo.pushed_at), "created_at": time(repo.created_at), "updated_at": time(repo.pushed_at),
        }),
    );
    value
}

pub(super) fn repo(site: &Site, repo: &Repo, role: Option<Role>) -> Value {
    let mut value = repo_in_pull(site, repo);
    extend(
        &mut value,
        json!({
            "network_count": 0, "subscribers_count": 0, "allow_merge_commit": true, "allow_squash_merge": true, "allow_rebase_merge": false,
            "allow_auto_merge": false, "delete_branch_on_merge": false,
        }),
    );
    if let Some(role) = role {
        value["permissions"] = json!({
            "admin": role >= Role::Admin, "maintain": role >= Role::Maintain, "push": role >= Role::Write,
            "triage": role >= Role::Triage, "pull": true,
        });
    }
    value
}

/// How the author of something relates to the repository.
pub(super) fn association(site: &Site, repo: &Repo, login: &str) -> &'static str {
    if login.eq_ignore_ascii_case(&repo.owner) {
        return "OWNER";
    }
    let merged = repo
        .pulls()
        .any(|(issue, pull)| pull.merged.is_some() && issue.author == login);
    match repo.collaborators.get(login) {
        Some(_) => "COLLABORATOR",
        None if merged => "CONTRIBUTOR",
        None if site.users.contains_key(login) => "NONE",
        None => "MANNEQUIN",
    }
}

pub(super) fn label(site: &Site, repo: &Repo, label: &Label) -> Value {
    json!({
        "id": label.id, "node_id": node_id("LA", label.id), "name": label.name, "color": label.color, "description": label.description,
        "default": label.description.is_some(),
        "url": url::Url::parse(&format!("{}/labels/{}", repo_api(site, repo), label.name)).map_or_else(|_| site.base.clone(), String::from),
    })
}

pub(super) fn labels(site: &Site, repo: &Repo, issue: &Issue) -> Vec<Value> {
    let known = |name: &String| {
        repo.labels
            .iter()
            .find(|label| label.name.eq_ignore_ascii_case(name))
    };
    issue
        .labels
        .iter()
        .filter_map(known)
        .map(|found| label(site, repo, found))
        .collect()
}

fn reactions(url: &str) -> Value {
    json!({"url": format!("{url}/reactions"), "total_count": 0, "+1": 0, "-1": 0, "laugh": 0, "confused": 0, "heart": 0, "hooray": 0, "eyes": 0, "rocket": 0})
}

fn state(issue: &Issue) -> &'static str {
    if issue.open { "open" } else { "closed" }
}

pub(super) fn issue_html(site: &Site, repo: &Repo, issue: &Issue) -> String {
    let kind = if issue.pull.is_some() {
        "pull"
    } else {
        "issues"
    };
    format!("{}/{kind}/{}", repo_html(site, repo), issue.number)
}

pub(super) fn issue(site: &Site, repo: &Repo, issue: &Issue) -> Value {
    let url = format!("{}/issues/{}", repo_api(site, repo), issue.number);
    let kind = if issue.pull.is_some() { "PR" } else { "I" };
    let assignees: Vec<Value> = issue
        .assignees
        .iter()
        .map(|login| user(site, login))
        .collect();
    let mut value = json!({
        "id": issue.id, "node_id": node_id(kind, issue.pull.as_ref().map_or(issue.id, |pull| pull.id)), "number": issue.number, "title": issue.title, "body": issue.body,
        "user": user(site, &issue.author), "author_association": association(site, repo, &issue.author), "state": state(issue), "state_reason": issue.state_reason,
        "locked": false, "active_lock_reason": null, "labels": labels(site, repo, issue), "assignee": assignees.first(), "assignees": assignees, "milestone": null,
        "comments": issue.comments.len(), "created_at": time(issue.created_at), "updated_at": time(issue.updated_at), "closed_at": maybe_time(issue.closed_at),
        "closed_by": issue.closed_by.as_deref().map(|login| user(site, login)), "html_url": issue_html(site, repo, issue), "repository_url": repo_api(site, repo),
        "reactions": reactions(&url), "performed_via_github_app": null,
    });
    extend(
        &mut value,
        links(
            &url,
            &[
                ("url", ""),
                ("comments_url", "/comments"),
                ("events_url", "/events"),
                ("labels_url", "/labels{/name}"),
                ("timeline_url", "/timeline"),
            ],
        ),
    );
    if let Some(pull) = &issue.pull {
        let (api, html) = (
            format!("{}/pulls/{}", repo_api(site, repo), issue.number),
            issue_html(site, repo, issue),
        );
        value["draft"] = pull.draft.into();
        value["pull_request"] = json!({
            "url": api, "html_url": html, "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
            "merged_at": maybe_time(pull.merged.as_ref().map(|merged| merged.at)),
        });
    }
    value
}

pub(super) fn comment(site: &Site, repo: &Repo, issue: &Issue, comment: &Comment) -> Value {
    let url = format!("{}/issues/comments/{}", repo_api(site, repo), comment.id);
    json!({
        "id": comment.id, "node_id": node_id("IC", comment.id), "url": url, "html_url": format!("{}#issuecomment-{}", issue_html(site, repo, issue), comment.id),
        "issue_url": format!("{}/issues/{}", repo_api(site, repo), issue.number), "body": comment.body, "user": user(site, &comment.author),
        "author_association": association(site, repo, &comment.author), "created_at": time(comment.created_at), "updated_at": time(comment.updated_at),
        "performed_via_github_app": null, "reactions": reactions(&url),
    })
}

/// A pull request as lists show it.
pub(super) fn pull_simple(site: &Site, repo: &Repo, issue: &Issue, pull: &Pull) -> Value {
    let (api, html) = (
        format!("{}/pulls/{}", repo_api(site, repo), issue.number),
        issue_html(site, repo, issue),
    );
    let base_sha = repo
        .branch(&pull.base)
        .filter(|_| issue.open)
        .unwrap_or(&pull.base_sha);
    let end = |name: &str, sha: &str| json!({"label": format!("{}:{name}", repo.owner), "ref": name, "sha": sha, "user": user(site, &repo.owner), "repo": repo_in_pull(site, repo)});
    let mut value = issue_part(site, repo, issue);
    extend(
        &mut value,
        links(
            &api,
            &[
                ("url", ""),
                ("commits_url", "/commits"),
                ("review_comments_url", "/comments"),
                ("review_comment_url", "/comments{/number}"),
            ],
        ),
    );
    let comments = format!("{}/issues/{}/comments", repo_api(site, repo), issue.number);
    let statuses = format!("{}/statuses/{}", repo_api(site, repo), pull.head_sha);
    let issue_url = format!("{}/issues/{}", repo_api(site, repo), issue.number);
    extend(
        &mut value,
        json!({
            "id": pull.id, "node_id": node_id("PR", pull.id), "html_url": html, "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
            "issue_url": issue_url, "comments_url": comments, "statuses_url": statuses, "draft": pull.draft, "auto_merge": null,
            "merge_commit_sha": pull.merged.as_ref().map(|merged| &merged.sha), "merged_at": maybe_time(pull.merged.as_ref().map(|merged| merged.at)),
            "requested_reviewers": pull.asked.iter().map(|login| user(site, login)).collect::<Vec<_>>(), "requested_teams": [], "head": end(&pull.head, &pull.head_sha), "base": end(&pull.base, base_sha),
            "_links": {
                "self": {"href": api}, "html": {"href": html}, "issue": {"href": issue_url}, "comments": {"href": comments},
                "review_comments": {"href": format!("{api}/comments")}, "review_comment": {"href": format!("{api}/comments{{/number}}")},
                "commits": {"href": format!("{api}/commits")}, "statuses": {"href": statuses},
            },
        }),
    );
    value
}

/// What an issue and a pull request have in common.
fn issue_part(site: &Site, repo: &Repo, issue: &Issue) -> Value {
    let assignees: Vec<Value> = issue
        .assignees
        .iter()
        .map(|login| user(site, login))
        .collect();
    json!({
        "number": issue.number, "title": issue.title, "body": issue.body, "user": user(site, &issue.author), "state": state(issue), "locked": false,
        "active_lock_reason": null, "author_association": association(site, repo, &issue.author), "labels": labels(site, repo, issue),
        "assignee": assignees.first(), "assignees": assignees, "milestone": null, "created_at": time(issue.created_at),
        "updated_at": time(issue.updated_at), "closed_at": maybe_time(issue.closed_at),
    })
}

pub(super) fn pull(
    site: &Site,
    repo: &Repo,
    issue: &Issue,
    pull: &Pull,
) -> Result<Value, GitError> {
    let mut value = pull_simple(site, repo, issue, pull);
    let base = repo
        .branch(&pull.base)
        .filter(|_| pull.merged.is_none())
        .unwrap_or(&pull.base_sha);
    let fork = git::merge_base(&repo.dir, base, &pull.head_sha).unwrap_or_else(|| base.to_owned());
    let changes = git::changes(&repo.dir, &fork, &pull.head_sha)?;
    let is_tried = !repo.mergeable_late
        || pull
            .tried
            .as_ref()
            .is_some_and(|(tried, head)| tried == base && *head == pull.head_sha);
    let mergeable = if issue.open && is_tried {
        Some(git::mergeable(&repo.dir, base, &pull.head_sha)?)
    } else {
        None
    };
    let checks = repo.checks(&pull.head_sha);
    let green = checks.iter().all(|run| {
        matches!(
            run.conclusion,
            Some(Conclusion::Success | Conclusion::Skipped | Conclusion::Neutral)
        )
    });
    let mergeable_state = match mergeable {
        None => "unknown",
        Some(false) => "dirty",
        Some(true) if pull.draft => "draft",
        Some(true) if !green => "unstable",
        Some(true) => "clean",
    };
    extend(
        &mut value,
        json!({
            "merged": pull.merged.is_some(), "mergeable": mergeable, "mergeable_state": mergeable_state, "rebaseable": mergeable,
            "merged_by": pull.merged.as_ref().map(|merged| user(site, &merged.by)), "maintainer_can_modify": false,
            "comments": issue.comments.len(), "review_comments": pull.reviews.iter().map(|review| review.comments.len()).sum::<usize>(),
            "commits": git::distance(&repo.dir, base, &pull.head_sha)?.1, "changed_files": changes.len(),
            "additions": changes.iter().map(|file| file.additions).sum::<u64>(), "deletions": changes.iter().map(|file| file.deletions).sum::<u64>(),
        }),
    );
    Ok(value)
}

pub(super) fn review(site: &Site, repo: &Repo, issue: &Issue, review: &Review) -> Value {
    let html = format!(
        "{}#pullrequestreview-{}",
        issue_html(site, repo, issue),
        review.id
    );
    let pull = format!("{}/pulls/{}", repo_api(site, repo), issue.number);
    json!({
        "id": review.id, "node_id": node_id("PRR", review.id), "user": user(site, &review.author), "body": review.body, "state": review.state,
        "commit_id": review.commit, "submitted_at": time(review.at), "html_url": html, "pull_request_url": pull,
        "author_association": association(site, repo, &review.author), "_links": {"html": {"href": html}, "pull_request": {"href": pull}},
    })
}

pub(super) fn review_comment(
    site: &Site,
    repo: &Repo,
    issue: &Issue,
    review: &Review,
    comment: &ReviewComment,
) -> Value {
    let url = format!("{}/pulls/comments/{}", repo_api(site, repo), comment.id);
    let html = format!(
        "{}#discussion_r{}",
        issue_html(site, repo, issue),
        comment.id
    );
    let pull = format!("{}/pulls/{}", repo_api(site, repo), issue.number);
    let mut value = json!({
        "id": comment.id, "node_id": node_id("PRRC", comment.id), "url": url, "html_url": html, "pull_request_url": pull, "pull_request_review_id": review.id,
        "diff_hunk": "", "path": comment.path, "line": comment.line, "side": "RIGHT", "commit_id": review.commit, "original_commit_id": review.commit,
        "user": user(site, &review.author), "body": comment.body, "created_at": time(review.at), "updated_at": time(review.at),
        "author_association": association(site, repo, &review.author), "reactions": reactions(&url),
        "_links": {"self": {"href": url}, "html": {"href": html}, "pull_request": {"href": pull}},
    });
    if let Some(first) = comment.reply_to {
        value["in_reply_to_id"] = first.into();
    }
    value
}

fn account(site: &Site, email: &str) -> Value {
    let login = email
        .strip_suffix("@users.noreply.github.com")
        .and_then(|name| name.split_once('+'))
        .map(|(_, login)| login);
    login
        .filter(|login| site.users.contains_key(*login))
        .map_or(Value::Null, |login| user(site, login))
}

pub(super) fn commit(site: &Site, repo: &Repo, commit: &Commit) -> Value {
    let url = |kind: &str, sha: &str| format!("{}/{kind}/{sha}", repo_api(site, repo));
    let html = |sha: &str| format!("{}/commit/{sha}", repo_html(site, repo));
    let signature =
        |of: &git::Signature| json!({"name": of.name, "email": of.email, "date": of.date});
    let parents: Vec<Value> = commit
        .parents
        .iter()
        .map(|sha| json!({"sha": sha, "url": url("commits", sha), "html_url": html(sha)}))
        .collect();
    json!({
        "sha": commit.sha, "node_id": format!("C_kwDO{}", commit.sha), "url": url("commits", &commit.sha), "html_url": html(&commit.sha),
        "comments_url": format!("{}/comments", url("commits", &commit.sha)), "author": account(site, &commit.author.email),
        "committer": account(site, &commit.committer.email), "parents": parents,
        "commit": {
            "url": url("git/commits", &commit.sha), "author": signature(&commit.author), "committer": signature(&commit.committer), "message": commit.message,
            "comment_count": 0, "tree": {"sha": commit.tree, "url": url("git/trees", &commit.tree)},
            "verification": {"verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null},
        },
    })
}

pub(super) fn file_change(site: &Site, repo: &Repo, sha: &str, file: &FileChange) -> Value {
    let path: String = url::form_urlencoded::byte_serialize(file.path.as_bytes())
        .collect::<String>()
        .replace("%2F", "/")
        .replace('+', "%20");
    let html = repo_html(site, repo);
    let mut value = json!({
        "sha": file.blob, "filename": file.path, "status": file.status, "additions": file.additions, "deletions": file.deletions,
        "changes": file.additions + file.deletions, "blob_url": format!("{html}/blob/{sha}/{path}"), "raw_url": format!("{html}/raw/{sha}/{path}"),
        "contents_url": format!("{}/contents/{path}?ref={sha}", repo_api(site, repo)),
    });
    if let Some(patch) = &file.patch {
        value["patch"] = patch.as_str().into();
    }
    if let Some(previous) = &file.previous {
        value["previous_filename"] = previous.as_str().into();
    }
    value
}

pub(super) fn reference(site: &Site, repo: &Repo, name: &str, sha: &str) -> Value {
    let (api, id) = (repo_api(site, repo), STANDARD.encode(name));
    json!({"ref": name, "node_id": format!("REF_{id}"), "url": format!("{api}/git/{name}"), "object": {"sha": sha, "type": "commit", "url": format!("{api}/git/commits/{sha}")}})
}
