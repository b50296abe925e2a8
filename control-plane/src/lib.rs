//! The control plane: it queues tasks durably, decides what may run, streams status and keeps the inbox.

pub mod args;
pub mod config;
pub mod db;
pub mod errors;
pub mod ids;
pub mod policy;
pub mod postgres;
pub mod texts;
