//! A scripted Anthropic Messages API on loopback, for the real Claude Code CLI to talk to.
//!
//! Owns the HTTP surface (`POST /v1/messages` streaming and not, `count_tokens`), authentication, the choice
//! of a reply from a [`Script`], and a record of every request. It never decides anything by the clock and
//! never answers what no script describes: such a request gets a 400 and is listed by [`Running::problems`].
//!
//! Two ways to describe a model: [`Conversation::turns`] plays replies in order, one cursor for each
//! session; [`Conversation::rules`] decides from the request's messages alone, so that a worker which is
//! killed and started again goes on where its own history says it is.

pub mod call;
mod gate;
mod record;
mod reply;
mod request;
mod script;
mod server;
mod sse;
pub mod when;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod real_cli_tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::gate::Gate;
pub use self::record::Recorded;
pub use self::reply::{Block, Reply, ToolCall, Trouble, Usage};
pub use self::request::{Call, Outcome, Request};
pub use self::script::{Conversation, Credential, Rule, Script};
pub use self::when::When;

use self::server::Shared;

/// How long a wait of a test may last before it fails and says what was seen.
const WAIT_LIMIT: Duration = Duration::from_mins(2);

/// Starts servers.
pub struct Anthropic;

impl Anthropic {
    /// Serves `script` on a free loopback port.
    pub async fn start(script: Script) -> Result<Running> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script).await
    }

    /// Serves `script` on `address`; what the demo calls with a port of its choice.
    pub async fn start_on(address: SocketAddr, script: Script) -> Result<Running> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("bind the scripted model to {address}"))?;
        let address = listener
            .local_addr()
            .context("read the address of the scripted model")?;
        let shared = Arc::new(Shared::new(script));
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(listener, Arc::clone(&shared), stop.clone()));
        Ok(Running {
            base_url: format!("http://{address}"),
            shared,
            stop,
        })
    }
}

/// A server that runs until it is dropped; open streams are cut then.
pub struct Running {
    /// What `ANTHROPIC_BASE_URL` is set to, without a slash at the end.
    pub base_url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Running {
    /// Every request so far, oldest first, refused ones included.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log.borrow().clone()
    }

    /// How many requests for a message have these words anywhere.
    pub fn told(&self, words: &str) -> usize {
        self.requests()
            .iter()
            .filter(|seen| seen.is_message() && seen.request().text().contains(words))
            .count()
    }

    /// What calls of this tool came back with, all of them, oldest first.
    pub fn outcomes(&self, tool: &str) -> Vec<Outcome> {
        self.requests()
            .iter()
            .filter(|seen| seen.is_message())
            .flat_map(|seen| {
                let request = seen.request();
                request.outcomes().into_iter().cloned().collect::<Vec<_>>()
            })
            .filter(|outcome| outcome.tool == tool)
            .collect()
    }

    /// Requests that the script had no reply for, in words. Empty in a test that went as written.
    pub fn problems(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .filter_map(|request| request.problem)
            .collect()
    }

    /// Fails if the model was ever asked what the script does not describe.
    pub fn check(&self) -> Result<()> {
        let problems = self.problems();
        if !problems.is_empty() {
            bail!("the script did not fit:\n{}", problems.join("\n"));
        }
        Ok(())
    }

    /// Everything charged so far: input when a message began, output as far as it was sent.
    pub fn usage(&self) -> Usage {
        self.shared.charged()
    }

    /// Answers every request with `trouble` until it is called with `None`: an outage.
    pub fn outage(&self, trouble: Option<Trouble>) {
        self.shared.set_outage(trouble);
    }

    /// Waits until the requests seen so far satisfy `enough`, at most a minute, and returns them.
    /// Fails with `what` was awaited, and what was seen instead.
    pub async fn wait_for(
        &self,
        what: &str,
        enough: impl Fn(&[Recorded]) -> bool,
    ) -> Result<Vec<Recorded>> {
        let mut log = self.shared.log.subscribe();
        let seen = tokio::time::timeout(WAIT_LIMIT, log.wait_for(|seen| enough(seen)))
            .await
            .map(|seen| seen.map(|seen| seen.clone()));
        match seen {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(_)) => bail!("the scripted model ended while a test waited for {what}"),
            Err(_) => bail!(
                "waited {WAIT_LIMIT:?} for {what}; the model saw:\n{}",
                record::lines(&self.requests())
            ),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
