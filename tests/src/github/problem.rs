//! GitHub's error answers, worded as GitHub words them.

use http::StatusCode;
use serde_json::{Value, json};

/// A refused request. Git's own failures are the emulator's fault and become 500.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) errors: Vec<Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            errors: Vec::new(),
        }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    pub(super) fn bad_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Bad credentials")
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 422 with one error that has words of its own.
    pub(super) fn custom(resource: &str, message: impl Into<String>) -> Self {
        let error = json!({"resource": resource, "code": "custom", "message": message.into()});
        Self::validation(vec![error])
    }

    /// 422 with one error about a field: `missing_field`, `invalid`, `already_exists`.
    pub(super) fn field(resource: &str, field: &str, code: &str) -> Self {
        Self::validation(vec![
            json!({"resource": resource, "field": field, "code": code}),
        ])
    }

    pub(super) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    fn validation(errors: Vec<Value>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: "Validation Failed".into(),
            errors,
        }
    }

    pub(super) fn body(&self, operation: Option<&str>) -> Value {
        let page = operation.map_or_else(String::new, |id| {
            let (group, name) = id.split_once('/').unwrap_or((id, ""));
            format!("/{group}/{group}#{name}")
        });
        let mut body = json!({
            "message": self.message,
            "documentation_url": format!("https://docs.github.com/rest{page}"),
            "status": self.status.as_str(),
        });
        if !self.errors.is_empty() {
            body["errors"] = Value::Array(self.errors.clone());
        }
        body
    }
}

impl From<super::git::GitError> for Problem {
    fn from(error: super::git::GitError) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("emulator: {error}"),
        )
    }
}
