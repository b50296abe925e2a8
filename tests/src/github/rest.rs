//! The REST API: the table of operations, and how a call finds its handler.
//!
//! An operation that is not in the table answers 404 as GitHub does, and is recorded as a violation of the contract, so
//! that a client that needs more than the emulator knows fails loudly.

mod apps;
mod checks;
mod contents;
mod issues;
mod pulls;
mod repos;
mod users;

use std::collections::BTreeMap;

use super::access::{Need, Need::Nothing, Scope, read, write};
use super::call::{Call, Reply};
use super::problem::Problem;
use super::site::Site;

/// What an operation does: one request is one transaction on the site.
pub(super) type Handler = fn(&mut Site, &Call) -> Result<Reply, Problem>;

/// One row of the table. `{name*}` in the path takes the rest of it, slashes included.
pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) need: Need,
    pub(super) handler: Handler,
}

type Row = (&'static str, &'static str, &'static str, Need, Handler);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("rate-limit/get", "GET", "/rate_limit", Nothing, users::rate_limit),
    ("users/get-authenticated", "GET", "/user", Nothing, users::authenticated),
    ("users/get-by-username", "GET", "/users/{username}", Nothing, users::by_name),

    ("apps/get-authenticated", "GET", "/app", Nothing, apps::authenticated),
    ("apps/get-repo-installation", "GET", "/repos/{owner}/{repo}/installation", Nothing, apps::of_repository),
    ("apps/create-installation-access-token", "POST", "/app/installations/{installation_id}/access_tokens", Nothing, apps::mint),
    ("apps/revoke-installation-access-token", "DELETE", "/installation/token", Nothing, apps::revoke),

    ("repos/get", "GET", "/repos/{owner}/{repo}", read(Scope::Metadata), repos::get),
    ("repos/get-branch", "GET", "/repos/{owner}/{repo}/branches/{branch*}", read(Scope::Contents), repos::branch),
    ("git/get-ref", "GET", "/repos/{owner}/{repo}/git/ref/{ref*}", read(Scope::Contents), repos::reference),
    ("git/list-matching-refs", "GET", "/repos/{owner}/{repo}/git/matching-refs/{ref*}", read(Scope::Contents), repos::matching_references),
    ("git/delete-ref", "DELETE", "/repos/{owner}/{repo}/git/refs/{ref*}", write(Scope::Contents), repos::delete_reference),
    ("git/get-tree", "GET", "/repos/{owner}/{repo}/git/trees/{tree_sha}", read(Scope::Contents), contents::tree),
    ("git/get-blob", "GET", "/repos/{owner}/{repo}/git/blobs/{file_sha}", read(Scope::Contents), contents::blob),
    ("repos/list-commits", "GET", "/repos/{owner}/{repo}/commits", read(Scope::Contents), repos::commits),
    ("repos/compare-commits", "GET", "/repos/{owner}/{repo}/compare/{basehead*}", read(Scope::Contents), repos::compare),
    ("repos/get-content", "GET", "/repos/{owner}/{repo}/contents/{path*}", read(Scope::Contents), contents::get),
    ("repos/get-collaborator-permission-level", "GET", "/repos/{owner}/{repo}/collaborators/{username}/permission", read(Scope::Metadata), repos::permission),

    ("issues/list-for-repo", "GET", "/repos/{owner}/{repo}/issues", read(Scope::Issues), issues::list),
    ("issues/create", "POST", "/repos/{owner}/{repo}/issues", write(Scope::Issues), issues::create),
    ("issues/get-comment", "GET", "/repos/{owner}/{repo}/issues/comments/{comment_id}", read(Scope::Issues), issues::get_comment),
    ("issues/update-comment", "PATCH", "/repos/{owner}/{repo}/issues/comments/{comment_id}", write(Scope::Issues), issues::update_comment),
    ("issues/delete-comment", "DELETE", "/repos/{owner}/{repo}/issues/comments/{comment_id}", write(Scope::Issues), issues::delete_comment),
    ("issues/get", "GET", "/repos/{owner}/{repo}/issues/{issue_number}", read(Scope::Issues), issues::get),
    ("issues/update", "PATCH", "/repos/{owner}/{repo}/issues/{issue_number}", write(Scope::Issues), issues::update),
    ("issues/list-comments", "GET", "/repos/{owner}/{repo}/issues/{issue_number}/comments", read(Scope::Issues), issues::list_comments),
    ("issues/create-comment", "POST", "/repos/{owner}/{repo}/issues/{issue_number}/comments", write(Scope::Issues), issues::create_comment),
    ("issues/list-labels-on-issue", "GET", "/repos/{owner}/{repo}/issues/{issue_number}/labels", read(Scope::Issues), issues::labels),
    ("issues/add-labels", "POST", "/repos/{owner}/{repo}/issues/{issue_number}/labels", write(Scope::Issues), issues::add_labels),
    ("issues/remove-label", "DELETE", "/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}", write(Scope::Issues), issues::remove_label),
    ("issues/add-assignees", "POST", "/repos/{owner}/{repo}/issues/{issue_number}/assignees", write(Scope::Issues), issues::add_assignees),
    ("issues/list-labels-for-repo", "GET", "/repos/{owner}/{repo}/labels", read(Scope::Issues), issues::repo_labels),
    ("issues/create-label", "POST", "/repos/{owner}/{repo}/labels", write(Scope::Issues), issues::create_label),

    ("pulls/list", "GET", "/repos/{owner}/{repo}/pulls", read(Scope::PullRequests), pulls::list),
    ("pulls/create", "POST", "/repos/{owner}/{repo}/pulls", write(Scope::PullRequests), pulls::create),
    ("pulls/get", "GET", "/repos/{owner}/{repo}/pulls/{pull_number}", read(Scope::PullRequests), pulls::get),
    ("pulls/update", "PATCH", "/repos/{owner}/{repo}/pulls/{pull_number}", write(Scope::PullRequests), pulls::update),
    ("pulls/list-files", "GET", "/repos/{owner}/{repo}/pulls/{pull_number}/files", read(Scope::PullRequests), pulls::files),
    ("pulls/list-commits", "GET", "/repos/{owner}/{repo}/pulls/{pull_number}/commits", read(Scope::PullRequests), pulls::commits),
    ("pulls/merge", "PUT", "/repos/{owner}/{repo}/pulls/{pull_number}/merge", write(Scope::Contents), pulls::merge),
    ("pulls/check-if-merged", "GET", "/repos/{owner}/{repo}/pulls/{pull_number}/merge", read(Scope::PullRequests), pulls::is_merged),
    ("pulls/list-reviews", "GET", "/repos/{owner}/{repo}/pulls/{pull_number}/reviews", read(Scope::PullRequests), pulls::reviews),
    ("pulls/create-review", "POST", "/repos/{owner}/{repo}/pulls/{pull_number}/reviews", write(Scope::PullRequests), pulls::create_review),
    ("pulls/list-review-comments", "GET", "/repos/{owner}/{repo}/pulls/{pull_number}/comments", read(Scope::PullRequests), pulls::review_comments),
    ("pulls/create-reply-for-review-comment", "POST", "/repos/{owner}/{repo}/pulls/{pull_number}/comments/{comment_id}/replies", write(Scope::PullRequests), pulls::create_reply),
    ("pulls/request-reviewers", "POST", "/repos/{owner}/{repo}/pulls/{pull_number}/requested_reviewers", write(Scope::PullRequests), pulls::request_reviewers),
    ("repos/list-pull-requests-associated-with-commit", "GET", "/repos/{owner}/{repo}/commits/{commit_sha}/pulls", read(Scope::PullRequests), pulls::of_commit),

    ("checks/list-for-ref", "GET", "/repos/{owner}/{repo}/commits/{ref}/check-runs", read(Scope::Checks), checks::runs_for_ref),
    ("checks/list-suites-for-ref", "GET", "/repos/{owner}/{repo}/commits/{ref}/check-suites", read(Scope::Checks), checks::suites_for_ref),
    ("checks/get", "GET", "/repos/{owner}/{repo}/check-runs/{check_run_id}", read(Scope::Checks), checks::get),
    ("checks/list-annotations", "GET", "/repos/{owner}/{repo}/check-runs/{check_run_id}/annotations", read(Scope::Checks), checks::annotations),
    ("repos/get-combined-status-for-ref", "GET", "/repos/{owner}/{repo}/commits/{ref}/status", read(Scope::Statuses), checks::combined_status),
    ("repos/list-commit-statuses-for-ref", "GET", "/repos/{owner}/{repo}/commits/{ref}/statuses", read(Scope::Statuses), checks::statuses),
    ("repos/create-commit-status", "POST", "/repos/{owner}/{repo}/statuses/{sha}", write(Scope::Statuses), checks::create_status),
    ("repos/get-commit", "GET", "/repos/{owner}/{repo}/commits/{ref*}", read(Scope::Contents), repos::commit),
    ("actions/list-workflow-runs-for-repo", "GET", "/repos/{owner}/{repo}/actions/runs", read(Scope::Actions), checks::workflow_runs),
    ("actions/get-workflow-run", "GET", "/repos/{owner}/{repo}/actions/runs/{run_id}", read(Scope::Actions), checks::workflow_run),
    ("actions/list-jobs-for-workflow-run", "GET", "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs", read(Scope::Actions), checks::jobs),
    ("actions/get-job-for-workflow-run", "GET", "/repos/{owner}/{repo}/actions/jobs/{job_id}", read(Scope::Actions), checks::job),
    ("actions/download-job-logs-for-workflow-run", "GET", "/repos/{owner}/{repo}/actions/jobs/{job_id}/logs", read(Scope::Actions), checks::job_log),
];

