//! The task behind a link: dials, says hello, and moves frames both ways until the attempt is over.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::future::ready;
use hyper_util::rt::TokioIo;
use mainloop_proto::v1::{
    Assignment, Command, CommandDone, ConnectRequest, ConnectResponse, Credentials, Heartbeat,
    Hello, LogChunk, Spend, StopWork, Welcome, assignment::Work, connect_request::Frame as Out,
    connect_response::Frame as In, worker_link_service_client::WorkerLinkServiceClient,
};
use secrecy::ExposeSecret;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
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
/// How often a link that cannot be made is spoken of.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// A stream that lasted so long begins the pauses anew.
const HELD: Duration = Duration::from_secs(5);
/// How long the plane may take to take a connection and to answer its hello.
const WELCOME: Duration = Duration::from_secs(15);

pub(super) struct Connection {
    pub(super) options: Options,
    pub(super) spool: Arc<Spool>,
    pub(super) logs: mpsc::Receiver<LogLine>,
    pub(super) spend: watch::Receiver<Spend>,
    pub(super) done: mpsc::UnboundedReceiver<String>,
    pub(super) assignment: watch::Sender<Assignment>,
    pub(super) may_write: watch::Sender<bool>,
    pub(super) credentials: watch::Sender<Credentials>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Those that the worker has no room for.
    pub(super) waiting_commands: VecDeque<Command>,
    /// Who waits for the first welcome.
    pub(super) first: Option<oneshot::Sender<Result<Welcome, String>>>,
    pub(super) seen_commands: HashSet<String>,
    /// Those that the worker has applied.
    pub(super) done_commands: HashSet<String>,
    /// Applied ones that the plane sent again, so that it has not heard of it.
    pub(super) done_again: VecDeque<String>,
    pub(super) epoch: i64,
    pub(super) credit: i32,
    pub(super) dropped: i64,
    /// When the plane was heard of last.
    pub(super) heard: Instant,
    /// How long a word of the plane counts.
    pub(super) trust: Duration,
}

