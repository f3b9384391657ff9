//! The table of broker settings: for each its Kafka name, what it may be, its default, its unit,
//! one sentence, and the field that it fills. The same rows read files, answer DescribeConfigs for
//! the broker, and print `ringbolt config --docs`. What a topic may override is not here but in
//! [`super::log`].

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::group::assignor::Assignor;
use coordinator::group::consumer::config::Migration;
use engine::config::Kind;
use engine::ids::BrokerId;

use super::BrokerConfig;

/// One setting of the broker.
pub struct Setting {
    /// Its name in files and answers: Kafka's, where Kafka has it.
    pub name: &'static str,
    /// An older name for the same thing, also accepted.
    pub alias: Option<&'static str>,
    /// What it may be.
    pub values: Values,
    /// What it is when nobody says; empty: nothing.
    pub default: &'static str,
    /// What its number counts; empty for none.
    pub unit: &'static str,
    /// What it does, in one sentence.
    pub sentence: &'static str,
    /// Fills the field.
    pub(super) apply: Apply,
}

/// How a row fills its field.
pub(super) enum Apply {
    /// With a number in its range.
    Number(fn(&mut BrokerConfig, i64)),
    /// With yes or no.
    Flag(fn(&mut BrokerConfig, bool)),
    /// With text, which may still be refused.
    Text(fn(&mut BrokerConfig, &str) -> Result<(), String>),
    /// Together with others ([`super::listeners`]).
    Together,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second, both included.
    Number(i64, i64),
    /// Any text.
    Text,
    /// Items separated by commas.
    List,
}

impl Values {
    /// The type that DescribeConfigs gives it.
    pub fn kind(&self) -> Kind {
        match self {
            Values::Flag => Kind::Boolean,
            Values::Number(_, max) if *max <= I32_MAX => Kind::Int,
            Values::Number(..) => Kind::Long,
            Values::Text => Kind::String,
            Values::List => Kind::List,
        }
    }

    /// In words, for people.
    pub fn describe(&self) -> String {
        match self {
            Values::Flag => "true or false".into(),
            Values::Number(min, i64::MAX) => format!("{min} or more"),
            Values::Number(min, max) => format!("{min} to {max}"),
            Values::Text => "text".into(),
            Values::List => "a list separated by commas".into(),
        }
    }
}

/// The row with this name or alias.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name || setting.alias == Some(name))
}

impl Setting {
    /// Checks `text` and fills the field.
    pub(super) fn apply(&self, config: &mut BrokerConfig, text: &str) -> Result<(), String> {
        let text = text.trim();
        match (&self.apply, self.values) {
            (Apply::Number(fill), Values::Number(min, max)) => {
                let number = number(text)?;
                if !(min..=max).contains(&number) {
                    return Err(format!("{number} is out of range; {}", self.values.describe()));
                }
                fill(config, number);
            }
            (Apply::Flag(fill), Values::Flag) => fill(config, flag(text)?),
            (Apply::Text(fill), Values::Text | Values::List) => fill(config, text)?,
            (Apply::Together, _) => (),
            _ => unreachable!("{} fills its field with another kind of value", self.name),
        }
        Ok(())
    }
}

/// A whole number.
pub(super) fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// `true` or `false`, in any case, as Kafka reads them.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

const I32_MAX: i64 = i32::MAX as i64;

const fn row(
    name: &'static str,
    values: Values,
    default: &'static str,
    unit: &'static str,
    sentence: &'static str,
    apply: Apply,
) -> Setting {
    Setting { name, alias: None, values, default, unit, sentence, apply }
}

impl Setting {
    const fn or(self, alias: &'static str) -> Setting {
        Setting { alias: Some(alias), ..self }
    }
}

