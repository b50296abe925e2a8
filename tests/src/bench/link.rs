//! The link as an agent that the bench plays uses it.

use std::path::Path;

use anyhow::{Context, Result};
use mainloop_proto::v1::{
    ConnectRequest, ConnectResponse, Hello, Milestone, Welcome, connect_request::Frame as Out,
    connect_response::Frame as In, milestone::Fact,
    worker_link_service_client::WorkerLinkServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::played::Given;

/// Frames on their way; the plane reads all the time.
const FRAMES: usize = 64;

/// A client of the link service behind a socket.
pub(super) async fn client(socket: &Path) -> Result<WorkerLinkServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))
        .with_context(|| format!("understand the socket's path {}", socket.display()))?;
    let channel = endpoint
        .connect()
        .await
        .with_context(|| format!("connect to {}", socket.display()))?;
    Ok(WorkerLinkServiceClient::new(channel))
}

/// An open link.
pub(super) struct Link {
    outgoing: mpsc::Sender<ConnectRequest>,
    incoming: Streaming<ConnectResponse>,
    phase_version: i64,
    seq: i64,
}

impl Link {
    /// Connects as the process that was given this.
    pub(super) async fn open(socket: &Path, given: &Given) -> Result<Self> {
        let config = std::fs::read(&given.config).context("read the launcher's file")?;
        let config: serde_json::Value =
            serde_json::from_slice(&config).context("understand the launcher's file")?;
        let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
        let (outgoing, frames) = mpsc::channel(FRAMES);
        let hello = Hello {
            attempt_id: text("attempt_id"),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            acked_milestone: 0,
            link_epoch: 1,
            host_id: text("host_id"),
        };
        send(&outgoing, Out::Hello(hello)).await?;
        let mut request = Request::new(ReceiverStream::new(frames));
        let bearer: MetadataValue<_> = format!("Bearer {}", given.token.trim())
            .parse()
            .context("send the attempt's token")?;
        request.metadata_mut().insert("authorization", bearer);
        let mut incoming = client(socket)
            .await?
            .connect(request)
            .await
            .context("open the link")?
            .into_inner();
        let Welcome { assignment, .. } = loop {
            let frame = incoming
                .message()
                .await
                .context("read the plane's answer")?;
            let frame = frame.context("the plane ended the link")?;
            if let Some(In::Welcome(welcome)) = frame.frame {
                break welcome;
            }
        };
        let assignment = assignment.context("the welcome has no assignment")?;
        Ok(Self {
            outgoing,
            incoming,
            phase_version: assignment.phase_version,
            seq: 0,
        })
    }

    /// Reports a fact of the present step.
    pub(super) async fn report(&mut self, fact: Fact) -> Result<()> {
        self.seq += 1;
        let milestone = Milestone {
            seq: self.seq,
            phase_version: self.phase_version,
            time: None,
            fact: Some(fact),
        };
        send(&self.outgoing, Out::Milestone(milestone)).await
    }

    /// Waits until all that was reported is durable.
    pub(super) async fn durable(&mut self) -> Result<()> {
        loop {
            let frame = self.incoming.message().await.context("read the link")?;
            let frame = frame.context("the plane ended the link")?;
            if let Some(In::MilestoneAck(ack)) = frame.frame
                && ack.seq >= self.seq
            {
                return Ok(());
            }
        }
    }
}

async fn send(outgoing: &mpsc::Sender<ConnectRequest>, frame: Out) -> Result<()> {
    outgoing
        .send(ConnectRequest { frame: Some(frame) })
        .await
        .ok()
        .context("the link ended")
}
