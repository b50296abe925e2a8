//! `mainloop task …`.

mod create;
mod facts;
mod live;
mod logs;
mod open;
mod story;
mod watch;

use jiff::Timestamp;
use mainloop_proto::v1::{
    CancelTaskRequest, ConfirmTaskRequest, GetTaskRequest, GetTaskResponse, ListTaskEventsRequest,
    ListTasksRequest, RetryTaskRequest, SayToTaskRequest, Task, TaskEvent,
};
use uuid::Uuid;

pub(crate) use self::facts::mark;

use super::{connect, inbox, patience::Patience};
use crate::{
    args::{Global, task::Command, task::List},
    client::Client,
    exit::{self, Call, Exit, Failure},
    format,
    output::{Output, markdown, style::Style, table::Table},
    repository, terminal, text, words,
};

/// Tasks and events of a page.
const PAGE: i32 = 200;

pub(super) async fn run(
    command: Command,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    match command {
        Command::Create(create) => create::run(create, global, output).await,
        Command::List(filters) => list(filters, &mut connect(global).await?, output).await,
        Command::Get(id) => get(&id.task, &mut connect(global).await?, output).await,
        Command::Watch(watch) => watch::run(watch, global, output).await,
        Command::Logs(logs) => logs::run(logs, &mut connect(global).await?, output).await,
        Command::Events(id) => events(&id.task, &mut connect(global).await?, output).await,
        Command::Confirm(id) => confirm(&id.task, &mut connect(global).await?, output).await,
        Command::Cancel { task, reason } => {
            cancel(
                &task,
                reason.unwrap_or_default(),
                &mut connect(global).await?,
                output,
            )
            .await
        }
        Command::Retry {
            task,
            guidance,
            fresh,
        } => {
            let guidance = terminal::text_or_stdin(guidance.unwrap_or_default())?;
            let mut client = connect(global).await?;
            retry(&task, guidance, fresh, &mut client, output).await
        }
        Command::Say { task, text } => {
            let text = terminal::text_or_stdin(text)?;
            say(&task, text, global, output).await
        }
        Command::Open { task, issue } => {
            open::run(&task, issue, &mut connect(global).await?, output).await
        }
    }
}

async fn list(filters: List, client: &mut Client, output: &Output) -> anyhow::Result<Exit> {
    let repository_url = match filters.repo {
        Some(repo) => {
            repository::normalize(&repo).map_err(|error| Failure::usage(error.to_string()))?
        }
        None => String::new(),
    };
    let mut request = ListTasksRequest {
        page_size: i32::try_from(filters.limit).unwrap_or(PAGE).clamp(1, PAGE),
        states: filters.state.into_iter().map(Into::into).collect(),
        groups: filters.group.into_iter().map(Into::into).collect(),
        repository_url,
        labels: filters.label.into_iter().collect(),
        ..ListTasksRequest::default()
    };
    let mut tasks = Vec::new();
    loop {
        let page = client
            .tasks
            .list_tasks(request.clone())
            .await
            .map_err(Call::failed("list tasks"))?
            .into_inner();
        tasks.extend(page.tasks);
        if page.next_page_token.is_empty() || tasks.len() >= filters.limit {
            break;
        }
        request.page_token = page.next_page_token;
    }
    tasks.truncate(filters.limit);
    if !output.is_json() && tasks.is_empty() {
        output.note("no tasks");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["TASK", "STATE", "REPOSITORY", "COST", "TITLE"]);
    for task in &tasks {
        output.message(task, |task| {
            table.row(inbox::summary(task));
            Ok(())
        })?;
    }
    if !output.is_json() {
        for line in table.render(output.palette(), output.columns()) {
            output.line(line)?;
        }
    }
    Ok(Exit::Done)
}

/// The task by its id.
async fn fetch(task: &str, client: &mut Client) -> anyhow::Result<GetTaskResponse> {
    let request = GetTaskRequest {
        task_id: task.to_owned(),
    };
    Ok(client
        .tasks
        .get_task(request)
        .await
        .map_err(Call::failed(format!("get the task `{task}`")))?
        .into_inner())
}