/// All of them, in the order in which documentation shows them.
pub static SETTINGS: &[Setting] = &[
    row(
        "node.id",
        Values::Number(0, I32_MAX),
        "1",
        "",
        "Number of this broker, unique in its cluster; a data directory belongs to one number.",
        Apply::Number(|config, n| config.node_id = BrokerId(n as i32)),
    )
    .or("broker.id"),
    row(
        "broker.rack",
        Values::Text,
        "",
        "",
        "Where this broker stands; replicas of a partition are spread over racks.",
        Apply::Text(|config, text| {
            config.rack = (!text.is_empty()).then(|| text.to_string());
            Ok(())
        }),
    ),
    row(
        "listeners",
        Values::List,
        "PLAINTEXT://127.0.0.1:9092",
        "",
        "Addresses on which clients are accepted, each NAME://HOST:PORT.",
        Apply::Together,
    ),
    row(
        "advertised.listeners",
        Values::List,
        "",
        "",
        "Addresses that clients are told to connect to, by listener; default: the listeners' own.",
        Apply::Together,
    ),
    row(
        "listener.security.protocol.map",
        Values::List,
        "",
        "",
        "Which protocol each listener speaks, NAME:PROTOCOL; only PLAINTEXT in this release.",
        Apply::Together,
    ),
    row(
        "controller.listener.names",
        Values::List,
        "",
        "",
        "Listeners on which a coordinator answers other nodes; a node alone opens none.",
        Apply::Together,
    ),
    row(
        "process.roles",
        Values::List,
        "",
        "",
        "What this node is: broker, controller (it holds a vote), or both.",
        Apply::Together,
    ),
    row(
        "controller.quorum.voters",
        Values::List,
        "",
        "",
        "The coordinators, each ID@HOST:PORT: 1, 3, 5 or 7; none: this node is the whole cluster.",
        Apply::Together,
    ),
    row(
        "cluster.id",
        Values::Text,
        "",
        "",
        "Name of the cluster, the same on every node; a node alone makes one up.",
        Apply::Together,
    ),
    row(
        "inter.broker.listener.name",
        Values::Text,
        "",
        "",
        "The listener by which brokers of a cluster fetch from each other, apart from clients.",
        Apply::Together,
    ),
    row(
        "broker.heartbeat.interval.ms",
        Values::Number(10, I32_MAX),
        "300",
        "milliseconds",
        "How often a broker tells the controller that it is there.",
        Apply::Number(|config, n| config.heartbeat = Duration::from_millis(n as u64)),
    ),
    row(
        "broker.session.timeout.ms",
        Values::Number(100, I32_MAX),
        "1500",
        "milliseconds",
        "How long a broker may be silent before others lead in its place.",
        Apply::Number(|config, n| {
            config.topics.session_timeout = Some(Duration::from_millis(n as u64));
        }),
    ),
    row(
        "replica.lag.time.max.ms",
        Values::Number(100, I32_MAX),
        "10000",
        "milliseconds",
        "How long a replica may be behind before it leaves the in-sync set.",
        Apply::Number(|config, n| config.replication.lag_max = Duration::from_millis(n as u64)),
    ),
    row(
        "controller.quorum.election.timeout.ms",
        Values::Number(50, I32_MAX),
        "300",
        "milliseconds",
        "How long the leading coordinator may be silent before another is elected.",
        Apply::Number(|config, n| config.election_timeout = Duration::from_millis(n as u64)),
    ),
    row(
        "leader.imbalance.check.interval.seconds",
        Values::Number(1, I32_MAX),
        "300",
        "seconds",
        "How often partitions go back to their preferred leaders.",
        Apply::Number(|config, n| {
            config.topics.leader_rebalance = Some(Duration::from_secs(n as u64));
        }),
    ),
    row(
        "log.dirs",
        Values::List,
        "./ringbolt-data",
        "",
        "The directory that holds everything; exactly one in this release.",
        Apply::Text(data_dir),
    )
    .or("log.dir"),
    row(
        "shards",
        Values::Text,
        "all",
        "cores",
        "How many cores the broker runs on, or `all`; each owns the partitions that fall to it.",
        Apply::Text(shards),
    ),
    row(
        "num.partitions",
        Values::Number(1, 10_000),
        "1",
        "partitions",
        "Partitions of a topic whose creator names no number.",
        Apply::Number(|config, n| config.topics.num_partitions = n as i32),
    ),
    row(
        "group.min.session.timeout.ms",
        Values::Number(1, I32_MAX),
        "6000",
        "ms",
        "Shortest session that a member of a group may ask for.",
        Apply::Number(|config, n| config.groups.session_min = Duration::from_millis(n as u64)),
    ),
    row(
        "group.max.session.timeout.ms",
        Values::Number(1, I32_MAX),
        "1800000",
        "ms",
        "Longest session that a member of a group may ask for.",
        Apply::Number(|config, n| config.groups.session_max = Duration::from_millis(n as u64)),
    ),
    row(
        "group.max.size",
        Values::Number(1, I32_MAX),
        "2147483647",
        "members",
        "Most members of one group.",
        Apply::Number(|config, n| {
            config.groups.members_max = n as usize;
            config.groups.consumer.classic_members_max = n as usize;
        }),
    ),
    row(
        "group.initial.rebalance.delay.ms",
        Values::Number(0, I32_MAX),
        "3000",
        "ms",
        "How long a group that was empty waits for more members before its first generation.",
        Apply::Number(|config, n| {
            config.groups.initial_rebalance_delay = Duration::from_millis(n as u64)
        }),
    ),
    row(
        "group.coordinator.rebalance.protocols",
        Values::List,
        "classic,consumer",
        "protocols",
        "Protocols that groups may speak; `classic` is one of them.",
        Apply::Text(protocols),
    ),
    row(
        "group.consumer.session.timeout.ms",
        Values::Number(1, I32_MAX),
        "45000",
        "ms",
        "How long a member of a group of the consumer protocol may be silent.",
        Apply::Number(|config, n| config.groups.consumer.times.usual.session = millis(n)),
    ),
    row(
        "group.consumer.min.session.timeout.ms",
        Values::Number(1, I32_MAX),
        "45000",
        "ms",
        "Shortest such time, for the broker and for a group that has its own.",
        Apply::Number(|config, n| config.groups.consumer.times.min.session = millis(n)),
    ),
    row(
        "group.consumer.max.session.timeout.ms",
        Values::Number(1, I32_MAX),
        "60000",
        "ms",
        "Longest such time, for the broker and for a group that has its own.",
        Apply::Number(|config, n| config.groups.consumer.times.max.session = millis(n)),
    ),
    row(
        "group.consumer.heartbeat.interval.ms",
        Values::Number(1, I32_MAX),
        "5000",
        "ms",
        "How often a member of a group of the consumer protocol is to send a heartbeat.",
        Apply::Number(|config, n| {
            config.groups.consumer.times.usual.heartbeat_interval = millis(n);
        }),
    ),
    row(
        "group.consumer.min.heartbeat.interval.ms",
        Values::Number(1, I32_MAX),
        "5000",
        "ms",
        "Shortest such interval, for the broker and for a group that has its own.",
        Apply::Number(|config, n| config.groups.consumer.times.min.heartbeat_interval = millis(n)),
    ),
    row(
        "group.consumer.max.heartbeat.interval.ms",
        Values::Number(1, I32_MAX),
        "15000",
        "ms",
        "Longest such interval, for the broker and for a group that has its own.",
        Apply::Number(|config, n| config.groups.consumer.times.max.heartbeat_interval = millis(n)),
    ),
    row(
        "group.consumer.assignment.interval.ms",
        Values::Number(0, I32_MAX),
        "1000",
        "ms",
        "How long such a group's target assignment stands before another is made.",
        Apply::Number(|config, n| {
            config.groups.consumer.times.usual.assignment_interval = millis(n);
        }),
    ),
    row(
        "group.consumer.min.assignment.interval.ms",
        Values::Number(0, I32_MAX),
        "0",
        "ms",
        "Shortest such time, for the broker and for a group that has its own.",
        Apply::Number(|config, n| config.groups.consumer.times.min.assignment_interval = millis(n)),
    ),
    row(
        "group.consumer.max.assignment.interval.ms",
        Values::Number(0, I32_MAX),
        "15000",
        "ms",
        "Longest such time, for the broker and for a group that has its own.",
        Apply::Number(|config, n| config.groups.consumer.times.max.assignment_interval = millis(n)),
    ),
    row(
        "group.consumer.max.size",
        Values::Number(1, I32_MAX),
        "2147483647",
        "members",
        "Most members of one group of the consumer protocol.",
        Apply::Number(|config, n| config.groups.consumer.members_max = n as usize),
    ),
    row(
        "group.consumer.assignors",
        Values::List,
        "uniform,range",
        "assignors",
        "Assignors that members may choose; the first is used where nobody chooses another.",
        Apply::Text(assignors),
    ),
    row(
        "group.consumer.migration.policy",
        Values::Text,
        "bidirectional",
        "bidirectional, upgrade, downgrade or disabled",
        "Which ways a group may go between the classic and the consumer protocol while it lives.",
        Apply::Text(migration),
    ),
    row(
        "offset.metadata.max.bytes",
        Values::Number(0, I32_MAX),
        "4096",
        "bytes",
        "Longest text that a group may remember with an offset.",
        Apply::Number(|config, n| config.groups.offset_metadata_max = n as usize),
    ),
    row(
        "offsets.retention.minutes",
        Values::Number(1, I32_MAX),
        "10080",
        "minutes",
        "How long offsets are kept that no member of their group uses.",
        Apply::Number(|config, n| {
            config.groups.offsets_retention = Duration::from_secs(n as u64 * 60)
        }),
    ),
    row(
        "offsets.retention.check.interval.ms",
        Values::Number(1, i64::MAX),
        "600000",
        "ms",
        "How often it is looked for such offsets.",
        Apply::Number(|config, n| {
            config.groups.offsets_retention_check = Duration::from_millis(n as u64)
        }),
    ),
    row(
        "offsets.commit.timeout.ms",
        Values::Number(1, I32_MAX),
        "5000",
        "ms",
        "How long a request to a group may wait for what it writes to be on all replicas in sync.",
        Apply::Number(|config, n| config.offsets_topic.commit_max = millis(n)),
    ),
    row(
        "offsets.topic.num.partitions",
        Values::Number(1, 10_000),
        "50",
        "partitions",
        "Partitions of __consumer_offsets, over which groups are spread; fixed when it is made.",
        Apply::Number(|config, n| config.offsets_topic.partitions = n as i32),
    ),
    row(
        "offsets.topic.replication.factor",
        Values::Number(1, i16::MAX as i64),
        "3",
        "replicas",
        "Replicas of __consumer_offsets; fewer where the cluster has fewer brokers.",
        Apply::Number(|config, n| config.offsets_topic.replicas = n as i16),
    ),
    row(
        "offsets.topic.segment.bytes",
        Values::Number(1 << 20, I32_MAX),
        "104857600",
        "bytes",
        "Bytes of a segment of __consumer_offsets: the smaller, the sooner it is compacted.",
        Apply::Number(|config, n| config.offsets_topic.segment_bytes = n),
    ),
    row(
        "default.replication.factor",
        Values::Number(1, i16::MAX as i64),
        "1",
        "replicas",
        "Replicas of a partition whose topic's creator names no number.",
        Apply::Number(|config, n| config.topics.default_replication_factor = n as i16),
    ),
    row(
        "auto.create.topics.enable",
        Values::Flag,
        "true",
        "",
        "Whether a topic is created when a producer asks for its metadata.",
        Apply::Flag(|config, on| config.auto_create_topics = on),
    ),
    row(
        "delete.topic.enable",
        Values::Flag,
        "true",
        "",
        "Whether topics may be deleted.",
        Apply::Flag(|config, on| config.topics.delete_topics = on),
    ),
    row(
        "topics.max",
        Values::Number(1, 1_000_000),
        "100000",
        "topics",
        "Most topics in the cluster; creating more is refused.",
        Apply::Number(|config, n| config.topics.topics_max = n as usize),
    ),
    row(
        "partitions.max",
        Values::Number(1, 10_000_000),
        "1000000",
        "partitions",
        "Most partitions in the cluster; creating more is refused.",
        Apply::Number(|config, n| config.topics.partitions_max = n as usize),
    ),
    row(
        "socket.request.max.bytes",
        Values::Number(1024, I32_MAX),
        "104857600",
        "bytes",
        "Longest request that is read; the sender of a longer one is disconnected.",
        Apply::Number(|config, n| config.request_bytes_max = n as usize),
    ),
    row(
        "connections.max.idle.ms",
        Values::Number(-1, i64::MAX),
        "600000",
        "milliseconds",
        "How long a connection may be silent before it is closed; -1: for ever.",
        Apply::Number(|config, n| {
            config.connection_idle_max = u64::try_from(n).ok().map(Duration::from_millis);
        }),
    ),
    row(
        "connection.queued.bytes.max",
        Values::Number(64 * 1024, 1 << 40),
        "16777216",
        "bytes",
        "Requests and responses of one connection in memory beyond which its socket is not read.",
        Apply::Number(|config, n| config.connection_queued_bytes_max = n as usize),
    ),
    row(
        "shard.queued.bytes.max",
        Values::Number(1024 * 1024, 1 << 40),
        "268435456",
        "bytes",
        "Requests and responses of one shard in memory beyond which none of its sockets is read.",
        Apply::Number(|config, n| config.shard_queued_bytes_max = n as usize),
    ),
    row(
        "fetch.max.bytes",
        Values::Number(1024, I32_MAX),
        "57671680",
        "bytes",
        "Most record bytes in one fetch response, whatever the client asks for.",
        Apply::Number(|config, n| config.fetch_bytes_max = n as usize),
    ),
    row(
        "max.incremental.fetch.session.cache.slots",
        Values::Number(0, 1_000_000),
        "1000",
        "sessions",
        "Most incremental fetch sessions that the broker remembers.",
        Apply::Number(|config, n| config.fetch_sessions_max = n as usize),
    ),
    row(
        "max.request.partition.size.limit",
        Values::Number(1, I32_MAX),
        "2000",
        "partitions",
        "Most partitions in one answer to DescribeTopicPartitions.",
        Apply::Number(|config, n| config.describe_partitions_max = n as usize),
    ),
    row(
        "metadata.log.max.record.bytes.between.snapshots",
        Values::Number(4096, i64::MAX),
        "20971520",
        "bytes",
        "How much the metadata log grows before a snapshot replaces it.",
        Apply::Number(|config, n| config.topics.snapshot_bytes = n as u64),
    ),
    row(
        "producer.id.expiration.ms",
        Values::Number(1, I32_MAX),
        "86400000",
        "milliseconds",
        "How long an idempotent producer that writes nothing is remembered.",
        Apply::Number(|config, n| config.engine.producer_expiration_ms = n as u64),
    ),
    row(
        "log.retention.check.interval.ms",
        Values::Number(1, i64::MAX),
        "300000",
        "milliseconds",
        "Time between two looks for segments that retention may delete.",
        Apply::Number(|config, n| config.engine.retention_check_ms = n as u64),
    ),
    row(
        "log.cleaner.dedupe.buffer.size",
        Values::Number(1024, 1 << 40),
        "8388608",
        "bytes",
        "Memory of each shard for the keys of the log that is being compacted; 24 bytes each.",
        Apply::Number(|config, n| config.engine.dedupe_bytes = n as usize),
    ),
    row(
        "log.cleaner.backoff.ms",
        Values::Number(0, i64::MAX),
        "15000",
        "milliseconds",
        "Time between two looks for logs that are worth compacting.",
        Apply::Number(|config, n| config.engine.compaction_check_ms = n as u64),
    ),
];

