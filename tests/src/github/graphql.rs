//! The few GraphQL operations that REST cannot do: marking a pull request ready and back, and asking who one is.
//!
//! Not a GraphQL engine: one operation per request, arguments inline or by variables; the answer holds the fields that
//! were asked for, and an unknown field is refused as GitHub refuses it.

use serde_json::{Map, Value, json};

use super::access::{Level, Scope, Token};
use super::site::Site;
use super::{changes, render};

/// Fields as they were asked for.
struct Field {
    name: String,
    alias: String,
    arguments: Value,
    fields: Vec<Field>,
}

pub(super) fn execute(site: &mut Site, token: &Token, body: &Value) -> Value {
    let query = body["query"].as_str().unwrap_or_default();
    let mut parser = Parser {
        tokens: tokens(query),
        at: 0,
        variables: &body["variables"],
    };
    let Some(fields) = parser.document() else {
        return json!({"errors": [{"message": "Parse error: the query is not understood", "locations": [{"line": 1, "column": 1}]}]});
    };
    let (mut data, mut errors) = (Map::new(), Vec::new());
    for field in &fields {
        match resolve(site, token, field)
            .and_then(|value| select(&value, &field.fields, &field.name))
        {
            Ok(value) => drop(data.insert(field.alias.clone(), value)),
            Err(mut error) => {
                data.insert(field.alias.clone(), Value::Null);
                if error.get("path").is_none() {
                    error["path"] = json!([field.alias]);
                }
                error["locations"] =
                    json!([{"line": 1, "column": query.find(&field.name).unwrap_or(0) + 1}]);
                errors.push(error);
            }
        }
    }
    // A query that does not fit the schema is refused as a whole, without data.
    if errors.iter().any(|error| error.get("extensions").is_some()) {
        return json!({"errors": errors});
    }
    if errors.is_empty() {
        json!({"data": data})
    } else {
        json!({"data": data, "errors": errors})
    }
}

fn undefined(name: &str, on: &str) -> Value {
    json!({"path": ["query", on, name], "extensions": {"code": "undefinedField", "typeName": on, "fieldName": name}, "message": format!("Field '{name}' doesn't exist on type '{on}'")})
}

fn resolve(site: &mut Site, token: &Token, field: &Field) -> Result<Value, Value> {
    match field.name.as_str() {
        "viewer" => Ok(
            json!({"__typename": "User", "login": token.login, "id": render::user(site, &token.login)["node_id"]}),
        ),
        "markPullRequestReadyForReview" => set_draft(site, token, field, false),
        "convertPullRequestToDraft" => set_draft(site, token, field, true),
        "node" => {
            let id = field.arguments["id"].as_str().unwrap_or_default();
            let (repo, number) = find(site, token, id)?;
            Ok(pull(site, &repo, number))
        }
        other => Err(undefined(other, "Query")),
    }
}

/// The repository and number of the pull request with that node id, if the token sees it.
fn find(site: &Site, token: &Token, id: &str) -> Result<(String, u64), Value> {
    let sees = |repo: &&super::site::Repo| {
        !repo.private || token.reaches(&repo.full_name()) && repo.role(&token.login).is_some()
    };
    let found = site.repos.values().filter(sees).find_map(|repo| {
        let pull = repo
            .pulls()
            .find(|(_, pull)| render::node_id("PR", pull.id) == id);
        pull.map(|(issue, _)| (repo.full_name(), issue.number))
    });
    found.ok_or_else(|| json!({"type": "NOT_FOUND", "message": format!("Could not resolve to a node with the global id of '{id}'")}))
}

fn set_draft(site: &mut Site, token: &Token, field: &Field, draft: bool) -> Result<Value, Value> {
    let input = &field.arguments["input"];
    let (name, number) = find(
        site,
        token,
        input["pullRequestId"].as_str().unwrap_or_default(),
    )?;
    let forbidden = || json!({"type": "FORBIDDEN", "message": token.refusal()});
    let repo = site.repo(&name).ok_or_else(forbidden)?;
    let author = repo
        .issues
        .get(&number)
        .is_some_and(|issue| issue.author == token.login);
    if token.level(Scope::PullRequests) < Level::Write
        || repo.archived
        || !(author || repo.can_push(&token.login))
    {
        return Err(forbidden());
    }
    let target = site
        .repos
        .get_mut(&name.to_lowercase())
        .and_then(|repo| repo.issues.get_mut(&number));
    let issue = target.ok_or_else(forbidden)?;
    let open = issue.open;
    let pull_request = issue.pull.as_mut().ok_or_else(forbidden)?;
    if !open {
        return Err(json!({"type": "UNPROCESSABLE", "message": "Pull request is closed"}));
    }
    if !draft && !pull_request.draft {
        return Err(
            json!({"type": "UNPROCESSABLE", "message": "Pull request is not in draft state"}),
        );
    }
    if draft && pull_request.draft {
        return Err(
            json!({"type": "UNPROCESSABLE", "message": "Pull request is already in draft state"}),
        );
    }
    changes::set_draft(site, &name, &token.login, number, draft)
        .map_err(|problem| json!({"type": "INTERNAL", "message": problem.message}))?;
    Ok(
        json!({"clientMutationId": input["clientMutationId"], "pullRequest": pull(site, &name, number)}),
    )
}

