//! Streams: each subscribes before it reads, is woken by nudges, and looks by itself every few seconds as well.
//!
//! A stream is driven by its reader alone: nothing is queued for a client that does not read, and one that comes back
//! late reads what it missed from the database. The reader's token is looked at again while a stream runs.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use mainloop_proto::v1;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError, error::TryRecvError},
        watch,
    },
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Caller, Error, Shared, access::Starts, auth, convert};
use crate::db::{
    Store,
    read::{After, Filter, Seen},
};

/// How often a stream looks although nothing woke it: nudges of other replicas can be lost.
const POLL: Duration = Duration::from_secs(5);
/// A change can become visible this long after the time that it carries: no statement takes longer, and a poll is lost.
const OVERLAP: Duration = Duration::from_secs(40);
/// A stream asks again whether its reader's token is valid at the first look after this; it looks at every poll.
const ADMITTED: Duration = Duration::from_secs(2);
/// Rows of one page. What changed since a poll is read as a whole.
const PAGE: i64 = 200;

/// What woke a stream.
enum Hint {
    /// These tasks changed, or their logs grew.
    Tasks(HashSet<Uuid>),
    /// Anything may have changed.
    Everything,
    /// What keeps queued tasks from starting.
    Starts,
}

/// Wakes one stream, as long as its reader may read it.
struct Wake {
    store: Store,
    /// The reader's token, where there is one.
    token: Option<String>,
    /// When it was valid last.
    admitted: Instant,
    changes: broadcast::Receiver<Uuid>,
    /// What keeps queued tasks from starting changes what they say.
    starts: watch::Receiver<Starts>,
    poll: Interval,
    stop: CancellationToken,
}

impl Wake {
    /// Woken by changes of tasks.
    fn new(shared: &Shared, reader: Caller) -> Self {
        Self::with(shared, reader, shared.store.nudge().subscribe())
    }

    fn with(shared: &Shared, reader: Caller, changes: broadcast::Receiver<Uuid>) -> Self {
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            store: shared.store.clone(),
            token: reader.token,
            admitted: Instant::now(),
            changes,
            starts: shared.health.starts(),
            poll,
            stop: shared.stop.clone(),
        }
    }

    /// Refuses a reader whose token has ended. Before each message.
    async fn admit(&mut self) -> Result<(), Error> {
        if let Some(token) = &self.token
            && self.admitted.elapsed() >= ADMITTED
        {
            let now = Instant::now();
            if !self.store.token_holds(token).await? {
                return Err(auth::unknown());
            }
            self.admitted = now;
        }
        Ok(())
    }

    async fn any(&mut self) -> Result<Hint, Error> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(stopping()),
            _ = self.poll.tick() => Ok(Hint::Everything),
            Ok(()) = self.starts.changed() => Ok(Hint::Starts),
            received = self.changes.recv() => match received {
                Ok(id) => Ok(self.drain(id)),
                Err(RecvError::Lagged(_)) => Ok(Hint::Everything),
                Err(RecvError::Closed) => Err(stopping()),
            },
        }
    }

    /// Takes all hints that wait, so that many changes make one look.
    fn drain(&mut self, first: Uuid) -> Hint {
        let mut ids = HashSet::from([first]);
        loop {
            match self.changes.try_recv() {
                Ok(id) => {
                    ids.insert(id);
                }
                Err(TryRecvError::Lagged(_)) => return Hint::Everything,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Hint::Tasks(ids),
            }
        }
    }

    async fn of(&mut self, task: Uuid) -> Result<(), Error> {
        loop {
            match self.any().await? {
                Hint::Everything | Hint::Starts => return Ok(()),
                Hint::Tasks(ids) if ids.contains(&task) => return Ok(()),
                Hint::Tasks(_) => {}
            }
        }
    }
}

fn stopping() -> Error {
    Error::Unavailable {
        message: "the plane is stopping: ask again in a moment".to_owned(),
    }
}

