//! What consumer groups go by. `net` fills it from the operator's settings.

use std::time::Duration;

use super::mutant::Mutant;
use super::times::Bounds;
use crate::group::assignor::Assignor;
use crate::group::config::RECORDS_BYTES_MAX;

/// Kafka's names in brackets; the defaults are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// The times that groups go by, and between what a group may have its own.
    pub times: Bounds,
    /// Most members of one group (`group.consumer.max.size`).
    pub members_max: usize,
    /// Most members of a classic group, which a consumer group may become (`group.max.size`).
    pub classic_members_max: usize,
    /// What may be chosen; the first is chosen where nobody prefers another. Not empty
    /// (`group.consumer.assignors`).
    pub assignors: Vec<Assignor>,
    /// Which ways a group may go between protocols (`group.consumer.migration.policy`).
    pub migration: Migration,
    /// Most bytes of records that one request may bring about
    /// ([`crate::group::GroupConfig::records_bytes_max`]).
    pub records_bytes_max: usize,
    /// A bug on purpose, for tests that prove that they would see it. `None` everywhere else.
    pub mutant: Option<Mutant>,
}

/// Which ways a live group may go between the classic and the consumer protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migration {
    /// Both.
    Bidirectional,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// None.
    Disabled,
}

impl Migration {
    /// Whether a classic group may become a consumer group.
    pub const fn may_upgrade(self) -> bool {
        matches!(self, Migration::Bidirectional | Migration::Upgrade)
    }

    /// Whether a consumer group may become a classic group.
    pub const fn may_downgrade(self) -> bool {
        matches!(self, Migration::Bidirectional | Migration::Downgrade)
    }
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            times: Bounds::default(),
            members_max: i32::MAX as usize,
            classic_members_max: i32::MAX as usize,
            assignors: Assignor::ALL.to_vec(),
            migration: Migration::Bidirectional,
            records_bytes_max: RECORDS_BYTES_MAX,
            mutant: None,
        }
    }
}

/// Least time between two looks for new topics that regular expressions stand for: they cost time
/// in proportion to all topics. Kafka's `REGEX_BATCH_REFRESH_MIN_INTERVAL_MS`.
pub const PATTERN_PAUSE: Duration = Duration::from_secs(10);
