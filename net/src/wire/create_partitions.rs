//! CreatePartitions (key 37): adds partitions to topics.
//!
//! Versions 0–3. 1: as 0. 2: flexible. 3: may answer `THROTTLING_QUOTA_EXCEEDED`.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Topics that shall have more partitions.
    pub struct CreatePartitionsRequest<'a>:
        request 37 -> CreatePartitionsResponse<'r>, versions 0..=3, flexible 2;
    {
        /// The topics.
        topics: Array<'a, RequestTopic<'a>>,
        /// Milliseconds until the broker gives up.
        timeout_ms: i32,
        /// Only say whether it would work.
        validate_only: bool,
    }

    /// A topic that shall have more partitions.
    pub struct RequestTopic<'a> {
        /// Its name.
        name: &'a str,
        /// How many it shall have then.
        count: i32,
        /// Brokers of each new partition; null leaves the choice to the broker.
        assignments: Option<Array<'a, Assignment<'a>>>,
    }

    /// Brokers of one new partition.
    pub struct Assignment<'a> {
        /// The brokers, preferred leader first.
        broker_ids: Array<'a, i32>,
    }

    /// What became of them.
    pub struct CreatePartitionsResponse<'a>: response 37, versions 0..=3, flexible 2;
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
        /// Why it stays as it is, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
    }
}
