//! A plane of a few lines: it keeps what a test puts into it, answers from that, and records what it is asked.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};

use mainloop_proto::v1::{
    access_service_server::{AccessService, AccessServiceServer},
    inbox_service_server::{InboxService, InboxServiceServer},
    task_service_server::{TaskService, TaskServiceServer},
    *,
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::oneshot};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the plane knows.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) tasks: Vec<Task>,
    pub(crate) items: Vec<InboxItem>,
    pub(crate) events: Vec<TaskEvent>,
    pub(crate) logs: Vec<StreamTaskLogsResponse>,
    pub(crate) tokens: Vec<Token>,
    /// What each connection to `WatchTask` is sent; after the last message the stream stays open, after an error it ends.
    pub(crate) watches: VecDeque<Vec<Result<WatchTaskResponse, Status>>>,
    /// What `WatchInbox` sends after the present state.
    pub(crate) changes: Vec<WatchInboxResponse>,
    pub(crate) status: GetStatusResponse,
    /// When set, every call needs it.
    pub(crate) secret: Option<String>,
    /// How many creates and words have their effect and lose their answer.
    pub(crate) lost_answers: usize,
    /// Ids of requests that had their effect.
    pub(crate) done: Vec<String>,
    /// Requests that would change something, as they came; a repeat is not among them.
    pub(crate) asked: Vec<String>,
}

/// A running plane; it ends with the value.
pub(crate) struct Plane {
    world: Arc<Mutex<World>>,
    folder: TempDir,
    running: Option<Running>,
}

/// Its server, in a thread of its own.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Plane {
    pub(crate) fn start(world: World) -> Self {
        let mut plane = Self {
            world: Arc::new(Mutex::new(world)),
            folder: tempfile::tempdir().expect("a folder for the socket"),
            running: None,
        };
        plane.restart();
        plane
    }

    /// Ends, as by `kill -9`, and comes back on the same socket with the same world.
    pub(crate) fn restart(&mut self) {
        self.end();
        self.running = Some(Running::start(&self.world, self.socket()));
    }

    pub(crate) fn end(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            drop(stop);
            thread.join().expect("the plane's thread");
        }
        let _ = std::fs::remove_file(self.socket());
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("the world")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("mainloop.sock")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Running {
    fn start(world: &Arc<Mutex<World>>, socket: PathBuf) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let services = Services(Arc::clone(world));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = UnixListener::bind(socket).expect("a socket");
                ready.send(()).expect("the test waits");
                let server = Server::builder()
                    .add_service(TaskServiceServer::new(services.clone()))
                    .add_service(InboxServiceServer::new(services.clone()))
                    .add_service(AccessServiceServer::new(services))
                    .serve_with_incoming(UnixListenerStream::new(listener));
                // Dropping the runtime cuts every connection.
                tokio::select! {
                    result = server => result.expect("the server"),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(Duration::ZERO);
        });
        is_ready.recv().expect("the plane starts");
        Self { stop, thread }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Clone)]
struct Services(Arc<Mutex<World>>);

impl Services {
    fn open<T>(&self, request: &Request<T>) -> Result<MutexGuard<'_, World>, Status> {
        let world = self.0.lock().expect("the world");
        if let Some(secret) = &world.secret {
            let wanted = format!("Bearer {secret}");
            match request.metadata().get("authorization") {
                None => return Err(Status::unauthenticated("no credential was given")),
                Some(given) if given.as_bytes() != wanted.as_bytes() => {
                    return Err(Status::permission_denied("this needs the scope approve"));
                }
                Some(_) => {}
            }
        }
        Ok(world)
    }
}

impl World {
    fn task(&self, id: &str) -> Result<Task, Status> {
        self.tasks
            .iter()
            .find(|task| task.short_id == id || task.id == id)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no task `{id}`")))
    }

    fn item(&self, name: &str) -> Result<InboxItem, Status> {
        let (id, revision) = name.split_once('@').unwrap_or((name, ""));
        self.items
            .iter()
            .find(|item| {
                item.id == id && (revision.is_empty() || item.revision.to_string() == revision)
            })
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no item `{name}`")))
    }

    /// Records the request once for its id; true where it had its effect before.
    fn once(&mut self, id: String, request: impl std::fmt::Debug) -> Result<bool, Status> {
        let existed = self.done.contains(&id);
        if !existed {
            self.done.push(id);
            self.record(request);
        }
        if self.lost_answers > 0 {
            self.lost_answers -= 1;
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(existed)
    }

    fn record(&mut self, request: impl std::fmt::Debug) {
        self.asked.push(format!("{request:?}"));
    }
}

fn stay_open<T: Send + 'static>(messages: Vec<Result<T, Status>>) -> Streamed<T> {
    Box::pin(tokio_stream::iter(messages).chain(tokio_stream::pending()))
}

