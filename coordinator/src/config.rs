//! Limits and defaults of this crate. `net` fills them from the operator's settings.

/// How many producer ids a broker is given at once; Kafka's `ProducerIdsBlock`.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Most requests of one machine that wait for their answer.
pub const REQUESTS_WAITING_MAX: usize = 10_000;

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
    /// Longest name or value of one topic override, in bytes.
    pub override_bytes_max: usize,
    /// Bytes of metadata records after which a snapshot is taken
    /// (`metadata.log.max.record.bytes.between.snapshots`).
    pub snapshot_bytes: u64,
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
            snapshot_bytes: 20 << 20,
        }
    }
}
