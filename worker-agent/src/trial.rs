//! Runs a repository's own test command as a worker would, and says what it missed.
//!
//! `mainloop doctor --repo` shows the outcome. The repository is cloned by the user's own git, outside of the sandbox
//! and without a checkout, so that nothing of it runs there; a folder of the user's is read and never written to. The
//! sandbox, its mounts and limits and the rules of its forward proxy are a worker's.

mod findings;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use ipnet::IpNet;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use self::findings::{Found, TOOL};
use self::source::Source;
use crate::channel::{self, Notice, Setup};
use crate::probe::{self, Check, Outcome, bad, good};
use crate::sidecar::chain;
use crate::sidecar::proxy::{
    Event, Events, Options as ProxyOptions, Proxy, Timeouts, forward, git, model,
};
use crate::sidecar::sandbox::{Sandbox, StartError, Strain, Worker};
use crate::sidecar::wishes::{FILE, Wishes};

/// How long the tests may take.
const TESTS_WITHIN: Duration = Duration::from_hours(2);
/// The clone that the sandbox makes its own from, as it sees it.
const SOURCE: &str = "/work/source.git";

/// What to try, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The sandbox.
    pub probe: probe::Options,
    /// A folder of this machine, or a URL.
    pub repository: String,
    /// The test command; the repository's own, or a guess, where absent.
    pub command: Option<String>,
    /// Hosts that workers may reach.
    pub hosts: Vec<String>,
    /// Networks that they may reach although they are private.
    pub networks: Vec<String>,
    /// Hosts that they may never reach.
    pub never: Vec<String>,
    /// Seconds that setup commands may take.
    pub setup_seconds: u64,
    /// The code host and its token, for a repository that is not open to everybody.
    pub code_host: Option<(String, SecretString)>,
}

/// Runs it. Each line that a command prints is shown at once.
pub async fn run(options: &Options, show: &dyn Fn(&str)) -> Outcome {
    let mut checks = Vec::new();
    if let Err(stop) = try_all(options, show, &mut checks).await {
        checks.push(stop);
    }
    let misses_a_tool = checks.iter().any(|check| check.name == TOOL);
    Outcome {
        ok: checks.iter().all(|check| check.ok),
        checks,
        mounts_toml: if misses_a_tool {
            probe::toolchains::propose(&options.probe.toolchains)
        } else {
            String::new()
        },
    }
}

/// Stops with the check that everything after it hangs on.
async fn try_all(
    options: &Options,
    show: &dyn Fn(&str),
    checks: &mut Vec<Check>,
) -> Result<(), Check> {
    let name = format!("trial-{}", std::process::id());
    let folder = options.probe.data.join(&name);
    let program = probe::program(&options.probe)?;
    let sandbox = probe::sandbox(&options.probe, program, &folder, &name)?;
    let _removed = probe::made(&options.probe, &folder)?;
    show(&format!("cloning {}", options.repository));
    let source = Source::clone(options, &folder.join("source.git")).await?;
    checks.push(good("repository", source.words()));
    let plan = Plan::of(options, &source).await?;
    sandbox.prepare().map_err(|error| {
        let fix =
            "put the data folder, the binaries and the toolchains where every user can reach them";
        bad("folders", error.to_string(), fix)
    })?;
    source
        .hand_over(&sandbox.work.join("source.git"), sandbox.ids)
        .map_err(|error| {
            bad(
                "folders",
                error.to_string(),
                "see that there is room on the disk",
            )
        })?;
    let (proxy, events) = proxy(options, &sandbox).await?;
    let started = sandbox.start().await;
    let worker = started.map_err(|error| match error {
        StartError::Ended { stderr, .. } => probe::findings::namespaces(&stderr),
        other => probe::findings::namespaces(&chain(&other)),
    })?;
    checks.push(good("limits", worker.running.held().to_string()));
    let mut trial = Trial {
        worker,
        events,
        show,
        found: Found::default(),
        refused: BTreeSet::new(),
    };
    let done = tokio::select! {
        done = trial.all(&plan, checks) => done,
        () = interrupted() => Err(bad(
            "tests",
            "interrupted".to_owned(),
            "run it again to the end",
        )),
    };
    trial.judge(done.is_err(), options, checks);
    if let Err(error) = trial.worker.running.end(&trial.worker.harness).await {
        tracing::warn!(%error, "could not end the sandbox");
    }
    proxy.shutdown().await;
    done
}

/// What is run.
#[derive(Debug)]
struct Plan {
    setup: Vec<String>,
    setup_seconds: u64,
    env: BTreeMap<String, String>,
    test: String,
    /// Where the test command comes from.
    why: String,
}

impl Plan {
    async fn of(options: &Options, source: &Source) -> Result<Self, Check> {
        let wishes = match source.file(FILE).await {
            Some(text) => Wishes::parse(&text)
                .map_err(|message| bad("repository", message, &format!("mend {FILE}")))?,
            None => Wishes::default(),
        };
        let (test, why) = if let Some(command) = &options.command {
            (command.clone(), "by --command".to_owned())
        } else if let Some(test) = wishes.test {
            (test, format!("by {FILE}"))
        } else {
            let Some((test, because)) = source.guess().await else {
                return Err(bad(
                    "tests",
                    "no test command is known".to_owned(),
                    &format!("name one by --command, or as `test` in the repository's {FILE}"),
                ));
            };
            (test, format!("guessed from {because}"))
        };
        Ok(Self {
            setup: wishes.setup,
            setup_seconds: options.setup_seconds,
            env: wishes.env,
            test,
            why,
        })
    }
}