#[tonic::async_trait]
impl TaskService for Services {
    type WatchTaskStream = Streamed<WatchTaskResponse>;
    type StreamTaskLogsStream = Streamed<StreamTaskLogsResponse>;

    async fn create_task(&self, request: Request<CreateTaskRequest>) -> Reply<CreateTaskResponse> {
        let mut world = self.open(&request)?;
        let mut request = request.into_inner();
        if uuid::Uuid::parse_str(&request.request_id).is_err() {
            return Err(Status::invalid_argument("the request id is no UUID"));
        }
        let id = std::mem::take(&mut request.request_id);
        if request.model == "gpt" {
            let details =
                ErrorDetails::with_bad_request_violation("model", "policy lists sonnet, opus");
            return Err(Status::with_error_details(
                Code::InvalidArgument,
                "the request is refused",
                details,
            ));
        }
        let state = if request.confirm {
            TaskState::Queued
        } else {
            TaskState::Proposed
        };
        let task = Task {
            short_id: "t1a2".to_owned(),
            title: if request.title.is_empty() {
                request.description.clone()
            } else {
                request.title.clone()
            },
            repository: Some(Repository {
                url: request.repository_url.clone(),
                ..Repository::default()
            }),
            base_ref: "main".to_owned(),
            issue_number: request.issue_number,
            model: "sonnet".to_owned(),
            budget_micros: if request.budget_micros == 0 {
                5_000_000
            } else {
                request.budget_micros
            },
            state: state.into(),
            ..Task::default()
        };
        let existed = world.once(id, request)?;
        Ok(Response::new(CreateTaskResponse {
            task: Some(task),
            existed,
        }))
    }

