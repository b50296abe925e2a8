use mainloop_core::NoCi;

use super::*;
use crate::db::commands::Command;

fn with_text(request: v1::ResolveInboxItemRequest, text: &str) -> v1::ResolveInboxItemRequest {
    v1::ResolveInboxItemRequest {
        text: text.to_owned(),
        ..request
    }
}

#[tokio::test]
async fn a_plan_is_revised_and_its_old_revision_cannot_be_approved() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    world.plan(&task, 1, "first").await;
    let item = world.open_item(&task).await;
    assert_eq!((item.revision, item.body.as_str()), (1, "first"));
    assert_eq!(item.kind(), v1::InboxItemKind::Plan);
    assert_eq!(
        item.actions,
        [
            i32::from(v1::InboxAction::Approve),
            i32::from(v1::InboxAction::Revise),
            i32::from(v1::InboxAction::Reject)
        ]
    );
    let revise = decision(&item, v1::InboxAction::Revise);
    assert_eq!(
        fields(&world.resolve("ada", revise.clone()).await.unwrap_err()),
        ["text"]
    );
    world
        .resolve("ada", with_text(revise, "use oil"))
        .await
        .unwrap();
    assert_eq!(world.task(&task).await.state(), v1::TaskState::Planning);
    let id: Uuid = task.id.parse().unwrap();
    assert_eq!(world.store.plan_feedback(id).await.unwrap(), "use oil");
    world.plan(&task, 2, "second").await;
    let newer = world.open_item(&task).await;
    assert_eq!((newer.id.as_str(), newer.revision), (item.id.as_str(), 2));
    assert_eq!(
        (newer.body.as_str(), newer.previous_body.as_str()),
        ("second", "first")
    );

    let stale = world
        .resolve("ada", decision(&item, v1::InboxAction::Approve))
        .await
        .unwrap_err();
    assert_eq!(stale.code(), Code::Aborted, "{stale:?}");
    assert!(
        stale.message().contains(&format!("{}@2", item.id)),
        "{}",
        stale.message()
    );
    assert_eq!(world.task(&task).await.state(), v1::TaskState::PlanReview);

    let done = world
        .resolve("ada", decision(&newer, v1::InboxAction::Approve))
        .await
        .unwrap();
    assert_eq!(done.state(), v1::InboxItemState::Resolved);
    assert_eq!(done.actions, Vec::<i32>::new());
    let after = world.task(&task).await;
    assert_eq!(after.state(), v1::TaskState::Implementing);
    assert!(after.plan.unwrap().approved);
    assert_eq!(world.get(&task.id).await.unwrap().plan_text, "second");
}

#[tokio::test]
async fn an_item_is_resolved_once_and_the_second_hears_by_whom() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    world.plan(&task, 1, "first").await;
    let item = world.open_item(&task).await;
    // Two people at once.
    let (left, right) = tokio::join!(
        world.resolve("ada", decision(&item, v1::InboxAction::Approve)),
        world.resolve("bob", decision(&item, v1::InboxAction::Reject)),
    );
    assert_ne!(left.is_ok(), right.is_ok(), "{left:?} {right:?}");
    let winner = if left.is_ok() { "ada" } else { "bob" };
    let refused = left.err().or(right.err()).unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains(winner), "{}", refused.message());
}

#[tokio::test]
async fn a_rejected_plan_declines_the_task_and_ends_its_worker() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    world.plan(&task, 1, "first").await;
    let item = world.open_item(&task).await;
    let reject = with_text(decision(&item, v1::InboxAction::Reject), "not worth it");
    let done = world.resolve("ada", reject).await.unwrap();
    let resolution = done.resolution.unwrap();
    assert_eq!(
        (
            resolution.action(),
            resolution.text.as_str(),
            resolution.actor.as_str()
        ),
        (v1::InboxAction::Reject, "not worth it", "ada")
    );
    let after = world.task(&task).await;
    assert_eq!(
        (after.state(), after.run()),
        (v1::TaskState::Declined, v1::Run::Idle)
    );
}

#[tokio::test]
async fn a_proposal_can_be_declined_in_the_inbox() {
    let world = World::new().await;
    let task = world.propose("gate").await;
    let item = world.open_item(&task).await;
    let wrong = world
        .resolve(
            "ada",
            with_text(decision(&item, v1::InboxAction::Answer), "yes"),
        )
        .await
        .unwrap_err();
    assert_eq!(fields(&wrong), ["action"]);
    assert!(
        wrong.message().contains("approve, reject"),
        "{}",
        wrong.message()
    );
    let done = world
        .resolve("ada", decision(&item, v1::InboxAction::Reject))
        .await
        .unwrap();
    assert_eq!(done.task.unwrap().state(), v1::TaskState::Declined);
}

