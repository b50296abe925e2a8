//! The check of a proposal: all that is wrong with it is said at once, field by field.

use std::collections::BTreeMap;

use mainloop_proto::v1::CreateTaskRequest;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::Rules;
use crate::policy;
use crate::{db::create::Proposal, rpc::Error};

/// A description, in bytes.
const MAX_DESCRIPTION: usize = 32 * 1024;
/// A title, in characters.
const MAX_TITLE: usize = 120;
/// A branch's name, in bytes.
const MAX_REF: usize = 200;
/// Labels of one task.
const MAX_LABELS: usize = 32;
/// A label's key or value, in characters.
const MAX_LABEL: usize = 63;

/// A repository that tasks may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    /// `https://host/owner/name`.
    pub url: String,
    /// Account or organisation.
    pub owner: String,
    /// Name without `.git`.
    pub name: String,
}

/// What is wrong, collected.
#[derive(Default)]
struct Violations(Vec<(String, String)>);

impl Violations {
    fn add(&mut self, field: &str, reason: impl Into<String>) {
        self.0.push((field.to_owned(), reason.into()));
    }

    /// The value, or its default and a violation.
    fn take<T: Default>(&mut self, field: &str, result: Result<T, String>) -> T {
        result.unwrap_or_else(|reason| {
            self.add(field, reason);
            T::default()
        })
    }
}

/// Checks a request and fills in what it leaves to the rules.
pub(super) fn check(
    rules: &Rules,
    request: CreateTaskRequest,
    created_by: String,
) -> Result<Proposal, Error> {
    let mut violations = Violations::default();
    let request_hash = hash(&request);
    let request_id = violations.take("request_id", request_id(&request.request_id));
    let repository = match repository(rules, &request.repository_url) {
        Ok(repository) => Some(repository),
        Err(reason) => {
            violations.add("repository_url", reason);
            None
        }
    };
    let base_ref = violations.take("base_ref", base_ref(&request.base_ref));
    if request.issue_number < 0 {
        violations.add("issue_number", "must not be negative");
    }
    let description = request.description.replace('\0', "\u{fffd}");
    if description.len() > MAX_DESCRIPTION {
        violations.add(
            "description",
            format!(
                "is {} bytes long; at most {MAX_DESCRIPTION} are taken",
                description.len()
            ),
        );
    } else if description.trim().is_empty() && request.issue_number == 0 {
        violations.add("description", "is required unless an issue is given");
    }
    let title = violations.take(
        "title",
        title(&request.title, &description, request.issue_number),
    );
    let model = violations.take("model", model(rules, &request.model));
    if !(-100..=100).contains(&request.priority) {
        violations.add("priority", "must be from -100 to 100");
    }
    for reason in label_faults(&request) {
        violations.add("labels", reason);
    }
    let budget_micros = violations.take("budget_micros", budget(rules, request.budget_micros));
    let Some(repository) = repository.filter(|_| violations.0.is_empty()) else {
        return Err(Error::Invalid {
            violations: violations.0,
        });
    };
    Ok(Proposal {
        request_id,
        request_hash,
        created_by,
        repository_url: repository.url,
        owner: repository.owner,
        name: repository.name,
        base_ref,
        issue_number: request.issue_number,
        title,
        description,
        model,
        priority: request.priority,
        labels: json!(request.labels.into_iter().collect::<BTreeMap<_, _>>()),
        budget_micros,
        confirm: request.confirm,
    })
}

/// The id that a client gave, or a random one.
pub(super) fn request_id(text: &str) -> Result<Uuid, String> {
    if text.is_empty() {
        return Ok(Uuid::new_v4());
    }
    Uuid::try_parse(text).map_err(|_| "is no UUID".to_owned())
}

