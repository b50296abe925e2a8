//! Runs the jobs of one workflow run: a checkout of the commit in a folder of its own, each step by bash, the true log.
//!
//! A job never outlives the emulator: every step is a process group that is killed when its future is dropped, and that
//! kills itself when the pipe from the emulator's process closes. What left the group is found by the tracking id in its
//! environment, as GitHub's own runner does it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::super::git;
use super::super::hub::Hub;
use super::super::site::{Repo, Run, now};
use super::workflow::{Scalar, Step, Workflow};
use super::{CiPolicy, Conclusion, Status, set_job};

/// Longest time of a job whose file names none.
const JOB_TIMEOUT: Duration = Duration::from_mins(10);
/// A log beyond this is cut, with a line that says so.
const LOG_MAX: usize = 8 * 1024 * 1024;
/// How long the output of a finished step is still read, if something that it left behind holds the pipe.
const DRAIN: Duration = Duration::from_secs(1);

/// Kills the step's process group when it is over or given up.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// What a run works from, taken once at its start.
struct Plan {
    workflow: Workflow,
    run: Run,
    source: PathBuf,
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

pub(in super::super) async fn run(hub: Arc<Hub>, repo: String, id: u64) {
    let policy = match hub
        .wait(|site| {
            site.repo(&repo)
                .filter(|repo| !repo.ci.hold)
                .map(|repo| repo.ci.clone())
        })
        .await
    {
        Ok(policy) => policy,
        Err(_stopped) => return,
    };
    if let Err(error) = run_jobs(&hub, &repo, id, &policy).await {
        tracing::error!(%repo, run = id, %error, "an emulated workflow run failed to run");
        hub.change(|site| {
            let Ok(repo) = site.repo_mut(&repo) else {
                return;
            };
            let open: Vec<u64> = repo
                .runs
                .iter()
                .filter(|run| run.id == id)
                .flat_map(|run| &run.jobs)
                .filter(|job| job.conclusion.is_none())
                .map(|job| job.id)
                .collect();
            for job in open {
                append(
                    repo,
                    job,
                    &format!("##[error]The emulator could not run this job: {error}"),
                );
                set_job(repo, job, Status::Completed, Some(Conclusion::Failure));
            }
        });
    }
}

async fn run_jobs(hub: &Arc<Hub>, name: &str, id: u64, policy: &CiPolicy) -> anyhow::Result<()> {
    tokio::time::sleep(policy.delay).await;
    let plan = plan(hub, name, id)?;
    if let Some(forced) = policy.force {
        hub.change(|site| {
            if let Ok(repo) = site.repo_mut(name) {
                for job in &plan.run.jobs {
                    append(
                        repo,
                        job.id,
                        &format!("##[error]The operation was ended: {}.", forced.name()),
                    );
                    set_job(repo, job.id, Status::Completed, Some(forced));
                }
            }
        });
        return Ok(());
    }
    let mut ended: BTreeMap<String, Conclusion> = BTreeMap::new();
    while ended.len() < plan.run.jobs.len() {
        let ready = plan.run.jobs.iter().find(|job| {
            !ended.contains_key(&job.key) && job.needs.iter().all(|need| ended.contains_key(need))
        });
        let Some(job) = ready else {
            anyhow::bail!("the jobs need each other in a circle")
        };
        let blocked = job
            .needs
            .iter()
            .any(|need| ended[need] != Conclusion::Success);
        let skipped = !plan.workflow.jobs[&job.key].runs(plan.run.draft);
        let conclusion = if blocked || skipped {
            Conclusion::Skipped
        } else {
            run_job(hub, name, &plan, &job.key, job.id).await?
        };
        hub.change(|site| {
            if let Ok(repo) = site.repo_mut(name) {
                set_job(repo, job.id, Status::Completed, Some(conclusion));
            }
        });
        ended.insert(job.key.clone(), conclusion);
    }
    Ok(())
}

fn plan(hub: &Hub, name: &str, id: u64) -> anyhow::Result<Plan> {
    let site = hub.lock();
    let repo = site
        .repo(name)
        .ok_or_else(|| anyhow::anyhow!("the repository is gone"))?;
    let run = repo
        .runs
        .iter()
        .find(|run| run.id == id)
        .ok_or_else(|| anyhow::anyhow!("the run is gone"))?
        .clone();
    let text = repo.file(&run.head_sha, &run.path).unwrap_or_default();
    let workflow = Workflow::parse(&text).map_err(anyhow::Error::msg)?;
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&site.dir)?;
    let ref_name = if run.event == "push" {
        format!("refs/heads/{}", run.head_branch)
    } else {
        let number = repo
            .pulls()
            .find(|(issue, pull)| issue.open && pull.head == run.head_branch)
            .map_or(0, |(issue, _)| issue.number);
        format!("refs/pull/{number}/merge")
    };
    let environment = [
        ("CI", "true".to_owned()),
        ("GITHUB_ACTIONS", "true".to_owned()),
        ("GITHUB_ACTOR", run.actor.clone()),
        ("GITHUB_API_URL", format!("{}/api/v3", site.base)),
        ("GITHUB_EVENT_NAME", run.event.clone()),
        ("GITHUB_REF", ref_name),
        ("GITHUB_REF_NAME", run.head_branch.clone()),
        ("GITHUB_REPOSITORY", repo.full_name()),
        ("GITHUB_RUN_ID", run.id.to_string()),
        ("GITHUB_RUN_NUMBER", run.number.to_string()),
        ("GITHUB_SERVER_URL", site.base.clone()),
        ("GITHUB_SHA", run.head_sha.clone()),
        ("GITHUB_WORKFLOW", run.name.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("RUNNER_OS", "Linux".to_owned()),
        (
            "PATH",
            std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ),
    ];
    let environment = environment
        .map(|(key, value)| (key.to_owned(), value))
        .into();
    Ok(Plan {
        workflow,
        run,
        source: repo.dir.clone(),
        folder,
        environment,
    })
}

/// Runs the steps of one job and says how it ended. Its records are written as they come.
async fn run_job(
    hub: &Arc<Hub>,
    name: &str,
    plan: &Plan,
    key: &str,
    id: u64,
) -> anyhow::Result<Conclusion> {
    let job = &plan.workflow.jobs[key];
    let root = plan.folder.path().join(key);
    let (work, home) = (root.join("work"), root.join("home"));
    std::fs::create_dir_all(&home)?;
    checkout(&plan.source, &work, &plan.run.head_sha).await?;
    let mut recorder = Recorder {
        hub: hub.clone(),
        repo: name.to_owned(),
        job: id,
    };
    recorder.begin();
    recorder.step(0, Status::InProgress, None);
    recorder.line("Current runner version: 'emulator'");
    recorder.line(&format!("Job name: {key}"));
    recorder.step(0, Status::Completed, Some(Conclusion::Success));
    let limit = job.timeout_minutes.map_or(JOB_TIMEOUT, Duration::from_mins);
    let deadline = tokio::time::Instant::now() + limit;
    let orphans = Orphans(format!("emulator_{}_{id}", uuid::Uuid::new_v4()));
    let mut environment = plan.environment.clone();
    environment.extend(
        [
            ("HOME", &home),
            ("GITHUB_WORKSPACE", &work),
            ("RUNNER_TEMP", &root),
        ]
        .map(|(key, path)| (key.to_owned(), path.display().to_string())),
    );
    environment.extend([
        ("GITHUB_JOB".to_owned(), key.to_owned()),
        ("RUNNER_TRACKING_ID".to_owned(), orphans.0.clone()),
    ]);
    add(&mut environment, &plan.workflow.env);
    add(&mut environment, &job.env);
    let mut outcome = Conclusion::Success;
    for (at, step) in job.steps.iter().enumerate() {
        if !step.runs(outcome != Conclusion::Success) {
            recorder.step(at + 1, Status::Completed, Some(Conclusion::Skipped));
            continue;
        }
        recorder.step(at + 1, Status::InProgress, None);
        let script = root.join(format!("step-{at}.sh"));
        let ended = match tokio::time::timeout_at(
            deadline,
            run_step(&mut recorder, step, &work, &script, &environment),
        )
        .await
        {
            Ok(ended) => ended?,
            Err(_elapsed) => {
                recorder.line(&format!("##[error]The job running on runner emulator has exceeded the maximum execution time of {} minutes.", limit.as_secs() / 60));
                Conclusion::TimedOut
            }
        };
        recorder.step(
            at + 1,
            Status::Completed,
            Some(if ended == Conclusion::Success {
                ended
            } else {
                Conclusion::Failure
            }),
        );
        if ended == Conclusion::TimedOut {
            outcome = ended;
            break;
        }
        if ended != Conclusion::Success && !step.may_fail {
            outcome = Conclusion::Failure;
        }
    }
    drop(orphans);
    recorder.step(job.steps.len() + 1, Status::InProgress, None);
    recorder.line("Cleaning up orphan processes");
    recorder.step(
        job.steps.len() + 1,
        Status::Completed,
        Some(Conclusion::Success),
    );
    Ok(outcome)
}

fn add(environment: &mut BTreeMap<String, String>, more: &BTreeMap<String, Scalar>) {
    for (key, value) in more {
        let value = expand(&value.to_string(), environment);
        environment.insert(key.clone(), value);
    }
}

/// `${{ env.NAME }}` and `${{ github.name }}`; any other expression becomes empty, as an unknown property does on GitHub.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        out.push_str(before);
        let Some((expression, after)) = after.split_once("}}") else {
            out.push_str("${{");
            rest = after;
            continue;
        };
        let expression = expression.trim();
        let name = expression
            .strip_prefix("github.")
            .map(|name| format!("GITHUB_{}", name.to_uppercase()));
        let name = name.or_else(|| expression.strip_prefix("env.").map(str::to_owned));
        out.push_str(
            name.and_then(|name| environment.get(&name))
                .map_or("", String::as_str),
        );
        rest = after;
    }
    out.push_str(rest);
    out
}

