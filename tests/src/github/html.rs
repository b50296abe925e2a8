//! Plain pages for people, so that the links of the API open in a browser, and the logs of jobs.
//!
//! Everything that comes from outside is escaped, and no page runs a script. Pages want no credential: the emulator
//! listens on loopback alone.

use std::fmt::Write as _;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::ci::{Conclusion, Status};
use super::hub::Hub;
use super::site::{CheckRun, Issue, Pull, Repo, Site};
use super::{git, render};

/// What has been written so far.
struct Page(String);

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2328}\
a{color:#0969da;text-decoration:none}a:hover{text-decoration:underline}h1{font-size:1.6rem;font-weight:500}\
pre{background:#f6f8fa;border:1px solid #d1d9e0;border-radius:6px;padding:.8rem;overflow:auto;white-space:pre-wrap;font-size:13px}\
.b{display:inline-block;border-radius:1rem;padding:.1rem .7rem;color:#fff;font-size:13px;background:#59636e}\
.open,.ready,.success{background:#1a7f37}.merged{background:#8250df}.closed,.failure{background:#cf222e}.in_progress,.queued{background:#9a6700}\
article{border:1px solid #d1d9e0;border-radius:6px;margin:1rem 0}article>header{background:#f6f8fa;padding:.4rem .8rem;border-bottom:1px solid #d1d9e0}\
article>pre{border:0;background:none;margin:0}li{margin:.2rem 0}.add{color:#1a7f37}.del{color:#cf222e}.dim{color:#59636e}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

impl Page {
    fn new(title: &str) -> Self {
        let title = escape(title);
        Self(format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style><body>"
        ))
    }

    /// Markup as it is. What is not a constant must have been escaped.
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    fn badge(&mut self, class: &str, text: &str) {
        let _ = write!(self.0, "<span class=\"b {class}\">{}</span> ", escape(text));
    }

    fn entry(&mut self, who: &str, when: &str, text: &str) {
        let _ = write!(
            self.0,
            "<article><header><b>{}</b> <span class=dim>{}</span></header><pre>{}</pre></article>",
            escape(who),
            escape(when),
            escape(text)
        );
    }

    fn send(self) -> Response<Body> {
        respond(StatusCode::OK, "text/html; charset=utf-8", self.0)
    }
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

pub(super) fn page(hub: &Hub, method: &Method, path: &str) -> Response<Body> {
    let site = hub.lock();
    let missing = || {
        respond(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "Not Found\n".to_owned(),
        )
    };
    if method != Method::GET && method != Method::HEAD {
        return missing();
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let found = match parts[..] {
        [""] => Some(front(&site)),
        [owner, name] => site
            .repo(&format!("{owner}/{name}"))
            .map(|repo| overview(&site, repo)),
        [owner, name, "issues" | "pulls"] => site
            .repo(&format!("{owner}/{name}"))
            .map(|repo| overview(&site, repo)),
        [owner, name, "issues" | "pull", number] => {
            let (number, wants_diff) = number
                .strip_suffix(".diff")
                .map_or((number, false), |number| (number, true));
            let repo = site.repo(&format!("{owner}/{name}"));
            let issue = repo.and_then(|repo| Some((repo, repo.issues.get(&number.parse().ok()?)?)));
            if let Some((
                repo,
                Issue {
                    pull: Some(pull), ..
                },
            )) = issue.filter(|_| wants_diff)
            {
                return respond(
                    StatusCode::OK,
                    "text/plain; charset=utf-8",
                    diff(repo, pull),
                );
            }
            issue.map(|(repo, issue)| thread(&site, repo, issue))
        }
        [owner, name, "actions", "runs", run] => site
            .repo(&format!("{owner}/{name}"))
            .and_then(|repo| workflow_run(&site, repo, run)),
        [owner, name, "actions", "runs", _, "job", job] => site
            .repo(&format!("{owner}/{name}"))
            .and_then(|repo| log(repo, job)),
        [owner, name, "commit", sha] => site
            .repo(&format!("{owner}/{name}"))
            .and_then(|repo| commit(&site, repo, sha)),
        [owner, name, "blob" | "raw", rev, ..] => {
            let file = path.trim_matches('/').splitn(5, '/').nth(4).unwrap_or("");
            let text = site
                .repo(&format!("{owner}/{name}"))
                .and_then(|repo| repo.file(rev, file));
            return text.map_or_else(missing, |text| {
                respond(StatusCode::OK, "text/plain; charset=utf-8", text)
            });
        }
        _ => None,
    };
    found.map_or_else(missing, Page::send)
}

/// A log as its store gives it: signed by its address, and offended by a credential, as the real one is.
pub(super) fn blob(site: &Site, path: &str, headers: &HeaderMap) -> Response<Body> {
    if headers.contains_key(header::AUTHORIZATION) {
        let text = "<?xml version=\"1.0\"?><Error><Code>InvalidAuthenticationInfo</Code></Error>"
            .to_owned();
        return respond(StatusCode::BAD_REQUEST, "application/xml", text);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let log = match parts[..] {
        [owner, name, "jobs", id] => {
            let repo = site.repo(&format!("{owner}/{name}"));
            repo.and_then(|repo| repo.job(id.parse().ok()?))
                .map(|(_, job)| job.log.clone())
        }
        _ => None,
    };
    let missing = || respond(StatusCode::NOT_FOUND, "application/xml", String::new());
    log.map_or_else(missing, |log| {
        respond(StatusCode::OK, "text/plain; charset=utf-8", log)
    })
}

fn front(site: &Site) -> Page {
    let mut page = Page::new("Emulated GitHub");
    page.raw("<h1>Emulated GitHub</h1><ul>");
    for repo in site.repos.values() {
        let name = escape(&repo.full_name());
        page.raw(&format!("<li><a href=\"/{name}\">{name}</a>"));
    }
    page.raw("</ul>");
    page
}

/// Links to the parts of a repository.
fn begin(repo: &Repo, title: &str) -> Page {
    let mut page = Page::new(title);
    let name = escape(&repo.full_name());
    page.raw(&format!(
        "<p><a href=\"/{name}\">{name}</a></p><h1>{}</h1>",
        escape(title)
    ));
    page
}

fn overview(site: &Site, repo: &Repo) -> Page {
    let mut page = begin(repo, &repo.full_name());
    page.raw(&format!(
        "<p>{}</p>",
        if repo.private { "private" } else { "public" }
    ));
    for (heading, pulls) in [("Pull requests", true), ("Issues", false)] {
        page.raw(&format!("<h2>{heading}</h2><ul>"));
        for issue in repo
            .issues
            .values()
            .rev()
            .filter(|issue| issue.pull.is_some() == pulls)
        {
            page.raw("<li>");
            badge(&mut page, issue);
            page.raw(&format!(
                "<a href=\"{}\">#{} {}</a>",
                escape(&render::issue_html(site, repo, issue)),
                issue.number,
                escape(&issue.title)
            ));
        }
        page.raw("</ul>");
    }
    page.raw("<h2>Branches</h2><ul>");
    for (name, sha) in repo
        .refs
        .iter()
        .filter_map(|(name, sha)| Some((name.strip_prefix("refs/heads/")?, sha)))
    {
        page.raw(&format!(
            "<li>{} <a href=\"/{}/commit/{sha}\">{}</a>",
            escape(name),
            escape(&repo.full_name()),
            &sha[..sha.len().min(7)]
        ));
    }
    page.raw("</ul>");
    if let Some(readme) = repo.file(&repo.default_branch, "README.md") {
        page.raw(&format!("<h2>README.md</h2><pre>{}</pre>", escape(&readme)));
    }
    page
}

fn badge(page: &mut Page, issue: &Issue) {
    match &issue.pull {
        Some(pull) if pull.merged.is_some() => page.badge("merged", "Merged"),
        _ if !issue.open => page.badge("closed", "Closed"),
        Some(pull) if pull.draft => page.badge("draft", "Draft"),
        Some(_) => page.badge("ready", "Ready for review"),
        None => page.badge("open", "Open"),
    }
}

fn check(page: &mut Page, run: &CheckRun) {
    let state = run
        .conclusion
        .map_or_else(|| run.status.name(), Conclusion::name);
    page.raw("<li>");
    page.badge(state, state);
    page.raw(&format!(
        "<a href=\"{}\">{}</a>",
        escape(&run.details_url),
        escape(&run.name)
    ));
}

fn thread(site: &Site, repo: &Repo, issue: &Issue) -> Page {
    let mut page = begin(repo, &format!("{} #{}", issue.title, issue.number));
    page.raw("<p>");
    badge(&mut page, issue);
    for label in &issue.labels {
        page.badge("label", label);
    }
    if let Some(pull) = &issue.pull {
        page.raw(&format!(
            "<span class=dim>{} &larr; {}</span>",
            escape(&pull.base),
            escape(&pull.head)
        ));
    }
    page.raw("</p>");
    page.entry(
        &issue.author,
        &render::time(issue.created_at),
        issue.body.as_deref().unwrap_or("No description provided."),
    );
    for comment in &issue.comments {
        page.entry(
            &comment.author,
            &render::time(comment.created_at),
            &comment.body,
        );
    }
    let Some(pull) = &issue.pull else { return page };
    for review in &pull.reviews {
        page.entry(
            &format!("{} ({})", review.author, review.state),
            &render::time(review.at),
            &review.body,
        );
    }
    page.raw("<h2>Checks</h2><ul>");
    let checks = repo.checks(&pull.head_sha);
    for run in checks {
        check(&mut page, run);
    }
    for status in repo
        .statuses
        .iter()
        .filter(|status| status.sha == pull.head_sha)
    {
        page.raw("<li>");
        page.badge(&status.state, &status.state);
        page.raw(&escape(&status.context));
    }
    page.raw("</ul><h2>Commits</h2><ul>");
    for commit in git::log(
        &repo.dir,
        &format!("{}..{}", pull.base_sha, pull.head_sha),
        250,
    )
    .unwrap_or_default()
    .iter()
    .rev()
    {
        let title = escape(commit.message.lines().next().unwrap_or_default());
        page.raw(&format!(
            "<li><a href=\"{}/{}/commit/{}\">{title}</a>",
            site.base,
            escape(&repo.full_name()),
            commit.sha
        ));
    }
    page.raw("</ul><h2>Changes</h2>");
    show_diff(&mut page, &diff(repo, pull));
    page
}

fn diff(repo: &Repo, pull: &Pull) -> String {
    let fork = git::merge_base(&repo.dir, &pull.base_sha, &pull.head_sha)
        .unwrap_or_else(|| pull.base_sha.clone());
    git::diff(&repo.dir, &fork, &pull.head_sha).unwrap_or_else(|error| error.to_string())
}

fn show_diff(page: &mut Page, diff: &str) {
    page.raw("<pre>");
    for line in diff.lines() {
        let class = match line.as_bytes().first() {
            Some(b'+') if !line.starts_with("+++") => "add",
            Some(b'-') if !line.starts_with("---") => "del",
            Some(b'@') => "dim",
            _ => "",
        };
        page.raw(&format!(
            "<span class=\"{class}\">{}</span>\n",
            escape(line)
        ));
    }
    page.raw("</pre>");
}

fn commit(_site: &Site, repo: &Repo, sha: &str) -> Option<Page> {
    let sha = git::resolve(&repo.dir, sha)?;
    let commit = git::commit(&repo.dir, &sha).ok()?;
    let mut page = begin(repo, commit.message.lines().next().unwrap_or_default());
    page.entry(&commit.author.name, &commit.author.date, &commit.message);
    let parent = commit
        .parents
        .first()
        .map_or(git::EMPTY_TREE, String::as_str);
    show_diff(&mut page, &git::diff(&repo.dir, parent, &sha).ok()?);
    Some(page)
}

fn workflow_run(site: &Site, repo: &Repo, id: &str) -> Option<Page> {
    let id: u64 = id.parse().ok()?;
    let run = repo.runs.iter().find(|run| run.id == id)?;
    let mut page = begin(
        repo,
        &format!("{} #{}: {}", run.name, run.number, run.title),
    );
    page.raw("<ul>");
    for job in &run.jobs {
        let state = job
            .conclusion
            .map_or_else(|| job.status.name(), Conclusion::name);
        page.raw("<li>");
        page.badge(state, state);
        page.raw(&format!(
            "<a href=\"{}\">{}</a>",
            escape(&render::job_html(site, repo, run.id, job.id)),
            escape(&job.name)
        ));
    }
    page.raw("</ul>");
    if let (Status::Completed, Some(conclusion)) = (run.status, run.conclusion) {
        page.raw(&format!("<p>Ended: {}.</p>", conclusion.name()));
    }
    Some(page)
}

fn log(repo: &Repo, id: &str) -> Option<Page> {
    let (run, job) = repo.job(id.parse().ok()?)?;
    let mut page = begin(repo, &format!("{} / {}", run.name, job.name));
    page.raw("<ul>");
    for step in &job.steps {
        let state = step
            .conclusion
            .map_or_else(|| step.status.name(), Conclusion::name);
        page.raw("<li>");
        page.badge(state, state);
        page.raw(&escape(&step.name));
    }
    let plain: String = job
        .log
        .chars()
        .filter(|c| !c.is_control() || *c == '\n' || *c == '\t')
        .collect();
    page.raw(&format!("</ul><pre>{}</pre>", escape(&plain)));
    Some(page)
}

/// The site in a few lines, for the message of a wait that ended in vain.
pub(super) fn summary(site: &Site) -> String {
    const RECENT: usize = 15;
    let mut out = String::new();
    for repo in site.repos.values() {
        let _ = writeln!(out, "{}", repo.full_name());
        for issue in repo.issues.values() {
            let kind = match &issue.pull {
                Some(pull) => format!(
                    "pull draft={} merged={} head={} {}",
                    pull.draft,
                    pull.merged.is_some(),
                    pull.head,
                    &pull.head_sha[..7]
                ),
                None => "issue".to_owned(),
            };
            let _ = writeln!(
                out,
                "  #{} {kind} open={} {:?}, {} comments",
                issue.number,
                issue.open,
                issue.title,
                issue.comments.len()
            );
        }
        for run in &repo.check_runs {
            let _ = writeln!(
                out,
                "  check {:?} on {}: {:?} {:?}",
                run.name,
                &run.head_sha[..7],
                run.status,
                run.conclusion
            );
        }
        for push in &repo.pushes {
            let _ = writeln!(
                out,
                "  push by {} to {}: {:?} -> {:?}",
                push.login, push.name, push.before, push.after
            );
        }
    }
    for request in site.requests.iter().rev().take(RECENT).rev() {
        let _ = writeln!(
            out,
            "{} {} {} by {:?}",
            request.status, request.method, request.path, request.login
        );
    }
    for violation in &site.violations {
        let _ = writeln!(out, "violation: {violation}");
    }
    out
}
