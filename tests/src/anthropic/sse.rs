//! A message as the API sends it: a list of server-sent events, or one JSON body.

use serde_json::{Value, json};

use super::reply::{Message, Sent, Usage};

/// Characters in each delta, so that a text arrives in several.
const DELTA_LENGTH: usize = 40;

/// The events of a streamed message, in order.
pub(super) fn events(message: &Message) -> Vec<Value> {
    let mut events = vec![
        json!({"type": "message_start", "message": {
            "id": message.id, "type": "message", "role": "assistant", "model": message.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": usage(Usage { output: 1, ..message.usage }),
        }}),
        json!({"type": "ping"}),
    ];
    for (index, block) in message.blocks.iter().enumerate() {
        let delta =
            |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let (start, mut deltas) = match block {
            Sent::Text(text) => (
                json!({"type": "text", "text": ""}),
                parts(text)
                    .map(|part| delta(json!({"type": "text_delta", "text": part})))
                    .collect::<Vec<_>>(),
            ),
            Sent::Thinking(text) => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                parts(text)
                    .map(|part| delta(json!({"type": "thinking_delta", "thinking": part})))
                    .collect(),
            ),
            Sent::Call { id, name, input } => (
                json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                parts(&input.to_string())
                    .map(|part| delta(json!({"type": "input_json_delta", "partial_json": part})))
                    .collect(),
            ),
        };
        if matches!(block, Sent::Thinking(_)) {
            deltas.push(delta(
                json!({"type": "signature_delta", "signature": SIGNATURE}),
            ));
        }
        events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        events.append(&mut deltas);
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta",
        "delta": {"stop_reason": message.stop_reason, "stop_sequence": null},
        "usage": usage(message.usage)}));
    events.push(json!({"type": "message_stop"}));
    events
}

/// The same message as one body.
pub(super) fn body(message: &Message) -> Value {
    let content: Vec<Value> = message
        .blocks
        .iter()
        .map(|block| match block {
            Sent::Text(text) => json!({"type": "text", "text": text}),
            Sent::Thinking(text) => {
                json!({"type": "thinking", "thinking": text, "signature": SIGNATURE})
            }
            Sent::Call { id, name, input } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        })
        .collect();
    json!({
        "id": message.id, "type": "message", "role": "assistant", "model": message.model, "content": content,
        "stop_reason": message.stop_reason, "stop_sequence": null, "usage": usage(message.usage),
    })
}

/// One event on the wire.
pub(super) fn frame(event: &Value) -> String {
    let name = event["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {event}\n\n")
}

/// Nobody checks it here; the CLI sends it back as it is.
const SIGNATURE: &str = "c2NyaXB0ZWQ=";

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input, "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cache_read, "cache_creation_input_tokens": usage.cache_creation,
    })
}

fn parts(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let parts: Vec<String> = characters
        .chunks(DELTA_LENGTH)
        .map(|chunk| chunk.iter().collect())
        .collect();
    parts.into_iter()
}
