//! Settings of logs: what a topic may set, in Kafka's names, and what the engine bounds itself by.
//!
//! One table, [`SETTINGS`], holds every topic setting that Kafka 4.3 has: name, the broker
//! properties that give its default, type, default, valid values and one sentence. The same table
//! parses values, reads them back and answers DescribeConfigs. A topic's own values are
//! [`LogOverrides`]; [`effective`] makes a typed [`LogConfig`] of them, once, when they change.
//!
//! A setting of Kafka's that is not built takes only the value that describes what happens anyway,
//! usually Kafka's default: whoever copies a topic's settings from Kafka is not refused for
//! nothing, and whoever asks for what is not there is told so.
//!
//! Source: Kafka's `LogConfig`, `TopicConfig` and `ServerTopicConfigSynonyms` (KIP-1030 bounds).

use std::fmt;

use crate::batch::{Depth, Rules, TimestampRule, TimestampType};
use crate::producers::ProducerLimits;
use crate::time::Timestamp;

/// What bounds the engine of one shard, whatever its topics are set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Largest block of a tail, and so the largest single device write, in bytes. A batch that is
    /// larger gets a block of its own size.
    pub block_bytes_max: usize,
    /// Frozen blocks that a shard keeps as the read cache of its logs' hot ends, in bytes.
    pub tail_bytes_max: usize,
    /// Largest batch after decompression, in bytes: what checking a small batch may cost.
    pub decompressed_bytes_max: u64,
    /// Idempotent producers that one partition remembers.
    pub producers_max: usize,
    /// How long an idle idempotent producer is remembered, in ms (`producer.id.expiration.ms`).
    pub producer_expiration_ms: u64,
    /// Time between two checkpoints of a log that changed, in ms: bounds what recovery scans.
    pub checkpoint_ms: u64,
    /// Time between two looks for segments that retention may delete, in ms
    /// (`log.retention.check.interval.ms`).
    pub retention_check_ms: u64,
    /// Memory of the map of keys while a log is compacted, in bytes; one log of a shard is, at a
    /// time (`log.cleaner.dedupe.buffer.size`, which Kafka has for all of a broker).
    pub dedupe_bytes: usize,
    /// Time between two looks for logs that are worth compacting, in ms
    /// (`log.cleaner.backoff.ms`).
    pub compaction_check_ms: u64,
}

impl Default for EngineLimits {
    fn default() -> EngineLimits {
        EngineLimits {
            block_bytes_max: 4 << 20,
            tail_bytes_max: 64 << 20,
            decompressed_bytes_max: 64 << 20,
            producers_max: 10_000,
            producer_expiration_ms: 86_400_000,
            checkpoint_ms: 60_000,
            retention_check_ms: 300_000,
            dedupe_bytes: 8 << 20,
            compaction_check_ms: 15_000,
        }
    }
}

/// The settings of one log, typed; valid by construction where [`effective`] made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is closed before it grows beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment is closed when its first record is this old, in ms.
    pub segment_ms: u64,
    /// Segments whose newest record is older than this many ms go; `None`: none does.
    pub retention_ms: Option<u64>,
    /// The oldest segments go while the log is larger than this many bytes; `None`: none does.
    pub retention_bytes: Option<u64>,
    /// Records that may be unsynced before a sync is forced; 1: synced before acks=all replies.
    pub flush_messages: u64,
    /// How long a record may be unsynced, in ms; `None`: without a limit.
    pub flush_ms: Option<u64>,
    /// Bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// Largest batch as it is sent, in bytes.
    pub message_bytes_max: u32,
    /// Whose timestamps are stored.
    pub timestamp_type: TimestampType,
    /// How far a producer's timestamp may lie in the past, in ms.
    pub timestamp_before_max_ms: u64,
    /// How far a producer's timestamp may lie in the future, in ms.
    pub timestamp_after_max_ms: u64,
    /// In-sync replicas that acks=all needs.
    pub min_insync_replicas: u32,
    /// Of each key only the newest record stays (`cleanup.policy` has `compact`).
    pub compacts: bool,
    /// Old segments go by age and size (`cleanup.policy` has `delete`).
    pub deletes: bool,
    /// How long deletion marks stay after what they delete is gone, in ms.
    pub delete_retention_ms: u64,
    /// How old a record is at the least when it is compacted away, in ms.
    pub min_compaction_lag_ms: u64,
    /// How old a dirty record may get before compaction is due; `None`: without a limit.
    pub max_compaction_lag_ms: Option<u64>,
    /// Which part of a log is dirty before compaction is worth it, in millionths
    /// (`min.cleanable.dirty.ratio`).
    pub min_dirty_ppm: u32,
    /// [`EngineLimits::producers_max`].
    pub producers_max: usize,
    /// [`EngineLimits::producer_expiration_ms`].
    pub producer_expiration_ms: u64,
}

