//! How a command ends: exit codes, the one line that says why not, and the hint on what to do next.

use std::{fmt, io, process::ExitCode};

use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{client::ConnectError, format, output::Output, text};

/// Exit codes, as the help documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command or its values are wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The credential may not.
    Denied = 4,
    /// The plane does not answer.
    Unreachable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failure that the CLI found itself.
#[derive(Debug, Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The values that were given cannot be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something did not work.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    /// What to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a call was about, so that its refusal can name it.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub(crate) struct Call {
    /// `show item k3f9@2`.
    what: String,
    /// Shown instead of the general hint.
    hint: Option<String>,
    #[source]
    status: Status,
}

impl Call {
    /// For `map_err`: keeps what was tried beside the refusal.
    pub(crate) fn failed(what: impl fmt::Display) -> impl FnOnce(Status) -> Self {
        let what = what.to_string();
        move |status| Self {
            what,
            hint: None,
            status,
        }
    }

    /// For `map_err`: with a hint for the case that the plane refuses.
    pub(crate) fn refused(
        what: impl fmt::Display,
        hint: impl Into<String>,
    ) -> impl FnOnce(Status) -> Self {
        let (what, hint) = (what.to_string(), hint.into());
        move |status| Self {
            hint: matches!(status.code(), Code::Aborted | Code::FailedPrecondition).then_some(hint),
            what,
            status,
        }
    }
}

/// Prints the error and turns it into the exit code. A closed pipe is no failure: who read has seen enough.
pub(crate) fn report(output: &Output, error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return Exit::Done.into();
    }
    let said = Said::of(error);
    output.error(&said.message);
    for detail in &said.details {
        output.error_detail(detail);
    }
    if let Some(hint) = &said.hint {
        output.hint(hint);
    }
    said.exit.into()
}

/// An error in the words that go to a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) details: Vec<String>,
    pub(crate) hint: Option<String>,
}

impl Said {
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let mut said = Self {
            exit: Exit::Failed,
            message: String::new(),
            details: Vec::new(),
            hint: None,
        };
        let mut words = Vec::new();
        for cause in error.chain() {
            if let Some(status) = cause.downcast_ref::<Status>() {
                words.push(message_of(status));
                said.exit = exit_of(status.code());
                said.details = details_of(status);
                said.hint = said.hint.or_else(|| hint_for(status));
                // Below a status are the transport's own words for the same thing.
                break;
            }
            words.push(text::one_line(&cause.to_string()));
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                said.exit = failure.exit;
                said.hint.clone_from(&failure.hint);
            } else if let Some(call) = cause.downcast_ref::<Call>() {
                said.hint.clone_from(&call.hint);
            } else if let Some(connect) = cause.downcast_ref::<ConnectError>() {
                let (exit, hint) = connect_end(connect);
                said.exit = exit;
                said.hint = Some(hint.to_owned());
            }
        }
        said.message = words.join(": ");
        said
    }
}

/// True where the plane did not answer, and may when it is asked again: it says so, or the words are the transport's and not its own.
pub(crate) fn is_unreachable(status: &Status) -> bool {
    exit_of(status.code()) == Exit::Unreachable || std::error::Error::source(status).is_some()
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::InvalidArgument => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
        Code::Unavailable => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

fn message_of(status: &Status) -> String {
    let message = text::one_line(status.message());
    if !message.is_empty() {
        return message;
    }
    status.code().description().to_ascii_lowercase()
}

fn hint_for(status: &Status) -> Option<String> {
    let hint = match status.code() {
        Code::NotFound => {
            "`mainloop task list`, `mainloop inbox` and `mainloop token list` show what there is"
        }
        Code::Unauthenticated => {
            "name a file with your token by --token-file, or set MAINLOOP_TOKEN"
        }
        Code::PermissionDenied => "`mainloop whoami` shows what this credential may do",
        Code::Unavailable => {
            "`mainloop status` shows whether the plane is well; `mainloop up` starts one"
        }
        Code::Unimplemented => {
            "the plane is older than this command; `mainloop status` shows its version"
        }
        Code::Internal => "the plane's log has the details",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn details_of(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut lines = Vec::new();
    if let Some(bad) = details.bad_request() {
        for violation in &bad.field_violations {
            lines.push(format!(
                "{}: {}",
                text::one_line(&violation.field),
                text::one_line(&violation.description)
            ));
        }
    }
    if let Some(precondition) = details.precondition_failure() {
        for violation in &precondition.violations {
            lines.push(format!(
                "{}: {}",
                text::one_line(&violation.subject),
                text::one_line(&violation.description)
            ));
        }
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        let seconds = i64::try_from(delay.as_secs().max(1)).unwrap_or(i64::MAX);
        lines.push(format!("try again in {}", format::duration(seconds)));
    }
    lines
}

fn connect_end(error: &ConnectError) -> (Exit, &'static str) {
    match error {
        ConnectError::Unreachable { .. } => (
            Exit::Unreachable,
            "start one with `mainloop up`, or name another by --address or MAINLOOP_ADDRESS",
        ),
        ConnectError::Denied { .. } => (
            Exit::Denied,
            "the socket is for the user who runs the plane; others need --address and a token",
        ),
        ConnectError::InClear { .. } => (Exit::Usage, "use https, or a tunnel to loopback"),
        ConnectError::TokenFile { .. } | ConnectError::TokenForm => (
            Exit::Usage,
            "`mainloop token create` makes one; the file holds the secret alone",
        ),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    }) && !error
        .chain()
        .any(|cause| cause.is::<Status>() || cause.is::<ConnectError>())
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn refusals_are_shown_by_field() {
        let mut details = ErrorDetails::with_bad_request_violation("model", "is not\n listed");
        details.set_retry_info(Some(std::time::Duration::from_secs(90)));
        let status =
            Status::with_error_details(Code::InvalidArgument, "the request is refused", details);
        let said = Said::of(&Call::failed("create the task")(status).into());
        assert_eq!(said.exit, Exit::Usage);
        assert_eq!(
            said.message,
            "cannot create the task: the request is refused"
        );
        assert_eq!(
            said.details,
            ["model: is not listed", "try again in 1m 30s"]
        );
    }

    #[test]
    fn codes_become_documented_exits() {
        for (code, exit) in [
            (Code::NotFound, Exit::NotFound),
            (Code::Unauthenticated, Exit::Denied),
            (Code::PermissionDenied, Exit::Denied),
            (Code::Unavailable, Exit::Unreachable),
            (Code::Aborted, Exit::Failed),
            (Code::Internal, Exit::Failed),
        ] {
            let said = Said::of(&Call::failed("do it")(Status::new(code, "")).into());
            assert_eq!(said.exit, exit, "{code:?}");
        }
    }

    #[test]
    fn closed_pipe_is_quiet() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("x");
        assert!(is_broken_pipe(&error));
    }

    #[test]
    fn escape_sequences_of_the_plane_do_not_reach_the_terminal() {
        let said = Said::of(&Call::failed("look")(Status::internal("\u{1b}[2Jgone\nx")).into());
        assert_eq!(said.message, "cannot look: gone x");
    }
}
