//! # replication: one log on several brokers
//!
//! What this crate promises, by name:
//! * **MonotonicWatermark**: within a leader epoch the high watermark never falls.
//! * **NoReadAboveWatermark**: consumers read below it only.
//! * **AckedIsCommitted**: a producer that asked for all is answered when every in-sync replica
//!   holds its batch in the durability class of the topic ([`engine::log::Durability`]).
//!
//! It knows neither Kafka's wire nor who serves whom: there is no network here. [`leader`] is the
//! pure core, [`partition`] the driver that joins it with a log. Followers, fetchers and changes of
//! the in-sync set are not built yet: a partition has one replica, which goes through the same
//! [`leader::Leader`] as several will.

pub mod leader;
pub mod partition;

pub use leader::Acks;
pub use partition::{Partition, Ticket};
