//! What files, output and refusals say about a repository's tests. Pure.

use std::path::PathBuf;

use crate::channel;
use crate::probe::{Check, bad};

/// Files whose text a guess looks at.
pub(super) const READ: [&str; 2] = ["package.json", "Makefile"];
/// The name of the check of a program that was not found.
pub(super) const TOOL: &str = "tool";
/// Things that are told at most; what is behind them misses the same.
const MOST: usize = 16;

/// Something that a command did not find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// A program.
    Tool(String),
    /// A module of Python's.
    PythonModule(String),
}

/// What the output of commands says was not found.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Missing>);

impl Found {
    /// Looks at one line.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(missing) = missing(line)
            && self.0.len() < MOST
            && !self.0.contains(&missing)
        {
            self.0.push(missing);
        }
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = &Missing> {
        self.0.iter()
    }
}

/// What a line says was not found: the words of shells, env, make, cargo and Python.
fn missing(line: &str) -> Option<Missing> {
    let line = line.trim();
    let name = |text: &str| {
        let name = text
            .trim()
            .trim_matches(|c| matches!(c, '`' | '\'' | '"' | '‘' | '’'));
        let is_name = !name.is_empty()
            && name.len() <= 100
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._+-/".contains(c));
        is_name.then(|| name.to_owned())
    };
    if let Some((_, module)) = line.split_once("No module named ") {
        return name(module).map(Missing::PythonModule);
    }
    if let Some(rest) = line.strip_suffix(": command not found") {
        return name(rest.rsplit(": ").next()?).map(Missing::Tool);
    }
    // dash, with its line: `sh: 1: node: not found`.
    if let Some(rest) = line.strip_suffix(": not found") {
        let mut parts = rest.rsplit(": ");
        let tool = parts.next()?;
        let number = parts.next()?;
        return number
            .parse::<u32>()
            .ok()
            .and(name(tool).map(Missing::Tool));
    }
    if let Some(rest) = line.strip_suffix(": No such file or directory") {
        let (program, tool) = rest.split_once(": ")?;
        let asks = ["env", "/usr/bin/env", "make"].contains(&program);
        return asks.then(|| name(tool).map(Missing::Tool)).flatten();
    }
    if let Some(rest) = line.strip_prefix("error: linker ") {
        return name(rest.strip_suffix(" not found")?).map(Missing::Tool);
    }
    None
}

/// What to do about it. `proposed` is the table of toolchains that workers could see.
pub(super) fn missed(
    missing: &Missing,
    proposed: &str,
    on_host: &dyn Fn(&str) -> Option<PathBuf>,
) -> Check {
    match missing {
        Missing::PythonModule(module) => bad(
            "python",
            format!("the module {module} was not found"),
            "have `setup` of .mainloop.toml install it, into a virtual environment of the repository's own",
        ),
        Missing::Tool(tool) => {
            let fix = match on_host(tool) {
                Some(path) => {
                    let folder = path.parent().map(super::shown).unwrap_or_default();
                    if proposed.contains(&format!("\"{folder}\"")) {
                        format!("put the table below into the policy: it mounts {folder}")
                    } else {
                        format!(
                            "mount {folder}, where this machine has it, and what belongs to it, by [toolchains] of the policy"
                        )
                    }
                }
                None => "install it on this machine: workers see /usr; or mount where it is by [toolchains] of the policy"
                    .to_owned(),
            };
            bad(TOOL, format!("{tool} was not found"), &fix)
        }
    }
}

/// How to have a host allowed that was refused as `host:port`.
pub(super) fn allow(host: &str) -> String {
    let listed = ["80", "443"]
        .iter()
        .find_map(|port| host.strip_suffix(&format!(":{port}")))
        .unwrap_or(host);
    format!("add \"{listed}\" to `hosts` of the policy, if workers may reach it")
}

/// How a command ended that did not end well, with its last words.
pub(super) fn ended(error: &channel::Error) -> String {
    let channel::Error::Failed(failure) = error else {
        return error.to_string();
    };
    let last = failure
        .detail
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty());
    let last = last
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default();
    match failure.code {
        Some(code) => format!("ended with exit code {code}{last}"),
        None => format!("did not end by itself{last}"),
    }
}

