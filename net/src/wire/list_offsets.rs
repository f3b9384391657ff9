//! ListOffsets (key 2): finds offsets by timestamp, and by the special timestamps below.
//!
//! Versions 1–11. 2: isolation level. 4: leader epochs. 6: flexible. 7: largest timestamp
//! (KIP-734). 8: earliest local. 9: last tiered. 10: time limit for remote lookups. 11: earliest
//! pending upload (KIP-1023). From 7 on only the meaning of timestamps grew, not the layout.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// Asks for the end: the high watermark, or the last stable offset for isolation level 1.
pub const LATEST: i64 = -1;
/// Asks for the first readable offset.
pub const EARLIEST: i64 = -2;
/// Asks for the record of the largest timestamp. Version 7 and later.
pub const MAX_TIMESTAMP: i64 = -3;
/// Asks for the first offset on this broker's own disk. Version 8 and later.
pub const EARLIEST_LOCAL: i64 = -4;
/// Asks for the last offset in tiered storage. Version 9 and later.
pub const LATEST_TIERED: i64 = -5;
/// Asks for the first offset not yet in tiered storage. Version 11 and later.
pub const EARLIEST_PENDING_UPLOAD: i64 = -6;

message! {
    /// Which offsets to find.
    pub struct ListOffsetsRequest<'a>:
        request 2 -> ListOffsetsResponse<'r>, versions 1..=11, flexible 6;
    {
        /// The replica that asks; -1 for a consumer.
        replica_id: i32,
        /// 0 looks up to the high watermark, 1 up to the last stable offset.
        isolation_level: i8 [2..],
        /// By topic.
        topics: Array<'a, RequestTopic<'a>>,
        /// Milliseconds for lookups in tiered storage.
        timeout_ms: i32 [10..],
    }

    /// Which offsets to find in one topic.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// By partition.
        partitions: Array<'a, RequestPartition>,
    }

    /// Which offset to find in one partition.
    pub struct RequestPartition {
        /// Its number.
        partition_index: i32,
        /// The leader's term as the client knows it; -1 if it does not.
        current_leader_epoch: i32 [4..] = -1,
        /// The first record at or after this, or one of the special timestamps.
        timestamp: i64,
    }

    /// What was found.
    pub struct ListOffsetsResponse<'a>: response 2, versions 1..=11, flexible 6;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [2..],
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
    }

    /// What was found in one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ResponsePartition>,
    }

    /// What was found in one partition.
    pub struct ResponsePartition {
        /// Its number.
        partition_index: i32,
        /// Why nothing was found, if so.
        error_code: ErrorCode,
        /// Timestamp of the record found; -1 if none, or for special timestamps.
        timestamp: i64 = -1,
        /// Its offset; -1 if none.
        offset: i64 = -1,
        /// Its leader epoch; -1 if unknown.
        leader_epoch: i32 [4..] = -1,
    }
}
