//! Policy: what tasks may do and cost. One TOML file, every key with a default, unknown keys refused.
//!
//! The whole of it is snapshotted into a task when it is made and again when it is confirmed, so that a later edit
//! changes no task that a person has already said yes to. A snapshot may be another version's: what this one does not
//! know of it is passed over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use mainloop_proto::v1::{ModelPrice, WorkerPolicy, WorkflowFiles as WireFiles};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::db::limits::Written;

/// Everything that policy says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Model of tasks that name none: a key of `models`.
    pub default_model: String,
    /// Models that tasks may name, by alias.
    pub models: BTreeMap<String, Model>,
    /// What a task may cost when nothing else is said, in US dollars.
    pub default_budget_usd: f64,
    /// The most that a task may be given, in US dollars.
    pub max_budget_usd: f64,
    /// Bounds on attempts and time.
    pub limits: Written,
    /// How many workers there may be.
    pub slots: Slots,
    /// Hosts that workers reach over HTTP(S): `host`, `*.suffix` or `host:port`.
    pub hosts: Vec<String>,
    /// Networks that they reach although they are private, in CIDR form.
    pub allow_networks: Vec<String>,
    /// What of this machine workers see, read-only.
    pub toolchains: Toolchains,
    /// What of this machine a worker may take.
    pub worker: Worker,
    /// Who commits.
    pub committer: Committer,
    /// Whether merging the pull request closes the issue.
    pub close_issue_on_merge: bool,
    /// What becomes of the issue, the pull request and the branch of a task that is cancelled or declined.
    pub on_cancel: OnCancel,
    /// Whether a GitHub App's token may push changes of `.github/workflows`.
    pub change_workflows: bool,
    /// What is done about a push that changes what GitHub Actions runs.
    pub workflow_files: WorkflowFiles,
    /// Largest repository that workers clone, in MiB; 0 for no limit.
    pub max_repository_mib: u32,
    /// Repositories that tasks may name, as `owner/name` or `owner/*`; all when empty.
    pub repositories: Vec<String>,
    /// Seconds that all setup commands together may take.
    pub setup_seconds: u32,
    /// Seconds after a push without any check that count as no CI.
    pub no_ci_after_seconds: u32,
    /// Seconds without a sign of life in a turn after which it is interrupted.
    pub stall_seconds: u32,
    /// Seconds without a link after which an attempt is lost.
    pub lost_after_seconds: u32,
    /// Seconds between two looks at the same pull request.
    pub watch_seconds: u32,
}

/// A model that tasks may name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its names on the wire: a name, or a prefix that ends in `*`.
    pub wire: Vec<String>,
    /// US dollars per million input tokens.
    pub input_usd: f64,
    /// US dollars per million output tokens.
    pub output_usd: f64,
    /// Per million input tokens read from the cache; a tenth of `input_usd` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_usd: Option<f64>,
    /// Per million written to it for five minutes; 1.25 times `input_usd` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_5m_usd: Option<f64>,
    /// Per million written to it for an hour; twice `input_usd` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_usd: Option<f64>,
}

/// What becomes of what a task made at the code host when it is cancelled or declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCancel {
    /// Nothing.
    Leave,
    /// Its pull request and the issue that it opened are closed.
    Close,
    /// Its branch is deleted as well.
    Delete,
}

/// What is done about a push that changes what GitHub Actions runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkflowFiles {
    /// A person is asked.
    #[default]
    Ask,
    /// It passes.
    Allow,
    /// It is refused.
    Refuse,
}

/// How many workers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slots {
    /// On this plane.
    pub total: u32,
    /// On one repository.
    pub per_repository: u32,
}

