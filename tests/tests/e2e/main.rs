//! End to end: each module is a story, told with the real plane, the real agent and the real Claude Code CLI.
#![allow(clippy::unwrap_used)]

mod app;
mod budget;
mod cancel;
mod changes;
mod ci;
mod command_line;
mod ends;
mod faults;
mod good_day;
mod held_ci;
mod kills;
mod limits;
mod machine;
mod meddling;
mod model_refusals;
mod outages;
mod patience;
mod people;
mod pushes;
mod refusals;
mod refused_pushes;
mod repository;
mod review;
mod secrets;
mod stalls;
mod together;
mod upgrade;
mod wall;
mod ways_on;
