//! A member as Kafka's consumers are one: it joins, syncs, fetches, commits, says that it lives,
//! and does what it is told. One request at a time.

use std::collections::BTreeMap;

use coordinator::group::request::*;

use crate::world::{Answer, PARTITIONS, World};

/// Where a partition ends: after that there is nothing to commit for it.
const RECORDS: i64 = 25;
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 9_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Joining,
    Syncing,
    Fetching,
    Stable,
}

#[derive(Debug)]
pub struct Client {
    pub alive: bool,
    /// It says that it lives, but never asks for its assignment.
    pub stuck: bool,
    /// Another one after each timeout: nothing of the old ones arrives any more.
    pub connection: u64,
    /// The node that it believes to be the coordinator; never one before another it knew.
    pub coordinator: usize,
    instance: Option<String>,
    id: String,
    pub generation: i32,
    pub mode: Mode,
    /// What it gives, if it leads.
    gives: Vec<(String, Vec<u8>)>,
    pub assignment: Vec<i32>,
    positions: BTreeMap<i32, i64>,
    wakes: u64,
    /// A commit of the generation before, which another thread of it has not sent yet.
    late: Option<CommitOffsets>,
    /// What it asked last was that.
    asked_late: bool,
    /// A request is on its way.
    asking: bool,
}

impl Client {
    pub fn new(instance: Option<String>) -> Client {
        Client {
            alive: true,
            stuck: false,
            connection: 0,
            coordinator: 0,
            instance,
            id: String::new(),
            generation: -1,
            mode: Mode::Joining,
            gives: Vec::new(),
            assignment: Vec::new(),
            positions: BTreeMap::new(),
            wakes: 0,
            late: None,
            asked_late: false,
            asking: false,
        }
    }

    /// Another process in its place.
    pub fn start(&mut self) {
        let (connection, coordinator) = (self.connection + 1, self.coordinator);
        let wakes = self.wakes;
        *self = Client { connection, coordinator, wakes, ..Client::new(self.instance.clone()) };
    }

    pub fn crash(&mut self) {
        self.alive = false;
        self.connection += 1;
    }

    /// Who it is in a request: its instance, for ever; or its id.
    pub fn name(&self, request: &Request) -> String {
        match (request, &self.instance) {
            (_, Some(instance)) => instance.clone(),
            (Request::Sync(sync), None) => sync.member.clone(),
            _ => self.id.clone(),
        }
    }

    pub fn next_wake(&mut self) -> u64 {
        self.wakes += 1;
        self.wakes
    }

    pub fn is_wake(&self, serial: u64) -> bool {
        self.wakes == serial
    }

    /// It leaves in good order, and is gone.
    pub fn leave(world: &mut World, at: usize) {
        let client = &mut world.clients[at];
        if client.alive && client.instance.is_none() && !client.id.is_empty() {
            let leaver = Leaver { member: client.id.clone(), ..Leaver::default() };
            let leave = Leave { group: "g".into(), members: vec![leaver], ..Leave::default() };
            world.send(at, Request::Leave(leave));
            // Not a crash: what is on the wire arrives.
            world.clients[at].alive = false;
        }
    }

    /// Time has come to ask something; or to give up on an answer.
    pub fn on_wake(world: &mut World, at: usize) {
        let knows = !world.faults || world.random.percent(80);
        let leader = world.leader();
        let client = &mut world.clients[at];
        if std::mem::take(&mut client.asking) {
            client.connection += 1;
            client.stuck = false;
            if knows {
                client.coordinator = leader;
            }
        }
        client.asked_late = false;
        if client.mode == Mode::Stable
            && client.late.as_ref().is_some_and(|late| late.generation < client.generation)
        {
            client.asked_late = true;
            client.asking = true;
            let late = client.late.take().expect("there is one");
            world.send(at, Request::CommitOffsets(late));
            return world.wake(at, 2_000);
        }
        let (request, patience) = match client.mode {
            Mode::Joining => (Request::Join(client.join()), REBALANCE_MS as u64 + 3_000),
            Mode::Syncing if client.stuck => (Request::Heartbeat(client.heartbeat()), 2_000),
            Mode::Syncing => (Request::Sync(client.sync()), REBALANCE_MS as u64 + 3_000),
            Mode::Fetching => (Request::FetchOffsets(vec![client.fetch()]), 2_000),
            Mode::Stable => {
                let work = world.random.percent(40);
                let client = &mut world.clients[at];
                match client.work(work) {
                    Some(commit) => (Request::CommitOffsets(commit), 2_000),
                    None => (Request::Heartbeat(client.heartbeat()), 2_000),
                }
            }
        };
        world.clients[at].asking = true;
        world.send(at, request);
        world.wake(at, patience);
    }

