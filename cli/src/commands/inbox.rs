//! `mainloop inbox`: full screen for a person at a terminal, a list elsewhere.

use jiff::Timestamp;
use mainloop_proto::v1::{
    InboxGroup, InboxItem, ListInboxItemsRequest, Task, WatchInboxRequest, WatchInboxResponse,
};
use std::collections::HashMap;
use tonic::{Status, Streaming};

use super::{connect, patience::Patience};
use crate::{
    args::{Global, Inbox},
    client::Client,
    exit::{self, Call, Exit},
    format,
    item::ItemRef,
    output::{
        Output, json,
        style::{self, Style},
        table::Table,
    },
    tui, words,
};

/// Items of a page.
const PAGE: i32 = 200;
/// Settled tasks that the list shows of each group; `task list` has the rest.
const SETTLED: usize = 10;

pub(super) async fn run(inbox: &Inbox, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    if output.is_terminal() && output.is_interactive() {
        tui::run(global.target()?).await?;
        return Ok(Exit::Done);
    }
    let mut client = connect(global).await?;
    if inbox.watch {
        watch(client, global, output).await?;
    } else if output.is_json() {
        items(&mut client, output).await?;
    } else {
        list(&mut client, output).await?;
    }
    Ok(Exit::Done)
}

/// Every open item, a line each.
async fn items(client: &mut Client, output: &Output) -> anyhow::Result<()> {
    let mut request = ListInboxItemsRequest {
        page_size: PAGE,
        ..ListInboxItemsRequest::default()
    };
    loop {
        let page = client
            .inbox
            .list_inbox_items(request.clone())
            .await
            .map_err(Call::failed("list the inbox"))?
            .into_inner();
        for item in &page.items {
            output.message(item, |_| Ok(()))?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

/// What there is now, by groups.
async fn list(client: &mut Client, output: &Output) -> anyhow::Result<()> {
    let mut stream = client
        .inbox
        .watch_inbox(WatchInboxRequest {})
        .await
        .map_err(Call::failed("read the inbox"))?
        .into_inner();
    let mut changes: Vec<WatchInboxResponse> = Vec::new();
    while let Some(change) = stream
        .message()
        .await
        .map_err(Call::failed("read the inbox"))?
    {
        if change.caught_up {
            break;
        }
        changes.push(json::clean(&change)?);
    }
    // A task that changed while the state was being sent comes twice.
    let mut newest: HashMap<&str, &WatchInboxResponse> = HashMap::new();
    for change in &changes {
        if let Some(task) = &change.task {
            let slot = newest.entry(&task.id).or_insert(change);
            if slot
                .task
                .as_ref()
                .is_some_and(|seen| seen.version <= task.version)
            {
                *slot = change;
            }
        }
    }
    let mut rows: Vec<_> = newest.into_values().collect();
    rows.sort_by_key(|row| {
        std::cmp::Reverse(
            row.task
                .as_ref()
                .map(|task| (changed_at(task), task.id.clone())),
        )
    });
    let mut empty = true;
    for group in [
        InboxGroup::NeedsYou,
        InboxGroup::Active,
        InboxGroup::Failed,
        InboxGroup::Completed,
    ] {
        let members: Vec<_> = rows
            .iter()
            .filter(|row| row.task.as_ref().is_some_and(|task| task.group() == group))
            .collect();
        if members.is_empty() {
            continue;
        }
        if !std::mem::take(&mut empty) {
            output.line("")?;
        }
        let shown = match group {
            InboxGroup::Completed | InboxGroup::Failed => SETTLED.min(members.len()),
            _ => members.len(),
        };
        let heading = format!("{} ({})", words::group(group), members.len());
        output.line(output.paint(style::of_group(group), &heading))?;
        for line in table(group, &members[..shown]).render(output.palette(), output.columns()) {
            output.line(line)?;
        }
    }
    if empty {
        output.note("nothing here: `mainloop task create` proposes a task");
    }
    Ok(())
}

fn changed_at(task: &Task) -> i64 {
    task.update_time.as_ref().map_or(0, |time| time.seconds)
}

fn table(group: InboxGroup, rows: &[&&WatchInboxResponse]) -> Table {
    let now = Timestamp::now();
    let mut table = if group == InboxGroup::NeedsYou {
        Table::new(["ITEM", "KIND", "TASK", "OPEN FOR", "WHAT"])
    } else {
        Table::new(["TASK", "STATE", "REPOSITORY", "COST", "TITLE"])
    };
    for row in rows {
        let Some(task) = &row.task else { continue };
        if group != InboxGroup::NeedsYou {
            table.row(summary(task));
            continue;
        }
        // A task that needs somebody is never left out, even while its item is on its way.
        if row.open_items.is_empty() {
            table.row([
                (Style::Dim, "-".to_owned()),
                (Style::Yellow, words::state(task)),
                (Style::Plain, task.short_id.clone()),
                (Style::Plain, format::since(task.update_time.as_ref(), now)),
                (Style::Plain, task.title.clone()),
            ]);
        }
        for item in &row.open_items {
            table.row([
                (Style::Bold, ItemRef::of(item).to_string()),
                (Style::Yellow, words::kind(item)),
                (Style::Plain, task.short_id.clone()),
                (Style::Plain, format::since(item.open_time.as_ref(), now)),
                (Style::Plain, title(item, task)),
            ]);
        }
    }
    table
}

/// A task in five cells.
pub(super) fn summary(task: &Task) -> [(Style, String); 5] {
    let repository = task
        .repository
        .as_ref()
        .map(|repository| format!("{}/{}", repository.owner, repository.name));
    [
        (Style::Bold, task.short_id.clone()),
        (style::of_group(task.group()), words::state(task)),
        (Style::Plain, repository.unwrap_or_default()),
        (Style::Plain, format::money(task.cost_micros)),
        (Style::Plain, task.title.clone()),
    ]
}

fn title(item: &InboxItem, task: &Task) -> String {
    if item.title.is_empty() {
        task.title.clone()
    } else {
        item.title.clone()
    }
}

/// A line for each change. Over a restart of the plane it goes on, with what there is then.
async fn watch(mut client: Client, global: &Global, output: &Output) -> anyhow::Result<()> {
    let mut patience = Patience::default();
    loop {
        let lost = match client.inbox.watch_inbox(WatchInboxRequest {}).await {
            Ok(response) => follow(response.into_inner(), &mut patience, output).await?,
            Err(status) => status,
        };
        let again = exit::is_unreachable(&lost);
        let failed = Call::failed("watch the inbox")(lost);
        if !again {
            return Err(failed.into());
        }
        if !patience.is_away() {
            output.note("the plane does not answer; waiting for it to come back");
        }
        client = patience.reconnect(failed, global, || Ok(())).await?;
    }
}

/// Prints what comes; returns how the stream ended.
async fn follow(
    mut stream: Streaming<WatchInboxResponse>,
    patience: &mut Patience,
    output: &Output,
) -> anyhow::Result<Status> {
    loop {
        let change = match stream.message().await {
            Ok(Some(change)) => change,
            Ok(None) => return Ok(Status::unavailable("the plane ended the stream")),
            Err(status) => return Ok(status),
        };
        if patience.back() {
            output.note("the plane is back");
        }
        output.message(&change, |change| {
            let Some(task) = &change.task else {
                return Ok(());
            };
            let items: Vec<String> = change
                .open_items
                .iter()
                .map(|item| {
                    let overdue = if item.reminded { " (overdue)" } else { "" };
                    format!("{}{overdue}", ItemRef::of(item))
                })
                .collect();
            let needs = if items.is_empty() {
                String::new()
            } else {
                format!("  needs you: {}", items.join(", "))
            };
            output.line(format!(
                "{}  {}  {}  {}{needs}",
                format::time(task.update_time.as_ref(), Timestamp::now()),
                task.short_id,
                words::state(task),
                task.title,
            ))
        })?;
    }
}
