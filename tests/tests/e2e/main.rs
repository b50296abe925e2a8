//! End to end: each module is a story, told with the real plane, the real agent and the real Claude Code CLI.
#![allow(clippy::unwrap_used)]

mod ci;
mod good_day;
mod people;
