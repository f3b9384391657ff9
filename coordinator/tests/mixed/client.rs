//! A member as Kafka's consumers are one, of the classic protocol (eager or cooperative) or of the
//! consumer protocol; when it is started again perhaps of the other one. One request at a time.

use std::collections::{BTreeMap, BTreeSet};

use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::embedded::{self, Named, Subscription};
use coordinator::group::consumer::heartbeat::{Beaten, Heartbeat as Beat};
use coordinator::group::consumer::{AWAY_EPOCH, Fault, JOIN_EPOCH, LEAVE_EPOCH};
use coordinator::group::request::*;
use engine::ids::PartitionIndex;

use crate::world::{Answer, PARTITIONS, World};

const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 9_000;
/// Longest pause between two signs of life, unless something goes wrong.
const BEAT_MS: u64 = 1_500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Joining,
    Syncing,
    Stable,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub alive: bool,
    /// It speaks the consumer protocol.
    pub is_new: bool,
    /// Of the classic protocol: it gives everything up before it joins.
    eager: bool,
    /// Another one after each timeout: nothing of the old ones arrives any more.
    pub connection: u64,
    /// The node that it believes to be the coordinator; never one before another it knew.
    coordinator: usize,
    pub instance: Option<String>,
    pub id: String,
    /// Its generation, or its member epoch.
    pub epoch: i32,
    pub mode: Mode,
    /// What it gives, if it leads.
    gives: Vec<(String, Vec<u8>)>,
    /// What it uses.
    pub owned: BTreeSet<i32>,
    /// What it is to use, of the consumer protocol.
    target: BTreeSet<i32>,
    positions: BTreeMap<i32, i64>,
    /// What it said last that it has, since it said everything.
    told: Option<BTreeSet<i32>>,
    wakes: u64,
    /// When it said last that it lives: a commit does not say so in a consumer group.
    beaten: u64,
    /// A request is on its way.
    asking: bool,
    number: usize,
    starts: u32,
}

impl Client {
    pub fn new(number: usize, instance: Option<String>, is_new: bool, eager: bool) -> Client {
        let mut client = Client {
            alive: true,
            is_new,
            eager,
            connection: 0,
            coordinator: 0,
            instance,
            id: String::new(),
            epoch: -1,
            mode: Mode::Joining,
            gives: Vec::new(),
            owned: BTreeSet::new(),
            target: BTreeSet::new(),
            positions: BTreeMap::new(),
            told: None,
            wakes: 0,
            beaten: 0,
            asking: false,
            number,
            starts: 0,
        };
        client.start(is_new);
        client
    }

    /// Another process in its place.
    pub fn start(&mut self, is_new: bool) {
        self.alive = true;
        self.is_new = is_new;
        self.connection += 1;
        self.starts += 1;
        self.asking = false;
        self.id = if is_new { format!("new-{}-{}", self.number, self.starts) } else { "".into() };
        self.abandon();
    }

    pub fn crash(&mut self) {
        self.alive = false;
        self.connection += 1;
    }

    /// Lets go of everything, and joins again.
    fn abandon(&mut self) {
        self.epoch = if self.is_new { JOIN_EPOCH } else { -1 };
        self.mode = Mode::Joining;
        self.use_only(BTreeSet::new());
        self.target.clear();
        self.told = None;
    }

    fn use_only(&mut self, owned: BTreeSet<i32>) {
        self.owned = owned;
        self.positions.retain(|partition, _| self.owned.contains(partition));
    }

    pub fn next_wake(&mut self) -> u64 {
        self.wakes += 1;
        self.wakes
    }

    pub fn is_wake(&self, serial: u64) -> bool {
        self.wakes == serial
    }

    pub fn coordinator(&self) -> usize {
        self.coordinator
    }

