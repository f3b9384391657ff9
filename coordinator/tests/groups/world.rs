//! Groups under faults, on a virtual clock: machines that take over from each other and lose what
//! was not committed, logs that were compacted, zombies that do not know, lost messages, and members that die, dawdle,
//! leave, or never ask for their assignment. Everything comes from one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::group::records::Record;
use coordinator::group::request::*;
use coordinator::group::{GroupConfig, Groups, Hard, Mutant, Soft};
use coordinator::machine::{Machine, Moment, Outcome, Seen, Stored, Token};
use engine::ids::Offset;
use engine::time::{Instant, Timestamp};

use crate::client::{Client, Mode};
use crate::oracle::Oracle;

/// Partitions of the topic that the members share.
pub const PARTITIONS: i32 = 4;
/// How long there are faults, in milliseconds.
const FAULTS_MS: u64 = 120_000;
/// How long everything has then to settle.
const PEACE_MS: u64 = 90_000;
/// `offsets.retention.minutes`, much shorter.
pub const RETENTION_MS: u64 = 20_000;

/// SplitMix64.
pub struct Random(pub u64);

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

/// Why a node does not answer the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotCoordinator,
    Loading,
}

pub type Answer = Result<Reply, Refusal>;

/// What a client is answered, and on which connection it asked.
#[derive(Clone)]
pub struct Asked {
    pub client: usize,
    pub connection: u64,
    pub request: Request,
}

