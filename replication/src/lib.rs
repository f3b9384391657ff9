//! # replication: one log on several brokers
//!
//! What this crate promises, by name; `tests/simulation.rs` tries each on thousands of seeds, and
//! `tests/mutants.rs` proves that it can see ([`mutant`]):
//! * **AckedIsNeverLost**: a batch whose producer asked for all and was answered stays, at its
//!   offset, as long as the controller elects from the ISR or the ELR.
//! * **LogMatching**: two replicas with a record of the same epoch at the same offset are equal up
//!   to there.
//! * **LeaderCompleteness**: whoever leads has everything that was committed before.
//! * **OneLeaderPerEpoch**: no two brokers ever lead in the same leader epoch.
//! * **MonotonicWatermark**: within a leader epoch the high watermark never falls.
//! * **NoReadAboveWatermark**: consumers see nothing that is not committed, on leaders and
//!   followers.
//!
//! It knows neither Kafka's wire nor who serves whom: there is no network here and no controller.
//!
//! ## Map
//!
//! * [`role`]: what this broker is to a partition. Start here.
//! * [`leader`]: the in-sync set and the high watermark. [`follower`]: answers, and how much is
//!   committed. [`divergence`]: where two logs part.
//! * [`fetcher`] and [`stream`]: the two ends of a fetch stream.
//! * [`ask`]: what is said between brokers and to the controller, as data.
//! * [`partition`]: the driver that joins a role with a log. The one async file.
//! * [`config`], [`mutant`].

pub mod ask;
pub mod config;
pub mod divergence;
pub mod fetcher;
pub mod follower;
pub mod leader;
pub mod mutant;
pub mod partition;
pub mod role;
pub mod stream;

pub use leader::Acks;
pub use partition::{Partition, Ticket};
