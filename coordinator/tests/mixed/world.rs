//! Machines that take over from each other and lose what was not committed, logs that were
//! compacted, zombies that do not know, lost messages, and members that die, dawdle, leave, and
//! come back with the other protocol. Everything comes from one seed.
//!
//! Held throughout: OneOwnerPerPartition, CommittedOffsetsNeverRegress, EpochsNeverRegress. Held
//! once faults have ended: EveryoneIsServed, in a group of the kind that its members make.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::group::consumer::heartbeat::Heartbeat as Beat;
use coordinator::group::consumer::times::{Bounds, Times};
use coordinator::group::consumer::topics::{Topics, View};
use coordinator::group::consumer::{ConsumerConfig, Mutant};
use coordinator::group::records::Record;
use coordinator::group::request::*;
use coordinator::group::{Group, GroupConfig, Groups, Hard, Soft};
use coordinator::machine::{Machine, Moment, Outcome, Seen, Stored, Token};
use engine::ids::{Offset, TopicId};
use engine::time::{Instant, Timestamp};

use crate::client::{Client, Mode};
use crate::oracle::{Figures, Oracle};
use crate::topics::Table;

/// Partitions of the topic that the members share.
pub const PARTITIONS: i32 = 5;
/// How long there are faults, in milliseconds.
const FAULTS_MS: u64 = 120_000;
/// How long everything has then to settle.
const PEACE_MS: u64 = 90_000;

