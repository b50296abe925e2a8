//! `AddressReview` and `Rebase`: what a pull request needs after it was ready.
//!
//! An answer goes out when what it speaks of is pushed, one to each thread, marked with what it answers. The base is
//! merged, never rebased upon: what reviewers have read stays as it is, and nothing is pushed with force.

use std::collections::BTreeMap;

use mainloop_github::{MarkerKind, text};
use mainloop_proto::v1::{
    AddressReviewWork, FailureReason, RebaseWork, ReviewThread, ReviewThreadKind, ThreadAnswered,
    milestone::Fact,
};

use super::{
    Failure,
    work::{NoPlan, publish, report, turn},
};
use crate::sidecar::{
    claude::prompts,
    worker::{PlanKeeper, Worker},
};

pub(super) async fn address_review(
    worker: &mut Worker,
    version: i64,
    work: &AddressReviewWork,
) -> Result<(), Failure> {
    let pull = worker.pull().await?;
    if worker.is_over(version, &pull).await {
        return Ok(());
    }
    if work.threads.is_empty() {
        // A worker that answered all of them ended before it could say that it was done.
        let (harness, _) = worker.work_tree().await?;
        let summary = worker.task.summary.clone();
        worker.allow_pushes();
        let summary = publish(worker, version, &harness, None, summary).await?;
        return report(worker, version, &harness, Some(work.sha.clone()), summary).await;
    }
    let task = worker.prompt_task(version, true).await?;
    let (harness, _) = worker.work_tree().await?;
    let mut answers = Answers::to(&work.threads);
    let prompt = prompts::address_review(
        &task,
        &work.plan,
        &threads(&work.threads),
        &prompts::Delimiter::random(),
    );
    let names = answers.names();
    let summary = turn(worker, version, &harness, &prompt, &names, &mut answers).await?;
    let summary = publish(worker, version, &harness, None, summary).await?;
    let changed = worker.head.as_deref() != Some(work.sha.as_str());
    for (index, thread) in work.threads.iter().enumerate() {
        let own = answers.given.remove(&name(index)).flatten();
        let answer = own.unwrap_or_else(|| plain(changed).to_owned());
        reply(worker, version, pull.number, thread, &answer).await?;
    }
    let before = Some(work.sha.clone());
    report(worker, version, &harness, before, summary).await
}

pub(super) async fn rebase(
    worker: &mut Worker,
    version: i64,
    work: &RebaseWork,
) -> Result<(), Failure> {
    let pull = worker.pull().await?;
    if worker.is_over(version, &pull).await {
        return Ok(());
    }
    let task = worker.prompt_task(version, true).await?;
    let (harness, _) = worker.work_tree().await?;
    let conflicts = harness.merge_base().await.map_err(Failure::git)?;
    let base = worker.base().await?.branch;
    if conflicts.is_empty() {
        worker.note(format!("{base} merges without a conflict"));
        worker.allow_pushes();
    } else {
        worker.note(format!("{base} conflicts in {}", conflicts.join(", ")));
        let prompt = prompts::rebase(&task, &work.plan, &conflicts, &prompts::Delimiter::random());
        turn(worker, version, &harness, &prompt, &[], &mut NoPlan).await?;
        let left = harness.merge_state().await.map_err(Failure::git)?;
        if !left.unresolved.is_empty() {
            return Err(unmerged(&format!(
                "not resolved: {}",
                left.unresolved.join(", ")
            )));
        }
    }
    let message = format!("Merge {base} into {}", worker.branch);
    let said = String::new();
    publish(worker, version, &harness, Some(message), said).await?;
    if !harness
        .merge_state()
        .await
        .map_err(Failure::git)?
        .contains_base
    {
        return Err(unmerged("the branch does not contain the base"));
    }
    // What the change is about has not changed.
    let summary = worker.task.summary.clone();
    report(worker, version, &harness, Some(work.sha.clone()), summary).await
}

