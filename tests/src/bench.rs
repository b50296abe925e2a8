//! `make bench`: how fast and how small, each figure beside the limit that was measured right next to it.
//!
//! Absolute times say more about the machine and its neighbours than about mainloop, so what counts is what a figure
//! takes beyond its limit, taken in the same round. Real are the plane with its PostgreSQL and the agent, as they are
//! shipped; where a figure needs an exact clock, the bench itself plays the agent that the plane started, or stands
//! between the real agent and the plane. It judges nothing by its exit code: a missed target is printed as missed.

mod cancel;
mod commits;
mod enqueue;
mod figure;
mod ground;
mod halves;
mod hello;
mod link;
mod memory;
mod milestone;
mod model;
mod played;
mod relay;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};

pub use self::played::play;
use self::{
    figure::{Row, Unit, table},
    ground::Ground,
    memory::Memory,
};
use crate::world::binaries::{self, binary};

/// Fewest rounds that show a spread.
const FEWEST_ROUNDS: usize = 5;

/// Sizes and ratios of the plane and the agent that lie beside this program.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    /// Rounds of every figure, 5 at least.
    #[arg(long, default_value_t = FEWEST_ROUNDS)]
    pub rounds: usize,
    /// Only what is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Figure>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// The agent as a file.
    Size,
    /// The idle plane's memory.
    Plane,
    /// From an agent's start to the answer to its hello.
    Hello,
    /// From a task that is created to its worker's process.
    Enqueue,
    /// From an agent's milestone to a watching client.
    Milestone,
    /// Streams through the model proxy.
    Model,
    /// Memory of the agent's halves.
    Halves,
    /// From a cancel to the end of its worker.
    Cancel,
}

impl Options {
    fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }
}

/// Measures, and prints the table.
pub async fn run(options: Options) -> Result<()> {
    if options.rounds < FEWEST_ROUNDS {
        bail!(
            "{} rounds show no spread; ask for {FEWEST_ROUNDS} at least",
            options.rounds
        );
    }
    let began = Instant::now();
    let say = |text: &str| line(&format!("[{:5.1} s] {text}", began.elapsed().as_secs_f64()));
    let mut rows = Vec::new();
    let agent = binary(binaries::AGENT)?;
    if options.wants(Figure::Size) {
        rows.extend(size(&agent)?);
    }
    if [
        Figure::Plane,
        Figure::Hello,
        Figure::Enqueue,
        Figure::Milestone,
        Figure::Model,
    ]
    .into_iter()
    .any(|figure| options.wants(figure))
    {
        say("starting a plane with a private PostgreSQL");
        let ground = Ground::start(&agent).await?;
        let measured = Box::pin(measure(&options, &ground, &say)).await;
        let ended = ground.end().await;
        rows.extend(measured?);
        ended?;
    }
    if options.wants(Figure::Halves) {
        say("memory of the agent's halves while a plan waits for a person");
        rows.extend(Box::pin(halves::measure(options.rounds)).await?);
    }
    if options.wants(Figure::Cancel) {
        say("from a cancel to the end of its worker");
        rows.extend(Box::pin(cancel::measure(options.rounds)).await?);
    }
    line("");
    line(&table(&rows));
    Ok(())
}

/// All that needs a plane whose agents the bench plays.
async fn measure(options: &Options, ground: &Ground, say: &impl Fn(&str)) -> Result<Vec<Row>> {
    let rounds = options.rounds;
    let mut rows = Vec::new();
    if options.wants(Figure::Plane) {
        say("memory of the idle plane");
        rows.extend(plane(ground, rounds).await?);
    }
    if options.wants(Figure::Hello) {
        say("start of the agent, to the answer to its hello");
        rows.extend(hello::measure(ground, rounds).await?);
    }
    if options.wants(Figure::Enqueue) {
        say("from a task that is created to its worker's process");
        rows.push(enqueue::measure(ground, rounds).await?);
    }
    if options.wants(Figure::Milestone) {
        say("from an agent's milestone to a watching client");
        rows.push(milestone::measure(ground, rounds).await?);
    }
    if options.wants(Figure::Model) {
        say("streams through the model proxy");
        rows.extend(model::measure(ground, rounds).await?);
    }
    Ok(rows)
}

/// The agent as a file.
fn size(agent: &Path) -> Result<Vec<Row>> {
    let bytes = fs::read(agent).with_context(|| format!("read {}", agent.display()))?;
    let interpreter = b"/ld-linux";
    let linked = if bytes
        .windows(interpreter.len())
        .any(|window| window == interpreter)
    {
        "agent's binary (NOT static)"
    } else {
        "agent's static binary"
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a size in megabytes needs no more digits"
    )]
    let length = bytes.len() as f64;
    Ok(vec![
        Row::plain(linked, Unit::Megabytes, vec![length / 1e6]).at_most(8.0),
    ])
}

/// The plane at rest, before it has done anything.
async fn plane(ground: &Ground, rounds: usize) -> Result<Vec<Row>> {
    let pid = ground.plane_pid().context("the plane does not run")?;
    let mut seen = Vec::new();
    for _ in 0..rounds {
        seen.push(Memory::at_rest(pid).await?);
    }
    Ok(memory::rows("idle plane, without PostgreSQL", &seen, 40.0))
}

/// A folder below the plane's that others may enter: PostgreSQL and the harness run as other users than root.
fn open_folder(path: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("open {}", path.display()))?;
    Ok(path.to_owned())
}

fn line(text: &str) {
    // A closed pipe is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{text}");
}
