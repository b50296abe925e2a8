//! Repositories and issues as people name them, and the origin of the folder that they stand in.

use std::{process::Command, str::FromStr};

use thiserror::Error;
use url::Url;

/// Why a text names no repository or issue.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum NotARepository {
    #[error("`{0}` is not a repository such as https://github.com/owner/name")]
    Form(String),
    #[error("`{0}` is neither the number nor the address of an issue")]
    Issue(String),
    #[error("this folder has no git remote `origin`")]
    NoOrigin,
}

/// Brings `git@host:owner/name.git`, `ssh://…` and `http(s)://…` to `https://host/owner/name`; a `http` URL stays `http`.
pub(crate) fn normalize(text: &str) -> Result<String, NotARepository> {
    let text = text.trim();
    let refusal = || NotARepository::Form(text.to_owned());
    let (scheme, host, path) = match Url::parse(text) {
        Ok(url) if url.has_host() => {
            let host = url.host_str().ok_or_else(refusal)?.to_owned();
            match url.scheme() {
                // A port of ssh says nothing about the port of the pages.
                "ssh" | "git+ssh" | "git" => ("https", host, url.path().to_owned()),
                scheme @ ("https" | "http") => {
                    let authority = match url.port() {
                        Some(port) => format!("{host}:{port}"),
                        None => host,
                    };
                    let scheme = if scheme == "http" { "http" } else { "https" };
                    (scheme, authority, url.path().to_owned())
                }
                _ => return Err(refusal()),
            }
        }
        _ => {
            if text.contains("://") {
                return Err(refusal());
            }
            let (user_host, path) = text.split_once(':').ok_or_else(refusal)?;
            let host = user_host.rsplit('@').next().unwrap_or(user_host);
            if host.is_empty() || host.contains('/') {
                return Err(refusal());
            }
            ("https", host.to_owned(), path.to_owned())
        }
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let valid = |part: &&str| {
        !part.is_empty()
            && *part != "."
            && *part != ".."
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if parts.len() != 2 || !parts.iter().all(valid) {
        return Err(refusal());
    }
    Ok(format!("{scheme}://{}/{path}", host.to_ascii_lowercase()))
}

/// The repository of the folder one stands in, by its remote `origin`.
pub(crate) fn origin_here() -> Result<String, NotARepository> {
    let found = Command::new("git")
        .args(["remote", "get-url", "origin"])
        .output()
        .ok()
        .filter(|found| found.status.success())
        .ok_or(NotARepository::NoOrigin)?;
    normalize(&String::from_utf8_lossy(&found.stdout))
}

/// An issue or pull request, by its number or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issue {
    /// Its number.
    pub(crate) number: i32,
    /// The repository that its address names.
    pub(crate) repository: Option<String>,
}

impl FromStr for Issue {
    type Err = NotARepository;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refusal = || NotARepository::Issue(text.to_owned());
        let number = |text: &str| {
            text.parse::<i32>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(refusal)
        };
        if !text.contains("://") {
            return Ok(Self {
                number: number(text.trim_start_matches('#'))?,
                repository: None,
            });
        }
        let mut url = Url::parse(text).map_err(|_| refusal())?;
        let parts: Vec<String> = url
            .path()
            .trim_matches('/')
            .split('/')
            .map(str::to_owned)
            .collect();
        let [owner, name, kind, issue, ..] = parts.as_slice() else {
            return Err(refusal());
        };
        if !matches!(kind.as_str(), "issues" | "pull") {
            return Err(refusal());
        }
        let number = number(issue)?;
        url.set_path(&format!("{owner}/{name}"));
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self {
            number,
            repository: Some(normalize(url.as_str()).map_err(|_| refusal())?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_remote_becomes_one() {
        for text in [
            "https://github.com/acme/widgets",
            "https://github.com/acme/widgets.git",
            "https://x-access-token:secret@GitHub.com/acme/widgets/",
            "git@github.com:acme/widgets.git",
            "ssh://git@github.com:22/acme/widgets.git",
            "git://github.com/acme/widgets",
        ] {
            assert_eq!(
                normalize(text).as_deref(),
                Ok("https://github.com/acme/widgets"),
                "{text}"
            );
        }
        assert_eq!(
            normalize("http://127.0.0.1:8080/acme/widgets.git").as_deref(),
            Ok("http://127.0.0.1:8080/acme/widgets")
        );
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for text in [
            "",
            "acme/widgets",
            "/srv/git/widgets.git",
            "file:///srv/widgets",
            "https://github.com/acme",
            "https://github.com/acme/widgets/tree/main",
            "https://github.com/acme/../etc",
            "git@github.com:widgets",
        ] {
            assert!(normalize(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn issues_are_numbers_or_addresses() {
        let read = |text: &str| {
            text.parse::<Issue>()
                .map(|issue| (issue.number, issue.repository))
        };
        assert_eq!(read("12"), Ok((12, None)));
        assert_eq!(read("#12"), Ok((12, None)));
        let repository = Some("https://github.com/acme/widgets".to_owned());
        assert_eq!(
            read("https://github.com/acme/widgets/issues/12#issuecomment-3"),
            Ok((12, repository.clone()))
        );
        assert_eq!(
            read("https://github.com/acme/widgets/pull/7/files"),
            Ok((7, repository))
        );
        for text in [
            "0",
            "-1",
            "twelve",
            "https://github.com/acme/widgets/wiki/1",
        ] {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }
}
