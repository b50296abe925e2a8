//! A task as a test talks about it: followed from its first event, waited on by conditions.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use mainloop_proto::v1::{
    self, CancelTaskRequest, ConfirmTaskRequest, FailureReason, GetInboxItemRequest,
    GetTaskRequest, InboxItemKind, RetryTaskRequest, SayToTaskRequest, TaskEvent, TaskState,
    WatchTaskRequest, WatchTaskResponse,
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::Code;

use super::{
    client::Client,
    item::Item,
    scene::Scene,
    wait::{PATIENCE, until},
};

/// Time until a follower whose stream ended asks again.
const RECONNECT: Duration = Duration::from_millis(50);
/// Events that a failure shows.
const SHOWN: usize = 25;

/// A handle on one task. Dropping it stops the following, not the task.
pub struct Task {
    /// Its id.
    pub id: String,
    /// What people type.
    pub short_id: String,
    scene: Arc<Scene>,
    view: watch::Receiver<View>,
    follower: JoinHandle<()>,
}

/// All that was seen of a task so far.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its newest state.
    pub task: v1::Task,
    /// Its events from the first on.
    pub events: Vec<TaskEvent>,
    /// What the stream did wrong: gaps, repetitions.
    pub problems: Vec<String>,
}

impl View {
    /// Events of one kind that counted.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl DoubleEndedIterator<Item = &'a TaskEvent> {
        self.events
            .iter()
            .filter(move |event| event.kind == kind && !event.ignored)
    }

    fn take(&mut self, message: WatchTaskResponse) {
        if let Some(task) = message.task
            && task.version >= self.task.version
        {
            self.task = task;
        }
        if let Some(event) = message.event {
            let expected = self.events.last().map_or(1, |last| last.seq + 1);
            if event.seq != expected {
                self.problems.push(format!(
                    "the watch sent event {} ({}) where {expected} was next",
                    event.seq, event.kind
                ));
            }
            self.events.push(event);
        }
    }
}

impl Task {
    /// Follows a task that is there.
    pub fn follow(scene: Arc<Scene>, task: v1::Task) -> Self {
        let (id, short_id) = (task.id.clone(), task.short_id.clone());
        let (sender, view) = watch::channel(View {
            task,
            ..View::default()
        });
        let follower = tokio::spawn(follow(scene.client.clone(), id.clone(), sender));
        Self {
            id,
            short_id,
            scene,
            view,
            follower,
        }
    }

    /// The newest state that the watch has sent.
    pub fn now(&self) -> v1::Task {
        self.view.borrow().task.clone()
    }

    /// All that was seen, as it grows.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// All events so far.
    pub fn events(&self) -> Vec<TaskEvent> {
        self.view.borrow().events.clone()
    }

    /// The newest plan's text, asked for anew.
    pub async fn plan(&self) -> Result<String> {
        let request = GetTaskRequest {
            task_id: self.id.clone(),
        };
        let reply = self.scene.client.tasks().get_task(request).await;
        Ok(reply.context("get the task")?.into_inner().plan_text)
    }

