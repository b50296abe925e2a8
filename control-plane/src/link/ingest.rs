//! Milestones: from the wire into the workflow, each once.

use jiff::Timestamp;
use mainloop_core::{CiHold, Event, Failure, Reason};
use mainloop_proto::v1::{
    self as v1, Check, CheckState, FailureReason, Milestone, Question, QuestionAsked,
    ReviewThreadKind, milestone::Fact,
};
use serde_json::{Value, json};

use crate::{
    db::{
        Error, Facts, Item, Occurrence, Store,
        attempts::Identity,
        commands,
        reviews::{self, Answered},
        transition,
        transition::{append_event, apply_in, lock_task},
    },
    errors, texts,
};

/// From the attempt's milestone of this number on its notes are no longer kept: what runs in the harness can make as
/// many as it likes.
const NOTES: i64 = 1000;
/// What is noted last.
const NOTES_END: &str = "this attempt has told so much that what it notes from here on is not kept";

/// Stores a milestone, or finds that it was stored before. Returns the number up to which all are durable. One that the
/// database never takes counts as ignored, so that it is not resent for ever.
pub(super) async fn milestone(
    store: &Store,
    identity: Identity,
    milestone: &Milestone,
) -> Result<i64, Error> {
    match stored(store, identity, milestone).await {
        Err(error) if error.is_bad_value() => {
            let (task, seq, error) = (identity.task_id, milestone.seq, errors::chain(&error));
            tracing::warn!(task.id = %task, seq, error, "ignored a milestone that the database does not take");
            ignored(store, identity, milestone).await
        }
        result => result,
    }
}

/// Notes a milestone that cannot be stored.
async fn ignored(store: &Store, identity: Identity, milestone: &Milestone) -> Result<i64, Error> {
    let what = "ignore a milestone";
    let mut client = store.connection(what).await?;
    let transaction = client.transaction().await.map_err(Error::on(what))?;
    let Some((task, _)) = lock_task(&transaction, identity.task_id).await? else {
        return Ok(milestone.seq);
    };
    if !commands::advance(&transaction, identity.id, milestone.seq).await? {
        transaction.rollback().await.map_err(Error::on(what))?;
        drop(client);
        return store.durable_milestone(identity.id).await;
    }
    append_event(
        &transaction,
        task.id,
        reading(milestone, None).kind(),
        "holds what the database does not take",
        "worker",
        identity.n,
        &json!({}),
        true,
    )
    .await?;
    transaction.commit().await.map_err(Error::on(what))?;
    drop(client);
    store.nudge().events_grew(identity.task_id);
    Ok(milestone.seq)
}

async fn stored(store: &Store, identity: Identity, milestone: &Milestone) -> Result<i64, Error> {
    let what = "store a milestone";
    let mut client = store.connection(what).await?;
    let transaction = client.transaction().await.map_err(Error::on(what))?;
    let Some((task, now)) = lock_task(&transaction, identity.task_id).await? else {
        return Ok(milestone.seq);
    };
    if !commands::advance(&transaction, identity.id, milestone.seq).await? {
        transaction.rollback().await.map_err(Error::on(what))?;
        drop(client);
        return store.durable_milestone(identity.id).await;
    }
    let current = milestone.phase_version == task.task.phase_version;
    let mut moved = false;
    match reading(milestone, task.task.pull) {
        Reading::Workflow(mut occurrence) if current => {
            occurrence.attempt = identity.n;
            if let Event::QuestionAsked { .. }
            | Event::BlockerReported { .. }
            | Event::ChangeHeld { .. } = occurrence.event
                && let Some(item) = &mut occurrence.item
            {
                item.title = format!("{}: {}", item.title, task.title);
            }
            apply_in(&transaction, task, now, &occurrence).await?;
            moved = true;
        }
        Reading::Workflow(occurrence) => {
            append_event(
                &transaction,
                task.id,
                occurrence.event.kind().word(),
                "came for a step that the task has left",
                "worker",
                identity.n,
                &occurrence.detail,
                true,
            )
            .await?;
        }
        Reading::Note {
            kind,
            text,
            detail,
            session,
        } => {
            if let Some(session) = session {
                transition::set_session(&transaction, task.id, &session).await?;
            }
            if milestone.seq < NOTES {
                append_event(
                    &transaction,
                    task.id,
                    kind,
                    &text,
                    "worker",
                    identity.n,
                    &detail,
                    false,
                )
                .await?;
            }
        }
        Reading::Answered(answered) => {
            reviews::answered(&transaction, task.id, &answered).await?;
            append_event(
                &transaction,
                task.id,
                "thread_answered",
                &format!("answered: {}", first_line(&answered.text)),
                "worker",
                identity.n,
                &json!({ "id": answered.id, "newest": answered.newest, "text": answered.text }),
                false,
            )
            .await?;
        }
        Reading::Nothing => {}
    }
    if milestone.seq == NOTES {
        append_event(
            &transaction,
            identity.task_id,
            "progress",
            NOTES_END,
            "plane",
            identity.n,
            &json!({ "text": NOTES_END }),
            false,
        )
        .await?;
    }
    transaction.commit().await.map_err(Error::on(what))?;
    drop(client);
    if moved {
        store.nudge().task_changed(identity.task_id);
    } else {
        store.nudge().events_grew(identity.task_id);
    }
    Ok(milestone.seq)
}

