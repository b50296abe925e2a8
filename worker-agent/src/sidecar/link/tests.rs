//! The line against a plane that the test plays.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mainloop_proto::v1::{
    Assignment, Command, ConnectRequest, ConnectResponse, Credentials, SayCommand, Welcome,
    command::What,
    connect_request::Frame as In,
    connect_response::Frame as Out,
    worker_link_service_server::{WorkerLinkService, WorkerLinkServiceServer},
};
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Link, Opened, Options};

/// How long anything may take before a test says what it waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// One stream, as the plane sees it.
struct Stream {
    from: Streaming<ConnectRequest>,
    to: mpsc::Sender<Result<ConnectResponse, Status>>,
}

impl Stream {
    async fn send(&self, frame: Out) {
        let frame = ConnectResponse { frame: Some(frame) };
        self.to.send(Ok(frame)).await.unwrap();
    }

    async fn welcome(&self, github_token: &str, lease_seconds: i32) {
        self.send(Out::Welcome(Welcome {
            lease_seconds,
            credentials: Some(Credentials {
                github_token: github_token.to_owned(),
                ..Credentials::default()
            }),
            ..Welcome::default()
        }))
        .await;
    }

    async fn command(&self, id: &str) {
        self.send(Out::Command(Command {
            id: id.to_owned(),
            what: Some(What::Say(SayCommand {
                text: id.to_owned(),
            })),
        }))
        .await;
    }

    /// The id of the next command that was applied.
    async fn done(&mut self) -> String {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.from.message());
            let frame = next.await.expect("no command was told to be applied");
            if let Some(In::CommandDone(done)) = frame.unwrap().unwrap().frame {
                return done.id;
            }
        }
    }
}

/// Hands every stream to the test. The call is not answered before the test takes it.
struct Plane(mpsc::Sender<(Stream, oneshot::Sender<()>)>);

#[tonic::async_trait]
impl WorkerLinkService for Plane {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (to, answers) = mpsc::channel(8);
        let from = request.into_inner();
        let (take, taken) = oneshot::channel();
        let _ = self.0.send((Stream { from, to }, take)).await;
        let _ = taken.await;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

struct World {
    streams: mpsc::Receiver<(Stream, oneshot::Sender<()>)>,
    options: Options,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("link.sock");
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let (give, streams) = mpsc::channel(1);
        tokio::spawn(
            Server::builder()
                .add_service(WorkerLinkServiceServer::new(Plane(give)))
                .serve_with_incoming(incoming),
        );
        Self {
            streams,
            options: Options {
                socket,
                attempt_id: "a".to_owned(),
                host_id: "h".to_owned(),
                token: "t".into(),
            },
            _dir: dir,
        }
    }

    async fn stream(&mut self) -> Stream {
        let next = tokio::time::timeout(PATIENCE, self.streams.recv());
        let (stream, take) = next.await.expect("nobody dialled").unwrap();
        take.send(()).unwrap();
        stream
    }

    /// A link that was welcomed.
    async fn opened(&mut self, lease_seconds: i32) -> (Opened, Stream) {
        let opening = tokio::spawn(Link::open(self.options.clone()));
        let stream = self.stream().await;
        stream.welcome("first", lease_seconds).await;
        (opening.await.unwrap().unwrap(), stream)
    }
}

#[tokio::test]
async fn an_applied_command_is_said_again_on_another_stream() {
    let mut world = World::new();
    let (mut opened, mut stream) = world.opened(60).await;
    stream.command("c").await;
    assert_eq!(opened.commands.recv().await.unwrap().id, "c");
    opened.link.done("c");
    assert_eq!(stream.done().await, "c");

    // The plane died before it stored that.
    drop(stream);
    let mut stream = world.stream().await;
    stream.welcome("first", 60).await;
    stream.command("c").await;
    assert_eq!(stream.done().await, "c");
    assert!(opened.commands.try_recv().is_err());
}

#[tokio::test]
async fn commands_wait_for_a_worker_that_takes_none() {
    let mut world = World::new();
    let (mut opened, stream) = world.opened(60).await;
    let ids: Vec<String> = (0..3 * super::COMMANDS).map(|n| n.to_string()).collect();
    for id in &ids {
        stream.command(id).await;
    }
    for id in &ids {
        let next = tokio::time::timeout(PATIENCE, opened.commands.recv());
        assert_eq!(next.await.expect("a command was lost").unwrap().id, *id);
    }
    // All came over the one stream.
    assert!(world.streams.try_recv().is_err());
}

#[tokio::test]
async fn commands_are_there_before_the_work_that_they_came_before() {
    for version in 1..=20 {
        let mut world = World::new();
        let (mut opened, stream) = world.opened(60).await;
        stream.command("c").await;
        stream
            .send(Out::Assignment(Assignment {
                phase_version: version,
                ..Assignment::default()
            }))
            .await;
        let mut assignment = opened.link.assignment();
        let assigned = assignment.wait_for(|now| now.phase_version == version);
        let assigned = tokio::time::timeout(PATIENCE, assigned).await;
        assigned.expect("nothing was assigned").unwrap();
        assert_eq!(opened.commands.try_recv().unwrap().id, "c");
    }
}

#[tokio::test]
async fn the_leave_to_write_ends_while_the_plane_takes_no_call() {
    let mut world = World::new();
    let (opened, stream) = world.opened(2).await;
    let mut may_write = opened.link.may_write();
    assert!(*may_write.borrow_and_update());
    drop(stream);
    let withdrawn = tokio::time::timeout(PATIENCE, may_write.wait_for(|may| !*may));
    withdrawn.await.expect("the leave to write stayed").unwrap();
}

#[tokio::test]
async fn the_newest_credentials_hold() {
    let mut world = World::new();
    let (opened, stream) = world.opened(60).await;
    let mut credentials = opened.link.credentials();
    assert_eq!(credentials.borrow_and_update().github_token, "first");
    for token in ["on the same stream", "on another"] {
        if token == "on the same stream" {
            stream.welcome(token, 60).await;
        } else {
            stream
                .send(Out::GoAway(mainloop_proto::v1::GoAway {}))
                .await;
            world.stream().await.welcome(token, 60).await;
        }
        let renewed = tokio::time::timeout(
            PATIENCE,
            credentials.wait_for(|known| known.github_token == token),
        );
        renewed.await.expect(token).unwrap();
    }
}
