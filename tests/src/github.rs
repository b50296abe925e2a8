//! An emulated GitHub: REST below `/api/v3`, GraphQL at `/api/graphql`, git and pages below `/`, as on GitHub Enterprise.
//!
//! It owns the whole site in memory and bare repositories in a folder of its own, both gone when it is dropped, together
//! with the CI that it runs. Every REST request and answer is held against GitHub's published OpenAPI description: what
//! breaks it is answered with 500 and makes [`GitHub::assert_contract`] panic. What the emulator does not know it refuses
//! loudly; it never makes an answer up. Any number of them run in one process.
//!
//! `rest` has the table of operations, `changes` what they do to the `site`, `ci` the workflows that really run.

mod access;
mod apps;
mod call;
mod changes;
mod ci;
mod contract;
mod exchange;
mod faults;
mod git;
mod git_server;
mod graphql;
mod html;
mod hub;
mod limits;
mod people;
mod problem;
mod render;
mod rest;
mod seed;
mod server;
mod site;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

pub use access::{Level, Role, Scope, Token, TokenKind};
pub use apps::{App, AppKey, Installation, Minted};
pub use ci::{CiPolicy, Conclusion, Status};
pub use faults::{Fault, FaultKind};
pub use git::Files;
pub use people::Person;
pub use seed::Seed;
pub use site::{
    CheckRun, Comment, CommitStatus, Issue, Job, Label, Merged, Pull, Push, Repo, Request, Review,
    ReviewComment, Run, Site, Step, Suite, User,
};

use hub::Hub;
use problem::Problem;
use server::Part;

/// How long `wait_for` waits before it gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where an emulator listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Port on the loopback address; 0 lets the system choose.
    pub port: u16,
    /// How long [`GitHub::wait_for`] waits; `None` for a minute.
    pub patience: Option<Duration>,
}

/// A running emulator. Dropping it ends the server, its connections and its CI.
pub struct GitHub {
    hub: Arc<Hub>,
    base: String,
    patience: Duration,
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.hub.stop.cancel();
    }
}