/// `n` milliseconds, which are not negative.
fn millis(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

fn data_dir(config: &mut BrokerConfig, text: &str) -> Result<(), String> {
    let dirs: Vec<&str> = text.split(',').map(str::trim).filter(|dir| !dir.is_empty()).collect();
    match dirs[..] {
        [] => Err("no directory is named".into()),
        [dir] => {
            config.data_dir = PathBuf::from(dir);
            Ok(())
        }
        _ => Err(format!(
            "{} directories are named and this release keeps everything in one; combine the \
             devices below it, or run one broker for each",
            dirs.len()
        )),
    }
}

/// Most shards of one broker.
const SHARDS_MAX: usize = 1024;

fn shards(config: &mut BrokerConfig, text: &str) -> Result<(), String> {
    config.shards = match text {
        "all" => None,
        _ => {
            let number = text.parse().ok().filter(|n: &NonZeroUsize| n.get() <= SHARDS_MAX);
            Some(number.ok_or_else(|| format!("`{text}` is neither `all` nor 1 to {SHARDS_MAX}"))?)
        }
    };
    Ok(())
}

fn assignors(config: &mut BrokerConfig, text: &str) -> Result<(), String> {
    let names = text.split(',').map(str::trim);
    let found = names.map(|name| {
        Assignor::by_name(name).ok_or_else(|| format!("`{name}` is neither `uniform` nor `range`"))
    });
    let mut assignors = Vec::new();
    for found in found {
        let assignor = found?;
        // Named twice it is no other, as in Kafka.
        if !assignors.contains(&assignor) {
            assignors.push(assignor);
        }
    }
    config.groups.consumer.assignors = assignors;
    Ok(())
}

fn protocols(config: &mut BrokerConfig, text: &str) -> Result<(), String> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    // Those that Kafka has; nobody speaks the last two here.
    let known = ["classic", "consumer", "share", "streams"];
    if let Some(other) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("`{other}` is none of {}", known.join(", ")));
    }
    if !names.contains(&"classic") {
        return Err("disabling the `classic` protocol is not supported".into());
    }
    config.consumer_protocol = names.contains(&"consumer");
    Ok(())
}

