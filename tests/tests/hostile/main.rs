//! Attacks: by the repository, by texts, and by what runs in the sandbox. Each has a row that says what stops it, or is a test of its own.
//!
//! A row's command runs inside a real worker and prints what came of it; what it must contain is the text by which the
//! wall speaks, so that an attack that fails for another reason, such as a mistake in it, is no success.
#![allow(clippy::unwrap_used)]

mod ground;
mod harness;
mod repository;
mod texts;