impl LogConfig {
    /// How old a segment's first record gets before the next one is begun, in ms: so that it can
    /// be compacted in time (KIP-354).
    pub fn segment_ms_max(&self) -> u64 {
        match self.max_compaction_lag_ms.filter(|_| self.compacts) {
            Some(lag) => self.segment_ms.min(lag),
            None => self.segment_ms,
        }
    }

    /// What bounds the producers that a partition remembers.
    pub fn producer_limits(&self) -> ProducerLimits {
        let expiration_ms = self.producer_expiration_ms;
        ProducerLimits { producers_max: self.producers_max, expiration_ms }
    }

    /// What a client's batch must keep to in this log at the wall time `now`.
    pub fn rules(&self, limits: &EngineLimits, now: Timestamp) -> Rules {
        Rules {
            depth: Depth::Records,
            batch_bytes_max: self.message_bytes_max,
            decompressed_bytes_max: limits.decompressed_bytes_max,
            timestamps: TimestampRule {
                kind: self.timestamp_type,
                now,
                before_max_ms: self.timestamp_before_max_ms,
                after_max_ms: self.timestamp_after_max_ms,
            },
            keys_required: self.compacts,
        }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        let none = LogOverrides::default();
        effective(&none, &none, &EngineLimits::default())
    }
}

/// The type of a setting, with the number that DescribeConfigs gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// A number of 32 bits.
    Int = 3,
    /// A number of 64 bits.
    Long = 5,
    /// A fraction.
    Double = 6,
    /// Texts with commas between them.
    List = 7,
}

impl Kind {
    /// The number of the type on the wire.
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// Which values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valid {
    /// Whole numbers from the first to the second, both included.
    Range(i64, i64),
    /// Fractions from 0 to 1; their numbers are their bits as floating-point numbers.
    Fraction,
    /// These texts; their numbers are their positions.
    Only(&'static [&'static str]),
    /// Not built: only this text, which says what happens anyway.
    Fixed(&'static [&'static str; 1]),
}

/// A broker property that gives a setting its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// Name of the property.
    pub name: &'static str,
    /// What its value is multiplied by.
    pub unit: i64,
}

/// One topic setting: a line of the table.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name of it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its value where neither topic nor broker sets it.
    pub default: &'static str,
    /// What it takes.
    pub valid: Valid,
    /// Broker properties that give its default; the first that is set counts.
    pub synonyms: &'static [Synonym],
    doc: &'static str,
    get: fn(&LogOverrides) -> Option<i64>,
    set: fn(&mut LogOverrides, Option<i64>),
}

/// Why a setting is refused. Kafka: INVALID_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Kafka has no such topic setting.
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
    /// The value is not of the setting's type.
    #[error("Invalid value {value} for configuration {name}: not a number")]
    NotANumber {
        /// The setting, or the broker property.
        name: String,
        /// What was given.
        value: String,
    },
    /// The value is not one that the setting takes.
    #[error("Invalid value {value} for configuration {name}: must be {valid}")]
    Invalid {
        /// The setting, or the broker property.
        name: String,
        /// What was given.
        value: String,
        /// What it takes.
        valid: Valid,
    },
    /// Kafka would take the value, this broker cannot do it yet.
    #[error("Invalid value {value} for configuration {name}: this broker supports only {only:?}")]
    NotBuilt {
        /// The setting, or the broker property.
        name: String,
        /// What was given.
        value: String,
        /// What can be set.
        only: &'static str,
    },
}

