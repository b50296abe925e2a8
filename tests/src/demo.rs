//! The demo: one real task, from a sentence to a pull request that is ready for review, on one machine without any key.
//!
//! Real are the plane with its PostgreSQL, the workers, their sandbox, the Claude Code CLI, git, and the tests that CI
//! runs. Stand-ins are the code host (emulated) and, unless told otherwise, the model (scripted); the demo says so. It is
//! a success only if the code host itself says that the pull request is ready and its checks are green.

mod job;
mod preflight;
mod screen;
mod stage;

use std::{path::PathBuf, process::Stdio, sync::Arc};

use anyhow::{Context, Result, bail};
use clap::Parser;
use mainloop_proto::v1::{CreateTaskRequest, InboxAction, InboxItemKind, Task as Wire, TaskState};
use nix::unistd::geteuid;
use tokio::process::Command;

use self::{
    screen::{Screen, plain},
    stage::Stage,
};
use crate::world::{
    Item, Task,
    binaries::{self, binary},
    task::is_settled,
};

/// One real task on this machine, from a sentence to a pull request that is ready for review.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo")]
pub struct Options {
    /// Say yes to everything: start, the first answer, the plan.
    #[arg(long)]
    pub yes: bool,
    /// Keep all running at the end, so that the links open, until Ctrl-C.
    #[arg(long)]
    pub stay: bool,
    /// `scripted`, or `real` for the model behind your own ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN.
    #[arg(long, env = "MODEL", default_value = "scripted", value_parser = ["scripted", "real"])]
    pub model: String,
}

