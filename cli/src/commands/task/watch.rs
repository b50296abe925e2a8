//! `mainloop task watch`: a task as it happens.
//!
//! On a terminal, milestones scroll by above a view that is redrawn in place; elsewhere there is a line for each milestone. When
//! the plane goes away, the watch says so, waits a bounded time for it, and goes on where it was.

use std::{mem, time::Duration};

use futures_util::future;
use jiff::Timestamp;
use mainloop_proto::v1::{
    GetInboxItemRequest, StreamTaskLogsRequest, StreamTaskLogsResponse, TaskEvent, TaskState,
    WatchTaskRequest, WatchTaskResponse,
};
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Status, Streaming};

use super::{all_events, live::Live, story};
use crate::{
    args::{Global, task::Watch},
    client::Client,
    commands::{connect, patience::Patience},
    exit::{self, Call, Exit},
    output::{self, Output, json, region::Region},
    words,
};

/// Between redraws while nothing happens: the elapsed time counts on.
const TICK: Duration = Duration::from_secs(1);
/// Log chunks that the view begins with.
const TAIL: i32 = 20;

pub(super) async fn run(watch: Watch, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let mut session = Session {
        id: watch.task,
        until: watch.until,
        output,
        view: output.is_terminal(),
        live: Live::default(),
        region: Region::default(),
        last_seq: 0,
        log_position: 0,
        announced: Vec::new(),
        patience: Patience::default(),
    };
    let mut client = connect(global).await?;
    loop {
        let status = match session.follow(&mut client).await? {
            Ended::Over(exit) => return Ok(exit),
            Ended::Lost(status) => status,
        };
        if !exit::is_unreachable(&status) {
            let what = format!("watch the task `{}`", session.id);
            return Err(Call::failed(what)(status).into());
        }
        client = session.reconnect(status, global).await?;
    }
}

/// How a connection's worth of watching ended.
enum Ended {
    /// There is nothing more to wait for.
    Over(Exit),
    /// The stream broke.
    Lost(Status),
}

/// What woke the watch.
enum Woken {
    Change(Box<Result<Option<WatchTaskResponse>, Status>>),
    Log(Result<Option<StreamTaskLogsResponse>, Status>),
    Tick,
}

struct Session<'a> {
    id: String,
    until: Option<TaskState>,
    output: &'a Output,
    /// True where somebody looks at a view.
    view: bool,
    /// What the view shows, and the end is told from.
    live: Live,
    region: Region,
    /// The newest event that was printed.
    last_seq: i64,
    /// Where the log goes on.
    log_position: i64,
    /// Items that were announced, with their revision.
    announced: Vec<String>,
    patience: Patience,
}

