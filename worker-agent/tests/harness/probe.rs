//! The probe on a machine where sandboxes work.

use std::process::Command;

use mainloop_worker_agent::probe::Outcome;

use crate::support::{agent, place};

#[test]
fn the_probe_finds_the_wall_in_place() {
    let place = place();
    let done = Command::new(agent(place.path()))
        .args(["probe", "--json", "--claude", "/usr/bin/git", "--data"])
        .arg(place.path().join("data"))
        .output()
        .unwrap();
    let outcome: Outcome = serde_json::from_slice(&done.stdout).unwrap();
    assert!(outcome.ok && done.status.success(), "{outcome:#?}");
    let names: Vec<_> = outcome
        .checks
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    let wanted = [
        "bubblewrap",
        "namespaces",
        "limits",
        "network",
        "files",
        "processes",
        "rights",
        "git",
        "bash",
        "claude",
        "end",
    ];
    assert_eq!(names, wanted);
    assert_eq!(
        std::fs::read_dir(place.path().join("data"))
            .unwrap()
            .count(),
        0,
        "it removes its folder"
    );
}

#[test]
fn a_missing_bubblewrap_and_a_broken_one_each_have_a_fix() {
    let place = place();
    for (bwrap, check, fix) in [
        ("/no/such/bwrap", "bubblewrap", "apt-get install bubblewrap"),
        ("/bin/false", "namespaces", ""),
    ] {
        let done = Command::new(agent(place.path()))
            .args(["probe", "--json", "--bwrap", bwrap, "--data"])
            .arg(place.path().join("data"))
            .output()
            .unwrap();
        let outcome: Outcome = serde_json::from_slice(&done.stdout).unwrap();
        assert!(!outcome.ok && !done.status.success(), "{outcome:#?}");
        let last = outcome.checks.last().unwrap();
        assert_eq!((last.name.as_str(), last.ok), (check, false));
        assert!(!last.fix.is_empty() && last.fix.contains(fix), "{last:?}");
    }
}
