//! The trusted half: it holds the credentials, drives the steps, and reports only what it saw itself.

pub mod claude;
pub mod config;
pub mod link;
pub mod proxy;
pub mod sandbox;
