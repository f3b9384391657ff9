//! OffsetFetch (key 9): how far groups have read.
//!
//! Versions 1–10. 2: all topics at once; an error for the whole. 3: throttle time. 5: leader
//! epochs. 6: flexible. 7: may insist on offsets that no transaction can change (KIP-447). 8:
//! several groups (KIP-709). 9: member and epoch, checked (KIP-848). 10: topics by id.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Of which groups and partitions to tell.
    pub struct OffsetFetchRequest<'a>:
        request 9 -> OffsetFetchResponse<'r>, versions 1..=10, flexible 6;
    {
        /// The group.
        group_id: &'a str [..=7],
        /// By topic; null for all.
        topics: Option<Array<'a, OffsetFetchRequestTopic<'a>>> [..=7, nullable 2..]
            = Some(Array::default()),
        /// The groups.
        groups: Array<'a, OffsetFetchRequestGroup<'a>> [8..],
        /// Whether an offset that an open transaction may yet change is an error.
        require_stable: bool [7..],
    }

    /// Partitions of one topic.
    pub struct OffsetFetchRequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// The partitions.
        partition_indexes: Array<'a, i32>,
    }

    /// One group.
    pub struct OffsetFetchRequestGroup<'a> {
        /// Its id.
        group_id: &'a str,
        /// The member that asks; null or empty from outside of the group.
        member_id: Option<&'a str> [9..],
        /// Its epoch; -1 from outside of the group.
        member_epoch: i32 [9..] = -1,
        /// By topic; null for all.
        topics: Option<Array<'a, OffsetFetchRequestTopics<'a>>>,
    }

    /// Partitions of one topic, for one group.
    pub struct OffsetFetchRequestTopics<'a> {
        /// Its name.
        name: &'a str [..=9],
        /// Its id.
        topic_id: TopicId [10..],
        /// The partitions.
        partition_indexes: Array<'a, i32>,
    }

    /// How far the groups have read.
    pub struct OffsetFetchResponse<'a>: response 9, versions 1..=10, flexible 6;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [3..],
        /// By topic.
        topics: Array<'a, OffsetFetchResponseTopic<'a>> [..=7],
        /// Why nothing can be told, if so.
        error_code: ErrorCode [2..=7],
        /// By group.
        groups: Array<'a, OffsetFetchResponseGroup<'a>> [8..],
    }

    /// How far one topic has been read.
    pub struct OffsetFetchResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, OffsetFetchResponsePartition<'a>>,
    }

    /// How far one partition has been read.
    pub struct OffsetFetchResponsePartition<'a> {
        /// Its number.
        partition_index: i32,
        /// The offset to be read next; -1 if none was committed.
        committed_offset: i64,
        /// Leader epoch of the last record read; -1 if unknown.
        committed_leader_epoch: i32 [5..] = -1,
        /// What the client wanted to remember with it.
        metadata: Option<Cow<'a, str>>,
        /// Why nothing can be told, if so.
        error_code: ErrorCode,
    }

    /// How far one group has read.
    pub struct OffsetFetchResponseGroup<'a> {
        /// Its id.
        group_id: Cow<'a, str>,
        /// By topic.
        topics: Array<'a, OffsetFetchResponseTopics<'a>>,
        /// Why nothing can be told, if so.
        error_code: ErrorCode,
    }

    /// How far one group has read one topic.
    pub struct OffsetFetchResponseTopics<'a> {
        /// Its name.
        name: Cow<'a, str> [..=9],
        /// Its id.
        topic_id: TopicId [10..],
        /// By partition.
        partitions: Array<'a, OffsetFetchResponsePartition<'a>>,
    }
}
