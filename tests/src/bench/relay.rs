//! Stands between a real agent and the plane: passes every frame on, notes when, and lets the agent rest.
//!
//! The step in the plane's welcome becomes a wait, so that the agent does nothing but stay. All else is as it was sent.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mainloop_proto::v1::{
    ConnectRequest, ConnectResponse, WaitWork,
    assignment::Work,
    connect_request::Frame as Out,
    connect_response::Frame as In,
    worker_link_service_client::WorkerLinkServiceClient,
    worker_link_service_server::{WorkerLinkService, WorkerLinkServiceServer},
};
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream, wrappers::UnixListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

use super::link;

/// Frames that wait, either way.
const FRAMES: usize = 64;
/// How long an agent may take to be there.
const THERE: Duration = Duration::from_mins(1);

/// A socket for agents, in front of the plane's.
pub(super) struct Relay {
    /// Where agents dial.
    pub(super) socket: PathBuf,
    heartbeats: mpsc::Receiver<Instant>,
    _server: AbortOnDropHandle<()>,
}

impl Relay {
    /// Listens in `folder`, in front of `plane`.
    pub(super) async fn start(folder: &Path, plane: &Path) -> Result<Self> {
        let socket = folder.join("relay.sock");
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("listen on {}", socket.display()))?;
        let (beats, heartbeats) = mpsc::channel(FRAMES);
        let service = Service {
            plane: link::client(plane).await?,
            beats,
        };
        let serving = Server::builder()
            .add_service(WorkerLinkServiceServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let server = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the relay ended");
            }
        }));
        Ok(Self {
            socket,
            heartbeats,
            _server: server,
        })
    }

    /// When the next agent's first heartbeat came. It is the first frame after the welcome, and follows it at once.
    pub(super) async fn welcomed(&mut self) -> Result<Instant> {
        tokio::time::timeout(THERE, self.heartbeats.recv())
            .await
            .with_context(|| format!("no agent was there within {THERE:?}"))?
            .context("the relay ended")
    }
}

struct Service {
    plane: WorkerLinkServiceClient<Channel>,
    beats: mpsc::Sender<Instant>,
}

#[tonic::async_trait]
impl WorkerLinkService for Service {
    type ConnectStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (metadata, _, mut from_agent) = request.into_parts();
        let (to_plane, frames) = mpsc::channel(FRAMES);
        let beats = self.beats.clone();
        // Ends with either side's stream.
        tokio::spawn(async move {
            let mut first = true;
            while let Some(Ok(request)) = from_agent.next().await {
                if let Some(Out::Heartbeat(_)) = &request.frame
                    && std::mem::take(&mut first)
                {
                    let _ = beats.send(Instant::now()).await;
                }
                if to_plane.send(request).await.is_err() {
                    return;
                }
            }
        });
        let mut onward = Request::new(ReceiverStream::new(frames));
        if let Some(token) = metadata.get("authorization") {
            onward
                .metadata_mut()
                .insert("authorization", token.to_owned());
        }
        let from_plane = self.plane.clone().connect(onward).await?.into_inner();
        Ok(Response::new(Box::pin(from_plane.map(|response| {
            let mut response = response?;
            if let Some(In::Welcome(welcome)) = &mut response.frame
                && let Some(assignment) = &mut welcome.assignment
            {
                assignment.work = Some(Work::Wait(WaitWork {
                    reason: "it is measured".to_owned(),
                }));
            }
            Ok(response)
        }))))
    }
}