/// A time on the wire.
pub(super) fn time(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::new(time.seconds, time.nanos).unwrap_or_else(|_| Timestamp::now())
}

enum Reading {
    /// The workflow decides.
    Workflow(Box<Occurrence>),
    /// Worth an entry in the log, and nothing else.
    Note {
        kind: &'static str,
        text: String,
        detail: Value,
        session: Option<String>,
    },
    /// A thread of a review has its answer, which stays true whatever the task does.
    Answered(Answered),
    /// A fact of a newer version.
    Nothing,
}

impl Reading {
    /// The kind of its event.
    fn kind(&self) -> &'static str {
        match self {
            Self::Workflow(occurrence) => occurrence.event.kind().word(),
            Self::Note { kind, .. } => kind,
            Self::Answered(_) => "thread_answered",
            Self::Nothing => "progress",
        }
    }
}

fn note(kind: &'static str, text: String, detail: Value) -> Reading {
    Reading::Note {
        kind,
        text,
        detail,
        session: None,
    }
}

fn workflow(event: Event, detail: Value, facts: Facts) -> Reading {
    let mut occurrence = Occurrence::new(event, "worker");
    occurrence.detail = detail;
    occurrence.facts = facts;
    Reading::Workflow(Box::new(occurrence))
}

fn reading(milestone: &Milestone, pull: Option<u32>) -> Reading {
    let Some(fact) = &milestone.fact else {
        return Reading::Nothing;
    };
    match fact {
        Fact::PlanningStarted(_) => {
            note("planning_started", "planning started".to_owned(), json!({}))
        }
        Fact::PlanReady(ready) => {
            let (number, url) = link(ready.issue.as_ref());
            workflow(
                Event::PlanStored {
                    revision: u32::try_from(ready.revision).unwrap_or(0),
                    hash: ready.hash.clone(),
                },
                json!({ "revision": ready.revision, "hash": ready.hash, "issue": number, "url": url }),
                Facts {
                    plan_body: Some(clean(&ready.text)),
                    plan_issue: (number > 0).then_some((number, url)),
                    ..Facts::default()
                },
            )
        }
        Fact::NothingToChange(nothing) => {
            let (number, url) = link(nothing.issue.as_ref());
            let mut occurrence = Occurrence::new(Event::NothingToChange, "worker");
            occurrence.text = format!("nothing to change: {}", first_line(&nothing.reason));
            occurrence.detail =
                json!({ "reason": clean(&nothing.reason), "issue": number, "url": url });
            occurrence.facts.summary = Some(clean(&nothing.reason));
            occurrence.facts.plan_issue = (number > 0).then_some((number, url));
            Reading::Workflow(Box::new(occurrence))
        }
        Fact::QuestionAsked(asked) => question(asked),
        Fact::BranchPushed(pushed) => workflow(
            Event::BranchPushed {
                sha: pushed.sha.clone(),
            },
            json!({ "branch": pushed.branch, "sha": pushed.sha }),
            Facts {
                branch: Some(clean(&pushed.branch)),
                ..Facts::default()
            },
        ),
        Fact::PullRequestOpened(opened) => {
            let (number, url) = link(opened.pull_request.as_ref());
            workflow(
                Event::PullOpened {
                    number: u32::try_from(number).unwrap_or(0),
                },
                json!({ "number": number, "url": url, "existed": opened.existed }),
                Facts {
                    pull_url: Some(url),
                    ..Facts::default()
                },
            )
        }
        Fact::WorkFinished(finished) => workflow(
            Event::WorkFinished {
                changed: finished.changed,
            },
            json!({ "sha": finished.head_sha, "diffstat": finished.diffstat, "changed": finished.changed }),
            Facts {
                diffstat: Some(clean(&finished.diffstat)),
                summary: Some(clean(&finished.summary)),
                ..Facts::default()
            },
        ),
        Fact::CiRunning(running) => workflow(
            Event::CiRunning {
                sha: running.sha.clone(),
            },
            json!({ "sha": running.sha }),
            Facts {
                checks: Some(checks(&running.checks)),
                ..Facts::default()
            },
        ),
        Fact::CiPassed(passed) => {
            let mut occurrence = Occurrence::new(
                Event::CiPassed {
                    sha: passed.sha.clone(),
                },
                "worker",
            );
            let limited: Vec<String> = passed.limited.iter().map(|what| clean(what)).collect();
            if !limited.is_empty() {
                occurrence.text = format!(
                    "CI passed ({}) as far as it can be read: {}",
                    texts::short_sha(&passed.sha),
                    limited.join("; ")
                );
            }
            occurrence.detail = json!({ "sha": passed.sha, "limited": limited });
            occurrence.facts.checks = Some(checks(&passed.checks));
            occurrence.facts.ci_log = Some(String::new());
            Reading::Workflow(Box::new(occurrence))
        }
        Fact::CiFailed(failed) => {
            let list = checks(&failed.checks);
            workflow(
                Event::CiFailed {
                    sha: failed.sha.clone(),
                    signature: failed.signature.clone(),
                },
                json!({ "sha": failed.sha, "signature": failed.signature, "failed": texts::failed_checks(&list) }),
                Facts {
                    checks: Some(list),
                    ci_log: Some(clean(&failed.log)),
                    guidance: Some(String::new()),
                    ..Facts::default()
                },
            )
        }
        Fact::CiHeld(seen) => {
            let hold = match seen.hold() {
                v1::CiHold::Unspecified => return Reading::Nothing,
                v1::CiHold::Approval => CiHold::Approval,
                v1::CiHold::Draft => CiHold::Draft,
            };
            workflow(
                Event::CiHeld {
                    sha: seen.sha.clone(),
                    hold,
                },
                json!({ "sha": seen.sha }),
                Facts {
                    checks: Some(checks(&seen.checks)),
                    ..Facts::default()
                },
            )
        }
        Fact::CiAbsent(absent) => workflow(
            Event::CiAbsent {
                sha: absent.sha.clone(),
            },
            json!({ "sha": absent.sha, "reason": absent.reason }),
            Facts {
                checks: Some(json!([])),
                ..Facts::default()
            },
        ),
        Fact::MarkedReady(ready) => workflow(
            Event::MarkedReady {
                sha: ready.sha.clone(),
            },
            json!({ "sha": ready.sha }),
            Facts::default(),
        ),
        Fact::BlockerReported(blocker) => {
            let mut occurrence = Occurrence::new(
                Event::BlockerReported {
                    id: blocker.question_id.clone(),
                },
                "worker",
            );
            let what = clean(&blocker.what);
            occurrence.text = format!("blocked: {}", first_line(&what));
            occurrence.detail = json!({ "kind": blocker.kind, "what": what });
            occurrence.item = Some(Item {
                title: "Blocked".to_owned(),
                body: format!(
                    "{what}\n\n{}\n\nAnswer with the way on, or reject to give up.",
                    clean(&blocker.detail)
                ),
                questions: json!([]),
            });
            Reading::Workflow(Box::new(occurrence))
        }
        Fact::PushHeld(held) => {
            let mut occurrence = Occurrence::new(
                Event::ChangeHeld {
                    hash: clean(&held.hash),
                },
                "worker",
            );
            let paths: Vec<String> = held.paths.iter().map(|path| clean(path)).collect();
            occurrence.detail = json!({ "hash": clean(&held.hash), "paths": paths });
            occurrence.item = Some(texts::held_change(&clean(&held.diff)));
            Reading::Workflow(Box::new(occurrence))
        }
        Fact::StepFailed(failed) => {
            let reason = failed.failure.as_ref().map_or(
                FailureReason::Unspecified,
                mainloop_proto::v1::Failure::reason,
            );
            let message = failed
                .failure
                .as_ref()
                .map(|failure| clean(&failure.message))
                .unwrap_or_default();
            let reason = failure_reason(reason);
            workflow(
                Event::StepFailed {
                    failure: Failure {
                        reason,
                        message: message.clone(),
                    },
                    retry_at: failed.retry_time.map(time),
                },
                json!({ "reason": reason.word(), "message": message }),
                Facts::default(),
            )
        }
        Fact::IssueChanged(changed) => {
            match texts::issue_change(changed.change(), changed.number) {
                Some((kind, text)) => note(kind, text, json!({ "issue": changed.number })),
                None => Reading::Nothing,
            }
        }
        Fact::HostRefused(refused) => note(
            "host_refused",
            format!("host refused: {}", clean(&refused.host)),
            json!({ "host": clean(&refused.host) }),
        ),
        Fact::PushRefused(refused) => note(
            "push_refused",
            format!(
                "push refused: {} ({})",
                clean(&refused.target),
                clean(&refused.reason)
            ),
            json!({ "target": clean(&refused.target), "reason": clean(&refused.reason) }),
        ),
        Fact::ProgressNoted(progress) => note(
            "progress",
            first_line(&clean(&progress.text)).to_owned(),
            json!({ "text": clean(&progress.text) }),
        ),
        Fact::SessionStarted(session) => Reading::Note {
            kind: "session_started",
            text: "Claude session started".to_owned(),
            detail: json!({ "session": session.session_id }),
            session: Some(clean(&session.session_id)),
        },
        Fact::ThreadAnswered(answered) => Reading::Answered(Answered {
            is_review: answered.kind() == ReviewThreadKind::Review,
            id: answered.id,
            newest: answered.newest,
            text: clean(&answered.text),
        }),
        Fact::PullRequestClosed(closed) => {
            // A worker looks at that of its own branch alone.
            let pull = pull.unwrap_or_default();
            workflow(
                if closed.merged {
                    Event::PullMerged { pull }
                } else {
                    Event::PullClosed { pull }
                },
                json!({ "merged": closed.merged }),
                Facts::default(),
            )
        }
    }
}

