//! Why a sandbox does not start, told from what bubblewrap said and what the kernel is set to.

use std::path::Path;

use super::{Check, bad};

pub(super) const INSTALL_CLAUDE: &str =
    "install Claude Code with `make claude`, or name its binary in MAINLOOP_CLAUDE";

/// bubblewrap is not there.
pub(super) fn no_bubblewrap() -> Check {
    let fix = "install bubblewrap 0.8 or newer: `sudo apt-get install bubblewrap`, `sudo dnf install bubblewrap` \
               or `sudo pacman -S bubblewrap`";
    bad("bubblewrap", "bwrap was not found".to_owned(), fix)
}

/// bubblewrap runs and gives up.
pub(crate) fn namespaces(said: &str) -> Check {
    let kernel = Kernel::read(Path::new("/proc/sys"));
    let contained = ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|path| Path::new(path).exists());
    bad(
        "namespaces",
        said.trim().to_owned(),
        fix(said, &kernel, contained),
    )
}

/// The settings that decide over user namespaces; `None` where this kernel does not have one.
#[derive(Debug, Default)]
struct Kernel {
    max_user_namespaces: Option<u64>,
    unprivileged_userns_clone: Option<u64>,
    apparmor_restrict: Option<u64>,
}

impl Kernel {
    fn read(sysctl: &Path) -> Self {
        let value = |name: &str| {
            std::fs::read_to_string(sysctl.join(name))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Self {
            max_user_namespaces: value("user/max_user_namespaces"),
            unprivileged_userns_clone: value("kernel/unprivileged_userns_clone"),
            apparmor_restrict: value("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

fn fix(said: &str, kernel: &Kernel, contained: bool) -> &'static str {
    if said.contains("Unknown option") {
        return "install bubblewrap 0.8 or newer: this one does not know an option that the sandbox needs";
    }
    if kernel.max_user_namespaces == Some(0) {
        return "allow user namespaces: `sudo sysctl -w user.max_user_namespaces=15000`, and the same line without \
                `sudo sysctl -w` in /etc/sysctl.d/90-mainloop.conf to keep it";
    }
    if kernel.unprivileged_userns_clone == Some(0) {
        return "allow user namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1`, and the same setting in \
                /etc/sysctl.d/90-mainloop.conf to keep it";
    }
    if kernel.apparmor_restrict == Some(1) {
        return "Ubuntu restricts user namespaces by AppArmor: give bwrap a profile with `userns,` in \
                /etc/apparmor.d/bwrap and reload it (`sudo apparmor_parser -r /etc/apparmor.d/bwrap`), or lift the \
                restriction with `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`";
    }
    if contained {
        return "this is a container whose seccomp or AppArmor profile forbids namespaces: run mainloop outside of it, \
                or start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                --security-opt systempaths=unconfined`";
    }
    if said.contains("execvp") || said.contains("error while loading shared libraries") {
        return "the agent's binary does not run inside: install a build of mainloop for this system";
    }
    "run `bwrap --unshare-all --ro-bind / / true` to see what the system refuses"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kernel(settings: &[(&str, &str)]) -> Kernel {
        let sysctl = tempfile::tempdir().unwrap();
        for (name, value) in settings {
            let path = sysctl.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{value}\n")).unwrap();
        }
        Kernel::read(sysctl.path())
    }

    #[test]
    fn each_restriction_has_its_own_fix() {
        let denied = "bwrap: setting up uid map: Permission denied";
        let cases = [
            (
                kernel(&[("user/max_user_namespaces", "0")]),
                false,
                "user.max_user_namespaces",
            ),
            (
                kernel(&[("kernel/unprivileged_userns_clone", "0")]),
                false,
                "kernel.unprivileged_userns_clone",
            ),
            (
                kernel(&[("kernel/apparmor_restrict_unprivileged_userns", "1")]),
                false,
                "/etc/apparmor.d/bwrap",
            ),
            (
                kernel(&[("user/max_user_namespaces", "9000")]),
                true,
                "seccomp=unconfined",
            ),
            (kernel(&[]), false, "bwrap --unshare-all"),
        ];
        for (kernel, contained, wanted) in cases {
            let text = fix(denied, &kernel, contained);
            assert!(text.contains(wanted), "{kernel:?}: {text}");
        }
        let old = fix(
            "bwrap: Unknown option --disable-userns",
            &Kernel::default(),
            false,
        );
        assert!(old.contains("0.8 or newer"), "{old}");
    }
}
