//! What groups go by. `net` fills it from the operator's settings.

use std::time::Duration;

use super::consumer::ConsumerConfig;
use super::mutant::Mutant;
use crate::runtime;

/// Kafka's names in brackets; the defaults are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Shortest session that a member may ask for (`group.min.session.timeout.ms`).
    pub session_min: Duration,
    /// Longest session that a member may ask for (`group.max.session.timeout.ms`).
    pub session_max: Duration,
    /// Most members of one group (`group.max.size`).
    pub members_max: usize,
    /// How long a group that was empty waits for more members before its first generation
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// Longest metadata of an offset, in characters as Kafka counts them, UTF-16 units
    /// (`offset.metadata.max.bytes`).
    pub offset_metadata_max: usize,
    /// How long offsets are kept that nobody uses (`offsets.retention.minutes`).
    pub offsets_retention: Duration,
    /// How often it is looked for such offsets (`offsets.retention.check.interval.ms`).
    pub offsets_retention_check: Duration,
    /// Most bytes of records that one request may bring about; at most the batch that the internal
    /// topic takes (its `max.message.bytes`).
    pub records_bytes_max: usize,
    /// What groups of the consumer protocol go by.
    pub consumer: ConsumerConfig,
    /// A bug on purpose, for tests that prove that they would see it. `None` everywhere else.
    pub mutant: Option<Mutant>,
    /// The same of what drives the machine.
    pub runtime_mutant: Option<runtime::Mutant>,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            session_min: Duration::from_secs(6),
            session_max: Duration::from_secs(30 * 60),
            members_max: i32::MAX as usize,
            initial_rebalance_delay: Duration::from_secs(3),
            offset_metadata_max: 4096,
            offsets_retention: Duration::from_secs(10_080 * 60),
            offsets_retention_check: Duration::from_secs(600),
            records_bytes_max: RECORDS_BYTES_MAX,
            consumer: ConsumerConfig::default(),
            mutant: None,
            runtime_mutant: None,
        }
    }
}

/// Most bytes of records that one request may bring about: a batch of the internal topic, as in
/// Kafka (its `max.message.bytes`).
pub const RECORDS_BYTES_MAX: usize = 1 << 20;

/// How long a new member's first JoinGroup may be parked: it cannot send heartbeats before, so
/// nothing else would tell that it is gone. Kafka's `NEW_MEMBER_JOIN_TIMEOUT_MS`.
pub const NEW_MEMBER_JOIN: Duration = Duration::from_secs(5 * 60);

/// Most tombstones that one step of expiry, or of forgetting topics, writes.
pub const TOMBSTONES_MAX: usize = 1_000;

/// Most groups and offsets that one such step looks at: a millisecond or two.
pub const LOOKS_MAX: usize = 10_000;

/// Pause between two such steps, so that requests get their turn.
pub const STEP_PAUSE: Duration = Duration::from_millis(10);
