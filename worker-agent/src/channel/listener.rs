//! The sidecar's end of the socket before there is a connection.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::client::{Harness, Notice};
use super::frame::{Frame, reader, writer};
use super::socket;
use super::{Hello, Report};

/// A listener that is good for one connection. Dropping it unlinks the socket.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// A connection that has said hello.
#[derive(Debug)]
pub struct Accepted {
    /// To give orders with.
    pub harness: Harness,
    /// What the harness says unasked.
    pub notices: mpsc::Receiver<Notice>,
    /// The harness's process id as the kernel of this side sees it.
    pub pid: Option<i32>,
}

/// Why no harness came.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The socket cannot be made.
    #[error("listen on the control socket {path}")]
    Bind { path: PathBuf, source: io::Error },
    /// The connection failed.
    #[error("accept the harness's connection")]
    Accept(#[source] io::Error),
    /// Somebody else connected.
    #[error("the control socket was connected to by uid {found}, the harness has uid {expected}")]
    Stranger { expected: u32, found: u32 },
    /// The first frame was not a hello.
    #[error("the harness did not say hello: {0}")]
    NoHello(String),
    /// The other half is another version.
    #[error("the harness is version {found}, the sidecar is version {ours}", ours = env!("CARGO_PKG_VERSION"))]
    Version { found: String },
}

impl Listener {
    /// Listens on a fresh socket at `path`, whose folder must let the harness through; its permissions are open,
    /// the folder's are what guards it.
    pub fn bind(path: &Path) -> Result<Self, AcceptError> {
        let failed = |source| AcceptError::Bind {
            path: path.to_owned(),
            source,
        };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let listener = socket::bind(path).map_err(failed)?;
        let this = Self {
            listener,
            path: path.to_owned(),
        };
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(this)
    }

    /// Waits for the one connection, which must come from `uid`, and for its hello; then the socket is gone.
    /// Has no time limit of its own, and is cancel-safe in that dropping it leaves no socket.
    pub async fn accept(self, uid: u32) -> Result<Accepted, AcceptError> {
        let (stream, _) = self.listener.accept().await.map_err(AcceptError::Accept)?;
        drop(self);
        let peer = stream.peer_cred().map_err(AcceptError::Accept)?;
        if peer.uid() != uid {
            return Err(AcceptError::Stranger {
                expected: uid,
                found: peer.uid(),
            });
        }
        let (read, write) = stream.into_split();
        let (mut frames, sink) = (reader(read), writer(write));
        let hello = match frames.next().await {
            Some(Ok(bytes)) => hello(&bytes)?,
            Some(Err(error)) => return Err(AcceptError::NoHello(error.to_string())),
            None => return Err(AcceptError::NoHello("it hung up".into())),
        };
        let (harness, notices) = Harness::start(hello, frames, sink);
        Ok(Accepted {
            harness,
            notices,
            pid: peer.pid(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Gone already where the folder was removed first.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn hello(bytes: &[u8]) -> Result<Hello, AcceptError> {
    match Frame::<Report>::decode(bytes) {
        Ok(Frame::Message(Report::Hello(hello))) if hello.version == env!("CARGO_PKG_VERSION") => {
            Ok(hello)
        }
        Ok(Frame::Message(Report::Hello(hello))) => Err(AcceptError::Version {
            found: hello.version,
        }),
        Ok(_) => Err(AcceptError::NoHello("another frame came first".into())),
        Err(error) => Err(AcceptError::NoHello(error.to_string())),
    }
}
