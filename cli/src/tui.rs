//! The full-screen inbox: four groups, rows that open to logs, items that are decided on the spot.
//!
//! One loop owns everything: keys, the inbox's stream, the logs that are open and the calls under way. What is on the screen is a
//! function of the model; the model never waits. When the plane goes away, the screen says so and stays, and fills again when it is
//! back; when the plane refuses, the screen ends with its words.

mod draw;
mod keys;
mod model;
mod page;
mod rows;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crossterm::event::{
    DisableBracketedPaste, EnableBracketedPaste, Event, EventStream, KeyEventKind,
};
use crossterm::execute;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use mainloop_proto::v1::{
    GetInboxItemRequest, GetInboxItemResponse, ResolveInboxItemRequest, ResolveInboxItemResponse,
    StreamTaskLogsRequest, StreamTaskLogsResponse, WatchInboxRequest, WatchInboxResponse,
};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_stream::StreamMap;
use tonic::{Response, Status, Streaming};

use self::{
    keys::Effect,
    model::{Model, Tone},
};
use crate::{
    client::{Client, ConnectError, Target},
    commands::hides_something,
    exit::{self, Call, Said},
    output::json,
};

/// Between two frames at least: a burst of changes is drawn once.
const FRAME: Duration = Duration::from_millis(33);
/// Between frames at most: elapsed times count on.
const TICK: Duration = Duration::from_secs(1);
/// Between tries to reach a plane that went away.
const RETRY: Duration = Duration::from_secs(2);
/// Log chunks that an opened row begins with.
const TAIL: i32 = 40;

/// Runs until the person quits.
pub(crate) async fn run(target: Target) -> anyhow::Result<()> {
    let client = Client::connect(&target).await?;
    // The first answer is awaited before the screen is taken, so that a refusal is an ordinary error.
    let stream = watch(client.clone())
        .await
        .map_err(Call::failed("watch the inbox"))?;
    let mut terminal = ratatui::init();
    let _ = execute!(std::io::stdout(), EnableBracketedPaste);
    let result = Loop::new(target, client, stream).run(&mut terminal).await;
    let _ = execute!(std::io::stdout(), DisableBracketedPaste);
    ratatui::restore();
    result
}

async fn watch(mut client: Client) -> Result<Streaming<WatchInboxResponse>, Status> {
    let response = client.inbox.watch_inbox(WatchInboxRequest {}).await?;
    Ok(response.into_inner())
}

/// The end of a call that was under way.
enum Reply {
    Item(Result<Response<GetInboxItemResponse>, Status>),
    Resolved(
        Box<ResolveInboxItemRequest>,
        Result<Response<ResolveInboxItemResponse>, Status>,
    ),
    Log(
        String,
        Result<Response<Streaming<StreamTaskLogsResponse>>, Status>,
    ),
    Connected(Box<Client>, Streaming<WatchInboxResponse>),
    StillAway,
    /// The plane is there and will not have it: waiting does not help.
    Refused(anyhow::Error),
}

struct Loop {
    target: Target,
    client: Client,
    model: Model,
    /// None while the plane is away.
    changes: Option<Streaming<WatchInboxResponse>>,
    logs: StreamMap<String, Streaming<StreamTaskLogsResponse>>,
    /// Bounded by what a person types, and one reconnect.
    calls: FuturesUnordered<BoxFuture<'static, Reply>>,
}

impl Loop {
    fn new(target: Target, client: Client, stream: Streaming<WatchInboxResponse>) -> Self {
        Self {
            model: Model::new(),
            target,
            client,
            changes: Some(stream),
            logs: StreamMap::new(),
            calls: FuturesUnordered::new(),
        }
    }

