//! Fetch (key 1): reads record batches, for consumers and for replicas.
//!
//! Versions 4–18. 4: isolation level and last stable offset. 5: log start offset. 7: incremental
//! sessions (KIP-227). 9: current leader epoch. 10: may answer zstd. 11: rack, for reads from the
//! nearest replica. 12: flexible; divergence by last fetched epoch (KIP-595). 13: topics by id.
//! 15: the replica's state is a tagged field instead of a replica id. 16: endpoints of new leaders
//! (KIP-951). 17: the replica's directory. 18: the replica's high watermark (KIP-1166).
//!
//! Private fields go with every version that has tagged fields, under tags far above Kafka's, so
//! that others skip them: what a follower of ours says beside Kafka's words.
//!
//! Records of an answer are not encoded but announced, see [`Records::Elsewhere`].

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::produce::{LeaderIdAndEpoch, NodeEndpoint};
use super::{Array, ErrorCode, Records};

message! {
    /// Where to read, and how long to wait for how much.
    pub struct FetchRequest<'a>: request 1 -> FetchResponse<'r>, versions 4..=18, flexible 12;
    {
        /// The cluster that the replica means to read from.
        cluster_id: Option<&'a str> [12.., tag 0],
        /// The replica that reads; -1 for a consumer.
        replica_id: i32 [..=14] = -1,
        /// The replica that reads.
        replica_state: ReplicaState [15.., tag 1],
        /// Milliseconds to wait for `min_bytes`.
        max_wait_ms: i32,
        /// Answer as soon as this much is there.
        min_bytes: i32,
        /// Answer with about this much at most.
        max_bytes: i32 = i32::MAX,
        /// 0 reads up to the high watermark, 1 up to the last stable offset.
        isolation_level: i8,
        /// The incremental session; 0 for none.
        session_id: i32 [7..],
        /// How many times the session was used; -1 for no session, 0 for a new one.
        session_epoch: i32 [7..] = -1,
        /// What to read; in a session: what changed.
        topics: Array<'a, RequestTopic<'a>>,
        /// What the session shall forget.
        forgotten_topics: Array<'a, ForgottenTopic<'a>> [7..],
        /// Where the consumer is.
        rack_id: &'a str [11..],
        /// Ours, and to be ignored from a client: number of the request within a follower's
        /// stream; -1 outside of one.
        stream_seq: i64 [12.., tag 10_000] = -1,
    }

    /// Who the replica is.
    pub struct ReplicaState {
        /// Its broker; -1 for a consumer.
        replica_id: i32 = -1,
        /// Its broker epoch; -1 if unknown.
        replica_epoch: i64 = -1,
    }

    /// What to read of one topic.
    pub struct RequestTopic<'a> {
        /// Its name.
        topic: &'a str [..=12],
        /// Its id.
        topic_id: TopicId [13..],
        /// By partition.
        partitions: Array<'a, RequestPartition>,
    }

    /// What to read of one partition.
    pub struct RequestPartition {
        /// Its number.
        partition: i32,
        /// The leader's term as the reader knows it; -1 if it does not.
        current_leader_epoch: i32 [9..] = -1,
        /// First offset to read; Kafka's replica promises that it has everything below. From a
        /// follower of ours only a position: its promise is `durable_end`, and -1 means where the
        /// last answer ended.
        fetch_offset: i64,
        /// Term of the last record that the replica has; -1 if there is none.
        last_fetched_epoch: i32 [12..] = -1,
        /// The replica's first offset; -1 from a consumer.
        log_start_offset: i64 [5..] = -1,
        /// About how much to answer at most.
        partition_max_bytes: i32,
        /// The directory that the replica keeps it in.
        replica_directory_id: [u8; 16] [17.., tag 0],
        /// The high watermark that the replica knows.
        high_watermark: i64 [18.., tag 1] = i64::MAX,
        /// Ours, and to be ignored from a client: exclusive end of what the follower has at the
        /// topic's durability, which is what it promises; -1 if it does not say.
        durable_end: i64 [12.., tag 10_000] = -1,
        /// Ours, likewise: the version of the partition's metadata that the follower knows; -1 if
        /// it does not say.
        partition_epoch: i32 [12.., tag 10_001] = -1,
    }

    /// Partitions that a session shall forget.
    pub struct ForgottenTopic<'a> {
        /// The topic's name.
        topic: &'a str [..=12],
        /// The topic's id.
        topic_id: TopicId [13..],
        /// Numbers of the partitions.
        partitions: Array<'a, i32>,
    }

    /// What was read.
    pub struct FetchResponse<'a>: response 1, versions 4..=18, flexible 12;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// What is wrong with the request as a whole.
        error_code: ErrorCode [7..],
        /// The incremental session; 0 for none.
        session_id: i32 [7..],
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
        /// Endpoints of the leaders named in the partitions.
        node_endpoints: Array<'a, NodeEndpoint<'a>> [16.., tag 0],
    }

    /// What was read of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        topic: Cow<'a, str> [..=12],
        /// Its id.
        topic_id: TopicId [13..],
        /// By partition.
        partitions: Array<'a, ResponsePartition<'a>>,
    }

    /// What was read of one partition.
    pub struct ResponsePartition<'a> {
        /// Its number.
        partition_index: i32,
        /// Why nothing was read, if so.
        error_code: ErrorCode,
        /// Exclusive end of what is committed.
        high_watermark: i64,
        /// Exclusive end of what has no open transaction; -1 with an error.
        last_stable_offset: i64 = -1,
        /// First readable offset.
        log_start_offset: i64 [5..] = -1,
        /// Where the replica's log parts from this one.
        diverging_epoch: EpochEndOffset [12.., tag 0],
        /// Who leads now, when it is not this broker.
        current_leader: LeaderIdAndEpoch [12.., tag 1],
        /// The snapshot to fetch instead (metadata log only).
        snapshot_id: SnapshotId [12.., tag 2],
        /// Aborted transactions in what was read; null for isolation level 0.
        aborted_transactions: Option<Array<'a, AbortedTransaction>>,
        /// The replica that the consumer should rather ask; -1 for this one.
        preferred_read_replica: i32 [11..] = -1,
        /// Whole batches; the first may begin before the offset asked for.
        records: Option<Records<'a>>,
    }

    /// The end of an epoch.
    pub struct EpochEndOffset {
        /// The epoch; -1 if there is none.
        epoch: i32 = -1,
        /// Its exclusive end; -1 if there is none.
        end_offset: i64 = -1,
    }

    /// Name of a snapshot.
    pub struct SnapshotId {
        /// Exclusive end of what it holds; -1 if there is none.
        end_offset: i64 = -1,
        /// Its epoch; -1 if there is none.
        epoch: i32 = -1,
    }

    /// A transaction to be skipped.
    pub struct AbortedTransaction {
        /// Whose it is.
        producer_id: i64,
        /// Its first offset.
        first_offset: i64,
    }
}
