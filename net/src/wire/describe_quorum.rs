//! DescribeQuorum (key 55): tells who agrees on the metadata, and how far everybody is (KIP-595).
//!
//! Versions 0–2, flexible from the start. 1: when a replica fetched last, and when it had
//! everything (KIP-836). 2: errors in words, directories of replicas, endpoints of voters
//! (KIP-853).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which logs to tell of; there is one, `__cluster_metadata` 0.
    pub struct DescribeQuorumRequest<'a>:
        request 55 -> DescribeQuorumResponse<'r>, versions 0..=2, flexible 0;
    {
        /// By topic.
        topics: Array<'a, RequestTopic<'a>>,
    }

    /// Which partitions of one topic to tell of.
    pub struct RequestTopic<'a> {
        /// Its name.
        topic_name: &'a str,
        /// The partitions.
        partitions: Array<'a, RequestPartition>,
    }

    /// A partition to tell of.
    pub struct RequestPartition {
        /// Its number.
        partition_index: i32,
    }

    /// The quorum.
    pub struct DescribeQuorumResponse<'a>: response 55, versions 0..=2, flexible 0;
    {
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>> [2..],
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
        /// Where voters listen.
        nodes: Array<'a, Node<'a>> [2..],
    }

    /// The quorum of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        topic_name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ResponsePartition<'a>>,
    }

    /// The quorum of one partition.
    pub struct ResponsePartition<'a> {
        /// Its number.
        partition_index: i32,
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>> [2..],
        /// The leader; -1 if there is none.
        leader_id: i32,
        /// Its term.
        leader_epoch: i32,
        /// Exclusive end of what is committed.
        high_watermark: i64,
        /// Those whose vote counts.
        current_voters: Array<'a, ReplicaState>,
        /// Those who only follow.
        observers: Array<'a, ReplicaState>,
    }

    /// How far a replica is.
    pub struct ReplicaState {
        /// Its node.
        replica_id: i32,
        /// Its directory.
        replica_directory_id: [u8; 16] [2..],
        /// Exclusive end of its log; -1 if unknown.
        log_end_offset: i64,
        /// Wall clock of the leader, in milliseconds, when it fetched last; -1 if unknown.
        last_fetch_timestamp: i64 [1..] = -1,
        /// The same, when it had everything that the leader had; -1 if unknown.
        last_caught_up_timestamp: i64 [1..] = -1,
    }

    /// Where a voter listens.
    pub struct Node<'a> {
        /// Its id.
        node_id: i32,
        /// By listener.
        listeners: Array<'a, Listener<'a>>,
    }

    /// A listener of a voter.
    pub struct Listener<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// Its host.
        host: Cow<'a, str>,
        /// Its port.
        port: u16,
    }
}
