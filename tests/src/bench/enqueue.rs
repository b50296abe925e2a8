//! From a task that is created and confirmed to the first word of its worker's process.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{
    figure::{Round, Row, median, milliseconds},
    ground::Ground,
};

/// Tasks in a round, each on an idle plane.
const TASKS: usize = 10;
/// Commits on the way: the task, its claim, the start of its attempt.
const COMMITS: f64 = 3.0;

/// Creates tasks one after another, with commits in between.
pub(super) async fn measure(ground: &Ground, rounds: usize) -> Result<Row> {
    let mut commits = ground.commits().await?;
    let mut seen = Vec::new();
    // The first one fills caches on both sides.
    for round in 0..=rounds {
        let (mut ours, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..TASKS {
            limit.push(milliseconds(commits.once().await?));
            let began = Instant::now();
            let task = ground.create();
            let played = ground.stage.next();
            let (task, played) = tokio::join!(task, played);
            let (task, played) = (task?, played.with_context(|| ground.report())?);
            ours.push(milliseconds(played.at.duration_since(began)));
            limit.push(milliseconds(commits.once().await?));
            drop(played);
            ground.cancel(&task).await?;
        }
        if round > 0 {
            seen.push(Round {
                ours: median(&ours),
                limit: Some(COMMITS * median(&limit)),
            });
        }
    }
    Ok(Row::beside(
        "enqueue to worker process started",
        "limit: 3 commits, of the task, its claim and its start; a commit is that of a task's and an event's row",
        seen,
    )
    .beyond_limit_at_most(10.0))
}
