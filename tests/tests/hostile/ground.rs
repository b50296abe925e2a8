//! What must hold after each group of attacks, and how a group is run.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use mainloop_proto::v1::GetStatusRequest;
use mainloop_tests::world::{BOT, Task, World};

/// What the file outside says as long as nobody wrote to it.
const UNTOUCHED: &str = "untouched\n";
/// What every group's commands may use.
const PRELUDE: &str = include_str!("prelude.py");

/// One attack from inside the sandbox.
pub(crate) struct Attack {
    /// What it tries; unique in its group.
    pub(crate) name: &'static str,
    /// A Python expression that tries it, with the functions of `prelude.py`.
    pub(crate) tries: &'static str,
    /// What its result contains when it was stopped, and by what.
    pub(crate) stopped: &'static str,
}

/// Shorthand for a table's row.
pub(crate) const fn attack(
    name: &'static str,
    tries: &'static str,
    stopped: &'static str,
) -> Attack {
    Attack {
        name,
        tries,
        stopped,
    }
}

/// The program that tries all of `attacks`, with constants for the prelude.
pub(crate) fn probe(attacks: &[Attack], constants: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in constants {
        let _ = writeln!(text, "{name} = {value:?}");
    }
    text.push_str(PRELUDE);
    for attack in attacks {
        let _ = writeln!(text, "attack({:?}, lambda: {})", attack.name, attack.tries);
    }
    text
}

/// Fails with every attack that was not stopped as its row says, by what the probe printed.
pub(crate) fn all_stopped(attacks: &[Attack], printed: &str) -> Result<()> {
    let results: BTreeMap<&str, &str> = printed
        .lines()
        .filter_map(|line| line.trim().split_once(" => "))
        .collect();
    let mut wrong = Vec::new();
    for attack in attacks {
        match results.get(attack.name) {
            Some(result) if result.contains(attack.stopped) => {}
            Some(result) => wrong.push(format!(
                "{}: wanted {:?}, got {result}",
                attack.name, attack.stopped
            )),
            None => wrong.push(format!("{}: not tried", attack.name)),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}\nall of it:\n{printed}", wrong.join("\n"))
}

/// What Claude's commands printed, all of it.
pub(crate) fn printed(world: &World) -> String {
    let outcomes = world.model().outcomes("Bash");
    let texts: Vec<&str> = outcomes
        .iter()
        .map(|outcome| outcome.text.as_str())
        .collect();
    texts.join("\n")
}

/// The state before the attacks.
pub(crate) struct Ground {
    outside: PathBuf,
    /// Where each branch stood, by repository.
    heads: BTreeMap<String, BTreeMap<String, String>>,
}

impl Ground {
    /// Puts a file outside of the sandbox that only the sandbox protects, and remembers the repositories that are there.
    pub(crate) fn prepare(world: &World) -> Result<Self> {
        let outside = world.folder().join("outside");
        fs::create_dir(&outside)?;
        fs::write(outside.join("file"), UNTOUCHED)?;
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o777))?;
        fs::set_permissions(outside.join("file"), fs::Permissions::from_mode(0o666))?;
        let mut ground = Self {
            outside,
            heads: BTreeMap::new(),
        };
        ground.remember(world);
        Ok(ground)
    }

    /// Remembers where the branches stand, after repositories were made and before a task has any.
    pub(crate) fn remember(&mut self, world: &World) {
        self.heads = world.github().read(|site| {
            let heads = site.repos.values();
            heads
                .map(|repo| (repo.full_name(), repo.refs.clone()))
                .collect()
        });
    }

    /// A folder of the host that everybody may write to.
    pub(crate) fn outside(&self) -> &Path {
        &self.outside
    }

    /// Fails where the plane does not answer, a ref moved that is no task's own, a file outside changed, or a secret is
    /// where Claude or a reader could see it.
    pub(crate) async fn is_sound(&self, world: &World, tasks: &[&Task]) -> Result<()> {
        world
            .client()
            .access()
            .get_status(GetStatusRequest {})
            .await
            .context("the plane does not answer")?;
        self.no_foreign_push(world, tasks)?;
        ensure!(
            fs::read_to_string(self.outside.join("file"))? == UNTOUCHED
                && fs::read_dir(&self.outside)?.count() == 1,
            "something outside changed"
        );
        no_secret(world)
    }

    fn no_foreign_push(&self, world: &World, tasks: &[&Task]) -> Result<()> {
        let own: Vec<String> = tasks
            .iter()
            .map(|task| format!("refs/heads/{}", task.now().branch))
            .collect();
        world.github().read(|site| {
            for repo in site.repos.values() {
                let name = repo.full_name();
                let before = self.heads.get(&name);
                for (reference, head) in before.into_iter().flatten() {
                    ensure!(
                        repo.refs.get(reference) == Some(head),
                        "{reference} of {name} moved"
                    );
                }
                for push in &repo.pushes {
                    ensure!(
                        push.login != BOT || own.contains(&push.name),
                        "{name} was pushed to: {push:?}"
                    );
                    ensure!(
                        push.login != BOT || push.after.is_some(),
                        "a ref of {name} was deleted: {push:?}"
                    );
                }
                for reference in repo.refs.keys() {
                    let known = reference == "refs/heads/main"
                        || before.is_some_and(|heads| heads.contains_key(reference))
                        || reference.starts_with("refs/pull/")
                        || own.contains(reference);
                    ensure!(known, "{name} has {reference}");
                }
            }
            Ok(())
        })
    }
}

fn no_secret(world: &World) -> Result<()> {
    let needles = world.secrets().needles();
    let found = world.search(&needles);
    ensure!(found.is_empty(), "secrets were found: {found:?}");
    for needle in &needles {
        for seen in world.model().requests() {
            ensure!(
                !seen.body.to_string().contains(needle),
                "Claude has seen {needle}"
            );
        }
        let told = world.github().read(|site| {
            site.repos.values().any(|repo| {
                repo.issues.values().any(|issue| {
                    let comments = issue.comments.iter().map(|comment| &comment.body);
                    comments
                        .chain(issue.body.as_ref())
                        .any(|text| text.contains(needle))
                })
            })
        });
        ensure!(!told, "{needle} is in an issue");
    }
    Ok(())
}
