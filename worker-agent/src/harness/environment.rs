//! The environment that everything in the sandbox gets: the harness's own, and the way to the proxies.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where things are for this harness. All of it is the harness's own to write.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) repository: PathBuf,
    pub(super) home: PathBuf,
    pub(super) claude_config: PathBuf,
    pub(super) git_config: PathBuf,
    pub(super) port: u16,
}

impl Places {
    /// Makes the folders under `work`.
    pub(super) fn make(work: &Path, port: u16) -> std::io::Result<Self> {
        let places = Self {
            repository: work.join("repo"),
            home: work.join("home"),
            claude_config: work.join("claude"),
            git_config: work.join("git").join("config"),
            port,
        };
        for folder in [
            &places.repository,
            &places.home,
            &places.claude_config,
            &work.join("git"),
        ] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(places)
    }

    /// A command with the environment of the sandbox.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.repository)
            .env_clear()
            .envs(self.environment());
        command
    }

    fn environment(&self) -> BTreeMap<OsString, OsString> {
        // What bubblewrap was told to set; without a sandbox, what the sidecar passed on.
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let proxy = format!("http://127.0.0.1:{}", self.port);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            env.insert(name.into(), proxy.clone().into());
        }
        for name in ["no_proxy", "NO_PROXY"] {
            env.insert(name.into(), "127.0.0.1,localhost,::1".into());
        }
        env.insert("HOME".into(), self.home.clone().into());
        env.insert(
            "CLAUDE_CONFIG_DIR".into(),
            self.claude_config.clone().into(),
        );
        env.insert("GIT_CONFIG_NOSYSTEM".into(), "1".into());
        env.insert("GIT_CONFIG_GLOBAL".into(), self.git_config.clone().into());
        env.insert("GIT_TERMINAL_PROMPT".into(), "0".into());
        env.insert("GIT_LFS_SKIP_SMUDGE".into(), "1".into());
        env
    }
}
