//! Every command as a user meets it: exit code, stdout and stderr of the real binary against a fake plane.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod access;
mod errors;
mod fake;
mod inbox;
mod local;
mod run;
mod samples;
mod task;
mod terminal;
mod watch;
