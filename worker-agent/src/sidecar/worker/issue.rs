//! The task's issue, as people change it. Each kind of change is told once in an attempt, and none is followed: the plan
//! is what was stored, and only the inbox takes an answer.

use std::{collections::HashSet, time::Duration};

use mainloop_github::{Client, IssueNow, Marker, MarkerKind};
use mainloop_proto::v1::{IssueChange, IssueChanged, milestone::Fact};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Worker;

/// Changes that may wait to be told: there are three kinds.
const CHANGES: usize = 3;

/// What was told already.
pub(super) type Told = HashSet<IssueChange>;

/// Somebody looks at the issue until this is dropped.
pub(super) struct Watch {
    changes: mpsc::Receiver<IssueChange>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// The next change; never comes where none is to be expected any more.
    pub(super) async fn next(&mut self) -> IssueChange {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Worker {
    /// Tells what people did to the task's issue.
    pub(crate) fn issue_changed(&mut self, version: i64, change: IssueChange) {
        let Some(number) = self.issue_number() else {
            return;
        };
        if self.issue_told.insert(change) {
            let fact = IssueChanged {
                number: i32::try_from(number).unwrap_or(i32::MAX),
                change: change.into(),
            };
            self.link.note(version, Fact::IssueChanged(fact));
        }
    }

    /// The issue that a person named, else the planning issue that is there.
    pub(crate) fn issue_number(&self) -> Option<u64> {
        let number = match (self.task.issue_number, &self.task.issue) {
            (0, Some(issue)) => issue.number,
            (number, _) => number,
        };
        u64::try_from(number).ok().filter(|number| *number > 0)
    }

    /// Looks at the issue while the worker waits.
    pub(super) fn watch_issue(&self) -> Option<Watch> {
        let number = self.issue_number()?;
        let every = u64::try_from(self.policy.watch_seconds)
            .ok()
            .filter(|seconds| *seconds > 0)?;
        let ours = (self.task.issue_number == 0).then(|| self.marker(MarkerKind::Plan));
        let (changes, receiver) = mpsc::channel(CHANGES);
        let look = look(
            self.github.clone(),
            number,
            ours,
            Duration::from_secs(every),
            changes,
        );
        Some(Watch {
            changes: receiver,
            _task: AbortOnDropHandle::new(tokio::spawn(look)),
        })
    }
}

/// Ends when the issue is gone. What cannot be read is looked at again.
async fn look(
    github: Client,
    number: u64,
    ours: Option<Marker>,
    every: Duration,
    changes: mpsc::Sender<IssueChange>,
) {
    let mut tag = None;
    let mut first: Option<IssueNow> = None;
    let mut told = Told::new();
    loop {
        let mut seen = Vec::new();
        match github.issue_if_changed(number, tag.as_deref()).await {
            Ok(Some((now, new))) => {
                tag = new;
                if !now.open {
                    seen.push(IssueChange::Closed);
                }
                let edited = match &ours {
                    Some(marker) => marker.is_edited(&now.body),
                    None => first.as_ref().is_some_and(|first| {
                        (&first.title, &first.body) != (&now.title, &now.body)
                    }),
                };
                if edited {
                    seen.push(IssueChange::Edited);
                }
                first.get_or_insert(now);
            }
            Ok(None) => {}
            Err(error) if error.is_gone() => {
                let _ = changes.send(IssueChange::Gone).await;
                return;
            }
            Err(error) => tracing::debug!(%error, "could not look at the task's issue"),
        }
        for change in seen {
            if told.insert(change) && changes.send(change).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(every.max(github.quota().pause(1))).await;
    }
}
