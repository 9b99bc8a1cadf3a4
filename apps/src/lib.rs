//! What an Espalier network should be, as pure functions: policy files → a validated policy; policy and a view of the
//! fabric → the flow entries, groups and meters of every bridge.
//!
//! Nothing here does I/O, reads a clock, or has an order that depends on chance: equal inputs give equal outputs.

pub mod allocation;
pub mod assigned;
pub mod attachment;
mod backups;
mod balance;
pub mod chains;
pub mod checker;
mod classifiers;
pub mod compile;
pub mod desired;
pub mod drain;
pub mod fabric;
pub mod failover;
mod guard;
pub mod had;
pub mod interpreter;
pub mod kept;
pub mod limits;
pub mod links;
pub mod marks;
pub mod mtu;
pub mod pipeline;
pub mod plan;
pub mod policy;
pub mod problems;
pub mod reconcile;
mod routes;
pub mod rules;
pub mod services;
pub mod tenants;
pub mod trace;
pub mod trees;
pub mod view;
pub mod withhold;
