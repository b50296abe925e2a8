//! Requests to the model. What passes is looked at again as a tree: nothing in it makes the model host act elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainloop_worker_agent::sidecar::proxy::model::fuzzing;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let models = ["claude-sonnet-5-5".to_owned(), "glm-*".to_owned()];
    let Ok((model, _)) = fuzzing::screen(body, &models) else {
        return;
    };
    assert!(model.starts_with("claude-sonnet-5-5") || model.starts_with("glm-"));
    // The API takes objects alone.
    let Ok(request @ Value::Object(_)) = serde_json::from_slice(body) else {
        return;
    };
    assert_eq!(request["model"], model.as_str());
    for connector in ["mcp_servers", "container"] {
        assert!(request[connector].is_null());
    }
    for tool in list(&request["tools"]) {
        is_the_clients(tool);
    }
    content(&request["system"]);
    for message in list(&request["messages"]) {
        content(&message["content"]);
    }
});

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_the_clients(tool: &Value) {
    let kind = tool["type"].as_str().unwrap_or("custom");
    assert!(
        !["web_", "code_execution", "mcp_toolset"]
            .iter()
            .any(|server| kind.starts_with(server)),
        "{tool} passed"
    );
}

fn content(value: &Value) {
    for block in list(value) {
        content(block);
    }
    if !value.is_object() {
        return;
    }
    assert!(value["type"] != "container_upload" && value["file_id"].is_null());
    let source = &value["source"];
    assert!(!matches!(source["type"].as_str(), Some("url" | "file")));
    assert!(source["url"].is_null() && source["file_id"].is_null());
    content(&source["content"]);
    content(&value["content"]);
    for added in list(&value["tools"]).iter().chain([&value["tool"]]) {
        if added["type"] == "tool_definition" {
            is_the_clients(&added["definition"]);
        } else if added.is_object() {
            is_the_clients(added);
        }
    }
}