    /// It leaves in good order, and is gone. Static members of the classic protocol say nothing.
    pub fn leave(world: &mut World, at: usize) {
        let away = world.random.percent(50);
        let client = &mut world.clients[at];
        if !client.alive || client.id.is_empty() || client.mode == Mode::Joining {
            return;
        }
        client.use_only(BTreeSet::new());
        // Not a crash: what is on the wire arrives.
        client.alive = false;
        if client.is_new {
            let epoch = match client.instance {
                Some(_) if away => AWAY_EPOCH,
                _ => LEAVE_EPOCH,
            };
            let beat = Beat { epoch, owned: None, ..client.beat() };
            world.beat(at, beat);
        } else if client.instance.is_none() {
            let leaver = Leaver { member: client.id.clone(), ..Leaver::default() };
            let (group, topics) = ("g".into(), world.view());
            world.send(at, Request::Leave(Leave { group, members: vec![leaver], topics }));
        }
    }

    fn look_for_coordinator(world: &mut World, at: usize) {
        if !world.faults || world.random.percent(80) {
            world.clients[at].coordinator = world.leader();
        }
    }

    /// Time has come to ask something; or to give up on an answer.
    pub fn on_wake(world: &mut World, at: usize) {
        let client = &mut world.clients[at];
        if std::mem::take(&mut client.asking) {
            client.connection += 1;
            client.told = None;
            Client::look_for_coordinator(world, at);
        }
        let (dawdles, works) = (world.faults && world.random.percent(30), world.random.percent(40));
        let (view, now) = (world.view(), world.now);
        let client = &mut world.clients[at];
        client.asking = true;
        let patience = match client.mode {
            Mode::Joining | Mode::Syncing if !client.is_new => REBALANCE_MS as u64 + 3_000,
            _ => 2_000,
        };
        let request = match (client.mode, client.is_new) {
            (Mode::Joining, false) => Request::Join(Join { topics: view, ..client.join() }),
            (Mode::Syncing, false) => Request::Sync(Sync { topics: view, ..client.sync() }),
            (Mode::Stable, false) => match client.work(works) {
                Some(request) if now < client.beaten + BEAT_MS => request,
                _ => {
                    client.beaten = now;
                    Request::Heartbeat(Heartbeat { topics: view, ..client.heartbeat() })
                }
            },
            (_, true) => {
                let news = client.reconcile(dawdles);
                match client.work(works) {
                    Some(request) if !news && client.epoch > 0 && now < client.beaten + BEAT_MS => {
                        request
                    }
                    _ => {
                        client.beaten = now;
                        let (group, beat) = ("g".into(), client.beat());
                        client.told = beat.owned.is_some().then(|| client.owned.clone());
                        let topics = view;
                        Request::ConsumerHeartbeat(ConsumerHeartbeat { group, beat, topics })
                    }
                }
            }
        };
        world.send(at, request);
        world.wake(at, patience);
    }

    /// One step towards what it is to use. Whether there is something to tell.
    fn reconcile(&mut self, dawdles: bool) -> bool {
        let kept: BTreeSet<i32> = self.owned.intersection(&self.target).copied().collect();
        if kept != self.owned {
            if dawdles {
                return false;
            }
            self.use_only(kept);
            return true;
        }
        self.use_only(self.target.clone());
        self.told.as_ref() != Some(&self.owned)
    }

    fn partitions(&self) -> Partitions {
        let all: BTreeSet<_> = self.owned.iter().copied().map(PartitionIndex).collect();
        let topic = crate::world::topic();
        if all.is_empty() { Partitions::new() } else { Partitions::from([(topic, all)]) }
    }

    fn beat(&self) -> Beat {
        let all = self.told.is_none() || self.epoch == JOIN_EPOCH;
        Beat {
            member: self.id.clone(),
            epoch: self.epoch,
            instance: self.instance.clone(),
            rack: None,
            rebalance_ms: all.then_some(REBALANCE_MS),
            topics: all.then(|| vec!["t".into()]),
            pattern: None,
            assignor: None,
            owned: Some(self.partitions()),
            client_id: "n".into(),
            client_host: "/h".into(),
        }
    }

    fn named(partitions: &BTreeSet<i32>) -> Named {
        Named::from([("t".into(), partitions.iter().copied().map(PartitionIndex).collect())])
    }