async fn checkout(source: &Path, work: &Path, sha: &str) -> anyhow::Result<()> {
    let run = async |dir: &Path, args: &[&std::ffi::OsStr]| -> anyhow::Result<()> {
        let mut command = Command::from(git::command(dir));
        let output = command
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        anyhow::ensure!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    let flags = ["clone", "--quiet", "--shared", "--no-checkout"].map(std::ffi::OsStr::new);
    run(
        source,
        &[&flags[..], &[source.as_os_str(), work.as_os_str()]].concat(),
    )
    .await?;
    run(
        work,
        &[
            "-c",
            "advice.detachedHead=false",
            "checkout",
            "--quiet",
            "--detach",
            sha,
        ]
        .map(std::ffi::OsStr::new),
    )
    .await
}

/// The shell that wraps a step: stderr goes where stdout goes, and the group ends when the emulator's process does,
/// because its end of the pipe on descriptor 3 closes.
const WRAPPER: &str = r#"exec 3<&0 </dev/null 2>&1
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
exec "$@""#;

async fn run_step(
    recorder: &mut Recorder,
    step: &Step,
    work: &Path,
    script: &Path,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<Conclusion> {
    let mut environment = environment.clone();
    add(&mut environment, &step.env);
    if let Some(action) = &step.uses {
        return Ok(run_action(recorder, action));
    }
    let text = expand(step.run.as_deref().unwrap_or_default(), &environment);
    std::fs::write(script, &text)?;
    let bash = "/usr/bin/env bash";
    let (shown, flags): (String, &[&str]) = match step.shell.as_deref() {
        None => (format!("{bash} -e {{0}}"), &["-e"]),
        Some("bash") => (
            format!("{bash} --noprofile --norc -e -o pipefail {{0}}"),
            &["--noprofile", "--norc", "-e", "-o", "pipefail"],
        ),
        Some(other) => {
            recorder.line(&format!(
                "##[error]The shell '{other}' is not available on this runner."
            ));
            return Ok(Conclusion::Failure);
        }
    };
    recorder.line(&format!(
        "##[group]Run {}",
        text.lines().next().unwrap_or_default()
    ));
    for line in text.lines() {
        recorder.line(&format!("\u{1b}[36;1m{line}\u{1b}[0m"));
    }
    recorder.line(&format!("shell: {shown}"));
    recorder.line("##[endgroup]");
    let folder = work.join(step.folder.as_deref().unwrap_or("."));
    let mut child = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", WRAPPER, "step", "bash"])
        .args(flags)
        .arg(script)
        .current_dir(folder)
        .env_clear()
        .envs(&environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = Group(Pid::from_raw(i32::try_from(
        child.id().unwrap_or_default(),
    )?));
    // Held open for as long as the step runs: its end is what the wrapper waits for.
    let lifeline = child.stdin.take();
    let mut output = BufReader::new(
        child
            .stdout
            .take()
            .ok_or_else(|| anyhow::anyhow!("the step has no output pipe"))?,
    );
    let mut reader = Lines::default();
    let mut buffer = vec![0_u8; 16 * 1024];
    let status = loop {
        tokio::select! {
            read = output.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break child.wait().await?,
                Ok(length) => reader.push(recorder, &buffer[..length]),
            },
            status = child.wait() => break status?,
        }
    };
    drop(group);
    drop(lifeline);
    let drain = async {
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            reader.push(recorder, &buffer[..length]);
        }
    };
    let _ = tokio::time::timeout(DRAIN, drain).await;
    reader.finish(recorder);
    if status.success() {
        return Ok(Conclusion::Success);
    }
    // A step that died by a signal has no code; shells call it 128 and more.
    let code = status.code().unwrap_or_else(|| {
        128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)
    });
    recorder.line(&format!(
        "##[error]Process completed with exit code {code}."
    ));
    Ok(Conclusion::Failure)
}

