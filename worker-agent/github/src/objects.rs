//! Git's objects as the API tells them: trees and blobs by their names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::client::Client;
use crate::error::{Error, Result};

/// A name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// One name, without a slash.
    pub name: String,
    /// Git's mode, such as `0o100644`; `0o040000` is a folder.
    pub mode: u32,
    /// Name of the object.
    pub sha: String,
}

impl Client {
    /// The names in a tree, or in the root of a commit; `None` where there is no such object. A tree that GitHub cuts is
    /// an error, never a part of it.
    pub async fn tree(&self, sha: &str) -> Result<Option<Vec<TreeEntry>>> {
        let operation = format!("read tree {sha} of {}", self.repo);
        let path = self.path(&format!("/git/trees/{}", hex_only(sha)?));
        let found: Option<Tree> = self.transport.get_optional(&operation, &path).await?;
        found.map(|tree| tree.entries(operation)).transpose()
    }

    /// The bytes of a blob; `None` where there is no such object. More than `limit` bytes are an error.
    pub async fn blob(&self, sha: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let operation = format!("read blob {sha} of {}", self.repo);
        let path = self.path(&format!("/git/blobs/{}", hex_only(sha)?));
        let found: Option<Blob> = self.transport.get_optional(&operation, &path).await?;
        found.map(|blob| blob.bytes(operation, limit)).transpose()
    }

    /// Whether a commit is this head, or one that the head comes from. No for a commit that GitHub does not know.
    pub async fn is_in(&self, commit: &str, head: &str) -> Result<bool> {
        let operation = format!("compare {commit} with {head} of {}", self.repo);
        // The files, and all but one of the commits, are on the first page.
        let path = self.path(&format!(
            "/compare/{}...{}?per_page=1&page=2",
            hex_only(head)?,
            hex_only(commit)?
        ));
        let found: Option<Compared> = self.transport.get_optional(&operation, &path).await?;
        Ok(found.is_some_and(|found| matches!(found.status.as_str(), "behind" | "identical")))
    }
}

fn hex_only(sha: &str) -> Result<&str> {
    let fine = !sha.is_empty() && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    fine.then_some(sha)
        .ok_or_else(|| Error::Config(format!("{sha} names no object")))
}

#[derive(Deserialize)]
struct Compared {
    status: String,
}

#[derive(Deserialize)]
struct Tree {
    #[serde(default)]
    truncated: bool,
    tree: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    mode: String,
    sha: String,
}

impl Tree {
    fn entries(self, operation: String) -> Result<Vec<TreeEntry>> {
        if self.truncated {
            let limit = self.tree.len();
            return Err(Error::TooLarge { operation, limit });
        }
        self.tree
            .into_iter()
            .map(|entry| {
                let mode =
                    u32::from_str_radix(&entry.mode, 8).map_err(|error| Error::Malformed {
                        operation: operation.clone(),
                        source: serde::de::Error::custom(error),
                    })?;
                Ok(TreeEntry {
                    name: entry.path,
                    mode,
                    sha: entry.sha,
                })
            })
            .collect()
    }
}

#[derive(Deserialize)]
struct Blob {
    content: String,
    encoding: String,
    size: Option<usize>,
}

impl Blob {
    fn bytes(self, operation: String, limit: usize) -> Result<Vec<u8>> {
        if self.size.is_some_and(|size| size > limit) || self.encoding != "base64" {
            return Err(Error::TooLarge { operation, limit });
        }
        let text: String = self.content.split_ascii_whitespace().collect();
        let bytes = BASE64.decode(text).map_err(|error| Error::Malformed {
            operation: operation.clone(),
            source: serde::de::Error::custom(error),
        })?;
        if bytes.len() > limit {
            return Err(Error::TooLarge { operation, limit });
        }
        Ok(bytes)
    }
}

/// What GitHub may answer, for the crate in `/fuzz`.
#[cfg(feature = "fuzzing")]
pub(crate) fn answer(body: &[u8]) {
    if let Ok(tree) = serde_json::from_slice::<Tree>(body) {
        let _ = tree.entries(String::new());
    }
    let _ = serde_json::from_slice::<Compared>(body).map(|compared| compared.status);
    if let Ok(blob) = serde_json::from_slice::<Blob>(body) {
        let _ = blob.bytes(String::new(), 4096);
    }
}
