//! The workers' way in: `WorkerLinkService`, and one session per live attempt.

mod ingest;
mod session;
mod welcome;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use mainloop_proto::v1::{
    ConnectRequest, ConnectResponse, connect_request, worker_link_service_server::WorkerLinkService,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

pub use welcome::Offer;

use crate::{
    db::Store,
    errors, ids,
    rpc::access::Health,
    supervisor::{OnExit, Supervisor},
};

/// How long an agent may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// Frames to one agent that may wait: it reads all the time, so more means that it is stuck.
const OUTGOING: usize = 64;
/// How long the lease of a replica is valid.
pub const LEASE: Duration = Duration::from_secs(10);
/// Seconds between an agent's heartbeats.
const HEARTBEAT_SECONDS: i32 = 3;

/// This replica's lease in the database, as its streams see it.
#[derive(Debug)]
pub struct Lease {
    origin: Instant,
    valid_until_millis: AtomicI64,
    /// Since when it is held without a gap. When that changes, others may have taken our attempts for lost.
    since: watch::Sender<Option<Timestamp>>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            valid_until_millis: AtomicI64::new(-1),
            since: watch::Sender::new(None),
        }
    }
}

impl Lease {
    /// Renews the lease; when that fails it runs out by itself.
    pub async fn renew(&self, store: &Store, replica: Uuid, host: &str) {
        let asked = self.origin.elapsed();
        let held = match store.hold_lease(replica, host, LEASE.as_secs_f64()).await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(error = errors::chain(&error), "could not renew the lease");
                return;
            }
        };
        let until = i64::try_from((asked + LEASE).as_millis()).unwrap_or(i64::MAX);
        self.valid_until_millis.store(until, Ordering::Relaxed);
        self.since
            .send_if_modified(|since| since.replace(held.since) != Some(held.since));
        if let Some(seconds) = held.back {
            tracing::warn!(seconds, "the clock went back; timers were moved with it");
        }
        if let Some(seconds) = held.away {
            tracing::warn!(seconds, "the lease had lapsed; workers reconnect");
        }
    }

    /// Changes when the lease is held again after a gap.
    fn gaps(&self) -> watch::Receiver<Option<Timestamp>> {
        let mut gaps = self.since.subscribe();
        gaps.mark_unchanged();
        gaps
    }

    /// Whether heartbeats may be acknowledged.
    pub fn is_valid(&self) -> bool {
        let now = i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX);
        now < self.valid_until_millis.load(Ordering::Relaxed)
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Link {
    shared: Arc<Shared>,
}

/// What all sessions of a replica share.
#[derive(Debug)]
struct Shared {
    store: Store,
    replica: Uuid,
    lease: Arc<Lease>,
    offer: Offer,
    health: Health,
    supervisor: Supervisor,
}

impl Link {
    /// A service of this replica that offers workers what `offer` holds.
    pub fn new(
        store: Store,
        replica: Uuid,
        lease: Arc<Lease>,
        offer: Offer,
        health: Health,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                replica,
                lease,
                offer,
                health,
                supervisor,
            }),
        }
    }
}

#[tonic::async_trait]
impl WorkerLinkService for Link {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(ids::hash)
            .ok_or_else(|| Status::unauthenticated("no attempt's token was sent"))?;
        let mut incoming = request.into_inner();
        let hello = match tokio::time::timeout(HELLO, incoming.next()).await {
            Ok(Some(Ok(ConnectRequest {
                frame: Some(connect_request::Frame::Hello(hello)),
            }))) => hello,
            Ok(Some(Err(status))) => return Err(status),
            Ok(_) => return Err(Status::invalid_argument("the first frame must be hello")),
            Err(_) => return Err(Status::deadline_exceeded("no hello came")),
        };
        let attempt: Uuid = hello
            .attempt_id
            .parse()
            .map_err(|_| Status::invalid_argument("attempt_id is not a UUID"))?;
        let identity = self
            .shared
            .store
            .attempt_by_token(attempt, &token)
            .await
            .map_err(|error| internal(&error))?
            .ok_or_else(|| Status::unauthenticated("the token is not this attempt's"))?;
        let is_new = hello.link_epoch <= 1;
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        let shared = Arc::clone(&self.shared);
        self.shared
            .supervisor
            .spawn("link session", OnExit::Log, async move {
                session::run(shared, identity, is_new, incoming, outgoing).await;
            });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }
}

fn internal(error: &crate::db::Error) -> Status {
    tracing::warn!(error = errors::chain(error), "link request failed");
    Status::unavailable("the plane's database did not answer; try again")
}
