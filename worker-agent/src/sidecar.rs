//! The trusted half: holds the attempt's credentials, drives the steps, and owns the sandbox that the harness runs in.

pub mod sandbox;
