//! bubblewrap's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Sandbox, host};

/// The port on the sandbox's own loopback that leads to the proxies. High, so that tests of the repository which
/// want a usual port find it free.
pub const HARNESS_PORT: u16 = 41999;

pub(crate) const CLAUDE: &str = "/mainloop/claude";
const AGENT: &str = "/mainloop/agent";
const SOCKETS: &str = "/mainloop/sock";
const WORK: &str = "/work";
/// Who one is inside: an ordinary user, whoever it is outside.
pub(super) const INSIDE: &str = "1000";

/// The arguments for bubblewrap, the harness's command at their end.
pub(super) fn arguments(sandbox: &Sandbox, tmp_bytes: u64) -> Vec<OsString> {
    let mut args = Arguments(Vec::new());
    args.flags(&["--unshare-all", "--unshare-user", "--disable-userns"]);
    args.flags(&[
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--clearenv",
    ]);
    args.flags(&[
        "--uid",
        INSIDE,
        "--gid",
        INSIDE,
        "--hostname",
        "mainloop",
        "--cap-drop",
        "ALL",
    ]);

    system(&mut args);
    etc(&mut args, &sandbox.run.join("etc"));

    let tmp = tmp_bytes.to_string();
    args.flags(&["--proc", "/proc", "--dev", "/dev"]);
    // Both are memory: bounded, and nothing else there can be written.
    args.flags(&[
        "--size",
        &tmp,
        "--perms",
        "1777",
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
    ]);
    args.flags(&["--size", &tmp, "--perms", "1777", "--tmpfs", "/tmp"]);

    for mount in &sandbox.toolchains.mounts {
        args.bind("--ro-bind", &mount.host, mount.inside());
    }
    // After the user's mounts, so that none of them can lie over these.
    args.bind("--bind", &sandbox.work, Path::new(WORK));
    args.bind("--ro-bind", &sandbox.sockets(), Path::new(SOCKETS));
    args.bind("--ro-bind", &sandbox.agent, Path::new(AGENT));
    if let Some(claude) = &sandbox.claude {
        args.bind("--ro-bind", claude, Path::new(CLAUDE));
    }
    args.flags(&["--remount-ro", "/", "--chdir", WORK]);

    for (name, value) in super::mounts::environment(&sandbox.toolchains) {
        args.flags(&["--setenv", &name, &value]);
    }
    args.flags(&[
        "--",
        AGENT,
        "harness",
        "--control",
        &format!("{SOCKETS}/control.sock"),
    ]);
    args.flags(&["--proxy", &format!("{SOCKETS}/proxy.sock"), "--work", WORK]);
    args.flags(&["--port", &HARNESS_PORT.to_string()]);
    args.0
}

/// `/usr`, and what belongs to it: links into it where the system is merged, folders where not.
fn system(args: &mut Arguments) {
    args.bind("--ro-bind", Path::new("/usr"), Path::new("/usr"));
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        let path = Path::new(name);
        match std::fs::read_link(path) {
            Ok(target) => {
                args.0.push("--symlink".into());
                args.0.push(target.into());
                args.0.push(name.into());
            }
            Err(_) if path.is_dir() => args.bind("--ro-bind", path, path),
            Err(_) => {}
        }
    }
}

/// What programs need of `/etc` and nobody minds being read. No passwords, keys, host names or resolver.
fn etc(args: &mut Arguments, made: &Path) {
    let shared = [
        "/etc/alternatives",
        "/etc/ca-certificates",
        "/etc/crypto-policies",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/pki/ca-trust/extracted",
        "/etc/pki/tls/cert.pem",
        "/etc/pki/tls/certs",
        "/etc/pki/tls/openssl.cnf",
        "/etc/ssl/cert.pem",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
    ];
    for path in shared.map(Path::new) {
        // A link that leads out of what is bound would leave a hole; bubblewrap follows it here.
        if path.exists() {
            args.bind("--ro-bind", path, path);
        }
    }
    for (name, _) in host::ETC {
        args.bind(
            "--ro-bind",
            &made.join(name),
            &PathBuf::from("/etc").join(name),
        );
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn bind(&mut self, how: &str, source: &Path, target: &Path) {
        self.0.extend([how.into(), source.into(), target.into()]);
    }
}