/// A setting with a value that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    setting: &'static Setting,
    value: i64,
}

impl fmt::Display for Valid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Valid::Range(min, i64::MAX) => write!(f, "at least {min}"),
            Valid::Range(min, max) => write!(f, "from {min} to {max}"),
            Valid::Fraction => write!(f, "from 0 to 1"),
            Valid::Only(texts) => write!(f, "one of {}", texts.join(" | ")),
            Valid::Fixed([text]) => write!(f, "{text:?}"),
        }
    }
}

impl Setting {
    /// What it is for, in one or two sentences.
    pub fn documentation(&self) -> &'static str {
        self.doc.trim()
    }

    /// The value that `text` means; white space around it is ignored.
    fn parse(&self, text: &str, named: &str, unit: i64) -> Result<i64, ConfigError> {
        let text = text.trim();
        let (name, value) = (named.to_owned(), text.to_owned());
        match self.valid {
            Valid::Range(min, max) => {
                let Ok(number) = text.parse::<i64>() else {
                    return Err(ConfigError::NotANumber { name, value });
                };
                // Hours and minutes below zero mean "without a limit", as in Kafka.
                let number =
                    if unit > 1 && number < 0 { Some(-1) } else { number.checked_mul(unit) };
                match number {
                    Some(number) if (min..=max).contains(&number) => Ok(number),
                    _ => Err(ConfigError::Invalid { name, value, valid: self.valid }),
                }
            }
            Valid::Fraction => match text.parse::<f64>() {
                Err(_) => Err(ConfigError::NotANumber { name, value }),
                Ok(number) if (0.0..=1.0).contains(&number) => Ok(number.to_bits() as i64),
                Ok(_) => Err(ConfigError::Invalid { name, value, valid: self.valid }),
            },
            Valid::Only(texts) => match self.position(texts, text) {
                Some(position) => Ok(position),
                None => Err(ConfigError::Invalid { name, value, valid: self.valid }),
            },
            Valid::Fixed(texts) => match self.position(texts, text) {
                Some(position) => Ok(position),
                None => Err(ConfigError::NotBuilt { name, value, only: texts[0] }),
            },
        }
    }

    fn position(&self, texts: &[&str], text: &str) -> Option<i64> {
        let same = |known: &&str| match self.kind {
            Kind::Boolean => known.eq_ignore_ascii_case(text),
            // White space around commas means nothing.
            Kind::List => known.split(',').eq(text.split(',').map(str::trim)),
            _ => *known == text,
        };
        texts.iter().position(same).map(|position| position as i64)
    }

    fn text(&self, value: i64) -> String {
        let texts: &[&str] = match self.valid {
            Valid::Range(..) => return value.to_string(),
            // As Java shows it: 1.0, not 1.
            Valid::Fraction => return format!("{:?}", f64::from_bits(value as u64)),
            Valid::Only(texts) => texts,
            Valid::Fixed(texts) => texts,
        };
        texts[value as usize].to_owned()
    }
}

/// The setting with this name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting that this broker property gives the default of.
pub fn setting_of_broker(property: &str) -> Option<&'static Setting> {
    let gives = |setting: &&Setting| setting.synonyms.iter().any(|one| one.name == property);
    SETTINGS.iter().find(gives)
}

/// What setting `name` of a topic to `text` means, if it may be.
pub fn parse(name: &str, text: &str) -> Result<Change, ConfigError> {
    let setting = setting(name).ok_or_else(|| ConfigError::Unknown(name.to_owned()))?;
    Ok(Change { setting, value: setting.parse(text, name, 1)? })
}

