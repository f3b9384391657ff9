//! Typed settings of a log. Interim: the table of Kafka's names and documentation is on its way.

use crate::batch::TimestampType;
use crate::producers::ProducerLimits;

/// What one topic's logs are told.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: u64,
    /// `retention.ms`; `None` keeps for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`; `None` keeps everything.
    pub retention_bytes: Option<u64>,
    /// `flush.messages`; 1 means: synced before committed.
    pub flush_messages: u64,
    /// `flush.ms`; `None` leaves it to the device.
    pub flush_ms: Option<u64>,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`.
    pub message_bytes_max: u32,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 86_400_000,
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
            flush_messages: 1,
            flush_ms: None,
            index_interval_bytes: 4096,
            message_bytes_max: 1_048_588,
            min_insync_replicas: 1,
            timestamp_type: TimestampType::CreateTime,
        }
    }
}

impl LogConfig {
    /// What bounds the producers of one partition.
    pub fn producer_limits(&self) -> ProducerLimits {
        ProducerLimits { producers_max: 10_000, expiration_ms: 86_400_000 }
    }
}
