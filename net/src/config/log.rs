//! Broker-wide values of what a topic may override: the names of `server.properties` and the topic
//! setting that each stands for (Kafka's `ServerTopicConfigSynonyms`).

/// One broker-wide name.
pub struct Synonym {
    /// The name in the file.
    pub name: &'static str,
    /// The topic setting that it gives a value to.
    pub topic: &'static str,
    /// What its number is multiplied by to become the topic's, as long as it is positive.
    pub times: i64,
}

const fn synonym(name: &'static str, topic: &'static str) -> Synonym {
    Synonym { name, topic, times: 1 }
}

const fn scaled(name: &'static str, topic: &'static str, times: i64) -> Synonym {
    Synonym { name, topic, times }
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// All of them. Of several for one topic setting the first that is given counts.
pub static SYNONYMS: &[Synonym] = &[
    synonym("compression.gzip.level", "compression.gzip.level"),
    synonym("compression.lz4.level", "compression.lz4.level"),
    synonym("compression.type", "compression.type"),
    synonym("compression.zstd.level", "compression.zstd.level"),
    synonym("log.cleaner.delete.retention.ms", "delete.retention.ms"),
    synonym("log.cleaner.max.compaction.lag.ms", "max.compaction.lag.ms"),
    synonym("log.cleaner.min.cleanable.ratio", "min.cleanable.dirty.ratio"),
    synonym("log.cleaner.min.compaction.lag.ms", "min.compaction.lag.ms"),
    synonym("log.cleanup.policy", "cleanup.policy"),
    synonym("log.flush.interval.messages", "flush.messages"),
    synonym("log.flush.interval.ms", "flush.ms"),
    synonym("log.flush.scheduler.interval.ms", "flush.ms"),
    synonym("log.index.interval.bytes", "index.interval.bytes"),
    synonym("log.index.size.max.bytes", "segment.index.bytes"),
    synonym("log.local.retention.bytes", "local.retention.bytes"),
    synonym("log.local.retention.ms", "local.retention.ms"),
    synonym("log.message.timestamp.after.max.ms", "message.timestamp.after.max.ms"),
    synonym("log.message.timestamp.before.max.ms", "message.timestamp.before.max.ms"),
    synonym("log.message.timestamp.type", "message.timestamp.type"),
    synonym("log.preallocate", "preallocate"),
    synonym("log.retention.bytes", "retention.bytes"),
    synonym("log.retention.ms", "retention.ms"),
    scaled("log.retention.minutes", "retention.ms", MINUTE),
    scaled("log.retention.hours", "retention.ms", HOUR),
    synonym("log.roll.jitter.ms", "segment.jitter.ms"),
    scaled("log.roll.jitter.hours", "segment.jitter.ms", HOUR),
    synonym("log.roll.ms", "segment.ms"),
    scaled("log.roll.hours", "segment.ms", HOUR),
    synonym("log.segment.bytes", "segment.bytes"),
    synonym("log.segment.delete.delay.ms", "file.delete.delay.ms"),
    synonym("message.max.bytes", "max.message.bytes"),
    synonym("min.insync.replicas", "min.insync.replicas"),
    synonym("unclean.leader.election.enable", "unclean.leader.election.enable"),
];

/// The row with this name.
pub fn find(name: &str) -> Option<&'static Synonym> {
    SYNONYMS.iter().find(|synonym| synonym.name == name)
}

impl Synonym {
    /// The topic's value for this name's value.
    pub fn topic_value(&self, text: &str) -> Result<String, String> {
        let text = text.trim();
        if self.times == 1 {
            return Ok(text.to_string());
        }
        let number: i64 = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
        if number < 0 {
            return Ok("-1".into());
        }
        let scaled = number.checked_mul(self.times);
        Ok(scaled.ok_or_else(|| format!("{number} is out of range"))?.to_string())
    }
}