#[tokio::test]
async fn an_answer_reaches_the_worker_and_every_later_prompt() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    world.ask(&task, "q1", "Left or right?").await;
    let item = world.open_item(&task).await;
    assert_eq!(item.questions[0].options[0].label, "left");
    let answers = |answers: &[&str]| v1::ResolveInboxItemRequest {
        answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        ..decision(&item, v1::InboxAction::Answer)
    };
    assert_eq!(
        fields(&world.resolve("ada", answers(&[])).await.unwrap_err()),
        ["text"]
    );
    let two = world
        .resolve("ada", answers(&["left", "right"]))
        .await
        .unwrap_err();
    assert_eq!(fields(&two), ["answers"]);
    world.resolve("ada", answers(&["left"])).await.unwrap();
    assert_eq!(world.task(&task).await.state(), v1::TaskState::Planning);
    let pending = world
        .store
        .pending_commands(task.id.parse().unwrap())
        .await
        .unwrap();
    let commands: Vec<Command> = pending.into_iter().map(|pending| pending.what).collect();
    assert_eq!(
        commands,
        [Command::Answer {
            question_id: "q1".to_owned(),
            answers: vec!["left".to_owned()],
            text: String::new(),
            assumed: false,
            approved: false,
        }]
    );
    assert_eq!(
        world.words(&task).await,
        [("Left or right?".to_owned(), "left".to_owned())]
    );
}

#[tokio::test]
async fn an_answer_without_a_worker_waits_for_the_next_one() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    world.ask(&task, "q1", "Left or right?").await;
    world
        .worker_says(
            &task,
            Event::AttemptLost {
                why: "gone".to_owned(),
            },
        )
        .await;
    let item = world.open_item(&task).await;
    let answer = with_text(decision(&item, v1::InboxAction::Answer), "straight on");
    world.resolve("ada", answer).await.unwrap();
    assert_eq!(world.task(&task).await.state(), v1::TaskState::Queued);
    let pending = world
        .store
        .pending_commands(task.id.parse().unwrap())
        .await
        .unwrap();
    assert!(pending.is_empty(), "{pending:?}");
    assert_eq!(
        world.words(&task).await,
        [("Left or right?".to_owned(), "straight on".to_owned())]
    );
}

/// A task whose worker holds a push, and its item.
async fn held(world: &World) -> (v1::Task, v1::InboxItem) {
    let task = world.planning("gate").await;
    world.plan(&task, 1, "Oil it.").await;
    let plan = world.open_item(&task).await;
    world
        .resolve("ada", decision(&plan, v1::InboxAction::Approve))
        .await
        .unwrap();
    let hash = "c1".to_owned();
    world.worker_says(&task, Event::ChangeHeld { hash }).await;
    let item = world.open_item(&task).await;
    assert_eq!(item.kind(), v1::InboxItemKind::Blocker);
    assert_eq!(item.reason(), v1::FailureReason::WorkflowChange);
    (task, item)
}

#[tokio::test]
async fn a_yes_to_a_held_push_reaches_the_worker_and_is_kept() {
    let world = World::new().await;
    let (task, item) = held(&world).await;
    let answer = with_text(decision(&item, v1::InboxAction::Answer), "yes");
    let refused = world.resolve("ada", answer).await.unwrap_err();
    assert_eq!(fields(&refused), ["action"]);
    world
        .resolve("ada", decision(&item, v1::InboxAction::Approve))
        .await
        .unwrap();
    let id = task.id.parse().unwrap();
    let pending = world.store.pending_commands(id).await.unwrap();
    let commands: Vec<Command> = pending.into_iter().map(|pending| pending.what).collect();
    assert_eq!(
        commands,
        [Command::Answer {
            question_id: "c1".to_owned(),
            answers: Vec::new(),
            text: String::new(),
            assumed: false,
            approved: true,
        }]
    );
    assert_eq!(world.store.allowed_changes(id).await.unwrap(), ["c1"]);
    assert_eq!(world.task(&task).await.state(), v1::TaskState::Implementing);
}

#[tokio::test]
async fn a_yes_to_a_push_whose_worker_is_gone_waits_for_the_next_one() {
    let world = World::new().await;
    let (task, item) = held(&world).await;
    let why = "gone".to_owned();
    world.worker_says(&task, Event::AttemptLost { why }).await;
    assert_eq!(world.open_item(&task).await.id, item.id);
    world
        .resolve("ada", decision(&item, v1::InboxAction::Approve))
        .await
        .unwrap();
    let id = task.id.parse().unwrap();
    assert_eq!(world.store.allowed_changes(id).await.unwrap(), ["c1"]);
    assert!(world.store.pending_commands(id).await.unwrap().is_empty());
    assert_eq!(world.task(&task).await.state(), v1::TaskState::Queued);
    let words = world.words(&task).await;
    assert_eq!(words.len(), 1);
    assert_eq!(words[0].1, "Yes, exactly this.");
}

