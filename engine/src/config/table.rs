//! The table of topic settings: every one of Kafka 4.3, in the order of its name.

use super::Valid::{Fixed, Fraction, Only, Range};
use super::{HOUR, INT_MAX, Kind, MAX, MINUTE, Setting, same, times};

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $name:literal, $kind:ident, $default:literal, $valid:expr,
            [$($synonym:expr),*];
    )*) => {
        /// What a topic sets itself; what is `None` the broker decides. Values are Kafka's
        /// numbers; those of texts are positions in [`super::Valid`].
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct LogOverrides {
            $($(#[doc = $doc])+ pub(super) $field: Option<i64>,)*
        }

        /// Every topic setting, in the order of its name.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            kind: Kind::$kind,
            default: $default,
            valid: $valid,
            synonyms: &[$($synonym),*],
            doc: concat!($($doc),+),
            get: |overrides| overrides.$field,
            set: |overrides, value| overrides.$field = value,
        }),*];
    };
}

settings! {
    /// What happens to old records: whole segments are deleted by age and size, or of each key
    /// only the newest record stays, or both.
    cleanup_policy: "cleanup.policy", List, "delete",
        Only(&["delete", "compact", "compact,delete", "delete,compact"]),
        [same("log.cleanup.policy")];
    /// Unused: the broker never compresses what producers send.
    compression_gzip_level: "compression.gzip.level", Int, "-1", Fixed(&["-1"]),
        [same("compression.gzip.level")];
    /// Unused: the broker never compresses what producers send.
    compression_lz4_level: "compression.lz4.level", Int, "9", Fixed(&["9"]),
        [same("compression.lz4.level")];
    /// How batches are stored: always as their producer compressed them.
    compression_type: "compression.type", String, "producer", Fixed(&["producer"]),
        [same("compression.type")];
    /// Unused: the broker never compresses what producers send.
    compression_zstd_level: "compression.zstd.level", Int, "3", Fixed(&["3"]),
        [same("compression.zstd.level")];
    /// How long, in milliseconds, the mark of a deleted key stays in a compacted log after
    /// what it deletes is gone: whoever reads all of the log in less time misses no deletion.
    delete_retention_ms: "delete.retention.ms", Long, "86400000", Range(0, MAX),
        [same("log.cleaner.delete.retention.ms")];
    /// Unused: segments are deleted at once, and whoever still reads one holds it open.
    file_delete_delay_ms: "file.delete.delay.ms", Long, "60000", Fixed(&["60000"]),
        [same("log.segment.delete.delay.ms")];
    /// How many records may be written without a sync. With 1, the default here, acks=all means
    /// that every in-sync replica has synced; Kafka's default leaves syncing to the kernel.
    flush_messages: "flush.messages", Long, "1", Range(1, MAX),
        [same("log.flush.interval.messages")];
    /// How long, in milliseconds, a record may be written without a sync.
    flush_ms: "flush.ms", Long, "9223372036854775807", Range(0, MAX),
        [same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")];
    /// Unused: replication is not throttled.
    follower_throttled: "follower.replication.throttled.replicas", List, "", Fixed(&[""]), [];
    /// How many bytes of a log lie between two entries of its index.
    index_interval_bytes: "index.interval.bytes", Int, "4096", Range(0, INT_MAX),
        [same("log.index.interval.bytes")];
    /// Unused: replication is not throttled.
    leader_throttled: "leader.replication.throttled.replicas", List, "", Fixed(&[""]), [];
    /// Unused without tiered storage.
    local_retention_bytes: "local.retention.bytes", Long, "-2", Fixed(&["-2"]),
        [same("log.local.retention.bytes")];
    /// Unused without tiered storage.
    local_retention_ms: "local.retention.ms", Long, "-2", Fixed(&["-2"]),
        [same("log.local.retention.ms")];
    /// How long, in milliseconds, a record may at most wait for compaction.
    max_compaction_lag_ms: "max.compaction.lag.ms", Long, "9223372036854775807",
        Range(1, MAX), [same("log.cleaner.max.compaction.lag.ms")];
    /// The largest batch, in bytes, as its producer sends it (compressed, if it is).
    max_message_bytes: "max.message.bytes", Int, "1048588", Range(0, INT_MAX),
        [same("message.max.bytes")];
    /// How far, in milliseconds, a producer's timestamp may lie ahead of the broker's clock.
    timestamp_after_max_ms: "message.timestamp.after.max.ms", Long, "3600000", Range(0, MAX),
        [same("log.message.timestamp.after.max.ms")];
    /// How far, in milliseconds, a producer's timestamp may lie behind the broker's clock.
    timestamp_before_max_ms: "message.timestamp.before.max.ms", Long, "9223372036854775807",
        Range(0, MAX), [same("log.message.timestamp.before.max.ms")];
    /// Whether records keep the time that their producer gave them (CreateTime) or get the time
    /// of their append (LogAppendTime).
    timestamp_type: "message.timestamp.type", String, "CreateTime",
        Only(&["CreateTime", "LogAppendTime"]), [same("log.message.timestamp.type")];
    /// Which part of a log must not have been compacted yet for compaction to be worth it.
    min_cleanable_dirty_ratio: "min.cleanable.dirty.ratio", Double, "0.5", Fraction,
        [same("log.cleaner.min.cleanable.ratio")];
    /// How long, in milliseconds, a record is left alone by compaction at the least.
    min_compaction_lag_ms: "min.compaction.lag.ms", Long, "0", Range(0, MAX),
        [same("log.cleaner.min.compaction.lag.ms")];
    /// How many replicas must be in sync for a produce request with acks=all to be taken.
    min_insync_replicas: "min.insync.replicas", Int, "1", Range(1, INT_MAX),
        [same("min.insync.replicas")];
    /// Has no effect: segments are always preallocated.
    preallocate: "preallocate", Boolean, "false", Only(&["false", "true"]),
        [same("log.preallocate")];
    /// Unused without tiered storage.
    remote_copy_disable: "remote.log.copy.disable", Boolean, "false", Fixed(&["false"]), [];
    /// Unused without tiered storage.
    remote_delete_on_disable: "remote.log.delete.on.disable", Boolean, "false",
        Fixed(&["false"]), [];
    /// Whether old segments move to other storage, which is not built.
    remote_storage_enable: "remote.storage.enable", Boolean, "false", Fixed(&["false"]), [];
    /// How large, in bytes, a partition may grow before its oldest segments are deleted; below 0
    /// without a limit.
    retention_bytes: "retention.bytes", Long, "-1", Range(i64::MIN, MAX),
        [same("log.retention.bytes")];
    /// How old, in milliseconds, a segment's newest record may get before the segment is deleted;
    /// -1 without a limit.
    retention_ms: "retention.ms", Long, "604800000", Range(-1, MAX),
        [same("log.retention.ms"), times("log.retention.minutes", MINUTE),
         times("log.retention.hours", HOUR)];
    /// How large, in bytes, a segment grows before the next one is begun.
    segment_bytes: "segment.bytes", Int, "1073741824", Range(1 << 20, INT_MAX),
        [same("log.segment.bytes")];
    /// Unused: indexes grow with their segment.
    segment_index_bytes: "segment.index.bytes", Int, "10485760", Fixed(&["10485760"]),
        [same("log.index.size.max.bytes")];
    /// Unused: segments are not begun at random times.
    segment_jitter_ms: "segment.jitter.ms", Long, "0", Fixed(&["0"]),
        [same("log.roll.jitter.ms"), same("log.roll.jitter.hours")];
    /// How old, in milliseconds, a segment gets before the next one is begun.
    segment_ms: "segment.ms", Long, "604800000", Range(1, MAX),
        [same("log.roll.ms"), times("log.roll.hours", HOUR)];
    /// Whether a replica that may lack records becomes leader when no other is left.
    unclean_election: "unclean.leader.election.enable", Boolean, "false", Only(&["false", "true"]),
        [same("unclean.leader.election.enable")];
}