/// A sandbox in which commands run.
struct Trial<'a> {
    worker: Worker,
    events: Events,
    show: &'a dyn Fn(&str),
    found: Found,
    /// Hosts that were asked for and refused.
    refused: BTreeSet<String>,
}

impl Trial<'_> {
    async fn all(&mut self, plan: &Plan, checks: &mut Vec<Check>) -> Result<(), Check> {
        let clone = format!("git clone -q {SOURCE} .");
        let nothing = BTreeMap::new();
        self.run(vec![clone], &nothing, plan.setup_seconds)
            .await
            .map_err(|error| bad("repository", error.to_string(), "see the lines above"))?;
        if !plan.setup.is_empty() {
            let commands = match plan.setup.len() {
                1 => "the setup command".to_owned(),
                count => format!("the {count} setup commands"),
            };
            (self.show)(&format!("running {commands} of {FILE}"));
            self.run(plan.setup.clone(), &plan.env, plan.setup_seconds)
                .await
                .map_err(|error| {
                    let fix = format!("mend `setup` in {FILE}, or what it misses");
                    bad("setup", findings::ended(&error), &fix)
                })?;
            checks.push(good("setup", format!("{commands} of {FILE} ran")));
        }
        let test = &plan.test;
        (self.show)(&format!("running `{test}` ({})", plan.why));
        let started = Instant::now();
        self.run(vec![test.clone()], &plan.env, TESTS_WITHIN.as_secs())
            .await
            .map_err(|error| {
                let fix = "mend what is named here; where nothing is, see whether the command works outside of \
                           the sandbox";
                let detail = format!("`{test}` ({}) {}", plan.why, findings::ended(&error));
                bad("tests", detail, fix)
            })?;
        let seconds = started.elapsed().as_secs();
        checks.push(good(
            "tests",
            format!("`{test}` ({}) passed in {seconds} s", plan.why),
        ));
        Ok(())
    }

    /// Runs commands in the clone, and notes what they print and ask for.
    async fn run(
        &mut self,
        commands: Vec<String>,
        env: &BTreeMap<String, String>,
        timeout_seconds: u64,
    ) -> Result<(), channel::Error> {
        let harness = self.worker.harness.clone();
        let done = harness.setup(Setup {
            commands,
            env: env.clone(),
            timeout_seconds,
        });
        tokio::pin!(done);
        loop {
            tokio::select! {
                // Lines first, so that none is left when it is done.
                biased;
                Some(notice) = self.worker.notices.recv() => {
                    if let Notice::SetupOutput(line) = notice {
                        self.found.line(&line);
                        (self.show)(&line);
                    }
                }
                Some(event) = self.events.recv() => self.saw(event),
                done = &mut done => break done,
            }
        }
    }

    fn saw(&mut self, event: Event) {
        if let Event::HostRefused { host, .. } = event {
            self.refused.insert(host);
        }
    }

    /// What was missed.
    fn judge(&mut self, failed: bool, options: &Options, checks: &mut Vec<Check>) {
        while let Some(Some(event)) = self.events.recv().now_or_never() {
            self.saw(event);
        }
        for host in &self.refused {
            let detail = format!("{host} was asked for, and policy does not list it");
            checks.push(if failed {
                bad("host", detail, &findings::allow(host))
            } else {
                good("host", format!("{detail}; the tests pass without"))
            });
        }
        let held = self.worker.running.held();
        if let Some(words) = self.worker.running.strain().since(Strain::default(), held) {
            checks.push(if failed {
                let fix =
                    "raise the limit in `[worker]` of the policy, or have the tests take less";
                bad("limits", words, fix)
            } else {
                good("limits", words)
            });
        }
        if failed {
            let missing = self.found.missing();
            let proposed = probe::toolchains::propose(&options.probe.toolchains);
            checks.extend(missing.map(|missing| findings::missed(missing, &proposed, &on_path)));
        }
    }
}

/// Where this user finds a program.
fn on_path(tool: &str) -> Option<std::path::PathBuf> {
    if tool.contains('/') {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(tool))
        .find(|path| path.is_file())
}

/// The proxies of a worker, of which only the way to other hosts is open.
async fn proxy(options: &Options, sandbox: &Sandbox) -> Result<(Proxy, Events), Check> {
    let refused = |why: String| {
        bad(
            "hosts",
            why,
            "correct `hosts` and `allow_networks` of the policy",
        )
    };
    let nowhere = || Url::parse("http://localhost").expect("it is a URL");
    let mut allow = Vec::new();
    for host in &options.hosts {
        allow.push(
            host.parse()
                .map_err(|_| refused(format!("{host} is no host")))?,
        );
    }
    let mut allow_addresses = Vec::new();
    for network in &options.networks {
        let network: IpNet = network
            .parse()
            .map_err(|_| refused(format!("{network} is no network")))?;
        allow_addresses.push(network);
    }
    let none = || "none".to_owned();
    Proxy::start(ProxyOptions {
        socket: sandbox.proxy_socket(),
        socket_mode: if sandbox.ids.is_some() { 0o666 } else { 0o600 },
        model: model::Options {
            upstream: nowhere(),
            credential: None,
            models: Vec::new(),
            prices: Vec::new(),
            budget_micros: 0,
            spent_micros: 0,
        },
        git: git::Options {
            upstream: nowhere(),
            owner: none(),
            repository: none(),
            branch: none(),
            token: None,
            screen: None,
        },
        forward: forward::Options {
            allow,
            allow_addresses,
            never: options.never.clone(),
        },
        timeouts: Timeouts::default(),
    })
    .await
    .map_err(|error| {
        bad(
            "proxies",
            chain(&error),
            "see that the data folder can be written",
        )
    })
}

/// Ctrl-C, or an end from outside: what was made is removed first.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// A folder's name as the checks show it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