/// Runs the demo to its end or to `interrupted`, whichever comes first; either way nothing is left running.
pub async fn run(options: Options, interrupted: impl Future<Output = ()>) -> Result<()> {
    let mut screen = Screen::new();
    let data = data_folder()?;
    screen.head("this machine");
    screen.line(preflight::preflight(&data).await?.trim_end());
    screen.head("starting");
    let mut interrupted = std::pin::pin!(interrupted);
    let started = tokio::select! {
        started = Stage::start(&data, options.model == "real", |text| screen.stamp(text)) => started,
        () = &mut interrupted => bail!("interrupted"),
    };
    let stage = started?;
    let told = tokio::select! {
        told = Box::pin(tell(&options, &stage, &mut screen)) => told,
        () = &mut interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    if told.is_ok() && options.stay {
        screen.head("everything stays as it is; Ctrl-C ends it");
        let socket = stage.scene.data.join("mainloop.sock");
        let cli = binary(binaries::CLI)?;
        screen.line(&format!(
            "  MAINLOOP_ADDRESS=unix:{} {} inbox",
            socket.display(),
            cli.display()
        ));
        interrupted.await;
    }
    let ended = stage.end().await;
    told.and(ended)
}

/// The story itself.
async fn tell(options: &Options, stage: &Stage, screen: &mut Screen) -> Result<()> {
    let repository = format!("{}/{}", stage.scene.github.base_url(), job::REPOSITORY);
    screen.head("the task");
    screen.line(&format!("  {}\n  on {repository}", job::SENTENCE));
    let request = CreateTaskRequest {
        repository_url: repository,
        description: job::SENTENCE.to_owned(),
        ..CreateTaskRequest::default()
    };
    let reply = stage.scene.client.tasks().create_task(request).await;
    let wire = reply
        .context("propose the task")?
        .into_inner()
        .task
        .context("the plane sent no task")?;
    screen.line(&format!(
        "  task {}, model {}, may cost at most {}",
        wire.short_id,
        wire.model,
        dollars(wire.budget_micros)
    ));
    let task = Task::follow(Arc::clone(&stage.scene), wire);
    if !options.yes {
        screen.line("");
        let answer = screen.ask("Start it? [y/N]").await?;
        if !answer.eq_ignore_ascii_case("y") && !answer.eq_ignore_ascii_case("yes") {
            bail!("not started: nothing happens before a person says yes");
        }
    }
    task.confirm().await?;
    screen.head("as it happens");
    let end = follow(options, &task, screen).await?;
    if end.state() != TaskState::Ready {
        if matches!(end.state(), TaskState::Declined | TaskState::Cancelled) {
            bail!("the task ended as {}, as it was told to", word(end.state()));
        }
        bail!("the task ended as {}\n{}", word(end.state()), task.report());
    }
    verify(stage, &end)?;
    show(stage, &task, &end, screen).await
}

/// Prints events and asks at gates until the work is ready or over.
async fn follow(options: &Options, task: &Task, screen: &mut Screen) -> Result<Wire> {
    let mut view = task.watch();
    let (mut shown, mut asked) = (0, Vec::new());
    loop {
        let (events, now) = {
            let seen = view.borrow_and_update();
            let new: Vec<_> = seen.events.iter().skip(shown).cloned().collect();
            shown = seen.events.len();
            (new, seen.task.clone())
        };
        for event in &events {
            screen.event(event);
        }
        if is_settled(now.state()) || now.state() == TaskState::Ready {
            return Ok(now);
        }
        let open = now
            .open_items
            .iter()
            .find(|id| !asked.contains(*id))
            .cloned();
        if let Some(id) = open {
            let item = task.item(&id).await?;
            asked.push(id);
            decide(options, task, &item, screen).await?;
            continue;
        }
        view.changed().await.context("the plane's stream ended")?;
    }
}

async fn decide(options: &Options, task: &Task, item: &Item, screen: &mut Screen) -> Result<()> {
    match item.seen.kind() {
        InboxItemKind::Unspecified | InboxItemKind::Spawn => Ok(()),
        InboxItemKind::Question => question(options, item, screen).await,
        InboxItemKind::Plan => plan(options, task, item, screen).await,
        InboxItemKind::Blocker => blocker(options, item, screen).await,
    }
}

async fn question(options: &Options, item: &Item, screen: &mut Screen) -> Result<()> {
    let mut answers = Vec::new();
    for question in &item.seen.questions {
        screen.line("");
        screen.quote(&question.text);
        for (at, option) in question.options.iter().enumerate() {
            screen.line(&format!(
                "      {}. {}  {}",
                at + 1,
                plain(&option.label),
                plain(&option.description)
            ));
        }
        let first = question
            .options
            .first()
            .map_or("Do as you think best.", |option| &option.label);
        let mut answer = if options.yes {
            screen.line(&format!("    answer (--yes): {}", plain(first)));
            first.to_owned()
        } else {
            let prompt = format!(
                "    Answer by number or in your own words (an empty line says: {}):",
                plain(first)
            );
            screen.ask(&prompt).await?
        };
        let chosen = answer
            .parse::<usize>()
            .ok()
            .and_then(|n| question.options.get(n.checked_sub(1)?));
        if let Some(option) = chosen {
            answer.clone_from(&option.label);
        }
        answers.push(if answer.is_empty() {
            first.to_owned()
        } else {
            answer
        });
    }
    item.answer_each(answers).await
}

async fn plan(options: &Options, task: &Task, item: &Item, screen: &mut Screen) -> Result<()> {
    let now = task.now();
    let url = now.issue.map(|issue| issue.url).unwrap_or_default();
    screen.line(&format!(
        "\n    the plan, revision {}, also at {url}",
        now.plan.map_or(0, |plan| plan.revision)
    ));
    screen.quote(&item.seen.body);
    if options.yes {
        screen.line("    approved (--yes)");
        return item.approve().await;
    }
    loop {
        let answer = screen
            .ask("    [a]pprove, [r]eject, or say what to change:")
            .await?;
        match decision(&answer) {
            Some(InboxAction::Approve) => return item.approve().await,
            Some(InboxAction::Reject) => return item.reject("rejected in the demo").await,
            Some(_) => return item.revise(&answer).await,
            None => {}
        }
    }
}

/// What a line says about a plan; an empty one says nothing.
fn decision(answer: &str) -> Option<InboxAction> {
    match answer.to_lowercase().as_str() {
        "" => None,
        "a" | "approve" | "y" | "yes" => Some(InboxAction::Approve),
        "r" | "reject" | "n" | "no" => Some(InboxAction::Reject),
        _ => Some(InboxAction::Revise),
    }
}

async fn blocker(options: &Options, item: &Item, screen: &mut Screen) -> Result<()> {
    screen.line(&format!("\n    {}", plain(&item.seen.title)));
    screen.quote(&item.seen.body);
    if options.yes {
        bail!("the worker is blocked, and --yes has no insight to offer");
    }
    let answer = screen
        .ask("    Your insight, or an empty line to give up:")
        .await?;
    if answer.is_empty() {
        return item.reject("given up in the demo").await;
    }
    item.resolve(InboxAction::Answer, &answer).await
}

/// What counts is what the code host says, not what the plane says of it.
fn verify(stage: &Stage, task: &Wire) -> Result<()> {
    let number = task
        .pull_request
        .as_ref()
        .and_then(|link| u64::try_from(link.number).ok());
    let number = number.context("the task is ready and has no pull request")?;
    stage.scene.github.read(|site| {
        let repo = site
            .repo(job::REPOSITORY)
            .context("the repository is gone")?;
        let pull = repo
            .issues
            .get(&number)
            .and_then(|issue| issue.pull.as_ref());
        let pull = pull.with_context(|| format!("the code host has no pull request #{number}"))?;
        if pull.draft {
            bail!("pull request #{number} is still a draft");
        }
        let checks = repo.checks(&pull.head_sha);
        let red: Vec<&str> = checks
            .iter()
            .filter(|check| {
                check
                    .conclusion
                    .is_none_or(|conclusion| conclusion.name() != "success")
            })
            .map(|check| check.name.as_str())
            .collect();
        if checks.is_empty() || !red.is_empty() {
            bail!(
                "pull request #{number} is not green: {} checks, not green {red:?}",
                checks.len()
            );
        }
        Ok(())
    })?;
    stage.scene.github.assert_contract();
    stage
        .scene
        .model
        .as_ref()
        .map_or(Ok(()), crate::anthropic::Running::check)
}

async fn show(stage: &Stage, task: &Task, end: &Wire, screen: &Screen) -> Result<()> {
    screen.head("the event log");
    for event in task.events() {
        screen.line(&format!(
            "  {:3} {:22} {}",
            event.seq,
            event.kind,
            plain(&event.text)
        ));
    }
    screen.head("the change");
    let diff = diff(stage, end).await?;
    screen.quote(&diff);
    screen.head("ready for review");
    let link = |link: &Option<mainloop_proto::v1::Link>| {
        link.as_ref()
            .map_or_else(String::new, |link| link.url.clone())
    };
    screen.line(&format!("  issue         {}", link(&end.issue)));
    screen.line(&format!(
        "  pull request  {}  ({})",
        link(&end.pull_request),
        end.diffstat
    ));
    for check in &end.checks {
        screen.line(&format!(
            "  check         {} {}",
            check.name, check.conclusion
        ));
    }
    screen.line(&format!(
        "  cost          {} of {}",
        dollars(end.cost_micros),
        dollars(end.budget_micros)
    ));
    screen.line(&format!("  elapsed       {:.1} s", screen.elapsed()));
    Ok(())
}

/// The difference between the base and the head, as git shows it to anybody who clones.
async fn diff(stage: &Stage, task: &Wire) -> Result<String> {
    let clone = stage.scene.data.with_file_name("clone");
    let url = stage.scene.github.clone_url(job::REPOSITORY);
    git(&["clone", "-q", &url, &clone.display().to_string()]).await?;
    // A task without a base of its own starts from the default branch, which is the clone's HEAD.
    let base = if task.base_ref.is_empty() {
        "HEAD"
    } else {
        &task.base_ref
    };
    let range = format!("origin/{base}...origin/{}", task.branch);
    git(&["-C", &clone.display().to_string(), "diff", &range]).await
}

async fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("start git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where mainloop keeps its data for this user.
fn data_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MAINLOOP_DATA_DIR") {
        return Ok(PathBuf::from(folder));
    }
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/mainloop"));
    }
    if let Some(folder) = std::env::var_os("XDG_DATA_HOME") {
        return Ok(PathBuf::from(folder).join("mainloop"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".local/share/mainloop"))
}

fn dollars(micros: i64) -> String {
    format!("${}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
}

fn word(state: TaskState) -> String {
    let name = state.as_str_name();
    name.strip_prefix("TASK_STATE_")
        .unwrap_or(name)
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_approves_nothing() {
        assert_eq!(decision(""), None);
        assert_eq!(decision("a"), Some(InboxAction::Approve));
        assert_eq!(decision("Yes"), Some(InboxAction::Approve));
        assert_eq!(decision("no"), Some(InboxAction::Reject));
        assert_eq!(decision("no, add a test"), Some(InboxAction::Revise));
    }
}