impl GitHub {
    /// Starts an empty site on loopback.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        let base = format!("http://{}", listener.local_addr()?);
        let store = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen for logs")?;
        let dir = tempfile::Builder::new()
            .prefix("github-")
            .tempdir()
            .context("make the emulator's folder")?;
        let site = Site {
            base: base.clone(),
            blobs: format!("http://{}", store.local_addr()?),
            users: BTreeMap::new(),
            repos: BTreeMap::new(),
            requests: Vec::new(),
            violations: Vec::new(),
            tokens: HashMap::new(),
            apps: BTreeMap::new(),
            installations: BTreeMap::new(),
            minted: Vec::new(),
            limits: limits::Limits::default(),
            faults: Vec::new(),
            to_run: Vec::new(),
            next_id: 1000,
            dir: dir.path().to_owned(),
            started: site::now(),
        };
        let hub = Arc::new(Hub::new(site, dir));
        tokio::spawn(server::listen(hub.clone(), listener, Part::Site));
        tokio::spawn(server::listen(hub.clone(), store, Part::Blobs));
        Ok(Self {
            hub,
            base,
            patience: options.patience.unwrap_or(PATIENCE),
        })
    }

    /// `http://127.0.0.1:port`.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The base of the REST API, as octocrab's `base_uri` takes it.
    pub fn api_url(&self) -> String {
        format!("{}/api/v3", self.base)
    }

    /// What `git clone` takes.
    pub fn clone_url(&self, repo: &str) -> String {
        format!("{}/{repo}.git", self.base)
    }

    /// A new repository with one commit.
    pub fn seed(&self, seed: Seed) -> anyhow::Result<()> {
        self.act(|site| seed.plant(site))
    }

    pub fn add_user(&self, login: &str) {
        self.hub.change(|site| site.add_user(login));
    }

    /// Gives a person a role on a repository.
    pub fn add_collaborator(&self, repo: &str, login: &str, role: Role) -> anyhow::Result<()> {
        self.act(|site| {
            site.add_user(login);
            site.repo_mut(repo)?
                .collaborators
                .insert(login.to_owned(), role);
            Ok(())
        })
    }

    /// Makes `secret` a token; its user is made where missing.
    pub fn add_token(&self, secret: &str, token: Token) {
        self.hub.change(|site| {
            site.add_user(&token.login);
            site.tokens.insert(secret.to_owned(), token);
        });
    }

    /// A new App, with the permissions that mainloop asks people to give it.
    pub fn add_app(&self, slug: &str, owner: &str, lifetime: Duration) -> anyhow::Result<AppKey> {
        self.hub
            .change(|site| apps::create(site, slug, owner, lifetime))
    }

    /// Installs an App on a repository.
    pub fn install_app(&self, app: u64, repo: &str) -> anyhow::Result<()> {
        self.act(|site| apps::install(site, app, repo))
    }

    /// From now on the token gets 401.
    pub fn revoke_token(&self, secret: &str) {
        self.hub.change(|site| site.tokens.remove(secret));
    }

    /// What a person does on the site, from their browser or their own clone.
    pub fn person(&self, login: &str) -> Person<'_> {
        self.add_user(login);
        Person::new(self, login)
    }

    /// Changes how a repository's CI behaves, for runs that start from now on; releasing a hold reaches those that wait.
    pub fn set_ci(&self, repo: &str, change: impl FnOnce(&mut CiPolicy)) -> anyhow::Result<()> {
        self.act(|site| {
            change(&mut site.repo_mut(repo)?.ci);
            Ok(())
        })
    }

    /// A maintainer approves the runs of a repository that wait for it; those to come need no approval.
    pub fn approve_runs(&self, repo: &str) -> anyhow::Result<()> {
        self.act(|site| ci::approve(site, repo))
    }

    /// A repository's settings and state, changed past all rules.
    pub fn change_repo(&self, repo: &str, change: impl FnOnce(&mut Repo)) -> anyhow::Result<()> {
        self.act(|site| {
            change(site.repo_mut(repo)?);
            Ok(())
        })
    }

    /// Refuses each push to a repository from now on, with the words of a protection rule or a hook.
    pub fn refuse_pushes(&self, repo: &str, words: &str) -> anyhow::Result<()> {
        self.act(|site| Ok(git::set_rule(&site.repo_mut(repo)?.dir, words)?))
    }

    /// A commit status by another service: `error`, `failure`, `pending` or `success`.
    pub fn post_status(
        &self,
        repo: &str,
        sha: &str,
        context: &str,
        state: &str,
    ) -> anyhow::Result<()> {
        self.act(|site| ci::post_status(site, repo, sha, context, state))
    }

    /// A check run by an App other than Actions; `None` while it is in progress. A second call for the same name updates it.
    pub fn post_check(
        &self,
        repo: &str,
        sha: &str,
        name: &str,
        conclusion: Option<Conclusion>,
    ) -> anyhow::Result<u64> {
        self.act(|site| ci::post_check(site, repo, sha, name, conclusion))
    }

    /// Lets a user make so many requests more, until the limit begins anew in so long.
    pub fn leave_requests(&self, login: &str, left: u64, reset_in: Duration) {
        let reset_in = reset_in.try_into().unwrap_or(jiff::SignedDuration::MAX);
        self.hub
            .change(|site| site.limits.leave(login, left, reset_in));
    }

    /// Lets a user make or change content so often before the secondary limit, which lasts a minute.
    pub fn leave_writes(&self, login: &str, left: u64) {
        self.hub
            .change(|site| site.limits.leave_writes(login, left));
    }

    /// Lets time pass for the rate limits, and for nothing else.
    pub fn pass_time(&self, time: Duration) {
        let time = time.try_into().unwrap_or(jiff::SignedDuration::MAX);
        self.hub.change(|site| site.limits.pass(time));
    }

    /// Lets the next requests that match go wrong.
    pub fn fault(&self, fault: Fault) {
        self.hub.change(|site| site.faults.push(fault));
    }

    /// Faults that were ordered and that no request has met.
    pub fn faults_left(&self) -> Vec<Fault> {
        self.hub.lock().faults.clone()
    }

    /// All is well again: no fault is left.
    pub fn mend(&self) {
        self.hub.change(|site| site.faults.clear());
    }

    /// Looks at the site as it is now. The site stands still meanwhile: be quick.
    pub fn read<T>(&self, look: impl FnOnce(&Site) -> T) -> T {
        look(&self.hub.lock())
    }

    /// What has been asked so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.read(|site| site.requests.clone())
    }

    /// Waits until `look` finds what it wants in the site, now or after any change.
    ///
    /// # Panics
    /// After the patience that was set: the message says `what` was waited for, and what the site looks like.
    pub async fn wait_for<T>(&self, what: &str, look: impl Fn(&Site) -> Option<T>) -> T {
        match tokio::time::timeout(self.patience, self.hub.wait(look)).await {
            Ok(Ok(found)) => found,
            Ok(Err(_stopped)) => panic!("the emulator stopped before {what}"),
            Err(tokio::time::error::Elapsed { .. }) => panic!(
                "{what}: not seen within {:?}. The site:\n{}",
                self.patience,
                self.read(html::summary)
            ),
        }
    }

    /// Panics with every request and answer that broke GitHub's description.
    pub fn assert_contract(&self) {
        let violations = self.read(|site| site.violations.clone());
        assert!(
            violations.is_empty(),
            "the GitHub contract was broken {} times:\n{}",
            violations.len(),
            violations.join("\n")
        );
    }

    /// A change that cannot be refused but by a mistake of the caller, which the error names.
    fn act<T>(&self, change: impl FnOnce(&mut Site) -> Result<T, Problem>) -> anyhow::Result<T> {
        self.hub.change(change).map_err(|problem| {
            anyhow::anyhow!(
                "{} {} {:?}",
                problem.status,
                problem.message,
                problem.errors
            )
        })
    }
}
