//! The private PostgreSQL: a server of the plane's own, in its data folder, on a Unix socket, durable.
//!
//! The server outlives the plane: a plane that starts first tries to connect and adopts what it finds, and only
//! [`Server::stop`] ends it. It survives `kill -9`: PostgreSQL replays its log, and the folder is made under another
//! name and renamed, so that a broken-off `initdb` is never taken for a cluster. Never turns fsync off, never listens
//! on a network, keeps no password: the socket's folder is closed, and the server asks the kernel who its peer is.

mod binaries;
mod owner;

use std::{
    ffi::OsString,
    io,
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio_postgres::{Config, NoTls, error::SqlState};
use tokio_util::sync::CancellationToken;

pub use binaries::Binaries;
use owner::Owner;

/// The database's role, and the name of the database.
const NAME: &str = "mainloop";
/// It only names the socket's file.
const PORT: u16 = 5432;
/// Longest path of a socket that the kernel takes.
const SOCKET_PATH_MAX: usize = 107;
/// How long a server may take to be ready; it may have to replay its log.
const READY: Duration = Duration::from_mins(2);
/// How long a server may take to stop.
const STOP: Duration = Duration::from_secs(30);
/// Pause between two looks at a server that starts or stops.
const LOOK: Duration = Duration::from_millis(10);
/// Pause between two looks at a server that runs.
const WATCH: Duration = Duration::from_secs(1);
/// Connections that it takes: the pool, the listener, and room for a person who looks.
const CONNECTIONS: u16 = 64;

/// What a private server needs to know.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The plane's data folder.
    pub data_dir: PathBuf,
    /// Folder of `postgres` and `initdb`; searched for when unset.
    pub binaries: Option<PathBuf>,
    /// The `PATH` to search.
    pub search_path: OsString,
}

/// Why there is no private server.
#[derive(Debug, Error)]
pub enum Error {
    /// No programs were found.
    #[error(
        "no PostgreSQL server programs found (looked in {looked}); install them (Debian, Ubuntu: apt install postgresql; \
         Fedora, RHEL: dnf install postgresql-server; Arch: pacman -S postgresql; Alpine: apk add postgresql), name their folder with \
         --postgres-bin, or use a server of your own with DATABASE_URL"
    )]
    NoBinaries {
        /// Where was looked.
        looked: String,
    },
    /// The data is of another major version.
    #[error(
        "the data in {path} was written by PostgreSQL {data}, and only {found} was found: install PostgreSQL {data}, or \
         dump the data with it and restore"
    )]
    OtherVersion {
        /// The cluster.
        path: PathBuf,
        /// Its major version.
        data: String,
        /// Versions of the programs that are there.
        found: String,
    },
    /// The server's user cannot reach its own folder.
    #[error(
        "the database server runs as user {user}, who may not enter {path}: choose a data folder that this user can reach \
         (MAINLOOP_DATA_DIR), or run `chmod o+x {path}`"
    )]
    NotTraversable {
        /// The server's user.
        user: String,
        /// The folder.
        path: PathBuf,
    },
    /// The socket's path is too long.
    #[error(
        "the socket path {path} has {length} bytes, and the system takes {SOCKET_PATH_MAX}: choose a shorter data folder (MAINLOOP_DATA_DIR)"
    )]
    LongPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The caller or the server's user has no name.
    #[error(
        "user id {0} has no entry in the user database, which PostgreSQL needs: add one to /etc/passwd"
    )]
    NoUser(u32),
    /// Started by root, and there is nobody to run it as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as"
    )]
    NoOwner,
    /// The folder belongs to somebody else.
    #[error(
        "{path} belongs to user id {owner}, not to user {user} who would run the database server"
    )]
    OtherOwner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who would run it.
        user: String,
    },
    /// Something with files did not work.
    #[error("could not {what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder is there without a cluster in it; a cluster of ours is moved there as a whole.
    #[error(
        "{path} is there and holds no cluster: mount or restore what belongs there, or move it away to start with an empty database"
    )]
    NoCluster {
        /// The folder.
        path: PathBuf,
    },
    /// The cluster could not be made.
    #[error("initdb failed ({status}): {output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The server ended while it started.
    #[error("the database server ended at its start ({status}); its log {log} ends with: {tail}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The server is there but does not answer.
    #[error("the database server was not ready after {} s (last answer: {last}); its log is {log}", READY.as_secs())]
    NotReady {
        /// What connecting said last.
        last: String,
        /// Its log.
        log: PathBuf,
    },
    /// The server does not let the plane in.
    #[error("the database server refused the plane")]
    Refused(#[source] tokio_postgres::Error),
    /// The server does not end.
    #[error("the database server (process {pid}) did not stop within {} s", STOP.as_secs())]
    NotStopped {
        /// Its process.
        pid: i32,
    },
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    options: Options,
    layout: Layout,
    /// None where the server was adopted: then it is no child of this process.
    child: Option<Child>,
}

