use super::*;
use crate::{db, rpc};

#[tokio::test]
async fn a_proposal_waits_for_a_person() {
    let world = World::new().await;
    let task = world.propose("gate").await;
    assert_eq!(task.state(), v1::TaskState::Proposed);
    assert_eq!(task.group(), v1::InboxGroup::NeedsYou);
    assert_eq!(task.title, "Mend the gate.");
    assert_eq!(task.model, "sonnet");
    assert_eq!(task.budget_micros, 5_000_000);
    assert_eq!(task.created_by, "ada");
    let repository = task.repository.clone().unwrap();
    assert_eq!(
        (
            repository.url.as_str(),
            repository.owner.as_str(),
            repository.name.as_str()
        ),
        ("https://github.com/acme/gate", "acme", "gate")
    );
    assert!(task.id.replace('-', "").ends_with(&task.short_id));
    assert_eq!(world.kinds(&task).await, ["created"]);
    let item = world.open_item(&task).await;
    assert_eq!(item.kind(), v1::InboxItemKind::Spawn);
    assert_eq!(item.body, "Mend the gate.\nIt squeaks.");
    assert_eq!(task.wait.clone().unwrap().item, item.id);
    // By its short id it is the same.
    let found = world.get(&task.short_id).await.unwrap().task.unwrap();
    assert_eq!(found, task);
}

#[tokio::test]
async fn create_with_confirm_queues_it_and_leaves_nothing_open() {
    let world = World::new().await;
    let request = v1::CreateTaskRequest {
        confirm: true,
        ..proposal("gate")
    };
    let task = world.create(request).await.unwrap().task.unwrap();
    assert_eq!(task.state(), v1::TaskState::Queued);
    assert_eq!(task.open_items, Vec::<String>::new());
    assert!(task.confirm_time.is_some());
    assert_eq!(world.kinds(&task).await, ["created", "confirmed"]);
}

