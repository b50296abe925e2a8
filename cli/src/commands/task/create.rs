//! `mainloop task create`: a proposal, and a yes where a person is there to give it.
//!
//! The proposal is made first and then shown as the plane understood it: what is confirmed is what was seen. A person who walks
//! away leaves a proposal, which spends nothing.

use mainloop_proto::v1::{
    ConfirmTaskRequest, CreateTaskRequest, CreateTaskResponse, GetStatusRequest, Task, TaskState,
};
use uuid::Uuid;

use crate::{
    args::{Global, task::Create},
    client::Client,
    commands::{connect, patience::Patience, show},
    exit::{self, Call, Exit, Failure},
    format,
    output::{Output, json, style::Style},
    repository, terminal,
};

pub(super) async fn run(create: Create, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let confirmed = create.yes;
    let request = request(create)?;
    let mut client = connect(global).await?;
    let response = send(request, &mut client, global, output).await?;
    if output.is_json() {
        output.message(&response, |_| Ok(()))?;
        return Ok(Exit::Done);
    }
    let clean: CreateTaskResponse = json::clean(&response)?;
    let task = clean.task.unwrap_or_default();
    if clean.existed {
        output.note("this request had made the task before");
    }
    let proposed = task.state() == TaskState::Proposed;
    output.line(format!(
        "task {} {}: {}",
        output.paint(Style::Bold, &task.short_id),
        if proposed { "proposed" } else { "started" },
        task.title
    ))?;
    for (name, value) in facts(&task, &mut client).await {
        output.line(format!(
            "  {}{value}",
            output.paint(Style::Dim, &format!("{name:<12}"))
        ))?;
    }
    if !proposed || confirmed {
        output.next(&format!("mainloop task watch {}", task.short_id));
        return Ok(Exit::Done);
    }
    if output.is_interactive() && terminal::confirm(output, "Start it?")? {
        return confirm(&task, &mut client, output).await;
    }
    output.next(&format!("mainloop task confirm {}", task.short_id));
    output.next(&format!("mainloop task cancel {}", task.short_id));
    Ok(Exit::Done)
}

/// Sends the request until it is answered: its id makes one task of it, however often it arrives.
async fn send(
    request: CreateTaskRequest,
    client: &mut Client,
    global: &Global,
    output: &Output,
) -> anyhow::Result<CreateTaskResponse> {
    let mut patience = Patience::default();
    loop {
        let status = match client.tasks.create_task(request.clone()).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        let again = exit::is_unreachable(&status);
        let failed = Call::failed("create the task")(status);
        if !again {
            return Err(failed.into());
        }
        if !patience.is_away() {
            output
                .note("the plane does not answer; the same request is sent again when it is back");
        }
        *client = patience.reconnect(failed, global, || Ok(())).await?;
    }
}

async fn confirm(task: &Task, client: &mut Client, output: &Output) -> anyhow::Result<Exit> {
    let id = &task.short_id;
    client
        .tasks
        .confirm_task(ConfirmTaskRequest {
            task_id: id.clone(),
        })
        .await
        .map_err(Call::failed(format!("confirm the task `{id}`")))?;
    output.line(format!("task {id} started"))?;
    output.next(&format!("mainloop task watch {id}"));
    Ok(Exit::Done)
}

fn request(create: Create) -> anyhow::Result<CreateTaskRequest> {
    let description = terminal::text_or_stdin(create.description.unwrap_or_default())?;
    let issue_repository = create
        .issue
        .as_ref()
        .and_then(|issue| issue.repository.clone());
    let named = create
        .repo
        .map(|repo| repository::normalize(&repo))
        .transpose()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let repository_url = match (named, issue_repository) {
        (Some(named), Some(other)) if named != other => {
            return Err(Failure::usage(format!("the issue is of {other}, not of {named}")).into());
        }
        (Some(url), _) | (None, Some(url)) => url,
        (None, None) => repository::origin_here().map_err(|error| {
            Failure::usage(error.to_string())
                .hint("stand in a clone of the repository, or name it by --repo")
        })?,
    };
    Ok(CreateTaskRequest {
        request_id: Uuid::new_v4().to_string(),
        repository_url,
        base_ref: create.base.unwrap_or_default(),
        issue_number: create.issue.map_or(0, |issue| issue.number),
        title: create.title.unwrap_or_default(),
        description,
        model: create.model.unwrap_or_default(),
        priority: create.priority,
        labels: create.label.into_iter().collect(),
        budget_micros: create.budget.unwrap_or_default(),
        confirm: create.yes,
    })
}

/// What a person needs to know before the yes.
async fn facts(task: &Task, client: &mut Client) -> Vec<(&'static str, String)> {
    let mut budget = task.budget_micros;
    if budget == 0
        && let Ok(status) = client.access.get_status(GetStatusRequest {}).await
    {
        budget = status.into_inner().default_budget_micros;
    }
    let mut facts = vec![("repository", show::place(task))];
    if task.issue_number != 0 {
        facts.push(("issue", format!("#{}", task.issue_number)));
    }
    if !task.model.is_empty() {
        facts.push(("model", task.model.clone()));
    }
    if budget > 0 {
        facts.push(("cost", format!("at most {}", format::money(budget))));
    }
    if task.unsandboxed {
        facts.push((
            "sandbox",
            "off: the worker can read and write whatever the plane's user can".to_owned(),
        ));
    }
    facts
}