/// Read-only mounts, with what makes them usable. `mainloop doctor` proposes this table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Toolchains {
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Folders that come first in `PATH`.
    pub path: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// One read-only mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Folder or file on this machine.
    pub host: PathBuf,
    /// Where workers see it; at its own path when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// What of this machine a worker may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// MiB of memory; 8 GiB when left out, or three quarters of a machine that has less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Processes and threads.
    pub processes: u64,
    /// MiB that its folder may grow to.
    pub disk_mib: u64,
    /// MiB that must stay free where workers live.
    pub free_disk_mib: u64,
}

/// Who commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Committer {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
}

/// Why a policy is refused.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be read.
    #[error("could not read the policy file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or has a value of a type that policy does not know.
    #[error("the policy file {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("the policy file {path} is not valid: {key} {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            total: 4,
            per_repository: 4,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            memory_mib: None,
            processes: 2048,
            disk_mib: 20 << 10,
            free_disk_mib: 1 << 10,
        }
    }
}

impl Default for Committer {
    fn default() -> Self {
        Self {
            name: "mainloop".to_owned(),
            email: "mainloop@localhost".to_owned(),
        }
    }
}

/// Package registries and what they redirect to: enough to build most projects, nothing to talk to anybody with.
const HOSTS: &[&str] = &[
    "crates.io",
    "index.crates.io",
    "static.crates.io",
    "pypi.org",
    "files.pythonhosted.org",
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "proxy.golang.org",
    "sum.golang.org",
    "repo.maven.apache.org",
    "repo1.maven.org",
    "plugins.gradle.org",
    "services.gradle.org",
    "rubygems.org",
    "index.rubygems.org",
    "packagist.org",
    "repo.packagist.org",
    "api.nuget.org",
    "hex.pm",
    "repo.hex.pm",
];

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_model: "sonnet".to_owned(),
            models: [
                ("opus", "claude-opus-*", 5.0, 25.0),
                ("sonnet", "claude-sonnet-*", 3.0, 15.0),
                ("haiku", "claude-haiku-*", 1.0, 5.0),
            ]
            .into_iter()
            .map(|(alias, wire, input, output)| (alias.to_owned(), Model::new(wire, input, output)))
            .collect(),
            default_budget_usd: 5.0,
            max_budget_usd: 100.0,
            limits: Written::default(),
            slots: Slots::default(),
            hosts: HOSTS.iter().map(|host| (*host).to_owned()).collect(),
            allow_networks: Vec::new(),
            toolchains: Toolchains::default(),
            worker: Worker::default(),
            committer: Committer::default(),
            close_issue_on_merge: true,
            on_cancel: OnCancel::Close,
            change_workflows: false,
            workflow_files: WorkflowFiles::Ask,
            max_repository_mib: 10_240,
            repositories: Vec::new(),
            setup_seconds: 900,
            no_ci_after_seconds: 120,
            stall_seconds: 1200,
            lost_after_seconds: 60,
            watch_seconds: 30,
        }
    }
}

impl Model {
    fn new(wire: &str, input: f64, output: f64) -> Self {
        Self {
            wire: vec![wire.to_owned()],
            input_usd: input,
            output_usd: output,
            cache_read_usd: None,
            cache_write_5m_usd: None,
            cache_write_1h_usd: None,
        }
    }

    /// Whether a name on the wire is this model's.
    pub fn answers_to(&self, name: &str) -> bool {
        self.wire.iter().any(|wire| match wire.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == wire,
        })
    }
}