/// The topic that the members share.
pub fn topic() -> TopicId {
    Table::new(&[("t", PARTITIONS)]).by_name("t").expect("it is there").0
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// The node does not answer the question: it does not lead, or does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal;

pub type Answer = Result<Reply, Refusal>;

#[derive(Clone)]
struct Asked {
    client: usize,
    connection: u64,
    request: Request,
}

enum Event {
    Arrive { node: usize, asked: Asked },
    Answer { client: usize, connection: u64, answer: Answer },
    Wake { client: usize, serial: u64 },
    Alarm { node: usize },
    Commit,
    Fault,
    Kill { node: usize },
}

type Entry = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A broker in one term of its lead.
struct Node {
    up: bool,
    ready_at: u64,
    log: Vec<Entry>,
    /// Where batches of the log end that were not committed yet: one decision is in the log, or
    /// nothing of it.
    batches: Vec<usize>,
    committed: usize,
    hard: Hard,
    soft: Soft,
    held: Vec<(usize, Token, Reply)>,
    asked: BTreeMap<Token, Asked>,
}

pub struct World {
    pub random: Random,
    pub now: u64,
    pub oracle: Oracle,
    pub faults: bool,
    pub clients: Vec<Client>,
    config: GroupConfig,
    view: View,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    nodes: Vec<Node>,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let usual = Times {
            session: Duration::from_secs(6),
            heartbeat_interval: Duration::from_secs(1),
            assignment_interval: Duration::ZERO,
        };
        let consumer = ConsumerConfig {
            times: Bounds { usual, min: usual, max: usual },
            mutant,
            ..ConsumerConfig::default()
        };
        let config = GroupConfig {
            initial_rebalance_delay: Duration::from_millis(1_000),
            consumer,
            ..GroupConfig::default()
        };
        let mut world = World {
            random: Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d)),
            now: 1,
            oracle: Oracle::default(),
            faults: true,
            clients: Vec::new(),
            config,
            view: Table::new(&[("t", PARTITIONS)]).view(),
            events: BTreeMap::new(),
            serial: 0,
            nodes: Vec::new(),
        };
        world.take_over(Vec::new());
        let (count, eager) = (2 + world.random.below(4), world.random.percent(40));
        for at in 0..count as usize {
            let instance = world.random.percent(30).then(|| format!("i{at}"));
            let is_new = world.random.percent(30);
            world.clients.push(Client::new(at, instance, is_new, eager));
            world.wake(at, 10 + 300 * at as u64);
        }
        world.after(10, Event::Commit);
        world.after(3_000, Event::Fault);
        world
    }

    /// Runs to the end, or to the first broken invariant.
    pub fn run(mut self) -> Result<Figures, String> {
        while self.now < FAULTS_MS + PEACE_MS && self.oracle.broken.is_none() {
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            self.now = self.now.max(at);
            if self.faults && self.now >= FAULTS_MS {
                self.make_peace();
            }
            self.on_event(event);
            let hard = &self.nodes[self.nodes.len() - 1].hard;
            self.oracle.look(topic(), hard.groups.get("g"), &self.clients);
        }
        self.judge();
        match self.oracle.broken.take() {
            Some(broken) => Err(broken),
            None => Ok(self.oracle.figures),
        }
    }

    fn after(&mut self, millis: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + millis, self.serial), event);
    }

    pub fn wake(&mut self, client: usize, millis: u64) {
        let serial = self.clients[client].next_wake();
        self.after(millis, Event::Wake { client, serial });
    }

    pub fn leader(&self) -> usize {
        self.nodes.len() - 1
    }

    pub fn view(&self) -> View {
        self.view.clone()
    }

    pub fn beat(&mut self, client: usize, beat: Beat) {
        let (group, topics) = ("g".into(), self.view());
        let request = ConsumerHeartbeat { group, beat, topics };
        self.send(client, Request::ConsumerHeartbeat(request));
    }

    /// Sends a request on its way.
    pub fn send(&mut self, client: usize, request: Request) {
        let there = &self.clients[client];
        let (connection, node) = (there.connection, there.coordinator());
        if self.faults && self.random.percent(3) {
            return;
        }
        let delay = 1 + self.random.below(20);
        self.after(delay, Event::Arrive { node, asked: Asked { client, connection, request } });
    }

    fn answer(&mut self, asked: &Asked, answer: Answer) {
        if self.faults && self.random.percent(3) {
            return;
        }
        let (client, connection) = (asked.client, asked.connection);
        let delay = 1 + self.random.below(20);
        self.after(delay, Event::Answer { client, connection, answer });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Arrive { node, asked } => self.on_arrive(node, asked),
            Event::Answer { client, connection, answer } => {
                let there = &self.clients[client];
                if there.alive && there.connection == connection {
                    Client::on_answer(self, client, answer);
                }
            }
            Event::Wake { client, serial } => {
                let there = &self.clients[client];
                if there.alive && there.is_wake(serial) {
                    Client::on_wake(self, client);
                }
            }
            Event::Alarm { node } => {
                let at = &self.nodes[node];
                let due = Groups::deadline(&at.soft).is_some_and(|due| due <= instant(self.now));
                if at.up && due {
                    self.act(node, Groups::expire);
                }
            }
            Event::Commit => {
                let leader = self.leader();
                let node = &mut self.nodes[leader];
                let some = self.random.below(node.batches.len() as u64 + 1) as usize;
                node.committed = node.batches.drain(..some).next_back().unwrap_or(node.committed);
                self.release(leader);
                let pause = 1 + self.random.below(40);
                self.after(pause, Event::Commit);
            }
            Event::Fault if self.faults => self.on_fault(),
            Event::Fault => {}
            Event::Kill { node } => self.nodes[node].up = false,
        }
    }

    fn on_arrive(&mut self, at: usize, asked: Asked) {
        let node = &self.nodes[at];
        if self.clients[asked.client].connection != asked.connection {
            return; // The connection is gone, and what was on it.
        }
        if !node.up || self.now < node.ready_at {
            return self.answer(&asked, Err(Refusal));
        }
        self.serial += 1;
        let token = Token(self.serial);
        let request = asked.request.clone();
        self.nodes[at].asked.insert(token, asked);
        self.act(at, |seen, soft, out| Groups::decide(seen, soft, token, request, out));
    }

    fn act(
        &mut self,
        at: usize,
        act: impl FnOnce(Seen<'_, Groups>, &mut Soft, &mut Outcome<Groups>),
    ) {
        let random = [self.random.word(), self.random.word()];
        let moment = Moment { now: instant(self.now), wall: wall(self.now), random };
        let leads = at == self.leader();
        let node = &mut self.nodes[at];
        let mut out = Outcome::default();
        act(Seen { hard: &node.hard, config: &self.config, at: moment }, &mut node.soft, &mut out);
        let before = node.hard.groups.get("g").map(Group::type_name);
        out.records.iter().for_each(|record| node.append(record));
        let after = node.hard.groups.get("g").map(Group::type_name);
        let has_members = node.log.len() > 4;
        let figures = &mut self.oracle.figures;
        match (before, after) {
            (Some("classic"), Some("consumer")) if leads && has_members => figures.upgrades += 1,
            (Some("consumer"), Some("classic")) if leads => figures.downgrades += 1,
            _ => {}
        }
        let end = node.log.len();
        if !out.records.is_empty() {
            node.batches.push(end);
        }
        node.held.extend(out.replies.into_iter().map(|(token, reply)| (end, token, reply)));
        let deadline = Groups::deadline(&node.soft);
        for (token, reply) in out.early {
            self.tell(at, token, reply);
        }
        self.release(at);
        if let Some(due) = deadline {
            let due = due.nanos().div_ceil(1_000_000);
            self.after(due.saturating_sub(self.now), Event::Alarm { node: at });
        }
    }

    /// Lets the replies out whose time has come. A zombie's records are never committed.
    fn release(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let committed = node.committed;
        let (ready, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut node.held).into_iter().partition(|(end, _, _)| *end <= committed);
        node.held = held;
        for (_, token, reply) in ready {
            self.tell(at, token, reply);
        }
    }

    fn tell(&mut self, at: usize, token: Token, reply: Reply) {
        let asked = self.nodes[at].asked.remove(&token).expect("answered once");
        self.oracle.on_reply(at == self.leader(), &asked.request, &reply);
        self.answer(&asked, Ok(reply));
    }

    /// Another node takes over with some of the log: all that is committed, and perhaps more.
    fn take_over(&mut self, log: Vec<Entry>) {
        let (hard, soft) = Default::default();
        let mut node = Node {
            up: true,
            ready_at: self.now + self.random.below(300),
            committed: log.len(),
            log: Vec::new(),
            batches: Vec::new(),
            hard,
            soft,
            held: Vec::new(),
            asked: BTreeMap::new(),
        };
        for (key, value) in log {
            let record: Record = Stored::load(key.as_deref(), value.as_deref()).expect("ours");
            node.append(&record);
        }
        self.nodes.push(node);
        let leader = self.leader();
        self.act(leader, Groups::begin);
    }

    fn fail_over(&mut self) {
        self.oracle.figures.failovers += 1;
        let leader = self.leader();
        let node = &self.nodes[leader];
        let some = self.random.below(node.batches.len() as u64 + 1) as usize;
        let end = node.batches[..some].last().copied().unwrap_or(node.committed);
        let mut log = node.log[..end].to_vec();
        if self.random.percent(30) {
            let part = self.random.below(log.len() as u64 + 1) as usize;
            log = compacted(log, part, self.random.percent(50));
        }
        if self.random.percent(50) {
            let time = self.random.below(20_000);
            self.after(time, Event::Kill { node: leader });
        } else {
            self.nodes[leader].up = false;
        }
        self.take_over(log);
    }

    fn on_fault(&mut self) {
        let client = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(100) {
            0..25 => self.fail_over(),
            25..40 => self.clients[client].crash(),
            40..70 => self.restart_all(),
            70..80 => {
                // It does nothing for a while, perhaps for longer than its session.
                let pause = self.random.below(12_000);
                self.wake(client, pause);
            }
            _ => Client::leave(self, client),
        }
        let pause = 200 + self.random.below(6_000);
        self.after(pause, Event::Fault);
    }

    fn restart_all(&mut self) {
        for client in 0..self.clients.len() {
            if !self.clients[client].alive {
                let is_new = self.random.percent(35);
                self.clients[client].start(is_new);
                self.wake(client, 50);
            }
        }
    }

    fn make_peace(&mut self) {
        self.faults = false;
        let leader = self.leader();
        self.nodes[..leader].iter_mut().for_each(|node| node.up = false);
        if self.clients.iter().all(|client| !client.alive) {
            self.restart_all();
        }
    }

    /// EveryoneIsServed.
    fn judge(&mut self) {
        if self.oracle.broken.is_some() {
            return;
        }
        let alive: Vec<&Client> = self.clients.iter().filter(|client| client.alive).collect();
        let mut owned: Vec<i32> =
            alive.iter().flat_map(|client| client.owned.iter().copied()).collect();
        owned.sort_unstable();
        let kind = match alive.iter().any(|client| client.is_new) {
            true => "consumer",
            false => "classic",
        };
        let is = self.nodes[self.leader()].hard.groups.get("g").map(Group::type_name);
        if let Some(client) = alive.iter().find(|client| client.mode != Mode::Stable) {
            self.oracle.fail("EveryoneIsServed", format!("{client:?}"));
        } else if owned != (0..PARTITIONS).collect::<Vec<_>>() {
            let how = format!("consumed are {owned:?} by {alive:?}");
            self.oracle.fail("EveryoneIsServed", how);
        } else if is != Some(kind) {
            self.oracle.fail("EveryoneIsServed", format!("{is:?} where {kind} would do"));
        }
    }
}

impl Node {
    /// Through its bytes, as it will be read again.
    fn append(&mut self, record: &Record) {
        let (key, value) = record.store();
        let read: Record = Stored::load(key.as_deref(), value.as_deref()).expect("ours");
        Groups::apply(&mut self.hard, Offset::new(self.log.len() as u64), &read);
        self.log.push((key, value));
    }
}

/// What compaction of the first `part` records leaves of a log: the last record of each key, in
/// their order; perhaps without tombstones.
fn compacted(log: Vec<Entry>, part: usize, tombstones: bool) -> Vec<Entry> {
    let last: BTreeMap<Option<Vec<u8>>, usize> =
        log[..part].iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
    let stays = |(at, (key, value)): &(usize, Entry)| {
        *at >= part || (last[key] == *at && (tombstones || value.is_some()))
    };
    log.into_iter().enumerate().filter(stays).map(|(_, entry)| entry).collect()
}

fn instant(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn wall(millis: u64) -> Timestamp {
    Timestamp(1_700_000_000_000 + millis as i64)
}
