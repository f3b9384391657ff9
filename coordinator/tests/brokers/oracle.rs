//! What the simulation knows and the controller does not: which records were acknowledged.

use std::collections::BTreeMap;

use coordinator::cluster::{Cluster, Partition};
use coordinator::config::Config;
use coordinator::controller::Rules;
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};

/// One partition's truth.
#[derive(Default)]
pub struct Truth {
    /// How many records were acknowledged and not given up by an unclean election.
    pub acked: u64,
    /// How many brokers would have had to lose the newest of them for it to be lost; 0: none was
    /// promised anything.
    pub tolerance: usize,
    /// How many have told the controller that they lost it.
    pub losses: usize,
    /// Term of the newest unclean election; what is acknowledged in an earlier one is given up.
    pub unclean_term: LeaderEpoch,
    /// Who led in each term.
    terms: BTreeMap<LeaderEpoch, (BrokerId, BrokerEpoch)>,
}

#[derive(Default)]
pub struct Oracle {
    pub truths: BTreeMap<TopicPartition, Truth>,
    /// The last decision may have given up records: an operator asked for it.
    pub unclean_asked: bool,
    /// The last decision let replicas join, as their leader asked; one of them may lead at once.
    pub joining: bool,
    /// The last decision cancelled a reassignment: an operator takes copies away.
    pub cancelled: bool,
    /// The last decision took the registration of a broker that has lost something.
    pub lossy: Option<BrokerId>,
    /// How often records were given up by leave of the rules.
    pub given_up: u64,
}

/// Whether to print what happens: run one seed with `TRACE=1 SEED=…`.
pub fn tracing() -> bool {
    std::env::var_os("TRACE").is_some()
}

/// Who has all that was acknowledged, as far as the controller says.
pub fn standing(partition: &Partition) -> impl Iterator<Item = BrokerId> {
    partition.isr.iter().chain(&*partition.elr).copied()
}

pub fn partitions(cluster: &Cluster) -> impl Iterator<Item = (TopicPartition, &Partition)> {
    cluster.topics().flat_map(|topic| {
        topic
            .partitions()
            .map(|(partition, one)| (TopicPartition { topic: topic.id, partition }, one))
    })
}

pub fn rules(cluster: &Cluster, config: &Config, id: TopicPartition) -> Rules {
    Rules::of(cluster.topic_by_id(id.topic).unwrap(), config)
}

impl Oracle {
    /// Looks at one change of the cluster. `has`: how many acknowledged records a broker has of a
    /// partition, and whether it has told all of its losses.
    pub fn check(
        &mut self,
        before: &Cluster,
        after: &Cluster,
        config: &Config,
        has: impl Fn(BrokerId, TopicPartition) -> (u64, bool),
    ) {
        for (id, now) in partitions(after) {
            let then = before.topic_by_id(id.topic).and_then(|topic| topic.partition(id.partition));
            shape(after, now);
            let rules = rules(after, config, id);
            let truth = self.truths.entry(id).or_default();
            truth.term(after, now);
            truth.tolerance = truth.tolerance.min(now.min_isr(rules.min_insync_replicas));
            if tracing() && then != Some(now) {
                println!("{}: {now:?} acked {}", id, truth.acked);
            }
            if let Some(then) = then {
                moves(after, then, now);
                let unclean_allowed = self.unclean_asked || rules.unclean_election;
                if !self.joining && truth.elected(id, then, now, unclean_allowed, self.lossy, &has)
                {
                    self.given_up += 1;
                }
                let gone = then.replicas.iter().any(|one| !now.replicas.contains(one));
                if gone && self.cancelled {
                    // An operator took copies away; the last one only where that is allowed.
                    let left = standing(now).count().max(usize::from(!unclean_allowed));
                    truth.tolerance = truth.tolerance.min(left);
                    if standing(now).next().is_none() {
                        truth.unclean_term = now.leader_epoch;
                    }
                }
            }
            let left = standing(now).count();
            assert!(
                left + truth.losses >= truth.tolerance,
                "LastReplicaStanding: {id}: {left} are left of {} after {} losses: {now:?}",
                truth.tolerance,
                truth.losses
            );
            for member in standing(now) {
                if let (has, true) = has(member, id) {
                    let acked = truth.acked;
                    assert!(
                        has >= acked,
                        "AckedIsNeverLost: {id}: {member} has {has} of {acked}: {now:?}"
                    );
                }
            }
        }
    }
}