impl LogOverrides {
    /// The broker's own defaults, from its properties. Where several set the same (`.ms`,
    /// `.minutes`, `.hours`), the most exact one counts, in whatever order they come. Properties
    /// that concern no topic setting are passed over.
    pub fn from_broker<'a>(
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<LogOverrides, ConfigError> {
        let mut overrides = LogOverrides::default();
        let mut ranks = vec![usize::MAX; SETTINGS.len()];
        for (name, text) in properties {
            for (setting, best) in SETTINGS.iter().zip(&mut ranks) {
                let Some(rank) = setting.synonyms.iter().position(|one| one.name == name) else {
                    continue;
                };
                let value = setting.parse(text, name, setting.synonyms[rank].unit)?;
                if rank <= *best {
                    *best = rank;
                    (setting.set)(&mut overrides, Some(value));
                }
            }
        }
        Ok(overrides)
    }

    /// Sets one.
    pub fn apply(&mut self, change: Change) {
        (change.setting.set)(self, Some(change.value));
    }

    /// Unsets one, so that the broker's default counts again.
    pub fn clear(&mut self, name: &str) -> Result<(), ConfigError> {
        let setting = setting(name).ok_or_else(|| ConfigError::Unknown(name.to_owned()))?;
        (setting.set)(self, None);
        Ok(())
    }

    /// The text of one, where it is set.
    pub fn text(&self, name: &str) -> Option<String> {
        let setting = setting(name)?;
        (setting.get)(self).map(|value| setting.text(value))
    }

    /// All that are set, as names and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> {
        let set = |setting: &'static Setting| Some((setting, (setting.get)(self)?));
        SETTINGS.iter().filter_map(set).map(|(setting, value)| (setting.name, setting.text(value)))
    }
}

/// The settings of a log: the topic's own, else the broker's, else Kafka's (or ours: see the
/// table); and what the engine allows each.
pub fn effective(topic: &LogOverrides, broker: &LogOverrides, limits: &EngineLimits) -> LogConfig {
    let number = |name: &str| {
        let setting = setting(name).expect("a line of the table");
        let own = (setting.get)(topic).or_else(|| (setting.get)(broker));
        own.unwrap_or_else(|| setting.parse(setting.default, name, 1).expect("defaults are valid"))
    };
    let positive = |name: &str| u64::try_from(number(name)).expect("the table allows none below 0");
    let int = |name: &str| u32::try_from(positive(name)).expect("the table has it as INT");
    let unless_negative = |name: &str| u64::try_from(number(name)).ok();
    let unless_max = |name: &str| Some(positive(name)).filter(|&value| value < i64::MAX as u64);
    let cleanup_policy = setting("cleanup.policy").expect("a line of the table");
    let cleanup_policy = cleanup_policy.text(number(cleanup_policy.name));
    LogConfig {
        segment_bytes: positive("segment.bytes"),
        segment_ms: positive("segment.ms"),
        retention_ms: unless_negative("retention.ms"),
        retention_bytes: unless_negative("retention.bytes"),
        flush_messages: positive("flush.messages"),
        flush_ms: unless_max("flush.ms"),
        index_interval_bytes: int("index.interval.bytes"),
        message_bytes_max: int("max.message.bytes"),
        timestamp_type: match number("message.timestamp.type") {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: positive("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: positive("message.timestamp.after.max.ms"),
        min_insync_replicas: int("min.insync.replicas"),
        compacts: cleanup_policy.contains("compact"),
        deletes: cleanup_policy.contains("delete"),
        delete_retention_ms: positive("delete.retention.ms"),
        min_compaction_lag_ms: positive("min.compaction.lag.ms"),
        max_compaction_lag_ms: unless_max("max.compaction.lag.ms"),
        min_dirty_ppm: {
            let ratio = f64::from_bits(number("min.cleanable.dirty.ratio") as u64);
            (ratio * 1e6).round() as u32
        },
        producers_max: limits.producers_max,
        producer_expiration_ms: limits.producer_expiration_ms,
    }
}

const INT_MAX: i64 = i32::MAX as i64;
const MAX: i64 = i64::MAX;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 3_600_000;

const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: 1 }
}

const fn times(name: &'static str, unit: i64) -> Synonym {
    Synonym { name, unit }
}

mod table;

pub use table::{LogOverrides, SETTINGS};

#[cfg(test)]
mod tests;
