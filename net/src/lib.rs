//! Placeholder chapter; written with the first code.

pub mod api;
pub mod cli;
pub mod config;
pub mod env;
pub mod wire;
