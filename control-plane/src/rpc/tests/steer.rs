use super::*;
use crate::db::commands::Command;

fn say(task: &v1::Task, id: &str, text: &str) -> v1::SayToTaskRequest {
    v1::SayToTaskRequest {
        task_id: task.id.clone(),
        text: text.to_owned(),
        request_id: id.to_owned(),
    }
}

async fn pending(world: &World, task: &v1::Task) -> Vec<Command> {
    let id = task.id.parse().unwrap();
    let pending = world.store.pending_commands(id).await.unwrap();
    pending.into_iter().map(|pending| pending.what).collect()
}

#[tokio::test]
async fn guidance_is_delivered_once_for_one_request() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let id = Uuid::new_v4().to_string();
    for _ in 0..2 {
        world
            .tasks
            .say_to_task(by("ada", say(&task, &id, "mind the step")))
            .await
            .unwrap();
    }
    let said = Command::Say {
        text: "mind the step".to_owned(),
    };
    assert_eq!(pending(&world, &task).await, std::slice::from_ref(&said));
    // The same id from somebody else is theirs.
    world
        .tasks
        .say_to_task(by("bob", say(&task, &id, "mind the step")))
        .await
        .unwrap();
    assert_eq!(pending(&world, &task).await, [said.clone(), said]);
    let kinds = world.kinds(&task).await;
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "said").count(),
        2,
        "{kinds:?}"
    );
}

#[tokio::test]
async fn guidance_before_there_is_a_worker_goes_into_its_first_prompt() {
    let world = World::new().await;
    let task = world.propose("gate").await;
    let id = Uuid::new_v4().to_string();
    for _ in 0..2 {
        world
            .tasks
            .say_to_task(by("ada", say(&task, &id, "mind the step")))
            .await
            .unwrap();
    }
    assert_eq!(pending(&world, &task).await, []);
    assert_eq!(
        world.words(&task).await,
        [(String::new(), "mind the step".to_owned())]
    );
}

#[tokio::test]
async fn guidance_that_nobody_would_hear_is_refused() {
    let world = World::new().await;
    let task = world.planning("gate").await;
    let request = v1::CancelTaskRequest {
        task_id: task.id.clone(),
        reason: "wrong gate".to_owned(),
    };
    let cancelled = world
        .tasks
        .cancel_task(by("ada", request.clone()))
        .await
        .unwrap();
    let cancelled = cancelled.into_inner().task.unwrap();
    assert_eq!(cancelled.state(), v1::TaskState::Cancelled);
    assert_eq!(cancelled.milestone, "cancelled: wrong gate");
    let again = world
        .tasks
        .cancel_task(by("ada", request))
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    let late = world
        .tasks
        .say_to_task(by("ada", say(&task, "", "wait")))
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert_eq!(world.words(&task).await, []);
    assert_eq!(pending(&world, &task).await, []);
    for (text, field) in [
        (" ".to_owned(), "text"),
        ("x".repeat(16 * 1024 + 1), "text"),
    ] {
        let refused = world
            .tasks
            .say_to_task(by("ada", say(&task, "", &text)))
            .await;
        assert_eq!(fields(&refused.unwrap_err()), [field]);
    }
    let refused = world
        .tasks
        .say_to_task(by("ada", say(&task, "x", "hello")))
        .await;
    assert_eq!(fields(&refused.unwrap_err()), ["request_id"]);
}
