//! What a worker is told: all it needs at its hello, and its assignment whenever that changes.

use mainloop_core::{Run, Step, step};
use mainloop_proto::v1::{
    AddressReviewWork, Assignment, AwaitCiWork, Credentials, FixCiWork, HumanWord, ImplementWork,
    MarkReadyWork, PlanWork, RebaseWork, ReviewThread, ReviewThreadKind, StopWork, WaitWork,
    Welcome, WorkerPolicy, assignment::Work,
};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::{HEARTBEAT_SECONDS, LEASE, session::CREDIT};
use crate::{
    code_host::{Lent, Tokens},
    db::{
        Error, Store, TaskRow,
        attempts::{Connected, Identity},
        commands::Word,
        reviews::Thread,
    },
    rpc::convert,
};

/// People's words that a worker is given, in bytes with their frames: an agent takes messages of 4 MiB.
const WORDS: usize = 256 << 10;
/// Threads of a review that a worker is given at once: as many as its prompt takes.
const THREADS: usize = 40;
/// What a word takes beside its texts.
const FRAME: usize = 64;

/// What this plane offers its workers.
#[derive(Clone)]
pub struct Offer {
    /// Credentials, handed out over the link: all but the code host's token.
    pub credentials: Credentials,
    /// Where that comes from.
    pub tokens: Option<Tokens>,
    /// Makes the part of a task's policy that its worker needs.
    pub policy: fn(&Value) -> WorkerPolicy,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Offer").finish_non_exhaustive()
    }
}

impl Offer {
    /// What a worker with this token is given.
    pub(super) fn with(&self, lent: &Lent) -> Credentials {
        Credentials {
            github_token: lent.secret.expose_secret().trim().to_owned(),
            github_login: lent.login.clone(),
            ..self.credentials.clone()
        }
    }
}

/// The answer to a hello. None when the attempt is over.
pub(super) async fn welcome(
    store: &Store,
    offer: &Offer,
    identity: Identity,
    connected: Connected,
    credentials: Option<Credentials>,
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
        credentials,
        policy: Some((offer.policy)(&task.policy)),
        assignment: Some(assignment(store, &task).await?),
        earlier_cost_micros: store.earlier_cost(task.id, identity.n).await?,
        heartbeat_seconds: HEARTBEAT_SECONDS,
        lease_seconds: i32::try_from(2 * LEASE.as_secs()).unwrap_or(i32::MAX),
        human_words: newest(&human_words),
        allowed_changes: store.allowed_changes(task.id).await?,
        session_id: task.session_id.clone(),
        log_credit: CREDIT,
        task: Some(convert::task(&task, &[])),
    }))
}

/// The newest words that fit, oldest first, with a note in place of the others.
fn newest(words: &[Word]) -> Vec<HumanWord> {
    let mut size = 0;
    let fitting = words.iter().rev().take_while(|word| {
        size += word.question.len() + word.text.len() + FRAME;
        size <= WORDS
    });
    let left_out = words.len() - fitting.count();
    let note = left_out.checked_sub(1).map(|last| HumanWord {
        question: String::new(),
        text: format!("({left_out} older messages are left out.)"),
        assumed: false,
        time: Some(convert::timestamp(words[last].at)),
    });
    let said = words[left_out..].iter().map(|word| HumanWord {
        question: word.question.clone(),
        text: word.text.clone(),
        assumed: word.assumed,
        time: Some(convert::timestamp(word.at)),
    });
    note.into_iter().chain(said).collect()
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
            ready_first: task.task.ready_first,
        }),
        Some(Step::FixCi) => Work::FixCi(FixCiWork {
            attempt: i32::try_from(task.task.ci_attempts).unwrap_or(i32::MAX),
            max_attempts: i32::try_from(turns(task)).unwrap_or(i32::MAX),
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
        Some(Step::AddressReview) => Work::AddressReview(AddressReviewWork {
            threads: fitting(store.open_threads(task.id).await?),
            round: i32::try_from(task.task.review_rounds).unwrap_or(i32::MAX),
            sha: task.task.head.clone().unwrap_or_default(),
            plan: plan_text(store, task).await?,
        }),
        Some(Step::Rebase) => Work::Rebase(RebaseWork {
            sha: task.task.head.clone().unwrap_or_default(),
            plan: plan_text(store, task).await?,
        }),
    };
    Ok(Assignment {
        phase_version: task.task.phase_version,
        deadline: task.timer.map(|timer| convert::timestamp(timer.at())),
        work: Some(work),
    })
}

