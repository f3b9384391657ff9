//! DescribeTopicPartitions (key 75): topics and their partitions, page by page (KIP-966).
//!
//! Version 0, flexible.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::metadata::OPERATIONS_UNKNOWN;
use super::{Array, ErrorCode};

message! {
    /// Which topics to describe, from where on.
    pub struct DescribeTopicPartitionsRequest<'a>:
        request 75 -> DescribeTopicPartitionsResponse<'r>, versions 0..=0, flexible 0;
    {
        /// The topics; none for all.
        topics: Array<'a, RequestTopic<'a>>,
        /// About how many partitions a page has at most.
        response_partition_limit: i32 = 2_000,
        /// Where the page begins; null for the first.
        cursor: Option<RequestCursor<'a>>,
    }

    /// A topic to describe.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str,
    }

    /// Where a page begins.
    pub struct RequestCursor<'a> {
        /// First topic of it.
        topic_name: &'a str,
        /// First partition of that topic.
        partition_index: i32,
    }

    /// A page.
    pub struct DescribeTopicPartitionsResponse<'a>: response 75, versions 0..=0, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// The topics.
        topics: Array<'a, ResponseTopic<'a>>,
        /// Where the next page begins; null on the last.
        next_cursor: Option<ResponseCursor<'a>>,
    }

    /// A topic.
    pub struct ResponseTopic<'a> {
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// Its name.
        name: Option<Cow<'a, str>>,
        /// Its id.
        topic_id: TopicId,
        /// Whether it is the broker's own.
        is_internal: bool,
        /// Its partitions.
        partitions: Array<'a, ResponsePartition<'a>>,
        /// Bits of what the client may do to it.
        topic_authorized_operations: i32 = OPERATIONS_UNKNOWN,
    }

    /// A partition.
    pub struct ResponsePartition<'a> {
        /// What is wrong with it, if anything.
        error_code: ErrorCode,
        /// Its number.
        partition_index: i32,
        /// Its leader; -1 if it has none.
        leader_id: i32,
        /// The leader's term.
        leader_epoch: i32 = -1,
        /// All brokers that keep it.
        replica_nodes: Array<'a, i32>,
        /// Those in sync.
        isr_nodes: Array<'a, i32>,
        /// Those that may lead though not in sync; null if not known.
        eligible_leader_replicas: Option<Array<'a, i32>>,
        /// Those that were the last of these; null if not known.
        last_known_elr: Option<Array<'a, i32>>,
        /// Those that cannot serve it.
        offline_replicas: Array<'a, i32>,
    }

    /// Where the next page begins.
    pub struct ResponseCursor<'a> {
        /// First topic of it.
        topic_name: Cow<'a, str>,
        /// First partition of that topic.
        partition_index: i32,
    }
}
