//! What happens in one broker: what the driver does with a real log, here with an abstract one.

use std::collections::{BTreeMap, VecDeque};

use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};
use engine::time::Instant;
use replication::ask::{AnswerPart, FetchFault, Outcome, ReplicaFetch};
use replication::fetcher::{Delivery, Fetcher};
use replication::follower::Step;
use replication::leader::{Acks, Verdict};
use replication::role::{Assignment, Change, Replica, Role};
use replication::stream::{Head, Stream};

use super::log::{Entry, ModelLog, Records};
use super::{Broker, Checked, Part, World, at};

impl Broker {
    pub fn new(id: BrokerId, epoch: BrokerEpoch) -> Broker {
        Broker {
            id,
            epoch,
            up: true,
            paused: false,
            parts: BTreeMap::new(),
            fetchers: BTreeMap::new(),
            seen: 0,
        }
    }

    pub fn works(&self) -> bool {
        self.up && !self.paused
    }

    pub fn on_replica_fetch(
        &mut self,
        fetch: &ReplicaFetch,
        now: Instant,
    ) -> Result<Verdict, FetchFault> {
        let part = self.parts.get_mut(&fetch.part.id).ok_or(FetchFault::NotLeader)?;
        let view = part.log.view();
        match part.replica.leader_mut() {
            Some(leader) => leader.on_fetch(fetch, &view, now),
            None => Err(FetchFault::NotLeader),
        }
    }

    /// Reads for the answer at the head of a stream.
    pub fn compose(
        &mut self,
        stream: &mut Stream,
        follower: BrokerId,
        seq: u64,
        mut budget: usize,
    ) -> Vec<AnswerPart<Records>> {
        let mut parts = Vec::new();
        stream.stir_all();
        for read in stream.reads(seq) {
            let part = self.parts.get_mut(&read.id).expect("it leads it, or did");
            let end = part.log.end();
            let head = Head {
                high_watermark: part.replica.high_watermark(),
                log_start: Offset::new(part.log.start),
            };
            let Some(leader) = part.replica.leader_mut() else {
                stream.on_unreadable(&read, FetchFault::NotLeader);
                continue;
            };
            let fault = match leader.may_show(follower) {
                _ if leader.epoch() != read.leader_epoch => Some(FetchFault::Fenced),
                Err(fault) => Some(fault),
                Ok(()) if at(read.from) < part.log.start || at(read.from) > end => {
                    let start = Offset::new(part.log.start);
                    Some(FetchFault::OutOfRange { start, end: Offset::new(end) })
                }
                Ok(()) => None,
            };
            if let Some(fault) = fault {
                stream.on_unreadable(&read, fault);
                continue;
            }
            let entries = part.log.read(at(read.from), budget);
            budget -= entries.len();
            let next = read.from.plus(entries.len() as u64);
            leader.on_shown(next);
            if stream.on_read(&read, next, head) {
                let base = at(read.from);
                let records = (!entries.is_empty()).then_some(Records { base, entries });
                let (high_watermark, log_start) = (head.high_watermark, head.log_start);
                let outcome = Outcome::Records(records);
                parts.push(AnswerPart { id: read.id, high_watermark, log_start, outcome });
            }
        }
        for (id, trouble) in stream.take_troubles(seq) {
            let part = self.parts.get(&id);
            let high_watermark = part.map_or(Offset::ZERO, |part| part.replica.high_watermark());
            let log_start = part.map_or(Offset::ZERO, |part| Offset::new(part.log.start));
            parts.push(AnswerPart { id, high_watermark, log_start, outcome: trouble.into() });
        }
        parts
    }
}

impl World {
    /// The process ends. Of what is not durable a part is lost.
    pub fn crash(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("exists");
        if !broker.up {
            return;
        }
        broker.up = false;
        broker.paused = false;
        broker.fetchers.clear();
        for part in broker.parts.values_mut() {
            part.tickets.clear();
            part.inbox.clear();
            // A truncation is crash-safe: done or not begun.
            if let Some((to, anew)) = part.cutting.take()
                && self.random.chance(1, 2)
            {
                match anew {
                    true => part.log.restart_at(to),
                    false => part.log.truncate_to(to),
                }
            }
            let kept = self.random.between(part.log.durable, part.log.end());
            part.log.truncate_to(kept);
        }
        // Those who fetch from it notice.
        for at in 0..self.links.len() {
            if self.links[at].leader == id {
                self.cut(at);
            }
        }
    }

    /// A stopped broker comes back with an empty disk, if somebody else has everything: the loss of
    /// the last good copy is none that anybody could bear.
    pub fn wipe(&mut self, id: BrokerId) -> Checked {
        let safe = self.controller.parts.values().all(|state| {
            let mut others = state.current.isr.iter().chain(&state.elr);
            others.any(|other| *other != id)
        });
        let broker = self.brokers.get_mut(&id).expect("exists");
        if broker.up || !(safe || self.truth.unclean) {
            return Ok(());
        }
        broker.parts.clear();
        self.begin(id, true)
    }