    fn join(&mut self) -> Join {
        if self.eager {
            self.use_only(BTreeSet::new());
        }
        // A subscription of version 2: topic "t", what it has, and since when.
        let mut metadata = vec![0, 2, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        let owned = embedded::write_assignment(2, &Client::named(&self.owned));
        metadata.extend(&owned[2..owned.len() - 4]);
        metadata.extend(self.epoch.to_be_bytes());
        let name = if self.eager { "range" } else { "cooperative-sticky" };
        Join {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: "c".into(),
            session_ms: SESSION_MS,
            rebalance_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: name.into(), metadata }],
            takes_member_id: true,
            may_skip_assignment: true,
            ..Join::default()
        }
    }

    fn sync(&self) -> Sync {
        Sync {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            generation: self.epoch,
            assignments: self.gives.clone(),
            ..Sync::default()
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            generation: self.epoch,
            ..Heartbeat::default()
        }
    }

    /// Looks where to begin, or consumes a little and commits that.
    fn work(&mut self, works: bool) -> Option<Request> {
        let has = |at: &&i32| !self.positions.contains_key(at);
        let missing: Vec<i32> = self.owned.iter().filter(has).copied().collect();
        if !missing.is_empty() {
            let fetch = FetchOffsets {
                group: "g".into(),
                member: self.is_new.then(|| (self.id.clone(), self.epoch)),
                topics: Some(vec![("t".into(), missing)]),
                ..FetchOffsets::default()
            };
            return Some(Request::FetchOffsets(vec![fetch]));
        }
        if !works || self.owned.is_empty() {
            return None;
        }
        let step = |(partition, position): (&i32, &mut i64)| {
            *position += 1;
            OffsetOf { partition: *partition, offset: *position, ..OffsetOf::default() }
        };
        let offsets = self.positions.iter_mut().map(step).collect();
        Some(Request::CommitOffsets(CommitOffsets {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            generation: self.epoch,
            topics: vec![("t".into(), offsets)],
            ..CommitOffsets::default()
        }))
    }

    pub fn on_answer(world: &mut World, at: usize, answer: Answer) {
        world.clients[at].asking = false;
        let fault = match answer {
            Err(_) => {
                Client::look_for_coordinator(world, at);
                let pause = 50 + world.random.below(300);
                return world.wake(at, pause);
            }
            Ok(Reply::Joined(joined)) => return Client::on_joined(world, at, joined),
            Ok(Reply::Synced(Ok(synced))) => return Client::on_synced(world, at, &synced),
            Ok(Reply::ConsumerHeartbeat(beat)) => return Client::on_beaten(world, at, beat),
            Ok(Reply::Offsets(mut all)) => match all.remove(0).topics {
                Ok(topics) => {
                    let client = &mut world.clients[at];
                    for one in topics.iter().flat_map(|(_, all)| all) {
                        let position = one.committed.as_ref().map_or(0, |one| one.offset);
                        client.positions.insert(one.partition, position);
                    }
                    None
                }
                Err(why) => Some(why),
            },
            Ok(Reply::Heartbeat(beat)) => beat.err(),
            Ok(Reply::Synced(Err(why))) => Some(why),
            Ok(Reply::OffsetsCommitted(outcome)) => outcome.err(),
            Ok(other) => panic!("{other:?}"),
        };
        if let Some(why) = fault {
            return Client::on_fault(world, at, why);
        }
        let pause = 300 + world.random.below(1_000);
        world.wake(at, pause);
    }

    fn on_beaten(world: &mut World, at: usize, beat: Result<Beaten, Fault>) {
        let client = &mut world.clients[at];
        let mut pause = 20 + world.random.below(800);
        match beat {
            Ok(beaten) if beaten.epoch < client.epoch => {
                let how = format!("{client:?} is told {beaten:?}");
                world.oracle.fail("EpochsNeverRegress", how);
            }
            Ok(beaten) => {
                client.epoch = beaten.epoch;
                client.mode = Mode::Stable;
                if let Some(all) = beaten.assignment {
                    client.target = all.into_values().flatten().map(|p| p.0).collect();
                }
            }
            Err(Fault::UnreleasedInstanceId) => pause = 500,
            Err(Fault::GroupIdNotFound) if client.epoch == JOIN_EPOCH => {
                world.oracle.fail("EveryoneIsServed", format!("turned away: {client:?}"));
            }
            Err(Fault::FencedMemberEpoch { .. } | Fault::UnknownMemberId)
            | Err(Fault::GroupIdNotFound | Fault::FencedInstanceId) => {
                client.abandon();
                world.oracle.figures.fenced += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        world.wake(at, pause);
    }

    fn on_joined(world: &mut World, at: usize, joined: Joined) {
        let client = &mut world.clients[at];
        match joined.generation {
            Ok(generation) => {
                client.id = joined.member;
                client.epoch = generation.id;
                client.mode = Mode::Syncing;
                client.gives.clear();
                if generation.leader == client.id && !generation.skip_assignment {
                    Client::assign(world, at, &generation.members);
                }
            }
            Err(GroupFault::MemberIdRequired) => client.id = joined.member,
            Err(why) => return Client::on_fault(world, at, why),
        }
        world.wake(at, 5);
    }

    fn on_synced(world: &mut World, at: usize, synced: &Synced) {
        let client = &mut world.clients[at];
        let all = embedded::read_assignment(&synced.assignment).expect("ours");
        let has: BTreeSet<i32> = all.values().flatten().map(|partition| partition.0).collect();
        let gave_up = !client.owned.is_subset(&has);
        client.use_only(has);
        // Who gave something up joins again at once.
        client.mode = if gave_up { Mode::Joining } else { Mode::Stable };
        world.wake(at, 5);
    }

    /// Deals the partitions out at random, evenly, but leaves what somebody has to its owner, and
    /// gives what somebody has to give up to nobody yet.
    fn assign(world: &mut World, at: usize, members: &[JoinedMember]) {
        let mut owners: BTreeMap<i32, (i32, &str)> = BTreeMap::new();
        for member in members {
            let said = Subscription::read(&member.metadata).expect("ours");
            for partition in said.owned.values().flatten() {
                let claim = (said.generation, member.id.as_str());
                let before = owners.entry(partition.0).or_insert(claim);
                *before = claim.max(*before);
            }
        }
        let turn = world.random.below(members.len() as u64) as usize;
        let most = (PARTITIONS as usize).div_ceil(members.len());
        let mut deal: BTreeMap<&str, BTreeSet<i32>> =
            members.iter().map(|member| (member.id.as_str(), BTreeSet::new())).collect();
        for partition in 0..PARTITIONS {
            if let Some((_, owner)) = owners.get(&partition)
                && deal[owner].len() < most
            {
                deal.get_mut(owner).expect("a member").insert(partition);
            }
        }
        for partition in 0..PARTITIONS {
            if owners.contains_key(&partition) {
                continue;
            }
            let ranked =
                (0..members.len()).map(|i| members[(i + turn) % members.len()].id.as_str());
            let least = ranked.min_by_key(|id| deal[id].len()).expect("there is one");
            deal.get_mut(least).expect("a member").insert(partition);
        }
        world.clients[at].gives = deal
            .into_iter()
            .map(|(id, all)| (id.into(), embedded::write_assignment(2, &Client::named(&all))))
            .collect();
    }

    fn on_fault(world: &mut World, at: usize, why: GroupFault) {
        let client = &mut world.clients[at];
        match why {
            GroupFault::RebalanceInProgress if !client.is_new => client.mode = Mode::Joining,
            GroupFault::IllegalGeneration if !client.is_new => client.abandon(),
            // It hears of its epoch with its next heartbeat.
            GroupFault::StaleMemberEpoch if client.is_new => client.told = None,
            GroupFault::UnknownMemberId
            | GroupFault::GroupIdNotFound
            | GroupFault::FencedInstanceId => {
                if !client.is_new {
                    client.id.clear();
                }
                client.abandon();
                world.oracle.figures.fenced += 1;
            }
            // Of a group that became a classic one, while it knows its member no more.
            GroupFault::IllegalGeneration => client.abandon(),
            other => panic!("{other:?}: {client:?}"),
        }
        let pause = 20 + world.random.below(200);
        world.wake(at, pause);
    }
}
