//! The repository's workflow files, as far as they say whom they leave out.

use serde::Deserialize;

use crate::client::Client;
use crate::error::Result;

/// Files that are read at most, and bytes of each.
const FILES: usize = 20;
const FILE_BYTES: usize = 64 << 10;

impl Client {
    /// Names of the workflow files at `sha` that treat drafts apart: what they check may never run on one.
    pub async fn workflows_that_skip_drafts(&self, sha: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.folder(".github/workflows", sha).await? {
            let is_workflow = entry.kind == "file"
                && matches!(entry.name.rsplit_once('.'), Some((_, "yml" | "yaml")))
                && entry.size <= FILE_BYTES;
            if !is_workflow || names.len() == FILES {
                continue;
            }
            let path = format!(".github/workflows/{}", entry.name);
            if let Some(bytes) = self.file_at(&path, sha, FILE_BYTES).await?
                && skips_drafts(&String::from_utf8_lossy(&bytes))
            {
                names.push(entry.name);
            }
        }
        Ok(names)
    }
}

/// An entry of a folder.
#[derive(Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    size: usize,
}

/// Whether a workflow is started when a draft becomes ready, or asks whether it is one.
pub(crate) fn skips_drafts(text: &str) -> bool {
    text.lines()
        .map(|line| match line.find(" #") {
            _ if line.trim_start().starts_with('#') => "",
            Some(at) => &line[..at],
            None => line,
        })
        .any(|line| line.contains("ready_for_review") || line.contains("pull_request.draft"))
}

#[cfg(test)]
mod tests {
    use super::skips_drafts;

    #[test]
    fn workflows_that_treat_drafts_apart_are_known() {
        for (text, skips) in [
            (
                "on:\n  pull_request:\n    types: [ready_for_review]\n",
                true,
            ),
            ("    if: github.event.pull_request.draft == false\n", true),
            ("    if: ${{ !github.event.pull_request.draft }}\n", true),
            ("on: [push, pull_request]\n", false),
            ("# types: [ready_for_review]\n", false),
            ("on: push # not ready_for_review\n", false),
        ] {
            assert_eq!(skips_drafts(text), skips, "{text}");
        }
    }
}