    /// A process of it begins: it registers, and applies nothing older than that.
    pub fn start(&mut self, id: BrokerId) -> Checked {
        self.begin(id, false)
    }

    fn begin(&mut self, id: BrokerId, wiped: bool) -> Checked {
        let epoch = self.controller.register(id, wiped);
        let (history, config) = (self.controller.history.len(), self.config);
        let broker = self.brokers.get_mut(&id).expect("exists");
        broker.up = true;
        broker.epoch = epoch;
        for part in broker.parts.values_mut() {
            part.log.durable = part.log.end();
            part.replica = Replica::new(id, config, Offset::new(part.log.start));
            part.told = part.log.start;
        }
        broker.seen = history;
        let current = self.controller.parts.iter();
        let current: Vec<_> = current.map(|(id, state)| (*id, state.current.clone())).collect();
        current.into_iter().try_for_each(|(part, new)| self.assign(id, part, new))
    }

    pub fn assign(&mut self, id: BrokerId, part: TopicPartition, new: Assignment) -> Checked {
        let (now, config) = (self.now, self.config);
        let session = self.new_session();
        let min_in_sync = self.controller.parts[&part].min_in_sync;
        let broker = self.brokers.get_mut(&id).expect("exists");
        let is_replica = new.replicas.contains(&id);
        let state = broker.parts.entry(part).or_insert_with(|| Part::new(id, config));
        let before = state.replica.epoch();
        let change = state.replica.on_assignment(new, &state.log.view(), min_in_sync, now);
        let term = state.replica.epoch();
        if term != before {
            state.tickets.clear();
        }
        match change {
            Change::Ignored => return Ok(()),
            Change::Version => {}
            Change::Leads => {
                state.told = state.log.start;
                self.truth.on_leads(part, id, state)?;
            }
            Change::Follows { cut } => {
                state.told = state.log.start;
                if let Some(to) = cut {
                    state.log.truncate_to(at(to));
                }
            }
            Change::Stands => {
                if !is_replica {
                    state.log = ModelLog::default();
                    state.replica = Replica::new(id, config, Offset::ZERO);
                    state.told = 0;
                }
            }
        }
        let followed = state.replica.follower().map(|follower| follower.leader());
        let standing = state.replica.follower().map(|f| f.standing(part, &state.log.view()));
        for (leader, fetcher) in &mut broker.fetchers {
            if Some(*leader) != followed {
                fetcher.remove(part);
            }
        }
        if let (Some(leader), Some(standing)) = (followed, standing) {
            let fetcher = broker.fetchers.entry(leader);
            fetcher.or_insert_with(|| Fetcher::new(session, config)).place(standing);
        }
        self.settle(id, part)
    }

    pub fn produce(&mut self, id: BrokerId, part: TopicPartition) -> Checked {
        let (value, now) = (self.new_value(), self.now);
        let broker = self.brokers.get_mut(&id).expect("exists");
        if !broker.works() {
            return Ok(());
        }
        let Some(state) = broker.parts.get_mut(&part) else { return Ok(()) };
        let Some(leader) = state.replica.leader_mut() else { return Ok(()) };
        // Every third is acks=1: it is appended whatever the ISR.
        let acks = if value.is_multiple_of(3) && !self.calm { Acks::Leader } else { Acks::All };
        if leader.is_spent() || leader.admit(acks).is_err() {
            return Ok(());
        }
        let (epoch, offset) = (leader.epoch(), state.log.end());
        state.log.append(Entry { epoch, value });
        leader.on_append(Offset::new(state.log.end()), now);
        if acks == Acks::All {
            state.tickets.push((epoch, offset, value));
        }
        self.settle(id, part)
    }

    /// The device has some more.
    pub fn persist(&mut self, id: BrokerId, part: TopicPartition) -> Checked {
        let broker = self.brokers.get_mut(&id).expect("exists");
        if !broker.works() {
            return Ok(());
        }
        let Some(state) = broker.parts.get_mut(&part) else { return Ok(()) };
        if state.log.durable == state.log.end() || state.cutting.is_some() {
            return Ok(());
        }
        state.log.durable = self.random.between(state.log.durable + 1, state.log.end());
        let durable = Offset::new(state.log.durable);
        let view = state.log.view();
        match state.replica.role() {
            Role::Leader(_) => {
                state.replica.leader_mut().expect("just seen").on_durable(durable);
            }
            Role::Follower(follower) => {
                let (leader, standing) = (follower.leader(), follower.standing(part, &view));
                broker.fetchers.get_mut(&leader).expect("it follows").on_progress(standing);
            }
            Role::Standby => {}
        }
        self.settle(id, part)
    }