/// Actions that a simple repository names: the checkout has been made, and the tools are those of the machine.
fn run_action(recorder: &mut Recorder, action: &str) -> Conclusion {
    let name = action.split('@').next().unwrap_or_default();
    recorder.line(&format!("##[group]Run {action}"));
    recorder.line("##[endgroup]");
    if name == "actions/checkout" || name == "actions/cache" || name.starts_with("actions/setup-") {
        return Conclusion::Success;
    }
    recorder.line(&format!(
        "##[error]Unable to resolve action `{action}`, repository not found"
    ));
    Conclusion::Failure
}

/// Kills, at a job's end or when it is given up, what has its tracking id in its environment: daemons that left the
/// process group.
struct Orphans(String);

impl Drop for Orphans {
    fn drop(&mut self) {
        let tracking = self.0.as_bytes();
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return;
        };
        for process in processes.flatten() {
            let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .windows(tracking.len())
                .any(|part| part == tracking)
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, recorder: &mut Recorder, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.0.drain(..=end).collect();
            recorder.lines(String::from_utf8_lossy(&whole).lines());
        }
    }

    fn finish(self, recorder: &mut Recorder) {
        recorder.lines(String::from_utf8_lossy(&self.0).lines());
    }
}

/// Writes a job's records into the site.
struct Recorder {
    hub: Arc<Hub>,
    repo: String,
    job: u64,
}