async fn get(task: &str, client: &mut Client, output: &Output) -> anyhow::Result<Exit> {
    let response = fetch(task, client).await?;
    output.message(&response, |response| {
        let Some(task) = &response.task else {
            return Ok(());
        };
        for line in facts::lines(task, output) {
            output.line(line)?;
        }
        if !response.plan_text.is_empty() {
            output.line("")?;
            output.line(output.paint(Style::Cyan, "Plan"))?;
            if output.is_terminal() {
                for line in markdown::render(&response.plan_text, output.palette(), output.prose())
                {
                    output.line(line)?;
                }
            } else {
                output.line(response.plan_text.trim_end())?;
            }
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

/// Every event, oldest first.
async fn all_events(task: &str, client: &mut Client) -> Result<Vec<TaskEvent>, tonic::Status> {
    let mut request = ListTaskEventsRequest {
        task_id: task.to_owned(),
        page_size: PAGE,
        page_token: String::new(),
    };
    let mut events = Vec::new();
    loop {
        let page = client
            .tasks
            .list_task_events(request.clone())
            .await?
            .into_inner();
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            return Ok(events);
        }
        request.page_token = page.next_page_token;
    }
}

async fn events(task: &str, client: &mut Client, output: &Output) -> anyhow::Result<Exit> {
    let events = all_events(task, client)
        .await
        .map_err(Call::failed(format!("list the events of `{task}`")))?;
    let now = Timestamp::now();
    let mut table = Table::new(["SEQ", "TIME", "KIND", "BY", "WHAT"]);
    for event in &events {
        output.message(event, |event| {
            let (style, ignored) = if event.ignored {
                (Style::Dim, " (came too late, ignored)")
            } else {
                (Style::Plain, "")
            };
            table.row([
                (Style::Dim, event.seq.to_string()),
                (style, format::time(event.time.as_ref(), now)),
                (style, event.kind.clone()),
                (style, event.actor.clone()),
                (style, format!("{}{ignored}", text::one_line(&event.text))),
            ]);
            Ok(())
        })?;
    }
    if !output.is_json() {
        for line in table.render(output.palette(), output.columns()) {
            output.line(line)?;
        }
    }
    Ok(Exit::Done)
}

async fn confirm(task: &str, client: &mut Client, output: &Output) -> anyhow::Result<Exit> {
    let request = ConfirmTaskRequest {
        task_id: task.to_owned(),
    };
    let response = client
        .tasks
        .confirm_task(request)
        .await
        .map_err(Call::refused(
            format!("confirm the task `{task}`"),
            format!("`mainloop task get {task}` shows where it stands"),
        ))?
        .into_inner();
    output.message(&response, |response| {
        said("is confirmed", response.task.as_ref(), output)
    })?;
    Ok(Exit::Done)
}

async fn cancel(
    task: &str,
    reason: String,
    client: &mut Client,
    output: &Output,
) -> anyhow::Result<Exit> {
    let request = CancelTaskRequest {
        task_id: task.to_owned(),
        reason,
    };
    let response = client
        .tasks
        .cancel_task(request)
        .await
        .map_err(Call::refused(
            format!("cancel the task `{task}`"),
            format!("`mainloop task get {task}` shows where it stands"),
        ))?
        .into_inner();
    output.message(&response, |response| {
        let task = response.task.clone().unwrap_or_default();
        output.line(format!("task {} is {}", task.short_id, words::state(&task)))
    })?;
    Ok(Exit::Done)
}

async fn retry(
    task: &str,
    guidance: String,
    fresh: bool,
    client: &mut Client,
    output: &Output,
) -> anyhow::Result<Exit> {
    let request = RetryTaskRequest {
        task_id: task.to_owned(),
        guidance,
        fresh,
    };
    let response = client
        .tasks
        .retry_task(request)
        .await
        .map_err(Call::refused(
            format!("retry the task `{task}`"),
            "only a task that failed, is stuck or waits for a time can be retried",
        ))?
        .into_inner();
    output.message(&response, |response| {
        said("starts again", response.task.as_ref(), output)
    })?;
    Ok(Exit::Done)
}

/// Sends the words until they are answered: their id makes them heard once, however often they arrive.
async fn say(task: &str, text: String, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let mut client = connect(global).await?;
    let mut patience = Patience::default();
    let request = SayToTaskRequest {
        task_id: task.to_owned(),
        text,
        request_id: Uuid::new_v4().to_string(),
    };
    let response = loop {
        let status = match client.tasks.say_to_task(request.clone()).await {
            Ok(response) => break response.into_inner(),
            Err(status) => status,
        };
        let again = exit::is_unreachable(&status);
        let failed = Call::refused(
            format!("speak to the worker of `{task}`"),
            format!("`mainloop task get {task}` shows where it stands"),
        )(status);
        if !again {
            return Err(failed.into());
        }
        if !patience.is_away() {
            output.note("the plane does not answer; your words are sent again when it is back");
        }
        client = patience.reconnect(failed, global, || Ok(())).await?;
    };
    output.message(&response, |response| {
        said("will hear it", response.task.as_ref(), output)
    })?;
    Ok(Exit::Done)
}

fn said(what: &str, task: Option<&Task>, output: &Output) -> std::io::Result<()> {
    let task = task.cloned().unwrap_or_default();
    output.line(format!("task {} {what}: {}", task.short_id, task.title))?;
    output.next(&format!("mainloop task watch {}", task.short_id));
    Ok(())
}
