//! DescribeLogDirs (key 35): log directories, and what is in them.
//!
//! Versions 1–5. 2: flexible. 3: an error for the whole request. 4: size of the volume (KIP-827).
//! 5: whether the directory is closed to new partitions (KIP-1066).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which partitions to tell.
    pub struct DescribeLogDirsRequest<'a>:
        request 35 -> DescribeLogDirsResponse<'r>, versions 1..=5, flexible 2;
    {
        /// The topics; null for all.
        topics: Option<Array<'a, RequestTopic<'a>>>,
    }

    /// Which partitions of one topic to tell.
    pub struct RequestTopic<'a> {
        /// Its name.
        topic: &'a str,
        /// Numbers of the partitions.
        partitions: Array<'a, i32>,
    }

    /// The directories.
    pub struct DescribeLogDirsResponse<'a>: response 35, versions 1..=5, flexible 2;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// What is wrong with the request as a whole.
        error_code: ErrorCode [3..],
        /// By directory.
        results: Array<'a, LogDir<'a>>,
    }

    /// A directory.
    pub struct LogDir<'a> {
        /// What is wrong with it, if anything.
        error_code: ErrorCode,
        /// Its absolute path.
        log_dir: Cow<'a, str>,
        /// What is in it.
        topics: Array<'a, ResponseTopic<'a>>,
        /// Size of its volume in bytes; -1 if unknown.
        total_bytes: i64 [4..] = -1,
        /// Room left on its volume in bytes; -1 if unknown.
        usable_bytes: i64 [4..] = -1,
        /// Whether it is closed to new partitions.
        is_cordoned: bool [5..],
    }

    /// What is there of one topic.
    pub struct ResponseTopic<'a> {
        /// Its name.
        name: Cow<'a, str>,
        /// By partition.
        partitions: Array<'a, ResponsePartition>,
    }

    /// What is there of one partition.
    pub struct ResponsePartition {
        /// Its number.
        partition_index: i32,
        /// Bytes in its segments.
        partition_size: i64,
        /// How far its end is behind the high watermark, or the replica that it will replace.
        offset_lag: i64,
        /// Whether it will replace the replica that is served now.
        is_future_key: bool,
    }
}
