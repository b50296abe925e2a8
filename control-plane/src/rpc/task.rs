//! `TaskService`: proposes, starts, lists, watches and steers tasks.

mod proposal;

use std::{collections::BTreeMap, pin::Pin};

use futures_util::stream::try_unfold;
use mainloop_core::{Event, State};
use mainloop_proto::v1::{self, task_service_server::TaskService};
use serde_json::json;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use url::Url;

use super::{
    Error, Scope, Shared, clean, convert, page_size, token,
    watch::{LogStream, TaskWatch},
    words,
};
use crate::db::{
    Applied, Occurrence,
    create::Created,
    inbox::Confirmed,
    read::{After, Filter},
    say::Said,
};

/// What tasks may name and cost, made from the configuration.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Code host whose repositories tasks may name.
    pub code_host: Url,
    /// Models that tasks may name.
    pub models: Vec<String>,
    /// Taken when a task names none.
    pub default_model: String,
    /// Budget of a task that asks for none, in millionths of a US dollar.
    pub default_budget_micros: i64,
    /// Highest budget that a task may ask for.
    pub max_budget_micros: i64,
    /// The policy as it is kept with each task.
    pub snapshot: serde_json::Value,
    /// Workers run without the sandbox.
    pub unsandboxed: bool,
    /// Repositories that tasks may name, as `owner/name` or `owner/*`; all of the code host when empty.
    pub repositories: Vec<String>,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Tasks {
    shared: Shared,
}