    async fn run(mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let mut events = EventStream::new();
        // A screen that is left behind raw is of no use to anybody.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drawn = Instant::now() - FRAME;
        let mut dirty = true;
        loop {
            tokio::select! {
                () = sleep_until(drawn + FRAME), if dirty => {
                    terminal.draw(|frame| draw::draw(frame, &mut self.model, jiff::Timestamp::now()))?;
                    drawn = Instant::now();
                    dirty = false;
                    continue;
                }
                event = events.next() => match event {
                    Some(event) => {
                        if self.event(&event?) {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                change = next(self.changes.as_mut()) => self.change(change)?,
                Some((task, chunk)) = self.logs.next(), if !self.logs.is_empty() => {
                    if let Ok(chunk) = chunk {
                        self.model.log(&task, &json::clean(&chunk)?);
                    } else {
                        self.logs.remove(&task);
                    }
                }
                Some(reply) = self.calls.next(), if !self.calls.is_empty() => self.reply(reply)?,
                _ = terminate.recv() => return Ok(()),
                _ = hang_up.recv() => return Ok(()),
                _ = tick.tick() => {}
            }
            dirty = true;
        }
    }

    /// True when the person quits.
    fn event(&mut self, event: &Event) -> bool {
        let effect = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                keys::press(&mut self.model, *key)
            }
            Event::Paste(text) => {
                keys::paste(&mut self.model, text);
                None
            }
            _ => None,
        };
        match effect {
            Some(Effect::Quit) => return true,
            Some(Effect::OpenItem(id)) => {
                let mut client = self.client.clone();
                self.call(async move {
                    let request = GetInboxItemRequest { item_id: id };
                    Reply::Item(client.inbox.get_inbox_item(request).await)
                });
            }
            Some(Effect::Resolve(request)) => {
                let mut client = self.client.clone();
                self.call(async move {
                    let answer = client.inbox.resolve_inbox_item((*request).clone()).await;
                    Reply::Resolved(request, answer)
                });
            }
            Some(Effect::OpenLog(task)) => self.open_log(task),
            Some(Effect::CloseLog(task)) => {
                self.logs.remove(&task);
            }
            None => {}
        }
        false
    }

    fn change(&mut self, change: Result<Option<WatchInboxResponse>, Status>) -> anyhow::Result<()> {
        match change {
            Ok(Some(change)) => self.model.change(json::clean(&change)?),
            Err(status) if !exit::is_unreachable(&status) => {
                return Err(Call::failed("watch the inbox")(status).into());
            }
            Ok(None) | Err(_) => {
                self.changes = None;
                self.logs.clear();
                self.model.connected = false;
                self.reconnect();
            }
        }
        Ok(())
    }

    fn reply(&mut self, reply: Reply) -> anyhow::Result<()> {
        match reply {
            Reply::Item(Ok(response)) => {
                let response = response.get_ref();
                let hides = response.item.as_ref().is_some_and(hides_something);
                if let Some(item) = json::clean(response)?.item {
                    self.model.open(item, hides);
                }
            }
            Reply::Item(Err(status)) => self.refused("open the item", status),
            Reply::Resolved(request, Ok(_)) => self.model.resolved(&request),
            Reply::Resolved(request, Err(status)) => {
                let what = format!("resolve {}@{}", request.item_id, request.revision);
                self.refused(&what, status);
            }
            Reply::Log(task, Ok(stream)) => {
                // A row that was closed meanwhile wants no log.
                if self.model.is_open(&task) {
                    self.logs.insert(task, stream.into_inner());
                }
            }
            Reply::Log(_, Err(status)) => self.refused("read the log", status),
            Reply::Connected(client, stream) => {
                self.client = *client;
                self.changes = Some(stream);
                self.model.connected = true;
                for task in self.model.open_logs() {
                    self.open_log(task);
                }
            }
            Reply::StillAway => self.reconnect(),
            Reply::Refused(error) => return Err(error),
        }
        Ok(())
    }

    fn refused(&mut self, what: &str, status: Status) {
        let said = Said::of(&Call::failed(what)(status).into());
        let mut words = said.message;
        for detail in said.details {
            words.push_str("; ");
            words.push_str(&detail);
        }
        self.model.say(Tone::Bad, words);
    }

    fn open_log(&mut self, task: String) {
        let mut client = self.client.clone();
        let request = StreamTaskLogsRequest {
            task_id: task.clone(),
            after_position: self.model.log_position(&task),
            follow: true,
            tail: TAIL,
        };
        self.call(async move { Reply::Log(task, client.tasks.stream_task_logs(request).await) });
    }

    fn reconnect(&self) {
        let target = self.target.clone();
        self.call(async move {
            sleep(RETRY).await;
            let client = match Client::connect(&target).await {
                Ok(client) => client,
                Err(ConnectError::Unreachable { .. }) => return Reply::StillAway,
                Err(error) => return Reply::Refused(error.into()),
            };
            match watch(client.clone()).await {
                Ok(stream) => Reply::Connected(Box::new(client), stream),
                Err(status) if exit::is_unreachable(&status) => Reply::StillAway,
                Err(status) => Reply::Refused(Call::failed("watch the inbox")(status).into()),
            }
        });
    }

    fn call(&self, call: impl Future<Output = Reply> + Send + 'static) {
        self.calls.push(call.boxed());
    }
}

async fn next(
    stream: Option<&mut Streaming<WatchInboxResponse>>,
) -> Result<Option<WatchInboxResponse>, Status> {
    match stream {
        Some(stream) => stream.message().await,
        None => futures_util::future::pending().await,
    }
}
