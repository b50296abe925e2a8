//! Workflow files: the simple part of their language that small repositories use.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A workflow file. Keys that it does not know are ignored.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Workflow {
    pub(super) name: Option<String>,
    on: On,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Scalar>,
    pub(super) jobs: BTreeMap<String, Job>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum On {
    One(String),
    Many(Vec<String>),
    Events(BTreeMap<String, Option<Filter>>),
}

#[derive(Debug, Default, Deserialize)]
struct Filter {
    branches: Option<OneOrMany>,
    #[serde(rename = "branches-ignore")]
    ignored: Option<OneOrMany>,
    tags: Option<OneOrMany>,
    types: Option<OneOrMany>,
}

/// What starts a workflow on a pull request where it names no types.
const ACTIVITIES: [&str; 3] = ["opened", "synchronize", "reopened"];

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn list(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

/// A plain value, as the environment takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct Job {
    pub(super) name: Option<String>,
    needs: Option<OneOrMany>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    #[serde(rename = "timeout-minutes")]
    pub(super) timeout_minutes: Option<u64>,
    #[serde(rename = "if")]
    condition: Option<Scalar>,
}

impl Job {
    /// Whether it runs for a pull request that is a draft, or for anything else. Of conditions only those on drafts
    /// are known; every other one holds.
    pub(super) fn runs(&self, draft: bool) -> bool {
        let text = self
            .condition
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        match text
            .trim()
            .trim_start_matches("${{")
            .trim_end_matches("}}")
            .trim()
        {
            "github.event.pull_request.draft == false"
            | "github.event.pull_request.draft != true"
            | "!github.event.pull_request.draft" => !draft,
            "false" => false,
            _ => true,
        }
    }

    pub(super) fn needs(&self) -> Vec<String> {
        self.needs.as_ref().map_or_else(Vec::new, OneOrMany::list)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct Step {
    name: Option<String>,
    pub(super) run: Option<String>,
    pub(super) uses: Option<String>,
    pub(super) shell: Option<String>,
    #[serde(rename = "working-directory")]
    pub(super) folder: Option<String>,
    #[serde(rename = "if")]
    condition: Option<Scalar>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Scalar>,
    #[serde(default, rename = "continue-on-error")]
    pub(super) may_fail: bool,
}

impl Step {
    pub(super) fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let what = self
            .run
            .as_deref()
            .or(self.uses.as_deref())
            .unwrap_or_default();
        format!("Run {}", what.lines().next().unwrap_or_default())
    }

    /// Whether the step runs, given that an earlier one failed or none did.
    pub(super) fn runs(&self, failed: bool) -> bool {
        let text = self
            .condition
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        match text
            .trim()
            .trim_start_matches("${{")
            .trim_end_matches("}}")
            .trim()
        {
            "always()" => true,
            "failure()" => failed,
            "false" => false,
            _ => !failed,
        }
    }
}

impl Workflow {
    /// Reads a file; the error is what a person would be told.
    pub(in super::super) fn parse(text: &str) -> Result<Self, String> {
        let workflow: Self = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        if workflow.jobs.is_empty() {
            return Err("no jobs defined".to_owned());
        }
        for (key, job) in &workflow.jobs {
            if let Some(need) = job
                .needs()
                .iter()
                .find(|need| !workflow.jobs.contains_key(*need))
            {
                return Err(format!("job '{key}' depends on unknown job '{need}'"));
            }
            if job
                .steps
                .iter()
                .any(|step| step.run.is_none() == step.uses.is_none())
            {
                return Err(format!("a step of job '{key}' needs one of run and uses"));
            }
        }
        Ok(workflow)
    }

    /// Whether an event on a branch starts it: the branch that was pushed, or a pull request's base. `activity` is what
    /// happened to the pull request; empty for a push.
    pub(in super::super) fn wants(&self, event: &str, activity: &str, branch: &str) -> bool {
        let usual = activity.is_empty() || ACTIVITIES.contains(&activity);
        let filter = match &self.on {
            On::One(one) => return usual && one == event,
            On::Many(many) => return usual && many.iter().any(|one| one == event),
            On::Events(events) => match events.get(event) {
                None => return false,
                Some(filter) => filter,
            },
        };
        let Some(filter) = filter else { return usual };
        let wanted = match &filter.types {
            Some(types) => types.list().iter().any(|one| one == activity),
            None => usual,
        };
        if !wanted && !activity.is_empty() {
            return false;
        }
        let hits = |list: &OneOrMany| list.list().iter().any(|pattern| glob(pattern, branch));
        match (&filter.branches, &filter.ignored) {
            (Some(branches), _) => hits(branches),
            (None, Some(ignored)) => !hits(ignored),
            // Only tags are named: no branch starts it.
            (None, None) => filter.tags.is_none(),
        }
    }
}

/// `*` stays within a path segment, `**` does not.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.find('*') {
        None => pattern == text,
        Some(at) => {
            let (head, rest) = pattern.split_at(at);
            let Some(text) = text.strip_prefix(head) else {
                return false;
            };
            let deep = rest.starts_with("**");
            let tail = rest.trim_start_matches('*');
            (0..=text.len())
                .filter(|&end| text.is_char_boundary(end) && (deep || !text[..end].contains('/')))
                .any(|end| glob(tail, &text[end..]))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_are_read_in_each_of_their_three_forms() {
        let wants = |on: &str, event: &str, branch: &str| {
            let text = format!(
                "on: {on}\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - run: 'true'\n"
            );
            Workflow::parse(&text).unwrap().wants(
                event,
                if event == "push" { "" } else { "opened" },
                branch,
            )
        };
        assert!(wants("push", "push", "any"));
        assert!(!wants("push", "pull_request", "any"));
        assert!(wants("[push, pull_request]", "pull_request", "main"));
        assert!(wants("\n  push:\n  pull_request:\n", "push", "x"));
        assert!(wants(
            "\n  push:\n    branches: [main, 'release/**']\n",
            "push",
            "release/1/2"
        ));
        assert!(!wants(
            "\n  push:\n    branches: [main, 'release/*']\n",
            "push",
            "release/1/2"
        ));
        assert!(!wants(
            "\n  push:\n    branches-ignore: ['mainloop/*']\n",
            "push",
            "mainloop/x"
        ));
    }

    #[test]
    fn broken_files_say_why() {
        assert!(
            Workflow::parse("on: push\njobs: {}\n")
                .unwrap_err()
                .contains("no jobs")
        );
        assert!(Workflow::parse("on: push\njobs: [").is_err());
        let unknown = "on: push\njobs:\n  a:\n    needs: b\n    steps:\n      - run: x\n";
        assert_eq!(
            Workflow::parse(unknown).unwrap_err(),
            "job 'a' depends on unknown job 'b'"
        );
    }
}
