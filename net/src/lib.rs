//! Placeholder chapter; written with the first code.

pub mod api;
pub mod wire;