/// Where everything is. What the plane writes is beside the server's folder: where the plane is root, the server's user
/// could put a link in its way there.
#[derive(Clone, Debug)]
struct Layout {
    /// Closed to all but the server's user and root.
    folder: PathBuf,
    /// Under this name while it is made.
    unfinished: PathBuf,
    /// What the server says.
    log: PathBuf,
    /// Who may connect.
    access: PathBuf,
    /// Which user of the system is which role.
    users: PathBuf,
}

impl Layout {
    fn new(data_dir: &Path) -> Self {
        Self {
            folder: data_dir.join("postgres"),
            unfinished: data_dir.join("postgres.tmp"),
            log: data_dir.join("postgres.log"),
            access: data_dir.join("pg_hba.conf"),
            users: data_dir.join("pg_ident.conf"),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn sockets(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// The socket, if its path is not too long.
    fn socket(&self) -> Result<PathBuf, Error> {
        let path = self.sockets().join(format!(".s.PGSQL.{PORT}"));
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            return Err(Error::LongPath { path, length });
        }
        Ok(path)
    }

    /// The programs that fit the data, or the best ones where there is none yet.
    fn fitting(&self, options: &Options) -> Result<Binaries, Error> {
        let mut found = Binaries::find(options)?;
        match self.version()? {
            Some(data) => Binaries::of_version(found, &data).map_err(|found| Error::OtherVersion {
                path: self.data(),
                data,
                found,
            }),
            None => Ok(found.swap_remove(0)),
        }
    }

    /// Major version of the cluster; none where there is nothing yet. What does not read is not taken for nothing.
    fn version(&self) -> Result<Option<String>, Error> {
        let path = self.data().join("PG_VERSION");
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(on("read", &path)(error)),
        }
        // A link to what is not mounted is there as well.
        match std::fs::symlink_metadata(&self.folder) {
            Ok(_) => Err(Error::NoCluster {
                path: self.folder.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(on("look at", &self.folder)(error)),
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }
}

/// Whether a server could run, without making or starting anything: what it would be, or what is in the way.
pub fn look(options: &Options) -> Result<String, Error> {
    let layout = Layout::new(&options.data_dir);
    layout.socket()?;
    owner::name(nix::unistd::geteuid())?;
    let owner = Owner::look(&layout.folder)?;
    let there = options
        .data_dir
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    owner.reaches(there)?;
    let binaries = layout.fitting(options)?;
    Ok(format!(
        "PostgreSQL {} in {}, to run as {}",
        binaries.version,
        binaries.folder.display(),
        owner.name()
    ))
}

impl Server {
    /// Adopts the server of this data folder, or starts it, and makes its cluster where there is none yet.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let mut server = Self {
            layout: Layout::new(&options.data_dir),
            options,
            child: None,
        };
        server.bring_up().await?;
        Ok(server)
    }

    /// How to connect to the plane's database.
    pub fn config(&self) -> Config {
        config(&self.layout, NAME)
    }

    /// How to connect to another database of this server.
    #[cfg(test)]
    pub(crate) fn config_for(&self, database: &str) -> Config {
        config(&self.layout, database)
    }

    /// Whether this process started it, and did not find it running.
    pub fn is_new(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the server again whenever it is gone, until told to stop. Does not stop the server.
    pub async fn keep(&mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WATCH) => {}
            }
            if self.is_running() {
                continue;
            }
            tracing::warn!("the database server is gone; starting it again");
            if let Err(error) = self.bring_up().await {
                tracing::error!(
                    error = crate::errors::chain(&error),
                    "could not start the database server again"
                );
            }
        }
    }

