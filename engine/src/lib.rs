//! # engine: one log on one disk
pub mod batch;
pub mod env;
pub mod epochs;
pub mod ids;
pub mod producers;
pub mod time;
pub mod wait;