pub(super) fn operations() -> impl Iterator<Item = Operation> {
    TABLE
        .iter()
        .map(|&(id, method, path, need, handler)| Operation {
            id,
            method,
            path,
            need,
            handler,
        })
}

/// What a request's path means.
pub(super) enum Match {
    Found(Operation, BTreeMap<String, String>),
    /// The path is there, with other methods.
    WrongMethod,
    Unknown,
}

/// Finds the operation for a path below `/api/v3`. Segments are compared raw and handed on decoded.
pub(super) fn find(method: &str, path: &str) -> Match {
    let mut other_method = false;
    for operation in operations() {
        let Some(params) = match_path(operation.path, path) else {
            continue;
        };
        if operation.method == method {
            return Match::Found(operation, params);
        }
        other_method = true;
    }
    if other_method {
        Match::WrongMethod
    } else {
        Match::Unknown
    }
}

fn match_path(template: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    let mut rest = path.strip_prefix('/')?;
    let mut segments = template.trim_start_matches('/').split('/').peekable();
    while let Some(segment) = segments.next() {
        let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        if let Some(name) = name.and_then(|name| name.strip_suffix('*')) {
            params.insert(name.to_owned(), decode(rest));
            return Some(params);
        }
        let (head, tail) = match rest.split_once('/') {
            Some((head, tail)) => (head, Some(tail)),
            None => (rest, None),
        };
        match name {
            Some(name) if !head.is_empty() => drop(params.insert(name.to_owned(), decode(head))),
            None if head == segment => {}
            _ => return None,
        }
        match (tail, segments.peek()) {
            (Some(tail), Some(_)) => rest = tail,
            // `contents` without a path is the root folder.
            (None, Some(next)) if *next == "{path*}" => rest = "",
            (None, None) => return Some(params),
            _ => return None,
        }
    }
    None
}

