//! # engine: one log on one disk
//!
//! Interim chapter; it grows with the rooms.

pub mod batch;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod env;
pub mod epochs;
pub mod ids;
pub mod log;
pub mod producers;
pub mod segment;
pub mod time;
pub mod wait;
