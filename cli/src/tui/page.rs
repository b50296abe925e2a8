//! The page of one item, and what can be decided on it.

use mainloop_proto::v1::{InboxAction, InboxItem, InboxItemState, ResolveInboxItemRequest};

/// An item that is looked at, from some line on.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) item: InboxItem,
    /// Cleaning the item took something away.
    pub(super) hides: bool,
    /// First line that is shown; drawing keeps it within the page.
    pub(super) scroll: usize,
}

impl Page {
    pub(super) fn new(item: InboxItem, hides: bool) -> Self {
        Self {
            item,
            hides,
            scroll: 0,
        }
    }

    /// True where the plane offers the action on the item.
    pub(super) fn can(&self, action: InboxAction) -> bool {
        self.item.state() == InboxItemState::Open
            && self.item.actions().any(|offered| offered == action)
    }

    pub(super) fn scroll(&mut self, lines: isize) {
        self.scroll = self.scroll.saturating_add_signed(lines);
    }

    /// The decision, for the revision that is on the screen.
    pub(super) fn request(
        &self,
        action: InboxAction,
        text: String,
        answers: Vec<String>,
    ) -> ResolveInboxItemRequest {
        ResolveInboxItemRequest {
            item_id: self.item.id.clone(),
            revision: self.item.revision,
            action: action.into(),
            text,
            answers,
            ..ResolveInboxItemRequest::default()
        }
    }
}