impl Policy {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// As `read`, with the text of the file at hand; errors name `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut unknown = None;
        let policy: Self = toml::Deserializer::parse(text)
            .and_then(|file| {
                serde_ignored::deserialize(file, |key| {
                    unknown.get_or_insert(key.to_string());
                })
            })
            .map_err(|source| Error::Parse {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        unknown
            .map_or_else(
                || policy.validate(),
                |key| Err((key, "is no key of a policy".to_owned())),
            )
            .map_err(|(key, why)| Error::Value {
                path: path.to_owned(),
                key,
                why,
            })?;
        Ok(policy)
    }

    /// The policy that a task was confirmed with. A snapshot that does not read allows nothing.
    pub fn of_snapshot(snapshot: &serde_json::Value) -> Self {
        serde_json::from_value(snapshot.clone()).unwrap_or_else(|error| {
            tracing::error!(%error, "a task's policy does not read: its worker is allowed nothing");
            Self {
                models: BTreeMap::new(),
                hosts: Vec::new(),
                ..Self::default()
            }
        })
    }

    /// What is stored in a task.
    pub fn snapshot(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("policy has text keys and finite numbers only")
    }

    /// The alias or wire name as it is stored in a task; none when policy does not list it.
    pub fn model(&self, name: &str) -> Option<String> {
        if name.is_empty() {
            return Some(self.default_model.clone());
        }
        (self.models.contains_key(name) || self.models.values().any(|model| model.answers_to(name)))
            .then(|| name.to_owned())
    }

    fn validate(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, why: &str| Err((key.to_owned(), why.to_owned()));
        if self.models.is_empty() {
            return refuse("models", "lists no model");
        }
        if self.model(&self.default_model).is_none() || self.default_model.is_empty() {
            return refuse(
                "default_model",
                &format!("is {:?}, which models does not list", self.default_model),
            );
        }
        for (alias, model) in &self.models {
            if model.wire.iter().all(String::is_empty) {
                return refuse(&format!("models.{alias}.wire"), "names no model");
            }
            let prices = [
                Some(model.input_usd),
                Some(model.output_usd),
                model.cache_read_usd,
                model.cache_write_5m_usd,
                model.cache_write_1h_usd,
            ];
            if prices
                .into_iter()
                .flatten()
                .any(|usd| !(0.0..=1e6).contains(&usd))
            {
                return refuse(&format!("models.{alias}"), "has a price that is no price");
            }
        }
        if !(self.max_budget_usd > 0.0 && self.max_budget_usd <= 1e9) {
            return refuse("max_budget_usd", "must be above 0 and finite");
        }
        if !(self.default_budget_usd > 0.0 && self.default_budget_usd <= self.max_budget_usd) {
            return refuse(
                "default_budget_usd",
                "must be above 0 and at most max_budget_usd",
            );
        }
        for (key, value) in [
            ("slots.total", self.slots.total),
            ("slots.per_repository", self.slots.per_repository),
            ("limits.max_attempts", self.limits.max_attempts),
            ("limits.task_seconds", self.limits.task_seconds),
            ("limits.start_seconds", self.limits.start_seconds),
            ("limits.plan_seconds", self.limits.plan_seconds),
            ("limits.implement_seconds", self.limits.implement_seconds),
            ("limits.await_ci_seconds", self.limits.await_ci_seconds),
            ("limits.fix_ci_seconds", self.limits.fix_ci_seconds),
            ("limits.mark_ready_seconds", self.limits.mark_ready_seconds),
            (
                "limits.address_review_seconds",
                self.limits.address_review_seconds,
            ),
            ("limits.rebase_seconds", self.limits.rebase_seconds),
            ("setup_seconds", self.setup_seconds),
            ("no_ci_after_seconds", self.no_ci_after_seconds),
            ("stall_seconds", self.stall_seconds),
            ("lost_after_seconds", self.lost_after_seconds),
            ("watch_seconds", self.watch_seconds),
        ] {
            if value == 0 {
                return refuse(key, "must be above 0");
            }
        }
        for host in &self.hosts {
            if !is_host(host) {
                return refuse(
                    "hosts",
                    &format!(
                        "has {host:?}, which is no host: write `host`, `*.suffix` or `host:port`"
                    ),
                );
            }
        }
        for network in &self.allow_networks {
            if network.parse::<ipnet::IpNet>().is_err() {
                return refuse(
                    "allow_networks",
                    &format!("has {network:?}, which is no network: write `10.0.0.0/8`"),
                );
            }
        }
        for repository in &self.repositories {
            let parts = repository.split_once('/');
            if !parts.is_some_and(|(owner, name)| {
                !owner.is_empty() && !name.is_empty() && !name.contains('/')
            }) {
                return refuse(
                    "repositories",
                    &format!("has {repository:?}: write `owner/name` or `owner/*`"),
                );
            }
        }
        for mount in &self.toolchains.mounts {
            if !mount.host.is_absolute()
                || mount.path.as_ref().is_some_and(|path| !path.is_absolute())
            {
                return refuse(
                    "toolchains.mounts",
                    &format!("has {}, which is not absolute", mount.host.display()),
                );
            }
        }
        for (key, value, least) in [
            // Claude Code alone takes hundreds of MiB and tens of threads.
            ("worker.memory_mib", self.worker.memory_mib, 512),
            ("worker.processes", Some(self.worker.processes), 128),
            ("worker.disk_mib", Some(self.worker.disk_mib), 64),
        ] {
            if value.is_some_and(|value| value < least) {
                return refuse(key, &format!("must be at least {least}"));
            }
            // More than any machine has, and far from the limits of its type in bytes.
            if value.is_some_and(|value| value > 1 << 40) {
                return refuse(key, "is more than any machine has");
            }
        }
        if self.committer.name.trim().is_empty() || !self.committer.email.contains('@') {
            return refuse("committer", "needs a name and an address");
        }
        Ok(())
    }
}

/// Whether a worker's proxy takes it as an entry of its list.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && (is_name || bare.parse::<std::net::IpAddr>().is_ok())
}

