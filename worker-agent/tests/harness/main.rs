//! The harness in its sandbox, for real: bubblewrap, git, processes.

#![allow(clippy::unwrap_used)]

mod git;
mod limits;
mod memory;
mod pipes;
mod probe;
mod support;
mod trial;
mod unwalled;
mod wall;
