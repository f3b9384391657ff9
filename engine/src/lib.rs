//! # engine: one log on one disk
pub mod env;
pub mod ids;
pub mod time;
pub mod wait;
