//! Requests at work: one at a time on the work tree, several under way, all of them ended by the end of a step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use super::children::Children;
use super::environment::Places;
use super::workspace::Workspace;
use super::{inspect, setup};
use crate::channel::{Failure, Frame, Reply, Report, Request};

/// The first wait after a push that failed; doubled up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest wait between two pushes of the same head.
const RETRY_MOST: Duration = Duration::from_mins(1);
/// Requests at once. The sidecar has one or two under way; more is a mistake, and refused.
const REQUESTS: usize = 16;

/// What is under way.
pub(super) struct Jobs {
    hands: Hands,
    running: JoinSet<()>,
    requests: HashMap<Id, u64>,
    pushing: Option<AbortHandle>,
}

/// What a job works with.
#[derive(Clone)]
struct Hands {
    children: Children,
    places: Places,
    workspace: Arc<Mutex<Workspace>>,
    retry: Arc<Mutex<Retry>>,
    reports: mpsc::Sender<Frame<Report>>,
}

/// The push that failed last, and when to try again.
#[derive(Default)]
struct Retry {
    head: String,
    wait: Duration,
    after: Option<Instant>,
}

impl Jobs {
    pub(super) fn new(
        children: Children,
        places: Places,
        reports: mpsc::Sender<Frame<Report>>,
    ) -> Self {
        let workspace = Workspace::new(children.clone(), places.clone());
        Self {
            hands: Hands {
                children,
                places,
                workspace: Arc::new(Mutex::new(workspace)),
                retry: Arc::default(),
                reports,
            },
            running: JoinSet::new(),
            requests: HashMap::new(),
            pushing: None,
        }
    }

    /// Starts on a request; its reply is sent when it is done.
    pub(super) async fn start(&mut self, id: u64, request: Request) {
        self.collect();
        if self.requests.len() >= REQUESTS {
            let failure = Failure::new("take an order", "too many are under way");
            return self.hands.reply(id, Err(failure)).await;
        }
        let hands = self.hands.clone();
        let job = self.running.spawn(async move {
            let outcome = hands.carry_out(request).await;
            hands.reply(id, outcome).await;
        });
        self.requests.insert(job.id(), id);
    }

    /// Looks whether the task's branch moved, and pushes it. One at a time.
    pub(super) fn push(&mut self) {
        self.collect();
        if self
            .pushing
            .as_ref()
            .is_some_and(|push| !push.is_finished())
        {
            return;
        }
        let hands = self.hands.clone();
        self.pushing = Some(self.running.spawn(async move { hands.push().await }));
    }

    /// Ends everything that is under way; each request is answered with a failure.
    pub(super) async fn abort(&mut self) {
        self.collect();
        self.running.shutdown().await;
        for (_, id) in self.requests.drain() {
            let failure = Failure::new("carry out the order", "the step was ended");
            self.hands.reply(id, Err(failure)).await;
        }
    }

    fn collect(&mut self) {
        while let Some(done) = self.running.try_join_next_with_id() {
            let id = match done {
                Ok((id, ())) => id,
                Err(error) => error.id(),
            };
            self.requests.remove(&id);
        }
    }
}

impl Hands {
    async fn carry_out(&self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Prepare(order) => self
                .workspace
                .lock()
                .await
                .prepare(&order)
                .await
                .map(Reply::Prepared),
            Request::Publish { message } => self
                .workspace
                .lock()
                .await
                .publish(&message)
                .await
                .map(Reply::Published),
            Request::Diffstat => self
                .workspace
                .lock()
                .await
                .diffstat()
                .await
                .map(Reply::Diffstat),
            Request::MergeBase => self
                .workspace
                .lock()
                .await
                .merge_base()
                .await
                .map(|conflicts| Reply::Merged { conflicts }),
            Request::MergeState => self
                .workspace
                .lock()
                .await
                .merge_state()
                .await
                .map(Reply::MergeState),
            Request::Setup(order) => {
                // Holds the work tree, so that nothing is published from the middle of it.
                let _held = self.workspace.lock().await;
                setup::run(&self.children, &self.places, order, &self.reports).await?;
                Ok(Reply::SetupDone)
            }
            Request::Inspect(order) => Ok(Reply::Inspection(
                inspect::look(&self.children, &self.places, order).await,
            )),
            Request::StartClaude(_) | Request::EndStep => {
                Err(Failure::new("carry out the order", "not a job"))
            }
        }
    }

    async fn push(&self) {
        let Ok(mut workspace) = self.workspace.try_lock() else {
            return;
        };
        let Some(head) = workspace.moved().await else {
            return;
        };
        let mut retry = self.retry.lock().await;
        if retry.head == head && retry.after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        let report = match workspace.push().await {
            Ok((_, false)) => return,
            Ok((head_sha, true)) => {
                *retry = Retry::default();
                Report::Pushed { head_sha }
            }
            Err(failure) => {
                let wait = if retry.head == head {
                    (retry.wait * 2).min(RETRY_MOST)
                } else {
                    RETRY_FIRST
                };
                *retry = Retry {
                    head,
                    wait,
                    after: Some(Instant::now() + wait),
                };
                Report::PushFailed(failure)
            }
        };
        let _ = self.reports.send(Frame::Message(report)).await;
    }

    async fn reply(&self, id: u64, outcome: Result<Reply, Failure>) {
        let _ = self
            .reports
            .send(Frame::Message(Report::Reply { id, outcome }))
            .await;
    }
}
