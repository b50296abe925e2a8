//! The contract's JSON mapping, and the cleaning of whole messages, both by reflection on the compiled contract.

use std::{fmt::Write as _, sync::LazyLock};

use anyhow::{Context as _, anyhow};
use mainloop_proto::{DESCRIPTORS, v1};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

use crate::text;

/// A message of the contract, by its full name.
pub(crate) trait Wire: prost::Message + Default {
    const NAME: &'static str;
}

macro_rules! wire {
    ($($name:ident),* $(,)?) => {
        $(impl Wire for v1::$name {
            const NAME: &'static str = concat!("mainloop.v1.", stringify!($name));
        })*
        #[cfg(test)]
        const NAMES: &[&str] = &[$(<v1::$name as Wire>::NAME),*];
    };
}

wire![
    CancelTaskResponse,
    ConfirmTaskResponse,
    CreateTaskResponse,
    CreateTokenResponse,
    GetCallerResponse,
    GetInboxItemResponse,
    GetStatusResponse,
    GetTaskResponse,
    InboxItem,
    ResolveInboxItemResponse,
    RetryTaskResponse,
    RevokeTokenResponse,
    SayToTaskResponse,
    StreamTaskLogsResponse,
    Task,
    TaskEvent,
    Token,
    WatchInboxResponse,
    WatchTaskResponse,
];

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// One line of JSON. Hidden characters are kept, written as `\u` and their number: data stays whole and no terminal acts on it.
pub(crate) fn encode<M: Wire>(message: &M) -> anyhow::Result<String> {
    let json = serde_json::to_string(&dynamic(message)?)
        .with_context(|| format!("cannot write {} as JSON", M::NAME))?;
    Ok(escape_hidden(&json))
}

/// Fields whose text may have several lines; every other becomes one line, so that no title can look like a line of its own.
const PAGES: &[&str] = &[
    "body",
    "previous_body",
    "plan_text",
    "description",
    "summary",
    "text",
];

/// A copy in which every text has passed `text::sanitize`.
pub(crate) fn clean<M: Wire>(message: &M) -> anyhow::Result<M> {
    let mut dynamic = dynamic(message)?;
    clean_message(&mut dynamic);
    dynamic
        .transcode_to()
        .with_context(|| format!("cannot read {} again", M::NAME))
}

fn dynamic<M: Wire>(message: &M) -> anyhow::Result<DynamicMessage> {
    let mut dynamic = DynamicMessage::new(descriptor(M::NAME)?);
    dynamic
        .transcode_from(message)
        .with_context(|| format!("cannot read {} by its descriptor", M::NAME))?;
    Ok(dynamic)
}

fn descriptor(name: &str) -> anyhow::Result<MessageDescriptor> {
    POOL.as_ref()
        .and_then(|pool| pool.get_message_by_name(name))
        .ok_or_else(|| anyhow!("the contract has no message {name}"))
}

fn clean_message(message: &mut DynamicMessage) {
    for (field, value) in message.fields_mut() {
        clean_value(value, PAGES.contains(&field.name()));
    }
}

fn clean_value(value: &mut Value, page: bool) {
    match value {
        Value::String(text) if page => *text = text::sanitize(text),
        Value::String(text) => *text = text::one_line(text),
        Value::Message(message) => clean_message(message),
        Value::List(values) => values.iter_mut().for_each(|value| clean_value(value, page)),
        Value::Map(entries) => {
            *entries = entries
                .drain()
                .map(|(key, mut value)| {
                    clean_value(&mut value, false);
                    (clean_key(key), value)
                })
                .collect();
        }
        _ => {}
    }
}

fn clean_key(key: prost_reflect::MapKey) -> prost_reflect::MapKey {
    match key {
        prost_reflect::MapKey::String(key) => prost_reflect::MapKey::String(text::one_line(&key)),
        other => other,
    }
}

/// Characters outside ASCII occur in JSON only inside strings, where an escape means the same.
fn escape_hidden(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if !character.is_ascii() && text::is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_message_is_in_the_contract() {
        for name in NAMES {
            assert!(descriptor(name).is_ok(), "{name} is not in the contract");
        }
    }

    #[test]
    fn json_keeps_data_and_shows_nothing_hidden() {
        let task = v1::Task {
            title: "a\u{202e}b\u{1b}[2J\u{e0041}".to_owned(),
            cost_micros: 5,
            state: v1::TaskState::Ready.into(),
            ..v1::Task::default()
        };
        let json = encode(&task).unwrap();
        assert_eq!(
            json,
            r#"{"title":"a\u202eb\u001b[2J\udb40\udc41","costMicros":"5","state":"TASK_STATE_READY"}"#
        );
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["title"], task.title);
    }

    #[test]
    fn cleaning_reaches_nested_texts_lists_and_maps() {
        let dirty = "x\u{1b}[31m\u{202e}";
        let item = v1::InboxItem {
            body: format!("{dirty}\ny"),
            title: format!("{dirty}\ny"),
            task: Some(v1::Task {
                open_items: vec![dirty.to_owned()],
                labels: [(dirty.to_owned(), dirty.to_owned())].into(),
                ..v1::Task::default()
            }),
            ..v1::InboxItem::default()
        };
        let clean = clean(&item).unwrap();
        let task = clean.task.unwrap();
        assert_eq!(clean.body, "x\ny");
        assert_eq!(clean.title, "x y");
        assert_eq!(task.open_items, ["x"]);
        assert_eq!(task.labels.get("x").map(String::as_str), Some("x"));
    }
}