impl Recorder {
    fn change(&self, change: impl FnOnce(&mut Repo)) {
        self.hub.change(|site| {
            if let Ok(repo) = site.repo_mut(&self.repo) {
                change(repo);
            }
        });
    }

    fn begin(&self) {
        self.change(|repo| set_job(repo, self.job, Status::InProgress, None));
    }

    fn line(&mut self, text: &str) {
        self.lines(std::iter::once(text));
    }

    fn lines<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        let lines: Vec<&str> = lines.collect();
        self.change(|repo| lines.iter().for_each(|line| append(repo, self.job, line)));
    }

    fn step(&self, at: usize, status: Status, conclusion: Option<Conclusion>) {
        self.change(|repo| {
            let jobs = repo.runs.iter_mut().flat_map(|run| &mut run.jobs);
            let Some(step) = jobs
                .filter(|job| job.id == self.job)
                .find_map(|job| job.steps.get_mut(at))
            else {
                return;
            };
            step.status = status;
            step.conclusion = conclusion;
            step.started_at = step.started_at.or(Some(now()));
            step.completed_at = (status == Status::Completed).then(now);
        });
    }
}

/// One line of a log, with the time in front as GitHub writes it.
fn append(repo: &mut Repo, job: u64, line: &str) {
    let mut jobs = repo.runs.iter_mut().flat_map(|run| &mut run.jobs);
    let Some(job) = jobs.find(|one| one.id == job) else {
        return;
    };
    let full = job.log.len() > LOG_MAX;
    // What the runner itself says is kept even then.
    if full && !line.starts_with("##[") {
        return;
    }
    let stamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%7fZ");
    let _ = writeln!(job.log, "{stamp} {line}");
    if !full && job.log.len() > LOG_MAX {
        let _ = writeln!(
            job.log,
            "{stamp} ##[warning]The log is too long; the rest is left out."
        );
    }
}
