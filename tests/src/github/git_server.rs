//! Git over HTTP: who may read and push, in GitHub's words, and what a push sets off.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::access::{Level, Scope, Token};
use super::changes;
use super::git;
use super::hub::Hub;
use super::problem::Problem;
use crate::git_http::{Cgi, serve as cgi};

/// What a refused git request is told; git shows it after `remote:`.
fn refuse(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=UTF-8"),
    );
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"GitHub\""),
        );
    }
    response
}

pub(super) async fn serve(
    hub: &Arc<Hub>,
    request: Request<Incoming>,
    token: Result<Option<Token>, Problem>,
) -> Response<Body> {
    let Ok(token) = token else {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "Invalid username or token. Password authentication is not supported for Git operations.",
        );
    };
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let parts: Vec<&str> = path.splitn(3, '/').collect();
    let [owner, name, tail] = parts[..] else {
        return refuse(StatusCode::NOT_FOUND, "Repository not found.");
    };
    let full = format!("{owner}/{}", name.strip_suffix(".git").unwrap_or(name));
    let push = tail == "git-receive-pack"
        || request
            .uri()
            .query()
            .is_some_and(|query| query.contains("service=git-receive-pack"));
    let (root, canonical) = match authorise(hub, &full, token.as_ref(), push) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    let login = token.as_ref().map_or("", |token| token.login.as_str());
    let mut environment = git::ENVIRONMENT.to_vec();
    if token
        .as_ref()
        .is_none_or(|token| token.level(Scope::Workflows) < Level::Write)
    {
        environment.push(("EMULATOR_NO_WORKFLOWS", "1"));
    }
    let path = format!("/{canonical}.git/{tail}");
    let settle = tail == "git-receive-pack";
    let answer = cgi(
        &Cgi {
            root: &root,
            path: &path,
            user: login,
            environment: &environment,
            settle,
        },
        request,
    )
    .await;
    if settle {
        let (hub, login) = (hub.clone(), login.to_owned());
        // What follows from a push runs git as well, and it is done before the pusher is told.
        let followed = tokio::task::spawn_blocking(move || {
            hub.change(|site| changes::pushed(site, &canonical, &login))
        })
        .await;
        if !matches!(followed, Ok(Ok(()))) {
            return refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("emulator: {followed:?}"),
            );
        }
    }
    answer.unwrap_or_else(|error| {
        refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("emulator: {error}"),
        )
    })
}

fn authorise(
    hub: &Hub,
    full: &str,
    token: Option<&Token>,
    push: bool,
) -> Result<(std::path::PathBuf, String), Box<Response<Body>>> {
    let site = hub.lock();
    let login = token.map_or("", |token| token.login.as_str());
    let visible = site.repo(full).filter(|repo| {
        let reached = token.is_some_and(|token| {
            token.reaches(&repo.full_name()) && token.level(Scope::Contents) >= Level::Read
        });
        !repo.private || reached && repo.role(login).is_some()
    });
    let Some(repo) = visible else {
        // Whoever shows no credential is asked for one, whether or not there is something to see.
        let status = if token.is_none() {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::NOT_FOUND
        };
        return Err(Box::new(refuse(status, "Repository not found.")));
    };
    if push {
        let Some(token) = token else {
            return Err(Box::new(refuse(
                StatusCode::UNAUTHORIZED,
                "No anonymous write access.",
            )));
        };
        let full = repo.full_name();
        if !repo.can_push(login)
            || token.level(Scope::Contents) < Level::Write
            || !token.reaches(&full)
        {
            return Err(Box::new(refuse(
                StatusCode::FORBIDDEN,
                &format!("Permission to {full}.git denied to {login}."),
            )));
        }
        if repo.archived {
            return Err(Box::new(refuse(
                StatusCode::FORBIDDEN,
                "This repository was archived so it is read-only.",
            )));
        }
    }
    Ok((site.dir.join("repos"), repo.full_name()))
}
