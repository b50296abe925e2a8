//! The agent that the bench plays: the plane's launcher starts this very program as `mainloop-worker-agent sidecar FILE`.
//!
//! The process hands what it was given, the attempt's token too, to the bench over a Unix socket, and stays until it is
//! ended, so that the launcher has a worker. The socket is in a folder that only the bench's user may enter.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::UnixListener,
};

/// How long a worker may take to be started.
const START: Duration = Duration::from_mins(1);

/// What the launcher gave a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Given {
    /// The launcher's file.
    pub(super) config: PathBuf,
    /// The attempt's token.
    pub(super) token: String,
}

/// A process that the launcher started, as the bench knows it.
#[derive(Debug)]
pub(super) struct Played {
    /// When its first word came.
    pub(super) at: Instant,
    /// What it was given.
    pub(super) given: Given,
    // Held, so that the process knows the bench is there.
    _stream: BufReader<tokio::net::UnixStream>,
}

/// Where the processes of a plane report, in the folder above its data.
fn socket(folder: &Path) -> PathBuf {
    folder.join("played.sock")
}

/// Receives the processes of one plane.
#[derive(Debug)]
pub(super) struct Stage {
    listener: UnixListener,
}

impl Stage {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let path = socket(folder);
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self { listener })
    }

    /// The next process.
    pub(super) async fn next(&self) -> Result<Played> {
        let accepted = tokio::time::timeout(START, self.listener.accept()).await;
        let (stream, _) = accepted
            .with_context(|| format!("no worker was started within {START:?}"))?
            .context("accept a worker")?;
        let at = Instant::now();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream
            .read_line(&mut line)
            .await
            .context("read what a worker was given")?;
        let given = serde_json::from_str(&line).context("understand what a worker was given")?;
        Ok(Played {
            at,
            given,
            _stream: stream,
        })
    }
}

/// Plays the agent if this process was started as one. None where it was not.
pub fn play(mut arguments: impl Iterator<Item = OsString>) -> Option<Result<()>> {
    (arguments.next()? == "sidecar").then(|| {
        let config = arguments.next().context("no configuration was named")?;
        report(Path::new(&config))
    })
}

fn report(config: &Path) -> Result<()> {
    // <folder>/data/workers/<attempt>/worker.json
    let folder = config
        .ancestors()
        .nth(4)
        .with_context(|| format!("{} is not in a worker's folder", config.display()))?;
    let mut stream = UnixStream::connect(socket(folder)).context("find the bench")?;
    let mut token = String::new();
    std::io::stdin()
        .read_to_string(&mut token)
        .context("read the token")?;
    let given = Given {
        config: config.to_owned(),
        token,
    };
    let line = serde_json::to_string(&given).context("write what was given")? + "\n";
    stream
        .write_all(line.as_bytes())
        .context("report to the bench")?;
    // Returns when the bench is gone; until then the launcher ends this process.
    let _ = stream.read(&mut [0]);
    Ok(())
}
