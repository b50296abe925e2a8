//! gRPC clients of one plane, over its Unix socket.

use std::path::Path;

use anyhow::{Context, Result};
use mainloop_proto::v1::{
    access_service_client::AccessServiceClient, inbox_service_client::InboxServiceClient,
    task_service_client::TaskServiceClient,
};
use tonic::transport::{Channel, Endpoint};

/// Connects when it is used, and again after the plane was away.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// A client of the plane that listens, or will listen, on `socket`.
    pub fn at(socket: &Path) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))
            .with_context(|| format!("understand the socket's path {}", socket.display()))?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
        })
    }

    /// Tasks.
    pub fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel.clone())
    }

    /// The inbox.
    pub fn inbox(&self) -> InboxServiceClient<Channel> {
        InboxServiceClient::new(self.channel.clone())
    }

    /// Tokens and the plane's state.
    pub fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel.clone())
    }
}
