//! Placeholder chapter; written with the first code.

pub mod api;
pub mod env;
pub mod wire;