    fn join(&self) -> Join {
        Join {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: "c".into(),
            session_ms: SESSION_MS,
            rebalance_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            // Topic "t", as version 0 of the consumer protocol says it.
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: vec![0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 0],
            }],
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
            generation: self.generation,
            assignments: self.gives.clone(),
            ..Sync::default()
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            generation: self.generation,
            ..Heartbeat::default()
        }
    }

    fn fetch(&self) -> FetchOffsets {
        let topics = Some(vec![("t".into(), self.assignment.clone())]);
        FetchOffsets { group: "g".into(), topics, ..FetchOffsets::default() }
    }

    /// Consumes a little, and what it has to commit then.
    fn work(&mut self, work: bool) -> Option<CommitOffsets> {
        let mut done = Vec::new();
        for (partition, position) in &mut self.positions {
            if work && *position < RECORDS {
                *position += 1;
                let (partition, offset) = (*partition, *position);
                done.push(OffsetOf { partition, offset, ..OffsetOf::default() });
            }
        }
        (!done.is_empty()).then(|| self.commit(done))
    }

    fn commit(&self, offsets: Vec<OffsetOf>) -> CommitOffsets {
        CommitOffsets {
            group: "g".into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            generation: self.generation,
            topics: vec![("t".into(), offsets)],
            ..CommitOffsets::default()
        }
    }

    /// Where it is in each of its partitions.
    fn everything(&self) -> Vec<OffsetOf> {
        let positions = self.positions.iter();
        let of = |(&partition, &offset)| OffsetOf { partition, offset, ..OffsetOf::default() };
        positions.map(of).collect()
    }

    pub fn on_answer(world: &mut World, at: usize, answer: Answer) {
        let client = &mut world.clients[at];
        client.asking = false;
        let fault = match answer {
            Err(_) => {
                // Whoever takes over does not know that it has not asked for its assignment: it
                // must, now that it has to look for the coordinator.
                client.stuck = false;
                let knows = !world.faults || world.random.percent(80);
                let leader = world.leader();
                if knows {
                    world.clients[at].coordinator = leader;
                }
                let pause = 50 + world.random.below(300);
                return world.wake(at, pause);
            }
            Ok(Reply::Joined(joined)) => return Client::on_joined(world, at, joined),
            Ok(Reply::Synced(Ok(synced))) => {
                client.assignment = synced.assignment.into_iter().map(i32::from).collect();
                client.positions.clear();
                client.mode = Mode::Fetching;
                return world.wake(at, 5);
            }
            Ok(Reply::Offsets(fetched)) => {
                for one in &fetched[0].topics.as_ref().unwrap()[0].1 {
                    let position = one.committed.as_ref().map_or(0, |committed| committed.offset);
                    client.positions.insert(one.partition, position);
                }
                client.mode = Mode::Stable;
                None
            }
            Ok(Reply::Heartbeat(beat)) => beat.err(),
            Ok(Reply::Synced(Err(why))) => Some(why),
            // Whether the other thread succeeds is nothing to this one.
            Ok(Reply::OffsetsCommitted(_)) if client.asked_late => None,
            Ok(Reply::OffsetsCommitted(outcome)) => outcome.err(),
            Ok(other) => panic!("{other:?}"),
        };
        match fault {
            Some(why) => Client::on_fault(world, at, why),
            None => {
                let pause = 300 + world.random.below(2_000);
                world.wake(at, pause);
            }
        }
    }

    fn on_joined(world: &mut World, at: usize, joined: Joined) {
        let client = &mut world.clients[at];
        match joined.generation {
            Ok(generation) => {
                client.id = joined.member;
                client.generation = generation.id;
                client.mode = Mode::Syncing;
                client.gives.clear();
                if generation.leader == client.id && !generation.skip_assignment {
                    Client::assign(world, at, &generation.members);
                }
                world.wake(at, 5);
            }
            Err(GroupFault::MemberIdRequired) => {
                client.id = joined.member;
                if world.faults && world.random.percent(5) {
                    return world.clients[at].crash();
                }
                world.wake(at, 5);
            }
            Err(why) => Client::on_fault(world, at, why),
        }
    }

    /// Deals the partitions out; otherwise each time, so that two deals are not taken for one.
    fn assign(world: &mut World, at: usize, members: &[JoinedMember]) {
        let mut deal: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for partition in 0..PARTITIONS as u8 {
            let to = world.random.below(members.len() as u64) as usize;
            deal.entry(&members[to].id).or_default().push(partition);
        }
        world.clients[at].gives =
            deal.into_iter().map(|(id, partitions)| (id.into(), partitions)).collect();
    }

    fn on_fault(world: &mut World, at: usize, why: GroupFault) {
        let client = &mut world.clients[at];
        match why {
            GroupFault::RebalanceInProgress if client.stuck && client.mode == Mode::Syncing => {}
            GroupFault::RebalanceInProgress | GroupFault::IllegalGeneration => {
                if client.mode == Mode::Stable {
                    client.late = Some(client.commit(client.everything()));
                }
                client.mode = Mode::Joining;
            }
            // Also if the whole group is gone, because nobody was there for long.
            GroupFault::UnknownMemberId | GroupFault::GroupIdNotFound => {
                client.id.clear();
                client.mode = Mode::Joining;
                client.stuck = false;
            }
            GroupFault::FencedInstanceId => {
                let how = format!("fenced, though nobody took its place: {client:?}");
                world.oracle.fail("EveryoneIsServed", how);
            }
            other => panic!("{other:?}"),
        }
        let pause = 20 + world.random.below(200);
        world.wake(at, pause);
    }
}
