//! `InboxService`: lists, shows, watches and resolves what needs a person.

use std::pin::Pin;

use futures_util::stream::try_unfold;
use mainloop_core::Choice;
use mainloop_proto::v1::{self, inbox_service_server::InboxService};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{
    Error, Scope, Shared, clean, convert, page_size, task::Rules, token, watch::InboxWatch, words,
};
use crate::db::{
    inbox::{Decision, ItemFilter, ItemRow, ItemState, Resolved},
    read::After,
};

/// Answers that one decision may carry: more than any question tool asks at once.
const MAX_ANSWERS: usize = 32;

/// Turns of mending that one decision may allow.
const MAX_ATTEMPTS: u32 = 100;

/// The service.
#[derive(Clone, Debug)]
pub struct Inbox {
    shared: Shared,
}

impl Inbox {
    /// The service over what all services share.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    async fn list(
        &self,
        request: Request<v1::ListInboxItemsRequest>,
    ) -> Result<v1::ListInboxItemsResponse, Error> {
        self.shared.caller(&request, Scope::Read)?;
        let request = request.into_inner();
        let limit = page_size(request.page_size, 50, 500)?;
        let (at, key) = if request.page_token.is_empty() {
            (After::start().at, String::new())
        } else {
            token::position(&request.page_token)?
        };
        let task = if request.task_id.is_empty() {
            None
        } else {
            Some(self.shared.named(&request.task_id).await?.task.id)
        };
        let filter = ItemFilter {
            closed: request.include_closed,
            task,
        };
        // One more than asked for says whether there is another page.
        let mut found = self
            .shared
            .store
            .list_items(&filter, (at, &key), limit + 1)
            .await?;
        let more = i64::try_from(found.len()).is_ok_and(|count| count > limit);
        if more {
            found.pop();
        }
        Ok(v1::ListInboxItemsResponse {
            next_page_token: found
                .last()
                .filter(|_| more)
                .map(|last| token::after(last.item.opened_at, &last.item.id))
                .unwrap_or_default(),
            items: found.iter().map(convert::item).collect(),
        })
    }

    async fn get(
        &self,
        request: Request<v1::GetInboxItemRequest>,
    ) -> Result<v1::GetInboxItemResponse, Error> {
        self.shared.caller(&request, Scope::Read)?;
        let name = clean(&request.into_inner().item_id);
        let (id, revision) = match name.split_once('@') {
            Some((id, revision)) => (
                id,
                Some(revision.parse::<i32>().map_err(|_| {
                    Error::invalid("item_id", "must be an id, or an id, `@` and a revision")
                })?),
            ),
            None => (name.as_str(), None),
        };
        if id.is_empty() {
            return Err(Error::invalid("item_id", "is required"));
        }
        let found = self
            .shared
            .store
            .item(id)
            .await?
            .ok_or_else(|| missing(id))?;
        let newest = found.item.revision;
        if revision.is_some_and(|revision| revision != newest) {
            return Err(Error::NotFound {
                what: format!("inbox item {name}: only the newest revision is kept, {id}@{newest}"),
            });
        }
        Ok(v1::GetInboxItemResponse {
            item: Some(convert::item(&found)),
        })
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveInboxItemRequest>,
    ) -> Result<v1::ResolveInboxItemResponse, Error> {
        let caller = self.shared.caller(&request, Scope::Approve)?;
        let decision = decision(&request.into_inner(), caller.name, &self.shared.rules)?;
        let resolved = self
            .shared
            .store
            .resolve_item(&decision, &self.shared.snapshot())
            .await?;
        let id = &decision.item;
        match resolved {
            Resolved::Done(item) => Ok(v1::ResolveInboxItemResponse {
                item: Some(convert::item(&item)),
            }),
            Resolved::Missing => Err(missing(id)),
            Resolved::OtherRevision(newest) => Err(Error::Aborted {
                message: format!(
                    "revision {} of inbox item {id} is not the newest: look at {id}@{newest} first",
                    decision.revision
                ),
            }),
            Resolved::Closed(item) => Err(Error::WrongState {
                message: closed(&item),
            }),
            Resolved::NotPossible(possible) => Err(Error::invalid(
                "action",
                format!(
                    "{} does not fit inbox item {id}: it takes {}",
                    decision.action.word(),
                    possible
                        .iter()
                        .map(|action| action.word())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            )),
            Resolved::WrongCount(asked) => Err(Error::invalid(
                "answers",
                format!(
                    "are {}, and {asked} questions were asked",
                    decision.answers.len()
                ),
            )),
            Resolved::Refused(rejected) => Err(Error::WrongState {
                message: rejected.to_string(),
            }),
        }
    }
}