/// One task: its present state, then every event once and in order.
pub(super) struct TaskWatch {
    shared: Shared,
    wake: Wake,
    task: Uuid,
    /// Events up to this one were sent.
    seq: i64,
    /// The task as it was sent last.
    sent: v1::Task,
    /// There may be more to read at once.
    behind: bool,
    ready: VecDeque<v1::WatchTaskResponse>,
}

impl TaskWatch {
    /// Begins a watch after event `after`; -1 for only those to come.
    pub(super) async fn begin(
        shared: &Shared,
        reader: Caller,
        name: &str,
        after: i64,
    ) -> Result<Self, Error> {
        let wake = Wake::new(shared, reader);
        let seen = shared.named(name).await?;
        let sent = shared.shown(&seen);
        Ok(Self {
            shared: shared.clone(),
            wake,
            task: seen.task.id,
            seq: if after < 0 {
                seen.task.event_seq
            } else {
                after
            },
            behind: true,
            ready: VecDeque::from([v1::WatchTaskResponse {
                task: Some(sent.clone()),
                event: None,
            }]),
            sent,
        })
    }

    /// The next message; waits for it.
    pub(super) async fn next(&mut self) -> Result<v1::WatchTaskResponse, Error> {
        loop {
            self.wake.admit().await?;
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            if !self.behind {
                self.wake.of(self.task).await?;
            }
            self.look().await?;
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let store = &self.shared.store;
        let seen = found(store.task(self.task).await?, self.task)?;
        // Not beyond what the task knows of: it is to be at or after its events.
        let events = store
            .events(self.task, self.seq, seen.task.event_seq, PAGE)
            .await?;
        self.behind = i64::try_from(events.len()).is_ok_and(|count| count == PAGE);
        let task = self.shared.shown(&seen);
        if events.is_empty() && task.version >= self.sent.version && task != self.sent {
            self.ready.push_back(v1::WatchTaskResponse {
                task: Some(task.clone()),
                event: None,
            });
        }
        for event in &events {
            self.seq = event.seq;
            self.ready.push_back(v1::WatchTaskResponse {
                task: Some(task.clone()),
                event: Some(convert::event(event)),
            });
        }
        self.sent = task;
        Ok(())
    }
}

fn found(seen: Option<Seen>, id: Uuid) -> Result<Seen, Error> {
    seen.ok_or_else(|| Error::NotFound {
        what: format!("task {id}"),
    })
}

/// One task's log from a position on.
pub(super) struct LogStream {
    store: Store,
    wake: Wake,
    task: Uuid,
    position: i64,
    follow: bool,
    ready: VecDeque<v1::StreamTaskLogsResponse>,
}

impl LogStream {
    /// Begins after `after`; with `tail` at the newest so many chunks at the earliest.
    pub(super) async fn begin(
        shared: &Shared,
        reader: Caller,
        request: &v1::StreamTaskLogsRequest,
    ) -> Result<Self, Error> {
        if request.after_position < 0 {
            return Err(Error::invalid("after_position", "must not be negative"));
        }
        if request.tail < 0 {
            return Err(Error::invalid("tail", "must not be negative"));
        }
        let wake = Wake::with(shared, reader, shared.store.nudge().subscribe_to_logs());
        let seen = shared.named(&request.task_id).await?;
        let tail = match request.tail {
            0 => 0,
            tail => seen.task.log_position - i64::from(tail),
        };
        Ok(Self {
            store: shared.store.clone(),
            wake,
            task: seen.task.id,
            position: request.after_position.max(tail),
            follow: request.follow,
            ready: VecDeque::new(),
        })
    }

    /// The next chunk; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<v1::StreamTaskLogsResponse>, Error> {
        loop {
            self.wake.admit().await?;
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            // The task first: a chunk that comes after this look is not its last words.
            let over = !self.follow
                || found(self.store.task(self.task).await?, self.task)?
                    .task
                    .task
                    .phase
                    .is_settled();
            let chunks = self.store.logs(self.task, self.position, PAGE).await?;
            for chunk in &chunks {
                self.position = chunk.position;
                self.ready.push_back(convert::log(chunk));
            }
            if chunks.is_empty() {
                if over {
                    return Ok(None);
                }
                self.wake.of(self.task).await?;
            }
        }
    }
}

