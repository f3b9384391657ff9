//! Metadata (key 3): brokers, topics, partitions, leaders.
//!
//! Versions 0–13. 1: rack, controller; null means all topics (before, an empty list did). 2:
//! cluster id. 3: throttle time. 4: the client says whether topics may be created. 5: offline
//! replicas. 7: leader epoch. 8: authorized operations. 9: flexible. 10: topic ids in answers
//! (asking by id is refused before 12). 11: the cluster's authorized operations moved to
//! DescribeCluster. 12: topics may be asked for by id. 13: an error for the whole request.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

/// What `…_authorized_operations` says when it was not asked for.
pub const OPERATIONS_UNKNOWN: i32 = i32::MIN;

message! {
    /// Which topics to describe.
    pub struct MetadataRequest<'a>:
        request 3 -> MetadataResponse<'r>, versions 0..=13, flexible 9;
    {
        /// The topics; null for all. In version 0, none means all.
        topics: Option<Array<'a, RequestTopic<'a>>> [0.., nullable 1..],
        /// Whether topics that do not exist may be created.
        allow_auto_topic_creation: bool [4..] = true,
        /// Whether to tell what the client may do to the cluster.
        include_cluster_authorized_operations: bool [8..=10],
        /// Whether to tell what the client may do to the topics.
        include_topic_authorized_operations: bool [8..],
    }

    /// A topic to describe.
    pub struct RequestTopic<'a> {
        /// Its id; zero if it is asked for by name.
        topic_id: TopicId [10..],
        /// Its name; null if it is asked for by id.
        name: Option<&'a str> [0.., nullable 10..],
    }

    /// The cluster as this broker sees it.
    pub struct MetadataResponse<'a>: response 3, versions 0..=13, flexible 9;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [3..],
        /// All brokers.
        brokers: Array<'a, Broker<'a>>,
        /// The cluster's id.
        cluster_id: Option<Cow<'a, str>> [2..],
        /// The broker that clients take for the controller; -1 if unknown.
        controller_id: i32 [1..] = -1,
        /// The topics asked for.
        topics: Array<'a, ResponseTopic<'a>>,
        /// Bits of what the client may do to the cluster.
        cluster_authorized_operations: i32 [8..=10] = OPERATIONS_UNKNOWN,
        /// What is wrong with the request as a whole.
        error_code: ErrorCode [13..],
    }

    /// A broker.
    pub struct Broker<'a> {
        /// Its id.
        node_id: i32,
        /// Its host.
        host: Cow<'a, str>,
        /// Its port.
        port: i32,
        /// Its rack.
        rack: Option<Cow<'a, str>> [1..],
    }

    /// A topic.
    pub struct ResponseTopic<'a> {
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// Its name; null if it was asked for by an id that is unknown.
        name: Option<Cow<'a, str>> [0.., nullable 12..],
        /// Its id.
        topic_id: TopicId [10..],
        /// Whether it is the broker's own.
        is_internal: bool [1..],
        /// Its partitions.
        partitions: Array<'a, ResponsePartition<'a>>,
        /// Bits of what the client may do to it.
        topic_authorized_operations: i32 [8..] = OPERATIONS_UNKNOWN,
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
        leader_epoch: i32 [7..] = -1,
        /// All brokers that keep it.
        replica_nodes: Array<'a, i32>,
        /// Those in sync.
        isr_nodes: Array<'a, i32>,
        /// Those that cannot serve it.
        offline_replicas: Array<'a, i32> [5..],
    }
}
