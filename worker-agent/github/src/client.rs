//! One repository, seen with one token at a time.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;
use url::Url;

use crate::error::{Error, Result};
use crate::quota::Quota;
use crate::transport::{Timeouts, Transport, escape, escape_path};
use crate::workflows::Entry;

/// Which repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repo {
    /// User or organisation.
    pub owner: String,
    /// Name without `.git`.
    pub name: String,
}

impl std::fmt::Display for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// How a client asks.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Rate limits, shared with other clients of the same token.
    pub quota: Quota,
    /// How long it waits.
    pub timeouts: Timeouts,
}

/// A client for one repository with one token at a time. Cheap to clone, and clones share the
/// token; never build one per request (it reads the system's certificates).
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Transport,
    pub(crate) repo: Arc<Repo>,
    identity: Arc<OnceCell<Identity>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("repo", &self.repo)
            .finish_non_exhaustive()
    }
}

/// Whom the token speaks as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Login; ends with `[bot]` for a GitHub App.
    pub login: String,
    /// The token is an App's.
    pub is_bot: bool,
}

impl Identity {
    fn of(login: String) -> Self {
        Self {
            is_bot: login.ends_with("[bot]"),
            login,
        }
    }
}

/// What the token sees of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Repository {
    /// The branch that work starts from unless told otherwise.
    pub default_branch: String,
    /// Where people look at it.
    pub url: String,
    /// Where git clones it from.
    pub clone_url: String,
    /// Read-only for everybody.
    pub archived: bool,
    /// Issues are on: without them there is no planning issue.
    pub has_issues: bool,
    /// Not visible to the public.
    pub private: bool,
    /// How large GitHub says that it is, in KiB.
    pub size_kib: u64,
    /// The token may push. `None` where GitHub did not say (App tokens).
    pub can_push: Option<bool>,
}

impl Client {
    /// `api_base` is `https://api.github.com`, or `https://host/api/v3` for an Enterprise
    /// server. Sends nothing. Must be called inside a Tokio runtime.
    pub fn new(api_base: &Url, repo: Repo, token: &SecretString) -> Result<Self> {
        Self::with(api_base, repo, token, Options::default())
    }

    /// As [`Self::new`], with options.
    pub fn with(
        api_base: &Url,
        repo: Repo,
        token: &SecretString,
        options: Options,
    ) -> Result<Self> {
        for part in [&repo.owner, &repo.name] {
            let fine = !part.is_empty()
                && !matches!(part.as_str(), "." | "..")
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            if !fine {
                return Err(Error::Config(format!("{repo} is not a repository's name")));
            }
        }
        Ok(Self {
            transport: Transport::new(api_base, token, options)?,
            repo: Arc::new(repo),
            identity: Arc::default(),
        })
    }

    /// Whom the token speaks as, known beforehand: nobody needs to be asked.
    #[must_use]
    pub fn known_as(mut self, login: &str) -> Self {
        self.identity = Arc::new(OnceCell::new_with(Some(Identity::of(login.to_owned()))));
        self
    }

    /// Goes on with another token of the same identity, in this client and its clones; requests
    /// on their way keep the old one. Must be called inside a Tokio runtime.
    pub fn renew(&self, token: &SecretString) -> Result<()> {
        self.transport.renew(token)
    }

    /// What is left of the token's rate limits.
    pub fn quota(&self) -> &Quota {
        self.transport.quota()
    }

    /// The repository that this client works on.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// Whom the token speaks as; asked once.
    pub async fn identity(&self) -> Result<Identity> {
        self.identity
            .get_or_try_init(|| self.ask_identity())
            .await
            .cloned()
    }

    async fn ask_identity(&self) -> Result<Identity> {
        let operation = "ask who the token belongs to";
        let login = match self.transport.get::<User>(operation, "/user").await {
            Ok(user) => user.login,
            // An installation token has no user, but GraphQL has a viewer for it.
            Err(error) if error.is_denied() => {
                let query = "query { viewer { login } }";
                let answer: Viewer = self.transport.graphql(operation, query, &json!({})).await?;
                answer.viewer.login
            }
            Err(error) => return Err(error),
        };
        Ok(Identity::of(login))
    }

    /// The repository's settings, and what the token may do in it.
    pub async fn repository(&self) -> Result<Repository> {
        let operation = format!("read repository {}", self.repo);
        let raw: RawRepository = self.transport.get(&operation, &self.path("")).await?;
        Ok(Repository {
            default_branch: raw.default_branch,
            url: raw.html_url,
            clone_url: raw.clone_url,
            archived: raw.archived,
            has_issues: raw.has_issues,
            private: raw.private,
            size_kib: raw.size,
            can_push: raw.permissions.map(|p| p.push),
        })
    }

