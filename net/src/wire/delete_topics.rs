//! DeleteTopics (key 20): deletes topics.
//!
//! Versions 1–6. 4: flexible. 5: error in words; may answer `THROTTLING_QUOTA_EXCEEDED`. 6: topics
//! by name or by id, in a list of its own (KIP-516).

use std::borrow::Cow;

use engine::ids::TopicId;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Topics to delete.
    pub struct DeleteTopicsRequest<'a>:
        request 20 -> DeleteTopicsResponse<'r>, versions 1..=6, flexible 4;
    {
        /// The topics, by name or id.
        topics: Array<'a, RequestTopic<'a>> [6..],
        /// The topics, by name.
        topic_names: Array<'a, &'a str> [..=5],
        /// Milliseconds until the broker gives up.
        timeout_ms: i32,
    }

    /// A topic to delete.
    pub struct RequestTopic<'a> {
        /// Its name; null if it is given by id.
        name: Option<&'a str>,
        /// Its id; zero if it is given by name.
        topic_id: TopicId,
    }

    /// What became of them.
    pub struct DeleteTopicsResponse<'a>: response 20, versions 1..=6, flexible 4;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By topic.
        topics: Array<'a, ResponseTopic<'a>>,
    }

    /// What became of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name; null if it was given by an id that is unknown.
        name: Option<Cow<'a, str>> [0.., nullable 6..],
        /// Its id.
        topic_id: TopicId [6..],
        /// Why it was not deleted, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>> [5..],
    }
}
