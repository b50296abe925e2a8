pub mod git_http;
pub mod github;
