//! Placeholder chapter; written with the first code.

pub mod api;
pub mod ask;
pub mod checks;
pub mod cli;
pub mod client;
pub mod config;
pub mod connection;
pub mod env;
pub mod fetch_session;
pub mod frame;
pub mod mesh;
pub mod metadata;
pub mod node;
pub mod partitions;
pub mod process;
pub mod shard;
pub mod stop;
pub mod topic_config;
pub mod watchdog;
pub mod wire;