fn migration(config: &mut BrokerConfig, text: &str) -> Result<(), String> {
    config.groups.consumer.migration = match text.to_ascii_lowercase().as_str() {
        "bidirectional" => Migration::Bidirectional,
        "upgrade" => Migration::Upgrade,
        "downgrade" => Migration::Downgrade,
        "disabled" => Migration::Disabled,
        _ => {
            let ways = "`bidirectional`, `upgrade`, `downgrade` or `disabled`";
            return Err(format!("`{text}` is none of {ways}"));
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::names;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_is_whole_and_its_default_is_allowed() {
        let mut names = BTreeSet::new();
        let mut config = BrokerConfig::default();
        for row in SETTINGS {
            assert!(names.insert(row.name), "{} twice", row.name);
            assert!(row.alias.is_none_or(|alias| names.insert(alias)), "{} twice", row.name);
            assert!(row.sentence.ends_with('.'), "{}: a sentence", row.name);
            assert!(row.sentence.len() <= 100, "{}: one short sentence", row.name);
            row.apply(&mut config, row.default).unwrap_or_else(|e| panic!("{}: {e}", row.name));
            let refused = match row.values {
                Values::Number(min, _) => row.apply(&mut config, &(min - 1).to_string()),
                Values::Flag => row.apply(&mut config, "maybe"),
                _ => continue,
            };
            assert!(refused.is_err(), "{}", row.name);
            if let Values::Number(_, max) = row.values {
                row.apply(&mut config, &max.to_string()).unwrap();
                let above = (i128::from(max) + 1).to_string();
                assert!(row.apply(&mut config, &above).is_err(), "{}", row.name);
            }
            assert!(names::ignored(row.name).is_none(), "{} means something", row.name);
        }
    }

    #[test]
    fn the_defaults_of_the_rows_are_the_defaults_of_the_tree() {
        let mut config = BrokerConfig::default();
        for row in SETTINGS {
            row.apply(&mut config, row.default).unwrap();
        }
        assert_eq!(config, BrokerConfig::default());
    }
}
