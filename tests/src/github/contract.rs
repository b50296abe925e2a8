//! GitHub's published OpenAPI description as a judge of every request and answer.
//!
//! The trimmed description is part of the binary; a schema is compiled when it is first needed, once per process.
//! `tests/scripts/trim-github-openapi.py` makes the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::{Draft, Registry, Validator};
use serde_json::{Value, json};

const URN: &str = "urn:github";

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../data/github-openapi.json"))
        .expect("the committed description is JSON")
});

static REGISTRY: LazyLock<Registry<'static>> = LazyLock::new(|| {
    let registry = Registry::new().draft(Draft::Draft4).add(URN, &*DESCRIPTION);
    registry
        .and_then(jsonschema::RegistryBuilder::prepare)
        .expect("the committed description resolves")
});

/// Compiled schemas by their pointer.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Pointer of each operation, by its id.
static OPERATIONS: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let mut found = HashMap::new();
    for (path, methods) in DESCRIPTION["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if let Some(id) = operation["operationId"].as_str() {
                found.insert(id, format!("/paths/{}/{method}", escape(path)));
            }
        }
    }
    found
});

/// A token of a JSON pointer.
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// What is wrong with a request, one line each: the operation, where, and what.
pub(super) fn request(
    operation: &str,
    query: &BTreeMap<String, String>,
    body: Option<&Value>,
) -> Vec<String> {
    let Some(pointer) = OPERATIONS.get(operation) else {
        return vec![format!("{operation}: not in GitHub's description")];
    };
    let mut wrong = query_problems(operation, pointer, query);
    let place = format!("{pointer}/requestBody");
    if let Some(described) = DESCRIPTION.pointer(&place) {
        let schema = format!("{place}/content/application~1json/schema");
        match body {
            Some(body) => wrong.extend(problems(&format!("{operation} request"), &schema, body)),
            None if described["required"] == true => {
                wrong.push(format!("{operation} request: a body is required"));
            }
            None => {}
        }
    }
    wrong
}

/// What is wrong with an answer. Statuses that the description leaves out are not judged, unless they say that all is well.
pub(super) fn response(operation: &str, status: u16, body: Option<&Value>) -> Vec<String> {
    let Some(pointer) = OPERATIONS.get(operation) else {
        return vec![format!("{operation}: not in GitHub's description")];
    };
    let who = format!("{operation} response {status}");
    let place = resolve(&format!("{pointer}/responses/{status}"));
    let Some(place) = place else {
        return if status < 300 {
            vec![format!("{who}: this status is not in the description")]
        } else {
            Vec::new()
        };
    };
    let schema = format!("{place}/content/application~1json/schema");
    match body {
        Some(body) if DESCRIPTION.pointer(&schema).is_some() => problems(&who, &schema, body),
        Some(_) if status < 300 => vec![format!("{who}: the description has no body here")],
        None if status < 300 && DESCRIPTION.pointer(&schema).is_some() => {
            vec![format!("{who}: a body is required")]
        }
        _ => Vec::new(),
    }
}

/// The pointer itself, or where its `$ref` leads.
fn resolve(pointer: &str) -> Option<String> {
    let node = DESCRIPTION.pointer(pointer)?;
    let target = node
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|target| target.strip_prefix('#'));
    Some(target.unwrap_or(pointer).to_owned())
}

