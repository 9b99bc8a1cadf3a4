//! Policy: what the operator wants, read from TOML and validated as a whole.

mod model;

pub use model::*;
