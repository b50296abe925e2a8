//! Makes and removes workers.

pub mod process;
pub mod sandbox;
