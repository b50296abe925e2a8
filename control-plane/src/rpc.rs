//! The gRPC services for clients: convert, call the store, convert back. Nothing here changes state by itself.

pub mod access;
pub mod auth;
pub mod convert;
pub mod inbox;
pub mod serve;
pub mod status;
pub mod task;
pub mod token;
pub mod watch;

use tokio_util::sync::CancellationToken;

pub use auth::{Caller, Scope};
pub use status::Error;

use crate::db::{Store, create::Snapshot, read::Seen};

/// Text of a person: guidance, answers, feedback and reasons. 16 KiB.
const MAX_WORDS: usize = 16 * 1024;

/// What all services of one plane share. Cheap enough to clone per service.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// What tasks may name and cost.
    pub rules: std::sync::Arc<task::Rules>,
    /// Cancelled when streams are to end.
    pub stop: CancellationToken,
    /// What is learned while the plane runs.
    pub health: access::Health,
}

impl Shared {
    /// The caller of a request, whatever they may do. The auth layer has put them there.
    #[expect(clippy::unused_self, reason = "reads like the other ways to a caller")]
    fn anyone<T>(&self, request: &tonic::Request<T>) -> Result<Caller, Error> {
        request
            .extensions()
            .get::<Caller>()
            .cloned()
            .ok_or(Error::Unauthenticated {
                message: "no credential was sent",
            })
    }

    /// The caller of a request, who needs this scope.
    fn caller<T>(&self, request: &tonic::Request<T>, scope: Scope) -> Result<Caller, Error> {
        let caller = self.anyone(request)?;
        caller.require(scope)?;
        Ok(caller)
    }

    /// The task that a client named by id or short id.
    async fn named(&self, name: &str) -> Result<Seen, Error> {
        let name = clean(name.trim());
        if name.is_empty() {
            return Err(Error::invalid("task_id", "is required"));
        }
        self.store
            .task_by_name(&name)
            .await?
            .ok_or_else(|| Error::NotFound {
                what: format!("task {name}"),
            })
    }

    /// The task after a change.
    async fn after(&self, id: uuid::Uuid) -> Result<mainloop_proto::v1::Task, Error> {
        let seen = self.store.task(id).await?.ok_or_else(|| Error::NotFound {
            what: format!("task {id}"),
        })?;
        Ok(self.shown(&seen))
    }

    /// A task as the contract has it; a queued one says what keeps it from starting.
    fn shown(&self, seen: &Seen) -> mainloop_proto::v1::Task {
        let mut task = convert::seen(seen);
        if seen.task.task.run == mainloop_core::Run::Queued
            && let Some(why) = self.health.starts().borrow().obstacle(&seen.task.task)
            && let Some(wait) = &mut task.wait
        {
            wait.reason = why;
        }
        task
    }

    /// The policy as it is now.
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            policy: self.rules.snapshot.clone(),
            unsandboxed: self.rules.unsandboxed,
        }
    }
}

/// The size of a page: `default` when nothing was asked, `max` at the most.
fn page_size(asked: i32, default: i32, max: i32) -> Result<i64, Error> {
    match asked {
        0 => Ok(i64::from(default)),
        1.. => Ok(i64::from(asked.min(max))),
        _ => Err(Error::invalid("page_size", "must not be negative")),
    }
}

/// Text without NUL, which Postgres does not take. What is looked up by it is not there.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A person's words: not too long.
fn words(field: &str, text: &str) -> Result<String, Error> {
    if text.len() > MAX_WORDS {
        return Err(Error::invalid(
            field,
            format!(
                "is {} bytes long; at most {MAX_WORDS} are taken",
                text.len()
            ),
        ));
    }
    Ok(clean(text))
}

#[cfg(test)]
mod tests;