impl Policy {
    /// How long an attempt may be out of touch.
    pub fn lost_after(&self) -> Duration {
        Duration::from_secs(self.lost_after_seconds.into())
    }

    /// Pause between two looks at the same pull request.
    pub fn watch_interval(&self) -> Duration {
        Duration::from_secs(self.watch_seconds.into())
    }

    /// Models that tasks may name, by alias.
    pub fn model_names(&self) -> Vec<String> {
        self.models.keys().cloned().collect()
    }

    /// What a worker may take, as the worker agent reads it.
    pub fn limits_json(&self) -> serde_json::Value {
        serde_json::to_value(self.worker).expect("limits are plain data")
    }

    /// The toolchains as the worker agent reads them.
    pub fn toolchains_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.toolchains).expect("toolchains are plain data")
    }
}

/// Whether a list of `owner/name` and `owner/*` holds a repository; an empty one holds all.
pub fn allows_repository(listed: &[String], owner: &str, name: &str) -> bool {
    listed.is_empty()
        || listed.iter().any(|allowed| {
            allowed.split_once('/').is_some_and(|(o, n)| {
                o.eq_ignore_ascii_case(owner) && (n == "*" || n.eq_ignore_ascii_case(name))
            })
        })
}

/// Whether pushes of a task with this snapshot may change workflow files.
pub fn may_change_workflows(snapshot: &serde_json::Value) -> bool {
    Policy::of_snapshot(snapshot).change_workflows
}

/// What the worker of a task with this snapshot needs of its policy.
pub fn worker_policy(snapshot: &serde_json::Value) -> WorkerPolicy {
    let policy = Policy::of_snapshot(snapshot);
    let seconds = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
    let mut models = Vec::new();
    let mut prices = Vec::new();
    for model in policy.models.values() {
        for name in &model.wire {
            models.push(name.clone());
            prices.push(ModelPrice {
                prefix: name.trim_end_matches('*').to_owned(),
                input: micros(model.input_usd),
                output: micros(model.output_usd),
                cache_read: micros(model.cache_read_usd.unwrap_or(model.input_usd * 0.1)),
                cache_write_5m: micros(model.cache_write_5m_usd.unwrap_or(model.input_usd * 1.25)),
                cache_write_1h: micros(model.cache_write_1h_usd.unwrap_or(model.input_usd * 2.0)),
            });
        }
    }
    // The first match counts, so the longest prefix comes first.
    prices.sort_by_key(|price| std::cmp::Reverse(price.prefix.len()));
    WorkerPolicy {
        models,
        prices,
        hosts: policy.hosts,
        allow_networks: policy.allow_networks,
        setup_seconds: seconds(policy.setup_seconds),
        no_ci_after_seconds: seconds(policy.no_ci_after_seconds),
        stall_seconds: seconds(policy.stall_seconds),
        watch_seconds: seconds(policy.watch_seconds),
        committer_name: policy.committer.name,
        committer_email: policy.committer.email,
        close_issue_on_merge: policy.close_issue_on_merge,
        workflow_files: match policy.workflow_files {
            WorkflowFiles::Ask => WireFiles::Ask,
            WorkflowFiles::Allow => WireFiles::Allow,
            WorkflowFiles::Refuse => WireFiles::Refuse,
        }
        .into(),
        max_repository_mib: policy.max_repository_mib.into(),
    }
}

