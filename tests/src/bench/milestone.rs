//! From a milestone that an agent reports to the client that watches its task.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mainloop_proto::v1::{ProgressNoted, WatchTaskRequest, WatchTaskResponse, milestone::Fact};
use tonic::Streaming;

use super::{
    figure::{Round, Row, median, milliseconds},
    ground::Ground,
    link::Link,
};

/// Milestones in a round, one at a time.
const MILESTONES: usize = 50;
/// Bytes of each.
const LENGTH: usize = 200;
/// How long one may take.
const SEEN: Duration = Duration::from_mins(1);

/// Reports milestones one after another, with commits in between.
pub(super) async fn measure(ground: &Ground, rounds: usize) -> Result<Row> {
    let mut commits = ground.commits().await?;
    let (task, played) = ground.worker().await?;
    let mut link = Link::open(&ground.socket(), &played.given).await?;
    let request = WatchTaskRequest {
        task_id: task.clone(),
        after_seq: -1,
    };
    let reply = ground.client.tasks().watch_task(request).await;
    let mut watch = reply.context("watch a task")?.into_inner();
    let mut seen = Vec::new();
    // The first one fills caches on both sides.
    for round in 0..=rounds {
        let (mut ours, mut limit) = (Vec::new(), Vec::new());
        for n in 0..MILESTONES {
            limit.push(milliseconds(commits.once().await?));
            let text = format!("{:-<LENGTH$}", format!("{round}.{n} "));
            let fact = Fact::ProgressNoted(ProgressNoted { text: text.clone() });
            let began = Instant::now();
            link.report(fact).await?;
            tokio::time::timeout(SEEN, expect(&mut watch, &text))
                .await
                .with_context(|| {
                    format!(
                        "a milestone was not seen within {SEEN:?}\n{}",
                        ground.report()
                    )
                })??;
            ours.push(milliseconds(began.elapsed()));
            link.durable().await?;
            limit.push(milliseconds(commits.once().await?));
        }
        if round > 0 {
            seen.push(Round {
                ours: median(&ours),
                limit: Some(median(&limit)),
            });
        }
    }
    drop((link, watch, played));
    ground.cancel(&task).await?;
    Ok(Row::beside(
        "milestone reported to seen by a watcher",
        "limit: 1 commit, of a task's and an event's row",
        seen,
    )
    .beyond_limit_at_most(5.0))
}

async fn expect(watch: &mut Streaming<WatchTaskResponse>, text: &str) -> Result<()> {
    loop {
        let message = watch.message().await.context("read the watch")?;
        let message = message.context("the plane ended the watch")?;
        if message.event.is_some_and(|event| event.text == text) {
            return Ok(());
        }
    }
}
