#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use mainloop_github::AppKey;
use mainloop_proto::v1::{
    Credentials, Heartbeat, Hello, Welcome, worker_link_service_client::WorkerLinkServiceClient,
    worker_link_service_server::WorkerLinkServiceServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request,
    transport::{Endpoint, Server},
};

use super::*;
use crate::{
    code_host::Tokens,
    config::{CodeHost, CodeHostCredential},
    db::Store,
    dispatch::tests::{live, sql},
    ids,
    link::{Lease, Link, Offer},
    policy,
    rpc::access::Health,
    supervisor::{OnExit, Supervisor},
    testing,
};

/// A plane's link, and an attempt whose agent the test plays.
struct World {
    store: Store,
    lease: Arc<Lease>,
    replica: Uuid,
    task: Uuid,
    attempt: Uuid,
    address: SocketAddr,
    supervisor: Supervisor,
}

impl World {
    async fn new() -> Self {
        Self::with(None).await
    }

    /// One whose workers have tokens of a code host that gives none.
    async fn without_tokens() -> Self {
        let code_host = CodeHost {
            url: "http://127.0.0.1:1".parse().unwrap(),
            api: "http://127.0.0.1:1".parse().unwrap(),
            credential: Some(CodeHostCredential::App {
                id: "4711".to_owned(),
                key: AppKey::from_pem(&testing::app_key()).unwrap(),
            }),
        };
        Self::with(Tokens::new(&code_host)).await
    }