fn question(asked: &QuestionAsked) -> Reading {
    let mut occurrence = Occurrence::new(
        Event::QuestionAsked {
            id: asked.question_id.clone(),
            recommends: !asked.questions.is_empty()
                && asked
                    .questions
                    .iter()
                    .all(|question| !question.options.is_empty()),
        },
        "worker",
    );
    let first = asked
        .questions
        .first()
        .map(|question| clean(&question.text));
    let first = first.unwrap_or_default();
    occurrence.text = format!("question asked: {}", first_line(&first));
    occurrence.detail = json!({ "question": first });
    occurrence.item = Some(Item {
        title: "Question".to_owned(),
        body: clean(&asked.context),
        questions: asked.questions.iter().map(question_json).collect(),
    });
    Reading::Workflow(Box::new(occurrence))
}

fn question_json(question: &Question) -> Value {
    json!({
        "text": clean(&question.text),
        "header": clean(&question.header),
        "multi_select": question.multi_select,
        "options": question
            .options
            .iter()
            .map(|option| json!({ "label": clean(&option.label), "description": clean(&option.description) }))
            .collect::<Vec<_>>(),
    })
}

fn checks(checks: &[Check]) -> Value {
    checks
        .iter()
        .map(|check| {
            let state = match check.state() {
                CheckState::Unspecified | CheckState::Pending => "pending",
                CheckState::Passed => "passed",
                CheckState::Failed => "failed",
                CheckState::Skipped => "skipped",
            };
            json!({ "name": clean(&check.name), "state": state, "conclusion": clean(&check.conclusion), "url": clean(&check.url), "queued": check.queued })
        })
        .collect()
}

fn link(link: Option<&mainloop_proto::v1::Link>) -> (i32, String) {
    link.map_or((0, String::new()), |link| (link.number, clean(&link.url)))
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

/// Postgres takes no NUL in text.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A reason by its word, which is the same in the contract; one that this version does not know is its own.
fn failure_reason(reason: FailureReason) -> Reason {
    reason
        .as_str_name()
        .strip_prefix("FAILURE_REASON_")
        .and_then(|word| Reason::of_word(&word.to_ascii_lowercase()))
        .unwrap_or(Reason::Internal)
}

#[cfg(test)]
mod tests;
