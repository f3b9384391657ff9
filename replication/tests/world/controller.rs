//! A controller without a quorum: decides at once, in order, and everything it decided reaches the
//! brokers in that order, some time. ISR and ELR as KIP-966 has them.

use std::collections::{BTreeMap, BTreeSet};

use engine::env::sim::{Random, Stream};
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};
use replication::ask::{AlterIsr, IsrAnswer};
use replication::role::{Assignment, PartitionEpoch};

/// What it knows of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub epoch: BrokerEpoch,
    pub fenced: bool,
    /// Where in the history it registered: it must have seen that before it is unfenced.
    pub registered_at: usize,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct State {
    pub current: Assignment,
    pub elr: BTreeSet<BrokerId>,
    pub min_in_sync: usize,
}

pub struct Controller {
    /// Who of several is elected.
    luck: Random,
    pub members: BTreeMap<BrokerId, Member>,
    pub parts: BTreeMap<TopicPartition, State>,
    /// Everything that was decided, in order.
    pub history: Vec<(TopicPartition, Assignment)>,
    next_epoch: i64,
    /// Elect anybody when nobody eligible is there.
    pub unclean: bool,
}

impl Controller {
    pub fn new(seed: u64) -> Controller {
        Controller {
            luck: Random::new(seed, Stream::Workload, 1),
            members: BTreeMap::new(),
            parts: BTreeMap::new(),
            history: Vec::new(),
            next_epoch: 0,
            unclean: false,
        }
    }

    pub fn create(&mut self, id: TopicPartition, replicas: Vec<BrokerId>, min_in_sync: usize) {
        let current = Assignment {
            leader: Some(replicas[0]),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            isr: replicas.clone(),
            replicas,
        };
        self.history.push((id, current.clone()));
        self.parts.insert(id, State { current, elr: BTreeSet::new(), min_in_sync });
    }

    /// A process of broker `id` is there, with everything durable, or with an empty disk.
    pub fn register(&mut self, id: BrokerId, empty: bool) -> BrokerEpoch {
        self.next_epoch += 1;
        let epoch = BrokerEpoch(self.next_epoch);
        let registered_at = self.history.len();
        self.members.insert(id, Member { epoch, fenced: true, registered_at });
        for part in self.parts.keys().copied().collect::<Vec<_>>() {
            self.on_gone(part, id, empty);
        }
        let registered_at = self.history.len();
        self.members.insert(id, Member { epoch, fenced: true, registered_at });
        epoch
    }

    /// The session is over.
    pub fn fence(&mut self, id: BrokerId) {
        self.members.get_mut(&id).expect("registered").fenced = true;
        for part in self.parts.keys().copied().collect::<Vec<_>>() {
            self.on_gone(part, id, false);
        }
    }

    pub fn unfence(&mut self, id: BrokerId) {
        self.members.get_mut(&id).expect("registered").fenced = false;
        for part in self.parts.keys().copied().collect::<Vec<_>>() {
            if self.parts[&part].current.leader.is_none() {
                self.elect(part, None);
            }
        }
    }

