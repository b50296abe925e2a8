//! Finding the server's programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Error, Options};

/// Oldest server that the statements of the store run on.
const OLDEST: u32 = 14;

/// A folder with `postgres` and `initdb` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub folder: PathBuf,
    /// Major version.
    pub major: u32,
    /// The whole version as the program says it.
    pub version: String,
}

impl Binaries {
    /// All that are there, best first: the configured folder alone, else `PATH`, then the distributions' folders from
    /// the newest version down. Never empty.
    pub fn find(options: &Options) -> Result<Vec<Self>, Error> {
        let folders = match &options.binaries {
            Some(folder) => vec![folder.clone()],
            None => std::env::split_paths(&options.search_path)
                .chain(distributions())
                .collect(),
        };
        Self::among(&folders)
    }

    fn among(folders: &[PathBuf]) -> Result<Vec<Self>, Error> {
        let mut found: Vec<Self> = Vec::new();
        for folder in folders {
            let known = found.iter().any(|there| there.folder == *folder);
            if let Some(binaries) = Self::in_folder(folder).filter(|_| !known) {
                found.push(binaries);
            }
        }
        if found.is_empty() {
            let looked: Vec<String> = folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            return Err(Error::NoBinaries {
                looked: if looked.is_empty() {
                    "no folder".to_owned()
                } else {
                    looked.join(", ")
                },
            });
        }
        Ok(found)
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        if !folder.is_absolute() || !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .env_clear()
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.split_whitespace().nth(2)?.to_owned();
        let major = version
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()?;
        (major >= OLDEST).then(|| Self {
            folder: folder.to_owned(),
            major,
            version,
        })
    }

    /// Those of a cluster's major version; else the versions that are there.
    pub(super) fn of_version(found: Vec<Self>, major: &str) -> Result<Self, String> {
        let versions: Vec<String> = found
            .iter()
            .map(|binaries| format!("PostgreSQL {}", binaries.major))
            .collect();
        found
            .into_iter()
            .find(|binaries| binaries.major.to_string() == major)
            .ok_or_else(|| versions.join(", "))
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

/// Where distributions put the programs, newest version first.
fn distributions() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name
                .strip_prefix(prefix)
                .and_then(|version| version.parse().ok());
            if let Some(version) = version {
                found.push((version, entry.path().join("bin")));
            }
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(folder: &Path, version: &str) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["postgres", "initdb"] {
            let path = folder.join(name);
            let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn the_first_folder_wins_and_old_versions_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let [old, first, second] = ["old", "first", "second"].map(|name| folder.path().join(name));
        fake(&old, "9.6.1");
        fake(&first, "15.2 (Debian 15.2-1)");
        fake(&second, "17beta1");
        let found = Binaries::among(&[
            old,
            folder.path().join("none"),
            first.clone(),
            second.clone(),
        ])
        .unwrap();
        let seen: Vec<_> = found.iter().map(|b| (b.folder.clone(), b.major)).collect();
        assert_eq!(seen, [(first, 15), (second, 17)]);
        assert_eq!(Binaries::of_version(found.clone(), "17").unwrap().major, 17);
        assert_eq!(
            Binaries::of_version(found, "12").unwrap_err(),
            "PostgreSQL 15, PostgreSQL 17"
        );
    }

    #[test]
    fn without_programs_the_error_says_how_to_install_them() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            binaries: Some(folder.path().to_owned()),
            ..Options::default()
        };
        let error = Binaries::find(&options).unwrap_err().to_string();
        assert!(
            error.contains("apt install postgresql") && error.contains("dnf"),
            "{error}"
        );
        assert!(
            error.contains(&folder.path().display().to_string()),
            "{error}"
        );
    }
}
