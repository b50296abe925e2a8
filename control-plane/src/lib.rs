//! The control plane: it queues tasks durably, decides what may run, streams status and keeps the inbox.

pub mod app;
pub mod args;
pub mod check;
pub mod code_host;
pub mod config;
pub mod db;
pub mod dispatch;
pub mod errors;
pub mod ids;
pub mod launcher;
pub mod link;
pub mod policy;
pub mod postgres;
pub mod rpc;
pub mod supervisor;
pub mod texts;
pub mod tidy;
pub mod watch;
pub mod watchers;

#[cfg(test)]
mod testing;
