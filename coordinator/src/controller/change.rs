//! How one partition changes: the only place where leaders are elected, eligible replicas are
//! kept, reassignments end, and epochs rise. Kafka's `PartitionChangeBuilder`, with two
//! differences: the last one in sync stays in the ISR when it is fenced (there is somebody to wait
//! for), and a replica counts as having lost its promises only if its last end was of a kind that
//! can cost them ([`Loss`]).

use engine::ids::BrokerId;

use super::{Loss, Mutant, Rules};
use crate::cluster::{Cluster, Partition, Replicas, min_isr, nobody};

/// Who may lead.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    pub cluster: &'a Cluster,
    /// This one may not, though the cluster says so: it is about to be fenced, or to stop.
    pub except: Option<BrokerId>,
    /// It goes on leading what nobody else can lead: it is about to stop.
    pub except_keeps: bool,
    /// This one may, though the cluster does not say so: it is about to be unfenced.
    pub also: Option<BrokerId>,
}

impl<'a> Candidates<'a> {
    /// Those that the cluster says are active.
    pub fn of(cluster: &'a Cluster) -> Candidates<'a> {
        Candidates { cluster, except: None, except_keeps: false, also: None }
    }

    fn can_lead(&self, broker: BrokerId) -> bool {
        let known = || self.cluster.broker(broker).is_some_and(|known| known.is_active());
        Some(broker) != self.except && (Some(broker) == self.also || known())
    }

    /// Whether it may go on leading what nobody else can lead.
    fn can_stay(&self, broker: BrokerId) -> bool {
        let unfenced = self.cluster.broker(broker).is_some_and(|known| !known.fenced);
        unfenced && (Some(broker) != self.except || self.except_keeps)
    }
}

/// How a leader is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// The present one, else the first in sync, else the first eligible one.
    Usual,
    /// The first replica if it is in sync, else as usual.
    Preferred,
    /// As usual, else anybody alive.
    Unclean,
}

impl Election {
    /// How the controller elects unasked.
    pub fn by(rules: &Rules) -> Election {
        if rules.unclean_election { Election::Unclean } else { Election::Usual }
    }
}

/// What shall become of a partition.
pub(super) struct Target {
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    /// Leaves the ISR, unless it is the last there.
    pub leaves: Option<BrokerId>,
    /// What whoever leaves has lost of this partition.
    pub lost: Loss,
    /// The term is spent: a new one begins, whoever leads in it.
    pub spent: bool,
    /// Whoever leaves is no longer eligible either, unless it is the last of all.
    pub forgotten: bool,
    pub election: Election,
    pub mutant: Option<Mutant>,
}

/// An election's outcome.
struct Elected {
    leader: Option<BrokerId>,
    isr: Vec<BrokerId>,
    clean: bool,
}

impl Target {
    /// As it is.
    pub fn of(partition: &Partition, election: Election, mutant: Option<Mutant>) -> Target {
        Target {
            replicas: partition.replicas.to_vec(),
            isr: partition.isr.to_vec(),
            adding: partition.adding.to_vec(),
            removing: partition.removing.to_vec(),
            leaves: None,
            lost: Loss::Nothing,
            spent: false,
            forgotten: false,
            election,
            mutant,
        }
    }

    /// The partition after the change and all that follows from it; `None` if nothing changes.
    pub fn settle(
        mut self,
        before: &Partition,
        rules: &Rules,
        candidates: &Candidates<'_>,
    ) -> Option<Partition> {
        let leaves = self.leaves;
        self.isr.retain(|one| Some(*one) != leaves);
        self.end_reassignment();
        let holders = self.holders(before);
        let isr = self.standing(&holders);
        let minimum = min_isr(rules.min_insync_replicas, self.replicas.len());
        let eligible = |isr: &[BrokerId]| -> Vec<BrokerId> {
            let kept = match self.mutant {
                Some(Mutant::EligibleDropped) => false,
                Some(Mutant::EligibleOutlivesMinimum) if *isr == *before.isr => true,
                _ => isr.len() < minimum,
            };
            holders.iter().copied().filter(|one| kept && !isr.contains(one)).collect()
        };
        let elected = self.elect(before, isr, eligible, candidates);
        let elr = if elected.clean { eligible(&elected.isr) } else { Vec::new() };
        let mut after = Partition {
            replicas: self.replicas.as_slice().into(),
            isr: elected.isr.as_slice().into(),
            elr: elr.as_slice().into(),
            adding: list(&self.adding),
            removing: list(&self.removing),
            leader: elected.leader,
            last_leader: self.last_leader(before, elected.leader),
            leader_epoch: before.leader_epoch,
            epoch: before.epoch,
        };
        if self.begins_term(before, &after) {
            after.leader_epoch.0 += 1;
        }
        if after == *before {
            return None;
        }
        after.epoch.0 += 1;
        after.share(before);
        Some(after)
    }

    /// Whether `one` has lost what it had promised to keep of this partition.
    fn has_lost(&self, one: BrokerId) -> bool {
        self.lost != Loss::Nothing && self.leaves == Some(one)
    }

