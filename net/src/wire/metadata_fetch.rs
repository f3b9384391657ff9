//! MetadataFetch (key 10,002, ours): a broker without a vote follows what was agreed on.
//!
//! Version 0, flexible. Only on listeners of peers ([`crate::api::PRIVATE`]). Any coordinator
//! answers, as far as it knows what is committed. Entries and snapshots are the metadata log's own
//! (`coordinator::metadata`) and are not looked at here.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// What is wanted, and how long to wait for it.
    pub struct MetadataFetchRequest:
        request 10_002 -> MetadataFetchResponse<'r>, versions 0..=0, flexible 0;
    {
        /// The broker that asks.
        broker_id: i32 = -1,
        /// First offset that it lacks; 0 for everything.
        from: i64,
        /// Milliseconds to wait for something to be there.
        max_wait_ms: i32,
        /// About how much to answer at most; one entry, or a snapshot, comes whatever its size.
        max_bytes: i32,
    }

    /// What is committed from there on: entries or, where they are gone, a snapshot.
    pub struct MetadataFetchResponse<'a>: response 10_002, versions 0..=0, flexible 0;
    {
        /// Why there is nothing, if so.
        error_code: ErrorCode,
        /// The active controller as far as the answering node knows; -1 if it does not.
        leader_id: i32 = -1,
        /// Its term; -1 if unknown.
        leader_epoch: i32 = -1,
        /// Exclusive end of what the answering node knows to be committed; -1 with an error.
        end: i64 = -1,
        /// In the order of their offsets, without a gap after `from`; empty with a snapshot.
        entries: Array<'a, Entry<'a>>,
        /// Everything up to an offset, in place of entries.
        snapshot: Option<Snapshot<'a>>,
    }

    /// What was decided at once.
    pub struct Entry<'a> {
        /// Its offset.
        offset: i64,
        /// Its records and its time.
        bytes: Cow<'a, [u8]>,
    }

    /// The state at an offset.
    pub struct Snapshot<'a> {
        /// Exclusive end of what it holds: where to go on.
        end: i64,
        /// The state.
        bytes: Cow<'a, [u8]>,
    }
}
