//! The sandbox's way out: a loopback port whose bytes go to the proxies' Unix socket and back.
//!
//! git, Claude Code and HTTP clients speak TCP only. Nothing is read or changed here; what may pass is decided on the
//! other side of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::channel::socket;

/// Connections at a time. A build that downloads opens dozens; the proxies have a bound of their own. Further ones
/// wait in the listener's backlog.
const CONNECTIONS: usize = 128;
/// Bytes buffered each way of a connection: memory for all of them stays within 4 MiB.
const BUFFER: usize = 16 * 1024;

/// A listening forwarder.
pub(super) struct Forward {
    listener: TcpListener,
    proxy: PathBuf,
}

impl Forward {
    pub(super) async fn bind(port: u16, proxy: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(("127.0.0.1", port)).await?,
            proxy: proxy.to_owned(),
        })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Forwards until it is dropped.
    pub(super) async fn run(self) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let slot = Arc::clone(&slots)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for one to come back instead of spinning.
                    tracing::warn!(%error, "accepting a local connection failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let proxy = self.proxy.clone();
            connections.spawn(async move {
                if let Err(error) = pass(stream, &proxy).await {
                    tracing::debug!(%error, "a forwarded connection ended");
                }
                drop(slot);
            });
        }
    }
}

async fn pass(mut stream: TcpStream, proxy: &Path) -> io::Result<()> {
    // Model streams come in small pieces that should not wait for each other.
    stream.set_nodelay(true)?;
    let mut upstream = socket::connect(proxy).await?;
    copy_bidirectional_with_sizes(&mut stream, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}