#[tokio::test]
async fn words_on_a_held_push_reach_the_worker_and_allow_nothing() {
    let world = World::new().await;
    let (task, item) = held(&world).await;
    let revise = with_text(decision(&item, v1::InboxAction::Revise), "without it");
    world.resolve("ada", revise).await.unwrap();
    let id = task.id.parse().unwrap();
    let pending = world.store.pending_commands(id).await.unwrap();
    let commands: Vec<Command> = pending.into_iter().map(|pending| pending.what).collect();
    assert_eq!(
        commands,
        [Command::Answer {
            question_id: "c1".to_owned(),
            answers: Vec::new(),
            text: "without it".to_owned(),
            assumed: false,
            approved: false,
        }]
    );
    assert!(world.store.allowed_changes(id).await.unwrap().is_empty());
}

#[tokio::test]
async fn words_on_work_without_a_change_reach_the_worker_that_stayed() {
    for is_retried in [false, true] {
        let world = World::new().await;
        let task = world.planning("gate").await;
        world.plan(&task, 1, "Oil it.").await;
        let plan = world.open_item(&task).await;
        world
            .resolve("ada", decision(&plan, v1::InboxAction::Approve))
            .await
            .unwrap();
        let nothing = Event::WorkFinished { changed: false };
        world.worker_says(&task, nothing).await;
        let item = world.open_item(&task).await;
        assert_eq!(item.reason(), v1::FailureReason::NoChange);
        if is_retried {
            let request = v1::RetryTaskRequest {
                fresh: false,
                task_id: task.id.clone(),
                guidance: "look again".to_owned(),
            };
            world.tasks.retry_task(by("ada", request)).await.unwrap();
        } else {
            let answer = with_text(decision(&item, v1::InboxAction::Answer), "look again");
            world.resolve("ada", answer).await.unwrap();
        }
        let id = task.id.parse().unwrap();
        let pending = world.store.pending_commands(id).await.unwrap();
        let commands: Vec<Command> = pending.into_iter().map(|pending| pending.what).collect();
        let text = "look again".to_owned();
        assert_eq!(commands, [Command::Say { text }]);
        assert_eq!(world.task(&task).await.state(), v1::TaskState::Implementing);
    }
}

#[tokio::test]
async fn giving_up_fails_the_task_and_a_retry_goes_on() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    world
        .worker_says(
            &task,
            Event::BlockerReported {
                id: "b1".to_owned(),
            },
        )
        .await;
    let item = world.open_item(&task).await;
    assert_eq!(item.kind(), v1::InboxItemKind::Blocker);
    world
        .resolve("ada", decision(&item, v1::InboxAction::Reject))
        .await
        .unwrap();
    let failed = world.task(&task).await;
    assert_eq!(failed.state(), v1::TaskState::Failed);
    assert_eq!(failed.failure.unwrap().reason(), v1::FailureReason::GivenUp);
    let request = v1::RetryTaskRequest {
        fresh: false,
        task_id: task.id.clone(),
        guidance: "try the back door".to_owned(),
    };
    let retried = world
        .tasks
        .retry_task(by("ada", request.clone()))
        .await
        .unwrap();
    assert_eq!(
        retried.into_inner().task.unwrap().state(),
        v1::TaskState::Queued
    );
    let again = world
        .tasks
        .retry_task(by("ada", request))
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    // Refused guidance is not kept.
    assert_eq!(
        world.words(&task).await,
        [(String::new(), "try the back door".to_owned())]
    );
}

/// A task whose head has no checks.
async fn without_checks(world: &World) -> v1::Task {
    let task = world.planning("gate").await;
    world.plan(&task, 1, "first").await;
    let item = world.open_item(&task).await;
    world
        .resolve("ada", decision(&item, v1::InboxAction::Approve))
        .await
        .unwrap();
    for event in [
        Event::BranchPushed {
            sha: "abc".to_owned(),
        },
        Event::PullOpened { number: 3 },
        Event::WorkFinished { changed: true },
        Event::CiAbsent {
            sha: "abc".to_owned(),
        },
    ] {
        world.worker_says(&task, event).await;
    }
    task
}

#[tokio::test]
async fn a_head_without_checks_is_taken_or_mended_by_a_person() {
    assert_eq!(mainloop_core::Limits::default().no_ci, NoCi::Ask);
    let world = World::new().await;
    let task = without_checks(&world).await;
    let item = world.open_item(&task).await;
    world
        .resolve("ada", decision(&item, v1::InboxAction::Approve))
        .await
        .unwrap();
    let after = world.task(&task).await;
    assert_eq!(
        (after.green_sha.as_str(), after.step()),
        ("abc", v1::Step::MarkReady)
    );
    assert_eq!(after.pull_request.unwrap().number, 3);

    let task = without_checks(&world).await;
    let item = world.open_item(&task).await;
    let answer = with_text(decision(&item, v1::InboxAction::Answer), "add a workflow");
    world.resolve("ada", answer).await.unwrap();
    let seen = world
        .store
        .task(task.id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen.task.guidance, "add a workflow");
    assert_eq!(world.task(&task).await.state(), v1::TaskState::FixingCi);
}

