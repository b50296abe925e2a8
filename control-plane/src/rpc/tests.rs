//! The services over a real database, called as the transport calls them, with a worker that is played by events.

#![allow(clippy::unwrap_used)]

mod access;
mod create;
mod inbox;
mod list;
mod logs;
mod steer;
mod tls;
mod watch;

use std::{collections::HashMap, sync::Arc};

use mainloop_core::Event;
use mainloop_proto::v1::{
    self, inbox_service_server::InboxService, task_service_server::TaskService,
};
use serde_json::json;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::{
    Caller, Scope, Shared,
    access::{Health, Workers},
    inbox::Inbox,
    task::{Rules, Tasks},
};
use crate::{
    db::{Applied, Facts, Item, Occurrence, Store},
    testing,
};

/// The plane of one test.
struct World {
    store: Store,
    tasks: Tasks,
    inbox: Inbox,
    stop: CancellationToken,
    health: Health,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = rules();
        change(&mut rules);
        let stop = CancellationToken::new();
        let shared = Shared {
            store: testing::store().await,
            rules: Arc::new(rules),
            stop: stop.clone(),
            health: Health::default(),
        };
        Self {
            store: shared.store.clone(),
            tasks: Tasks::new(shared.clone()),
            health: shared.health.clone(),
            inbox: Inbox::new(shared),
            stop,
        }
    }

    async fn create(
        &self,
        request: v1::CreateTaskRequest,
    ) -> Result<v1::CreateTaskResponse, Status> {
        Ok(self
            .tasks
            .create_task(by("ada", request))
            .await?
            .into_inner())
    }

    /// A proposal of a task on a repository.
    async fn propose(&self, name: &str) -> v1::Task {
        self.create(proposal(name)).await.unwrap().task.unwrap()
    }

    /// A task that waits for a worker.
    async fn confirmed(&self, name: &str) -> v1::Task {
        let request = v1::CreateTaskRequest {
            confirm: true,
            ..proposal(name)
        };
        self.create(request).await.unwrap().task.unwrap()
    }

    /// A task whose worker makes a plan.
    async fn planning(&self, name: &str) -> v1::Task {
        let task = self.confirmed(name).await;
        let mut claimed = Occurrence::new(Event::Claimed, "plane");
        claimed.detail = json!({ "host": "here" });
        self.happens(&task, claimed).await;
        self.worker_says(&task, Event::AttemptConnected).await;
        task
    }

    /// Stores the next plan.
    async fn plan(&self, task: &v1::Task, revision: u32, text: &str) {
        let mut stored = Occurrence::new(
            Event::PlanStored {
                revision,
                hash: format!("hash of {text}"),
            },
            "worker",
        );
        stored.facts = Facts {
            plan_body: Some(text.to_owned()),
            ..Facts::default()
        };
        self.happens(task, stored).await;
    }

    /// The worker asks a question.
    async fn ask(&self, task: &v1::Task, id: &str, question: &str) {
        let mut asked = Occurrence::new(
            Event::QuestionAsked {
                id: id.to_owned(),
                recommends: false,
            },
            "worker",
        );
        asked.item = Some(Item {
            title: "Question".to_owned(),
            body: "some context".to_owned(),
            questions: json!([{
                "text": question,
                "header": "Choice",
                "multi_select": false,
                "options": [{ "label": "left", "description": "where the heart is" }],
            }]),
        });
        self.happens(task, asked).await;
    }

    async fn worker_says(&self, task: &v1::Task, event: Event) {
        self.happens(task, Occurrence::new(event, "worker")).await;
    }

    async fn happens(&self, task: &v1::Task, occurrence: Occurrence) {
        let id: Uuid = task.id.parse().unwrap();
        match self.store.apply(id, &occurrence).await.unwrap() {
            Applied::Changed(_) => {}
            other => panic!("{occurrence:?} was not taken: {other:?}"),
        }
    }

    async fn get(&self, name: &str) -> Result<v1::GetTaskResponse, Status> {
        let request = v1::GetTaskRequest {
            task_id: name.to_owned(),
        };
        Ok(self.tasks.get_task(by("ada", request)).await?.into_inner())
    }

    async fn task(&self, task: &v1::Task) -> v1::Task {
        self.get(&task.id).await.unwrap().task.unwrap()
    }

    async fn kinds(&self, task: &v1::Task) -> Vec<String> {
        let request = v1::ListTaskEventsRequest {
            task_id: task.id.clone(),
            ..v1::ListTaskEventsRequest::default()
        };
        self.tasks
            .list_task_events(by("ada", request))
            .await
            .unwrap()
            .into_inner()
            .events
            .into_iter()
            .map(|event| event.kind)
            .collect()
    }

    /// The item that is open on a task.
    async fn open_item(&self, task: &v1::Task) -> v1::InboxItem {
        let task = self.task(task).await;
        assert_eq!(task.open_items.len(), 1, "{:?}", task.open_items);
        let request = v1::GetInboxItemRequest {
            item_id: task.open_items[0].clone(),
        };
        self.inbox
            .get_inbox_item(by("ada", request))
            .await
            .unwrap()
            .into_inner()
            .item
            .unwrap()
    }

    async fn resolve(
        &self,
        actor: &str,
        request: v1::ResolveInboxItemRequest,
    ) -> Result<v1::InboxItem, Status> {
        let response = self.inbox.resolve_inbox_item(by(actor, request)).await?;
        Ok(response.into_inner().item.unwrap())
    }

    async fn words(&self, task: &v1::Task) -> Vec<(String, String)> {
        self.store
            .human_words(task.id.parse().unwrap())
            .await
            .unwrap()
            .into_iter()
            .map(|word| (word.question, word.text))
            .collect()
    }
}

/// What tasks may name and cost in these tests.
fn rules() -> Rules {
    Rules {
        code_host: "https://github.com".parse().unwrap(),
        models: vec!["sonnet".to_owned(), "opus".to_owned()],
        default_model: "sonnet".to_owned(),
        default_budget_micros: 5_000_000,
        max_budget_micros: 50_000_000,
        snapshot: json!({ "limits": {} }),
        unsandboxed: false,
        repositories: Vec::new(),
    }
}

/// A request as it comes from a caller with every scope.
fn by<T>(name: &str, message: T) -> Request<T> {
    with_scopes(name, &Scope::ALL, message)
}

fn with_scopes<T>(name: &str, scopes: &[Scope], message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        local: false,
        token: None,
    });
    request
}

fn proposal(name: &str) -> v1::CreateTaskRequest {
    v1::CreateTaskRequest {
        repository_url: format!("https://github.com/acme/{name}"),
        description: format!("Mend the {name}.\nIt squeaks."),
        labels: HashMap::from([("team".to_owned(), name.to_owned())]),
        ..v1::CreateTaskRequest::default()
    }
}

/// What a decision on the revision that is shown looks like.
fn decision(item: &v1::InboxItem, action: v1::InboxAction) -> v1::ResolveInboxItemRequest {
    v1::ResolveInboxItemRequest {
        item_id: item.id.clone(),
        revision: item.revision,
        action: action.into(),
        ..v1::ResolveInboxItemRequest::default()
    }
}

/// The fields that a refusal names.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let mut fields: Vec<String> = details
        .bad_request()
        .expect("field violations")
        .field_violations
        .iter()
        .map(|violation| violation.field.clone())
        .collect();
    fields.sort();
    fields
}

/// The next message of a stream.
async fn next<T>(stream: &mut (impl Stream<Item = Result<T, Status>> + Unpin)) -> T {
    testing::soon("the next message of a stream", stream.next())
        .await
        .expect("the stream goes on")
        .unwrap()
}
