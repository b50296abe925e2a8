//! The trusted half: it holds the credentials, drives the steps, and reports only what it saw itself.

pub mod claude;
pub mod config;
pub mod link;
mod pace;
pub mod proxy;
pub mod sandbox;
mod steps;
pub(crate) mod wishes;
pub mod worker;

/// An error and its sources in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    use std::fmt::Write;

    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").expect("a String takes any text");
        source = error.source();
    }
    text
}
