//! The sandbox's way out: a loopback port whose bytes go to the proxies' Unix socket and back.
//!
//! git, Claude Code and HTTP clients speak TCP only. Nothing is read or changed here; what may pass is decided on the
//! other side of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader, copy_buf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::channel::socket;

/// Connections at a time. A build that downloads opens dozens; the proxies have a bound of their own. Further ones
/// wait in the listener's backlog.
const CONNECTIONS: usize = 128;
/// Bytes buffered each way of a connection: memory for all of them stays within 4 MiB.
const BUFFER: usize = 16 * 1024;
/// How long a client may go on sending after the proxies have hung up.
const LINGER: Duration = Duration::from_secs(5);

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
                    tokio::time::sleep(Duration::from_millis(100)).await;
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

/// Carries bytes both ways until both sides have said all, or the proxies have and the client keeps silent: a client
/// that neither speaks nor goes keeps no place.
async fn pass(mut client: TcpStream, proxy: &Path) -> io::Result<()> {
    // Model streams come in small pieces that should not wait for each other.
    client.set_nodelay(true)?;
    let mut upstream = socket::connect(proxy).await?;
    let (from_client, mut to_client) = client.split();
    let (from_proxy, mut to_proxy) = upstream.split();
    let mut up = pin!(async {
        copy_buf(
            &mut BufReader::with_capacity(BUFFER, from_client),
            &mut to_proxy,
        )
        .await?;
        to_proxy.shutdown().await
    });
    let mut down = pin!(async {
        copy_buf(
            &mut BufReader::with_capacity(BUFFER, from_proxy),
            &mut to_client,
        )
        .await?;
        to_client.shutdown().await
    });
    tokio::select! {
        sent = &mut up => {
            sent?;
            down.await
        }
        told = &mut down => {
            told?;
            timeout(LINGER, up).await.unwrap_or(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io, time::Duration};

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixListener};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::{CONNECTIONS, Forward};

    const PATIENCE: Duration = Duration::from_mins(1);

    /// A proxy in a folder, and who forwards to it from a port.
    async fn forwarding() -> (TempDir, UnixListener, u16, JoinHandle<io::Result<()>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let proxy = UnixListener::bind(&path).unwrap();
        let forward = Forward::bind(0, &path).await.unwrap();
        let port = forward.port().unwrap();
        (folder, proxy, port, tokio::spawn(forward.run()))
    }

    /// A proxy that hangs up on everybody without a word, and a client that says `GET` and stays.
    #[tokio::test]
    async fn those_that_were_hung_up_on_make_room_though_they_stay() {
        let (_folder, proxy, port, running) = forwarding().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(b"GET").await.unwrap();
            silent.push(client);
            let (mut served, _) = proxy.accept().await.unwrap();
            // What was not read would be told to the other side as an error.
            served.read_exact(&mut [0; 3]).await.unwrap();
        }
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"one more").await.unwrap();
        let (mut served, _) = timeout(PATIENCE, proxy.accept())
            .await
            .expect("there is room again")
            .unwrap();
        let mut said = [0; 8];
        served.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"one more");
        running.abort();
    }

    /// What is left of an exchange goes on in the other direction.
    #[tokio::test]
    async fn a_side_that_has_said_all_still_hears_the_other() {
        let (_folder, proxy, port, running) = forwarding().await;
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"ask").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut served, _) = proxy.accept().await.unwrap();
        let mut heard = Vec::new();
        served.read_to_end(&mut heard).await.unwrap();
        served.write_all(b"answer").await.unwrap();
        drop(served);
        let mut told = Vec::new();
        timeout(PATIENCE, client.read_to_end(&mut told))
            .await
            .expect("the answer comes")
            .unwrap();
        assert_eq!((heard, told), (b"ask".to_vec(), b"answer".to_vec()));
        running.abort();
    }
}
