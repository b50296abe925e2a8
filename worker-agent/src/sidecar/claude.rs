//! Drives one Claude Code process over its stream-json control protocol.
//!
//! Owns how the CLI is started ([`launch`]), what its lines mean ([`protocol`]), how its questions and permission
//! requests are settled ([`Driver`]), the tools it is offered ([`mcp`]) and the prompts it gets ([`prompts`]).
//! It must never start a process, open a path or hold a credential: the harness does the first two on request, and the CLI
//! gets placeholders. Everything that the CLI says is untrusted text of bounded size; a line that is not
//! understood is shown, never fatal. When the process dies, the turn ends with [`TurnEnd::ProcessExited`] and the caller resumes the session.

pub mod classify;
pub mod driver;
pub mod events;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod launch;
pub mod mcp;
mod policy;

pub mod prompts;
pub mod protocol;
#[cfg(test)]
pub(crate) mod testing;
mod translate;

pub use driver::{
    Activity, CommandError, Driver, Handle, Mode, OpenError, OpenOptions, Output, Pipes,
};
pub use events::{
    Answer, BlockerKind, Event, FailureClass, Question, QuestionOption, TurnEnd, Usage,
};
pub use launch::{CredentialKind, File, Guidance, Launch, Options, Session, launch};
