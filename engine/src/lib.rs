//! # engine: one log on one disk
//!
//! A partition log on one device. What this crate promises: offsets are contiguous, but for what
//! compaction removed; what [`log::Log::append`] returned can be read in that order; after a crash
//! the log is a prefix of what was appended, at least up to the last completed sync (power) or
//! write (process); what was truncated stays away; of each key of a compacted log the newest record
//! is there. What it must not know: topics' names, leaders, clients, sockets.
//!
//! ## What it promises
//!
//! | when this happens | this is left |
//! |---|---|
//! | the process is killed | at least everything below the written end |
//! | the power is cut | at least everything below the synced end |
//! | either, during recovery | the same; opening is repeatable |
//! | a write or sync fails | nothing is acknowledged any more, in the whole directory |
//! | the device is full | what was not written is given up and its writers are told; the rest stays readable, and appending goes on when there is room |
//! | any of these, while the end is taken back | a prefix of the old log, at least as long as the new one; once that has ended, the new one |
//! | stored bits flip | the damage is reported with its position, never served and never cut; checkpoints and indexes are rebuilt |
//!
//! And always: what was deleted stays deleted, a retry of an idempotent producer is recognised, a
//! torn tail is cut and reported. Two things the format leaves open: a batch's checksum does not
//! cover its leader epoch, and whether a whole lost sector at the very end had been synced cannot
//! always be told (`log::judge` says when it can). `tests/crash.rs` tries all of this at every
//! write boundary, and [`log::mutant`] proves that it can see.
//!
//! ## Map
//!
//! * [`log`]: the log. Its tail in memory, its writer (one write in flight is the group commit),
//!   reading, recovery, retention, and what a follower needs: appending what a leader wrote, and
//!   truncation. Start here; the drawing of the offsets is in it.
//! * [`batch`]: Kafka's record batch v2, the only record format, as a checked view over bytes.
//!   Bytes on the wire are bytes on disk.
//! * [`segment`]: one file of a log and its index, which is rebuilt and never trusted.
//! * [`producers`]: idempotence. [`epochs`]: which leader wrote which part.
//!   [`checkpoint`]: tiny facts that survive, in two slots.
//! * [`compaction`]: of each key the newest record stays; what is decided there is pure.
//! * [`cache`]: the memory of a shard's tails, as a budget.
//! * [`config`]: settings with Kafka's names, from one table.
//! * [`env`](mod@env): the seams. Everything that can be learnt from outside (clock, disk, chance)
//!   comes through them; [`env::uring`] is the real one, [`env::sim`] the one on a seed, in which
//!   disks lose what was not synced.
//! * [`ids`], [`time`], [`wait`]: the vocabulary.
//!
//! ## Absent on purpose
//!
//! A second record format, a second offset space, a retry of a failed sync, a `sim` feature (the
//! simulator is an ordinary second environment), `unsafe` outside of the environments.

pub mod batch;
pub mod cache;
pub mod checkpoint;
pub mod compaction;
pub mod config;
pub mod env;
pub mod epochs;
pub mod ids;
pub mod log;
pub mod producers;
pub mod segment;
pub mod time;
pub mod wait;
