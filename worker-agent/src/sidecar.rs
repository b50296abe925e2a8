//! The trusted half of a worker: it holds the credentials, drives the steps and reports what it saw itself.

pub mod claude;
