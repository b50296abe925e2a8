//! What the screen shows, and how changes, keys and answers move it. No I/O, no clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use mainloop_proto::v1::{
    InboxAction, InboxItem, InboxItemState, ResolveInboxItemRequest, StreamTaskLogsResponse, Task,
    WatchInboxResponse,
};

use super::{
    page::Page,
    rows::{self, Key, Row},
};
use crate::{text, words};

/// Log lines that an open row keeps.
pub(super) const LOG_LINES: usize = 12;
/// Characters of a log line that are kept: no screen shows more.
const LOG_COLUMNS: usize = 500;

/// How a notice is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
}

/// What a line of text is typed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Words that come with an action; they may be empty for a rejection.
    Words(InboxAction),
    /// The answer to the question after those that are answered already.
    Answer(Vec<String>),
    /// A yes to an approval.
    Confirm(InboxAction),
}

/// A line that is being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) purpose: Purpose,
    pub(super) text: String,
}

/// A task with what is open on it. All of it is cleaned.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: Task,
    pub(super) items: Vec<InboxItem>,
}

/// The newest lines of a log that is shown.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) lines: VecDeque<String>,
    position: i64,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) connected: bool,
    /// True once the present state is there.
    pub(super) caught_up: bool,
    pub(super) entries: HashMap<String, Entry>,
    /// Rows of the list, in their order.
    pub(super) rows: Vec<Row>,
    pub(super) selected: Option<Key>,
    /// First line of the list that is shown.
    pub(super) offset: usize,
    /// Open rows by their task.
    pub(super) open: BTreeMap<String, Log>,
    /// The item that is looked at.
    pub(super) page: Option<Page>,
    pub(super) input: Option<Input>,
    pub(super) notice: Option<(Tone, String)>,
    pub(super) help: bool,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            connected: true,
            caught_up: false,
            entries: HashMap::new(),
            rows: Vec::new(),
            selected: None,
            offset: 0,
            open: BTreeMap::new(),
            page: None,
            input: None,
            notice: None,
            help: false,
        }
    }

    /// Takes in the newest state of a task. Nothing older than what was seen is taken.
    pub(super) fn change(&mut self, change: WatchInboxResponse) {
        self.caught_up |= change.caught_up;
        if let Some(task) = change.task {
            let seen = self.entries.get(&task.id).map(|entry| entry.task.version);
            if seen.is_some_and(|seen| seen > task.version) {
                return;
            }
            let id = task.id.clone();
            let items = change
                .open_items
                .into_iter()
                .filter(|item| item.state() == InboxItemState::Open)
                .collect();
            self.entries.insert(id.clone(), Entry { task, items });
            self.warn_of_newer(&id);
        }
        if self.caught_up {
            self.sort();
        }
    }

    /// The page may show what is no longer asked.
    fn warn_of_newer(&mut self, task: &str) {
        let (Some(page), Some(entry)) = (&self.page, self.entries.get(task)) else {
            return;
        };
        if page.item.task.as_ref().is_none_or(|of| of.id != *task) {
            return;
        }
        let now = entry.items.iter().find(|item| item.id == page.item.id);
        let words = match now {
            Some(item) if item.revision > page.item.revision => {
                format!(
                    "there is a newer revision, {}@{}: Esc and Enter show it",
                    item.id, item.revision
                )
            }
            None if page.item.state() == InboxItemState::Open => {
                "this is no longer asked".to_owned()
            }
            _ => return,
        };
        self.say(Tone::Bad, words);
    }

    fn sort(&mut self) {
        self.rows = rows::sorted(&self.entries);
        let gone = self
            .selected
            .as_ref()
            .is_none_or(|key| !self.rows.iter().any(|row| row.key == *key));
        if gone {
            // A row that changed its group is followed there; a new screen begins at the top.
            let followed = self
                .selected
                .as_ref()
                .and_then(|key| self.rows.iter().find(|row| row.key.task == key.task));
            self.selected = followed.or(self.rows.first()).map(|row| row.key.clone());
        }
    }

    /// Takes in a piece of an open row's log.
    pub(super) fn log(&mut self, task: &str, chunk: &StreamTaskLogsResponse) {
        let Some(log) = self.open.get_mut(task) else {
            return;
        };
        log.position = chunk.position;
        let source = words::source(chunk.source());
        for line in chunk.text.lines().filter(|line| !line.trim().is_empty()) {
            if log.lines.len() == LOG_LINES {
                log.lines.pop_front();
            }
            let line = text::truncate(line.trim_end(), LOG_COLUMNS);
            log.lines.push_back(format!("{source:<6} {line}"));
        }
    }

    pub(super) fn log_position(&self, task: &str) -> i64 {
        self.open.get(task).map_or(0, |log| log.position)
    }

    pub(super) fn is_open(&self, task: &str) -> bool {
        self.open.contains_key(task)
    }

    /// Tasks whose logs are shown.
    pub(super) fn open_logs(&self) -> Vec<String> {
        self.open.keys().cloned().collect()
    }

    pub(super) fn current(&self) -> Option<&Row> {
        let key = self.selected.as_ref()?;
        self.rows.iter().find(|row| row.key == *key)
    }

    /// Moves the selection by so many rows.
    pub(super) fn step(&mut self, rows: isize) {
        let at = self
            .selected
            .as_ref()
            .and_then(|key| self.rows.iter().position(|row| row.key == *key))
            .unwrap_or(0);
        let to = at
            .saturating_add_signed(rows)
            .min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(to).map(|row| row.key.clone());
    }

    /// Looks at an item, which is cleaned; `hides` where that took something away.
    pub(super) fn open(&mut self, item: InboxItem, hides: bool) {
        self.notice = None;
        self.input = None;
        self.page = Some(Page::new(item, hides));
    }

    pub(super) fn close_page(&mut self) {
        self.page = None;
        self.input = None;
        self.notice = None;
    }

    /// The plane took the decision.
    pub(super) fn resolved(&mut self, request: &ResolveInboxItemRequest) {
        self.close_page();
        let done = words::done(request.action());
        self.say(
            Tone::Good,
            format!("{done} {}@{}", request.item_id, request.revision),
        );
    }

    pub(super) fn say(&mut self, tone: Tone, words: String) {
        self.notice = Some((tone, words));
    }
}
