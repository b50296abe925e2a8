//! Errors of the services, and the only place that makes a [`tonic::Status`] of them.

use std::time::Duration;

use thiserror::Error as ThisError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{db, errors, ids};

/// How long a caller waits before it tries again what failed for a moment.
const RETRY: Duration = Duration::from_secs(1);

/// Why an RPC did not do what it was asked.
#[derive(Debug, ThisError)]
pub enum Error {
    /// Fields of the request are not as they must be.
    #[error("{}", list(.violations))]
    Invalid {
        /// Field and what is wrong with it.
        violations: Vec<(String, String)>,
    },
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// It does not fit the state; another call must come first.
    #[error("{message}")]
    WrongState {
        /// What does not fit.
        message: String,
    },
    /// Somebody else was faster: look again.
    #[error("{message}")]
    Aborted {
        /// What changed.
        message: String,
    },
    /// The name or request id is taken by something else.
    #[error("{message}")]
    AlreadyExists {
        /// What is taken.
        message: String,
    },
    /// No valid credential came.
    #[error("{message}; use the local socket, or `authorization: Bearer …` with a token")]
    Unauthenticated {
        /// What is wrong with what came.
        message: &'static str,
    },
    /// The credential is too weak.
    #[error("{message}")]
    Denied {
        /// Who lacks what.
        message: String,
    },
    /// It may work a moment later.
    #[error("{message}")]
    Unavailable {
        /// What is missing at present.
        message: String,
    },
    /// The database did not do it.
    #[error("the store failed")]
    Store(#[from] db::Error),
}

impl Error {
    /// One field is not as it must be.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            violations: vec![(field.into(), reason.into())],
        }
    }
}

fn list(violations: &[(String, String)]) -> String {
    violations
        .iter()
        .map(|(field, reason)| format!("{field} {reason}"))
        .collect::<Vec<_>>()
        .join("; ")
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid { violations } => {
                let mut details = ErrorDetails::new();
                for (field, reason) in violations {
                    details.add_bad_request_violation(field, reason);
                }
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            Error::NotFound { .. } => Self::not_found(message),
            Error::WrongState { .. } => Self::failed_precondition(message),
            Error::Aborted { .. } => Self::aborted(message),
            Error::AlreadyExists { .. } => Self::already_exists(message),
            Error::Unauthenticated { .. } => Self::unauthenticated(message),
            Error::Denied { .. } => Self::permission_denied(message),
            Error::Unavailable { .. } => unavailable(message),
            Error::Store(error) if error.is_transient() => {
                tracing::warn!(error = errors::chain(&error), "store is unavailable");
                unavailable("the database is unavailable".to_owned())
            }
            Error::Store(error) if error.is_disk_full() => {
                tracing::error!(error = errors::chain(&error), "the database's disk is full");
                Self::resource_exhausted(
                    "the disk of the plane's database is full: nothing was stored; make room there and try again",
                )
            }
            Error::Store(error) => {
                // Details stay in the log: they may name what the caller must not see.
                let id = ids::short();
                tracing::error!(error = errors::chain(&error), id, "request failed");
                Self::internal(format!("internal error {id}: see the plane's log"))
            }
        }
    }
}

fn unavailable(message: String) -> Status {
    Status::with_error_details(
        Code::Unavailable,
        message,
        ErrorDetails::with_retry_info(Some(RETRY)),
    )
}