fn missing(id: &str) -> Error {
    Error::NotFound {
        what: format!("inbox item {id}"),
    }
}

/// Why nothing can be done with an item any more.
fn closed(item: &ItemRow) -> String {
    match (item.state, item.action) {
        (ItemState::Resolved, Some(action)) => format!(
            "inbox item {} was resolved by {}: {}",
            item.id,
            item.actor,
            action.word()
        ),
        _ => format!(
            "inbox item {} is no longer asked: its task moved on or ended",
            item.id
        ),
    }
}

/// Checks a decision.
fn decision(
    request: &v1::ResolveInboxItemRequest,
    actor: String,
    rules: &Rules,
) -> Result<Decision, Error> {
    if request.item_id.is_empty() {
        return Err(Error::invalid("item_id", "is required"));
    }
    if request.revision < 1 {
        return Err(Error::invalid(
            "revision",
            "is required: the one that was seen",
        ));
    }
    let action = convert::to_choice(request.action())
        .ok_or_else(|| Error::invalid("action", "is required"))?;
    let text = words("text", request.text.trim())?;
    if request.answers.len() > MAX_ANSWERS {
        return Err(Error::invalid(
            "answers",
            format!(
                "are {}; at most {MAX_ANSWERS} are taken",
                request.answers.len()
            ),
        ));
    }
    let answers = request
        .answers
        .iter()
        .map(|answer| words("answers", answer.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    match action {
        Choice::Revise if text.is_empty() => {
            return Err(Error::invalid("text", "is required: what is to change"));
        }
        Choice::Answer if text.is_empty() && answers.iter().all(String::is_empty) => {
            return Err(Error::invalid(
                "text",
                "is required unless there are answers",
            ));
        }
        choice if choice != Choice::Answer && !answers.is_empty() => {
            return Err(Error::invalid("answers", "go with the action answer only"));
        }
        _ => {}
    }
    if request.attempts != 0 && action != Choice::MoreAttempts {
        return Err(Error::invalid(
            "attempts",
            "go with the action more_attempts only",
        ));
    }
    let attempts = u32::try_from(request.attempts)
        .ok()
        .filter(|attempts| *attempts <= MAX_ATTEMPTS)
        .ok_or_else(|| Error::invalid("attempts", format!("must be from 0 to {MAX_ATTEMPTS}")))?;
    if request.budget_micros != 0 && action != Choice::TopUp {
        return Err(Error::invalid(
            "budget_micros",
            "goes with the action top_up only",
        ));
    }
    let budget_micros = match request.budget_micros {
        0 => rules.default_budget_micros,
        micros if micros > 0 && micros <= rules.max_budget_micros => micros,
        _ => {
            return Err(Error::invalid(
                "budget_micros",
                format!(
                    "must be from 1 to {}, as policy says",
                    rules.max_budget_micros
                ),
            ));
        }
    };
    Ok(Decision {
        item: clean(&request.item_id),
        revision: request.revision,
        action,
        text,
        answers,
        attempts,
        budget_micros,
        actor,
    })
}

#[tonic::async_trait]
impl InboxService for Inbox {
    type WatchInboxStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchInboxResponse, Status>> + Send>>;

    async fn list_inbox_items(
        &self,
        request: Request<v1::ListInboxItemsRequest>,
    ) -> Result<Response<v1::ListInboxItemsResponse>, Status> {
        Ok(Response::new(self.list(request).await?))
    }

    async fn get_inbox_item(
        &self,
        request: Request<v1::GetInboxItemRequest>,
    ) -> Result<Response<v1::GetInboxItemResponse>, Status> {
        Ok(Response::new(self.get(request).await?))
    }

    async fn watch_inbox(
        &self,
        request: Request<v1::WatchInboxRequest>,
    ) -> Result<Response<Self::WatchInboxStream>, Status> {
        let reader = self.shared.caller(&request, Scope::Read)?;
        Ok(Response::new(Box::pin(try_unfold(
            InboxWatch::begin(&self.shared, reader),
            async |mut watch: InboxWatch| Ok(Some((watch.next().await?, watch))),
        ))))
    }

    async fn resolve_inbox_item(
        &self,
        request: Request<v1::ResolveInboxItemRequest>,
    ) -> Result<Response<v1::ResolveInboxItemResponse>, Status> {
        Ok(Response::new(self.resolve(request).await?))
    }
}