type Incoming = Streaming<ConnectResponse>;
type Outgoing = mpsc::Sender<ConnectRequest>;

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
        let mut told: Option<Instant> = None;
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
                    if told.is_none_or(|told| told.elapsed() > SAY_EVERY) {
                        told = Some(Instant::now());
                        tracing::warn!(%status, "no link to the plane; trying again");
                    }
                }
            }
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            tries += 1;
            self.doubting(tokio::time::sleep(Duration::from_millis(pause)))
                .await;
        }
    }

    /// Does something that may take long, and withdraws the leave to write meanwhile when its time is over.
    async fn doubting<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = sleep_until(self.trusted_until()) => self.doubt(),
        }
        work.await
    }

    fn trusted_until(&self) -> Instant {
        self.heard + self.trust
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.may_write
            .send_if_modified(|may| !std::mem::replace(may, true));
    }

    /// Withdraws the leave to write: the plane was not heard of for too long.
    fn doubt(&self) {
        self.may_write
            .send_if_modified(|may| std::mem::replace(may, false));
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
        let hello = tokio::time::timeout(WELCOME, self.hello());
        let late = || End::Lost(Status::deadline_exceeded("no welcome came"));
        let (welcome, incoming, outgoing) =
            self.doubting(hello).await.unwrap_or_else(|_| Err(late()))?;
        self.epoch += 1;
        self.credit = welcome.log_credit;
        self.spool.acknowledge(welcome.acked_milestone);
        let heartbeat = seconds(welcome.heartbeat_seconds, 3);
        self.trust = seconds(welcome.lease_seconds, 20) / 2;
        self.heard();
        if let Some(assignment) = welcome.assignment.clone() {
            self.assign(assignment);
        }
        self.renew(&welcome);
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(welcome));
        }
        self.move_frames(incoming, outgoing, heartbeat).await
    }

    fn renew(&self, welcome: &Welcome) {
        if let Some(new) = &welcome.credentials {
            self.credentials.send_if_modified(|known| {
                let changed = known != new;
                known.clone_from(new);
                changed
            });
        }
    }

    /// Dials and says hello. The plane's welcome, and both ways.
    async fn hello(&self) -> Result<(Welcome, Incoming, Outgoing), End> {
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
        // The first of a channel that has room.
        let _ = outgoing.try_send(frame(Out::Hello(hello)));
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
        match incoming.next().await {
            Some(Ok(ConnectResponse {
                frame: Some(In::Welcome(welcome)),
            })) => Ok((welcome, incoming, outgoing)),
            Some(Ok(ConnectResponse {
                frame:
                    Some(In::Assignment(Assignment {
                        work: Some(Work::Stop(stop)),
                        ..
                    })),
            })) => Err(End::Over(stop.reason)),
            Some(Err(status)) => Err(status.into()),
            _ => Err(End::Lost(Status::internal("no welcome came first"))),
        }
    }

    /// Moves frames both ways. It goes on reading while there is no room for what it has to say: a plane that waits for
    /// this side to read would never make any.
    async fn move_frames(
        &mut self,
        mut incoming: Incoming,
        outgoing: Outgoing,
        heartbeat: Duration,
    ) -> Result<(), End> {
        let mut sent = self.spool.acknowledged();
        let mut heartbeat = interval(heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let spool = Arc::clone(&self.spool);
        let commands = self.commands.clone();
        // What was told on another stream is told again: the plane keeps the newest.
        if *self.spend.borrow() != Spend::default() {
            self.spend.mark_changed();
        }
        let mut room = None;
        loop {
            // A result ends what the plane reads, so what the work has cost goes before it.
            let unsent = if self.spend.has_changed().unwrap_or(false) {
                None
            } else {
                spool.after(sent)
            };
            let (has_room, is_sent) = (room.is_some(), unsent.is_none());
            let say = tokio::select! {
                frame = incoming.next() => {
                    let frame = frame.ok_or_else(|| End::Lost(Status::unavailable("the stream ended")))??;
                    if !self.take(frame)? {
                        return Ok(());
                    }
                    continue;
                }
                () = sleep_until(self.trusted_until()), if *self.may_write.borrow() => {
                    self.doubt();
                    continue;
                }
                Ok(permit) = commands.reserve(), if !self.waiting_commands.is_empty() => {
                    if let Some(command) = self.waiting_commands.pop_front() {
                        permit.send(command);
                    }
                    continue;
                }
                permit = outgoing.reserve(), if !has_room => {
                    room = Some(permit.map_err(|_| End::Lost(Status::unavailable("the stream ended")))?);
                    continue;
                }
                () = spool.grew(), if is_sent => continue,
                Some(milestone) = ready(unsent), if has_room && !is_sent => {
                    sent = milestone.seq;
                    Out::Milestone(milestone)
                }
                Some(id) = ready(self.done_again.front().cloned()), if has_room && !self.done_again.is_empty() => {
                    self.done_again.pop_front();
                    Out::CommandDone(CommandDone { id })
                }
                Some(id) = self.done.recv(), if has_room => {
                    self.done_commands.insert(id.clone());
                    Out::CommandDone(CommandDone { id })
                }
                _ = heartbeat.tick(), if has_room => Out::Heartbeat(Heartbeat {}),
                Ok(()) = self.spend.changed(), if has_room => {
                    Out::Spend(*self.spend.borrow_and_update())
                }
                Some(line) = self.logs.recv(), if has_room => match self.chunk(line) {
                    Some(chunk) => Out::Log(chunk),
                    None => continue,
                },
            };
            if let Some(permit) = room.take() {
                let permit: mpsc::Permit<'_, ConnectRequest> = permit;
                permit.send(frame(say));
            }
        }
    }

    /// A line as it is sent, or nothing where there is no credit.
    fn chunk(&mut self, line: LogLine) -> Option<LogChunk> {
        self.dropped += i64::try_from(self.spool.take_dropped()).unwrap_or(i64::MAX);
        if self.credit <= 0 {
            self.dropped += 1;
            return None;
        }
        self.credit -= 1;
        Some(LogChunk {
            source: line.source.into(),
            text: line.text,
            time: Some(line.time),
            dropped: std::mem::take(&mut self.dropped),
        })
    }

    /// Gives the worker the commands that it has room for: what came before an assignment is there before it.
    fn hand_commands_over(&mut self) {
        while let Some(command) = self.waiting_commands.pop_front() {
            if let Err(refused) = self.commands.try_send(command) {
                self.waiting_commands.push_front(refused.into_inner());
                return;
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
                self.hand_commands_over();
                self.assign(assignment);
            }
            Some(In::Command(command)) => {
                if self.seen_commands.insert(command.id.clone()) {
                    self.waiting_commands.push_back(command);
                } else if self.done_commands.contains(&command.id) {
                    // What said so was lost with its stream.
                    self.done_again.push_back(command.id);
                }
            }
            Some(In::LogCredit(credit)) => self.credit = self.credit.saturating_add(credit.chunks),
            Some(In::GoAway(_)) => return Ok(false),
            Some(In::Welcome(welcome)) => self.renew(&welcome),
            // Of a newer version.
            None => {}
        }
        Ok(true)
    }
}

fn frame(out: Out) -> ConnectRequest {
    ConnectRequest { frame: Some(out) }
}

fn seconds(told: i32, default: u64) -> Duration {
    let told = u64::try_from(told).unwrap_or(0);
    Duration::from_secs(if told == 0 { default } else { told })
}