impl Tasks {
    /// The service over what all services share.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    async fn create(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<v1::CreateTaskResponse, Error> {
        let caller = self.shared.caller(&request, Scope::Submit)?;
        let request = request.into_inner();
        if request.confirm {
            caller.require(Scope::Approve)?;
        }
        let proposal = proposal::check(&self.shared.rules, request, caller.name)?;
        let created = self
            .shared
            .store
            .create_task(&proposal, &self.shared.snapshot())
            .await?;
        let (seen, existed) = match created {
            Created::New(seen) => (seen, false),
            Created::Existed(seen) => (seen, true),
            Created::Differs => {
                return Err(Error::AlreadyExists {
                    message: format!(
                        "request id {} was used for another task",
                        proposal.request_id
                    ),
                });
            }
        };
        Ok(v1::CreateTaskResponse {
            task: Some(self.shared.shown(&seen)),
            existed,
        })
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmTaskRequest>,
    ) -> Result<v1::ConfirmTaskResponse, Error> {
        let caller = self.shared.caller(&request, Scope::Approve)?;
        let name = request.into_inner().task_id;
        let id = self.shared.named(&name).await?.task.id;
        let confirmed = self
            .shared
            .store
            .confirm_task(id, &caller.name, &self.shared.snapshot())
            .await?;
        match confirmed {
            Confirmed::Done => {}
            Confirmed::Missing => return Err(gone(&name)),
            Confirmed::Refused(rejected) => {
                return Err(Error::WrongState {
                    message: rejected.to_string(),
                });
            }
        }
        Ok(v1::ConfirmTaskResponse {
            task: Some(self.shared.after(id).await?),
        })
    }

    async fn get(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<v1::GetTaskResponse, Error> {
        self.shared.caller(&request, Scope::Read)?;
        let seen = self.shared.named(&request.into_inner().task_id).await?;
        let plan_text = match &seen.task.task.plan {
            Some(plan) => self
                .shared
                .store
                .plan_text(seen.task.id, plan.revision)
                .await?
                .unwrap_or_default(),
            None => String::new(),
        };
        Ok(v1::GetTaskResponse {
            task: Some(self.shared.shown(&seen)),
            plan_text,
        })
    }

    async fn list(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<v1::ListTasksResponse, Error> {
        self.shared.caller(&request, Scope::Read)?;
        let request = request.into_inner();
        let limit = page_size(request.page_size, 50, 500)?;
        let after = if request.page_token.is_empty() {
            After::start()
        } else {
            let (at, key) = token::position(&request.page_token)?;
            After {
                at,
                id: key.parse().map_err(|_| token::unknown())?,
            }
        };
        let filter = Filter {
            states: states(&request.states, &request.groups)?,
            repository_url: (!request.repository_url.is_empty())
                .then(|| proposal::repository(&self.shared.rules, &request.repository_url))
                .transpose()
                .map_err(|reason| Error::invalid("repository_url", reason))?
                .map(|repository| repository.url),
            labels: json!(
                request
                    .labels
                    .iter()
                    .map(|(key, value)| (clean(key), clean(value)))
                    .collect::<BTreeMap<_, _>>()
            ),
        };
        // One more than asked for says whether there is another page.
        let mut found = self
            .shared
            .store
            .list_tasks(&filter, after, limit + 1)
            .await?;
        let more = i64::try_from(found.len()).is_ok_and(|count| count > limit);
        if more {
            found.pop();
        }
        Ok(v1::ListTasksResponse {
            next_page_token: found
                .last()
                .filter(|_| more)
                .map(|last| token::after(last.task.created_at, &last.task.id.to_string()))
                .unwrap_or_default(),
            tasks: found.iter().map(|seen| self.shared.shown(seen)).collect(),
        })
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<v1::CancelTaskResponse, Error> {
        let caller = self.shared.caller(&request, Scope::Submit)?;
        let request = request.into_inner();
        let reason = words("reason", &request.reason)?;
        let mut occurrence = Occurrence::new(Event::CancelRequested, caller.name);
        if let Some(line) = reason.trim().lines().next() {
            occurrence.text = format!("cancelled: {line}");
        }
        occurrence.detail = json!({ "reason": reason });
        Ok(v1::CancelTaskResponse {
            task: Some(self.apply(&request.task_id, &occurrence).await?),
        })
    }

    async fn retry(
        &self,
        request: Request<v1::RetryTaskRequest>,
    ) -> Result<v1::RetryTaskResponse, Error> {
        let caller = self.shared.caller(&request, Scope::Approve)?;
        let request = request.into_inner();
        let guidance = words("guidance", &request.guidance)?;
        let id = self.shared.named(&request.task_id).await?.task.id;
        match self
            .shared
            .store
            .retry_task(id, &guidance, request.fresh, &caller.name)
            .await?
        {
            Applied::Changed(_) => {}
            Applied::Ignored { rejected, .. } => {
                return Err(Error::WrongState {
                    message: rejected.to_string(),
                });
            }
            Applied::Missing => return Err(gone(&request.task_id)),
        }
        Ok(v1::RetryTaskResponse {
            task: Some(self.shared.after(id).await?),
        })
    }

    async fn say(
        &self,
        request: Request<v1::SayToTaskRequest>,
    ) -> Result<v1::SayToTaskResponse, Error> {
        let caller = self.shared.caller(&request, Scope::Submit)?;
        let request = request.into_inner();
        let text = words("text", &request.text)?;
        if text.trim().is_empty() {
            return Err(Error::invalid("text", "is required"));
        }
        let request_id = proposal::request_id(&request.request_id)
            .map_err(|reason| Error::invalid("request_id", reason))?;
        let id = self.shared.named(&request.task_id).await?.task.id;
        match self
            .shared
            .store
            .say_to_task(id, request_id, &text, &caller.name)
            .await?
        {
            Said::Stored => {}
            Said::Missing => return Err(gone(&request.task_id)),
            Said::Over(phase) => {
                return Err(Error::WrongState {
                    message: format!("a task in phase {phase} has no worker that would hear it"),
                });
            }
        }
        Ok(v1::SayToTaskResponse {
            task: Some(self.shared.after(id).await?),
        })
    }

    async fn events(
        &self,
        request: Request<v1::ListTaskEventsRequest>,
    ) -> Result<v1::ListTaskEventsResponse, Error> {
        self.shared.caller(&request, Scope::Read)?;
        let request = request.into_inner();
        let limit = page_size(request.page_size, 100, 1000)?;
        let after = if request.page_token.is_empty() {
            0
        } else {
            let (_, key) = token::position(&request.page_token)?;
            key.parse().map_err(|_| token::unknown())?
        };
        let seen = self.shared.named(&request.task_id).await?;
        let until = seen.task.event_seq;
        let found = self
            .shared
            .store
            .events(seen.task.id, after, until, limit)
            .await?;
        Ok(v1::ListTaskEventsResponse {
            next_page_token: found
                .last()
                .filter(|last| last.seq < until)
                .map(|last| token::after(last.at, &last.seq.to_string()))
                .unwrap_or_default(),
            events: found.iter().map(convert::event).collect(),
        })
    }

    /// Applies a person's event to the task of that name; the task after it.
    async fn apply(&self, name: &str, occurrence: &Occurrence) -> Result<v1::Task, Error> {
        let id = self.shared.named(name).await?.task.id;
        match self.shared.store.apply(id, occurrence).await? {
            Applied::Changed(_) => self.shared.after(id).await,
            Applied::Ignored { rejected, .. } => Err(Error::WrongState {
                message: rejected.to_string(),
            }),
            Applied::Missing => Err(gone(name)),
        }
    }
}

fn gone(name: &str) -> Error {
    Error::NotFound {
        what: format!("task {name}"),
    }
}

/// The states that both filters let pass; none when neither says anything.
fn states(states: &[i32], groups: &[i32]) -> Result<Option<Vec<State>>, Error> {
    if states.is_empty() && groups.is_empty() {
        return Ok(None);
    }
    let wanted_states = states
        .iter()
        .map(|state| {
            convert::to_state(*state).ok_or_else(|| {
                Error::invalid("states", format!("holds {state}, which is no state"))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let wanted_groups = groups
        .iter()
        .map(|group| {
            convert::to_group(*group).ok_or_else(|| {
                Error::invalid("groups", format!("holds {group}, which is no group"))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(
        State::ALL
            .into_iter()
            .filter(|state| wanted_states.is_empty() || wanted_states.contains(state))
            .filter(|state| wanted_groups.is_empty() || wanted_groups.contains(&state.group()))
            .collect(),
    ))
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl TaskService for Tasks {
    type WatchTaskStream = Boxed<v1::WatchTaskResponse>;
    type StreamTaskLogsStream = Boxed<v1::StreamTaskLogsResponse>;

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        Ok(Response::new(self.create(request).await?))
    }

    async fn confirm_task(
        &self,
        request: Request<v1::ConfirmTaskRequest>,
    ) -> Result<Response<v1::ConfirmTaskResponse>, Status> {
        Ok(Response::new(self.confirm(request).await?))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        Ok(Response::new(self.get(request).await?))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        Ok(Response::new(self.list(request).await?))
    }

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let reader = self.shared.caller(&request, Scope::Read)?;
        let request = request.into_inner();
        let watch =
            TaskWatch::begin(&self.shared, reader, &request.task_id, request.after_seq).await?;
        Ok(Response::new(Box::pin(try_unfold(
            watch,
            async |mut watch: TaskWatch| Ok(Some((watch.next().await?, watch))),
        ))))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        Ok(Response::new(self.cancel(request).await?))
    }

    async fn retry_task(
        &self,
        request: Request<v1::RetryTaskRequest>,
    ) -> Result<Response<v1::RetryTaskResponse>, Status> {
        Ok(Response::new(self.retry(request).await?))
    }

    async fn say_to_task(
        &self,
        request: Request<v1::SayToTaskRequest>,
    ) -> Result<Response<v1::SayToTaskResponse>, Status> {
        Ok(Response::new(self.say(request).await?))
    }

    async fn list_task_events(
        &self,
        request: Request<v1::ListTaskEventsRequest>,
    ) -> Result<Response<v1::ListTaskEventsResponse>, Status> {
        Ok(Response::new(self.events(request).await?))
    }

    async fn stream_task_logs(
        &self,
        request: Request<v1::StreamTaskLogsRequest>,
    ) -> Result<Response<Self::StreamTaskLogsStream>, Status> {
        let reader = self.shared.caller(&request, Scope::Read)?;
        let stream = LogStream::begin(&self.shared, reader, &request.into_inner()).await?;
        Ok(Response::new(Box::pin(try_unfold(
            stream,
            async |mut stream: LogStream| Ok(stream.next().await?.map(|chunk| (chunk, stream))),
        ))))
    }
}