/// A test command by the names in the root and the texts of some, with the file that says so.
pub(super) fn guess(names: &[&str], texts: &[(&str, String)]) -> Option<(String, &'static str)> {
    let has = |name: &str| names.contains(&name);
    let text = |name: &str| texts.iter().find(|(path, _)| *path == name);
    if has("Cargo.toml") {
        return Some(("cargo test".to_owned(), "Cargo.toml"));
    }
    if let Some((_, package)) = text("package.json")
        && serde_json::from_str::<serde_json::Value>(package)
            .is_ok_and(|package| package["scripts"]["test"].is_string())
    {
        let command = if has("pnpm-lock.yaml") {
            "pnpm install --frozen-lockfile && pnpm test"
        } else if has("yarn.lock") {
            "yarn install --frozen-lockfile && yarn test"
        } else if has("package-lock.json") {
            "npm ci && npm test"
        } else {
            "npm install && npm test"
        };
        return Some((command.to_owned(), "package.json"));
    }
    if has("go.mod") {
        return Some(("go test ./...".to_owned(), "go.mod"));
    }
    if let Some((_, makefile)) = text("Makefile")
        && makefile.lines().any(|line| line.starts_with("test:"))
    {
        return Some(("make test".to_owned(), "Makefile"));
    }
    has("pyproject.toml").then(|| ("python3 -m pytest".to_owned(), "pyproject.toml"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_not_found_is_read_from_what_programs_print() {
        let tool = |name: &str| Some(Missing::Tool(name.to_owned()));
        for (line, wanted) in [
            ("/bin/bash: line 1: cargo: command not found", tool("cargo")),
            ("sh: 1: node: not found", tool("node")),
            (
                "/usr/bin/env: ‘ruby’: No such file or directory",
                tool("ruby"),
            ),
            ("make: gcc: No such file or directory", tool("gcc")),
            ("error: linker `cc` not found", tool("cc")),
            (
                "/usr/bin/python3: No module named pytest",
                Some(Missing::PythonModule("pytest".to_owned())),
            ),
            (
                "ModuleNotFoundError: No module named 'yaml'",
                Some(Missing::PythonModule("yaml".to_owned())),
            ),
            ("cat: x.txt: No such file or directory", None),
            ("error: package `x` not found", None),
            ("HTTP 404: not found", None),
            ("\u{1b}[31mred\u{1b}[0m: command not found", None),
            ("", None),
        ] {
            assert_eq!(missing(line), wanted, "{line}");
        }
        let mut found = Found::default();
        for _ in 0..3 {
            found.line("bash: line 1: go: command not found");
        }
        assert_eq!(found.missing().count(), 1, "each once");
    }

    #[test]
    fn what_is_missing_comes_with_the_way_to_mend_it() {
        let there = |_: &str| Some(PathBuf::from("/home/ada/.cargo/bin/cargo"));
        let cargo = Missing::Tool("cargo".to_owned());
        let table = "[[toolchains.mounts]]\nhost = \"/home/ada/.cargo/bin\"\n";
        let fix =
            |table, on_host: &dyn Fn(&str) -> Option<PathBuf>| missed(&cargo, table, on_host).fix;
        assert!(fix(table, &there).contains("table below"));
        assert!(fix("", &there).contains("mount /home/ada/.cargo/bin"));
        assert!(fix("", &|_| None).contains("install it"));
        assert_eq!(
            allow("static.example.com:443"),
            "add \"static.example.com\" to `hosts` of the policy, if workers may reach it"
        );
        assert!(allow("mirror:8081").contains("\"mirror:8081\""));
    }

    #[test]
    fn a_test_command_is_guessed_by_the_files_in_the_root() {
        let package = |scripts: &str| ("package.json", format!(r#"{{"scripts":{{{scripts}}}}}"#));
        let make = |text: &str| ("Makefile", text.to_owned());
        let tests = package(r#""test":"vitest""#);
        for (names, text, wanted) in [
            (
                &["Cargo.toml", "Makefile"][..],
                make("test:\n"),
                Some("cargo test"),
            ),
            (
                &["package.json", "package-lock.json"],
                tests.clone(),
                Some("npm ci && npm test"),
            ),
            (
                &["package.json", "pnpm-lock.yaml"],
                tests.clone(),
                Some("pnpm install --frozen-lockfile && pnpm test"),
            ),
            (
                &["package.json", "yarn.lock"],
                tests.clone(),
                Some("yarn install --frozen-lockfile && yarn test"),
            ),
            (&["package.json"], tests, Some("npm install && npm test")),
            (&["package.json"], package(""), None),
            (&["go.mod"], make(""), Some("go test ./...")),
            (
                &["Makefile"],
                make("all:\n\ntest: all\n\ttrue\n"),
                Some("make test"),
            ),
            (&["Makefile"], make("all:\n"), None),
            (&["pyproject.toml"], make(""), Some("python3 -m pytest")),
            (&["README.md"], make(""), None),
        ] {
            let guessed = guess(names, &[text]);
            assert_eq!(
                guessed.map(|(command, _)| command).as_deref(),
                wanted,
                "{names:?}"
            );
        }
    }
}
