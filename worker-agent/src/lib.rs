//! The worker agent: the trusted sidecar and the untrusted harness of one attempt.

pub mod sidecar;
