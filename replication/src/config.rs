//! Numbers of replication, with the reason for each default.

use std::time::Duration;

use crate::mutant::Mutant;

/// Settings of one broker that all its partitions and fetchers share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicationConfig {
    /// `replica.lag.time.max.ms`: a replica that has not caught up for so long leaves the ISR.
    /// Kafka says 30 s, because there it also has to notice the dead. Here a dead broker is
    /// fenced when its session ends (1.5 s), so that this is for the slow only: 10 s is far above
    /// a pause that a healthy disk makes, and bounds how long one slow replica delays producers.
    pub lag_max: Duration,
    /// `replica.fetch.wait.max.ms`: how long a leader keeps a fetch without news. Only a
    /// heartbeat of the stream: news answer at once. 500 ms as in Kafka.
    pub fetch_wait_max: Duration,
    /// `replica.fetch.response.max.bytes`: about how many bytes one answer holds. Kafka: 10 MiB.
    pub fetch_bytes_max: usize,
    /// `replica.fetch.max.bytes`: about how many bytes of one partition. Kafka: 1 MiB.
    pub partition_bytes_max: usize,
    /// Fetches of one stream that may be on their way, at least 2. One waits at the leader, one
    /// carries a promise, one follows an answer; with a fourth none of them has to wait for an
    /// answer to one before.
    pub in_flight_max: usize,
    /// Pause after the first failed fetch or proposal, doubled with each further one …
    pub back_off_min: Duration,
    /// … up to this.
    pub back_off_max: Duration,
    /// A bug, for the test of the simulation; `None` everywhere else.
    pub mutant: Option<Mutant>,
}

impl Default for ReplicationConfig {
    fn default() -> ReplicationConfig {
        ReplicationConfig {
            lag_max: Duration::from_secs(10),
            fetch_wait_max: Duration::from_millis(500),
            fetch_bytes_max: 10 << 20,
            partition_bytes_max: 1 << 20,
            in_flight_max: 4,
            back_off_min: Duration::from_millis(20),
            back_off_max: Duration::from_secs(1),
            mutant: None,
        }
    }
}

impl ReplicationConfig {
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The pause after so many failures in a row (at least one).
    pub(crate) fn back_off(&self, failures: u32) -> Duration {
        let doubled = self.back_off_min.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.back_off_max)
    }
}