impl Session<'_> {
    async fn follow(&mut self, client: &mut Client) -> anyhow::Result<Ended> {
        // What happened before comes first, so that what is asked now is announced below it.
        if !self.output.is_json()
            && let Err(status) = self.catch_up(client).await?
        {
            return Ok(Ended::Lost(status));
        }
        let request = WatchTaskRequest {
            task_id: self.id.clone(),
            after_seq: self.last_seq,
        };
        let mut changes = match client.tasks.watch_task(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Ended::Lost(status)),
        };
        let mut log = self.open_log(client).await;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let woken = tokio::select! {
                change = changes.message() => Woken::Change(Box::new(change)),
                chunk = next_chunk(log.as_mut()) => Woken::Log(chunk),
                _ = tick.tick(), if self.view => Woken::Tick,
            };
            match woken {
                Woken::Change(change) => {
                    let change = match *change {
                        Ok(Some(change)) => {
                            self.back();
                            change
                        }
                        Ok(None) => {
                            let status = Status::unavailable("the plane ended the stream");
                            return Ok(Ended::Lost(status));
                        }
                        Err(status) => return Ok(Ended::Lost(status)),
                    };
                    if let Some(exit) = self.take(&change, client).await? {
                        if let Err(status) = self.catch_up(client).await? {
                            return Ok(Ended::Lost(status));
                        }
                        self.finish(exit)?;
                        return Ok(Ended::Over(exit));
                    }
                }
                Woken::Log(Ok(Some(chunk))) => {
                    self.log_position = chunk.position;
                    let chunk = json::clean(&chunk)?;
                    self.live.log(&chunk);
                    self.draw(&[])?;
                }
                // The log is an extra: without it, the watch goes on.
                Woken::Log(Ok(None) | Err(_)) => log = None,
                Woken::Tick => self.draw(&[])?,
            }
        }
    }

    /// Takes in one change; returns how the command ends, when it does.
    async fn take(
        &mut self,
        change: &WatchTaskResponse,
        client: &mut Client,
    ) -> anyhow::Result<Option<Exit>> {
        if self.output.is_json() {
            self.output.message(change, |_| Ok(()))?;
            self.last_seq = change
                .event
                .as_ref()
                .map_or(self.last_seq, |event| event.seq);
            return Ok(change.task.as_ref().and_then(|task| self.end(task.state())));
        }
        let change = json::clean(change)?;
        let mut above = Vec::new();
        if let Some(event) = &change.event {
            above.extend(self.milestone(event));
        }
        let mut exit = None;
        if let Some(task) = change.task {
            exit = self.end(task.state());
            for item in task
                .open_items
                .iter()
                .filter(|item| !self.announced.contains(item))
            {
                above.extend(self.announce(item, client).await?);
            }
            self.announced.clone_from(&task.open_items);
            self.live.task = task;
        }
        self.draw(&above)?;
        Ok(exit)
    }

    /// Prints the events that were not printed yet. The inner error is the plane's.
    async fn catch_up(&mut self, client: &mut Client) -> anyhow::Result<Result<(), Status>> {
        let events = match all_events(&self.id, client).await {
            Ok(events) => events,
            Err(status) => return Ok(Err(status)),
        };
        let mut above = Vec::new();
        for event in events {
            if self.output.is_json() {
                if event.seq > self.last_seq {
                    self.last_seq = event.seq;
                    let change = WatchTaskResponse {
                        task: None,
                        event: Some(event),
                    };
                    self.output.message(&change, |_| Ok(()))?;
                }
            } else {
                above.extend(self.milestone(&json::clean(&event)?));
            }
        }
        self.draw(&above)?;
        Ok(Ok(()))
    }

    /// The line of an event, unless it was printed before or changed nothing.
    fn milestone(&mut self, event: &TaskEvent) -> Option<String> {
        if event.seq <= self.last_seq {
            return None;
        }
        self.last_seq = event.seq;
        (!event.ignored).then(|| story::milestone(event, self.output))
    }

    /// What a person is asked, and what to type. An item that cannot be read is announced by its id: the stream tells what comes next.
    async fn announce(&self, item: &str, client: &mut Client) -> anyhow::Result<Vec<String>> {
        let request = GetInboxItemRequest {
            item_id: item.to_owned(),
        };
        let found = match client.inbox.get_inbox_item(request).await {
            Ok(response) => json::clean(response.get_ref())?.item,
            Err(_) => None,
        };
        Ok(match found {
            Some(found) if self.view => story::question(&found, self.output),
            Some(found) => vec![story::question_line(&found, self.output)],
            None => vec![story::unread(item, self.output)],
        })
    }

    /// How the command ends in this state; nothing while it goes on.
    fn end(&self, state: TaskState) -> Option<Exit> {
        match self.until {
            Some(until) if state == until => Some(Exit::Done),
            Some(_) => words::is_settled(state).then_some(Exit::Failed),
            None => match state {
                TaskState::Ready | TaskState::Completed => Some(Exit::Done),
                state if words::is_over(state) => Some(Exit::Failed),
                _ => None,
            },
        }
    }

    async fn open_log(&mut self, client: &mut Client) -> Option<Streaming<StreamTaskLogsResponse>> {
        if !self.view {
            return None;
        }
        let request = StreamTaskLogsRequest {
            task_id: self.id.clone(),
            after_position: self.log_position,
            follow: true,
            tail: TAIL,
        };
        let stream = client.tasks.stream_task_logs(request).await.ok()?;
        Some(stream.into_inner())
    }

    /// Waits for the plane.
    async fn reconnect(&mut self, lost: Status, global: &Global) -> anyhow::Result<Client> {
        let trouble = "the plane does not answer; waiting for it to come back (Ctrl-C stops watching, the task goes on)";
        if !self.patience.is_away() {
            if self.view {
                self.live.trouble = Some(trouble.to_owned());
                self.draw(&[])?;
            } else {
                self.output.note(trouble);
            }
        }
        let lost = Call::failed(format!("watch the task `{}`", self.id))(lost);
        let mut patience = mem::take(&mut self.patience);
        let client = patience.reconnect(lost, global, || self.draw(&[])).await;
        self.patience = patience;
        client
    }

    /// The plane speaks again.
    fn back(&mut self) {
        self.live.trouble = None;
        if self.patience.back() && !self.view {
            self.output.note("the plane is back");
        }
    }

    /// Scrolls the lines by and redraws the view, where there is one.
    fn draw(&mut self, above: &[String]) -> anyhow::Result<()> {
        if self.view {
            let (columns, rows) = (output::columns(), output::rows());
            let frame = self
                .live
                .frame(self.output.palette(), columns, rows, Timestamp::now());
            self.region.draw(above, &frame)?;
        } else {
            for line in above {
                self.output.line(line)?;
            }
        }
        Ok(())
    }

    /// Replaces the view by how it ended.
    fn finish(&mut self, exit: Exit) -> anyhow::Result<()> {
        if self.output.is_json() {
            return Ok(());
        }
        let lines = story::ending(&self.live.task, self.output);
        if self.view {
            self.region.draw(&lines, &[])?;
        } else {
            for line in &lines {
                self.output.line(line)?;
            }
        }
        let task = &self.live.task;
        match task.state() {
            TaskState::Failed => self
                .output
                .next(&format!("mainloop task retry {}", task.short_id)),
            TaskState::Ready if exit == Exit::Done => {
                self.output
                    .next(&format!("mainloop task open {}", task.short_id));
            }
            _ => {}
        }
        Ok(())
    }
}

async fn next_chunk(
    stream: Option<&mut Streaming<StreamTaskLogsResponse>>,
) -> Result<Option<StreamTaskLogsResponse>, Status> {
    match stream {
        Some(stream) => stream.message().await,
        None => future::pending().await,
    }
}
