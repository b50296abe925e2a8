//! Repositories, branches, refs and commits.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::access::Role;
use super::super::call::{Call, Reply};
use super::super::problem::Problem;
use super::super::site::{Repo, Site};
use super::super::{changes, git, render};

type Result = std::result::Result<Reply, Problem>;

/// GitHub lists at most this many commits of a comparison.
const COMPARED: usize = 250;

pub(super) fn get(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    Ok(Reply::ok(render::repo(
        site,
        repo,
        repo.role(call.login()).filter(|_| call.token.is_some()),
    )))
}

pub(super) fn branch(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let name = call.param("branch");
    let Some(sha) = repo.branch(name) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "Branch not found"));
    };
    let api = format!(
        "{}/repos/{}/branches/{name}",
        render::api(site),
        repo.full_name()
    );
    Ok(Reply::ok(json!({
        "name": name, "commit": render::commit(site, repo, &git::commit(&repo.dir, sha)?), "protected": false,
        "protection": {"enabled": false, "required_status_checks": {"enforcement_level": "off", "contexts": [], "checks": []}},
        "protection_url": format!("{api}/protection"), "_links": {"self": api, "html": format!("{}/{}/tree/{name}", site.base, repo.full_name())},
    })))
}

pub(super) fn reference(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let name = format!("refs/{}", call.param("ref"));
    let sha = repo.refs.get(&name).ok_or_else(Problem::not_found)?;
    Ok(Reply::ok(render::reference(site, repo, &name, sha)))
}

pub(super) fn matching_references(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let prefix = format!("refs/{}", call.param("ref"));
    let found = repo
        .refs
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix));
    Ok(Reply::List(
        found
            .map(|(name, sha)| render::reference(site, repo, name, sha))
            .collect(),
    ))
}

pub(super) fn delete_reference(site: &mut Site, call: &Call) -> Result {
    let name = format!("refs/{}", call.param("ref"));
    let repo = site.need_repo(&call.repo())?;
    if !repo.refs.contains_key(&name) {
        return Err(Problem::unprocessable("Reference does not exist"));
    }
    git::delete_ref(&repo.dir, &name)?;
    changes::pushed(site, &call.repo(), call.login())?;
    Ok(Reply::Empty(StatusCode::NO_CONTENT))
}

fn resolve(repo: &Repo, rev: &str) -> std::result::Result<String, Problem> {
    git::resolve(&repo.dir, rev)
        .ok_or_else(|| Problem::unprocessable(format!("No commit found for SHA: {rev}")))
}

pub(super) fn commit(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let sha = resolve(repo, call.param("ref"))?;
    let commit = git::commit(&repo.dir, &sha)?;
    let parent = commit
        .parents
        .first()
        .map_or(git::EMPTY_TREE, String::as_str);
    if call.accept.contains("diff") {
        return Ok(Reply::Raw(
            "application/vnd.github.diff; charset=utf-8",
            git::diff(&repo.dir, parent, &sha)?.into_bytes(),
        ));
    }
    let files = git::changes(&repo.dir, parent, &sha)?;
    let (added, removed) = files.iter().fold((0, 0), |(a, d), file| {
        (a + file.additions, d + file.deletions)
    });
    let mut value = render::commit(site, repo, &commit);
    value["stats"] = json!({"additions": added, "deletions": removed, "total": added + removed});
    value["files"] = files
        .iter()
        .map(|file| render::file_change(site, repo, &sha, file))
        .collect();
    Ok(Reply::ok(value))
}

pub(super) fn commits(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let rev = call.filter("sha").unwrap_or(&repo.default_branch);
    let sha = git::resolve(&repo.dir, rev).ok_or_else(Problem::not_found)?;
    let log = git::log(&repo.dir, &sha, 10_000)?;
    Ok(Reply::List(
        log.iter()
            .map(|commit| render::commit(site, repo, commit))
            .collect(),
    ))
}

pub(super) fn compare(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let both = call.param("basehead");
    let (base, head) = both.split_once("...").ok_or_else(Problem::not_found)?;
    let own = |name: &str| {
        name.strip_prefix(&format!("{}:", repo.owner))
            .unwrap_or(name)
            .to_owned()
    };
    let base = git::resolve(&repo.dir, &own(base)).ok_or_else(Problem::not_found)?;
    let head = git::resolve(&repo.dir, &own(head)).ok_or_else(Problem::not_found)?;
    let fork = git::merge_base(&repo.dir, &base, &head).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!(
                "No common ancestor between {}.",
                both.replace("...", " and ")
            ),
        )
    })?;
    if call.accept.contains("diff") {
        return Ok(Reply::Raw(
            "application/vnd.github.diff; charset=utf-8",
            git::diff(&repo.dir, &fork, &head)?.into_bytes(),
        ));
    }
    let (behind, ahead) = git::distance(&repo.dir, &base, &head)?;
    let status = match (ahead, behind) {
        (0, 0) => "identical",
        (_, 0) => "ahead",
        (0, _) => "behind",
        _ => "diverged",
    };
    let mut log = git::log(&repo.dir, &format!("{base}..{head}"), COMPARED)?;
    log.reverse();
    let commits: Vec<Value> = log
        .iter()
        .map(|commit| render::commit(site, repo, commit))
        .collect();
    let files: Vec<Value> = git::changes(&repo.dir, &fork, &head)?
        .iter()
        .map(|file| render::file_change(site, repo, &head, file))
        .collect();
    let (api, html) = (
        format!(
            "{}/repos/{}/compare/{both}",
            render::api(site),
            repo.full_name()
        ),
        format!("{}/{}/compare/{both}", site.base, repo.full_name()),
    );
    Ok(Reply::ok(json!({
        "url": api, "html_url": html, "permalink_url": html, "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
        "base_commit": render::commit(site, repo, &git::commit(&repo.dir, &base)?), "merge_base_commit": render::commit(site, repo, &git::commit(&repo.dir, &fork)?),
        "status": status, "ahead_by": ahead, "behind_by": behind, "total_commits": ahead, "commits": commits, "files": files,
    })))
}

pub(super) fn permission(site: &mut Site, call: &Call) -> Result {
    let repo = site.need_repo(&call.repo())?;
    let login = call.param("username");
    if !site.users.contains_key(login) {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("{login} is not a user"),
        ));
    }
    let role = repo.role(login);
    // Triage and maintain are roles; the permission that they come to is the older, coarser word.
    let permission = match role {
        None => "none",
        Some(Role::Read | Role::Triage) => "read",
        Some(Role::Write | Role::Maintain) => "write",
        Some(Role::Admin) => "admin",
    };
    let role_name = role.map_or("none", Role::name);
    let mut user = render::user(site, login);
    user["role_name"] = role_name.into();
    Ok(Reply::ok(
        json!({"permission": permission, "role_name": role_name, "user": user}),
    ))
}
