//! Tries whether workers can run on this machine: starts a sandbox with the production flags and looks around from
//! inside.
//!
//! `mainloop doctor` shows the outcome, and a worker whose sandbox does not start asks it why. It
//! changes nothing but a folder of its own, which it removes.

pub(crate) mod findings;
pub(crate) mod toolchains;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::channel::{Inspect, Inspection};
use crate::sidecar::sandbox::{
    Ids, Isolation, Limits, Sandbox, StartError, Toolchains, find_bubblewrap,
};

/// What to try.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The agent's binary.
    pub agent: PathBuf,
    /// The Claude Code binary that workers would run.
    pub claude: Option<PathBuf>,
    /// bubblewrap's, where it is not in the usual places.
    pub bubblewrap: Option<PathBuf>,
    /// Where workers live; the folder that is tried in is made there.
    pub data: PathBuf,
    /// The user's toolchains, mounted as for a worker.
    pub toolchains: Toolchains,
    /// What workers may take of the machine.
    pub limits: Limits,
}

/// The outcome, as `probe --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Every check is ok.
    pub ok: bool,
    /// In the order they were made. After one that everything hangs on, the rest is missing.
    pub checks: Vec<Check>,
    /// Toolchains of this user that workers do not see yet, as TOML for the user's configuration; empty where none.
    pub mounts_toml: String,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Short and stable: `bubblewrap`, `namespaces`, `network`, ...
    pub name: String,
    /// It is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do where it is not ok, one sentence or command; empty otherwise.
    pub fix: String,
}

/// Makes every check that can be made.
pub async fn run(options: &Options) -> Outcome {
    let mut checks = Vec::new();
    if let Err(stop) = try_all(options, &mut checks).await {
        checks.push(stop);
    }
    Outcome {
        ok: checks.iter().all(|check| check.ok),
        checks,
        mounts_toml: toolchains::propose(&options.toolchains),
    }
}

/// Stops with the check that everything after it hangs on.
async fn try_all(options: &Options, checks: &mut Vec<Check>) -> Result<(), Check> {
    let program = program(options)?;
    checks.push(good("bubblewrap", program.display().to_string()));

    let name = format!("probe-{}", std::process::id());
    let folder = options.data.join(&name);
    let sandbox = sandbox(options, program, &folder, &name)?;
    let _removed = made(options, &folder)?;
    let canary = Canary::make(&folder).map_err(|error| unwritable(options, &error))?;
    let worker = match sandbox.start().await {
        Ok(worker) => worker,
        Err(StartError::Host(error)) => {
            let fix = "put the data folder, the binaries and the toolchains where every user can reach them";
            return Err(bad("folders", error.to_string(), fix));
        }
        Err(StartError::Ended { stderr, .. }) => return Err(findings::namespaces(&stderr)),
        Err(error) => return Err(findings::namespaces(&crate::sidecar::chain(&error))),
    };
    checks.push(good(
        "namespaces",
        "the sandbox starts with namespaces of its own".to_owned(),
    ));
    checks.push(good("limits", worker.running.held().to_string()));

    let seen = worker.harness.inspect(canary.questions(options)).await;
    let ended = worker.running.end(&worker.harness).await;
    match seen {
        Ok(seen) => judge(&seen, &canary, options, checks),
        Err(error) => {
            return Err(bad(
                "sandbox",
                error.to_string(),
                "see the log of the probe",
            ));
        }
    }
    checks.push(match ended {
        Ok(_) => good("end", "the sandbox ends with everything in it".to_owned()),
        Err(error) => bad(
            "end",
            error.to_string(),
            "look for processes that hang on a disk or network",
        ),
    });
    Ok(())
}

/// bubblewrap's binary.
pub(crate) fn program(options: &Options) -> Result<PathBuf, Check> {
    find_bubblewrap(options.bubblewrap.as_deref()).ok_or_else(findings::no_bubblewrap)
}

/// A worker's sandbox, with its folders below `folder`.
pub(crate) fn sandbox(
    options: &Options,
    program: PathBuf,
    folder: &Path,
    name: &str,
) -> Result<Sandbox, Check> {
    if let Err(error) = options.toolchains.validate(&hidden(&options.data)) {
        let fix = "correct the [toolchains] part of the configuration";
        return Err(bad("toolchains", error.to_string(), fix));
    }
    Ok(Sandbox {
        isolation: Isolation::Bubblewrap {
            program,
            tmp_bytes: options.limits.tmp(),
        },
        agent: options.agent.clone(),
        claude: options.claude.clone(),
        work: folder.join("w").join("work"),
        run: folder.join("w").join("run"),
        toolchains: options.toolchains.clone(),
        ids: nix::unistd::geteuid()
            .is_root()
            .then(|| Ids::for_worker(name)),
        name: name.to_owned(),
        limits: options.limits.clone(),
    })
}

/// Makes the folder that a sandbox is tried in, which is removed in the end.
pub(crate) fn made(options: &Options, folder: &Path) -> Result<Removed, Check> {
    use std::os::unix::fs::PermissionsExt;

    let inner = folder.join("w");
    let removed = Removed(folder.to_owned());
    let made = std::fs::create_dir_all(&inner).and_then(|()| {
        for path in [folder, &inner] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    });
    match made {
        Ok(()) => Ok(removed),
        Err(error) => Err(unwritable(options, &error)),
    }
}

fn unwritable(options: &Options, error: &std::io::Error) -> Check {
    let fix = format!(
        "make {} a folder that this user can write",
        options.data.display()
    );
    bad("data folder", error.to_string(), &fix)
}

