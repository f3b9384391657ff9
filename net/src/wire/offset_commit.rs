//! OffsetCommit (key 8): a group remembers how far it has read.
//!
//! Versions 2–10. 3: throttle time. 5: no retention time any more (KIP-211). 6: leader epochs. 7:
//! instance ids (KIP-345). 8: flexible. 9: members of KIP-848 may use it. 10: topics by id.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// How far a group has read.
    pub struct OffsetCommitRequest<'a>:
        request 8 -> OffsetCommitResponse<'r>, versions 2..=10, flexible 8;
    {
        /// The group.
        group_id: &'a str,
        /// The member's generation, or its epoch (KIP-848); -1 from outside of the group.
        generation_id_or_member_epoch: i32 = -1,
        /// The member; empty from outside of the group.
        member_id: &'a str,
        /// Its instance id, if it is static.
        group_instance_id: Option<&'a str> [7..],
        /// Milliseconds to keep the offsets; -1 for the broker's own time. Ignored since KIP-211.
        retention_time_ms: i64 [..=4] = -1,
        /// By topic.
        topics: Array<'a, OffsetCommitRequestTopic<'a>>,
    }

    /// How far one topic has been read.
    pub struct OffsetCommitRequestTopic<'a> {
        /// Its name.
        name: &'a str [..=9],
        /// Its id.
        topic_id: TopicId [10..],
        /// By partition.
        partitions: Array<'a, OffsetCommitRequestPartition<'a>>,
    }

    /// How far one partition has been read.
    pub struct OffsetCommitRequestPartition<'a> {
        /// Its number.
        partition_index: i32,
        /// The offset to be read next.
        committed_offset: i64,
        /// Leader epoch of the last record read; -1 if unknown.
        committed_leader_epoch: i32 [6..] = -1,
        /// Whatever the client wants to remember with it.
        committed_metadata: Option<&'a str>,
    }

    /// What is remembered.
    pub struct OffsetCommitResponse<'a>: response 8, versions 2..=10, flexible 8;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [3..],
        /// By topic.
        topics: Array<'a, OffsetCommitResponseTopic<'a>>,
    }

    /// What is remembered of one topic.
    pub struct OffsetCommitResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str> [..=9],
        /// Its id.
        topic_id: TopicId [10..],
        /// By partition.
        partitions: Array<'a, OffsetCommitResponsePartition>,
    }

    /// Whether the offset of one partition is remembered.
    pub struct OffsetCommitResponsePartition {
        /// Its number.
        partition_index: i32,
        /// Why it is not, if so.
        error_code: ErrorCode,
    }
}