    fn is_live(&self, id: BrokerId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.fenced)
    }

    /// `id` leaves the ISR if others are in it; what it led goes to another one, or nobody.
    fn on_gone(&mut self, part: TopicPartition, id: BrokerId, empty: bool) {
        let state = self.parts.get_mut(&part).expect("exists");
        if empty {
            state.elr.remove(&id);
        }
        let mut isr = state.current.isr.clone();
        let was_in = isr.contains(&id);
        if was_in && (isr.len() > 1 || empty) {
            isr.retain(|member| *member != id);
        }
        if state.current.leader == Some(id) {
            self.set_isr(part, isr, empty.then_some(id));
            self.elect(part, Some(id));
        } else if isr != self.parts[&part].current.isr {
            self.set_isr(part, isr, empty.then_some(id));
            self.publish(part);
        }
    }

    /// Whoever leaves while too few stay remains eligible (KIP-966), unless its disk is empty.
    fn set_isr(&mut self, part: TopicPartition, isr: Vec<BrokerId>, empty: Option<BrokerId>) {
        let state = self.parts.get_mut(&part).expect("exists");
        let needed = state.min_in_sync.min(state.current.replicas.len());
        let left = state.current.isr.iter().filter(|id| !isr.contains(id)).copied();
        let left: Vec<_> = left.filter(|id| Some(*id) != empty).collect();
        match isr.len() >= needed {
            true => state.elr.clear(),
            false => state.elr.extend(left),
        }
        state.elr.retain(|id| !isr.contains(id));
        state.current.isr = isr;
    }

    fn publish(&mut self, part: TopicPartition) {
        let state = self.parts.get_mut(&part).expect("exists");
        state.current.partition_epoch.0 += 1;
        self.history.push((part, state.current.clone()));
    }

    /// A new term: under somebody of the ISR, then of the ELR, then nobody.
    pub fn elect(&mut self, part: TopicPartition, but: Option<BrokerId>) {
        let state = &self.parts[&part];
        let live = |id: &&BrokerId| self.is_live(**id);
        let in_isr = |id: &&BrokerId| state.current.isr.contains(id);
        let mut order = state.current.replicas.clone();
        self.luck.shuffle(&mut order);
        let replicas = || order.iter();
        let other = replicas().filter(live).filter(in_isr).find(|id| Some(**id) != but);
        let same = replicas().filter(live).find(in_isr);
        let eligible = replicas().filter(live).find(|id| state.elr.contains(id));
        let anybody = replicas().filter(live).find(|_| self.unclean);
        let leader = other.or(same).or(eligible).or(anybody).copied();
        let state = self.parts.get_mut(&part).expect("exists");
        if leader.is_none() && state.current.leader.is_none() {
            return;
        }
        state.current.leader = leader;
        state.current.leader_epoch.0 += 1;
        if let Some(leader) = leader
            && !state.current.isr.contains(&leader)
        {
            // Of the ELR or unclean: it begins alone. Others of the ELR stay eligible only if
            // it is complete, which an unclean leader is not.
            if !state.elr.remove(&leader) {
                state.elr.clear();
            }
            state.current.isr = vec![leader];
        }
        self.publish(part);
    }

    /// The replica is taken away and given back before anybody sees it (its log is deleted).
    pub fn replace(&mut self, part: TopicPartition, id: BrokerId) {
        let state = self.parts.get_mut(&part).expect("exists");
        assert!(!state.current.isr.contains(&id));
        state.elr.remove(&id);
        let replicas = state.current.replicas.clone();
        state.current.replicas.retain(|replica| *replica != id);
        self.publish(part);
        self.parts.get_mut(&part).expect("exists").current.replicas = replicas;
        self.publish(part);
    }

    pub fn alter_isr(
        &mut self,
        from: BrokerId,
        part: TopicPartition,
        asked: &AlterIsr,
    ) -> IsrAnswer {
        let current = &self.parts[&part].current;
        let is_current = current.leader == Some(from)
            && current.leader_epoch == asked.leader_epoch
            && current.partition_epoch == asked.partition_epoch;
        if !is_current {
            return IsrAnswer::Stale;
        }
        for (id, epoch) in &asked.isr {
            let member = &self.members[id];
            let same = epoch.is_none_or(|epoch| epoch == member.epoch);
            let known = current.isr.contains(id) && epoch.is_none();
            if (member.fenced || !same) && !known || !current.replicas.contains(id) {
                return IsrAnswer::Ineligible;
            }
        }
        let isr: Vec<_> = asked.isr.iter().map(|(id, _)| *id).collect();
        self.set_isr(part, isr.clone(), None);
        self.publish(part);
        let partition_epoch = self.parts[&part].current.partition_epoch;
        IsrAnswer::Accepted { partition_epoch, isr }
    }

    /// Somebody other than the present leader, if there is one (a spent term, a rebalance).
    pub fn new_term(&mut self, part: TopicPartition, epoch: LeaderEpoch) {
        let current = &self.parts[&part].current;
        if current.leader_epoch == epoch {
            let leader = current.leader;
            self.elect(part, leader);
        }
    }
}
