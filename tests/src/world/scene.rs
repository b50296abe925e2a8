//! What all handles of one world share.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use super::{client::Client, plane::tail};
use crate::{anthropic, github::GitHub};

/// The stand-ins, the plane's client and the folder of a world.
pub struct Scene {
    /// The plane's client.
    pub client: Client,
    /// The emulated code host.
    pub github: GitHub,
    /// The scripted model; none where a real one is used.
    pub model: Option<anthropic::Running>,
    /// The plane's data folder.
    pub data: PathBuf,
    /// The plane's log.
    pub log: PathBuf,
}

impl Scene {
    /// Folders of the workers that are there now.
    pub fn workers(&self) -> Vec<PathBuf> {
        folders(&self.data.join("workers"))
    }

    /// What a failure shows beside its own words.
    pub fn report(&self) -> String {
        let mut text = format!(
            "the plane's log ends:\n{}\n",
            indented(&tail(&self.log, 25))
        );
        for worker in self.workers() {
            let log = worker.join("agent.log");
            let _ = writeln!(
                text,
                "{} ends:\n{}",
                log.display(),
                indented(&tail(&log, 25))
            );
        }
        let Some(model) = &self.model else {
            return text;
        };
        let _ = writeln!(text, "the model saw last:");
        let requests = model.requests();
        for request in &requests[requests.len().saturating_sub(12)..] {
            let _ = writeln!(
                text,
                "  {} {} -> {} {}",
                request.method, request.target, request.status, request.answer
            );
        }
        for problem in model.problems() {
            let _ = writeln!(text, "the script did not fit: {problem}");
        }
        text
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
