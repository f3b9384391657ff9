//! The coordinator with its log, the network, and the cluster's topics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::heartbeat::{Beaten, Heartbeat, heartbeat};
use coordinator::group::consumer::records::Record;
use coordinator::group::consumer::times::{Bounds, Own, Times};
use coordinator::group::consumer::topics::Topics;
use coordinator::group::consumer::{
    ConsumerConfig, ConsumerGroup, Effects, Fault, JOIN_EPOCH, Mutant, Scene, Soft, State, expiry,
};
use coordinator::machine::Moment;
use engine::ids::{PartitionIndex, TopicId};
use engine::time::{Instant, Timestamp};

use crate::client::{Client, Life};

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The topics there are.
#[derive(Default)]
pub struct Table {
    version: i64,
    topics: BTreeMap<String, (TopicId, i32)>,
    made: u8,
}

impl Table {
    pub fn create(&mut self, name: String, partitions: i32) {
        self.made += 1;
        self.version += 1;
        self.topics.insert(name, (TopicId::from_bytes([self.made; 16]), partitions));
    }

    pub fn grow(&mut self, name: &str) {
        self.version += 1;
        self.topics.get_mut(name).expect("it is there").1 += 1;
    }

    pub fn delete(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }

    fn change(&mut self, random: &mut Random) {
        let name = format!("topic-{}", random.below(4));
        self.version += 1;
        match self.topics.get_mut(&name) {
            Some(_) if random.once_in(4) && self.made < 200 => _ = self.topics.remove(&name),
            Some((_, partitions)) => *partitions += 1,
            None => self.create(name, 1 + random.below(5) as i32),
        }
    }
}

impl Topics for Table {
    fn version(&self) -> i64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.topics.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.topics.iter().find(|(_, (other, _))| *other == id).map(|(name, _)| name.as_str())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn own(&self, _group: &str) -> Own {
        Own::default()
    }
}

/// What has happened.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    pub failovers: u64,
    pub fenced: u64,
    pub lost: u64,
    pub late: u64,
    pub revocations: u64,
    pub away: u64,
    pub expired: u64,
    pub epochs: u64,
    pub records: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.failovers += other.failovers;
        self.fenced += other.fenced;
        self.lost += other.lost;
        self.late += other.late;
        self.revocations += other.revocations;
        self.away += other.away;
        self.expired += other.expired;
        self.epochs += other.epochs;
        self.records += other.records;
    }
}

type Stored = (Vec<u8>, Option<Vec<u8>>);

/// Something on its way between a client and the coordinator.
struct Parcel {
    arrives: Instant,
    client: usize,
    number: u64,
    sent: Heartbeat,
    answer: Option<Result<Beaten, Fault>>,
}

pub struct World {
    random: Random,
    now: Instant,
    config: ConsumerConfig,
    name: Rc<str>,
    topics: Table,
    hard: Option<ConsumerGroup>,
    soft: Soft,
    log: Vec<Stored>,
    /// The state that the committed part of the log stands for, and how long that part is.
    committed: (Option<ConsumerGroup>, usize),
    /// Answers that wait until the log is committed to here.
    held: VecDeque<(usize, Parcel)>,
    clients: Vec<Client>,
    parcels: Vec<Parcel>,
    /// Requests that were given up, and may come yet.
    stray: Vec<Heartbeat>,
    next_number: u64,
    faults: bool,
    figures: Figures,
}

const STEP: Duration = Duration::from_millis(100);
/// How long there are faults, and how long after them everybody has to be served.
const FAULTY: Duration = Duration::from_secs(90);
const HEALING: Duration = Duration::from_secs(70);

