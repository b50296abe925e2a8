//! The connection to the plane: one channel, a credential, a client for each service.

use std::{error::Error as _, fs, io, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use mainloop_proto::v1::{
    access_service_client::AccessServiceClient, inbox_service_client::InboxServiceClient,
    task_service_client::TaskServiceClient,
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint, Uri},
};
use tower::service_fn;

use crate::address::Address;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between signs of life on an idle connection, so that a watch notices a plane that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Largest message that is taken: a plan and the one before it fit many times.
const MAX_MESSAGE: usize = 16 << 20;

type Service = InterceptedService<Channel, Credential>;

/// Where the plane is and as whom to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) address: Address,
    /// A token; none on the local socket.
    pub(crate) token: Option<SecretString>,
}

/// A client of each service, over one channel. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) tasks: TaskServiceClient<Service>,
    pub(crate) inbox: InboxServiceClient<Service>,
    pub(crate) access: AccessServiceClient<Service>,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// Nobody answers there.
    #[error("cannot reach the plane at {address}: {reason}")]
    Unreachable { address: Address, reason: String },
    /// The socket belongs to somebody else.
    #[error("may not open the plane's socket at {address}")]
    Denied { address: Address },
    /// A token would be sent in clear.
    #[error("will not send a token in clear text to {address}")]
    InClear { address: Address },
    /// The token's file cannot be read.
    #[error("cannot read the token from {path}: {reason}")]
    TokenFile { path: PathBuf, reason: io::Error },
    /// The token is no token.
    #[error("the token holds characters that no token has")]
    TokenForm,
}

impl Client {
    /// Connects, so that a plane that is not there is known before anything is asked.
    pub(crate) async fn connect(target: &Target) -> Result<Self, ConnectError> {
        let address = &target.address;
        if target.token.is_some() && address.in_clear() {
            return Err(ConnectError::InClear {
                address: address.clone(),
            });
        }
        let credential = Credential::new(target.token.as_ref())?;
        let channel = open(address)
            .await
            .map_err(|error| refusal(address, &error))?;
        let limits = MAX_MESSAGE;
        Ok(Self {
            tasks: TaskServiceClient::with_interceptor(channel.clone(), credential.clone())
                .max_decoding_message_size(limits),
            inbox: InboxServiceClient::with_interceptor(channel.clone(), credential.clone())
                .max_decoding_message_size(limits),
            access: AccessServiceClient::with_interceptor(channel, credential)
                .max_decoding_message_size(limits),
        })
    }
}

/// The token in a file, without the line end that editors add.
pub(crate) fn token_from_file(path: PathBuf) -> Result<SecretString, ConnectError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(SecretString::from(text.trim())),
        Err(reason) => Err(ConnectError::TokenFile { path, reason }),
    }
}

async fn open(address: &Address) -> Result<Channel, tonic::transport::Error> {
    match address {
        Address::Unix(path) => {
            let path = path.clone();
            // The authority is never looked up: the connector goes to the socket.
            tuned(Endpoint::from_static("http://mainloop.local"))
                .connect_with_connector(service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                }))
                .await
        }
        Address::Http(url) => {
            let mut endpoint = tuned(Endpoint::from_shared(url.to_string())?);
            if url.scheme() == "https" {
                // A second install finds the first one and is harmless.
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
                endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
            }
            endpoint.connect().await
        }
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(CONNECT_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn refusal(address: &Address, error: &tonic::transport::Error) -> ConnectError {
    let address = address.clone();
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return ConnectError::Denied { address };
        }
        reason = cause.to_string();
        source = cause.source();
    }
    ConnectError::Unreachable { address, reason }
}

/// Puts the token into each request.
#[derive(Clone)]
pub(crate) struct Credential(Option<MetadataValue<Ascii>>);

impl Credential {
    fn new(token: Option<&SecretString>) -> Result<Self, ConnectError> {
        let Some(token) = token else {
            return Ok(Self(None));
        };
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose_secret())
            .parse()
            .map_err(|_| ConnectError::TokenForm)?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}
