//! AlterPartitionReassignments (key 45): moves partitions to other replicas, or stops such a move
//! (KIP-455).
//!
//! Versions 0–1, flexible from the start. 1: a move that changes the number of replicas may be
//! refused (KIP-860).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Where partitions shall be.
    pub struct AlterPartitionReassignmentsRequest<'a>:
        request 45 -> AlterPartitionReassignmentsResponse<'r>, versions 0..=1, flexible 0;
    {
        /// Milliseconds that it may take.
        timeout_ms: i32 = 60_000,
        /// Whether a partition may get more or fewer replicas than it has.
        allow_replication_factor_change: bool [1..] = true,
        /// By topic.
        topics: Array<'a, ReassignableTopic<'a>>,
    }

    /// Where partitions of one topic shall be.
    pub struct ReassignableTopic<'a> {
        /// Its name.
        name: &'a str,
        /// By partition.
        partitions: Array<'a, ReassignablePartition<'a>>,
    }

    /// Where one partition shall be.
    pub struct ReassignablePartition<'a> {
        /// Its number.
        partition_index: i32,
        /// Its replicas, the preferred leader first; null to stop the move that is under way.
        replicas: Option<Array<'a, i32>>,
    }

    /// Which moves have begun (or stopped).
    pub struct AlterPartitionReassignmentsResponse<'a>: response 45, versions 0..=1, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// What the request said.
        allow_replication_factor_change: bool [1..] = true,
        /// Why none has, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// By topic.
        responses: Array<'a, ReassignableTopicResponse<'a>>,
    }

    /// Moves of one topic.
    pub struct ReassignableTopicResponse<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ReassignablePartitionResponse<'a>>,
    }

    /// The move of one partition.
    pub struct ReassignablePartitionResponse<'a> {
        /// Its number.
        partition_index: i32,
        /// Why it has not begun, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
    }
}