impl World {
    /// One run. `Err` names the invariant that broke.
    pub fn run(seed: u64, mutant: Option<Mutant>) -> Result<Figures, String> {
        let mut random = Random(seed);
        let mut topics = Table::default();
        for number in 0..1 + random.below(4) {
            topics.create(format!("topic-{number}"), 1 + random.below(6) as i32);
        }
        let clients = (0..2 + random.below(5)).map(|n| Client::new(n, &mut random)).collect();
        let usual = Times {
            session: Duration::from_secs(8),
            heartbeat_interval: Duration::from_secs(1),
            assignment_interval: Duration::from_millis(random.below(2) as u64 * 1_500),
        };
        let config = ConsumerConfig {
            times: Bounds { usual, ..Bounds::default() },
            mutant,
            ..ConsumerConfig::default()
        };
        let mut world = World {
            random,
            now: Instant::ZERO.after(Duration::from_secs(1_000)),
            config,
            name: "group".into(),
            topics,
            hard: None,
            soft: Soft::default(),
            log: Vec::new(),
            committed: (None, 0),
            held: VecDeque::new(),
            clients,
            parcels: Vec::new(),
            stray: Vec::new(),
            next_number: 0,
            faults: true,
            figures: Figures::default(),
        };
        world.live()?;
        Ok(world.figures)
    }

    fn live(&mut self) -> Result<(), String> {
        let heal = self.now.after(FAULTY);
        let end = heal.after(HEALING);
        while self.now < end {
            self.now = self.now.after(STEP);
            self.faults = self.now < heal;
            if self.faults {
                self.misfortune();
            }
            self.clients_work();
            self.deliver()?;
            self.expire();
            if !self.faults || !self.random.once_in(4) {
                self.commit();
            }
            self.one_owner_per_partition()?;
        }
        self.everyone_is_served()
    }

    fn misfortune(&mut self) {
        let count = self.clients.len();
        if self.random.once_in(150) {
            self.fail_over();
        }
        if self.random.once_in(120) {
            self.topics.change(&mut self.random);
        }
        if self.random.once_in(100) {
            let at = self.random.below(count);
            let pause = Duration::from_millis(self.random.below(20_000) as u64);
            self.clients[at].crash(self.now.after(pause));
        }
        if self.random.once_in(100) {
            let at = self.random.below(count);
            self.clients[at].leave(&mut self.random);
            self.figures.away += u64::from(self.clients[at].life == Life::Leaving(-2));
        }
        if self.random.once_in(120) {
            let at = self.random.below(count);
            self.clients[at].subscribe(&mut self.random);
        }
        if self.random.once_in(20) && !self.stray.is_empty() {
            let at = self.random.below(self.stray.len());
            let beat = self.stray.swap_remove(at);
            self.deliver_stray(beat);
        }
    }

    /// A request comes that its client has long given up. Not if it is of the epoch that the
    /// member is in, or was in before: there the protocol itself does not tell older from newer.
    fn deliver_stray(&mut self, beat: Heartbeat) {
        let client = self.clients.iter().find(|client| client.id == beat.member);
        let before = self.hard.as_ref().map(|group| group.current(&beat.member).previous_epoch);
        let is_old = client.is_some_and(|client| beat.epoch + 1 < client.epoch)
            && before != Some(beat.epoch);
        if is_old && beat.epoch > JOIN_EPOCH {
            self.figures.late += 1;
            let _ = self.decide(beat);
        }
    }

    fn clients_work(&mut self) {
        for at in 0..self.clients.len() {
            self.next_number += 1;
            let number = self.next_number;
            let Some(sent) = self.clients[at].work(self.now, number, self.faults, &mut self.random)
            else {
                continue;
            };
            if self.faults && self.random.once_in(12) {
                self.figures.lost += 1;
                self.stray.push(sent);
                continue;
            }
            let arrives = self.now.after(self.delay());
            self.parcels.push(Parcel { arrives, client: at, number, sent, answer: None });
        }
    }

    fn delay(&mut self) -> Duration {
        let most = if self.faults && self.random.once_in(10) { 1_900 } else { 120 };
        Duration::from_millis(self.random.below(most) as u64)
    }

