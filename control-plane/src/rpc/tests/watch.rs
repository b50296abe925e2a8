use super::*;

fn watch(task: &v1::Task, after_seq: i64) -> Request<v1::WatchTaskRequest> {
    by(
        "ada",
        v1::WatchTaskRequest {
            task_id: task.short_id.clone(),
            after_seq,
        },
    )
}

#[tokio::test]
async fn a_watch_begins_with_the_present_state_and_then_sends_every_event_once() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let mut stream = world
        .tasks
        .watch_task(watch(&task, 0))
        .await
        .unwrap()
        .into_inner();
    let first = next(&mut stream).await;
    assert_eq!(first.event, None);
    assert_eq!(first.task.unwrap().state(), v1::TaskState::Planning);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let message = next(&mut stream).await;
        seen.push(message.event.unwrap().seq);
    }
    // Many changes while the reader is busy elsewhere, and some while it waits.
    let changes = async {
        for number in 0..20 {
            let id = format!("q{number}");
            world.ask(&task, &id, "Left or right?").await;
            world.worker_says(&task, Event::Answered).await;
        }
    };
    let reading = async {
        let mut versions = Vec::new();
        while seen.len() < 44 {
            let message = next(&mut stream).await;
            let now = message.task.unwrap();
            versions.push(now.version);
            if let Some(event) = message.event {
                seen.push(event.seq);
            }
        }
        versions
    };
    let ((), versions) = tokio::join!(changes, reading);
    assert_eq!(seen, (1..=44).collect::<Vec<i64>>());
    assert!(versions.is_sorted(), "{versions:?}");
}

#[tokio::test]
async fn a_watch_resumes_after_an_event_and_shows_a_change_without_one() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let mut stream = world
        .tasks
        .watch_task(watch(&task, 3))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut stream).await.event, None);
    assert_eq!(next(&mut stream).await.event.unwrap().seq, 4);
    let mut news = world
        .tasks
        .watch_task(watch(&task, -1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut news).await.event, None);
    // Money spent is no event.
    let client = world.store.connection("spend").await.unwrap();
    client
        .execute(
            "UPDATE task SET cost_micros = 17, version = version + 1, updated_at = clock_timestamp()",
            &[],
        )
        .await
        .unwrap();
    world.store.nudge().task_changed(task.id.parse().unwrap());
    for stream in [&mut stream, &mut news] {
        let message = next(stream).await;
        assert_eq!(message.event, None);
        assert_eq!(message.task.unwrap().cost_micros, 17);
    }
    world.ask(&task, "q1", "Left or right?").await;
    assert_eq!(next(&mut news).await.event.unwrap().kind, "question_asked");
}

#[tokio::test]
async fn a_change_that_nobody_was_told_of_is_found_all_the_same() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let mut stream = world
        .tasks
        .watch_task(watch(&task, -1))
        .await
        .unwrap()
        .into_inner();
    next(&mut stream).await;
    // Another replica over the same database, whose notification is lost.
    let elsewhere = Store::new(world.store.config().clone());
    let asked = Occurrence::new(
        Event::QuestionAsked {
            id: "q".to_owned(),
            recommends: false,
        },
        "worker",
    );
    elsewhere
        .apply(task.id.parse().unwrap(), &asked)
        .await
        .unwrap();
    assert_eq!(
        next(&mut stream).await.event.unwrap().kind,
        "question_asked"
    );
}

#[tokio::test]
async fn replicas_hear_of_each_others_changes() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let elsewhere = Store::new(world.store.config().clone());
    let stop = CancellationToken::new();
    let mut heard = world.store.nudge().subscribe();
    let id: Uuid = task.id.parse().unwrap();
    let listening = crate::watchers::listen(world.store.clone(), stop.clone());
    let notifying = crate::watchers::notify(elsewhere.clone(), stop.clone());
    let telling = async {
        // The listener needs a moment to be there; until then a notification is lost, as it may be.
        let told = testing::soon("a notification", async {
            loop {
                elsewhere.nudge().task_changed(id);
                if let Ok(heard) =
                    tokio::time::timeout(std::time::Duration::from_millis(50), heard.recv()).await
                {
                    return heard.unwrap();
                }
            }
        })
        .await;
        stop.cancel();
        told
    };
    let ((), (), told) = tokio::join!(listening, notifying, telling);
    assert_eq!(told, id);
}

#[tokio::test]
async fn a_watch_of_the_inbox_shows_what_is_there_and_then_what_changes() {
    let world = World::new().await;
    let proposed = world.propose("gate").await;
    let working = world.planning("fence").await;
    let request = by("ada", v1::WatchInboxRequest {});
    let mut stream = world.inbox.watch_inbox(request).await.unwrap().into_inner();
    let mut present = Vec::new();
    loop {
        let message = next(&mut stream).await;
        if message.caught_up {
            break;
        }
        present.push((message.task.unwrap().id, message.open_items.len()));
    }
    assert_eq!(present, [(working.id.clone(), 0), (proposed.id.clone(), 1)]);
    world.ask(&working, "q1", "Left or right?").await;
    let message = next(&mut stream).await;
    let task = message.task.unwrap();
    assert_eq!(
        (task.id.as_str(), task.state()),
        (working.id.as_str(), v1::TaskState::Question)
    );
    assert_eq!(message.open_items[0].questions[0].text, "Left or right?");
    assert_eq!(task.open_items, [format!("{}@1", message.open_items[0].id)]);
    let new = world.propose("late").await;
    assert_eq!(next(&mut stream).await.task.unwrap().id, new.id);
    // From another replica, unheard.
    let elsewhere = Store::new(world.store.config().clone());
    let cancel = Occurrence::new(Event::CancelRequested, "bob");
    elsewhere
        .apply(new.id.parse().unwrap(), &cancel)
        .await
        .unwrap();
    let message = next(&mut stream).await;
    assert_eq!(message.task.unwrap().state(), v1::TaskState::Cancelled);
    assert_eq!(message.open_items, []);
}

#[tokio::test]
async fn streams_end_when_the_plane_stops() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let mut stream = world
        .tasks
        .watch_task(watch(&task, -1))
        .await
        .unwrap()
        .into_inner();
    next(&mut stream).await;
    world.stop.cancel();
    let ended = testing::soon("the end", stream.next())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.get_error_details().retry_info().is_some());
}

#[tokio::test]
async fn queued_tasks_say_what_keeps_workers_from_starting() {
    let world = World::new().await;
    let task = world.confirmed("gate").await;
    world.propose("fence").await;
    let mut one = world
        .tasks
        .watch_task(watch(&task, -1))
        .await
        .unwrap()
        .into_inner();
    next(&mut one).await;
    let request = by("ada", v1::WatchInboxRequest {});
    let mut all = world.inbox.watch_inbox(request).await.unwrap().into_inner();
    while !next(&mut all).await.caught_up {}

    for (workers, words) in [
        (Workers::Unable("install bwrap".to_owned()), "install bwrap"),
        (Workers::Able, ""),
    ] {
        world.health.set_workers(workers);
        for told in [
            next(&mut one).await.task.unwrap(),
            next(&mut all).await.task.unwrap(),
        ] {
            assert_eq!(told.id, task.id);
            assert_eq!(told.state(), v1::TaskState::Queued);
            assert_eq!(told.wait.unwrap().reason, words);
        }
    }
}
