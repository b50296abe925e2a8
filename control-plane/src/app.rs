//! Puts the parts together; the only place that knows them all.
//!
//! Start: lock the data folder, database, schema, loops, sockets. SIGTERM stops the plane and leaves workers and
//! database running, for the next start to adopt; SIGINT ends everything, and so does the end of the terminal (SIGHUP,
//! unless the plane was started with `nohup`); a second SIGINT or SIGTERM exits at once.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use mainloop_proto::v1::{Credentials, ModelCredentialKind};
use nix::fcntl::{Flock, FlockArg};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    check,
    code_host::Tokens,
    config::{Config, Database, ModelKind},
    db::{self, Store, claims::Caps},
    dispatch, errors,
    launcher::{
        process::{Launcher, Options as LauncherOptions, WorkerConfig},
        sandbox,
    },
    link::{Lease, Link, Offer},
    policy, postgres,
    rpc::{
        Shared,
        access::{About, Access, Health, Workers},
        serve,
        task::Rules,
    },
    supervisor::{OnExit, Supervisor},
    tidy,
    watch::{self, Watch},
    watchers,
};

/// How long tasks may take to end when the plane stops.
const GRACE: Duration = Duration::from_secs(10);
/// Any id does: each worker derives its own from its attempt, above a fixed base.
const SOME_UID: u32 = 1_905_000_000;

