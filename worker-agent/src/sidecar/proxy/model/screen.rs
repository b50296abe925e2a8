//! Which requests may go to the model host.
//!
//! Reads a request body once, without building a tree of it, and finds everything that would make the model host act
//! on the network or on files of the account: connectors, containers, URL and file sources, tools that run on the
//! server, and tools of that kind that arrive in the middle of the conversation. It never changes a body.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What the meter needs to know about a request that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Screened {
    /// The model as the request names it.
    pub(super) model: String,
    /// The most output tokens that it asks for.
    pub(super) max_tokens: u64,
    /// Whether it asks for a stream.
    pub(super) stream: bool,
}

/// Tool types that the client runs itself, or that only look tools up among those that the client sent.
const CLIENT_TOOLS: [&str; 5] = [
    "bash_",
    "text_editor_",
    "memory_",
    "computer_",
    "tool_search_tool_",
];

/// Checks a body against the policy; the error is the reason, for people.
pub(super) fn screen(body: &[u8], models: &[String]) -> Result<Screened, String> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|e| format!("the request is not a Messages API request: {e}"))?;
    if request.mcp_servers.is_some() {
        return Err("mcp_servers are not allowed: the model host would call them".into());
    }
    if request.container.is_some() {
        return Err("container is not allowed: code would run at the model host".into());
    }
    if let Some(speed) = request.speed.filter(|speed| speed != "standard") {
        return Err(format!(
            "speed {speed:?} is not allowed: it is not in the price table"
        ));
    }
    if request.inference_geo.is_some_and(|geo| geo != "global") {
        return Err("inference_geo is not allowed: it is not in the price table".into());
    }
    for tool in request.tools.unwrap_or_default() {
        tool.check()?;
    }
    for content in [request.system]
        .into_iter()
        .flatten()
        .chain(request.messages.into_iter().filter_map(|m| m.content))
    {
        if let Some(reason) = content.0 {
            return Err(reason);
        }
    }
    if !models
        .iter()
        .any(|pattern| matches(pattern, &request.model))
    {
        return Err(format!(
            "model {:?} is not on the policy's list",
            super::super::event::clip(&request.model)
        ));
    }
    Ok(Screened {
        model: request.model,
        max_tokens: request.max_tokens.unwrap_or(0),
        stream: request.stream.unwrap_or(false),
    })
}

/// A pattern is a whole name, a name whose dated releases pass too (`name-20260101`), or ends in `*`.
fn matches(pattern: &str, model: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        return model.starts_with(prefix);
    }
    match model.strip_prefix(pattern) {
        Some("") => true,
        Some(rest) => {
            rest.len() == 9
                && rest.starts_with('-')
                && rest.bytes().skip(1).all(|byte| byte.is_ascii_digit())
        }
        None => false,
    }
}

#[derive(Deserialize)]
struct Request {
    model: String,
    max_tokens: Option<u64>,
    stream: Option<bool>,
    #[serde(default)]
    messages: Vec<Message>,
    system: Option<Content>,
    tools: Option<Vec<Tool>>,
    mcp_servers: Option<IgnoredAny>,
    container: Option<IgnoredAny>,
    speed: Option<String>,
    inference_geo: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Tool {
    fn check(&self) -> Result<(), String> {
        match self.kind.as_deref() {
            None | Some("custom") => Ok(()),
            Some(kind) if CLIENT_TOOLS.iter().any(|prefix| kind.starts_with(prefix)) => Ok(()),
            Some(kind) => Err(format!(
                "tool type {:?} is not allowed: it runs at the model host",
                super::super::event::clip(kind)
            )),
        }
    }
}

/// The first thing wrong with a text, a block or a list of blocks. Everything else in it is skipped over.
struct Content(Option<String>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or content blocks")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Content, E> {
        Ok(Content(None))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut found = None;
        while let Some(Content(reason)) = seq.next_element()? {
            found = found.or(reason);
        }
        Ok(Content(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
        let block = Block::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Content(block.wrong()))
    }
}

/// A content block. `input` of a tool call is data of the client and is not looked into.
#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<Source>,
    content: Option<Content>,
    tool: Option<AddedTool>,
    tools: Option<Vec<AddedTool>>,
    file_id: Option<IgnoredAny>,
}

impl Block {
    fn wrong(self) -> Option<String> {
        if self.kind.as_deref() == Some("container_upload") || self.file_id.is_some() {
            return Some("files of the account are not allowed in a request".into());
        }
        let citation = self.kind.as_deref() == Some("search_result");
        self.source
            .and_then(|source| source.wrong(citation))
            .or_else(|| self.content.and_then(|content| content.0))
            .or_else(|| {
                self.tool
                    .into_iter()
                    .chain(self.tools.unwrap_or_default())
                    .find_map(AddedTool::wrong)
            })
    }
}

/// A tool that is named or defined by a block in the middle of the conversation.
#[derive(Deserialize)]
struct AddedTool {
    #[serde(rename = "type")]
    kind: Option<String>,
    definition: Option<Tool>,
}

impl AddedTool {
    fn wrong(self) -> Option<String> {
        match self.kind.as_deref() {
            Some("tool_reference") => None,
            Some("tool_definition") => match self.definition {
                Some(definition) => definition.check().err(),
                None => Some("a tool_definition without a definition is not allowed".into()),
            },
            _ => Tool { kind: self.kind }.check().err(),
        }
    }
}

enum Source {
    /// Where a search result came from: shown, never fetched.
    Label,
    Object(SourceObject),
}

#[derive(Deserialize)]
struct SourceObject {
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<Content>,
    url: Option<IgnoredAny>,
    file_id: Option<IgnoredAny>,
}