pub enum Event {
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
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    nodes: Vec<Node>,
    pub failovers: u64,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let config = GroupConfig {
            initial_rebalance_delay: Duration::from_millis(1_000),
            offsets_retention: Duration::from_millis(RETENTION_MS),
            offsets_retention_check: Duration::from_millis(3_000),
            mutant,
            ..GroupConfig::default()
        };
        let mut world = World {
            random: Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d)),
            now: 1,
            oracle: Oracle::default(),
            faults: true,
            clients: Vec::new(),
            config,
            events: BTreeMap::new(),
            serial: 0,
            nodes: Vec::new(),
            failovers: 0,
        };
        world.take_over(Vec::new());
        let count = 2 + world.random.below(4) as usize;
        for at in 0..count {
            let instance = world.random.percent(40).then(|| format!("i{at}"));
            world.clients.push(Client::new(instance));
            world.wake(at, 10 + 300 * at as u64);
        }
        world.after(10, Event::Commit);
        world.after(3_000, Event::Fault);
        world
    }

    /// Runs to the end, or to the first broken invariant.
    pub fn run(mut self) -> Result<World, String> {
        while self.now < FAULTS_MS + PEACE_MS && self.oracle.broken.is_none() {
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            self.now = self.now.max(at);
            if self.faults && self.now >= FAULTS_MS {
                self.make_peace();
            }
            self.on_event(event);
        }
        self.judge();
        match self.oracle.broken.take() {
            Some(broken) => Err(broken),
            None => Ok(self),
        }
    }

    pub fn after(&mut self, millis: u64, event: Event) {
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

    /// Sends a request on its way.
    pub fn send(&mut self, client: usize, request: Request) {
        let connection = self.clients[client].connection;
        let node = self.clients[client].coordinator;
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
                let more = (node.log.len() - node.committed) as u64;
                node.committed += self.random.below(more + 1) as usize;
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
        let there = &self.clients[asked.client];
        let node = &self.nodes[at];
        if there.connection != asked.connection {
            return; // The connection is gone, and what was on it.
        }
        if !node.up {
            return self.answer(&asked, Err(Refusal::NotCoordinator));
        }
        if self.now < node.ready_at {
            return self.answer(&asked, Err(Refusal::Loading));
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
        for record in out.records {
            if leads {
                self.oracle.on_record(self.now, &record);
            }
            node.append(&record);
        }
        let end = node.log.len();
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
        let (ready, held) =
            std::mem::take(&mut node.held).into_iter().partition(|(end, _, _)| *end <= committed);
        node.held = held;
        let ready: Vec<_> = ready;
        for (_, token, reply) in ready {
            self.tell(at, token, reply);
        }
    }

    fn tell(&mut self, at: usize, token: Token, reply: Reply) {
        let asked = self.nodes[at].asked.remove(&token).expect("answered once");
        let leads = at == self.leader();
        let who = self.clients[asked.client].name(&asked.request);
        self.oracle.on_reply(self.now, leads, &who, &asked.request, &reply);
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
            hard,
            soft,
            held: Vec::new(),
            asked: BTreeMap::new(),
        };
        for (key, value) in log {
            let record: Record = Stored::load(key.as_deref(), value.as_deref()).unwrap();
            node.append(&record);
        }
        self.nodes.push(node);
        let leader = self.leader();
        self.act(leader, Groups::begin);
    }

    fn fail_over(&mut self) {
        self.failovers += 1;
        let leader = self.leader();
        let node = &self.nodes[leader];
        let lost = self.random.below((node.log.len() - node.committed) as u64 + 1) as usize;
        let mut log = node.log[..node.log.len() - lost].to_vec();
        if self.random.percent(30) {
            let tombstones = self.random.percent(50);
            log = compacted(log, tombstones);
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
            0..30 => self.fail_over(),
            30..45 => self.clients[client].crash(),
            45..75 => self.restart_all(),
            75..85 => {
                // It does nothing for a while, perhaps for longer than its session.
                let pause = self.random.below(15_000);
                self.wake(client, pause);
            }
            85..93 => Client::leave(self, client),
            _ => self.clients[client].stuck = true,
        }
        let pause = 200 + self.random.below(8_000);
        self.after(pause, Event::Fault);
    }

    fn restart_all(&mut self) {
        for client in 0..self.clients.len() {
            if !self.clients[client].alive {
                self.clients[client].start();
                self.wake(client, 50);
            }
        }
    }

    fn make_peace(&mut self) {
        self.faults = false;
        let leader = self.leader();
        for node in 0..leader {
            self.nodes[node].up = false;
        }
        if self.clients.iter().all(|client| !client.alive) {
            self.clients[0].start();
            self.wake(0, 50);
        }
    }

    /// EveryoneIsServed.
    fn judge(&mut self) {
        if self.oracle.broken.is_some() {
            return;
        }
        let alive: Vec<&Client> = self.clients.iter().filter(|client| client.alive).collect();
        let mut owned: Vec<i32> =
            alive.iter().flat_map(|client| client.assignment.iter().copied()).collect();
        owned.sort_unstable();
        let idle = alive.iter().find(|client| client.mode != Mode::Stable);
        let first = alive[0].generation;
        let apart = alive.iter().find(|client| client.generation != first);
        if let Some(client) = idle.or(apart) {
            self.oracle.fail("EveryoneIsServed", format!("{client:?}"));
        } else if owned != (0..PARTITIONS).collect::<Vec<_>>() {
            self.oracle.fail("EveryoneIsServed", format!("consumed are {owned:?}"));
        }
    }
}

impl Node {
    /// Through its bytes, as it will be read again.
    fn append(&mut self, record: &Record) {
        let (key, value) = record.store();
        let read: Record = Stored::load(key.as_deref(), value.as_deref()).unwrap();
        Groups::apply(&mut self.hard, Offset::new(self.log.len() as u64), &read);
        self.log.push((key, value));
    }
}

/// What compaction leaves of a log: the last record of each key, in their order; perhaps without
/// tombstones.
fn compacted(log: Vec<Entry>, tombstones: bool) -> Vec<Entry> {
    let last: BTreeMap<Option<Vec<u8>>, usize> =
        log.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
    let stays =
        |(at, (key, value)): &(usize, Entry)| last[key] == *at && (tombstones || value.is_some());
    log.into_iter().enumerate().filter(stays).map(|(_, entry)| entry).collect()
}

fn instant(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn wall(millis: u64) -> Timestamp {
    Timestamp(1_700_000_000_000 + millis as i64)
}
