//! The worker agent: a trusted sidecar that holds the credentials, and an untrusted harness that runs Claude Code.
//!
//! The two halves share `channel` and nothing else. `sidecar` never runs code of the repository, `harness` never
//! sees a credential.

pub mod channel;
pub mod harness;
pub mod probe;
pub mod sidecar;
pub mod trial;
