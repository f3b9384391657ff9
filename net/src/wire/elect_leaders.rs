//! ElectLeaders (key 43): has leaders of partitions elected now (KIP-183, KIP-460).
//!
//! Versions 0–2. 1: the kind of election, and an error for the request as a whole. 2: flexible.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// Election type: the first of the partition's replicas, if it is in sync.
pub const PREFERRED: i8 = 0;
/// Election type: any replica that is alive, in sync or not, where there is no leader.
pub const UNCLEAN: i8 = 1;

message! {
    /// Which partitions shall have an election.
    pub struct ElectLeadersRequest<'a>:
        request 43 -> ElectLeadersResponse<'r>, versions 0..=2, flexible 2;
    {
        /// [`PREFERRED`] or [`UNCLEAN`].
        election_type: i8 [1..] = PREFERRED,
        /// By topic; null for all partitions.
        topic_partitions: Option<Array<'a, TopicPartitions<'a>>>,
        /// Milliseconds that it may take.
        timeout_ms: i32 = 60_000,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions<'a> {
        /// Its name.
        topic: &'a str,
        /// Numbers of the partitions.
        partitions: Array<'a, i32>,
    }

    /// What became of the elections.
    pub struct ElectLeadersResponse<'a>: response 43, versions 0..=2, flexible 2;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why none was held, if so.
        error_code: ErrorCode [1..],
        /// By topic.
        replica_election_results: Array<'a, ReplicaElectionResult<'a>>,
    }

    /// What became of the elections of one topic.
    pub struct ReplicaElectionResult<'a> {
        /// Its name.
        topic: Cow<'a, str>,
        /// By partition.
        partition_result: Array<'a, PartitionResult<'a>>,
    }

    /// What became of one election.
    pub struct PartitionResult<'a> {
        /// The partition.
        partition_id: i32,
        /// Why it has no new leader, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
    }
}
