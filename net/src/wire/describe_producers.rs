//! DescribeProducers (key 61): the producers that are known to partitions (KIP-664).
//!
//! Version 0, flexible.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which partitions to describe.
    pub struct DescribeProducersRequest<'a>:
        request 61 -> DescribeProducersResponse<'r>, versions 0..=0, flexible 0;
    {
        /// By topic.
        topics: Array<'a, RequestTopic<'a>>,
    }

    /// Which partitions of one topic to describe.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// Numbers of the partitions.
        partition_indexes: Array<'a, i32>,
    }

    /// The producers.
    pub struct DescribeProducersResponse<'a>: response 61, versions 0..=0, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
    }

    /// The producers of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ResponsePartition<'a>>,
    }

    /// The producers of one partition.
    pub struct ResponsePartition<'a> {
        /// Its number.
        partition_index: i32,
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// The producers.
        active_producers: Array<'a, Producer>,
    }

    /// A producer.
    pub struct Producer {
        /// Its id.
        producer_id: i64,
        /// Its epoch.
        producer_epoch: i32,
        /// Sequence of its last record; -1 if none.
        last_sequence: i32 = -1,
        /// Timestamp of its last batch; -1 if none.
        last_timestamp: i64 = -1,
        /// Term of the transaction coordinator that wrote its last marker.
        coordinator_epoch: i32,
        /// Where its open transaction begins; -1 if it has none.
        current_txn_start_offset: i64 = -1,
    }
}