    /// Ends the server: clients are disconnected, everything committed is on disk.
    pub async fn stop(mut self) -> Result<(), Error> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        // A process that is gone already is what is wanted.
        let _ = kill(pid, Signal::SIGINT);
        let since = Instant::now();
        while self.is_running() {
            if since.elapsed() > STOP {
                return Err(Error::NotStopped { pid: pid.as_raw() });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn bring_up(&mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            // It is gone; reap it.
            let _ = child.try_wait();
        }
        self.layout.socket()?;
        let owner = Owner::find(&self.options.data_dir, &self.layout.folder)?;
        let caller = owner::name(nix::unistd::geteuid())?;
        let is_there = self.layout.version()?.is_some();
        if is_there {
            owner.reaches(&self.layout.folder)?;
            if self.running_pid().is_some() {
                match self.until_ready().await {
                    // It was on its way out: the next one is started as if it had never been seen.
                    Err(Error::Ended { .. }) => {}
                    adopted => return adopted,
                }
            }
        }
        let binaries = self.layout.fitting(&self.options)?;
        if !is_there {
            self.make(&binaries, &owner).await?;
        }
        self.write_access(&caller)?;
        self.child = Some(self.launch(&binaries, &owner)?);
        self.until_ready().await
    }

    /// Makes the cluster beside its final place, and moves it there when it is whole.
    async fn make(&self, binaries: &Binaries, owner: &Owner) -> Result<(), Error> {
        let unfinished = &self.layout.unfinished;
        if unfinished.exists() {
            std::fs::remove_dir_all(unfinished).map_err(on("remove the unfinished", unfinished))?;
        }
        let sockets = unfinished.join("s");
        for folder in [unfinished, &sockets] {
            owner::make_closed(folder)?;
        }
        // The outer one last: from then on its user decides what the names in it mean.
        for folder in [&sockets, unfinished] {
            owner.give(folder)?;
        }
        owner.reaches(unfinished)?;
        let output = Self::command(&binaries.initdb(), owner)
            .arg("-U")
            .arg(NAME)
            .args([
                "--data-checksums",
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=peer",
                "--auth-host=reject",
                "-D",
            ])
            .arg(unfinished.join("data"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(on("run", &binaries.initdb()))?;
        if !output.status.success() {
            return Err(Error::Initdb {
                status: output.status,
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        std::fs::rename(unfinished, &self.layout.folder)
            .map_err(on("move into place", &self.layout.folder))?;
        std::fs::File::open(&self.options.data_dir)
            .and_then(|folder| folder.sync_all())
            .map_err(on("sync", &self.options.data_dir))
    }

    /// Who may connect: this very user, by the kernel's word. Written at each start, for the plane's user may change.
    fn write_access(&self, caller: &str) -> Result<(), Error> {
        owner::write(&self.layout.access, "local all all peer map=mainloop\n")?;
        owner::write(
            &self.layout.users,
            &format!("mainloop \"{caller}\" {NAME}\n"),
        )
    }

    fn launch(&self, binaries: &Binaries, owner: &Owner) -> Result<Child, Error> {
        let log = &self.layout.log;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .map_err(on("open", log))?;
        let errors = file.try_clone().map_err(on("open", log))?;
        let setting = |name: &str, path: &Path| format!("{name}={}", path.display());
        Self::command(&binaries.postgres(), owner)
            .arg("-D")
            .arg(self.layout.data())
            .args(["-c", "listen_addresses=", "-c", "fsync=on"])
            .args(["-c", "unix_socket_permissions=0700", "-c"])
            .arg(setting("unix_socket_directories", &self.layout.sockets()))
            .arg("-c")
            .arg(setting("hba_file", &self.layout.access))
            .arg("-c")
            .arg(setting("ident_file", &self.layout.users))
            .arg("-c")
            .arg(format!("max_connections={CONNECTIONS}"))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(on("run", &binaries.postgres()))
    }

    /// A program as the server's user, with nothing of the plane's environment, out of reach of the terminal's Ctrl-C.
    fn command(program: &Path, owner: &Owner) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .process_group(0);
        owner.run_as(&mut command);
        command
    }

    /// Waits until the server takes connections, and makes the database where it is not there yet.
    async fn until_ready(&mut self) -> Result<(), Error> {
        let since = Instant::now();
        loop {
            let last = match self.make_database().await {
                Ok(()) => return Ok(()),
                // It answered, and not by saying that it starts or stops.
                Err(error) if error.code().is_some_and(|code| !is_passing(code)) => {
                    return Err(Error::Refused(error));
                }
                Err(error) => crate::errors::chain(&error),
            };
            let adopted_is_gone = self.child.is_none() && self.running_pid().is_none();
            let ended = match &mut self.child {
                Some(child) => child.try_wait().ok().flatten(),
                None => adopted_is_gone.then(|| ExitStatus::from_raw(0)),
            };
            if let Some(status) = ended {
                return Err(Error::Ended {
                    status,
                    tail: tail(&self.layout.log),
                    log: self.layout.log.clone(),
                });
            }
            if since.elapsed() > READY {
                return Err(Error::NotReady {
                    last,
                    log: self.layout.log.clone(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn make_database(&self) -> Result<(), tokio_postgres::Error> {
        let client = connect(&config(&self.layout, "postgres")).await?;
        let there = client
            .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&NAME])
            .await?;
        if there.is_none() {
            match client.batch_execute("CREATE DATABASE mainloop").await {
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_DATABASE) => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => self.running_pid().is_some(),
        }
    }

    fn pid(&self) -> Option<Pid> {
        match &self.child {
            Some(child) => child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
            None => self.running_pid(),
        }
    }

    /// The server that the cluster's own file names, if it is really one of this cluster.
    fn running_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.layout.pid_file()).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        // A server works in its data folder; any other process that has the number by now does not.
        // Nor does one of another user, whatever the server's user has written into that file.
        let process = PathBuf::from(format!("/proc/{pid}"));
        let works_in = std::fs::read_link(process.join("cwd")).ok()?;
        let data = std::fs::canonicalize(self.layout.data()).ok()?;
        let runs_as = std::fs::metadata(process).ok()?.uid();
        let owner = std::fs::metadata(&self.layout.folder).ok()?.uid();
        (works_in == data && runs_as == owner).then(|| Pid::from_raw(pid))
    }
}

fn config(layout: &Layout, database: &str) -> Config {
    let mut config = Config::new();
    config
        .host_path(layout.sockets())
        .port(PORT)
        .user(NAME)
        .dbname(database)
        .connect_timeout(Duration::from_secs(10));
    config
}

/// A connection that drives itself until its client is dropped.
async fn connect(config: &Config) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with its client, within this file"
    )]
    tokio::spawn(async move {
        // Its error reaches whoever uses the client.
        let _ = connection.await;
    });
    Ok(client)
}

/// Whether a server that says this is only starting or stopping.
fn is_passing(code: &SqlState) -> bool {
    *code == SqlState::CANNOT_CONNECT_NOW || *code == SqlState::ADMIN_SHUTDOWN
}

/// The last lines of a log, for an error.
fn tail(log: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

fn on(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

#[cfg(test)]
mod tests;