    /// Waits until `look` finds something in what was seen.
    pub async fn wait<T>(&self, what: &str, look: impl Fn(&View) -> Option<T>) -> Result<T> {
        let mut view = self.view.clone();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look(&view.borrow_and_update()) {
                    return Some(found);
                }
                if view.changed().await.is_err() {
                    return None;
                }
            }
        })
        .await;
        match waited {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!(
                "the follower ended while waiting for {what}\n{}",
                self.report()
            ),
            Err(_) => bail!("waited {PATIENCE:?} for {what}\n{}", self.report()),
        }
    }

    /// Waits for a state. Fails at once where the task has settled in another one.
    pub async fn expect_state(&self, state: TaskState) -> Result<v1::Task> {
        let what = format!("state {}", state.as_str_name());
        let reached = self
            .wait(&what, |view| {
                let at = view.task.state();
                (at == state || is_settled(at)).then(|| view.task.clone())
            })
            .await?;
        if reached.state() != state {
            bail!(
                "the task settled as {} on the way to {what}\n{}",
                reached.state().as_str_name(),
                self.report()
            );
        }
        Ok(reached)
    }

    /// Waits for an event of this kind that counted, and returns the newest.
    pub async fn expect_event(&self, kind: &str) -> Result<TaskEvent> {
        self.expect_events(kind, 1).await
    }

    /// Waits for `count` events of this kind that counted, and returns the newest. Fails at once where the task settled
    /// without them.
    pub async fn expect_events(&self, kind: &str, count: usize) -> Result<TaskEvent> {
        let found = self
            .wait(&format!("{count} events {kind:?}"), |view| {
                let newest = view.of_kind(kind).next_back().cloned();
                if view.of_kind(kind).count() >= count {
                    return Some(newest);
                }
                is_settled(view.task.state()).then_some(None)
            })
            .await?;
        found.with_context(|| {
            format!(
                "the task settled without {count} events {kind:?}\n{}",
                self.report()
            )
        })
    }

    /// Waits for an open item of this kind. Fails at once where the task has settled.
    pub async fn expect_item(&self, kind: InboxItemKind) -> Result<Item> {
        let what = format!("an open item of kind {}", kind.as_str_name());
        let mut seen = Vec::new();
        loop {
            let open = self
                .wait(&format!("{what} (passed over {seen:?})"), |view| {
                    let new = view
                        .task
                        .open_items
                        .iter()
                        .find(|open| !seen.contains(*open));
                    match new {
                        Some(open) => Some(Some(open.clone())),
                        None => is_settled(view.task.state()).then_some(None),
                    }
                })
                .await?;
            let Some(open) = open else {
                bail!("the task settled without {what}\n{}", self.report());
            };
            let item = self.item(&open).await?;
            if item.seen.kind() == kind {
                return Ok(item);
            }
            seen.push(open);
        }
    }

    /// Waits for a blocker, which is of this reason.
    pub async fn expect_stuck(&self, reason: FailureReason) -> Result<Item> {
        let item = self.expect_item(InboxItemKind::Blocker).await?;
        if item.seen.reason() != reason {
            bail!(
                "stuck as {}, not as {}: {}\n{}",
                item.seen.reason().as_str_name(),
                reason.as_str_name(),
                item.seen.body,
                self.report()
            );
        }
        Ok(item)
    }

    /// Waits until the task waits by itself, for a reason with these words. Until when, where that is known.
    pub async fn expect_wait(&self, words: &str) -> Result<Option<prost_types::Timestamp>> {
        self.wait(&format!("a wait for {words:?}"), |view| {
            let wait = view.task.wait.clone().unwrap_or_default();
            wait.reason.contains(words).then_some(wait.until)
        })
        .await
    }

    /// Number of its pull request.
    pub fn pull(&self) -> Result<u64> {
        let pull = self.now().pull_request;
        let number = pull.context("the task has no pull request")?.number;
        Ok(u64::try_from(number)?)
    }

    /// An item by its id, `k3f9@2`. A plane that is away is asked until it is back.
    pub async fn item(&self, id: &str) -> Result<Item> {
        let reply = until(&format!("item {id}"), PATIENCE, async || {
            let request = GetInboxItemRequest {
                item_id: id.to_owned(),
            };
            match self.scene.client.inbox().get_inbox_item(request).await {
                Err(status) if status.code() == Code::Unavailable => Err(status),
                other => Ok(other),
            }
        })
        .await?;
        let reply = reply.with_context(|| format!("get item {id}\n{}", self.report()))?;
        let item = reply.into_inner().item.context("the plane sent no item")?;
        Ok(Item::new(Arc::clone(&self.scene), item))
    }

    /// Says yes to the proposal.
    pub async fn confirm(&self) -> Result<()> {
        let request = ConfirmTaskRequest {
            task_id: self.id.clone(),
        };
        let reply = self.scene.client.tasks().confirm_task(request).await;
        reply.with_context(|| format!("confirm\n{}", self.report()))?;
        Ok(())
    }

    /// Waits for the plan and approves it.
    pub async fn approve(&self) -> Result<()> {
        self.expect_item(InboxItemKind::Plan).await?.approve().await
    }

    /// Waits for the plan and sends it back.
    pub async fn revise(&self, words: &str) -> Result<()> {
        self.expect_item(InboxItemKind::Plan)
            .await?
            .revise(words)
            .await
    }

    /// Waits for the plan and rejects it.
    pub async fn reject(&self) -> Result<()> {
        self.expect_item(InboxItemKind::Plan)
            .await?
            .reject("not wanted")
            .await
    }

    /// Waits for a question and answers it.
    pub async fn answer(&self, words: &str) -> Result<()> {
        self.expect_item(InboxItemKind::Question)
            .await?
            .answer(words)
            .await
    }

    /// Guides the running worker.
    pub async fn say(&self, words: &str) -> Result<()> {
        let request = SayToTaskRequest {
            task_id: self.id.clone(),
            text: words.to_owned(),
            request_id: String::new(),
        };
        let reply = self.scene.client.tasks().say_to_task(request).await;
        reply.with_context(|| format!("say\n{}", self.report()))?;
        Ok(())
    }

    /// Ends the task.
    pub async fn cancel(&self) -> Result<()> {
        let request = CancelTaskRequest {
            task_id: self.id.clone(),
            reason: "the test says so".to_owned(),
        };
        let reply = self.scene.client.tasks().cancel_task(request).await;
        reply.with_context(|| format!("cancel\n{}", self.report()))?;
        Ok(())
    }

    /// Starts the failed task again.
    pub async fn retry(&self, guidance: &str) -> Result<()> {
        self.begin_again(guidance, false).await
    }

    /// Starts the failed task again on a new branch.
    pub async fn retry_afresh(&self, guidance: &str) -> Result<()> {
        self.begin_again(guidance, true).await
    }

    async fn begin_again(&self, guidance: &str, fresh: bool) -> Result<()> {
        let request = RetryTaskRequest {
            task_id: self.id.clone(),
            guidance: guidance.to_owned(),
            fresh,
        };
        let reply = self.scene.client.tasks().retry_task(request).await;
        reply.with_context(|| format!("retry\n{}", self.report()))?;
        Ok(())
    }

    /// Fails where the watch missed or repeated an event.
    pub fn check_watch(&self) -> Result<()> {
        let problems = self.view.borrow().problems.clone();
        if !problems.is_empty() {
            bail!("{}\n{}", problems.join("\n"), self.report());
        }
        Ok(())
    }

    /// What a failure shows: state, newest events, and the ends of the logs.
    pub fn report(&self) -> String {
        let view = self.view.borrow();
        let mut text = format!(
            "task {}: state {}, step {}, attempt {}, cost {} of {} micros, milestone {:?}, failure {:?}\n",
            self.short_id,
            view.task.state().as_str_name(),
            view.task.step().as_str_name(),
            view.task.attempt,
            view.task.cost_micros,
            view.task.budget_micros,
            view.task.milestone,
            view.task.failure,
        );
        let skipped = view.events.len().saturating_sub(SHOWN);
        let _ = writeln!(text, "events ({skipped} older ones left out):");
        for event in &view.events[skipped..] {
            let ignored = if event.ignored { " (ignored)" } else { "" };
            let _ = writeln!(
                text,
                "  {} {}{ignored}: {} [{}, attempt {}]",
                event.seq, event.kind, event.text, event.actor, event.attempt
            );
        }
        drop(view);
        text.push_str(&self.scene.report());
        text
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// States that a task does not leave by itself.
pub fn is_settled(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Completed | TaskState::Cancelled | TaskState::Declined | TaskState::Failed
    )
}

/// Keeps the view at the newest state, over restarts of the plane. Ends with the last receiver.
async fn follow(client: Client, task_id: String, view: watch::Sender<View>) {
    loop {
        let after_seq = view.borrow().events.last().map_or(0, |event| event.seq);
        let request = WatchTaskRequest {
            task_id: task_id.clone(),
            after_seq,
        };
        if let Ok(reply) = client.tasks().watch_task(request).await {
            let mut stream = reply.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                view.send_modify(|view| view.take(message));
            }
        }
        if view.is_closed() {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}
