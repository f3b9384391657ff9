//! MetadataFetch (key 10,002, ours): a broker without a vote follows what was agreed on.
//!
//! Version 0, flexible. Only on listeners of peers ([`crate::api::PRIVATE`]). Any coordinator
//! answers, as far as it knows what is committed. What it says is the metadata log's own
//! (`coordinator::quorum::since`) and is not looked at here.

use std::borrow::Cow;

use super::ErrorCode;
use super::message::message;

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

    /// What is committed from there on.
    pub struct MetadataFetchResponse<'a>: response 10_002, versions 0..=0, flexible 0;
    {
        /// Why there is nothing, if so.
        error_code: ErrorCode,
        /// Entries or a snapshot, with their end and who leads, as the coordinator says it;
        /// nothing with an error.
        since: Cow<'a, [u8]>,
    }
}
