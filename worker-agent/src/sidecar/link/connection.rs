//! The task behind a link: dials, says hello, and moves frames both ways until the attempt is over.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use mainloop_proto::v1::{
    Assignment, Command, CommandDone, ConnectRequest, ConnectResponse, Heartbeat, Hello, LogChunk,
    Spend, StopWork, Welcome, assignment::Work, connect_request::Frame as Out,
    connect_response::Frame as In, worker_link_service_client::WorkerLinkServiceClient,
};
use secrecy::ExposeSecret;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Endpoint, Uri},
};
use tower::service_fn;

use super::{LogLine, Options, Spool};

/// Frames that wait for the transport; more make the link wait, which makes log chunks drop.
const OUTGOING: usize = 64;
/// Pauses between two tries to reach the plane: short at first, since a restart takes a second.
const PAUSES: [u64; 5] = [50, 100, 250, 500, 1000];
/// A stream that lasted so long begins the pauses anew.
const HELD: Duration = Duration::from_secs(5);
/// How long the plane may take to answer a hello.
const WELCOME: Duration = Duration::from_secs(15);

pub(super) struct Connection {
    pub(super) options: Options,
    pub(super) spool: Arc<Spool>,
    pub(super) logs: mpsc::Receiver<LogLine>,
    pub(super) spend: watch::Receiver<Spend>,
    pub(super) done: mpsc::UnboundedReceiver<String>,
    pub(super) assignment: watch::Sender<Assignment>,
    pub(super) may_write: watch::Sender<bool>,
    pub(super) idle: watch::Receiver<Instant>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Who waits for the first welcome.
    pub(super) first: Option<oneshot::Sender<Result<Welcome, String>>>,
    pub(super) seen_commands: HashSet<String>,
    pub(super) epoch: i64,
    pub(super) credit: i32,
    pub(super) dropped: i64,
    /// When the plane was heard of last.
    pub(super) heard: Instant,
    /// How long a word of the plane counts.
    pub(super) trust: Duration,
}

/// How a stream ended.
enum End {
    /// Try again.
    Lost(Status),
    /// The attempt is over.
    Over(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => {
                Self::Over(status.message().to_owned())
            }
            _ => Self::Lost(status),
        }
    }
}

impl Connection {
    pub(super) async fn run(mut self) {
        let mut tries = 0;
        loop {
            let began = Instant::now();
            match self.connect().await {
                End::Over(why) => {
                    self.over(why);
                    return;
                }
                End::Lost(status) => {
                    // Only a stream that held counts as a sign that all is well again.
                    if began.elapsed() > HELD {
                        tries = 0;
                    }
                    tracing::debug!(%status, "link lost");
                }
            }
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            tries += 1;
            self.wait(Duration::from_millis(pause)).await;
        }
    }

    /// Waits, and withdraws the leave to write when its time is over.
    async fn wait(&mut self, pause: Duration) {
        tokio::time::sleep(pause).await;
        self.doubt();
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.may_write
            .send_if_modified(|may| !std::mem::replace(may, true));
    }

    /// Withdraws the leave to write when the plane was not heard of for too long.
    fn doubt(&self) {
        if self.heard.elapsed() > self.trust {
            self.may_write
                .send_if_modified(|may| std::mem::replace(may, false));
        }
    }

    fn assign(&self, assignment: Assignment) {
        self.assignment.send_if_modified(|known| {
            let new = known.phase_version != assignment.phase_version;
            *known = assignment;
            new
        });
    }

