//! The sockets: who serves what on which, and how it ends.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use mainloop_proto::v1::{
    access_service_server::AccessServiceServer, inbox_service_server::InboxServiceServer,
    task_service_server::TaskServiceServer, worker_link_service_server::WorkerLinkServiceServer,
};
use secrecy::ExposeSecret;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    service::Routes,
    transport::{Error, Identity, Server, ServerTlsConfig},
};

use super::{Shared, access::Access, auth, inbox::Inbox, task::Tasks};
use crate::{config::Tls, link::Link};

/// Largest request of a client: a description or an answer, with room for its frame.
const REQUEST_MAX: usize = 256 << 10;
/// Largest frame of an agent: a plan or a log, with room for its frame.
const FRAME_MAX: usize = 1 << 20;
/// A peer that vanished is noticed after two of these.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Streams that one connection may hold.
const STREAMS: u32 = 256;

/// All services, with health and reflection.
pub fn routes(shared: &Shared, access: Access, link: Link) -> Routes {
    // The reporter keeps what it was told: a plane that cannot serve ends instead.
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(mainloop_proto::DESCRIPTORS)
        .build_v1()
        .expect("the descriptors were compiled with this program");
    let tasks = TaskServiceServer::new(Tasks::new(shared.clone()));
    let inbox = InboxServiceServer::new(Inbox::new(shared.clone()));
    let mut routes = Routes::builder();
    routes
        .add_service(health)
        .add_service(reflection)
        .add_service(tasks.max_decoding_message_size(REQUEST_MAX))
        .add_service(inbox.max_decoding_message_size(REQUEST_MAX))
        .add_service(AccessServiceServer::new(access).max_decoding_message_size(REQUEST_MAX))
        .add_service(WorkerLinkServiceServer::new(link).max_decoding_message_size(FRAME_MAX));
    routes.routes()
}

/// Serves on a Unix socket until told to stop.
pub async fn unix(shared: Shared, listener: UnixListener, routes: Routes) -> Result<(), Error> {
    server()
        .layer(auth::Layer::new(shared.store.clone()))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            shared.stop.cancelled_owned(),
        )
        .await
}

/// Serves on a TCP socket until told to stop, with TLS where a certificate is given.
pub async fn tcp(
    shared: Shared,
    listener: TcpListener,
    tls: Option<Tls>,
    routes: Routes,
) -> Result<(), Error> {
    let mut server = server();
    if let Some(tls) = tls {
        let identity = Identity::from_pem(&tls.certificate, tls.key.expose_secret());
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    server
        .layer(auth::Layer::new(shared.store.clone()))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            shared.stop.cancelled_owned(),
        )
        .await
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS)
        .tcp_nodelay(true)
}

/// Makes a socket with mode 0600, in place of one that a plane before left behind.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    // Bound beside its name, closed to others, and only then put in its place: nobody can connect in between.
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, PermissionsExt::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}