    /// Replicas that go are gone when all that stay are in sync (Kafka's
    /// `maybeCompleteReassignment`). The new ones alone would not do: if those that stay are
    /// down, removing the others could leave fewer copies than the topic's minimum.
    fn end_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays = |one: &&BrokerId| !self.removing.contains(*one);
        let replicas: Vec<BrokerId> = self.replicas.iter().filter(stays).copied().collect();
        let isr: Vec<BrokerId> = self.isr.iter().filter(stays).copied().collect();
        let awaited = if self.mutant == Some(Mutant::ReassignmentEndsEarly) {
            &self.adding
        } else {
            &replicas
        };
        if !isr.is_empty() && awaited.iter().all(|one| isr.contains(one)) {
            (self.replicas, self.isr) = (replicas, isr);
            self.adding.clear();
            self.removing.clear();
        }
    }

    /// Replicas that have all that was committed: who was in sync or eligible before, and has not
    /// lost it since. In order of the replicas.
    fn holders(&self, before: &Partition) -> Vec<BrokerId> {
        let held = |one: &BrokerId| {
            (before.isr.contains(one) || before.elr.contains(one)) && !self.has_lost(*one)
        };
        let held: Vec<BrokerId> = self.replicas.iter().copied().filter(held).collect();
        let others = |one: &BrokerId| Some(*one) != self.leaves;
        let forgotten = self.forgotten && held.iter().any(others);
        let last = before.isr.len() == 1 && self.mutant == Some(Mutant::LastOneLeaves);
        if forgotten || last {
            return held.into_iter().filter(others).collect();
        }
        held
    }

    /// The ISR, in order of the replicas. If nobody is left in it, one of those that have all
    /// that was committed stands in it alone, alive or not: first of all whoever was in it.
    fn standing(&self, holders: &[BrokerId]) -> Vec<BrokerId> {
        let isr: Vec<BrokerId> =
            self.replicas.iter().copied().filter(|one| self.isr.contains(one)).collect();
        if !isr.is_empty() {
            return isr;
        }
        let stays = self.leaves.filter(|one| holders.contains(one));
        stays.or(holders.first().copied()).into_iter().collect()
    }

    fn elect(
        &self,
        before: &Partition,
        isr: Vec<BrokerId>,
        eligible: impl Fn(&[BrokerId]) -> Vec<BrokerId>,
        candidates: &Candidates<'_>,
    ) -> Elected {
        let in_sync = |one: &BrokerId| isr.contains(one) && candidates.can_lead(*one);
        let preferred = self.replicas.first().filter(|_| self.election == Election::Preferred);
        let leader = preferred
            .filter(|one| in_sync(one))
            .or(before.leader.as_ref().filter(|one| in_sync(one)))
            .or_else(|| self.replicas.iter().find(|one| in_sync(one)));
        if let Some(leader) = leader {
            return Elected { leader: Some(*leader), isr, clean: true };
        }
        let elr = eligible(&isr);
        if let Some(leader) = elr.iter().find(|one| candidates.can_lead(**one)) {
            return Elected { leader: Some(*leader), isr: vec![*leader], clean: true };
        }
        let stays = before.leader.filter(|one| isr.contains(one) && candidates.can_stay(*one));
        if stays.is_some() {
            return Elected { leader: stays, isr, clean: true };
        }
        let last = before.last_leader.filter(|one| {
            let alive = self.mutant == Some(Mutant::FencedLastLeader) || candidates.can_lead(*one);
            isr.is_empty() && elr.is_empty() && self.replicas.contains(one) && alive
        });
        let anybody = || self.replicas.iter().copied().find(|one| candidates.can_lead(*one));
        let unclean =
            last.or_else(|| if self.election == Election::Unclean { anybody() } else { None });
        match unclean {
            Some(leader) => Elected { leader: Some(leader), isr: vec![leader], clean: false },
            None => Elected { leader: None, isr, clean: true },
        }
    }

    /// Who led last, if nobody does now. An empty directory is worth nothing to go on with.
    fn last_leader(&self, before: &Partition, leader: Option<BrokerId>) -> Option<BrokerId> {
        let last = before.leader.or(before.last_leader);
        let emptied = |one: &BrokerId| self.lost == Loss::Everything && self.leaves == Some(*one);
        last.filter(|one| leader.is_none() && !emptied(one) && self.replicas.contains(one))
    }

    /// Whether a new term begins. With another leader, always. When a replica is removed, so that
    /// the leader forgets what that replica had, even if it is added again before the leader has
    /// seen it go. When one in sync comes back with a loss, so that nothing is committed with it by
    /// a leader that still counts it as in sync.
    fn begins_term(&self, before: &Partition, after: &Partition) -> bool {
        let removed = before.replicas.iter().any(|one| !after.replicas.contains(one));
        let lossy = before.isr.iter().any(|one| self.has_lost(*one));
        let led = after.leader != before.leader || self.spent;
        match self.mutant {
            Some(Mutant::EpochKept) => {
                led && after
                    .leader
                    .is_some_and(|now| Some(now) != before.leader.or(before.last_leader))
                    || removed
                    || lossy
            }
            Some(Mutant::RemovalUnseen) => led || lossy,
            _ => led || removed || lossy,
        }
    }
}

fn list(brokers: &[BrokerId]) -> Replicas {
    if brokers.is_empty() { nobody() } else { brokers.into() }
}