#[tokio::test]
async fn a_cancelled_task_withdraws_its_item() {
    let world = World::new().await;
    let task = world.propose("gate").await;
    let item = world.open_item(&task).await;
    let request = v1::CancelTaskRequest {
        task_id: task.id.clone(),
        reason: String::new(),
    };
    world.tasks.cancel_task(by("ada", request)).await.unwrap();
    let refused = world
        .resolve("ada", decision(&item, v1::InboxAction::Approve))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("no longer asked"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn items_are_listed_in_pages_without_bodies() {
    let world = World::new().await;
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        let task = world.propose(name).await;
        made.push(world.open_item(&task).await.id);
    }
    made.reverse();
    let first = world.propose("d").await;
    let item = world.open_item(&first).await;
    world
        .resolve("ada", decision(&item, v1::InboxAction::Reject))
        .await
        .unwrap();
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListInboxItemsRequest {
            page_size: 2,
            page_token: token,
            ..v1::ListInboxItemsRequest::default()
        };
        let page = world
            .inbox
            .list_inbox_items(by("ada", request))
            .await
            .unwrap();
        let page = page.into_inner();
        assert!(page.items.iter().all(|item| item.body.is_empty()));
        found.extend(page.items.into_iter().map(|item| item.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, made);
    let request = v1::ListInboxItemsRequest {
        include_closed: true,
        task_id: first.short_id.clone(),
        ..v1::ListInboxItemsRequest::default()
    };
    let page = world
        .inbox
        .list_inbox_items(by("ada", request))
        .await
        .unwrap();
    assert_eq!(page.into_inner().items[0].id, item.id);
}

#[tokio::test]
async fn an_item_that_is_not_there_is_not_found() {
    let world = World::new().await;
    let task = world.propose("gate").await;
    let item = world.open_item(&task).await;
    for (name, code) in [
        ("nothing0".to_owned(), Code::NotFound),
        (format!("{}@2", item.id), Code::NotFound),
        (format!("{}@x", item.id), Code::InvalidArgument),
        (String::new(), Code::InvalidArgument),
    ] {
        let request = v1::GetInboxItemRequest {
            item_id: name.clone(),
        };
        let refused = world
            .inbox
            .get_inbox_item(by("ada", request))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{name}");
    }
    let nothing = v1::ResolveInboxItemRequest {
        item_id: "nothing0".to_owned(),
        ..decision(&item, v1::InboxAction::Approve)
    };
    let refused = world.resolve("ada", nothing).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    for scope in [Scope::Read, Scope::Submit, Scope::Admin] {
        let request = with_scopes("bot", &[scope], decision(&item, v1::InboxAction::Approve));
        let refused = world.inbox.resolve_inbox_item(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn words_with_a_yes_are_kept_for_every_worker_and_told_to_the_one_that_is_there() {
    let world = World::new().await;
    let said = "ok, but keep the old flag";
    let yes = |item: &v1::InboxItem| with_text(decision(item, v1::InboxAction::Approve), said);
    let title = |what: &str, task: &v1::Task| format!("{what}: {}", task.title);

    let proposed = world.propose("gate").await;
    let item = world.open_item(&proposed).await;
    world.resolve("ada", yes(&item)).await.unwrap();
    assert_eq!(
        world.words(&proposed).await,
        [(title("Start", &proposed), said.to_owned())]
    );

    let planned = world.planning("door").await;
    world.plan(&planned, 1, "the plan").await;
    let item = world.open_item(&planned).await;
    world.resolve("ada", yes(&item)).await.unwrap();
    assert_eq!(
        world.words(&planned).await,
        [(title("Plan", &planned), said.to_owned())]
    );
    let id: Uuid = planned.id.parse().unwrap();
    let told = world.store.pending_commands(id).await.unwrap();
    let told: Vec<&Command> = told.iter().map(|pending| &pending.what).collect();
    let kept = Command::Answer {
        question_id: item.id.clone(),
        answers: Vec::new(),
        text: said.to_owned(),
        assumed: false,
        approved: false,
    };
    assert_eq!(told, [&kept]);

    let held = Event::ChangeHeld {
        hash: "c".to_owned(),
    };
    world.worker_says(&planned, held).await;
    let item = world.open_item(&planned).await;
    world.resolve("ada", yes(&item)).await.unwrap();
    let words = world.words(&planned).await;
    assert_eq!(words[1], (item.title, said.to_owned()));
}
