//! The harness in its sandbox, for real: bubblewrap, git, processes.

mod git;
mod pipes;
mod probe;
mod support;
mod unwalled;
mod wall;
