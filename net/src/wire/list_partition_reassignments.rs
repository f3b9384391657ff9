//! ListPartitionReassignments (key 46): tells which partitions are on the move (KIP-455).
//!
//! Version 0, flexible.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which partitions to tell of.
    pub struct ListPartitionReassignmentsRequest<'a>:
        request 46 -> ListPartitionReassignmentsResponse<'r>, versions 0..=0, flexible 0;
    {
        /// Milliseconds that it may take.
        timeout_ms: i32 = 60_000,
        /// By topic; null for all partitions.
        topics: Option<Array<'a, ListedTopic<'a>>>,
    }

    /// Which partitions of one topic to tell of.
    pub struct ListedTopic<'a> {
        /// Its name.
        name: &'a str,
        /// Numbers of the partitions.
        partition_indexes: Array<'a, i32>,
    }

    /// The moves under way.
    pub struct ListPartitionReassignmentsResponse<'a>: response 46, versions 0..=0, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why they are not told, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// By topic; only partitions that move.
        topics: Array<'a, OngoingTopicReassignment<'a>>,
    }

    /// The moves of one topic.
    pub struct OngoingTopicReassignment<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, OngoingPartitionReassignment<'a>>,
    }

    /// The move of one partition.
    pub struct OngoingPartitionReassignment<'a> {
        /// Its number.
        partition_index: i32,
        /// All its replicas, old and new.
        replicas: Array<'a, i32>,
        /// Those that it gets.
        adding_replicas: Array<'a, i32>,
        /// Those that it loses.
        removing_replicas: Array<'a, i32>,
    }
}
