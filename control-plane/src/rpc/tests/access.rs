//! Who may do what, over real sockets: the guard, the tokens, and the plane's own state.

use std::{collections::BTreeSet, io, net::SocketAddr};

use http::Method;
use hyper_util::rt::TokioIo;
use mainloop_core::{Credential, Reason};
use mainloop_proto::v1::{
    self, CreateTokenRequest, GetCallerRequest, GetStatusRequest, ListTokensRequest,
    RevokeTokenRequest, access_service_client::AccessServiceClient,
    inbox_service_client::InboxServiceClient, task_service_client::TaskServiceClient,
};
use prost::Message;
use tokio::net::{TcpListener, UnixStream};
use tonic::{
    body::Body,
    transport::{Channel, Endpoint, Uri},
};
use tower::{Service, ServiceExt};

use super::*;
use crate::{
    config::Listen,
    db::holds::Hold,
    link::{Lease, Link, Offer},
    policy,
    rpc::{
        access::{About, Access as AccessApi, Health},
        auth::{Access, TABLE},
        serve,
    },
    supervisor::{OnExit, Supervisor},
};

/// A plane behind its sockets.
pub(super) struct Sockets {
    world: World,
    health: Health,
    socket: std::path::PathBuf,
    pub(super) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Sockets {
    async fn new() -> Self {
        let listen = Listen {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
        };
        Self::listening(listen).await
    }

    /// With its TCP socket as configured.
    pub(super) async fn listening(listen: Listen) -> Self {
        let world = World::new().await;
        let shared = Shared {
            store: world.store.clone(),
            rules: Arc::new(rules()),
            stop: world.stop.clone(),
            health: Health::default(),
        };
        let health = shared.health.clone();
        let about = About {
            started: jiff::Timestamp::now(),
            database: "embedded, PostgreSQL 15".to_owned(),
            code_host: "https://github.com".to_owned(),
            model_credential: "api_key",
            launcher: "process, sandboxed".to_owned(),
            slots: 4,
        };
        let offer = Offer {
            credentials: v1::Credentials::default(),
            tokens: None,
            policy: policy::worker_policy,
        };
        let link = Link::new(
            world.store.clone(),
            Uuid::now_v7(),
            Arc::new(Lease::default()),
            offer,
            health.clone(),
            Supervisor::new(),
        );
        let routes = serve::routes(&shared, AccessApi::new(shared.clone(), about), link);
        let folder = testing::folder();
        let socket = folder.path().join("mainloop.sock");
        let unix = serve::bind_unix(&socket).unwrap();
        let tcp = TcpListener::bind(listen.address).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let supervisor = Supervisor::new();
        let (served, answers) = (shared.clone(), routes.clone());
        supervisor.spawn("unix socket", OnExit::Log, async move {
            serve::unix(served, unix, answers).await.unwrap();
        });
        supervisor.spawn("tcp socket", OnExit::Log, async move {
            serve::tcp(shared, tcp, listen.tls, routes).await.unwrap();
        });
        Self {
            world,
            health,
            socket,
            address,
            _folder: folder,
        }
    }

    /// A connection to the Unix socket.
    async fn local(&self) -> Channel {
        let socket = self.socket.clone();
        Endpoint::from_static("http://plane")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            }))
            .await
            .unwrap()
    }

    async fn tcp(&self) -> Channel {
        let url = format!("http://{}", self.address);
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }

    async fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.local().await)
    }

    /// A secret with these scopes.
    pub(super) async fn token(&self, name: &str, scopes: &[&str]) -> String {
        let made = self.world.store.create_token(name, scopes, None).await;
        made.unwrap().unwrap().1
    }
}

