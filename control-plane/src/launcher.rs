//! Makes and removes workers.

pub mod process;
