//! Limits and defaults of this crate. `net` fills them from the operator's settings.

use std::time::Duration;

use crate::controller::Mutant;
use crate::group::consumer::times::Bounds;

/// How many producer ids a broker is given at once; Kafka's `ProducerIdsBlock`.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Most requests of one machine that wait for their answer.
pub const REQUESTS_WAITING_MAX: usize = 10_000;

/// How many requests that a machine answers in one turn are woken at once; the others follow, so
/// many after each turn of the shard's reactor. An answer costs 20–60 µs, so that these keep others
/// waiting for less than a millisecond.
pub const ANSWERS_AT_ONCE_MAX: usize = 4;

/// Largest batch of a machine's records, in bytes: what one request can make it remember.
pub const BATCH_BYTES_MAX: u32 = 16 << 20;

/// What the controller goes by. The same for its whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Partitions of a topic whose creator names no number (`num.partitions`); at least 1.
    pub num_partitions: i32,
    /// Replicas of a partition whose creator names no number (`default.replication.factor`).
    pub default_replication_factor: i16,
    /// Whether topics may be deleted (`delete.topic.enable`).
    pub delete_topics: bool,
    /// Most topics in the cluster.
    pub topics_max: usize,
    /// Most partitions in the cluster.
    pub partitions_max: usize,
    /// Most partitions that one request may create or change. Kafka bounds the records of one
    /// operation alike (`QuorumController.MAX_RECORDS_PER_USER_OP`).
    pub request_partitions_max: usize,
    /// Most deleted topics whose files some broker still has to remove; more deletions wait.
    pub deleted_topics_max: usize,
    /// Most brokers.
    pub brokers_max: usize,
    /// Longest name or value of one override, in bytes.
    pub override_bytes_max: usize,
    /// Most groups that have settings of their own.
    pub configured_groups_max: usize,
    /// Between what groups may have times of their own.
    pub group_times: Bounds,
    /// Bytes of metadata records after which a snapshot is taken
    /// (`metadata.log.max.record.bytes.between.snapshots`).
    pub snapshot_bytes: u64,
    /// How long a broker may be silent before it is fenced (`broker.session.timeout.ms`); `None`:
    /// for ever, which is for a node that is the whole cluster and that nobody could replace.
    pub session_timeout: Option<Duration>,
    /// How often preferred leaders are elected unasked (`leader.imbalance.check.interval.seconds`,
    /// `auto.leader.rebalance.enable`); `None`: never.
    pub leader_rebalance: Option<Duration>,
    /// Most elections of one such round; further rounds follow at once (Kafka's
    /// `maxElectionsPerImbalance`).
    pub elections_max: usize,
    /// In-sync replicas without which nothing is committed, of topics that do not say
    /// (`min.insync.replicas`); at least 1.
    pub min_insync_replicas: u32,
    /// Whether replicas that may lack what was committed become leaders when nobody else is left,
    /// in topics that do not say (`unclean.leader.election.enable`).
    pub unclean_election: bool,
    /// Records that may be unsynced, in topics that do not say (`log.flush.interval.messages`);
    /// 1: none that was promised.
    pub flush_messages: u64,
    /// A bug on purpose, for tests that prove that they would see it. `None` everywhere else.
    pub mutant: Option<Mutant>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            num_partitions: 1,
            default_replication_factor: 1,
            delete_topics: true,
            topics_max: 100_000,
            partitions_max: 1_000_000,
            request_partitions_max: 10_000,
            deleted_topics_max: 100_000,
            brokers_max: 1_000,
            override_bytes_max: 1024,
            configured_groups_max: 100_000,
            group_times: Bounds::default(),
            snapshot_bytes: 20 << 20,
            session_timeout: Some(Duration::from_millis(1500)),
            leader_rebalance: Some(Duration::from_secs(300)),
            elections_max: 1_000,
            min_insync_replicas: 1,
            unclean_election: false,
            flush_messages: 1,
            mutant: None,
        }
    }
}
