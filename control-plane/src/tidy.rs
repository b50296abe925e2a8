//! What cancelled and declined tasks leave at the code host: closed once no worker is there, as policy says.
//!
//! Everything is looked up before it is changed, so a second time does no harm. What cannot be closed is tried again, ever
//! more slowly, and in the end told as an event of the task.

use std::time::Duration;

use mainloop_core::Phase;
use mainloop_github::{Class, Client, Error, Marker, MarkerKind, PullState, Repo, text};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    code_host::Tokens,
    db::{Store, tidying::Untidy},
    errors,
    policy::OnCancel,
};

/// How often the table is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Closes what is to be closed until told to stop.
pub async fn run(store: Store, api: Url, tokens: Tokens, stop: CancellationToken) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match store.untidy().await {
            Ok(due) => {
                for untidy in due {
                    // What a stop cuts short is done again.
                    let tidied = tidy(&store, &api, &tokens, &untidy);
                    if stop.run_until_cancelled(tidied).await.is_none() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(
                error = errors::chain(&error),
                "could not read what is to be closed"
            ),
        }
    }
}

async fn tidy(store: &Store, api: &Url, tokens: &Tokens, untidy: &Untidy) {
    let task = untidy.task.id;
    let mut done = Vec::new();
    let result = with_client(api, tokens, untidy, &mut done).await;
    let text = match result {
        Ok(()) if done.is_empty() => String::new(),
        Ok(()) => done.join(", "),
        Err(error) => {
            tracing::warn!(task.id = %task, error = errors::chain(&error), "could not close what a task left");
            if !untidy.last {
                return;
            }
            format!("not everything is closed: {}", errors::chain(&error))
        }
    };
    if let Err(error) = store.tidied(task, &text, &json!({ "done": done })).await {
        tracing::warn!(task.id = %task, error = errors::chain(&error), "could not note what was closed");
    }
}

async fn with_client(
    api: &Url,
    tokens: &Tokens,
    untidy: &Untidy,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let repo = Repo {
        owner: untidy.task.owner.clone(),
        name: untidy.task.name.clone(),
    };
    let lent = tokens.for_tidying(&repo).await?;
    let result = match Client::new(api, repo, &lent.secret) {
        Ok(client) if lent.login.is_empty() => close(&client, untidy, done).await,
        Ok(client) => close(&client.known_as(&lent.login), untidy, done).await,
        Err(error) => Err(error),
    };
    tokens.give_back(lent).await;
    result
}

/// Closes pull requests first: a branch that is deleted closes its own without a word.
async fn close(client: &Client, untidy: &Untidy, done: &mut Vec<String>) -> Result<(), Error> {
    let task = &untidy.task;
    let what = match task.task.phase {
        Phase::Declined => "declined",
        _ => "cancelled",
    };
    let said = text::closed_comment(what, &task.short_id);
    let marker = Marker::new(task.id, MarkerKind::Closed);
    let branches = branches(client, untidy).await?;
    for number in pulls(client, untidy, &branches).await? {
        client.ensure_comment(number, &marker, &said).await?;
        client.close_pull(number).await?;
        done.push(format!("closed pull request #{number}"));
    }
    if let Some(number) = issue(client, untidy).await? {
        client.ensure_comment(number, &marker, &said).await?;
        client.close_issue(number).await?;
        done.push(format!("closed issue #{number}"));
    }
    if untidy.policy == OnCancel::Delete {
        for branch in branches {
            client.delete_branch(&branch).await?;
            done.push(format!("deleted branch {branch}"));
        }
    }
    Ok(())
}

/// The branches of the task: of each fresh start, and one that was pushed as its worker was ended.
async fn branches(client: &Client, untidy: &Untidy) -> Result<Vec<String>, Error> {
    let name = format!("mainloop/{}", untidy.task.short_id);
    let mut found = client.branches(&name).await?;
    // Another task's name may begin with this one's.
    found.retain(|branch| {
        let rest = branch.strip_prefix(&name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    Ok(found)
}

/// The open pull requests of the task: what is known of, and what a worker made as it was ended.
async fn pulls(client: &Client, untidy: &Untidy, branches: &[String]) -> Result<Vec<u64>, Error> {
    let task = &untidy.task;
    let known = task
        .superseded
        .iter()
        .copied()
        .filter_map(|number| u64::try_from(number).ok());
    let mut open = Vec::new();
    for number in known.chain(task.task.pull.map(u64::from)) {
        match client.pull(number).await {
            Ok(pull) if pull.state == PullState::Open => open.push(number),
            Ok(_) => {}
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for branch in branches {
        let ours = client.open_pulls(branch).await?;
        open.extend(ours.iter().map(|pull| pull.number));
    }
    open.sort_unstable();
    open.dedup();
    Ok(open)
}

/// The planning issue, if it is ours and open.
async fn issue(client: &Client, untidy: &Untidy) -> Result<Option<u64>, Error> {
    let task = &untidy.task;
    // A person's own issue is theirs to close.
    if task.issue_number != 0 {
        return Ok(None);
    }
    let marker = Marker::new(task.id, MarkerKind::Plan);
    let found = client.planning_issue(&marker).await?;
    Ok(found.filter(|issue| issue.open).map(|issue| issue.number))
}