fn unmerged(why: &str) -> Failure {
    Failure::new(
        FailureReason::Unmerged,
        format!("the merge was left unfinished: {}", text::visible(why)),
    )
}

/// Answers one thread, unless it is answered already, and reports it.
async fn reply(
    worker: &mut Worker,
    version: i64,
    number: u64,
    thread: &ReviewThread,
    answer: &str,
) -> Result<(), Failure> {
    let is_review = thread.kind() == ReviewThreadKind::Review;
    let body = text::review_answer(&text::Answer {
        answer,
        to: is_review.then_some(thread.author.as_str()),
        sha: worker.head.as_deref().unwrap_or_default(),
        task: &worker.task.short_id,
    });
    let (root, newest) = (id(thread.id), id(thread.newest));
    worker.link.writable().await;
    worker.renew();
    if is_review {
        let marker = worker.marker(MarkerKind::Review(newest));
        worker.github.ensure_comment(number, &marker, &body).await?;
    } else {
        let marker = worker.marker(MarkerKind::Reply(newest));
        let made = worker
            .github
            .ensure_reply(number, root, &marker, &body)
            .await?;
        if made.is_none() {
            worker.note(format!(
                "the review comment {root} is gone, and is not answered"
            ));
        }
    }
    let fact = ThreadAnswered {
        kind: thread.kind,
        id: thread.id,
        newest: thread.newest,
        text: answer.to_owned(),
    };
    worker.link.report(version, Fact::ThreadAnswered(fact));
    Ok(())
}

fn id(id: i64) -> u64 {
    u64::try_from(id).unwrap_or_default()
}

/// What a thread hears where Claude said nothing about it.
fn plain(changed: bool) -> &'static str {
    if changed {
        "Looked at with the others. The commits since the review are what was changed; there is nothing to add here."
    } else {
        "Looked at. Nothing was changed for it."
    }
}

/// What Claude calls a thread.
fn name(index: usize) -> String {
    format!("t{}", index + 1)
}

fn threads(threads: &[ReviewThread]) -> Vec<prompts::Thread> {
    threads
        .iter()
        .enumerate()
        .map(|(index, thread)| prompts::Thread {
            name: name(index),
            author: thread.author.clone(),
            place: match (thread.path.as_str(), thread.line) {
                ("", _) => "the pull request".to_owned(),
                (path, 0) => path.to_owned(),
                (path, line) => format!("{path} line {line}"),
            },
            text: thread.text.clone(),
        })
        .collect()
}

/// What Claude answers, by the name of the thread. The last answer counts.
struct Answers {
    given: BTreeMap<String, Option<String>>,
}

impl Answers {
    fn to(threads: &[ReviewThread]) -> Self {
        Self {
            given: (0..threads.len())
                .map(|index| (name(index), None))
                .collect(),
        }
    }

    fn names(&self) -> Vec<String> {
        self.given.keys().cloned().collect()
    }
}

impl PlanKeeper for Answers {
    async fn keep(&mut self, _: &mut Worker, _: String) -> Result<(), Failure> {
        Ok(())
    }

    fn answer(&mut self, thread: &str, text: String) {
        if let Some(answer) = self.given.get_mut(thread) {
            *answer = Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_to_a_thread_that_is_there_counts() {
        let mut answers = Answers::to(&[ReviewThread::default()]);
        for (thread, text) in [("t1", "first"), ("t2", "nobody asked"), ("t1", "last")] {
            answers.answer(thread, text.to_owned());
        }
        assert_eq!(answers.names(), ["t1"]);
        assert_eq!(answers.given["t1"].as_deref(), Some("last"));
    }

    #[test]
    fn a_thread_is_shown_with_its_place() {
        let of = |path: &str, line| {
            let thread = ReviewThread {
                path: path.to_owned(),
                line,
                ..ReviewThread::default()
            };
            threads(&[thread])[0].place.clone()
        };
        assert_eq!(of("", 0), "the pull request");
        assert_eq!(of("a.rs", 0), "a.rs");
        assert_eq!(of("a.rs", 7), "a.rs line 7");
    }
}
