use jiff::Timestamp;

use super::*;
use crate::db::commands::Chunk;

async fn append(world: &World, task: &v1::Task, texts: &[&str]) {
    let chunks: Vec<Chunk> = texts
        .iter()
        .map(|text| Chunk {
            source: "claude",
            at: Timestamp::now(),
            text: (*text).to_owned(),
            dropped: 0,
        })
        .collect();
    world
        .store
        .append_logs(task.id.parse().unwrap(), 1, &chunks)
        .await
        .unwrap();
}

fn logs(
    task: &v1::Task,
    after_position: i64,
    follow: bool,
    tail: i32,
) -> Request<v1::StreamTaskLogsRequest> {
    by(
        "ada",
        v1::StreamTaskLogsRequest {
            task_id: task.id.clone(),
            after_position,
            follow,
            tail,
        },
    )
}

async fn texts(world: &World, request: Request<v1::StreamTaskLogsRequest>) -> Vec<(i64, String)> {
    let mut stream = world
        .tasks
        .stream_task_logs(request)
        .await
        .unwrap()
        .into_inner();
    let mut texts = Vec::new();
    while let Some(chunk) = testing::soon("a chunk or the end", stream.next()).await {
        let chunk = chunk.unwrap();
        assert_eq!(chunk.source(), v1::LogSource::Claude);
        texts.push((chunk.position, chunk.text));
    }
    texts
}

fn numbered(from: i64, texts: &[&str]) -> Vec<(i64, String)> {
    (from..)
        .zip(texts.iter().map(|text| (*text).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_log_is_read_whole_from_a_position_and_from_its_tail() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    append(&world, &task, &["a", "b"]).await;
    append(&world, &task, &["c"]).await;
    assert_eq!(
        texts(&world, logs(&task, 0, false, 0)).await,
        numbered(1, &["a", "b", "c"])
    );
    assert_eq!(
        texts(&world, logs(&task, 2, false, 0)).await,
        numbered(3, &["c"])
    );
    assert_eq!(
        texts(&world, logs(&task, 0, false, 2)).await,
        numbered(2, &["b", "c"])
    );
    assert_eq!(
        texts(&world, logs(&task, 0, false, 99)).await,
        numbered(1, &["a", "b", "c"])
    );
    let refused = world
        .tasks
        .stream_task_logs(logs(&task, -1, false, 0))
        .await;
    assert_eq!(fields(&refused.err().unwrap()), ["after_position"]);
}

#[tokio::test]
async fn a_log_is_followed_until_its_task_settles() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    append(&world, &task, &["a"]).await;
    let mut stream = world
        .tasks
        .stream_task_logs(logs(&task, 0, true, 0))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut stream).await.text, "a");
    append(&world, &task, &["b"]).await;
    assert_eq!(next(&mut stream).await.text, "b");
    append(&world, &task, &["c"]).await;
    let request = v1::CancelTaskRequest {
        task_id: task.id.clone(),
        reason: "enough".to_owned(),
    };
    world.tasks.cancel_task(by("ada", request)).await.unwrap();
    assert_eq!(next(&mut stream).await.text, "c");
    assert!(testing::soon("the end", stream.next()).await.is_none());
}

#[tokio::test]
async fn a_log_that_is_longer_than_a_page_comes_whole() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let many = vec!["x"; 450];
    append(&world, &task, &many).await;
    assert_eq!(
        texts(&world, logs(&task, 0, false, 0)).await,
        numbered(1, &many)
    );
}