impl Source {
    fn wrong(self, citation: bool) -> Option<String> {
        let Self::Object(source) = self else {
            return (!citation).then(|| "a source must be an object".into());
        };
        match source.kind.as_deref() {
            Some("base64" | "text" | "content")
                if source.url.is_none() && source.file_id.is_none() =>
            {
                source.content.and_then(|content| content.0)
            }
            kind => Some(format!(
                "source type {:?} is not allowed: content must be in the request itself",
                super::super::event::clip(kind.unwrap_or_default())
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourceVisitor;
        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<Source, E> {
                Ok(Source::Label)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                SourceObject::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(Source::Object)
            }
        }
        deserializer.deserialize_any(SourceVisitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
    use serde_json::{Value, json};

    use super::*;

    fn check(extra: &Value) -> Result<Screened, String> {
        let mut body = json!({"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": []});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        screen(
            body.to_string().as_bytes(),
            &["claude-sonnet-5-5".into(), "glm-*".into()],
        )
    }

    fn block(block: Value) -> Value {
        json!({"messages": [{"role": "user", "content": [block]}]})
    }

    #[test]
    fn what_the_cli_sends_passes() {
        for extra in [
            json!({}),
            json!({"model": "claude-sonnet-5-5-20260901"}),
            json!({"model": "glm-6"}),
            json!({"messages": [{"role": "system", "content": "text"}, {"role": "user", "content": null}]}),
            json!({"tools": [
                {"name": "Bash", "input_schema": {"type": "object"}},
                {"name": "DeferredToolPlaceholder", "input_schema": {}, "defer_loading": true},
                {"type": "custom", "name": "x", "input_schema": {}},
                {"type": "bash_20250124", "name": "bash"},
                {"type": "text_editor_20250728", "name": "e"},
                {"type": "tool_search_tool_regex_20251119", "name": "s"},
            ]}),
            block(json!({"type": "text", "text": "see {\"source\":{\"type\":\"url\"}}"})),
            block(
                json!({"type": "tool_use", "id": "t", "name": "n", "input": {"source": {"type": "url"}, "file_id": 1}}),
            ),
            block(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}}),
            ),
            block(
                json!({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "t"}]}}),
            ),
            block(
                json!({"type": "search_result", "source": "https://x", "title": "t", "content": []}),
            ),
            block(
                json!({"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Glob"}}),
            ),
            block(
                json!({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "Glob", "input_schema": {}}}}),
            ),
            block(
                json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "Glob"}]}),
            ),
        ] {
            assert!(
                check(&extra).is_ok(),
                "{extra} was refused: {:?}",
                check(&extra)
            );
        }
    }

    #[test]
    fn what_would_act_at_the_model_host_is_refused() {
        let url = json!({"type": "image", "source": {"type": "url", "url": "http://x"}});
        for (extra, word) in [
            (json!({"mcp_servers": []}), "mcp_servers"),
            (json!({"container": "c"}), "container"),
            (json!({"speed": "fast"}), "speed"),
            (json!({"inference_geo": "us"}), "inference_geo"),
            (json!({"model": "claude-opus-5-5"}), "policy"),
            (json!({"model": "claude-sonnet-5-5x"}), "policy"),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                "web_search",
            ),
            (
                json!({"tools": [{"type": "web_fetch_20250910", "name": "f"}]}),
                "web_fetch",
            ),
            (
                json!({"tools": [{"type": "code_execution_20250825", "name": "c"}]}),
                "code_execution",
            ),
            (
                json!({"tools": [{"type": "mcp_toolset", "mcp_server_name": "c"}]}),
                "mcp_toolset",
            ),
            (json!({"system": [url.clone()]}), "url"),
            (block(url.clone()), "url"),
            (
                block(
                    json!({"type": "image", "source": {"type": "base64", "data": "", "url": "http://x"}}),
                ),
                "base64",
            ),
            (
                block(json!({"type": "document", "source": {"type": "file", "file_id": "f"}})),
                "file",
            ),
            (
                block(json!({"type": "document", "source": "http://x"})),
                "object",
            ),
            (
                block(
                    json!({"type": "document", "source": {"type": "content", "content": [url.clone()]}}),
                ),
                "url",
            ),
            (
                block(json!({"type": "tool_result", "tool_use_id": "t", "content": [url]})),
                "url",
            ),
            (
                block(json!({"type": "container_upload", "file_id": "f"})),
                "files",
            ),
            (
                block(
                    json!({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": "web_search_20250305"}}}),
                ),
                "web_search",
            ),
            (
                block(json!({"type": "tool_addition", "tool": {"type": "web_fetch_20250910"}})),
                "web_fetch",
            ),
            (
                block(json!({"type": "tool_addition", "tools": [{"type": "mcp_toolset"}]})),
                "mcp_toolset",
            ),
        ] {
            let reason = check(&extra).expect_err(&extra.to_string());
            assert!(reason.contains(word), "{extra}: {reason}");
        }
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        for body in [
            r#"{"model":"claude-sonnet-5-5","model":"claude-opus-5-5","messages":[]}"#,
            r#"{"model":"claude-sonnet-5-5","messages":[],"messages":[]}"#,
            r#"{"model":"claude-sonnet-5-5","messages":[],"tools":[{"type":"custom","type":"web_search_x"}]}"#,
        ] {
            assert!(
                screen(body.as_bytes(), &["claude-sonnet-5-5".into()]).is_err(),
                "{body}"
            );
        }
    }
    #[test]
    fn a_null_connector_is_no_connector() {
        assert!(check(&json!({"mcp_servers": null, "container": null, "speed": null})).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = screen(&bytes, &[]);
        }
    }
}