    async fn with(tokens: Option<Tokens>) -> Self {
        let store = testing::store().await;
        let replica = Uuid::now_v7();
        let lease = Arc::new(Lease::default());
        lease.renew(&store, replica, "here").await;
        let (task, attempt) = live(&store, replica).await;
        let hash = ids::hash("secret");
        let client = store.connection("set a token").await.unwrap();
        let token = "UPDATE attempt SET token_hash = $1";
        client.execute(token, &[&hash.as_slice()]).await.unwrap();
        drop(client);
        let supervisor = Supervisor::new();
        let offer = Offer {
            credentials: Credentials::default(),
            tokens,
            policy: policy::worker_policy,
        };
        let link = Link::new(
            store.clone(),
            replica,
            Arc::clone(&lease),
            offer,
            Health::default(),
            supervisor.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Supervisor::new().spawn("server", OnExit::Log, async move {
            Server::builder()
                .add_service(WorkerLinkServiceServer::new(link))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            store,
            lease,
            replica,
            task,
            attempt,
            address,
            supervisor,
        }
    }

    async fn connect(&self) -> Agent {
        let mut agent = self.dial(1).await;
        match agent.next().await {
            Out::Welcome(Welcome { .. }) => agent,
            other => panic!("{other:?} instead of a welcome"),
        }
    }

    /// An agent that said hello for its so many-th welcome.
    async fn dial(&self, link_epoch: i64) -> Agent {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            // Small, so that an agent that does not read holds the plane up soon.
            .initial_stream_window_size(65_535)
            .connect()
            .await
            .unwrap();
        let (outgoing, frames) = mpsc::channel(16);
        let hello = Hello {
            attempt_id: self.attempt.to_string(),
            link_epoch,
            ..Hello::default()
        };
        let mut request = Request::new(ReceiverStream::new(frames));
        let bearer = "Bearer secret".parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut agent = WorkerLinkServiceClient::new(channel);
        let say = outgoing.send(ConnectRequest {
            frame: Some(In::Hello(hello)),
        });
        say.await.unwrap();
        let incoming = agent.connect(request).await.unwrap().into_inner();
        Agent { outgoing, incoming }
    }

    async fn is_lost(&self) -> bool {
        let client = self.store.connection("look").await.unwrap();
        let lost = "SELECT lost_at IS NOT NULL FROM attempt";
        client.query_one(lost, &[]).await.unwrap().get(0)
    }

    async fn until_lost(&self) {
        testing::until("the attempt to be lost", || async {
            if self.is_lost().await {
                Ok(())
            } else {
                Err("it is not")
            }
        })
        .await;
    }

    async fn say(&self, store: &Store, text: &str) {
        let said = store
            .say_to_task(self.task, Uuid::new_v4(), text, "ada")
            .await;
        assert_eq!(said.unwrap(), db::say::Said::Stored);
    }
}

struct Agent {
    outgoing: mpsc::Sender<ConnectRequest>,
    incoming: Streaming<ConnectResponse>,
}

impl Agent {
    async fn send(&self, frame: In) {
        let frame = ConnectRequest { frame: Some(frame) };
        self.outgoing.send(frame).await.unwrap();
    }

    async fn beat(&self) {
        self.send(In::Heartbeat(Heartbeat {})).await;
    }

    async fn next(&mut self) -> Out {
        let frame = testing::soon("a frame of the plane", self.incoming.next()).await;
        frame.unwrap().unwrap().frame.unwrap()
    }
}

#[tokio::test]
async fn a_change_that_nobody_told_of_reaches_an_agent_that_is_heard_all_the_time() {
    let world = World::new().await;
    let mut agent = world.connect().await;
    // Without a notifier between them, one replica does not hear of the other.
    let elsewhere = Store::new(world.store.config().clone());
    world.say(&elsewhere, "Mind the gap.").await;
    let told = async {
        loop {
            agent.beat().await;
            match agent.next().await {
                Out::HeartbeatAck(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                other => return other,
            }
            world.lease.renew(&world.store, world.replica, "here").await;
        }
    };
    let told = testing::soon("the command", told).await;
    assert!(matches!(told, Out::Command(_)), "{told:?}");
}

#[tokio::test]
async fn a_worker_that_comes_back_while_no_token_can_be_got_goes_on_with_its_own() {
    let world = World::without_tokens().await;
    for link_epoch in [2, 3] {
        world.lease.renew(&world.store, world.replica, "here").await;
        let mut agent = world.dial(link_epoch).await;
        match agent.next().await {
            Out::Welcome(Welcome {
                credentials: None, ..
            }) => {}
            other => panic!("{other:?} instead of a welcome without credentials"),
        }
        agent.beat().await;
        let told = agent.next().await;
        assert!(matches!(told, Out::HeartbeatAck(_)), "{told:?}");
    }
    let task = world
        .store
        .task_for_link(world.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((task.task.run, task.task.waits), (Run::Live, 0));
    let events = world.store.events(world.task, 0, i64::MAX, 100).await;
    let last = events.unwrap().pop().unwrap();
    assert_eq!(
        last.kind, "worker_connected",
        "nothing is added to its story"
    );
}

#[tokio::test]
async fn a_new_worker_that_gets_no_token_is_ended_and_waits_for_the_code_host() {
    let world = World::without_tokens().await;
    let _agent = world.dial(1).await;
    let waiting = testing::until("the step to fail", || async {
        let task = world.store.task_for_link(world.task).await.unwrap();
        let task = task.unwrap().task;
        if task.waits > 0 { Ok(task) } else { Err(task) }
    })
    .await;
    assert_eq!(waiting.run, Run::Idle);
}

#[tokio::test]
async fn agents_connect_anew_after_a_gap_of_the_lease_and_are_not_lost() {
    let world = World::new().await;
    let mut agent = world.connect().await;
    sql(
        &world.store,
        "UPDATE replica SET lease_until = now() - interval '1 s'",
    )
    .await;
    world.store.orphans_lost(Uuid::now_v7()).await.unwrap();
    assert!(world.is_lost().await);
    world.lease.renew(&world.store, world.replica, "here").await;
    let told = agent.next().await;
    assert!(matches!(told, Out::GoAway(_)), "{told:?}");
    let mut agent = world.connect().await;
    assert!(!world.is_lost().await);
    // A renewal in time changes nothing.
    world.lease.renew(&world.store, world.replica, "here").await;
    agent.beat().await;
    let told = agent.next().await;
    assert!(matches!(told, Out::HeartbeatAck(_)), "{told:?}");
}

#[tokio::test]
async fn an_agent_that_reads_nothing_loses_its_stream() {
    let world = World::new().await;
    let agent = world.connect().await;
    // More than the queue and all windows take.
    let words = "x".repeat(16_000);
    for _ in 0..99 {
        world.say(&world.store, &words).await;
    }
    world.until_lost().await;
    drop(agent);
}

#[tokio::test]
async fn a_stop_asks_agents_to_connect_elsewhere_and_waits_for_nobody() {
    let world = World::new().await;
    let mut agent = world.connect().await;
    testing::soon("the end of all sessions", world.supervisor.stop()).await;
    let told = agent.next().await;
    assert!(matches!(told, Out::GoAway(_)), "{told:?}");
    assert!(world.is_lost().await);
}

#[tokio::test]
async fn a_log_that_is_full_says_so_once_and_takes_no_more() {
    let world = World::new().await;
    let full = format!(
        "INSERT INTO log_chunk (task_id, position, attempt, source, at, text) \
         SELECT id, 1, 1, 'tool', now(), repeat('x', {}) FROM task; UPDATE task SET log_position = 1",
        LOG_MAX - 10
    );
    sql(&world.store, &full).await;
    let line = |text: &str| {
        In::Log(LogChunk {
            text: text.to_owned(),
            ..LogChunk::default()
        })
    };
    for _ in 0..2 {
        world.lease.renew(&world.store, world.replica, "here").await;
        let mut agent = world.connect().await;
        for text in ["within\n", "the last\n", "too much\n"] {
            agent.send(line(text)).await;
        }
        // What came before it was taken.
        agent.beat().await;
        let told = agent.next().await;
        assert!(matches!(told, Out::HeartbeatAck(_)), "{told:?}");
        drop(agent);
        // Noted after all else.
        world.until_lost().await;
    }
    let log = world.store.logs(world.task, 1, 10).await.unwrap();
    let texts: Vec<String> = log.into_iter().map(|row| row.text).collect();
    assert_eq!(texts, ["within\n", "the last\n", LOG_FULL]);
}