    /// The log gives up batches: the device is full.
    pub fn give_up(&mut self, id: BrokerId, part: TopicPartition) -> Checked {
        let broker = self.brokers.get_mut(&id).expect("exists");
        if !broker.works() {
            return Ok(());
        }
        let Some(state) = broker.parts.get_mut(&part) else { return Ok(()) };
        if state.cutting.is_some() || state.log.durable == state.log.end() {
            return Ok(());
        }
        let to = self.random.between(state.log.durable, state.log.end() - 1);
        state.log.truncate_to(to);
        state.tickets.retain(|(_, offset, _)| *offset < to);
        let to = Offset::new(to);
        if let Some(leader) = state.replica.leader_mut() {
            leader.on_given_up(to);
        }
        if let Some(follower) = state.replica.follower_mut() {
            follower.on_given_up(to);
            let leader = follower.leader();
            let standing = follower.standing(part, &state.log.view());
            broker.fetchers.get_mut(&leader).expect("it follows").place(standing);
        }
        state.told = state.told.min(at(to));
        self.settle(id, part)
    }

    /// Retention: on a leader, below the high watermark.
    pub fn delete(&mut self, id: BrokerId, part: TopicPartition) {
        let broker = self.brokers.get_mut(&id).expect("exists");
        let Some(state) = broker.parts.get_mut(&part) else { return };
        if broker.up && !broker.paused && state.replica.leader().is_some() {
            let bound = at(state.replica.high_watermark());
            let to = self.random.below(bound + 1);
            state.log.delete_before(to);
        }
    }

    /// A follower carries out one answer, or ends a truncation.
    pub fn take(&mut self, id: BrokerId, part: TopicPartition) -> Checked {
        let now = self.now;
        let broker = self.brokers.get_mut(&id).expect("exists");
        if !broker.works() {
            return Ok(());
        }
        let Some(state) = broker.parts.get_mut(&part) else { return Ok(()) };
        let pause = match state.cutting.take() {
            Some((to, anew)) => {
                match anew {
                    true => state.log.restart_at(to),
                    false => state.log.truncate_to(to),
                }
                let end = Offset::new(state.log.end());
                state.told = state.told.min(at(end));
                if let Some(follower) = state.replica.follower_mut() {
                    follower.on_truncated(Offset::new(state.log.start), end);
                }
                Some(None)
            }
            None => {
                let Some(delivery) = state.inbox.pop_front() else { return Ok(()) };
                state.on_delivery(delivery)
            }
        };
        if let Some(follower) = state.replica.follower()
            && let Some(fetcher) = broker.fetchers.get_mut(&follower.leader())
        {
            let standing = follower.standing(part, &state.log.view());
            match pause {
                None => fetcher.on_progress(standing),
                Some(None) => fetcher.place(standing),
                Some(Some(pause)) => fetcher.place_at(standing, now.after(pause)),
            }
        }
        self.settle(id, part)
    }

    /// A consumer reads everything it may, on any broker that has the partition.
    pub fn consume(&mut self, id: BrokerId, part: TopicPartition) -> Checked {
        let broker = &self.brokers[&id];
        match broker.parts.get(&part) {
            Some(state) if broker.works() => {
                if matches!(state.replica.role(), Role::Standby) {
                    return Ok(());
                }
                let bound = at(state.replica.read_bound(&state.log.view()));
                self.truth.check_read(part, id, &state.log, bound)
            }
            _ => Ok(()),
        }
    }

    /// After anything: who has an answer now, and does it all agree?
    pub fn settle(&mut self, id: BrokerId, part: TopicPartition) -> Checked {
        let broker = self.brokers.get_mut(&id).expect("exists");
        match broker.parts.get_mut(&part) {
            Some(state) => self.truth.on_change(part, id, state),
            None => Ok(()),
        }
    }
}

impl Part {
    pub fn new(id: BrokerId, config: replication::config::ReplicationConfig) -> Part {
        Part {
            log: ModelLog::default(),
            replica: Replica::new(id, config, Offset::ZERO),
            tickets: Vec::new(),
            cutting: None,
            inbox: VecDeque::new(),
            told: 0,
        }
    }

    /// Carries an answer out. `Some`: the position must be said again, at once or later.
    fn on_delivery(&mut self, delivery: Delivery<Records>) -> Option<Option<std::time::Duration>> {
        let Delivery { leader_epoch, answer } = delivery;
        let view = self.log.view();
        match self.replica.on_answer(leader_epoch, &answer, &view) {
            Step::Ignore | Step::Idle => {}
            Step::Append => {
                let Outcome::Records(Some(records)) = &answer.outcome else { unreachable!() };
                if records.base != self.log.end() {
                    return Some(None);
                }
                records.entries.iter().for_each(|entry| self.log.append(*entry));
                let end = Offset::new(self.log.end());
                let follower = self.replica.follower_mut().expect("just seen");
                follower.on_appended(answer.high_watermark, end);
            }
            Step::Truncate(to) => self.cutting = Some((at(to), false)),
            Step::Restart(to) => self.cutting = Some((at(to), true)),
            Step::Reposition => return Some(None),
            Step::BackOff(pause, _) => return Some(Some(pause)),
        }
        let bound = at(self.replica.high_watermark()).min(self.log.durable);
        if self.cutting.is_none() {
            self.log.delete_before(at(answer.log_start).min(bound));
        }
        None
    }

    pub fn term(&self) -> LeaderEpoch {
        self.replica.epoch()
    }
}
