//! # coordinator: what a cluster agrees on
//!
//! Machines whose memory is a log. A [`machine::Machine`] looks at its state and answers a request
//! with records and replies; a driver appends the records to the machine's log, applies them, and
//! lets a reply out when everything that the machine had seen is committed. A start replays the
//! log. There is one machine so far, the [`controller`], whose state is a [`cluster::Cluster`] and
//! whose committed state every broker carries as an [`image::Image`].
//!
//! There are two kinds of log. The controller's is that of the [`quorum`]: an odd number of nodes
//! agree on it, and [`metadata`] drives the controller on the one that leads; brokers without a
//! vote follow it with an [`observer`]. A machine on the log of a partition is driven by
//! [`runtime`].
//!
//! ```text
//! request ─► decide ─► records ─► append ─► apply ──────────► reply waits …
//!                                   │                              │
//!                                   └────► written, synced ─► committed ─► reply, image
//! ```
//!
//! Invariants:
//! - replay(log) = state: only `apply` changes hard state, and it reads nothing but the record.
//! - A reply never reveals what is not committed; neither does an image.
//! - One request's records are one batch of the log: after a crash all of them are there or none.
//! - An image is a prefix of the metadata log.
//! - No core here reads a clock, draws a random number, waits, or touches a file; all of that is
//!   in [`journal`], [`runtime`], [`metadata`] and [`quorum`].
//!
//! It knows neither sockets nor Kafka's wire, nor what partitions hold.

pub mod cluster;
pub mod config;
pub mod controller;
pub mod group;
pub mod image;
pub mod journal;
pub mod machine;
pub mod metadata;
pub mod observer;
pub mod quorum;
pub mod records;
pub mod runtime;
