//! GitHub for mainloop: issues, pull requests, checks, and writes that may be repeated.
//!
//! The only crate that knows octocrab. The sidecar uses it for its steps, the control plane for
//! watching pull requests of tasks without a worker, and, where it is given an [`App`], for the
//! tokens that it hands out. Both build a [`Client`] per repository.
//!
//! It owns nothing durable: all state is GitHub's. What it must never do: re-send a creation
//! without looking for what it created, hand a token to another host, let text of a model or a
//! stranger act on GitHub (see [`text`]), or take a check that it cannot read for a green one.
//! When GitHub fails, calls end with an [`Error`] whose [`Class`] says who has to act; nothing
//! here waits for a rate limit to end, and nothing is sent that a limit is known to refuse.

#[cfg(feature = "app")]
mod app;
mod checks;
mod client;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod issues;
mod logs;
mod marker;
mod objects;
mod pulls;
mod quota;
mod reviews;
mod signature;
pub mod text;
mod transport;
mod verdict;
mod workflows;

#[cfg(feature = "app")]
pub use app::{About, Access, App, AppKey, InstallationToken};
pub use checks::{Check, CheckTags, Checks, Conclusion, State};
pub use client::{Client, Identity, Options, Repo, Repository};
pub use error::{Class, Error, Result, Thing};
pub use issues::{Comment, CommentRef, IssueNow, IssueRef, IssueThread};
pub use logs::trim as trim_log;
pub use marker::{Kind as MarkerKind, Marker};
pub use objects::TreeEntry;
pub use pulls::{Conditional, NewPull, PullRef, PullState, Size, drafts_unsupported};
pub use quota::{Quota, by_our_clock};
pub use reviews::{ReviewTags, ReviewThread};
pub use signature::{Failure, signature};
pub use text::neutralise;
pub use transport::Timeouts;
pub use verdict::{FailedCheck, Verdict, verdict};
