//! ConsumerGroupHeartbeat (key 68): a member of a consumer group joins, lives and leaves (KIP-848).
//!
//! Versions 0–1. 1: subscriptions by regular expression; the member chooses its id itself.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// What a member is, wants and has. Null where nothing changed since the last heartbeat.
    pub struct ConsumerGroupHeartbeatRequest<'a>:
        request 68 -> ConsumerGroupHeartbeatResponse<'r>, versions 0..=1, flexible 0;
    {
        /// The group.
        group_id: &'a str,
        /// The member; empty in version 0 if it has no id yet.
        member_id: &'a str,
        /// Its epoch; 0 to join, -1 to leave, -2 if the static member will be back.
        member_epoch: i32,
        /// Its instance id, if it is static.
        instance_id: Option<&'a str>,
        /// The rack it is in.
        rack_id: Option<&'a str>,
        /// Milliseconds that it may take to give up partitions; -1 for no change.
        rebalance_timeout_ms: i32 = -1,
        /// The topics that it is subscribed to, by name.
        subscribed_topic_names: Option<Array<'a, &'a str>>,
        /// The same by a regular expression; empty for none.
        subscribed_topic_regex: Option<&'a str> [1..],
        /// The assignor that it prefers.
        server_assignor: Option<&'a str>,
        /// The partitions that it has.
        topic_partitions: Option<Array<'a, TopicPartitions<'a>>>,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions<'a> {
        /// Its id.
        topic_id: TopicId,
        /// The partitions.
        partitions: Array<'a, i32>,
    }

    /// What the member is to do.
    pub struct ConsumerGroupHeartbeatResponse<'a>: response 68, versions 0..=1, flexible 0;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// What went wrong, if anything did.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// The member's id.
        member_id: Option<Cow<'a, str>>,
        /// Its epoch.
        member_epoch: i32,
        /// Milliseconds to the next heartbeat.
        heartbeat_interval_ms: i32,
        /// What it is to have; null for no change.
        assignment: Option<Assignment<'a>>,
    }

    /// What a member is to have.
    pub struct Assignment<'a> {
        /// By topic.
        topic_partitions: Array<'a, TopicPartitions<'a>>,
    }
}