    /// The commit that `branch` points at; `None` where there is no such branch.
    pub async fn branch_head(&self, branch: &str) -> Result<Option<String>> {
        let operation = format!("read branch {branch} of {}", self.repo);
        let path = self.path(&format!("/git/ref/heads/{}", escape_path(branch)));
        let found: Option<GitRef> = self.transport.get_optional(&operation, &path).await?;
        Ok(found.map(|r| r.object.sha))
    }

    /// Names of the branches that begin with `prefix`.
    pub async fn branches(&self, prefix: &str) -> Result<Vec<String>> {
        let operation = format!("list the branches {prefix}* of {}", self.repo);
        let path = self.path(&format!("/git/matching-refs/heads/{}", escape_path(prefix)));
        // All of them come at once.
        let list: Option<Vec<NamedRef>> = self.transport.get_optional(&operation, &path).await?;
        let names = list.into_iter().flatten().filter_map(|found| {
            let name = found.reference.strip_prefix("refs/heads/")?;
            name.starts_with(prefix).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    /// The bytes of the file `path` at `reference` (sha, branch or tag); `None` where there is no
    /// such file. More than `limit` bytes are an error, never a part of the file.
    pub async fn file_at(
        &self,
        path: &str,
        reference: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>> {
        let operation = format!("read {path} of {} at {reference}", self.repo);
        let path = path.trim_matches('/');
        if path.split('/').any(|s| matches!(s, "" | "." | "..")) {
            return Err(Error::Config(format!(
                "{path} is not a path in a repository"
            )));
        }
        let url = self.path(&format!(
            "/contents/{}?ref={}",
            escape_path(path),
            escape(reference)
        ));
        let found: Option<Content> = self.transport.get_optional(&operation, &url).await?;
        let Some(Content::File(file)) = found else {
            return Ok(None);
        };
        file.bytes(operation, limit)
    }

    /// What is in the folder `path` at `reference`; nothing where there is no such folder.
    pub(crate) async fn folder(&self, path: &str, reference: &str) -> Result<Vec<Entry>> {
        let operation = format!("list {path} of {} at {reference}", self.repo);
        let url = self.path(&format!(
            "/contents/{}?ref={}",
            escape_path(path),
            escape(reference)
        ));
        let found: Option<serde_json::Value> =
            self.transport.get_optional(&operation, &url).await?;
        let Some(list @ serde_json::Value::Array(_)) = found else {
            return Ok(Vec::new());
        };
        serde_json::from_value(list).map_err(|source| Error::Malformed { operation, source })
    }

    /// A route below this repository.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/repos/{}/{}{rest}", self.repo.owner, self.repo.name)
    }
}

/// A user in an answer; deleted accounts come as null.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct User {
    pub(crate) login: String,
}

/// The login, or GitHub's name for accounts that are gone.
pub(crate) fn login(user: Option<User>) -> String {
    user.map_or_else(|| "ghost".to_owned(), |u| u.login)
}

#[derive(Deserialize)]
struct Viewer {
    viewer: User,
}

#[derive(Deserialize)]
struct RawRepository {
    default_branch: String,
    html_url: String,
    clone_url: String,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    has_issues: bool,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    size: u64,
    permissions: Option<Permissions>,
}

#[derive(Deserialize)]
struct Permissions {
    #[serde(default)]
    push: bool,
}

#[derive(Deserialize)]
struct GitRef {
    object: GitObject,
}

#[derive(Deserialize)]
struct NamedRef {
    #[serde(rename = "ref")]
    reference: String,
}

#[derive(Deserialize)]
struct GitObject {
    sha: String,
}

/// A folder comes as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    File(File),
    Folder(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    encoding: String,
    #[serde(default)]
    content: String,
}

impl File {
    /// `None` for what is no regular file.
    fn bytes(self, operation: String, limit: usize) -> Result<Option<Vec<u8>>> {
        if self.kind != "file" {
            return Ok(None);
        }
        // Above 1 MB GitHub leaves the content out and says so by the encoding.
        if self.size > limit || self.encoding != "base64" {
            return Err(Error::TooLarge { operation, limit });
        }
        let text: String = self.content.split_ascii_whitespace().collect();
        let bytes = BASE64.decode(text).map_err(|error| Error::Malformed {
            operation,
            source: serde::de::Error::custom(error),
        })?;
        Ok(Some(bytes))
    }
}
