//! For the crate in `/fuzz` alone.

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_util::codec::Decoder as _;

use super::{Frame, Harness, Hello, MAX_FRAME, Order, Report, frame, reader, writer};

/// Bytes as the harness and as the sidecar would read them. What reads prints, and reads again as the same.
pub fn frames(bytes: &[u8]) {
    let mut codec = frame::codec();
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = codec.decode(&mut buffer) {
        assert!(frame.len() <= MAX_FRAME);
        comes_back::<Report>(&frame);
        comes_back::<Order>(&frame);
    }
}

fn comes_back<M: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(frame) = Frame::<M>::decode(bytes) {
        let printed = frame.encode().expect("what was read prints");
        let again = Frame::<M>::decode(&printed).expect("what was printed reads");
        assert_eq!(again.encode().expect("what was read prints"), printed);
    }
}

/// A harness that says hello and then these bytes: the sidecar's end closes, whatever they are.
pub async fn session(bytes: &[u8]) {
    let (mut theirs, ours) = UnixStream::pair().expect("a socket pair");
    let (read, write) = ours.into_split();
    let hello = Hello {
        version: String::new(),
        port: 1,
        repository: String::new(),
        home: String::new(),
        claude_config: String::new(),
    };
    let (harness, mut notices) = Harness::start(hello, reader(read), writer(write));
    // It hangs up at the first broken frame.
    let _ = theirs.write_all(bytes).await;
    drop(theirs);
    harness.closed().await;
    while notices.recv().await.is_some() {}
}
