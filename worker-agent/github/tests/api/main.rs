//! The client against a scripted GitHub over HTTP, as an Enterprise server (`/api/v3`).

#![allow(clippy::unwrap_used)]

mod checks;
mod reads;
mod server;
mod writes;