impl Truth {
    fn term(&mut self, cluster: &Cluster, now: &Partition) {
        let Some(leader) = now.leader else { return };
        let session = (leader, cluster.broker(leader).unwrap().epoch);
        let first = *self.terms.entry(now.leader_epoch).or_insert(session);
        assert_eq!(first, session, "OneLeaderPerEpoch: in {}", now.leader_epoch);
    }

    /// Whether an election gave records up, which the rules must allow.
    fn elected(
        &mut self,
        id: TopicPartition,
        then: &Partition,
        now: &Partition,
        unclean_allowed: bool,
        lossy: Option<BrokerId>,
        has: impl Fn(BrokerId, TopicPartition) -> (u64, bool),
    ) -> bool {
        let Some(leader) = now.leader.filter(|leader| !standing(then).any(|one| one == *leader))
        else {
            return false;
        };
        let nobody = standing(then).all(|one| Some(one) == lossy) && self.losses >= self.tolerance;
        assert!(unclean_allowed || nobody, "LeaderIsInSync: {leader} of {then:?}");
        assert_eq!(*now.isr, [leader], "LeaderIsInSync: alone after an unclean election");
        let kept = has(leader, id).0;
        let gave_up = kept < self.acked;
        (self.acked, self.tolerance) = (kept, 0);
        self.unclean_term = now.leader_epoch;
        gave_up
    }
}

/// What holds of every state.
fn shape(cluster: &Cluster, now: &Partition) {
    let known = |id: &BrokerId| cluster.broker(*id);
    assert!(now.isr.iter().all(|one| now.replicas.contains(one)), "LeaderIsInSync: {now:?}");
    let eligible = |one: &BrokerId| now.replicas.contains(one) && !now.isr.contains(one);
    assert!(now.elr.iter().all(eligible), "LeaderIsInSync: {now:?}");
    assert!(now.leader.is_none_or(|leader| now.isr.contains(&leader)), "LeaderIsInSync: {now:?}");
    let unfenced = |id: &BrokerId| known(id).is_some_and(|broker| !broker.fenced);
    assert!(now.leader.as_ref().is_none_or(unfenced), "FencedIsOutside: leads {now:?}");
    let alone = now.isr.len() == 1;
    assert!(alone || now.isr.iter().all(unfenced), "FencedIsOutside: {now:?}");
    let moving = now.adding.iter().chain(&*now.removing);
    assert!(moving.into_iter().all(|one| now.replicas.contains(one)), "{now:?}");
    assert!(!now.replicas.is_empty(), "{now:?}");
    assert!(!now.isr.is_empty() || now.elr.is_empty(), "LastReplicaStanding: {now:?}");
}

/// What holds of every change.
fn moves(cluster: &Cluster, then: &Partition, now: &Partition) {
    if then == now {
        return;
    }
    assert!(now.epoch > then.epoch, "EpochsOnlyGrow: {then:?} {now:?}");
    let same = now.leader == then.leader;
    let grown = now.leader_epoch > then.leader_epoch;
    assert!(
        now.leader_epoch == then.leader_epoch && same || grown,
        "EpochsOnlyGrow: {then:?} {now:?}"
    );
    let active = |id: &BrokerId| cluster.broker(*id).is_some_and(|broker| broker.is_active());
    let mut joined = now.isr.iter().filter(|one| !standing(then).any(|known| known == **one));
    assert!(joined.all(active), "FencedIsOutside: joins {now:?}");
}