    async fn confirm_task(
        &self,
        request: Request<ConfirmTaskRequest>,
    ) -> Reply<ConfirmTaskResponse> {
        let mut world = self.open(&request)?;
        let request = request.into_inner();
        let task = world.task(&request.task_id)?;
        if task.state() != TaskState::Proposed {
            return Err(Status::failed_precondition("the task was confirmed before"));
        }
        world.record(request);
        Ok(Response::new(ConfirmTaskResponse { task: Some(task) }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Reply<GetTaskResponse> {
        let world = self.open(&request)?;
        let task = world.task(&request.get_ref().task_id)?;
        let plan_text = if task.plan.is_some() {
            "# Plan\n\nDo it.\n"
        } else {
            ""
        };
        Ok(Response::new(GetTaskResponse {
            task: Some(task),
            plan_text: plan_text.to_owned(),
        }))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Reply<ListTasksResponse> {
        let world = self.open(&request)?;
        let request = request.into_inner();
        let from: usize = request.page_token.parse().unwrap_or(0);
        let wanted: Vec<Task> = world
            .tasks
            .iter()
            .filter(|task| request.states.is_empty() || request.states.contains(&task.state))
            .filter(|task| request.groups.is_empty() || request.groups.contains(&task.group))
            .cloned()
            .collect();
        // Pages of two, so that every list of three follows a token.
        let tasks: Vec<Task> = wanted.iter().skip(from).take(2).cloned().collect();
        let next = from + tasks.len();
        let next_page_token = if next < wanted.len() {
            next.to_string()
        } else {
            String::new()
        };
        Ok(Response::new(ListTasksResponse {
            tasks,
            next_page_token,
        }))
    }

    async fn watch_task(&self, request: Request<WatchTaskRequest>) -> Reply<Self::WatchTaskStream> {
        let mut world = self.open(&request)?;
        let request = request.into_inner();
        world.task(&request.task_id)?;
        world.record(request);
        let script = world.watches.pop_front().unwrap_or_default();
        Ok(Response::new(stay_open(script)))
    }

    async fn cancel_task(&self, request: Request<CancelTaskRequest>) -> Reply<CancelTaskResponse> {
        let mut world = self.open(&request)?;
        let request = request.into_inner();
        let mut task = world.task(&request.task_id)?;
        task.set_state(TaskState::Cancelled);
        world.record(request);
        Ok(Response::new(CancelTaskResponse { task: Some(task) }))
    }

    async fn retry_task(&self, request: Request<RetryTaskRequest>) -> Reply<RetryTaskResponse> {
        let mut world = self.open(&request)?;
        let request = request.into_inner();
        let task = world.task(&request.task_id)?;
        if task.state() != TaskState::Failed {
            return Err(Status::failed_precondition("the task has not failed"));
        }
        world.record(request);
        Ok(Response::new(RetryTaskResponse { task: Some(task) }))
    }

    async fn say_to_task(&self, request: Request<SayToTaskRequest>) -> Reply<SayToTaskResponse> {
        let mut world = self.open(&request)?;
        let mut request = request.into_inner();
        let task = world.task(&request.task_id)?;
        let id = std::mem::take(&mut request.request_id);
        world.once(id, request)?;
        Ok(Response::new(SayToTaskResponse { task: Some(task) }))
    }

    async fn list_task_events(
        &self,
        request: Request<ListTaskEventsRequest>,
    ) -> Reply<ListTaskEventsResponse> {
        let world = self.open(&request)?;
        world.task(&request.get_ref().task_id)?;
        Ok(Response::new(ListTaskEventsResponse {
            events: world.events.clone(),
            next_page_token: String::new(),
        }))
    }

    async fn stream_task_logs(
        &self,
        request: Request<StreamTaskLogsRequest>,
    ) -> Reply<Self::StreamTaskLogsStream> {
        let world = self.open(&request)?;
        let request = request.into_inner();
        world.task(&request.task_id)?;
        let tail = usize::try_from(request.tail).unwrap_or(0);
        let skip = if tail == 0 {
            0
        } else {
            world.logs.len().saturating_sub(tail)
        };
        let chunks: Vec<_> = world.logs.iter().skip(skip).cloned().map(Ok).collect();
        if request.follow {
            return Ok(Response::new(stay_open(chunks)));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

#[tonic::async_trait]
impl InboxService for Services {
    type WatchInboxStream = Streamed<WatchInboxResponse>;

    async fn list_inbox_items(
        &self,
        request: Request<ListInboxItemsRequest>,
    ) -> Reply<ListInboxItemsResponse> {
        let world = self.open(&request)?;
        Ok(Response::new(ListInboxItemsResponse {
            items: world.items.clone(),
            next_page_token: String::new(),
        }))
    }

    async fn get_inbox_item(
        &self,
        request: Request<GetInboxItemRequest>,
    ) -> Reply<GetInboxItemResponse> {
        let world = self.open(&request)?;
        let item = world.item(&request.get_ref().item_id)?;
        Ok(Response::new(GetInboxItemResponse { item: Some(item) }))
    }

    async fn watch_inbox(
        &self,
        request: Request<WatchInboxRequest>,
    ) -> Reply<Self::WatchInboxStream> {
        let world = self.open(&request)?;
        let mut messages: Vec<_> = world
            .tasks
            .iter()
            .map(|task| WatchInboxResponse {
                task: Some(task.clone()),
                open_items: world
                    .items
                    .iter()
                    .filter(|item| item.task.as_ref().is_some_and(|of| of.id == task.id))
                    .cloned()
                    .collect(),
                caught_up: false,
            })
            .collect();
        messages.push(WatchInboxResponse {
            caught_up: true,
            ..WatchInboxResponse::default()
        });
        messages.extend(world.changes.iter().cloned());
        Ok(Response::new(stay_open(
            messages.into_iter().map(Ok).collect(),
        )))
    }

    async fn resolve_inbox_item(
        &self,
        request: Request<ResolveInboxItemRequest>,
    ) -> Reply<ResolveInboxItemResponse> {
        let mut world = self.open(&request)?;
        let request = request.into_inner();
        let mut item = world.item(&request.item_id)?;
        if request.revision != item.revision {
            let newest = item.revision;
            return Err(Status::aborted(format!(
                "there is a newer revision, {}@{newest}",
                item.id
            )));
        }
        item.set_state(InboxItemState::Resolved);
        world.record(request);
        Ok(Response::new(ResolveInboxItemResponse { item: Some(item) }))
    }
}

#[tonic::async_trait]
impl AccessService for Services {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Reply<CreateTokenResponse> {
        let mut world = self.open(&request)?;
        let request = request.into_inner();
        let token = Token {
            id: "a1b2".to_owned(),
            name: request.name.clone(),
            scopes: request.scopes.clone(),
            ..Token::default()
        };
        world.record(request);
        Ok(Response::new(CreateTokenResponse {
            token: Some(token),
            secret: "mlt_secret".to_owned(),
        }))
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Reply<ListTokensResponse> {
        let world = self.open(&request)?;
        Ok(Response::new(ListTokensResponse {
            tokens: world.tokens.clone(),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Reply<RevokeTokenResponse> {
        let world = self.open(&request)?;
        let name = &request.get_ref().token_id;
        let token = world
            .tokens
            .iter()
            .find(|token| &token.name == name || &token.id == name)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no token `{name}`")))?;
        Ok(Response::new(RevokeTokenResponse { token: Some(token) }))
    }

    async fn get_caller(&self, request: Request<GetCallerRequest>) -> Reply<GetCallerResponse> {
        let world = self.open(&request)?;
        Ok(Response::new(GetCallerResponse {
            name: "ada".to_owned(),
            scopes: vec![Scope::Read.into(), Scope::Approve.into()],
            local: world.secret.is_none(),
        }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Reply<GetStatusResponse> {
        let world = self.open(&request)?;
        Ok(Response::new(world.status.clone()))
    }
}
