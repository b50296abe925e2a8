//! The testkit: a GitHub emulator, a scripted Messages API, and a world that end-to-end stories are told in.

pub mod anthropic;
pub mod claude;
pub mod git_http;
pub mod github;
