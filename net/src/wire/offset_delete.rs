//! OffsetDelete (key 47): a group forgets how far it has read (KIP-496).
//!
//! Version 0, never flexible.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which offsets to forget.
    pub struct OffsetDeleteRequest<'a>:
        request 47 -> OffsetDeleteResponse<'r>, versions 0..=0, flexible 32_767;
    {
        /// The group.
        group_id: &'a str,
        /// By topic.
        topics: Array<'a, OffsetDeleteRequestTopic<'a>>,
    }

    /// Which offsets of one topic to forget.
    pub struct OffsetDeleteRequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// By partition.
        partitions: Array<'a, OffsetDeleteRequestPartition>,
    }

    /// A partition whose offset to forget.
    pub struct OffsetDeleteRequestPartition {
        /// Its number.
        partition_index: i32,
    }

    /// What is forgotten.
    pub struct OffsetDeleteResponse<'a>: response 47, versions 0..=0, flexible 32_767;
    {
        /// Why nothing is, if so.
        error_code: ErrorCode,
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By topic.
        topics: Array<'a, OffsetDeleteResponseTopic<'a>>,
    }

    /// What is forgotten of one topic.
    pub struct OffsetDeleteResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, OffsetDeleteResponsePartition>,
    }

    /// Whether the offset of one partition is forgotten.
    pub struct OffsetDeleteResponsePartition {
        /// Its number.
        partition_index: i32,
        /// Why it is not, if so.
        error_code: ErrorCode,
    }
}
