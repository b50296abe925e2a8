//! Files and folders of a commit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::call::{Call, Reply};
use super::super::git::{self, Entry};
use super::super::problem::Problem;
use super::super::render;
use super::super::site::{Repo, Site};

/// A larger file comes without its content, as GitHub does it.
const INLINE: u64 = 1024 * 1024;
/// Beyond this only `raw` is served.
const TOO_LARGE: u64 = 100 * 1024 * 1024;

pub(super) fn get(site: &mut Site, call: &Call) -> Result<Reply, Problem> {
    let repo = site.need_repo(&call.repo())?;
    let path = call.param("path").trim_matches('/');
    let rev = call.filter("ref").unwrap_or(&repo.default_branch);
    let Some(sha) = git::resolve(&repo.dir, rev) else {
        return Err(Problem::new(
            http::StatusCode::NOT_FOUND,
            format!("No commit found for the ref {rev}"),
        ));
    };
    let entry = git::entry(&repo.dir, &sha, path).ok_or_else(Problem::not_found)?;
    if entry.mode == "040000" {
        let inside = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let entries = git::entries(&repo.dir, &sha, &inside)?;
        return Ok(Reply::ok(
            entries
                .iter()
                .map(|entry| describe(site, repo, rev, entry))
                .collect(),
        ));
    }
    if entry.size > TOO_LARGE {
        return Err(Problem::forbidden(
            "This API returns blobs up to 100 MB in size.",
        ));
    }
    let bytes = git::blob(&repo.dir, &entry.sha)?;
    if call.accept.contains("raw") {
        return Ok(Reply::Raw(
            "application/vnd.github.raw; charset=utf-8",
            bytes,
        ));
    }
    let mut value = describe(site, repo, rev, &entry);
    if entry.mode == "120000" {
        value["target"] = String::from_utf8_lossy(&bytes).into();
        return Ok(Reply::ok(value));
    }
    let large = entry.size > INLINE;
    value["encoding"] = if large { "none" } else { "base64" }.into();
    value["content"] = if large {
        String::new()
    } else {
        wrapped(&bytes)
    }
    .into();
    Ok(Reply::ok(value))
}

/// One level of a tree, by the tree's name or a commit's.
pub(super) fn tree(site: &mut Site, call: &Call) -> Result<Reply, Problem> {
    let repo = site.need_repo(&call.repo())?;
    let sha = call.param("tree_sha");
    let entries = git::tree(&repo.dir, sha).ok_or_else(Problem::not_found)?;
    let api = format!("{}/repos/{}/git", render::api(site), repo.full_name());
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let kind = match entry.mode.as_str() {
                "040000" => "tree",
                "160000" => "commit",
                _ => "blob",
            };
            let mut value = json!({
                "path": entry.name, "mode": entry.mode, "type": kind, "sha": entry.sha,
                "url": format!("{api}/{kind}s/{}", entry.sha),
            });
            if kind == "blob" {
                value["size"] = entry.size.into();
            }
            value
        })
        .collect();
    Ok(Reply::ok(json!({
        "sha": sha, "url": format!("{api}/trees/{sha}"), "truncated": false, "tree": entries,
    })))
}

/// A blob by its name.
pub(super) fn blob(site: &mut Site, call: &Call) -> Result<Reply, Problem> {
    let repo = site.need_repo(&call.repo())?;
    let sha = call.param("file_sha");
    let bytes = git::object(&repo.dir, "blob", sha).ok_or_else(Problem::not_found)?;
    let url = format!(
        "{}/repos/{}/git/blobs/{sha}",
        render::api(site),
        repo.full_name()
    );
    Ok(Reply::ok(json!({
        "sha": sha, "node_id": format!("B_kwDO{sha}"), "size": bytes.len(), "url": url,
        "content": wrapped(&bytes), "encoding": "base64",
    })))
}

/// Base64 in lines of 60, each ended by a newline: clients must bear it.
fn wrapped(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut out = String::with_capacity(text.len() + text.len() / 60 + 1);
    for line in text.as_bytes().chunks(60) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out
}

fn describe(site: &Site, repo: &Repo, rev: &str, entry: &Entry) -> Value {
    let (api, html) = (
        format!("{}/repos/{}", render::api(site), repo.full_name()),
        format!("{}/{}", site.base, repo.full_name()),
    );
    let path = &entry.name;
    let kind = match entry.mode.as_str() {
        "040000" => "dir",
        "120000" => "symlink",
        "160000" => "submodule",
        _ => "file",
    };
    let encoded: String = url::form_urlencoded::byte_serialize(path.as_bytes())
        .collect::<String>()
        .replace("%2F", "/")
        .replace('+', "%20");
    let (own, git, page) = (
        format!("{api}/contents/{encoded}?ref={rev}"),
        format!("{api}/git/blobs/{}", entry.sha),
        format!("{html}/blob/{rev}/{encoded}"),
    );
    json!({
        "type": kind, "name": path.rsplit('/').next(), "path": path, "sha": entry.sha, "size": entry.size, "url": own, "git_url": git, "html_url": page,
        "download_url": (kind == "file").then(|| format!("{html}/raw/{rev}/{encoded}")), "_links": {"self": own, "git": git, "html": page},
    })
}
