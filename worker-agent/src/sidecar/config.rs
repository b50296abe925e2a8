//! What the launcher tells a sidecar: a file that holds no secret, and the attempt's token on standard input.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;
use tokio::io::AsyncReadExt;

use super::sandbox::{Limits, Toolchains};

/// Longest token that is read.
const MAX_TOKEN: u64 = 4096;

/// A worker's configuration, as the launcher wrote it.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// The attempt, a UUID.
    pub attempt_id: String,
    /// The launcher's host.
    pub host_id: String,
    /// The plane's socket for links.
    pub link_socket: PathBuf,
    /// The worker's own folder.
    pub dir: PathBuf,
    /// The Claude Code CLI.
    pub claude: PathBuf,
    /// Runs the harness under bubblewrap.
    pub sandbox: bool,
    /// Set where the harness is to run as a user and group of its own, which are derived from the attempt; unset to
    /// stay who the sidecar is.
    pub uid: Option<u32>,
    /// Toolchains that the harness may read, from the user's own configuration.
    #[serde(rename = "mounts")]
    pub toolchains: Toolchains,
    /// What the harness may take of the machine, from the user's own configuration.
    #[serde(default)]
    pub limits: Limits,
}

/// Why a sidecar does not know what it is for.
#[derive(Debug, Error)]
pub enum Error {
    /// No such file, or not readable.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not what a launcher writes.
    #[error("could not understand {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Standard input cannot be read.
    #[error("could not read the attempt's token from standard input")]
    Token(#[source] std::io::Error),
    /// Nothing came on it.
    #[error("there is no token of the attempt on standard input")]
    NoToken,
}

impl Config {
    /// Reads the launcher's file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| Error::Parse {
            path: path.to_owned(),
            source,
        })
    }
}

/// The attempt's token, from the pipe that the launcher made.
pub async fn token() -> Result<SecretString, Error> {
    let mut text = String::new();
    tokio::io::stdin()
        .take(MAX_TOKEN)
        .read_to_string(&mut text)
        .await
        .map_err(Error::Token)?;
    match text.trim() {
        "" => Err(Error::NoToken),
        token => Ok(SecretString::from(token.to_owned())),
    }
}