/// The oldest threads that fit; the others stay open, and are the next round's.
fn fitting(threads: Vec<Thread>) -> Vec<ReviewThread> {
    let mut size = 0;
    threads
        .into_iter()
        .take(THREADS)
        .take_while(|thread| {
            size += thread.body.len() + thread.path.len() + FRAME;
            size <= WORDS
        })
        .map(|thread| ReviewThread {
            kind: if thread.is_review {
                ReviewThreadKind::Review
            } else {
                ReviewThreadKind::Comment
            }
            .into(),
            id: thread.id,
            newest: thread.newest,
            author: thread.author,
            path: thread.path,
            line: thread.line,
            text: thread.body,
        })
        .collect()
}

/// Turns of mending that it may take: as many as a person allowed, or policy.
fn turns(task: &TaskRow) -> u32 {
    let allowed = task.task.ci_allowed;
    allowed.unwrap_or_else(|| task.limits().max_ci_attempts)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use prost::Message;

    use super::*;
    use crate::{
        dispatch::tests::{queued, sql},
        testing,
    };

    fn words(count: i64, text: &str) -> Vec<Word> {
        let word = |second| Word {
            question: String::new(),
            text: format!("{second} {text}"),
            assumed: false,
            at: Timestamp::from_second(second).unwrap(),
        };
        (0..count).map(word).collect()
    }

    #[tokio::test]
    async fn turns_of_mending_are_counted_up_to_what_a_person_allowed() {
        let store = testing::store().await;
        let task = queued(&store, "one", 0).await;
        for (allowed, shown) in [("NULL", (4, 3)), ("5", (4, 5))] {
            sql(
                &store,
                &format!(
                    "UPDATE task SET phase = 'fixing_ci', plan_revision = 1, plan_hash = 'h', plan_approved = true, \
                     ci_attempts = 4, ci_allowed = {allowed}"
                ),
            )
            .await;
            let row = store.task_for_link(task).await.unwrap().unwrap();
            let Some(Work::FixCi(work)) = assignment(&store, &row).await.unwrap().work else {
                panic!("it mends");
            };
            assert_eq!((work.attempt, work.max_attempts), shown);
        }
    }

    #[test]
    fn threads_that_do_not_fit_are_left_for_the_next_round() {
        let threads = |count: i64, body: &str| -> Vec<Thread> {
            let thread = |id| Thread {
                is_review: false,
                id,
                newest: id,
                author: "ada".to_owned(),
                path: "a.rs".to_owned(),
                line: 1,
                body: body.to_owned(),
            };
            (1..=count).map(thread).collect()
        };
        for (count, body, told) in [
            (3, "oil it".to_owned(), 3),
            (100, "oil it".to_owned(), THREADS),
            (100, "x".repeat(64 << 10), 3),
        ] {
            let fitting = fitting(threads(count, &body));
            assert_eq!(fitting.len(), told);
            assert_eq!(fitting[0].id, 1, "the oldest first");
        }
    }

    #[test]
    fn words_that_fit_are_all_told() {
        assert!(newest(&[]).is_empty());
        let told = newest(&words(3, "oil it"));
        let texts: Vec<&str> = told.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["0 oil it", "1 oil it", "2 oil it"]);
    }

    #[test]
    fn of_too_many_words_the_newest_are_told() {
        for (count, text) in [(1_000, "x".repeat(16 << 10)), (100_000, String::new())] {
            let told = newest(&words(count, &text));
            let last = told.last().unwrap();
            assert!(last.text.starts_with(&(count - 1).to_string()));
            let left_out = usize::try_from(count).unwrap() - (told.len() - 1);
            assert_eq!(
                told[0].text,
                format!("({left_out} older messages are left out.)")
            );
            assert!(told[1].text.starts_with(&left_out.to_string()));
            let welcome = Welcome {
                human_words: told,
                ..Welcome::default()
            };
            assert!(welcome.encoded_len() <= WORDS, "{}", welcome.encoded_len());
        }
    }
}
