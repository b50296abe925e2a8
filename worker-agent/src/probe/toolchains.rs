//! Toolchains in the user's home that workers would miss, proposed as configuration.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::sidecar::sandbox::{Ids, Mount, Toolchains};

/// The configuration for what is there and not mounted yet, as the `[toolchains]` table; empty where nothing is.
pub(crate) fn propose(present: &Toolchains) -> String {
    let home = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    let Some(home) = home.map(|user| user.dir) else {
        return String::new();
    };
    // As root, workers have another uid, which a closed home does not let in.
    let worker = Ids::for_worker("probe");
    let root = nix::unistd::geteuid().is_root();
    let mut found = find(&home, &|path| !root || worker.can_reach(path));
    found
        .mounts
        .retain(|mount| !present.mounts.iter().any(|there| there.host == mount.host));
    if found.mounts.is_empty() {
        return String::new();
    }
    toml::to_string_pretty(&Table { toolchains: found }).unwrap_or_default()
}

#[derive(Serialize)]
struct Table {
    toolchains: Toolchains,
}

fn find(home: &Path, usable: &dyn Fn(&Path) -> bool) -> Toolchains {
    let mut found = Toolchains::default();
    // rustup: the compilers and the proxies in cargo's bin; never ~/.cargo itself, which holds credentials.
    let (cargo, rustup) = (home.join(".cargo/bin"), home.join(".rustup"));
    if cargo.join("cargo").exists() && rustup.is_dir() && usable(&cargo) {
        mount(&mut found, &cargo, "/opt/cargo/bin", &["/opt/cargo/bin"]);
        mount(&mut found, &rustup, "/opt/rustup", &[]);
        found.env.insert("RUSTUP_HOME".into(), "/opt/rustup".into());
    }
    if let Some(node) = newest(&home.join(".nvm/versions/node")).filter(|path| usable(path)) {
        mount(&mut found, &node, "/opt/node", &["/opt/node/bin"]);
    }
    if let Some(python) = newest(&home.join(".pyenv/versions")).filter(|path| usable(path)) {
        mount(&mut found, &python, "/opt/python", &["/opt/python/bin"]);
    }
    for go in [PathBuf::from("/opt/go"), home.join("go-sdk")] {
        if go.join("bin/go").exists() && usable(&go) {
            mount(&mut found, &go, "/opt/go", &["/opt/go/bin"]);
            break;
        }
    }
    if let Some(jdk) = newest(&home.join(".sdkman/candidates/java")).filter(|path| usable(path)) {
        mount(&mut found, &jdk, "/opt/jdk", &["/opt/jdk/bin"]);
        found.env.insert("JAVA_HOME".into(), "/opt/jdk".into());
    }
    for (folder, inside) in [(".bun", "/opt/bun"), (".deno", "/opt/deno")] {
        let host = home.join(folder).join("bin");
        if host.is_dir() && usable(&host) {
            mount(&mut found, &host, inside, &[inside]);
        }
    }
    found
}

fn mount(found: &mut Toolchains, host: &Path, inside: &str, path: &[&str]) {
    found.mounts.push(Mount {
        host: host.to_owned(),
        path: Some(inside.into()),
    });
    found
        .path
        .extend(path.iter().map(|entry| (*entry).to_owned()));
}

/// The folder with the highest version in its name.
fn newest(versions: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(versions).ok()?.flatten();
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink());
    folders.max_by_key(|path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let numbers = name
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse::<u64>().ok());
        numbers.collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn toolchains_in_a_home_become_configuration() {
        let home = tempfile::tempdir().unwrap();
        for folder in [
            ".cargo/bin",
            ".rustup",
            ".nvm/versions/node/v9.1.0",
            ".nvm/versions/node/v22.3.0",
        ] {
            std::fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        std::fs::write(home.path().join(".cargo/bin/cargo"), "").unwrap();
        std::fs::write(home.path().join(".cargo/credentials.toml"), "").unwrap();
        let found = find(home.path(), &|_| true);
        let hosts: Vec<_> = found
            .mounts
            .iter()
            .map(|mount| mount.host.strip_prefix(home.path()).unwrap())
            .collect();
        let wanted = [".cargo/bin", ".rustup", ".nvm/versions/node/v22.3.0"];
        assert_eq!(hosts, wanted.map(Path::new));
        assert_eq!(found.path, ["/opt/cargo/bin", "/opt/node/bin"]);
        let text = toml::to_string_pretty(&found).unwrap();
        assert_eq!(toml::from_str::<Toolchains>(&text).unwrap(), found);
        assert_eq!(found.validate(&[home.path().to_owned()]), Ok(()));
    }
}