/// US dollars in millionths; policy's bounds keep it far from the limits of the type.
#[expect(clippy::cast_possible_truncation, reason = "bounded by validation")]
pub fn micros(usd: f64) -> i64 {
    (usd * 1e6).round() as i64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn read(text: &str) -> Result<Policy, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Policy::read(file.path()).map_err(|error| {
            let shown = crate::errors::chain(&error);
            shown.replace(&file.path().display().to_string(), "FILE")
        })
    }

    #[test]
    fn nothing_said_is_the_default() {
        let policy = read("").unwrap();
        assert_eq!(policy, Policy::default());
        assert_eq!(policy.validate(), Ok(()));
        assert_eq!(Policy::of_snapshot(&policy.snapshot()), policy);
    }

    #[test]
    fn values_are_taken_and_the_rest_stays() {
        let policy = read(
            "default_model = 'haiku'\ndefault_budget_usd = 0.5\n[limits]\nno_ci = 'accept'\nplan_seconds = 7\n\
             [slots]\ntotal = 2\n[[toolchains.mounts]]\nhost = '/opt/go'\n",
        )
        .unwrap();
        assert_eq!(policy.model("").unwrap(), "haiku");
        assert_eq!(policy.limits.plan_seconds, 7);
        assert_eq!(policy.slots.total, 2);
        assert_eq!(policy.slots.per_repository, 4);
        assert_eq!(
            policy.limits.max_attempts,
            Policy::default().limits.max_attempts
        );
        assert_eq!(micros(policy.default_budget_usd), 500_000);
    }

    #[test]
    fn a_refusal_names_the_key() {
        for (text, wanted) in [
            ("budget = 3", "budget"),
            ("[limits]\nplan_secs = 3", "plan_secs"),
            ("[limits]\nno_ci = 'maybe'", "no_ci"),
            ("[limits]\nunanswered = 'guess'", "unanswered"),
            ("[limits]\ntask_seconds = 0", "limits.task_seconds"),
            ("default_model = 'gpt'", "default_model"),
            ("workflow_files = 'maybe'", "workflow_files"),
            ("default_budget_usd = 0.0", "default_budget_usd"),
            ("default_budget_usd = 1000.0", "default_budget_usd"),
            ("max_budget_usd = inf", "max_budget_usd"),
            ("hosts = ['https://x']", "hosts"),
            ("hosts = ['*']", "hosts"),
            ("hosts = ['*.']", "hosts"),
            ("hosts = ['crates.io:http']", "hosts"),
            ("hosts = ['a:99999']", "hosts"),
            ("hosts = ['a..b']", "hosts"),
            ("hosts = ['me@x']", "hosts"),
            ("allow_networks = ['10.0.0.0/40']", "allow_networks"),
            ("allow_networks = ['10.0.0.5']", "allow_networks"),
            (
                "[models.a]\nwire = ['a']\nprice = 1\ninput_usd = 1\noutput_usd = 1",
                "models.a.price",
            ),
            ("[slots]\ntotal = 0", "slots.total"),
            ("[worker]\nmemory_mib = 100", "worker.memory_mib"),
            ("[worker]\nprocesses = 0", "worker.processes"),
            ("[worker]\ndisk_mib = 9999999999999", "worker.disk_mib"),
            ("watch_seconds = 0", "watch_seconds"),
            ("on_cancel = 'burn'", "on_cancel"),
            ("repositories = ['x']", "repositories"),
            ("repositories = ['/x/y']", "repositories"),
            ("repositories = ['x//y']", "repositories"),
            ("repositories = ['x/y/']", "repositories"),
            ("[[toolchains.mounts]]\nhost = 'go'", "toolchains.mounts"),
            (
                "default_model = 'a'\n[models.a]\nwire = ['a']\ninput_usd = -1\noutput_usd = 1",
                "models.a",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?} gave {error}");
        }
    }

    #[test]
    fn hosts_and_networks_are_taken_as_workers_take_them() {
        let text = "hosts = ['Crates.IO.', '*.crates.io', 'mirror:8081', '[::1]:8081', '::1', '10.0.0.5']\n\
                    allow_networks = ['10.0.0.5/32', 'fd00::/8']";
        let policy = read(text).unwrap();
        assert_eq!((policy.hosts.len(), policy.allow_networks.len()), (6, 2));
    }

    #[test]
    fn a_snapshot_of_another_version_keeps_what_this_one_knows() {
        let mut policy = Policy {
            hosts: vec!["mirror".to_owned()],
            ..Policy::default()
        };
        policy.limits.max_attempts = 1;
        let mut snapshot = policy.snapshot();
        snapshot["invented_later"] = serde_json::json!({ "a": 1 });
        snapshot["limits"]["invented_later"] = 7.into();
        snapshot["models"]["opus"]["invented_later"] = true.into();
        snapshot.as_object_mut().unwrap().remove("watch_seconds");
        assert_eq!(Policy::of_snapshot(&snapshot), policy);
        assert_eq!(Written::of_snapshot(&snapshot), policy.limits);
    }

    #[test]
    fn models_are_named_by_alias_or_wire_name() {
        let policy = Policy::default();
        assert_eq!(policy.model("opus").as_deref(), Some("opus"));
        assert_eq!(
            policy.model("claude-sonnet-4-5").as_deref(),
            Some("claude-sonnet-4-5")
        );
        assert_eq!(policy.model("gpt-5"), None);
    }

    #[test]
    fn a_list_of_repositories_excludes_all_others() {
        let mut policy = Policy::default();
        assert!(allows_repository(&policy.repositories, "any", "thing"));
        policy.repositories = vec!["me/one".to_owned(), "team/*".to_owned()];
        assert!(
            allows_repository(&policy.repositories, "Me", "one")
                && allows_repository(&policy.repositories, "team", "x")
        );
        assert!(!allows_repository(&policy.repositories, "me", "two"));
    }

    #[test]
    fn a_snapshot_that_does_not_read_allows_nothing() {
        let policy = Policy::of_snapshot(&serde_json::json!({ "hosts": 3 }));
        assert!(policy.hosts.is_empty() && policy.models.is_empty());
    }

    #[test]
    fn the_documented_example_is_the_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.example.toml");
        assert_eq!(Policy::read(Path::new(path)).unwrap(), Policy::default());
        // A key that is left out has its default as well.
        let written: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let mut all = toml::Table::try_from(Policy::default()).unwrap();
        // Is of this machine: the example has it as a comment.
        all.remove("toolchains");
        assert_eq!(keys(&written), keys(&all));
    }

    fn keys(table: &toml::Table) -> BTreeSet<String> {
        let below = |(key, value): (&String, &toml::Value)| match value.as_table() {
            Some(table) => keys(table)
                .into_iter()
                .map(|below| format!("{key}.{below}"))
                .collect(),
            None => vec![key.clone()],
        };
        table.iter().flat_map(below).collect()
    }
}