/// A request with a bearer token.
pub(super) fn with_token<T>(message: T, secret: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {secret}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Every RPC of the contract, by its path.
fn rpcs() -> BTreeSet<String> {
    let descriptors = prost_types::FileDescriptorSet::decode(mainloop_proto::DESCRIPTORS).unwrap();
    let mut rpcs = BTreeSet::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                rpcs.insert(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    rpcs
}

#[test]
fn every_rpc_of_the_contract_stands_in_the_table() {
    let table: BTreeSet<String> = TABLE
        .iter()
        .map(|(rpc, _)| (*rpc).to_owned())
        .filter(|rpc| rpc.starts_with("/mainloop."))
        .collect();
    assert_eq!(table, rpcs());
    for (rpc, access) in TABLE {
        let ours = rpc.starts_with("/mainloop.");
        assert!(!ours || *access != Access::Open, "{rpc} is open");
    }
}

/// Calls an RPC with an empty message and gives its code.
async fn call(channel: &Channel, rpc: &str, secret: Option<&str>) -> Code {
    let mut request = http::Request::builder()
        .method(Method::POST)
        .uri(rpc)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(secret) = secret {
        request = request.header("authorization", format!("Bearer {secret}"));
    }
    // One uncompressed message of no bytes.
    let body = Body::new(http_body_util::Full::new(bytes::Bytes::from_static(
        &[0; 5],
    )));
    let mut channel = channel.clone();
    let answer = channel
        .ready()
        .await
        .unwrap()
        .call(request.body(body).unwrap())
        .await
        .unwrap();
    // A refusal carries its status in the headers; anything else got past the guard.
    answer
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

#[tokio::test]
async fn every_rpc_refuses_a_missing_a_wrong_and_a_too_weak_credential() {
    let plane = Sockets::new().await;
    let channel = plane.tcp().await;
    let attempt = crate::ids::secret(crate::db::tokens::ATTEMPT_PREFIX);
    let unknown = crate::ids::secret(crate::db::tokens::PREFIX);
    let revoked = plane
        .token("revoked", &["read", "submit", "approve", "admin"])
        .await;
    plane
        .world
        .store
        .revoke_token("revoked")
        .await
        .unwrap()
        .unwrap();
    let expired = plane
        .world
        .store
        .create_token("expired", &["admin"], Some(0.0))
        .await
        .unwrap()
        .unwrap()
        .1;

    for (rpc, access) in TABLE
        .iter()
        .filter(|(rpc, _)| rpc.starts_with("/mainloop."))
    {
        if *access == Access::Attempt {
            continue;
        }
        assert_eq!(
            call(&channel, rpc, None).await,
            Code::Unauthenticated,
            "{rpc} without a credential"
        );
        for wrong in ["", "nonsense", &unknown, &revoked, &expired] {
            let code = call(&channel, rpc, Some(wrong)).await;
            assert_eq!(code, Code::Unauthenticated, "{rpc} with {wrong:?}");
        }
        let code = call(&channel, rpc, Some(&attempt)).await;
        assert_eq!(
            code,
            Code::PermissionDenied,
            "{rpc} with an attempt's token"
        );
    }
}

#[tokio::test]
async fn each_scope_opens_its_own_rpcs_and_no_other() {
    let plane = Sockets::new().await;
    let channel = plane.tcp().await;
    for scope in Scope::ALL {
        let secret = plane.token(scope.word(), &[scope.word()]).await;
        for (rpc, access) in TABLE {
            let Access::Scope(needed) = *access else {
                continue;
            };
            let code = call(&channel, rpc, Some(&secret)).await;
            if needed == scope {
                assert!(
                    !matches!(code, Code::PermissionDenied | Code::Unauthenticated),
                    "{rpc} with {scope:?} gave {code:?}"
                );
            } else {
                assert_eq!(code, Code::PermissionDenied, "{rpc} with {scope:?}");
            }
        }
        let caller = "/mainloop.v1.AccessService/GetCaller";
        assert_ne!(
            call(&channel, caller, Some(&secret)).await,
            Code::PermissionDenied
        );
    }
}

#[tokio::test]
async fn a_weak_token_stays_weak_on_the_local_socket() {
    let plane = Sockets::new().await;
    let channel = plane.local().await;
    let read = plane.token("reader", &["read"]).await;
    let confirm = "/mainloop.v1.TaskService/ConfirmTask";
    assert_eq!(
        call(&channel, confirm, Some(&read)).await,
        Code::PermissionDenied
    );
    assert_eq!(
        call(&channel, confirm, Some("nonsense")).await,
        Code::Unauthenticated
    );
    // By the kernel's word the caller is the plane's own user, who may: only the empty request is refused.
    assert_eq!(call(&channel, confirm, None).await, Code::InvalidArgument);
}

#[tokio::test]
async fn health_is_open_and_reflection_is_not() {
    let plane = Sockets::new().await;
    let channel = plane.tcp().await;
    assert_eq!(
        call(&channel, "/grpc.health.v1.Health/Check", None).await,
        Code::Ok
    );
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(
        call(&channel, reflection, None).await,
        Code::Unauthenticated
    );
    let read = plane.token("reader", &["read"]).await;
    assert_eq!(call(&channel, reflection, Some(&read)).await, Code::Ok);
    assert_eq!(
        call(&channel, "/mainloop.v1.TaskService/Nothing", None).await,
        Code::Unimplemented
    );
}

#[tokio::test]
async fn the_local_socket_is_closed_to_others_and_names_its_user() {
    use std::os::unix::fs::PermissionsExt;

    let plane = Sockets::new().await;
    let mode = std::fs::metadata(&plane.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let caller = plane
        .access()
        .await
        .get_caller(GetCallerRequest {})
        .await
        .unwrap()
        .into_inner();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap();
    assert_eq!(caller.name, user.name);
    assert!(caller.local);
    assert_eq!(caller.scopes.len(), 4);
}

#[tokio::test]
async fn a_token_is_made_used_listed_and_revoked() {
    let plane = Sockets::new().await;
    let mut access = plane.access().await;
    let request = CreateTokenRequest {
        name: "bot".to_owned(),
        scopes: vec![v1::Scope::Read.into(), v1::Scope::Submit.into()],
        ttl: None,
    };
    let made = access
        .create_token(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(made.secret.starts_with("mlt_"));
    let again = access.create_token(request).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let mut remote = AccessServiceClient::new(plane.tcp().await);
    let caller = remote
        .get_caller(with_token(GetCallerRequest {}, &made.secret))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((caller.name.as_str(), caller.local), ("bot", false));
    assert_eq!(
        caller.scopes,
        [v1::Scope::Read as i32, v1::Scope::Submit as i32]
    );

    let list = ListTokensRequest {
        include_revoked: false,
    };
    let listed = access.list_tokens(list).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].last_use_time.is_some());

    let revoke = RevokeTokenRequest {
        token_id: "bot".to_owned(),
    };
    let revoked = access
        .revoke_token(revoke.clone())
        .await
        .unwrap()
        .into_inner()
        .token
        .unwrap();
    assert!(revoked.revoke_time.is_some());
    let denied = remote
        .get_caller(with_token(GetCallerRequest {}, &made.secret))
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Code::Unauthenticated);
    assert!(
        access
            .list_tokens(list)
            .await
            .unwrap()
            .into_inner()
            .tokens
            .is_empty()
    );
    let unknown = access.revoke_token(revoke).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

/// How a stream ends.
async fn end<T>(stream: &mut (impl Stream<Item = Result<T, Status>> + Unpin)) -> Code {
    loop {
        let next = testing::soon("the end of a stream", stream.next()).await;
        if let Err(status) = next.expect("a stream with a revoked token ends with an error") {
            return status.code();
        }
    }
}

#[tokio::test]
async fn streams_end_with_the_token_that_opened_them() {
    let plane = Sockets::new().await;
    let task_id = plane.world.planning("gate").await.id;
    let secret = plane.token("reader", &["read"]).await;
    let mut tasks = TaskServiceClient::new(plane.tcp().await);
    let mut inbox = InboxServiceClient::new(plane.tcp().await);
    let watch = v1::WatchTaskRequest {
        task_id: task_id.clone(),
        after_seq: -1,
    };
    let follow = v1::StreamTaskLogsRequest {
        task_id,
        follow: true,
        ..v1::StreamTaskLogsRequest::default()
    };
    let all = v1::WatchInboxRequest {};
    let events = tasks.watch_task(with_token(watch, &secret)).await;
    let logs = tasks.stream_task_logs(with_token(follow, &secret)).await;
    let changes = inbox.watch_inbox(with_token(all, &secret)).await;
    let (mut events, mut logs, mut changes) = (
        events.unwrap().into_inner(),
        logs.unwrap().into_inner(),
        changes.unwrap().into_inner(),
    );
    next(&mut events).await;
    while !next(&mut changes).await.caught_up {}
    let mut local = InboxServiceClient::new(plane.local().await);
    let mut stays = local.watch_inbox(all).await.unwrap().into_inner();
    while !next(&mut stays).await.caught_up {}

    plane.world.store.revoke_token("reader").await.unwrap();
    let codes = tokio::join!(end(&mut events), end(&mut logs), end(&mut changes));
    assert_eq!(
        codes,
        (
            Code::Unauthenticated,
            Code::Unauthenticated,
            Code::Unauthenticated
        )
    );
    plane.world.propose("door").await;
    next(&mut stays).await;
}

#[tokio::test]
async fn what_postgres_does_not_take_names_nothing() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    let plane = Sockets::new().await;
    let mut access = plane.access().await;
    let revoked = access
        .revoke_token(RevokeTokenRequest {
            token_id: "a\0".to_owned(),
        })
        .await;
    assert_eq!(revoked.unwrap_err().code(), Code::NotFound);
    let world = &plane.world;
    assert_eq!(world.get("a\0").await.unwrap_err().code(), Code::NotFound);
    let shown = world.inbox.get_inbox_item(by(
        "ada",
        v1::GetInboxItemRequest {
            item_id: "a\0@1".to_owned(),
        },
    ));
    assert_eq!(shown.await.unwrap_err().code(), Code::NotFound);
    let unknown = v1::InboxItem {
        id: "a\0".to_owned(),
        revision: 1,
        ..v1::InboxItem::default()
    };
    let approve = decision(&unknown, v1::InboxAction::Approve);
    assert_eq!(
        world.resolve("ada", approve).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut created = proposal("gate");
    created.title = "a\0".to_owned();
    created.labels = HashMap::from([("a\0".to_owned(), "b\0".to_owned())]);
    assert_eq!(
        world.create(created).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let list = async |labels, page_token: &str| {
        let request = v1::ListTasksRequest {
            labels,
            page_token: URL_SAFE_NO_PAD.encode(page_token),
            ..v1::ListTasksRequest::default()
        };
        let listed = world.tasks.list_tasks(by("ada", request)).await;
        listed.map(|listed| listed.into_inner().tasks)
    };
    let labels = HashMap::from([("a\0".to_owned(), "b\0".to_owned())]);
    assert!(list(labels, "").await.unwrap().is_empty());
    // The second is a time before the first that Postgres has.
    let id = Uuid::nil();
    for position in [format!("0/{id}\0"), format!("-300000000000000000/{id}")] {
        let listed = list(HashMap::new(), &position).await;
        assert_eq!(listed.unwrap_err().code(), Code::InvalidArgument);
        let request = v1::ListInboxItemsRequest {
            page_token: URL_SAFE_NO_PAD.encode(&position),
            ..v1::ListInboxItemsRequest::default()
        };
        let listed = world.inbox.list_inbox_items(by("ada", request)).await;
        assert_eq!(listed.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_with_their_fields() {
    let plane = Sockets::new().await;
    let mut access = plane.access().await;
    for (name, scopes, seconds, wanted) in [
        ("", vec![1], None, vec!["name"]),
        ("worker", vec![1], None, vec!["name"]),
        ("x", vec![], None, vec!["scopes"]),
        ("x", vec![1, 0], None, vec!["scopes"]),
        ("x", vec![9], None, vec!["scopes"]),
        ("x", vec![1], Some(0), vec!["ttl"]),
        ("", vec![], Some(-5), vec!["name", "scopes", "ttl"]),
    ] {
        let request = CreateTokenRequest {
            name: name.to_owned(),
            scopes,
            ttl: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        };
        let status = access.create_token(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(fields(&status), wanted, "{status:?}");
    }
}

#[tokio::test]
async fn status_says_how_the_plane_is() {
    let plane = Sockets::new().await;
    plane.world.planning("works").await;
    plane.world.propose("asks").await;
    plane.health.set_login("octocat");
    plane
        .health
        .set_problem("disk", Some("the disk is full".to_owned()));
    let mut access = plane.access().await;
    let status = access
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(
        status.database.starts_with("embedded, PostgreSQL "),
        "{status:?}"
    );
    assert_eq!(status.code_host, "https://github.com");
    assert_eq!(status.code_host_login, "octocat");
    assert_eq!(status.model_credential, "api_key");
    assert_eq!(
        (
            status.slots_used,
            status.slots_total,
            status.open_items,
            status.active
        ),
        (1, 4, 1, 1)
    );
    assert_eq!(status.problems, ["the disk is full"]);
    assert_eq!(status.models, ["sonnet", "opus"]);
    assert_eq!(status.default_budget_micros, 5_000_000);
    plane.health.set_problem("disk", None);
    let hold = |over, closed| Hold {
        credential: Credential::Model,
        reason: Reason::ModelLimit,
        why: "5 hours are used up".to_owned(),
        until: Some(jiff::Timestamp::UNIX_EPOCH),
        over,
        closed,
    };
    for (hold, words) in [
        (hold(false, true), Some("goes on at 1970-01-01 00:00 UTC")),
        (hold(true, true), Some("one task tries whether it is over")),
        (hold(true, false), None),
    ] {
        plane.health.set_holds(vec![hold]);
        let status = access.get_status(GetStatusRequest {}).await.unwrap();
        let wanted =
            words.map(|words| format!("Model limit reached (5 hours are used up): {words}"));
        assert_eq!(status.into_inner().problems, Vec::from_iter(wanted));
    }
    plane.health.set_holds(Vec::new());
    let status = access
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(status.problems.is_empty());
}
