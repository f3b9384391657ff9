//! DeleteRecords (key 21): deletes the records of partitions below an offset.
//!
//! Versions 0–2. 1: as 0. 2: flexible.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// As an offset: everything below the high watermark.
pub const HIGH_WATERMARK: i64 = -1;

message! {
    /// What to delete.
    pub struct DeleteRecordsRequest<'a>:
        request 21 -> DeleteRecordsResponse<'r>, versions 0..=2, flexible 2;
    {
        /// By topic.
        topics: Array<'a, RequestTopic<'a>>,
        /// Milliseconds until the broker gives up.
        timeout_ms: i32,
    }

    /// What to delete of one topic.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// By partition.
        partitions: Array<'a, RequestPartition>,
    }

    /// What to delete of one partition.
    pub struct RequestPartition {
        /// Its number.
        partition_index: i32,
        /// First offset to keep, or [`HIGH_WATERMARK`].
        offset: i64,
    }

    /// What became of it.
    pub struct DeleteRecordsResponse<'a>: response 21, versions 0..=2, flexible 2;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
    }

    /// What became of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ResponsePartition>,
    }

    /// What became of one partition.
    pub struct ResponsePartition {
        /// Its number.
        partition_index: i32,
        /// First offset that is still there; -1 with an error.
        low_watermark: i64,
        /// Why nothing was deleted, if so.
        error_code: ErrorCode,
    }
}