#[tokio::test]
async fn the_same_request_makes_one_task_and_other_content_is_refused() {
    let world = World::new().await;
    let request = v1::CreateTaskRequest {
        request_id: Uuid::new_v4().to_string(),
        labels: ('a'..'k')
            .map(|key| (key.to_string(), "x".to_owned()))
            .collect(),
        ..proposal("gate")
    };
    let first = world.create(request.clone()).await.unwrap();
    assert!(!first.existed);
    // Twice at once, and after it.
    let (left, right) = tokio::join!(world.create(request.clone()), world.create(request.clone()));
    for again in [left.unwrap(), right.unwrap()] {
        assert!(again.existed);
        assert_eq!(again.task, first.task);
    }
    let other = v1::CreateTaskRequest {
        description: "Something else".to_owned(),
        ..request.clone()
    };
    let refused = world.create(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    // Ids are the caller's own.
    let theirs = world.tasks.create_task(by("bob", request)).await.unwrap();
    assert!(!theirs.into_inner().existed);
}

#[tokio::test]
async fn one_request_sent_many_times_at_once_makes_one_task() {
    let world = World::new().await;
    let request = v1::CreateTaskRequest {
        request_id: Uuid::new_v4().to_string(),
        ..proposal("gate")
    };
    let answers =
        futures_util::future::join_all((0..8).map(|_| world.create(request.clone()))).await;
    let made: Vec<v1::CreateTaskResponse> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().filter(|answer| !answer.existed).count(), 1);
    let id = &made[0].task.as_ref().unwrap().id;
    assert!(
        made.iter()
            .all(|answer| answer.task.as_ref().unwrap().id == *id)
    );
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let world = World::new().await;
    let request = v1::CreateTaskRequest {
        request_id: "not one".to_owned(),
        repository_url: "ftp://github.com/acme/gate".to_owned(),
        base_ref: "-x".to_owned(),
        issue_number: -1,
        title: "x".repeat(121),
        description: "x".repeat(32 * 1024 + 1),
        model: "gpt".to_owned(),
        priority: 101,
        labels: HashMap::from([(String::new(), "x".to_owned())]),
        budget_micros: 50_000_001,
        confirm: false,
    };
    let refused = world.create(request).await.unwrap_err();
    assert_eq!(
        fields(&refused),
        [
            "base_ref",
            "budget_micros",
            "description",
            "issue_number",
            "labels",
            "model",
            "priority",
            "repository_url",
            "request_id",
            "title"
        ]
    );
    assert!(
        refused.message().contains("sonnet, opus"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn repositories_that_are_not_on_the_code_host_are_refused() {
    let world = World::with(|rules| {
        rules.repositories = vec!["acme/gate".to_owned()];
    })
    .await;
    for (url, why) in [
        ("", "is required"),
        ("acme/gate", "is no URL"),
        ("http://github.com/acme/gate", "scheme"),
        ("https://gitlab.com/acme/gate", "is not on"),
        ("https://github.com:8443/acme/gate", "is not on"),
        ("https://me:pw@github.com/acme/gate", "credential"),
        ("https://github.com/acme", "must look like"),
        ("https://github.com/acme/gate/pull/1", "must look like"),
        ("https://github.com/acme/gate?x", "must end"),
        ("https://github.com/acme/fence", "policy"),
    ] {
        let request = v1::CreateTaskRequest {
            repository_url: url.to_owned(),
            ..proposal("gate")
        };
        let refused = world.create(request).await.unwrap_err();
        assert_eq!(fields(&refused), ["repository_url"], "{url}");
        assert!(
            refused.message().contains(why),
            "{url}: {}",
            refused.message()
        );
    }
    let request = v1::CreateTaskRequest {
        repository_url: "https://github.com/acme/gate.git/".to_owned(),
        ..proposal("gate")
    };
    let task = world.create(request).await.unwrap().task.unwrap();
    assert_eq!(task.repository.unwrap().url, "https://github.com/acme/gate");
}

#[tokio::test]
async fn an_issue_is_enough() {
    let world = World::new().await;
    let request = v1::CreateTaskRequest {
        description: String::new(),
        issue_number: 7,
        ..proposal("gate")
    };
    let task = world.create(request).await.unwrap().task.unwrap();
    assert_eq!((task.issue_number, task.title.as_str()), (7, "Work on #7"));
    let request = v1::CreateTaskRequest {
        description: " \n".to_owned(),
        ..proposal("gate")
    };
    assert_eq!(
        fields(&world.create(request).await.unwrap_err()),
        ["description"]
    );
}

#[tokio::test]
async fn a_person_confirms_once() {
    let world = World::new().await;
    let task = world.propose("gate").await;
    let item = world.open_item(&task).await;
    let confirm = || v1::ConfirmTaskRequest {
        task_id: task.short_id.clone(),
    };
    let response = world
        .tasks
        .confirm_task(by("bob", confirm()))
        .await
        .unwrap();
    assert_eq!(
        response.into_inner().task.unwrap().state(),
        v1::TaskState::Queued
    );
    let request = v1::GetInboxItemRequest { item_id: item.id };
    let item = world
        .inbox
        .get_inbox_item(by("ada", request))
        .await
        .unwrap();
    let resolution = item.into_inner().item.unwrap().resolution.unwrap();
    assert_eq!(
        (resolution.action(), resolution.actor.as_str()),
        (v1::InboxAction::Approve, "bob")
    );
    let again = world
        .tasks
        .confirm_task(by("bob", confirm()))
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition, "{again:?}");
    assert_eq!(world.kinds(&task).await, ["created", "confirmed"]);
}

#[tokio::test]
async fn confirming_takes_the_policy_of_that_moment() {
    let before = World::new().await;
    let task = before.propose("gate").await;
    let shared = Shared {
        store: before.store.clone(),
        rules: Arc::new(Rules {
            code_host: "https://github.com".parse().unwrap(),
            models: Vec::new(),
            default_model: String::new(),
            default_budget_micros: 1,
            max_budget_micros: 1,
            snapshot: json!({ "limits": { "max_attempts": 9 } }),
            unsandboxed: true,
            repositories: Vec::new(),
        }),
        stop: CancellationToken::new(),
        health: Health::default(),
    };
    let request = v1::ConfirmTaskRequest {
        task_id: task.id.clone(),
    };
    let task = Tasks::new(shared)
        .confirm_task(by("ada", request))
        .await
        .unwrap();
    let task = task.into_inner().task.unwrap();
    assert!(task.unsandboxed);
    let seen = before
        .store
        .task(task.id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.task.limits().max_attempts, 9);
}

#[tokio::test]
async fn scopes_are_asked_for() {
    let world = World::new().await;
    let request = v1::CreateTaskRequest {
        confirm: true,
        ..proposal("gate")
    };
    let submit = [Scope::Read, Scope::Submit];
    let denied = world
        .tasks
        .create_task(with_scopes("bot", &submit, request))
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("approve"), "{}", denied.message());
    let made = world
        .tasks
        .create_task(with_scopes("bot", &submit, proposal("gate")))
        .await;
    assert!(made.is_ok(), "{made:?}");
    let nobody = world
        .tasks
        .create_task(Request::new(proposal("gate")))
        .await;
    assert_eq!(nobody.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_full_disk_of_the_database_is_said_in_so_many_words() {
    let world = World::new().await;
    let client = world.store.connection("prepare a test").await.unwrap();
    let full =
        "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$";
    let stored = client.batch_execute(full).await;
    let error = stored.map_err(db::Error::on("create a task")).unwrap_err();
    let status = Status::from(rpc::status::Error::from(error));
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("nothing was stored"),
        "{status:?}"
    );
}