/// The repository that a URL names, on the code host that tasks may name.
pub(super) fn repository(rules: &Rules, text: &str) -> Result<Repository, String> {
    let host = rules.code_host.as_str().trim_end_matches('/');
    if text.is_empty() {
        return Err(format!("is required, such as {host}/owner/name"));
    }
    let url =
        Url::parse(text).map_err(|_| format!("is no URL: it must look like {host}/owner/name"))?;
    if url.scheme() != rules.code_host.scheme() {
        return Err(format!(
            "has the scheme `{}`; only `{}` is taken",
            url.scheme(),
            rules.code_host.scheme()
        ));
    }
    if url.host() != rules.code_host.host()
        || url.port_or_known_default() != rules.code_host.port_or_known_default()
    {
        return Err(format!("is not on {host}, which this plane works with"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a credential".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the repository's name".to_owned());
    }
    let base = rules.code_host.path().trim_end_matches('/');
    let path = url
        .path()
        .strip_prefix(base)
        .and_then(|path| path.strip_prefix('/'))
        .map(|path| path.trim_end_matches('/'))
        .unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let &[owner, name] = parts.as_slice() else {
        return Err(format!("must look like {host}/owner/name"));
    };
    let name = name.strip_suffix(".git").unwrap_or(name);
    if !is_name(owner) || !is_name(name) {
        return Err(format!("must look like {host}/owner/name"));
    }
    let url = format!("{host}/{owner}/{name}");
    if !policy::allows_repository(&rules.repositories, owner, name) {
        return Err("is not among the repositories that the policy lists".to_owned());
    }
    Ok(Repository {
        owner: owner.to_owned(),
        name: name.to_owned(),
        url,
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'))
}

/// The rules of `git check-ref-format`, a little stricter.
fn base_ref(name: &str) -> Result<String, String> {
    let name = name.strip_prefix("refs/heads/").unwrap_or(name);
    if name.is_empty() {
        return Ok(String::new());
    }
    let bad = name.len() > MAX_REF
        || name.starts_with(['-', '/'])
        || name.ends_with(['/', '.'])
        || name.contains("..")
        || name.contains("//")
        || name.contains("@{")
        || name.split('/').any(|part| {
            part.starts_with('.')
                || std::path::Path::new(part)
                    .extension()
                    .is_some_and(|extension| extension == "lock")
        })
        || name.chars().any(|letter| {
            letter.is_control()
                || letter.is_whitespace()
                || matches!(letter, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
        });
    if bad {
        return Err("is no name of a branch".to_owned());
    }
    Ok(name.to_owned())
}

fn title(given: &str, description: &str, issue: i32) -> Result<String, String> {
    let given = given.trim();
    if given.chars().any(char::is_control) {
        return Err("must be one line".to_owned());
    }
    let length = given.chars().count();
    if length > MAX_TITLE {
        return Err(format!(
            "is {length} characters long; at most {MAX_TITLE} are taken"
        ));
    }
    if !given.is_empty() {
        return Ok(given.to_owned());
    }
    let first = description
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let Some(first) = first else {
        return Ok(format!("Work on #{issue}"));
    };
    let clean: String = first
        .chars()
        .filter(|letter| !letter.is_control())
        .collect();
    if clean.chars().count() <= MAX_TITLE {
        return Ok(clean);
    }
    let mut short: String = clean.chars().take(MAX_TITLE - 1).collect();
    short.push('…');
    Ok(short)
}

fn model(rules: &Rules, name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Ok(rules.default_model.clone());
    }
    if rules.models.iter().any(|model| model == name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "is `{}`, which the policy does not list; it lists {}",
        name.escape_debug(),
        rules.models.join(", ")
    ))
}

fn budget(rules: &Rules, micros: i64) -> Result<i64, String> {
    match micros {
        0 => Ok(rules.default_budget_micros),
        ..0 => Err("must not be negative".to_owned()),
        1.. if micros > rules.max_budget_micros => Err(format!(
            "is {micros}; the policy allows at most {}",
            rules.max_budget_micros
        )),
        1.. => Ok(micros),
    }
}

fn label_faults(request: &CreateTaskRequest) -> Vec<String> {
    let mut faults = Vec::new();
    if request.labels.len() > MAX_LABELS {
        faults.push(format!(
            "are {}; at most {MAX_LABELS} are taken",
            request.labels.len()
        ));
    }
    for (key, value) in &request.labels {
        let fits =
            |text: &str| text.chars().count() <= MAX_LABEL && !text.chars().any(char::is_control);
        if key.is_empty() || !fits(key) || !fits(value) {
            faults.push(format!(
                "hold `{}`: keys and values are one line of at most {MAX_LABEL} characters, keys not empty",
                key.chars().take(MAX_LABEL).collect::<String>().escape_debug()
            ));
        }
    }
    faults
}

/// The same for the same request, whatever the order of its labels.
fn hash(request: &CreateTaskRequest) -> Vec<u8> {
    let content: Value = json!([
        request.repository_url,
        request.base_ref,
        request.issue_number,
        request.title,
        request.description,
        request.model,
        request.priority,
        request.labels.iter().collect::<BTreeMap<_, _>>(),
        request.budget_micros,
        request.confirm,
    ]);
    crate::ids::hash(&content.to_string())
}