    fn over(&mut self, why: String) {
        self.may_write.send_replace(false);
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(why));
        } else {
            self.assignment.send_replace(Assignment {
                phase_version: i64::MAX,
                deadline: None,
                work: Some(Work::Stop(StopWork { reason: why })),
            });
        }
    }

    async fn connect(&mut self) -> End {
        match self.serve().await {
            Ok(()) => End::Lost(Status::unavailable("the plane asked to reconnect")),
            Err(end) => end,
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        let socket = self.options.socket.clone();
        let channel = Endpoint::from_static("http://plane.invalid")
            .connect_with_connector(service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|error| End::Lost(Status::unavailable(error.to_string())))?;
        let (outgoing, frames) = mpsc::channel(OUTGOING);
        let hello = Hello {
            attempt_id: self.options.attempt_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            acked_milestone: self.spool.acknowledged(),
            link_epoch: self.epoch + 1,
            host_id: self.options.host_id.clone(),
        };
        send(&outgoing, Out::Hello(hello)).await?;
        let mut request = Request::new(ReceiverStream::new(frames));
        let bearer = format!("Bearer {}", self.options.token.expose_secret());
        let mut value: tonic::metadata::MetadataValue<_> = bearer
            .parse()
            .map_err(|_| End::Over("the attempt's token is not one".to_owned()))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        let mut incoming = WorkerLinkServiceClient::new(channel)
            .connect(request)
            .await?
            .into_inner();
        let welcome = match tokio::time::timeout(WELCOME, incoming.next()).await {
            Ok(Some(Ok(ConnectResponse {
                frame: Some(In::Welcome(welcome)),
            }))) => welcome,
            Ok(Some(Ok(ConnectResponse {
                frame:
                    Some(In::Assignment(Assignment {
                        work: Some(Work::Stop(stop)),
                        ..
                    })),
            }))) => return Err(End::Over(stop.reason)),
            Ok(Some(Err(status))) => return Err(status.into()),
            Ok(_) => return Err(End::Lost(Status::internal("no welcome came first"))),
            Err(_) => return Err(End::Lost(Status::deadline_exceeded("no welcome came"))),
        };
        self.epoch += 1;
        self.credit = welcome.log_credit;
        self.spool.acknowledge(welcome.acked_milestone);
        let heartbeat = seconds(welcome.heartbeat_seconds, 3);
        self.trust = seconds(welcome.lease_seconds, 20) / 2;
        self.heard();
        if let Some(assignment) = welcome.assignment.clone() {
            self.assign(assignment);
        }
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(welcome));
        }
        self.move_frames(incoming, outgoing, heartbeat).await
    }

    async fn move_frames(
        &mut self,
        mut incoming: Streaming<ConnectResponse>,
        outgoing: mpsc::Sender<ConnectRequest>,
        heartbeat: Duration,
    ) -> Result<(), End> {
        let mut sent = self.spool.acknowledged();
        let mut heartbeat = interval(heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let spool = Arc::clone(&self.spool);
        // What was told on another stream is told again: the plane keeps the newest.
        let told = *self.spend.borrow_and_update();
        if told != Spend::default() {
            send(&outgoing, Out::Spend(told)).await?;
        }
        loop {
            for milestone in self.spool.after(sent) {
                sent = milestone.seq;
                send(&outgoing, Out::Milestone(milestone)).await?;
            }
            tokio::select! {
                frame = incoming.next() => {
                    let frame = frame.ok_or_else(|| End::Lost(Status::unavailable("the stream ended")))??;
                    if !self.take(frame)? {
                        return Ok(());
                    }
                }
                () = spool.grew() => {}
                _ = heartbeat.tick() => {
                    let idle = self.idle.borrow().elapsed().as_secs();
                    let idle_seconds = i32::try_from(idle).unwrap_or(i32::MAX);
                    send(&outgoing, Out::Heartbeat(Heartbeat { idle_seconds })).await?;
                    self.doubt();
                }
                Some(line) = self.logs.recv() => {
                    self.dropped += i64::try_from(self.spool.take_dropped()).unwrap_or(i64::MAX);
                    if self.credit > 0 {
                        self.credit -= 1;
                        let chunk = LogChunk {
                            source: line.source.into(),
                            text: line.text,
                            time: Some(line.time),
                            dropped: std::mem::take(&mut self.dropped),
                        };
                        send(&outgoing, Out::Log(chunk)).await?;
                    } else {
                        self.dropped += 1;
                    }
                }
                Ok(()) = self.spend.changed() => {
                    let spend = *self.spend.borrow_and_update();
                    send(&outgoing, Out::Spend(spend)).await?;
                }
                Some(id) = self.done.recv() => {
                    send(&outgoing, Out::CommandDone(CommandDone { id })).await?;
                }
            }
        }
    }

    /// Takes a frame of the plane. False when the stream is to be made anew.
    fn take(&mut self, frame: ConnectResponse) -> Result<bool, End> {
        match frame.frame {
            Some(In::HeartbeatAck(_)) => self.heard(),
            Some(In::MilestoneAck(ack)) => self.spool.acknowledge(ack.seq),
            Some(In::Assignment(assignment)) => {
                if let Some(Work::Stop(stop)) = assignment.work {
                    return Err(End::Over(stop.reason));
                }
                self.assign(assignment);
            }
            Some(In::Command(command)) => {
                if self.seen_commands.insert(command.id.clone())
                    && let Err(error) = self.commands.try_send(command)
                {
                    // The plane sends it again after a reconnect.
                    let command = error.into_inner();
                    self.seen_commands.remove(&command.id);
                    return Ok(false);
                }
            }
            Some(In::LogCredit(credit)) => self.credit = self.credit.saturating_add(credit.chunks),
            Some(In::GoAway(_)) => return Ok(false),
            // A second welcome and frames of a newer version are none of ours.
            Some(In::Welcome(_)) | None => {}
        }
        Ok(true)
    }
}

async fn send(outgoing: &mpsc::Sender<ConnectRequest>, frame: Out) -> Result<(), End> {
    outgoing
        .send(ConnectRequest { frame: Some(frame) })
        .await
        .map_err(|_| End::Lost(Status::unavailable("the stream ended")))
}

fn seconds(told: i32, default: u64) -> Duration {
    let told = u64::try_from(told).unwrap_or(0);
    Duration::from_secs(if told == 0 { default } else { told })
}