fn pull(site: &Site, name: &str, number: u64) -> Value {
    let Some((repo, issue, pull)) = site.repo(name).and_then(|repo| {
        repo.pull(number)
            .ok()
            .map(|(issue, pull)| (repo, issue, pull))
    }) else {
        return Value::Null;
    };
    let state = match (&pull.merged, issue.open) {
        (Some(_), _) => "MERGED",
        (None, true) => "OPEN",
        (None, false) => "CLOSED",
    };
    json!({
        "__typename": "PullRequest", "id": render::node_id("PR", pull.id), "number": number, "isDraft": pull.draft, "state": state, "title": issue.title,
        "body": issue.body, "url": render::issue_html(site, repo, issue), "headRefOid": pull.head_sha, "headRefName": pull.head, "baseRefName": pull.base,
        "merged": pull.merged.is_some(), "closed": !issue.open, "updatedAt": render::time(issue.updated_at),
    })
}

fn select(value: &Value, fields: &[Field], on: &str) -> Result<Value, Value> {
    let Some(object) = value.as_object().filter(|_| !fields.is_empty()) else {
        return Ok(value.clone());
    };
    let mut out = Map::new();
    for field in fields {
        if field.name == "..." {
            if let Value::Object(more) = select(value, &field.fields, on)? {
                out.extend(more);
            }
            continue;
        }
        let kind = object
            .get("__typename")
            .and_then(Value::as_str)
            .unwrap_or(on);
        let inner = object
            .get(&field.name)
            .ok_or_else(|| undefined(&field.name, kind))?;
        out.insert(
            field.alias.clone(),
            select(inner, &field.fields, &field.name)?,
        );
    }
    Ok(Value::Object(out))
}

fn tokens(query: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut chars = query.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() || c == ',' {
            continue;
        }
        let mut token = c.to_string();
        if c == '"' {
            while let Some(c) = chars.next() {
                if c == '\\' {
                    token.extend(chars.next());
                } else if c == '"' {
                    break;
                } else {
                    token.push(c);
                }
            }
        } else if c == '.' {
            while chars.peek() == Some(&'.') {
                token.extend(chars.next());
            }
        } else if c.is_alphanumeric() || c == '_' || c == '$' || c == '-' {
            while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                token.push(c);
            }
        }
        out.push(token);
    }
    out
}

struct Parser<'a> {
    tokens: Vec<String>,
    at: usize,
    variables: &'a Value,
}

impl Parser<'_> {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> Option<String> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek() == token;
        self.at += usize::from(found);
        found
    }

    /// The operation's own fields; its name, kind and variable declarations say nothing that is needed.
    fn document(&mut self) -> Option<Vec<Field>> {
        while self.peek() != "{" {
            self.next()?;
        }
        self.selection()
    }

    fn selection(&mut self) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        if !self.take("{") {
            return Some(fields);
        }
        while !self.take("}") {
            let mut name = self.next()?;
            if name == "..." {
                if self.take("on") {
                    self.next()?;
                }
                fields.push(Field {
                    alias: name.clone(),
                    name,
                    arguments: Value::Null,
                    fields: self.selection()?,
                });
                continue;
            }
            let alias = name.clone();
            if self.take(":") {
                name = self.next()?;
            }
            let mut arguments = Map::new();
            if self.take("(") {
                while !self.take(")") {
                    let key = self.next()?;
                    self.take(":").then_some(())?;
                    arguments.insert(key, self.value()?);
                }
            }
            fields.push(Field {
                name,
                alias,
                arguments: Value::Object(arguments),
                fields: self.selection()?,
            });
        }
        Some(fields)
    }

    fn value(&mut self) -> Option<Value> {
        let token = self.next()?;
        if let Some(variable) = token.strip_prefix('$') {
            return Some(self.variables[variable].clone());
        }
        if let Some(text) = token.strip_prefix('"') {
            return Some(text.into());
        }
        if token == "{" {
            let mut object = Map::new();
            while !self.take("}") {
                let key = self.next()?;
                self.take(":").then_some(())?;
                object.insert(key, self.value()?);
            }
            return Some(Value::Object(object));
        }
        Some(serde_json::from_str(&token).unwrap_or(Value::String(token)))
    }
}