/// Why the plane did not start, or stopped by itself.
#[derive(Debug, Error)]
pub enum Error {
    /// A credential is missing.
    #[error("{}", .0.join("\n"))]
    Missing(Vec<String>),
    /// A folder could not be made.
    #[error("could not make {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another plane runs on this folder.
    #[error(
        "another plane runs on {0}: use it, or give this one a folder of its own with --data-dir"
    )]
    Running(PathBuf),
    /// The private server.
    #[error("the private PostgreSQL did not start")]
    Postgres(#[from] postgres::Error),
    /// The store.
    #[error("the database is not usable")]
    Store(#[from] db::Error),
    /// A socket.
    #[error("could not listen on {what}")]
    Listen {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signal handler.
    #[error("could not listen for signals")]
    Signal(#[source] io::Error),
    /// A core service ended.
    #[error("a core service ended unexpectedly; its last words are in the log above")]
    Service,
}

/// Runs the plane until it is told to stop.
pub async fn serve(config: Config) -> Result<(), Error> {
    let missing: Vec<String> = config.missing().iter().map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(Error::Missing(missing));
    }
    let _lock = lock(&config)?;
    let (mut server, database_config) = match &config.database {
        Database::Embedded(options) => {
            let server = postgres::Server::start(options.clone()).await?;
            let config = server.config();
            (Some(server), config)
        }
        Database::External(config) => (None, (**config).clone()),
    };
    let outcome = serve_on(&config, &mut server, database_config).await;
    // A start that failed leaves what it found. A plane that broke down leaves its workers, and their database.
    if let (Err(error), Some(server)) = (&outcome, server)
        && !matches!(error, Error::Service)
        && server.is_new()
    {
        stop_database(server).await;
    }
    outcome
}

async fn stop_database(server: postgres::Server) {
    if let Err(error) = server.stop().await {
        tracing::warn!(
            error = errors::chain(&error),
            "the private PostgreSQL did not stop"
        );
    }
}

/// Runs the plane on a database that is there. The private one is taken and stopped when everything is to end.
async fn serve_on(
    config: &Config,
    server: &mut Option<postgres::Server>,
    database_config: tokio_postgres::Config,
) -> Result<(), Error> {
    let supervisor = Supervisor::new();
    let stop = supervisor.stop_token();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let hang_up = hang_up().map_err(Error::Signal)?;
    let store = Store::new(database_config);
    db::migrate::migrate(&store).await?;
    store.release_holds().await?;
    let version = store.server_version().await?;
    let host = host_id(config)?;
    let health = Health::default();
    let replica = Uuid::now_v7();
    let lease = Arc::new(Lease::default());
    lease.renew(&store, replica, &host).await;
    let shared = Shared {
        store: store.clone(),
        rules: Arc::new(rules(config)),
        stop: stop.clone(),
        health: health.clone(),
    };
    let kind = if server.is_some() {
        "embedded"
    } else {
        "external"
    };
    let about = About {
        started: jiff::Timestamp::now(),
        database: format!("{kind}, PostgreSQL {version}"),
        code_host: config
            .code_host
            .url
            .as_str()
            .trim_end_matches('/')
            .to_owned(),
        model_credential: config.model.as_ref().map_or("", |model| model.kind.word()),
        launcher: if config.sandbox {
            "process, sandboxed".to_owned()
        } else {
            "process, without a sandbox".to_owned()
        },
        slots: config.slots,
    };
    let tokens = Tokens::new(&config.code_host);
    let offer = Offer {
        credentials: credentials(config),
        tokens: tokens.clone(),
        policy: policy::worker_policy,
    };
    let link = Link::new(
        store.clone(),
        replica,
        Arc::clone(&lease),
        offer,
        health.clone(),
        supervisor.clone(),
    );
    let routes = serve::routes(&shared, Access::new(shared.clone(), about), link);
    listen(config, &shared, &routes, &supervisor).await?;
    // Not before somebody can reach us: no worker is started for nobody, and none is judged by its silence.
    start_rescue(config, &store, replica, lease, &host, &supervisor);
    let launcher = start_loops(config, &store, &host, &health, &supervisor);
    if let Some(tokens) = &tokens {
        start_code_host(config, &store, tokens, health, &supervisor);
    }
    tracing::info!(socket = %config.socket().display(), "plane is ready");

    let keep = async {
        match server {
            Some(server) => server.keep(stop.clone()).await,
            None => std::future::pending().await,
        }
    };
    let failed = supervisor.failed();
    let ends_all = tokio::select! {
        _ = interrupt.recv() => true,
        () = hang_up => true,
        _ = terminate.recv() => false,
        () = failed.cancelled() => false,
        () = keep => false,
    };
    let by_itself = supervisor.failed().is_cancelled();
    tracing::info!(ends_all, "plane is stopping");
    let stopping = async {
        if tokio::time::timeout(GRACE, supervisor.stop())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
        if ends_all {
            launcher.end_all().await;
            if let Some(Tokens::Minted(mint)) = &tokens {
                mint.revoke_all().await;
            }
            store.close();
            if let Some(server) = server.take() {
                stop_database(server).await;
            }
        }
    };
    tokio::select! {
        () = stopping => {}
        _ = interrupt.recv() => tracing::warn!("exiting at once"),
        _ = terminate.recv() => tracing::warn!("exiting at once"),
    }
    if by_itself {
        Err(Error::Service)
    } else {
        Ok(())
    }
}

/// Completes when the terminal is gone. Never where whoever started the plane had it ignore that, as `nohup` does.
fn hang_up() -> io::Result<impl Future<Output = ()>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mut hang_up = if ignores_hang_up(&status) {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    Ok(async move {
        match &mut hang_up {
            Some(hang_up) => drop(hang_up.recv().await),
            None => std::future::pending().await,
        }
    })
}

/// Whether the first bit of `SigIgn`, which is SIGHUP's, is set (proc(5)).
fn ignores_hang_up(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// One plane a folder: held until the process ends.
fn lock(config: &Config) -> Result<Flock<File>, Error> {
    use std::os::unix::fs::PermissionsExt;

    let folder = |source| Error::Folder {
        path: config.data_dir.clone(),
        source,
    };
    std::fs::create_dir_all(&config.data_dir).map_err(folder)?;
    // The database server and the harnesses run as others than root: they pass through, and read nothing.
    let mode = if nix::unistd::geteuid().is_root() {
        0o711
    } else {
        0o700
    };
    std::fs::set_permissions(&config.data_dir, PermissionsExt::from_mode(mode)).map_err(folder)?;
    let file = File::create(config.data_dir.join("lock")).map_err(folder)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Error::Running(config.data_dir.clone()))
}

/// This host's id: made once, kept in the data folder.
fn host_id(config: &Config) -> Result<String, Error> {
    let path = config.data_dir.join("host-id");
    let failed = |source| Error::Folder {
        path: path.clone(),
        source,
    };
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().parse::<Uuid>().is_ok() => Ok(text.trim().to_owned()),
        Ok(_) => Err(failed(io::Error::other("it does not hold a UUID"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4().to_string();
            let beside = path.with_extension("new");
            std::fs::write(&beside, &id).map_err(failed)?;
            std::fs::rename(&beside, &path).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Holds the lease, and ends workers that do not come back.
fn start_rescue(
    config: &Config,
    store: &Store,
    replica: Uuid,
    lease: Arc<Lease>,
    host: &str,
    supervisor: &Supervisor,
) {
    let stop = supervisor.stop_token();
    supervisor.spawn(
        "lease",
        OnExit::Fatal,
        dispatch::hold(
            store.clone(),
            Arc::clone(&lease),
            replica,
            host.to_owned(),
            stop.clone(),
        ),
    );
    let lost_after = config.policy.lost_after();
    supervisor.spawn(
        "rescue",
        OnExit::Fatal,
        dispatch::rescue(store.clone(), lease, replica, lost_after, stop),
    );
}

/// Starts the other loops. Returns a launcher for the stop that ends everything.
fn start_loops(
    config: &Config,
    store: &Store,
    host: &str,
    health: &Health,
    supervisor: &Supervisor,
) -> Launcher {
    let stop = supervisor.stop_token();
    let options = LauncherOptions {
        agent: config.agent.clone(),
        workers: config.data_dir.join("workers"),
        host: host.to_owned(),
        worker: WorkerConfig {
            attempt_id: Uuid::nil(),
            host_id: host.to_owned(),
            link_socket: config.socket(),
            dir: PathBuf::new(),
            claude: config.claude.clone(),
            sandbox: config.sandbox,
            uid: nix::unistd::geteuid().is_root().then_some(SOME_UID),
            mounts: config.policy.toolchains_json(),
            limits: config.policy.limits_json(),
        },
    };
    let caps = Caps {
        total: config.slots,
        per_repository: config.policy.slots.per_repository,
    };
    let launcher = || Launcher::new(store.clone(), options.clone(), supervisor.clone());
    supervisor.spawn("launcher", OnExit::Fatal, launcher().run(stop.clone()));
    if config.sandbox {
        let options = sandbox::Options {
            agent: config.agent.clone(),
            arguments: check::probe(config),
        };
        supervisor.spawn(
            "sandbox probe",
            OnExit::Log,
            sandbox::keep(options, health.clone(), stop.clone()),
        );
    } else {
        health.set_workers(Workers::Able);
    }
    supervisor.spawn(
        "dispatcher",
        OnExit::Fatal,
        dispatch::claim(
            store.clone(),
            host.to_owned(),
            caps,
            health.clone(),
            stop.clone(),
        ),
    );
    supervisor.spawn(
        "timers",
        OnExit::Fatal,
        dispatch::timers(store.clone(), config.policy.lost_after(), stop.clone()),
    );
    let health = health.clone();
    supervisor.spawn(
        "strays",
        OnExit::Fatal,
        dispatch::strays(
            store.clone(),
            host.to_owned(),
            stop.clone(),
            move |problem| {
                health.set_problem("other hosts", problem);
            },
        ),
    );
    supervisor.spawn(
        "listener",
        OnExit::Fatal,
        watchers::listen(store.clone(), stop.clone()),
    );
    supervisor.spawn(
        "notifier",
        OnExit::Fatal,
        watchers::notify(store.clone(), stop.clone()),
    );
    launcher()
}

fn rules(config: &Config) -> Rules {
    let policy = &config.policy;
    Rules {
        code_host: config.code_host.url.clone(),
        models: policy.model_names(),
        default_model: policy.default_model.clone(),
        default_budget_micros: policy::micros(policy.default_budget_usd),
        max_budget_micros: policy::micros(policy.max_budget_usd),
        snapshot: policy.snapshot(),
        unsandboxed: !config.sandbox,
        repositories: policy.repositories.clone(),
    }
}

fn credentials(config: &Config) -> Credentials {
    let bare = |url: &url::Url| url.as_str().trim_end_matches('/').to_owned();
    let mut credentials = Credentials {
        github_api_url: bare(&config.code_host.api),
        git_url: bare(&config.code_host.url),
        ..Credentials::default()
    };
    if let Some(model) = &config.model {
        credentials.model_url = bare(&model.url);
        credentials.set_model_kind(match model.kind {
            ModelKind::ApiKey => ModelCredentialKind::ApiKey,
            ModelKind::OauthToken => ModelCredentialKind::OauthToken,
            ModelKind::Gateway => ModelCredentialKind::Gateway,
        });
        model
            .secret
            .expose_secret()
            .trim()
            .clone_into(&mut credentials.model_secret);
    }
    credentials
}

async fn listen(
    config: &Config,
    shared: &Shared,
    routes: &tonic::service::Routes,
    supervisor: &Supervisor,
) -> Result<(), Error> {
    let socket = config.socket();
    let unix = serve::bind_unix(&socket).map_err(|source| Error::Listen {
        what: socket.display().to_string(),
        source,
    })?;
    let (served, answers) = (shared.clone(), routes.clone());
    supervisor.spawn("unix socket", OnExit::Fatal, async move {
        if let Err(error) = serve::unix(served, unix, answers).await {
            tracing::error!(error = errors::chain(&error), "the socket failed");
        }
    });
    let Some(listen) = config.listen.clone() else {
        return Ok(());
    };
    let tcp = TcpListener::bind(listen.address)
        .await
        .map_err(|source| Error::Listen {
            what: listen.address.to_string(),
            source,
        })?;
    let (served, answers) = (shared.clone(), routes.clone());
    supervisor.spawn("tcp socket", OnExit::Fatal, async move {
        if let Err(error) = serve::tcp(served, tcp, listen.tls, answers).await {
            tracing::error!(error = errors::chain(&error), "the TCP socket failed");
        }
    });
    Ok(())
}

/// Starts what asks the code host.
fn start_code_host(
    config: &Config,
    store: &Store,
    tokens: &Tokens,
    health: Health,
    supervisor: &Supervisor,
) {
    let stop = supervisor.stop_token();
    let watch = Watch::new(
        store.clone(),
        watch::Options {
            api: config.code_host.api.clone(),
            tokens: tokens.clone(),
            interval: config.policy.watch_interval(),
            health: health.clone(),
        },
    );
    supervisor.spawn("pull request watch", OnExit::Fatal, watch.run(stop.clone()));
    let tidying = tidy::run(
        store.clone(),
        config.code_host.api.clone(),
        tokens.clone(),
        stop.clone(),
    );
    supervisor.spawn("tidying", OnExit::Fatal, tidying);
    if let Tokens::Minted(mint) = tokens {
        let keeping = mint.clone().keep(store.clone(), stop.clone());
        supervisor.spawn("tokens", OnExit::Fatal, keeping);
    }
    let (api, tokens) = (config.code_host.api.clone(), tokens.clone());
    supervisor.spawn("identify", OnExit::Log, identify(api, tokens, health, stop));
}

/// Learns who the code host's credential is, for `status`; a host that does not answer delays nothing.
async fn identify(api: url::Url, tokens: Tokens, health: Health, stop: CancellationToken) {
    let answer = tokio::select! {
        () = stop.cancelled() => return,
        answer = tokens.login(&api) => answer,
    };
    match answer {
        Ok(login) => health.set_login(&login),
        Err(error) => {
            let problem = format!("the code host's credential: {}", errors::chain(&error));
            tracing::warn!("{problem}");
            health.set_problem("code host", Some(problem));
        }
    }
}
