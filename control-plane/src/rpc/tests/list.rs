use super::*;

async fn list(
    world: &World,
    request: v1::ListTasksRequest,
) -> Result<v1::ListTasksResponse, Status> {
    Ok(world
        .tasks
        .list_tasks(by("ada", request))
        .await?
        .into_inner())
}

fn ids(tasks: &[v1::Task]) -> Vec<&str> {
    tasks.iter().map(|task| task.id.as_str()).collect()
}

#[tokio::test]
async fn pages_hold_every_task_once_newest_first() {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.propose("gate").await.id);
    }
    made.reverse();
    let mut found = Vec::new();
    let mut token = String::new();
    let mut pages = 0;
    loop {
        let page = list(
            &world,
            v1::ListTasksRequest {
                page_size: 2,
                page_token: token,
                ..v1::ListTasksRequest::default()
            },
        )
        .await
        .unwrap();
        pages += 1;
        found.extend(page.tasks.into_iter().map(|task| task.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        // What is new in the meantime belongs to no later page.
        world.propose("late").await;
    }
    assert_eq!((pages, found), (3, made));
}

#[tokio::test]
async fn filters_hold_together() {
    let world = World::new().await;
    let gate = world.propose("gate").await;
    let fence = world.propose("fence").await;
    let working = world.planning("gate").await;
    let only = |change: &dyn Fn(&mut v1::ListTasksRequest)| {
        let mut request = v1::ListTasksRequest::default();
        change(&mut request);
        request
    };
    let found = list(
        &world,
        only(&|request| request.states = vec![v1::TaskState::Planning.into()]),
    )
    .await
    .unwrap();
    assert_eq!(ids(&found.tasks), [working.id.as_str()]);
    let found = list(
        &world,
        only(&|request| request.groups = vec![v1::InboxGroup::NeedsYou.into()]),
    )
    .await
    .unwrap();
    assert_eq!(ids(&found.tasks), [fence.id.as_str(), gate.id.as_str()]);
    let found = list(
        &world,
        only(&|request| {
            request.groups = vec![v1::InboxGroup::NeedsYou.into()];
            request.states = vec![v1::TaskState::Planning.into()];
        }),
    )
    .await
    .unwrap();
    assert_eq!(ids(&found.tasks), Vec::<&str>::new());
    let found = list(
        &world,
        only(&|request| {
            request.repository_url = "https://github.com/acme/gate.git".to_owned();
            request.groups = vec![v1::InboxGroup::NeedsYou.into()];
        }),
    )
    .await
    .unwrap();
    assert_eq!(ids(&found.tasks), [gate.id.as_str()]);
    let found = list(
        &world,
        only(&|request| {
            request.labels = HashMap::from([("team".to_owned(), "fence".to_owned())]);
        }),
    )
    .await
    .unwrap();
    assert_eq!(ids(&found.tasks), [fence.id.as_str()]);
}

#[tokio::test]
async fn what_no_client_may_send_is_refused() {
    let world = World::new().await;
    for (request, field) in [
        (
            v1::ListTasksRequest {
                page_token: "!".to_owned(),
                ..v1::ListTasksRequest::default()
            },
            "page_token",
        ),
        (
            v1::ListTasksRequest {
                page_size: -1,
                ..v1::ListTasksRequest::default()
            },
            "page_size",
        ),
        (
            v1::ListTasksRequest {
                states: vec![0],
                ..v1::ListTasksRequest::default()
            },
            "states",
        ),
        (
            v1::ListTasksRequest {
                groups: vec![99],
                ..v1::ListTasksRequest::default()
            },
            "groups",
        ),
    ] {
        assert_eq!(fields(&list(&world, request).await.unwrap_err()), [field]);
    }
    let missing = world.get("nothing0").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(fields(&world.get("").await.unwrap_err()), ["task_id"]);
}

#[tokio::test]
async fn events_come_in_pages() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let mut kinds = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListTaskEventsRequest {
            task_id: task.short_id.clone(),
            page_size: 3,
            page_token: token,
        };
        let page = world
            .tasks
            .list_task_events(by("ada", request))
            .await
            .unwrap();
        let page = page.into_inner();
        kinds.extend(page.events.into_iter().map(|event| (event.seq, event.kind)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let words = ["created", "confirmed", "claimed", "worker_connected"];
    let expected: Vec<(i64, String)> = (1..).zip(words.map(str::to_owned)).collect();
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn counts_say_what_goes_on() {
    let world = World::new().await;
    world.propose("gate").await;
    let working = world.planning("gate").await;
    world.planning("fence").await;
    world.ask(&working, "q1", "Left or right?").await;
    let counts = world.store.counts().await.unwrap();
    assert_eq!(
        (
            counts.slots_used,
            counts.queued,
            counts.active,
            counts.open_items
        ),
        (2, 0, 1, 2)
    );
}
