//! Guidance: a person's words to a task, each stored once, and the retry that comes with some.

use aws_lc_rs::digest;
use mainloop_core::{Choice, Event, Gate, Phase, Reason, Run, Wait};
use serde_json::json;
use uuid::Uuid;

use super::{
    Applied, Error, Facts, Occurrence, Store, commands,
    commands::Command,
    execute, inbox,
    transition::{append_event, apply_in, lock_task},
};

const HEARD: &str = "UPDATE command SET done_at = clock_timestamp() WHERE id = $1 AND task_id = $2";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[("say::HEARD", HEARD)];

/// What became of guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is stored, now or by the same request before.
    Stored,
    /// There is no such task.
    Missing,
    /// The work is over, so nobody would hear it.
    Over(&'static str),
}

impl Store {
    /// Stores guidance. `request` is the caller's id of it: the same one is stored once.
    pub async fn say_to_task(
        &self,
        task: Uuid,
        request: Uuid,
        text: &str,
        actor: &str,
    ) -> Result<Said, Error> {
        let what = "store guidance";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let Some((row, _)) = lock_task(&transaction, task).await? else {
            return Ok(Said::Missing);
        };
        let id = command_id(task, request, actor);
        let command = Command::Say {
            text: text.to_owned(),
        };
        if !commands::insert(&transaction, task, id, &command).await? {
            return Ok(Said::Stored);
        }
        if row.task.phase.is_settled() || row.task.phase == Phase::Ready {
            return Ok(Said::Over(row.task.phase.kind().word()));
        }
        commands::insert_word(&transaction, task, "", text, actor, false).await?;
        if row.task.run != Run::Live {
            // A worker that comes later has the words in its first prompt; the row stays for the request's id.
            execute(&transaction, what, HEARD, &[&id, &task]).await?;
        }
        append_event(
            &transaction,
            task,
            "said",
            text.trim().lines().next().unwrap_or_default(),
            actor,
            0,
            &json!({ "text": text }),
            false,
        )
        .await?;
        transaction.commit().await.map_err(Error::on(what))?;
        drop(client);
        self.nudge().task_changed(task);
        Ok(Said::Stored)
    }
}

impl Store {
    /// Starts a task again that failed or is stuck, `fresh` on a new branch, or one that waits at once; what a person says about it goes into the next prompt.
    pub async fn retry_task(
        &self,
        task: Uuid,
        guidance: &str,
        fresh: bool,
        actor: &str,
    ) -> Result<Applied, Error> {
        let what = "retry a task";
        let mut client = self.connection(what).await?;
        let transaction = client.transaction().await.map_err(Error::on(what))?;
        let Some((row, now)) = lock_task(&transaction, task).await? else {
            return Ok(Applied::Missing);
        };
        let event = if fresh {
            Event::StartedAfresh
        } else {
            Event::RetryRequested
        };
        // An open item is answered by it.
        if let Wait::Human(Gate::Stuck(_)) = &row.task.wait {
            let choice = if fresh {
                Choice::StartAfresh
            } else {
                Choice::Retry
            };
            inbox::close(&transaction, task, choice, guidance, actor).await?;
        }
        let mut occurrence = Occurrence::new(event, actor);
        occurrence.detail = json!({ "guidance": guidance });
        if !guidance.trim().is_empty() {
            commands::insert_word(&transaction, task, "", guidance, actor, false).await?;
            occurrence.facts = Facts {
                guidance: Some(guidance.to_owned()),
                ..Facts::default()
            };
            // The step begins again where it was, and its assignment has no room for words.
            let no_change = Wait::Human(Gate::Stuck(Reason::NoChange));
            if row.task.run == Run::Live && row.task.wait == no_change {
                let command = Command::Say {
                    text: guidance.to_owned(),
                };
                commands::insert(&transaction, task, Uuid::now_v7(), &command).await?;
            }
        }
        let applied = apply_in(&transaction, row, now, &occurrence).await?;
        if matches!(applied, Applied::Changed(_)) {
            transaction.commit().await.map_err(Error::on(what))?;
            drop(client);
            self.nudge().task_changed(task);
        }
        Ok(applied)
    }
}

/// Callers choose their ids by themselves, so that one's must not hide another's.
fn command_id(task: Uuid, request: Uuid, actor: &str) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(task.as_bytes());
    context.update(request.as_bytes());
    context.update(actor.as_bytes());
    let hash = context.finish();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