/// All tasks with their open items: the present ones, then each that is new or changed.
pub(super) struct InboxWatch {
    shared: Shared,
    wake: Wake,
    /// Where the next page of present tasks begins; none once all were sent.
    present: Option<After>,
    /// That all that was there at the start has been sent was said.
    caught_up: bool,
    /// The newest version of each task that was sent, and what kept it from starting.
    versions: HashMap<Uuid, (i64, String)>,
    /// When everything was looked at last.
    looked: Instant,
    ready: VecDeque<v1::WatchInboxResponse>,
}

impl InboxWatch {
    /// Begins a watch.
    pub(super) fn begin(shared: &Shared, reader: Caller) -> Self {
        Self {
            wake: Wake::new(shared, reader),
            shared: shared.clone(),
            present: Some(After::start()),
            caught_up: false,
            versions: HashMap::new(),
            looked: Instant::now(),
            ready: VecDeque::new(),
        }
    }

    /// The next message; waits for it.
    pub(super) async fn next(&mut self) -> Result<v1::WatchInboxResponse, Error> {
        loop {
            self.wake.admit().await?;
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            if let Some(after) = self.present {
                self.page(after).await?;
                continue;
            }
            let changed = match self.wake.any().await? {
                Hint::Tasks(ids) => {
                    let ids: Vec<Uuid> = ids.into_iter().collect();
                    self.shared.store.tasks(&ids).await?
                }
                Hint::Starts => {
                    // Of all tasks, those are sent that say something else now.
                    self.present = Some(After::start());
                    continue;
                }
                Hint::Everything => {
                    let now = Instant::now();
                    // A reader that was away longer than nudges are kept gets all that it missed.
                    let back = now.duration_since(self.looked) + OVERLAP;
                    let changed = self
                        .shared
                        .store
                        .tasks_changed_within(back.as_secs_f64())
                        .await?;
                    self.looked = now;
                    changed
                }
            };
            self.send(&changed).await?;
        }
    }

    async fn page(&mut self, after: After) -> Result<(), Error> {
        let page = self
            .shared
            .store
            .list_tasks(&Filter::default(), after, PAGE)
            .await?;
        let full = i64::try_from(page.len()).is_ok_and(|count| count == PAGE);
        self.present = page.last().filter(|_| full).map(|last| After {
            at: last.task.created_at,
            id: last.task.id,
        });
        self.send(&page).await?;
        if self.present.is_none() && !self.caught_up {
            self.caught_up = true;
            self.ready.push_back(v1::WatchInboxResponse {
                caught_up: true,
                ..v1::WatchInboxResponse::default()
            });
        }
        Ok(())
    }

    async fn send(&mut self, tasks: &[Seen]) -> Result<(), Error> {
        let mut news: Vec<(&Seen, v1::Task)> = tasks
            .iter()
            .map(|seen| (seen, self.shared.shown(seen)))
            .collect();
        news.retain(|(seen, task)| {
            self.versions
                .get(&seen.task.id)
                .is_none_or(|(version, reason)| {
                    *version < task.version || (*version == task.version && reason != why(task))
                })
        });
        let asking: Vec<Uuid> = news
            .iter()
            .filter(|(seen, _)| !seen.open.is_empty())
            .map(|(seen, _)| seen.task.id)
            .collect();
        let mut items: HashMap<Uuid, Vec<v1::InboxItem>> = HashMap::new();
        if !asking.is_empty() {
            for item in self.shared.store.open_items(&asking).await? {
                let mut open = convert::item(&item);
                // The message has the task already.
                open.task = None;
                items.entry(item.task.task.id).or_default().push(open);
            }
        }
        for (seen, task) in news {
            let known = (task.version, why(&task).to_owned());
            self.versions.insert(seen.task.id, known);
            self.ready.push_back(v1::WatchInboxResponse {
                task: Some(task),
                open_items: items.remove(&seen.task.id).unwrap_or_default(),
                caught_up: false,
            });
        }
        Ok(())
    }
}

/// Why it waits, in words.
fn why(task: &v1::Task) -> &str {
    task.wait.as_ref().map_or("", |wait| &wait.reason)
}
