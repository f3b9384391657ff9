//! # net: the only door
//!
//! The Kafka protocol and the process. What this crate promises: answers in request order on each
//! connection; bounded memory per connection and shard; every error of the house mapped to Kafka's
//! in one place ([`api::errors`]). What it must not know: how batches are stored or agreed on. It
//! holds no file IO but that of the process itself (lock and identity of the data directory,
//! [`checks`]).
//!
//! ## Map
//!
//! * [`wire`]: frames to messages and back; one declaration per message, nothing of what they mean.
//! * [`api`]: the table of what is served, and one file for each group of APIs. [`api::produce`]
//!   and [`api::fetch`] are the two that must be fast.
//! * [`connection`]: one socket. A reader takes frames and starts them, a writer finishes them in
//!   order. [`fetch_session`] remembers what a client reads.
//! * [`shard`]: a whole broker for the partitions that it owns ([`partitions`]). [`mesh`] carries
//!   calls between shards as data; [`ask`] are the small questions.
//! * [`metadata`]: shard 0 keeps what the cluster agrees on and gives everybody pictures of it.
//!   [`membership`]: this broker registers, beats, takes its leave. [`duties`]: what pictures ask of
//!   partitions, and what their leaders ask of the controller.
//! * [`replica`]: followers and leaders on the wire. [`voter`]: a coordinator among the nodes;
//!   [`controllers`]: asking one from outside; [`link`]: a connection to another node.
//! * [`node`]: what a shard does from its first turn to its last; [`process`]: the process around
//!   it, with [`checks`], [`watchdog`] and [`stop`]; [`cli`] and [`config`]: what it is told.
//! * [`env`](mod@env): the seams to sockets and lanes, on io_uring and on a seed.
//! * [`client`]: a small blocking client that can drive any broker, for tests and `perf`;
//!   [`history`]: what clients did and saw, and whether a broker that keeps its promises can have
//!   caused it.
//!
//! ## A Produce walks
//!
//! `connection` reads the frame → `wire` borrows the request from it → `api::produce::start` finds
//! the owner shard of each partition, appends what is its own and sends the rest on, one message
//! per shard → `replication::Partition::append` checks once, copies once → the engine writes and
//! syncs → the ticket is done → the writer answers. Until the answer nothing waits for anything but
//! its own durability.
//!
//! ## Absent on purpose
//!
//! No lock, no thread pool, no polling loop on this path. No JSON schemas, no generated code. No
//! API that does not work: [`api::APIS`] is what ApiVersions answers.

mod abreast;
pub mod api;
pub mod ask;
pub mod checks;
pub mod cli;
pub mod client;
pub mod config;
pub mod connection;
pub mod controllers;
pub mod duties;
pub mod env;
pub mod fetch_session;
pub mod frame;
pub mod groups;
pub mod history;
pub mod link;
pub mod membership;
pub mod mesh;
pub mod metadata;
pub mod node;
pub mod partitions;
pub mod process;
pub mod quorum_tool;
pub mod replica;
pub mod shard;
pub mod stop;
pub mod topic_config;
pub mod voter;
pub mod watchdog;
pub mod wire;