fn judge(seen: &Inspection, canary: &Canary, options: &Options, checks: &mut Vec<Check>) {
    let wall = "do not start tasks; report this with the output of `mainloop doctor -o json`";
    let mut holds = |name: &str, ok: bool, detail: &str, otherwise: String| {
        checks.push(if ok {
            good(name, detail.to_owned())
        } else {
            bad(name, otherwise, wall)
        });
    };
    let network = seen.interfaces == ["lo"] && seen.reached.is_empty() && !canary.was_reached();
    let (interfaces, reached) = (seen.interfaces.join(", "), seen.reached.join(", "));
    let otherwise = format!("interfaces {interfaces}; reached {reached}");
    holds(
        "network",
        network,
        "a loopback of its own and nothing else",
        otherwise,
    );

    let otherwise = format!("can see {}", seen.visible.join(", "));
    let files = "no home, no other worker, no socket of the host";
    holds("files", seen.visible.is_empty(), files, otherwise);

    let alone = seen.pid == 1 && seen.processes.len() == 1;
    let otherwise = format!(
        "is process {}, sees {}",
        seen.pid,
        seen.processes.join(", ")
    );
    holds("processes", alone, "sees its own only", otherwise);

    let has = |line: &str| seen.confinement.iter().any(|found| found == line);
    let weak = has("CapEff: 0000000000000000") && has("NoNewPrivs: 1") && seen.uid != 0;
    let rights = format!("uid {} inside, {}", seen.uid, seen.confinement.join(", "));
    holds("rights", weak, &rights, rights.clone());

    for ((name, fix), (ok, detail)) in programs(options).iter().zip(&seen.programs) {
        checks.push(if *ok {
            good(name, detail.clone())
        } else {
            bad(name, detail.clone(), fix)
        });
    }
    if options.claude.is_none() {
        checks.push(bad(
            "claude",
            "no Claude Code binary was named".to_owned(),
            findings::INSTALL_CLAUDE,
        ));
    }
}

/// Programs that must run inside, by the name of their check.
fn programs(options: &Options) -> Vec<(&'static str, &'static str)> {
    let mut programs = vec![
        (
            "git",
            "install git, for example with `sudo apt-get install git`",
        ),
        (
            "bash",
            "install bash, for example with `sudo apt-get install bash`",
        ),
    ];
    if options.claude.is_some() {
        programs.push(("claude", findings::INSTALL_CLAUDE));
    }
    programs
}

/// Things on the host that must not be found from inside.
struct Canary {
    listener: Option<TcpListener>,
    neighbour: PathBuf,
}

impl Canary {
    fn make(folder: &Path) -> std::io::Result<Self> {
        let neighbour = folder.join("neighbour");
        std::fs::create_dir(&neighbour)?;
        let listener = TcpListener::bind("127.0.0.1:0").ok();
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
        }
        Ok(Self {
            listener,
            neighbour,
        })
    }

    fn questions(&self, options: &Options) -> Inspect {
        let mut paths = vec![self.neighbour.clone()];
        // The data folder's own name may be there as well (`/tmp`); what is in it is what counts.
        paths.extend(
            hidden(&options.data)
                .into_iter()
                .filter(|path| *path != options.data),
        );
        let sockets = [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/user",
            "/run/dbus",
            "/etc/shadow",
            "/sys",
        ];
        paths.extend(sockets.map(PathBuf::from));
        // What the user mounted is seen, and so are the folders above it.
        let mounted: Vec<_> = options
            .toolchains
            .mounts
            .iter()
            .map(crate::sidecar::sandbox::Mount::inside)
            .collect();
        paths.retain(|path| {
            !mounted
                .iter()
                .any(|mount| mount.starts_with(path) || path.starts_with(mount))
        });
        let mut connect = vec!["1.1.1.1:443".to_owned(), "@/tmp/.X11-unix/X0".to_owned()];
        connect.extend(
            self.listener
                .as_ref()
                .and_then(|l| l.local_addr().ok())
                .map(|a| a.to_string()),
        );
        let claude = crate::sidecar::sandbox::CLAUDE;
        let programs = programs(options).into_iter().map(|(name, _)| {
            let program = if name == "claude" { claude } else { name };
            vec![program.to_owned(), "--version".to_owned()]
        });
        Inspect {
            paths: paths
                .iter()
                .map(|path| path.to_string_lossy().into_owned())
                .collect(),
            connect,
            programs: programs.collect(),
        }
    }

    fn was_reached(&self) -> bool {
        self.listener
            .as_ref()
            .is_some_and(|listener| listener.accept().is_ok())
    }
}

/// Removes the folder that a sandbox was tried in.
pub(crate) struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Whatever stays is in the way of nobody: the name has the process id.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What no mount may show: the data folder and the homes.
fn hidden(data: &Path) -> Vec<PathBuf> {
    let mut hidden = vec![
        data.to_owned(),
        PathBuf::from("/root"),
        PathBuf::from("/home"),
    ];
    let home = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    hidden.extend(
        home.map(|user| user.dir)
            .filter(|dir| dir.is_absolute() && dir != Path::new("/")),
    );
    hidden
}

pub(crate) fn good(name: &str, detail: String) -> Check {
    Check {
        name: name.to_owned(),
        ok: true,
        detail,
        fix: String::new(),
    }
}

pub(crate) fn bad(name: &str, detail: String, fix: &str) -> Check {
    Check {
        name: name.to_owned(),
        ok: false,
        detail,
        fix: fix.to_owned(),
    }
}
