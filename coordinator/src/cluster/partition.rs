//! Partitions as the cluster knows them.

use std::sync::{Arc, LazyLock};

use engine::ids::{BrokerId, LeaderEpoch};

/// Version of a partition's metadata (replicas, ISR, leader); grows with each change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PartitionEpoch(pub i32);

/// Brokers of one partition, in order of preference.
pub type Replicas = Arc<[BrokerId]>;

/// No brokers, without an allocation of its own.
pub fn nobody() -> Replicas {
    static NOBODY: LazyLock<Replicas> = LazyLock::new(|| Replicas::from([]));
    NOBODY.clone()
}

/// One partition of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Who keeps it, the preferred leader first; never empty, no duplicates. While it is being
    /// reassigned, those who come and those who go are both among them.
    pub replicas: Replicas,
    /// Who is in sync; a subset of `replicas`. Empty only when everybody who was in sync has lost
    /// what was committed. With two or more members, none of them is fenced.
    pub isr: Replicas,
    /// Who is out of sync and nevertheless has all that is committed, because the ISR is smaller
    /// than its minimum, below which nothing is committed (KIP-966); disjoint from `isr`.
    pub elr: Replicas,
    /// Replicas that a reassignment adds (KIP-455); a subset of `replicas`.
    pub adding: Replicas,
    /// Replicas that go when the reassignment is done; a subset of `replicas`.
    pub removing: Replicas,
    /// Who leads it: one of `isr`, not fenced; or nobody.
    pub leader: Option<BrokerId>,
    /// Who led it last, while nobody does, unless that broker came back with an empty directory.
    pub last_leader: Option<BrokerId>,
    /// Term of the leader; grows with each leader, each restart of one, and each removal of a
    /// replica.
    pub leader_epoch: LeaderEpoch,
    /// Version of all of the above.
    pub epoch: PartitionEpoch,
}

impl Partition {
    /// A new one: all in sync, led by the first.
    pub fn new(replicas: Replicas) -> Partition {
        Partition::with_isr(replicas.clone(), replicas)
    }

    /// A new one with only these in sync, led by the first of them.
    pub fn with_isr(replicas: Replicas, isr: Replicas) -> Partition {
        Partition {
            leader: isr.first().copied(),
            last_leader: None,
            isr,
            elr: nobody(),
            adding: nobody(),
            removing: nobody(),
            replicas,
            leader_epoch: LeaderEpoch(0),
            epoch: PartitionEpoch(0),
        }
    }

    /// Takes over lists from `other` that are equal to its own, so that memory holds them once.
    pub(crate) fn share(&mut self, other: &Partition) {
        let ours = [&mut self.replicas, &mut self.isr, &mut self.elr];
        for list in ours.into_iter().chain([&mut self.adding, &mut self.removing]) {
            let known = [&other.replicas, &other.isr, &other.elr];
            if list.is_empty() {
                *list = nobody();
            } else if let Some(known) = known.into_iter().find(|known| *known == list) {
                *list = known.clone();
            }
        }
        if self.isr == self.replicas {
            self.isr = self.replicas.clone();
        }
    }

    /// Whether replicas are being added or removed.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Whether the first replica leads.
    pub fn has_preferred_leader(&self) -> bool {
        self.leader.is_some() && self.leader == self.replicas.first().copied()
    }

    /// Its minimal ISR where the topic asks for `min_insync_replicas`: no more than it has
    /// replicas (Kafka's `effectiveMinIsr`). Below it nothing is committed, whoever asks.
    pub fn min_isr(&self, min_insync_replicas: u32) -> usize {
        min_isr(min_insync_replicas, self.replicas.len())
    }
}

/// [`Partition::min_isr`] of a partition with so many replicas.
pub(crate) fn min_isr(min_insync_replicas: u32, replicas: usize) -> usize {
    usize::try_from(min_insync_replicas).unwrap_or(usize::MAX).min(replicas).max(1)
}
