//! Produce (key 0): appends record batches.
//!
//! Versions 3–13; 0–2 are advertised but gone (KAFKA-18659, see `api.rs`). 3: record batch v2,
//! transactional id. 5: log start offset. 8: errors per record (KIP-467). 9: flexible. 10: current
//! leader and its endpoint in the answer (KIP-951). 13: topics by id instead of by name (KIP-516).
//! Other versions changed only what the sender means: 7 may carry zstd, 11 and 12 belong to the
//! newer transaction protocol (KIP-890).
//!
//! `acks = 0` is never answered. Record sets stay slices of the frame.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode, Records};

message! {
    /// Record batches for partitions.
    pub struct ProduceRequest<'a>: request 0 -> ProduceResponse<'r>, versions 3..=13, flexible 9;
    {
        /// Of the transaction that the batches belong to, if they do.
        transactional_id: Option<&'a str>,
        /// Who must have them before the answer: 0 nobody (and there is no answer), 1 the leader,
        /// -1 every in-sync replica.
        acks: i16,
        /// Milliseconds until the broker gives up waiting for replicas.
        timeout_ms: i32,
        /// By topic.
        topics: Array<'a, RequestTopic<'a>>,
    }

    /// Batches for one topic.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str [..=12],
        /// Its id.
        topic_id: TopicId [13..],
        /// By partition.
        partitions: Array<'a, RequestPartition<'a>>,
    }

    /// Batches for one partition.
    pub struct RequestPartition<'a> {
        /// Its number.
        index: i32,
        /// One or more batches.
        records: Option<Records<'a>>,
    }

    /// Where the batches went.
    pub struct ProduceResponse<'a>: response 0, versions 3..=13, flexible 9;
    {
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Endpoints of the leaders named in the partitions.
        node_endpoints: Array<'a, NodeEndpoint<'a>> [10.., tag 0],
    }

    /// Where one topic's batches went.
    pub struct ResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str> [..=12],
        /// Its id.
        topic_id: TopicId [13..],
        /// By partition.
        partitions: Array<'a, ResponsePartition<'a>>,
    }

    /// Where one partition's batches went.
    pub struct ResponsePartition<'a> {
        /// Its number.
        index: i32,
        /// Why they were not appended, if so.
        error_code: ErrorCode,
        /// Offset of the first record appended; -1 with an error.
        base_offset: i64,
        /// The broker's timestamp when the topic uses LogAppendTime, else -1.
        log_append_time_ms: i64 = -1,
        /// First readable offset.
        log_start_offset: i64 [5..] = -1,
        /// Records that made their batch be refused.
        record_errors: Array<'a, RecordError<'a>> [8..],
        /// What is wrong, in words, about the batch as a whole.
        error_message: Option<Cow<'a, str>> [8..],
        /// Who leads now, when it is not this broker.
        current_leader: LeaderIdAndEpoch [10.., tag 0],
    }

    /// A record that was refused.
    pub struct RecordError<'a> {
        /// Its index within the batch.
        batch_index: i32,
        /// What is wrong with it, in words.
        message: Option<Cow<'a, str>>,
    }

    /// A leader and its term.
    pub struct LeaderIdAndEpoch {
        /// The broker; -1 if unknown.
        leader_id: i32 = -1,
        /// Its term; -1 if unknown.
        leader_epoch: i32 = -1,
    }

    /// Where a broker can be reached.
    pub struct NodeEndpoint<'a> {
        /// The broker.
        node_id: i32,
        /// Its host.
        host: Cow<'a, str>,
        /// Its port.
        port: i32,
        /// Its rack.
        rack: Option<Cow<'a, str>>,
    }
}
