//! The pool of connections, and a transaction on one of them.

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime,
};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Error, Nudge};

/// Connections that one replica holds at most: a few more than two cores can keep busy.
const CONNECTIONS: usize = 16;
/// How long a caller waits for one.
const WAIT: Duration = Duration::from_secs(10);
/// What every session is given, after the options of the server's URL.
const OPTIONS: &str = "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000";

/// Access to the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    config: Config,
    nudge: Nudge,
}

impl Store {
    /// A store over a server. Connects when first asked to.
    pub fn new(mut config: Config) -> Self {
        let options = match config.get_options() {
            Some(own) => format!("{own} {OPTIONS}"),
            None => OPTIONS.to_owned(),
        };
        config
            .options(options)
            .application_name("mainloop")
            .connect_timeout(WAIT);
        if !goes_plain(&config) {
            // The default would go on in clear text where the server, or whoever sits in between, has no TLS.
            config.ssl_mode(SslMode::Require);
        }
        let manager_config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = if goes_plain(&config) {
            Manager::from_config(config.clone(), NoTls, manager_config)
        } else {
            Manager::from_config(config.clone(), tls(), manager_config)
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            // The one that was used last has its statements prepared.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .build()
            .expect("a pool with a runtime and time limits is complete");
        Self {
            pool,
            config,
            nudge: Nudge::new(),
        }
    }

    /// Gives no connection any more, and closes what nobody uses.
    pub fn close(&self) {
        self.pool.close();
    }

    /// A connection out of the pool.
    pub async fn connection(&self, what: &'static str) -> Result<Object, Error> {
        self.pool
            .get()
            .await
            .map_err(|source| Error::Pool { what, source })
    }

    /// Where the server is, for the connection that listens.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who is told about changes after their commit.
    pub fn nudge(&self) -> &Nudge {
        &self.nudge
    }

    /// Connects outside the pool, to listen.
    pub async fn listen_connection(
        &self,
    ) -> Result<(tokio_postgres::Client, ListenConnection), Error> {
        let failed = Error::on("connect to the database to listen");
        if goes_plain(&self.config) {
            let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
            Ok((client, ListenConnection::Plain(Box::new(connection))))
        } else {
            let (client, connection) = self.config.connect(tls()).await.map_err(failed)?;
            Ok((client, ListenConnection::Tls(Box::new(connection))))
        }
    }
}

/// The half of a listening connection that must be driven.
#[expect(missing_debug_implementations, reason = "the connections have none")]
pub enum ListenConnection {
    /// Over a Unix socket.
    Plain(
        Box<tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>>,
    ),
    /// Over TLS.
    Tls(
        Box<
            tokio_postgres::Connection<
                tokio_postgres::Socket,
                <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<
                    tokio_postgres::Socket,
                >>::Stream,
            >,
        >,
    ),
}

impl ListenConnection {
    /// The next message from the server.
    pub fn poll_message(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<tokio_postgres::AsyncMessage, tokio_postgres::Error>>> {
        match self {
            Self::Plain(connection) => connection.poll_message(context),
            Self::Tls(connection) => connection.poll_message(context),
        }
    }
}

/// A server on this machine needs no TLS; any other gets nothing without it, unless its URL turns it off.
fn goes_plain(config: &Config) -> bool {
    match config.get_ssl_mode() {
        SslMode::Disable => true,
        SslMode::Require => false,
        _ => is_local(config),
    }
}

/// Whether every address is on this machine. An address that is given beside a name is the one that is dialled.
fn is_local(config: &Config) -> bool {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    if addresses.is_empty() {
        !hosts.is_empty() && hosts.iter().all(is_local_host)
    } else {
        addresses.iter().all(std::net::IpAddr::is_loopback)
    }
}

fn is_local_host(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    }
}

fn tls() -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    MakeRustlsConnect::new(
        rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[cfg(test)]
mod tests;
