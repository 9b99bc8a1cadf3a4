//! What the network is, and making it so: the core, and the shell around it.

pub mod core;
pub mod snapshot;