fn query_problems(operation: &str, pointer: &str, query: &BTreeMap<String, String>) -> Vec<String> {
    let count = DESCRIPTION
        .pointer(&format!("{pointer}/parameters"))
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let places: Vec<String> = (0..count)
        .filter_map(|at| resolve(&format!("{pointer}/parameters/{at}")))
        .collect();
    let described: HashMap<&str, &String> = places
        .iter()
        .filter(|place| {
            DESCRIPTION
                .pointer(place)
                .is_some_and(|node| node["in"] == "query")
        })
        .filter_map(|place| Some((DESCRIPTION.pointer(place)?["name"].as_str()?, place)))
        .collect();
    let mut wrong = Vec::new();
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        let Some(place) = described.get(name.as_str()) else {
            wrong.push(format!(
                "{operation} request: no query parameter is called {name:?}"
            ));
            continue;
        };
        let schema = format!("{place}/schema");
        let kind = DESCRIPTION
            .pointer(&schema)
            .and_then(|schema| schema["type"].as_str())
            .unwrap_or("string");
        let value = match kind {
            "integer" | "number" => value
                .parse::<i64>()
                .map_or_else(|_| json!(value), |number| json!(number)),
            "boolean" => value
                .parse::<bool>()
                .map_or_else(|_| json!(value), |truth| json!(truth)),
            _ => json!(value),
        };
        wrong.extend(problems(
            &format!("{operation} request query {name}"),
            &schema,
            &value,
        ));
    }
    wrong
}

fn problems(who: &str, schema: &str, value: &Value) -> Vec<String> {
    let validator = compiled(schema);
    validator
        .iter_errors(value)
        .map(|error| format!("{who} at {:?}: {error}", error.instance_path().to_string()))
        .collect()
}

fn compiled(pointer: &str) -> Arc<Validator> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let build = || {
        // A fragment is part of a URI: the braces of path templates do not belong there as they are.
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        let schema = json!({"$ref": format!("{URN}#{fragment}")});
        let validator = jsonschema::options()
            .with_draft(Draft::Draft4)
            .with_registry(&REGISTRY)
            .build(&schema);
        Arc::new(validator.unwrap_or_else(|error| {
            panic!("compile {pointer} of the committed description: {error}")
        }))
    };
    compiled
        .entry(pointer.to_owned())
        .or_insert_with(build)
        .clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rest;
    use super::*;

    #[test]
    fn every_operation_of_the_table_is_github_s() {
        for operation in rest::operations() {
            let pointer = OPERATIONS
                .get(operation.id)
                .unwrap_or_else(|| panic!("{} is not described", operation.id));
            // GitHub takes a comparison's two sides for one segment; the table has them as one parameter.
            let path = operation
                .path
                .replace("*}", "}")
                .replace("{basehead}", "{base}...{head}");
            let expected = format!(
                "/paths/{}/{}",
                escape(&path),
                operation.method.to_lowercase()
            );
            assert_eq!(*pointer, expected, "{}", operation.id);
        }
    }

    #[test]
    fn every_schema_compiles() {
        for pointer in OPERATIONS.values() {
            let body = format!("{pointer}/requestBody/content/application~1json/schema");
            let responses = DESCRIPTION
                .pointer(&format!("{pointer}/responses"))
                .unwrap()
                .as_object()
                .unwrap();
            let bodies = responses
                .keys()
                .filter_map(|status| resolve(&format!("{pointer}/responses/{status}")));
            let schemas = bodies
                .map(|place| format!("{place}/content/application~1json/schema"))
                .chain([body]);
            for schema in schemas.filter(|schema| DESCRIPTION.pointer(schema).is_some()) {
                compiled(&schema);
            }
        }
    }

    #[test]
    fn wrong_requests_and_answers_are_named() {
        let none = BTreeMap::new();
        let wrong = request("issues/create", &none, Some(&json!({"titel": "x"})));
        assert_eq!(
            wrong,
            [r#"issues/create request at "": "title" is a required property"#]
        );
        assert_eq!(
            request("issues/create", &none, Some(&json!({"title": "x"}))),
            Vec::<String>::new()
        );
        assert_eq!(
            request("issues/create", &none, None),
            ["issues/create request: a body is required"]
        );
        let query = BTreeMap::from([
            ("per_page".to_owned(), "many".to_owned()),
            ("stat".to_owned(), "open".to_owned()),
        ]);
        let wrong = request("issues/list-for-repo", &query, None);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        let wrong = response(
            "git/get-ref",
            200,
            Some(&json!({"ref": "refs/heads/main", "node_id": "x", "url": "u:r"})),
        );
        assert_eq!(
            wrong,
            [r#"git/get-ref response 200 at "": "object" is a required property"#]
        );
    }
}
