//! An inbox item at the revision that the test has seen.

use std::sync::Arc;

use anyhow::{Context, Result};
use mainloop_proto::v1::{InboxAction, InboxItem, ResolveInboxItemRequest};
use tonic::{Code, Status};

use super::scene::Scene;

/// A gate that waited for a person when the test looked.
pub struct Item {
    /// As it was seen.
    pub seen: InboxItem,
    scene: Arc<Scene>,
}

impl Item {
    pub(super) fn new(scene: Arc<Scene>, seen: InboxItem) -> Self {
        Self { seen, scene }
    }

    /// Yes.
    pub async fn approve(&self) -> Result<()> {
        self.resolve(InboxAction::Approve, "").await
    }

    /// No.
    pub async fn reject(&self, why: &str) -> Result<()> {
        self.resolve(InboxAction::Reject, why).await
    }

    /// Not yet.
    pub async fn revise(&self, words: &str) -> Result<()> {
        self.resolve(InboxAction::Revise, words).await
    }

    /// These words are the answer.
    pub async fn answer(&self, words: &str) -> Result<()> {
        self.resolve(InboxAction::Answer, words).await
    }

    /// One answer for each question.
    pub async fn answer_each(&self, answers: Vec<String>) -> Result<()> {
        let request = ResolveInboxItemRequest {
            item_id: self.seen.id.clone(),
            revision: self.seen.revision,
            action: InboxAction::Answer.into(),
            text: String::new(),
            answers,
            ..ResolveInboxItemRequest::default()
        };
        let reply = self.scene.client.inbox().resolve_inbox_item(request).await;
        reply.with_context(|| format!("answer item {}\n{}", self.seen.id, self.scene.report()))?;
        Ok(())
    }

    /// Resolves it, and fails where the plane refuses.
    pub async fn resolve(&self, action: InboxAction, text: &str) -> Result<()> {
        self.try_resolve(action, text).await.with_context(|| {
            format!(
                "{} item {}@{}\n{}",
                action.as_str_name(),
                self.seen.id,
                self.seen.revision,
                self.scene.report()
            )
        })
    }

    /// Resolves it, or returns how the plane refused.
    pub async fn try_resolve(&self, action: InboxAction, text: &str) -> Result<(), Status> {
        let answers = if action == InboxAction::Answer && self.seen.questions.len() == 1 {
            vec![text.to_owned()]
        } else {
            Vec::new()
        };
        let request = ResolveInboxItemRequest {
            item_id: self.seen.id.clone(),
            revision: self.seen.revision,
            action: action.into(),
            text: if answers.is_empty() {
                text.to_owned()
            } else {
                String::new()
            },
            answers,
            ..ResolveInboxItemRequest::default()
        };
        self.scene
            .client
            .inbox()
            .resolve_inbox_item(request)
            .await?;
        Ok(())
    }

    /// Fails unless the plane refuses this with `code`.
    pub async fn expect_refusal(
        &self,
        action: InboxAction,
        text: &str,
        code: Code,
    ) -> Result<Status> {
        match self.try_resolve(action, text).await {
            Ok(()) => anyhow::bail!("{} of an item was taken, not refused", action.as_str_name()),
            Err(status) if status.code() == code => Ok(status),
            Err(status) => anyhow::bail!("refused with {status:?}, not with {code:?}"),
        }
    }
}
