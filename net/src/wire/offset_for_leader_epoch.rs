//! OffsetForLeaderEpoch (key 23): where a leader epoch ends.
//!
//! Versions 2–4. 2: current leader epoch. 3: replica id, to tell replicas from consumers. 4:
//! flexible.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// As a replica id: a consumer asks.
pub const CONSUMER: i32 = -1;

message! {
    /// Which epochs' ends to find.
    pub struct OffsetForLeaderEpochRequest<'a>:
        request 23 -> OffsetForLeaderEpochResponse<'r>, versions 2..=4, flexible 4;
    {
        /// The replica that asks, [`CONSUMER`], or -2 where the version does not say.
        replica_id: i32 [3..] = -2,
        /// By topic.
        topics: Array<'a, RequestTopic<'a>>,
    }

    /// Which epochs' ends to find in one topic.
    pub struct RequestTopic<'a> {
        /// Its name.
        topic: &'a str,
        /// By partition.
        partitions: Array<'a, RequestPartition>,
    }

    /// Which epoch's end to find in one partition.
    pub struct RequestPartition {
        /// Its number.
        partition: i32,
        /// The leader's term as the client knows it; -1 if it does not.
        current_leader_epoch: i32 = -1,
        /// The epoch whose end is wanted.
        leader_epoch: i32,
    }

    /// Where the epochs end.
    pub struct OffsetForLeaderEpochResponse<'a>: response 23, versions 2..=4, flexible 4;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
    }

    /// Where epochs end in one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        topic: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ResponsePartition>,
    }

    /// Where an epoch ends in one partition.
    pub struct ResponsePartition {
        /// Why it was not found, if so.
        error_code: ErrorCode,
        /// The partition's number.
        partition: i32,
        /// The largest epoch that is not above the one asked for; -1 if there is none.
        leader_epoch: i32 = -1,
        /// Its exclusive end; -1 if there is none.
        end_offset: i64 = -1,
    }
}
