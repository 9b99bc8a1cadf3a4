//! What the network is, and making it so: the core, and the shell around it.

pub mod api;
mod asked;
pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
mod end;
mod gate;
pub mod history;
pub mod hub;
pub mod limit;
pub mod listen;
pub mod metrics;
pub mod outgoing;
pub mod policy_commands;
pub mod policy_files;
pub mod policy_watch;
pub mod problems;
pub mod registry;
mod session;
pub mod snapshot;
pub mod store;
pub mod turned_away;
