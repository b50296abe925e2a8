//! A repository's own tests in a worker's sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mainloop_worker_agent::probe::{Check, Outcome};

use crate::support::{agent, place};

/// A clone of somebody's, with these files in its one commit and a change beside it.
fn checkout(place: &Path, files: &[(&str, &str)]) -> PathBuf {
    let folder = place.join("checkout");
    fs::create_dir(&folder).unwrap();
    for (path, text) in files {
        fs::write(folder.join(path), text).unwrap();
    }
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(arguments)
            .current_dir(&folder)
            .status()
            .unwrap();
        assert!(done.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "--all"]);
    git(&["commit", "-q", "-m", "One"]);
    fs::write(folder.join("draft"), "not committed").unwrap();
    folder
}

/// What a trial finds, and what its commands printed.
fn trial(place: &Path, arguments: &[&str]) -> (Outcome, String) {
    let done = Command::new(agent(place))
        .args(["trial", "--json", "--host", "pypi.org", "--data"])
        .arg(place.join("data"))
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let outcome: Outcome = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(outcome.ok, done.status.success(), "{outcome:#?}");
    let left = fs::read_dir(place.join("data")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "it removes its folder");
    (outcome, String::from_utf8_lossy(&done.stderr).into_owned())
}

fn check<'a>(outcome: &'a Outcome, name: &str) -> &'a Check {
    let check = outcome.checks.iter().find(|check| check.name == name);
    check.unwrap_or_else(|| panic!("no {name} in {outcome:#?}"))
}

#[test]
fn tests_that_pass_in_the_sandbox_pass_on_a_clone() {
    let place = place();
    let folder = checkout(
        place.path(),
        &[
            (
                ".mainloop.toml",
                "setup = ['echo ready > set-up']\ntest = 'sh test.sh'\n[env]\nWHO = 'ada'",
            ),
            (
                "test.sh",
                "set -e; test -e set-up; test $WHO = ada; test $(id -u) = 1000\n\
                 git log --oneline; test ! -e draft; touch written\n",
            ),
            ("Makefile", "test:\n\tfalse\n"),
        ],
    );
    let before = listed(&folder);
    let (outcome, printed) = trial(place.path(), &["--repo", folder.to_str().unwrap()]);
    assert!(outcome.ok, "{outcome:#?}\n{printed}");
    let repository = &check(&outcome, "repository").detail;
    assert!(
        repository.contains("not committed are left out"),
        "{repository}"
    );
    let tests = &check(&outcome, "tests").detail;
    assert!(
        tests.contains("`sh test.sh` (by .mainloop.toml) passed"),
        "{tests}"
    );
    assert!(check(&outcome, "limits").detail.contains("processes"));
    assert!(printed.contains("One"), "{printed}");
    assert_eq!(listed(&folder), before, "the user's folder is as it was");
}

#[test]
fn what_the_tests_miss_is_named_with_the_way_to_mend_it() {
    let place = place();
    let makefile = "test:\n\t-no-such-tool --version\n\t-curl -sS http://stranger.example.com/\n\tpython3 -c 'import no_such_module'\n";
    let folder = checkout(place.path(), &[("Makefile", makefile)]);
    let (outcome, printed) = trial(place.path(), &["--repo", folder.to_str().unwrap()]);
    assert!(!outcome.ok, "{outcome:#?}");
    for (name, detail, fix) in [
        ("tool", "no-such-tool was not found", "install it"),
        (
            "host",
            "stranger.example.com:80",
            "add \"stranger.example.com\" to `hosts`",
        ),
        ("python", "no_such_module", "`setup` of .mainloop.toml"),
        (
            "tests",
            "`make test` (guessed from Makefile) ended with exit code 2",
            "outside",
        ),
    ] {
        let found = check(&outcome, name);
        assert!(
            !found.ok && found.detail.contains(detail) && found.fix.contains(fix),
            "{found:?}\n{printed}"
        );
    }
}

#[test]
fn without_a_command_or_a_repository_a_trial_says_what_to_name() {
    let place = place();
    let folder = checkout(place.path(), &[("README.md", "nothing to run\n")]);
    let repo = folder.to_str().unwrap();
    for (arguments, name, words) in [
        (&["--repo", repo][..], "tests", "--command"),
        (
            &["--repo", "/no/such/folder"],
            "repository",
            "a URL such as",
        ),
    ] {
        let (outcome, _) = trial(place.path(), arguments);
        let found = check(&outcome, name);
        assert!(!found.ok && found.fix.contains(words), "{found:?}");
    }
    let arguments = ["--repo", repo, "--command", "exit 7"];
    let (outcome, _) = trial(place.path(), &arguments);
    let tests = &check(&outcome, "tests").detail;
    assert!(
        tests.contains("`exit 7` (by --command) ended with exit code 7"),
        "{tests}"
    );
}

/// Every file of a folder with its content, git's own included.
fn listed(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(listed(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}