/// Percent-decoding, where `+` stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(method: &str, path: &str) -> String {
        match find(method, path) {
            Match::Found(operation, params) => format!("{} {params:?}", operation.id),
            Match::WrongMethod => "wrong method".to_owned(),
            Match::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn paths_with_slashes_in_their_last_parameter_are_found() {
        assert_eq!(
            found("GET", "/repos/o/r/git/ref/heads/a/b"),
            r#"git/get-ref {"owner": "o", "ref": "heads/a/b", "repo": "r"}"#
        );
        assert_eq!(
            found("GET", "/repos/o/r/contents/a%20b/c"),
            r#"repos/get-content {"owner": "o", "path": "a b/c", "repo": "r"}"#
        );
        assert_eq!(
            found("GET", "/repos/o/r/contents"),
            r#"repos/get-content {"owner": "o", "path": "", "repo": "r"}"#
        );
        assert_eq!(
            found("GET", "/repos/o/r/commits/abc/check-runs"),
            r#"checks/list-for-ref {"owner": "o", "ref": "abc", "repo": "r"}"#
        );
        assert_eq!(
            found("GET", "/repos/o/r/commits/abc"),
            r#"repos/get-commit {"owner": "o", "ref": "abc", "repo": "r"}"#
        );
        assert_eq!(found("DELETE", "/repos/o/r"), "wrong method");
        assert_eq!(found("GET", "/repos/o/r/nothing"), "unknown");
    }
}
