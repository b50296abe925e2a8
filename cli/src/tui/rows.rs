//! The rows of the list: the four groups, what needs a person first.

use std::{cmp::Reverse, collections::HashMap};

use mainloop_proto::v1::{InboxGroup, InboxItem, Task};

use super::model::Entry;
use crate::{item::ItemRef, words};

/// Groups from the top down.
pub(super) const GROUPS: [InboxGroup; 4] = [
    InboxGroup::NeedsYou,
    InboxGroup::Active,
    InboxGroup::Failed,
    InboxGroup::Completed,
];

/// What a row stands for, across changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Id of the task.
    pub(super) task: String,
    /// Id of the item; empty where the row stands for the task.
    pub(super) item: String,
}

/// A row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) group: InboxGroup,
    /// The item with its revision, or the task's short id.
    pub(super) name: String,
    /// The item's kind or the task's state.
    pub(super) state: String,
    pub(super) title: String,
}

impl Row {
    fn of_item(task: &Task, item: &InboxItem) -> Self {
        let title = if item.title.is_empty() {
            &task.title
        } else {
            &item.title
        };
        Self {
            key: Key {
                task: task.id.clone(),
                item: item.id.clone(),
            },
            group: InboxGroup::NeedsYou,
            name: ItemRef::of(item).to_string(),
            state: words::kind(item),
            title: title.clone(),
        }
    }

    fn of_task(task: &Task) -> Self {
        Self {
            key: Key {
                task: task.id.clone(),
                item: String::new(),
            },
            group: task.group(),
            name: task.short_id.clone(),
            state: words::state(task),
            title: task.title.clone(),
        }
    }
}

/// All rows: by group, then what needs a person longest first, and what changed last first elsewhere.
pub(super) fn sorted(entries: &HashMap<String, Entry>) -> Vec<Row> {
    let mut tasks: Vec<&Entry> = entries.values().collect();
    let seconds = |task: &Task| task.update_time.as_ref().map_or(0, |time| time.seconds);
    tasks.sort_by_key(|entry| (Reverse(seconds(&entry.task)), entry.task.id.clone()));
    let mut rows = Vec::new();
    for group in GROUPS {
        let mut members: Vec<&&Entry> = tasks
            .iter()
            .filter(|entry| entry.task.group() == group)
            .collect();
        if group == InboxGroup::NeedsYou {
            members.reverse();
        }
        for entry in members {
            if group == InboxGroup::NeedsYou && !entry.items.is_empty() {
                rows.extend(
                    entry
                        .items
                        .iter()
                        .map(|item| Row::of_item(&entry.task, item)),
                );
            } else {
                rows.push(Row::of_task(&entry.task));
            }
        }
    }
    rows
}
