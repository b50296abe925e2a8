//! A script: which conversation a request belongs to, and what the model says next in it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::reply::Reply;
use super::request::Request;
use super::when::When;

/// What a server plays. Conversations are tried in order; the first whose condition holds answers.
#[derive(Default)]
pub struct Script {
    pub(super) conversations: Vec<Conversation>,
    pub(super) credentials: Vec<Credential>,
    pub(super) pace: Option<Duration>,
}

/// A credential that the server accepts.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Sent as `x-api-key`.
    ApiKey(String),
    /// A subscription's token: `authorization: Bearer` with the beta `oauth-2025-04-20`.
    OAuth(String),
    /// A gateway's token: `authorization: Bearer`.
    Bearer(String),
}

/// What the model says to the requests that a condition picks.
pub struct Conversation {
    pub(super) name: String,
    pub(super) when: When,
    mind: Mind,
}

enum Mind {
    /// Replies in order; the number given so far, for each session.
    Turns(Vec<Reply>, Mutex<HashMap<String, usize>>),
    Rules(Vec<Rule>),
}

/// One rule of a conversation that decides from the request alone.
pub struct Rule {
    when: When,
    replies: Vec<Reply>,
}

impl Script {
    /// A script that accepts any credential and knows no conversation yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a conversation.
    #[must_use]
    pub fn with(mut self, conversation: Conversation) -> Self {
        self.conversations.push(conversation);
        self
    }

    /// Accepts only the credentials given this way; without any, every credential will do.
    #[must_use]
    pub fn accepting(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Waits this long before each event of a stream: for people who watch, not for tests.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = Some(pace);
        self
    }

    /// The reply to `request`, with the name of its conversation; or in words why there is none.
    pub(super) fn choose(&self, request: &Request) -> (Option<String>, Result<Reply, String>) {
        let conversation = self
            .conversations
            .iter()
            .find(|conversation| conversation.when.holds(request));
        match conversation {
            None => (
                None,
                Err(format!(
                    "no conversation for the prompt {:?}",
                    shorten(request.prompt())
                )),
            ),
            Some(conversation) => (
                Some(conversation.name.clone()),
                conversation.reply(request).ok_or_else(|| {
                    format!(
                        "conversation {:?} has no reply to the prompt {:?} after {} replies; new results: {:?}",
                        conversation.name,
                        shorten(request.prompt()),
                        request.replies(),
                        request
                            .outcomes()
                            .iter()
                            .map(|outcome| (outcome.tool.as_str(), shorten(&outcome.text)))
                            .collect::<Vec<_>>(),
                    )
                }),
            ),
        }
    }

    /// Counts a reply as given.
    pub(super) fn advance(&self, conversation: &str, session: &str) {
        let conversation = self
            .conversations
            .iter()
            .find(|candidate| candidate.name == conversation);
        if let Some(Mind::Turns(_, given)) = conversation.map(|conversation| &conversation.mind) {
            let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
            *given.entry(session.to_owned()).or_default() += 1;
        }
    }
}

impl Conversation {
    /// Plays `replies` in order, from the start in each session. A reply that meets trouble is tried again.
    /// `name` is for failed assertions and must be the script's only one of that name.
    pub fn turns(name: &str, when: When, replies: Vec<Reply>) -> Self {
        Self {
            name: name.to_owned(),
            when,
            mind: Mind::Turns(replies, Mutex::default()),
        }
    }

    /// Answers by the first of `rules` that holds, from the request alone.
    pub fn rules(name: &str, when: When, rules: Vec<Rule>) -> Self {
        Self {
            name: name.to_owned(),
            when,
            mind: Mind::Rules(rules),
        }
    }

    fn reply(&self, request: &Request) -> Option<Reply> {
        match &self.mind {
            Mind::Turns(replies, given) => {
                let given = given.lock().unwrap_or_else(PoisonError::into_inner);
                let next = given.get(request.session()).copied().unwrap_or(0);
                replies.get(next).cloned()
            }
            Mind::Rules(rules) => {
                let rule = rules.iter().find(|rule| rule.when.holds(request))?;
                let next = request.replies().min(rule.replies.len().checked_sub(1)?);
                rule.replies.get(next).cloned()
            }
        }
    }
}

impl Rule {
    /// Where `when` holds, always this.
    pub fn reply(when: When, reply: Reply) -> Self {
        Self::sequence(when, vec![reply])
    }

    /// Where `when` holds, the reply whose number is that of the assistant messages since the last prompt:
    /// the steps of one turn, decided from the request alone. After the last one, the last one again.
    pub fn sequence(when: When, replies: Vec<Reply>) -> Self {
        Self { when, replies }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
