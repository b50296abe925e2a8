//! The worker agent: the trusted sidecar that drives an attempt, and the harness in which Claude Code works.

pub mod sidecar;