    fn deliver(&mut self) -> Result<(), String> {
        let now = self.now;
        let (mut due, rest): (Vec<_>, Vec<_>) =
            self.parcels.drain(..).partition(|parcel| parcel.arrives <= now);
        self.parcels = rest;
        due.sort_by_key(|parcel| (parcel.arrives, parcel.number));
        for parcel in due {
            match parcel.answer {
                None => {
                    // What its client has given up does not overtake what it sent since.
                    let leaves = parcel.sent.epoch < JOIN_EPOCH;
                    let waiting = self.clients[parcel.client].waiting.map(|(number, _)| number);
                    if waiting != Some(parcel.number) && !leaves {
                        self.stray.push(parcel.sent);
                        continue;
                    }
                    let answer = Some(self.decide(parcel.sent.clone()));
                    self.held.push_back((self.log.len(), Parcel { answer, ..parcel }));
                }
                Some(answer) => {
                    let client = &mut self.clients[parcel.client];
                    if client.waiting.map(|(number, _)| number) == Some(parcel.number) {
                        let fenced = matches!(
                            answer,
                            Err(Fault::FencedMemberEpoch { .. } | Fault::UnknownMemberId)
                        );
                        self.figures.fenced += u64::from(fenced);
                        client.hear(now, &parcel.sent, answer)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn scene<'a>(
        config: &'a ConsumerConfig,
        topics: &'a Table,
        now: Instant,
        random: &mut Random,
    ) -> Scene<'a> {
        let random = [random.next(), random.next()];
        let wall = Timestamp(i64::try_from(now.nanos() / 1_000_000).expect("short"));
        Scene { config, times: config.times.usual, topics, at: Moment { now, wall, random } }
    }

    fn decide(&mut self, beat: Heartbeat) -> Result<Beaten, Fault> {
        let mut out = Effects::default();
        let scene = Self::scene(&self.config, &self.topics, self.now, &mut self.random);
        let (group, soft) = (self.hard.as_ref(), &mut self.soft);
        let answer = heartbeat(&self.name, group, soft, scene, beat, &mut out);
        assert!(answer.is_ok() || out.records.is_empty(), "who is refused changes nothing");
        self.append(out);
        answer
    }

    fn expire(&mut self) {
        let Some(group) = &self.hard else { return };
        if self.soft.deadline().is_none_or(|at| at > self.now) {
            return;
        }
        let mut out = Effects::default();
        let scene = Self::scene(&self.config, &self.topics, self.now, &mut self.random);
        expiry::expire(&self.name, group, &mut self.soft, scene, &mut out);
        self.figures.expired += u64::from(!out.records.is_empty());
        self.append(out);
    }

    fn append(&mut self, out: Effects) {
        assert_eq!(out.downgraded, None, "nobody speaks the classic protocol here");
        let before = self.hard.as_ref().map_or(0, ConsumerGroup::epoch);
        for record in out.records {
            ConsumerGroup::apply(&mut self.hard, &record.change);
            self.log.push(record.store());
            self.figures.records += 1;
            if let coordinator::group::consumer::records::Change::Current(_, Some(now)) =
                &record.change
            {
                self.figures.revocations += u64::from(!now.revoking.is_empty());
            }
        }
        let after = self.hard.as_ref().map_or(0, ConsumerGroup::epoch);
        self.figures.epochs += u64::from(after > before);
    }

    fn load((key, value): &Stored) -> Record {
        Record::load(key, value.as_deref()).expect("it was stored by us")
    }

    fn commit(&mut self) {
        let (group, len) = &mut self.committed;
        for stored in &self.log[*len..] {
            ConsumerGroup::apply(group, &Self::load(stored).change);
        }
        *len = self.log.len();
        while let Some((at, _)) = self.held.front()
            && *at <= self.log.len()
        {
            let (_, mut parcel) = self.held.pop_front().expect("there is a first");
            if self.faults && self.random.once_in(12) {
                self.figures.lost += 1;
                continue;
            }
            parcel.arrives = self.now.after(self.delay());
            self.parcels.push(parcel);
        }
    }

    /// Another broker takes over with what is committed; some of it compacted.
    fn fail_over(&mut self) {
        self.figures.failovers += 1;
        self.log.truncate(self.committed.1);
        self.held.clear();
        self.compact();
        self.hard = None;
        for stored in &self.log {
            ConsumerGroup::apply(&mut self.hard, &Self::load(stored).change);
        }
        assert_eq!(self.hard, self.committed.0, "replaying the log is the state");
        self.committed.1 = self.log.len();
        self.soft = Soft::default();
        if let Some(group) = &self.hard {
            self.soft.take_up(group, &self.config, &self.config.times.usual, self.now);
        }
    }

    /// Keeps of some part of the log the last record of each key only. Tombstones stay.
    fn compact(&mut self) {
        let part = self.random.below(self.log.len() + 1);
        let last: BTreeMap<Vec<u8>, usize> =
            self.log[..part].iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
        let mut at = 0;
        self.log.retain(|(key, _)| {
            at += 1;
            at > part || last[key] == at - 1
        });
    }

    fn one_owner_per_partition(&self) -> Result<(), String> {
        let Some(group) = &self.committed.0 else { return Ok(()) };
        let mut owners: BTreeMap<(TopicId, PartitionIndex), &str> = BTreeMap::new();
        // Those whom the group has given up are owners no more, whatever they believe: they can
        // commit nothing.
        for client in self.clients.iter().filter(|client| group.member(&client.id).is_some()) {
            for (topic, partition) in flat(&client.owned) {
                if let Some(other) = owners.insert((topic, partition), &client.id) {
                    let (name, id) = (self.topics.name(topic).unwrap_or("gone"), &client.id);
                    return Err(format!(
                        "OneOwnerPerPartition: {other} and {id} have {name}/{partition}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn everyone_is_served(&self) -> Result<(), String> {
        let broken = |what: String| Err(format!("EveryoneIsServed: {what}"));
        let Some(group) = &self.hard else { return broken("there is no group".into()) };
        let ids: BTreeSet<&str> = group.members().map(|(id, _)| &**id).collect();
        let up: BTreeSet<&str> = self.clients.iter().map(|client| &*client.id).collect();
        if ids != up {
            return broken(format!("members {ids:?}, clients {up:?}"));
        }
        if group.state() != State::Stable {
            return broken(format!("it is {:?}", group.state()));
        }
        let mut owned = BTreeSet::new();
        for client in &self.clients {
            if client.owned != *group.target(&client.id) {
                return broken(format!("{} has {:?}", client.id, client.owned));
            }
            if client.epoch != group.epoch() {
                return broken(format!("{} is in epoch {}", client.id, client.epoch));
            }
            owned.extend(flat(&client.owned));
        }
        for (name, (id, partitions)) in &self.topics.topics {
            let wanted = self.clients.iter().any(|client| client.wants(name));
            for partition in (0..*partitions).map(PartitionIndex) {
                if wanted != owned.contains(&(*id, partition)) {
                    return broken(format!("{name}/{partition}: wanted {wanted}"));
                }
            }
        }
        Ok(())
    }
}

impl Client {
    fn wants(&self, topic: &str) -> bool {
        let by_pattern = match self.pattern.as_deref().expect("clients say it") {
            "topic-[01]" => ["topic-0", "topic-1"].contains(&topic),
            ".*" => true,
            "topic-3|other" => topic == "topic-3",
            _ => false,
        };
        by_pattern || self.topics.contains(topic)
    }
}

fn flat(partitions: &Partitions) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
    partitions.iter().flat_map(|(topic, all)| all.iter().map(|partition| (*topic, *partition)))
}
