//! CreateTopics (key 19): creates topics.
//!
//! Versions 2–7. 4: -1 asks for the broker's default of partitions and replication (KIP-464). 5:
//! flexible; the answer tells the configuration (KIP-525). 6: may answer
//! `THROTTLING_QUOTA_EXCEEDED`. 7: the answer tells the topic's id.

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Topics to create.
    pub struct CreateTopicsRequest<'a>:
        request 19 -> CreateTopicsResponse<'r>, versions 2..=7, flexible 5;
    {
        /// The topics.
        topics: Array<'a, RequestTopic<'a>>,
        /// Milliseconds until the broker gives up.
        timeout_ms: i32 = 60_000,
        /// Only say whether it would work.
        validate_only: bool,
    }

    /// A topic to create.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// Number of partitions; -1 for the default, or if assigned below.
        num_partitions: i32,
        /// Number of replicas each; -1 for the default, or if assigned below.
        replication_factor: i16,
        /// Brokers by partition; none leaves the choice to the broker.
        assignments: Array<'a, Assignment<'a>>,
        /// Configuration that differs from the default.
        configs: Array<'a, RequestConfig<'a>>,
    }

    /// Brokers of one partition.
    pub struct Assignment<'a> {
        /// The partition.
        partition_index: i32,
        /// The brokers, preferred leader first.
        broker_ids: Array<'a, i32>,
    }

    /// A configuration entry.
    pub struct RequestConfig<'a> {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: Option<&'a str>,
    }

    /// What became of them.
    pub struct CreateTopicsResponse<'a>: response 19, versions 2..=7, flexible 5;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
    }

    /// What became of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// Its id.
        topic_id: TopicId [7..],
        /// Why it was not created, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// Why its configuration is not told, if so.
        topic_config_error_code: ErrorCode [5.., tag 0],
        /// Number of partitions; -1 if not told.
        num_partitions: i32 [5..] = -1,
        /// Number of replicas each; -1 if not told.
        replication_factor: i16 [5..] = -1,
        /// Its configuration; null if not told.
        configs: Option<Array<'a, ResponseConfig<'a>>> [5..],
    }

    /// A configuration entry.
    pub struct ResponseConfig<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// Its value.
        value: Option<Cow<'a, str>>,
        /// Whether it cannot be changed.
        read_only: bool,
        /// Where it comes from: see [`super::describe_configs`].
        config_source: i8 = -1,
        /// Whether its value is secret.
        is_sensitive: bool,
    }
}
