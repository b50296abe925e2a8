//! What a worker is told: all it needs at its hello, and its assignment whenever that changes.

use mainloop_core::{Run, Step, step};
use mainloop_proto::v1::{
    Assignment, AwaitCiWork, Credentials, FixCiWork, HumanWord, ImplementWork, MarkReadyWork,
    PlanWork, StopWork, WaitWork, Welcome, WorkerPolicy, assignment::Work,
};
use serde_json::Value;

use super::{HEARTBEAT_SECONDS, LEASE, session::CREDIT};
use crate::{
    db::{
        Error, Store, TaskRow,
        attempts::{Connected, Identity},
    },
    rpc::convert,
};

/// What this plane offers its workers.
#[derive(Clone)]
pub struct Offer {
    /// Credentials, handed out over the link.
    pub credentials: Credentials,
    /// Makes the part of a task's policy that its worker needs.
    pub policy: fn(&Value) -> WorkerPolicy,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Offer").finish_non_exhaustive()
    }
}

/// The answer to a hello. None when the attempt is over.
pub(super) async fn welcome(
    store: &Store,
    offer: &Offer,
    identity: Identity,
    connected: Connected,
) -> Result<Option<Welcome>, Error> {
    let Some(task) = store.task_for_link(identity.task_id).await? else {
        return Ok(None);
    };
    if task.task.attempt != identity.n || task.task.run != Run::Live {
        return Ok(None);
    }
    let human_words = store.human_words(task.id).await?;
    Ok(Some(Welcome {
        attempt: i32::try_from(identity.n).unwrap_or(i32::MAX),
        acked_milestone: connected.milestone,
        credentials: Some(offer.credentials.clone()),
        policy: Some((offer.policy)(&task.policy)),
        assignment: Some(assignment(store, &task).await?),
        earlier_cost_micros: store.earlier_cost(task.id, identity.n).await?,
        heartbeat_seconds: HEARTBEAT_SECONDS,
        lease_seconds: i32::try_from(2 * LEASE.as_secs()).unwrap_or(i32::MAX),
        human_words: human_words
            .into_iter()
            .map(|word| HumanWord {
                question: word.question,
                text: word.text,
                time: Some(convert::timestamp(word.at)),
            })
            .collect(),
        session_id: task.session_id.clone(),
        log_credit: CREDIT,
        task: Some(convert::task(&task, &[])),
    }))
}

/// The end of a worker.
pub(super) fn stop(reason: &str) -> Assignment {
    Assignment {
        phase_version: 0,
        deadline: None,
        work: Some(Work::Stop(StopWork {
            reason: reason.to_owned(),
        })),
    }
}

/// What the worker of this task does now.
pub(super) async fn assignment(store: &Store, task: &TaskRow) -> Result<Assignment, Error> {
    let work = match step(&task.task) {
        None => Work::Wait(WaitWork {
            reason: "a person decides".to_owned(),
        }),
        Some(Step::Plan) => {
            let revision = task.task.plan.as_ref().map_or(0, |plan| plan.revision);
            Work::Plan(PlanWork {
                revision: i32::try_from(revision + 1).unwrap_or(i32::MAX),
                previous_plan: plan_text(store, task).await?,
                feedback: if revision == 0 {
                    String::new()
                } else {
                    store.plan_feedback(task.id).await?
                },
            })
        }
        Some(Step::Implement) => Work::Implement(ImplementWork {
            plan: plan_text(store, task).await?,
            plan_hash: plan_hash(task),
            plan_revision: task
                .task
                .plan
                .as_ref()
                .and_then(|plan| i32::try_from(plan.revision).ok())
                .unwrap_or_default(),
        }),
        Some(Step::AwaitCi) => Work::AwaitCi(AwaitCiWork {
            sha: task.task.head.clone().unwrap_or_default(),
        }),
        Some(Step::FixCi) => Work::FixCi(FixCiWork {
            attempt: i32::try_from(task.task.ci_attempts).unwrap_or(i32::MAX),
            max_attempts: i32::try_from(task.limits().max_ci_attempts).unwrap_or(i32::MAX),
            sha: task.task.head.clone().unwrap_or_default(),
            checks: convert::checks(&task.checks),
            log: task.ci_log.clone(),
            guidance: task.guidance.clone(),
            plan: plan_text(store, task).await?,
        }),
        Some(Step::MarkReady) => Work::MarkReady(MarkReadyWork {
            sha: task.task.green.clone().unwrap_or_default(),
            plan_hash: plan_hash(task),
        }),
    };
    Ok(Assignment {
        phase_version: task.task.phase_version,
        deadline: task.timer_at.map(convert::timestamp),
        work: Some(work),
    })
}

async fn plan_text(store: &Store, task: &TaskRow) -> Result<String, Error> {
    match &task.task.plan {
        Some(plan) => Ok(store
            .plan_text(task.id, plan.revision)
            .await?
            .unwrap_or_default()),
        None => Ok(String::new()),
    }
}

fn plan_hash(task: &TaskRow) -> String {
    task.task
        .plan
        .as_ref()
        .map(|plan| plan.hash.clone())
        .unwrap_or_default()
}
