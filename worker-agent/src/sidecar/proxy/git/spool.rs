//! A push that is held until it was looked at: on disk, in a file without a name, and one at a time. Its turn ends when
//! the last work on it has, whether or not its client still waits.

use std::collections::VecDeque;
use std::io::{self, BufReader, Seek as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::pack::{self, Pack};
use crate::sidecar::proxy::body::BodyError;

/// Largest push that is looked at. GitHub itself takes 2 GiB, and files of 100 MB.
const PUSH: u64 = 1 << 30;
/// Bytes that are sent on at once.
const PIECE: usize = 64 * 1024;

/// The turn of one push. Who works on it for longer than its client may wait has a clone.
pub(super) type Turn = Arc<OwnedSemaphorePermit>;

/// Does something on a thread of its own, in the turn of a push.
pub(super) async fn apart<T: Send + 'static>(
    turn: &Turn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let turn = Arc::clone(turn);
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await.map_err(|_| Error::Panicked)
}

/// Why a push cannot be held.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("a push of more than {} MiB cannot be checked", PUSH >> 20)]
    TooLarge,
    #[error("the push was cut")]
    Cut,
    #[error("pushes were closed meanwhile")]
    Closed,
    #[error("the push could not be kept for a check: {0}")]
    Disk(#[from] io::Error),
    #[error("the push could not be checked")]
    Panicked,
}

/// A push that came whole.
pub(super) struct Spool {
    /// The section of commands.
    head: Bytes,
    file: File,
    length: u64,
    turn: Turn,
}

impl Spool {
    /// Takes a push to its end: `head` and `read` came already, `rest` has not.
    pub(super) async fn take(
        dir: &Path,
        turn: Turn,
        head: Bytes,
        read: VecDeque<Bytes>,
        rest: &mut Incoming,
        leave: &CancellationToken,
    ) -> Result<Self, Error> {
        let path = dir.join("push");
        let _ = tokio::fs::remove_file(&path).await;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await?;
        tokio::fs::remove_file(&path).await?;
        let mut length = 0;
        for piece in read {
            length += piece.len() as u64;
            file.write_all(&piece).await?;
        }
        loop {
            let frame = tokio::select! {
                () = leave.cancelled() => return Err(Error::Closed),
                frame = rest.frame() => frame,
            };
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| Error::Cut)?.into_data() else {
                continue;
            };
            length += data.len() as u64;
            if length > PUSH {
                return Err(Error::TooLarge);
            }
            file.write_all(&data).await?;
        }
        file.flush().await?;
        Ok(Self {
            head,
            file,
            length,
            turn,
        })
    }

    /// Reads its pack, for as long as somebody waits for it.
    pub(super) async fn pack(&self) -> Result<Result<Pack, pack::Error>, Error> {
        let mut file = self.file.try_clone().await?.into_std().await;
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        apart(&self.turn, move || {
            file.rewind()?;
            Pack::read(BufReader::with_capacity(PIECE, file), &stop)
        })
        .await
    }

    /// As a body. It fails when the leave to push ends before its end.
    pub(super) async fn body(self, leave: CancellationToken) -> Result<Spooled, Error> {
        let mut file = self.file.into_std().await;
        file.rewind()?;
        Ok(Spooled {
            head: Some(self.head),
            file: File::from_std(file),
            left: self.length,
            closed: Box::pin(leave.cancelled_owned()),
            _turn: self.turn,
        })
    }
}

/// A held push on its way.
pub(super) struct Spooled {
    head: Option<Bytes>,
    file: File,
    left: u64,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _turn: Turn,
}

impl hyper::body::Body for Spooled {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Error::Closed.into())));
        }
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut space = vec![0; PIECE];
        let mut buffer = ReadBuf::new(&mut space);
        match ready!(Pin::new(&mut self.file).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => {
                Poll::Ready(Some(Err("a held push became shorter".into())))
            }
            Ok(()) => {
                let count = buffer.filled().len();
                space.truncate(count);
                self.left = self.left.saturating_sub(count as u64);
                Poll::Ready(Some(Ok(Frame::data(space.into()))))
            }
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_none() && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        let head = self.head.as_ref().map_or(0, Bytes::len) as u64;
        SizeHint::with_exact(head + self.left)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_the_work_and_not_as_its_client() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::new(Arc::clone(&turns).acquire_owned().await.unwrap());
        let (release, held) = mpsc::channel::<()>();
        let work = apart(&turn, move || held.recv().is_ok());
        assert!(work.now_or_never().is_none());
        drop(turn);
        // Its client is gone, and the work goes on.
        assert_eq!(turns.available_permits(), 0);
        release.send(()).unwrap();
        drop(turns.acquire().await.unwrap());
    }
}
