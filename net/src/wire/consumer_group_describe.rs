//! ConsumerGroupDescribe (key 69): consumer groups and their members (KIP-848).
//!
//! Versions 0–1. 1: whether a member speaks the classic protocol (KIP-1099).

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

/// Member type: speaks the classic protocol.
pub const CLASSIC: i8 = 0;
/// Member type: speaks the protocol of KIP-848.
pub const CONSUMER: i8 = 1;

message! {
    /// Which groups to describe.
    pub struct ConsumerGroupDescribeRequest<'a>:
        request 69 -> ConsumerGroupDescribeResponse<'r>, versions 0..=1, flexible 0;
    {
        /// Their ids.
        group_ids: Array<'a, &'a str>,
        /// Whether to say what the client may do with them.
        include_authorized_operations: bool,
    }

    /// The groups.
    pub struct ConsumerGroupDescribeResponse<'a>: response 69, versions 0..=1, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By group.
        groups: Array<'a, DescribedGroup<'a>>,
    }

    /// One group.
    pub struct DescribedGroup<'a> {
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// Its id.
        group_id: Cow<'a, str>,
        /// Its state: `Stable`, `Reconciling`, …; empty with an error.
        group_state: Cow<'a, str>,
        /// Epoch of what its members are and want.
        group_epoch: i32,
        /// Epoch that the target assignment was made for.
        assignment_epoch: i32,
        /// The assignor that made it.
        assignor_name: Cow<'a, str>,
        /// Its members.
        members: Array<'a, Member<'a>>,
        /// What the client may do with it, as bits; `i32::MIN` if not asked for.
        authorized_operations: i32 = i32::MIN,
    }

    /// One member.
    pub struct Member<'a> {
        /// Its id.
        member_id: Cow<'a, str>,
        /// Its instance id, if it is static.
        instance_id: Option<Cow<'a, str>>,
        /// The rack it is in.
        rack_id: Option<Cow<'a, str>>,
        /// Its epoch.
        member_epoch: i32,
        /// What its client calls itself.
        client_id: Cow<'a, str>,
        /// Where it connects from.
        client_host: Cow<'a, str>,
        /// The topics that it is subscribed to, by name.
        subscribed_topic_names: Array<'a, Cow<'a, str>>,
        /// The same by a regular expression.
        subscribed_topic_regex: Option<Cow<'a, str>>,
        /// What it has.
        assignment: Assignment<'a>,
        /// What it is to have in the end.
        target_assignment: Assignment<'a>,
        /// [`CLASSIC`] or [`CONSUMER`]; -1 if unknown.
        member_type: i8 [1..] = -1,
    }

    /// What a member has, or is to have.
    pub struct Assignment<'a> {
        /// By topic.
        topic_partitions: Array<'a, TopicPartitions<'a>>,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions<'a> {
        /// Its id.
        topic_id: TopicId,
        /// Its name.
        topic_name: Cow<'a, str>,
        /// The partitions.
        partitions: Array<'a, i32>,
    }
}
