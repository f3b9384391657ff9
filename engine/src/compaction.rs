//! Compaction: of each key, the newest record stays (`cleanup.policy=compact`).
//!
//! ```text
//!  start        first dirty          known to        first uncleanable      end
//!    ├── clean ──────┼─────── dirty ────┼──── dirty ─────────┼── not yet ────┤
//!    │ one record    │ the map learns   │ for the next       │ active, above │
//!    │ of each key   │ these keys       │ round: map is full │ the watermark │
//!    └──── these segments are written anew ────┘             │ or too young  │
//! ```
//! What is decided here is pure: [`plan`] says which segments, [`map`] remembers where the newest
//! record of each key stands, [`filter`] judges batch by batch. [`crate::log`] carries it out.
//!
//! A round reads the dirty part once, to fill the map, then writes all segments up to where the map
//! knows every key, oldest first. Only what has a newer record *below that place* goes, so that a
//! map that is too small costs a second round and never a record.
//!
//! **Deletion marks** (records without a value) go last. The first round that comes across one has
//! removed what was older; it writes `delete.retention.ms` from now into the batch as its delete
//! horizon (KIP-534). A round after that time removes the mark. A reader that takes less time than
//! that from the log start to the end sees either a key's mark or none of its records.
//!
//! **Offsets** are kept; there are holes between batches and inside of them. The last batch of
//! every segment stays, empty if need be, so that each segment still ends where the next one
//! begins: a missing file is told from a hole. The last batch of each producer stays likewise
//! ([`filter::LastWritten`]), because its sequence has to be known when producers are read back.
//!
//! **Transactions** are not built yet. Their records are not taken into the map, because one that
//! will turn out to be aborted must not push out another; they go when a record outside of one
//! replaces them. A marker stays until nothing of its transaction is left and a horizon has passed.
//!
//! Source: Kafka's `Cleaner`, `LogCleanerManager` and `SkimpyOffsetMap`; KIP-58, KIP-354, KIP-534.

pub mod filter;
pub mod map;
pub mod plan;
