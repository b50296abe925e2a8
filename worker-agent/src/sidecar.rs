//! The trusted half of a worker: it alone holds credentials.

pub mod proxy;
