pub mod anthropic;
pub mod bench;
pub mod claude;
pub mod demo;
pub mod git_http;
pub mod github;
pub mod world;
