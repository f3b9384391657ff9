//! Simulated coordinators with a network between them that does as it is told, a load, and an
//! oracle that knows what was acknowledged.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use coordinator::quorum::outbox::Outbound;
use coordinator::quorum::since::News;
use coordinator::quorum::types::Decided;
use coordinator::quorum::{Memory, Mutant, OpenError, Options, Picture, ProposeError, Quorum};
use engine::env::sim::random::Random;
use engine::env::sim::{Cut, End, Node, Side, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{BrokerId, Offset};

pub type Voter = Quorum<SimEnv, List>;

pub const DIR: &str = "/data/metadata";

/// What all nodes must agree on, over all of their lives.
#[derive(Default)]
pub struct Truth {
    /// What was applied at each offset, by whoever was first.
    pub applied: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Who led in each term.
    leaders: BTreeMap<u64, BrokerId>,
    /// Values that were acknowledged, with their offsets.
    pub acknowledged: BTreeMap<u64, u64>,
    next_value: u64,
}

impl Truth {
    fn check(&mut self, at: u64, records: &[Vec<u8>]) {
        let before = self.applied.entry(at).or_insert_with(|| records.to_vec());
        assert_eq!(before, records, "PrefixesAgree: two entries at offset {at}");
    }

    /// The entries of a picture, which must be what everybody has.
    fn unpack(&mut self, bytes: &[u8], end: Offset) -> Vec<Vec<Vec<u8>>> {
        let mut at = 0;
        let mut word = |len: usize| {
            let word = bytes.get(at..at + len).expect("SnapshotsAreWhole");
            at += len;
            word.to_vec()
        };
        let mut entries = Vec::new();
        for index in 0..end.value() {
            let count = u32::from_le_bytes(word(4).try_into().unwrap());
            let mut record = |_| {
                let len = u32::from_le_bytes(word(4).try_into().unwrap());
                word(len as usize)
            };
            let records: Vec<Vec<u8>> = (0..count).map(&mut record).collect();
            self.check(index, &records);
            entries.push(records);
        }
        entries
    }

    pub fn leads(&mut self, term: u64, who: BrokerId) {
        let before = self.leaders.entry(term).or_insert(who);
        assert_eq!(*before, who, "OneLeaderPerTerm: two leaders in term {term}");
    }

    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// A memory that remembers every entry, and is checked against the truth.
pub struct List {
    pub entries: RefCell<Vec<Vec<Vec<u8>>>>,
    truth: Rc<RefCell<Truth>>,
    pub restored: Cell<u64>,
}

impl Memory for List {
    fn apply(&self, at: Offset, records: &[Vec<u8>]) -> Result<(), String> {
        let mut entries = self.entries.borrow_mut();
        assert_eq!(at.value(), entries.len() as u64, "EveryEntryComes: in order");
        self.truth.borrow_mut().check(at.value(), records);
        entries.push(records.to_vec());
        Ok(())
    }

    fn picture(&self) -> Picture {
        let entries = self.entries.borrow().clone();
        Box::new(move || {
            let mut bytes = Vec::new();
            for entry in entries {
                bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
                for record in entry {
                    bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(&record);
                }
            }
            bytes
        })
    }

    fn restore(&self, bytes: &[u8], end: Offset) -> Result<(), String> {
        let entries = self.truth.borrow_mut().unpack(bytes, end);
        *self.entries.borrow_mut() = entries;
        self.restored.set(self.restored.get() + 1);
        Ok(())
    }
}

/// One machine, and the coordinator that runs on it now.
pub struct Place {
    pub node: Node,
    pub id: BrokerId,
    pub running: RefCell<Option<(SimEnv, Voter, Rc<List>)>>,
    /// Refused to open, and why.
    pub refused: RefCell<Option<OpenError>>,
}

pub struct Cluster {
    pub sim: Sim,
    pub places: Vec<Rc<Place>>,
    pub truth: Rc<RefCell<Truth>>,
    pub net: Rc<Net>,
    pub options: Options,
    /// So many of the places take part.
    pub active: Cell<usize>,
    voters: Vec<(BrokerId, String)>,
}

/// Which ways are cut, and how slow they are.
pub struct Net {
    random: Random,
    pub cut: RefCell<BTreeSet<(i32, i32)>>,
    pub slow: Cell<u64>,
}

impl Net {
    fn passes(&self, from: BrokerId, to: BrokerId) -> bool {
        !self.cut.borrow().contains(&(from.0, to.0))
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(50 + self.random.below(400) * (1 + self.slow.get()))
    }
}

impl Cluster {
    pub fn new(seed: u64, voters: usize, mutant: Option<Mutant>) -> Cluster {
        let sim = Sim::new(seed);
        let ids: Vec<BrokerId> = (1..=voters as i32).map(BrokerId).collect();
        let listed = ids.iter().map(|id| (*id, format!("host-{}", id.0))).collect();
        let place = |id: &BrokerId| {
            Rc::new(Place {
                node: sim.node(),
                id: *id,
                running: RefCell::default(),
                refused: RefCell::default(),
            })
        };
        let places = ids.iter().map(place).collect();
        let net =
            Rc::new(Net { random: sim.workload(1), cut: RefCell::default(), slow: Cell::new(0) });
        let options = Options {
            cluster: Some("simulated".into()),
            election_timeout: Duration::from_millis(150),
            heartbeat: Duration::from_millis(40),
            snapshot_bytes: 400,
            mutant,
            ..Options::alone(BrokerId(0))
        };
        let active = Cell::new(voters);
        Cluster { sim, places, truth: Rc::default(), net, options, active, voters: listed }
    }

    /// One more machine, which is not among the first voters and takes no part yet.
    pub fn add_place(&mut self, id: i32) {
        let (running, refused) = (RefCell::default(), RefCell::default());
        let place = Place { node: self.sim.node(), id: BrokerId(id), running, refused };
        self.places.push(Rc::new(place));
    }

    /// Starts the coordinator of a place, if none runs there.
    pub fn start(&self, at: usize) {
        let place = &self.places[at];
        if place.node.is_up() {
            return;
        }
        *place.running.borrow_mut() = None;
        let env = place.node.env();
        let first = self.voters.iter().any(|(id, _)| *id == place.id);
        let voters = if first { self.voters.clone() } else { Vec::new() };
        let options = Options { me: place.id, voters, ..self.options.clone() };
        let memory = Rc::new(List {
            entries: RefCell::default(),
            truth: self.truth.clone(),
            restored: Cell::new(0),
        });
        let (place, places) = (place.clone(), self.places.clone());
        let (net, truth) = (self.net.clone(), self.truth.clone());
        env.clone().spawn(Queue::Request, async move {
            match Quorum::open(&env, Path::new(DIR), options, &memory).await {
                Ok((quorum, _)) => {
                    let running = (env.clone(), quorum.clone(), memory);
                    *place.running.borrow_mut() = Some(running);
                    let task = propose(env.clone(), quorum.clone(), truth.clone());
                    env.spawn(Queue::Request, task);
                    env.spawn(Queue::Request, observe(env.clone(), quorum.clone(), truth));
                    let from = place.id;
                    let outbox = quorum.outbox();
                    while let Some(message) = outbox.next().await {
                        let task = deliver(env.clone(), net.clone(), places.clone(), from, message);
                        env.spawn(Queue::Request, task);
                    }
                }
                Err(error) => *place.refused.borrow_mut() = Some(error),
            }
        });
    }

    /// A place whose disk is replaced by an empty one.
    pub fn forget(&self, at: usize) {
        let place = &self.places[at];
        let env = place.node.env();
        place.node.run(async move { empty(&env, Path::new("/data")).await }).unwrap();
        place.node.end(End::Kill);
    }

    /// A place that runs under another id.
    pub fn rename(&mut self, at: usize, id: i32) {
        let node = self.places[at].node.clone();
        let (running, refused) = (RefCell::default(), RefCell::default());
        self.places[at] = Rc::new(Place { node, id: BrokerId(id), running, refused });
        self.voters[at].0 = BrokerId(id);
    }

    /// Runs something on a place until it is done.
    pub fn ask<T: 'static>(&self, at: usize, what: impl Future<Output = T> + 'static) -> T {
        self.places[at].node.run(what).expect("nobody ends it")
    }

    pub fn voter(&self, at: usize) -> Option<Voter> {
        let place = &self.places[at];
        let running = place.running.borrow();
        running.as_ref().filter(|_| place.node.is_up()).map(|(_, voter, _)| voter.clone())
    }

    /// Which place leads and may decide.
    pub fn leader(&self) -> Option<usize> {
        (0..self.places.len())
            .find(|at| self.voter(*at).is_some_and(|voter| matches!(voter.leading(), Ok(Some(_)))))
    }

    /// Runs until `done`, at most so long.
    pub fn within(&self, limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
        let until = self.sim.now().after(limit);
        while !done() {
            if self.sim.now() >= until {
                self.show();
                panic!("Liveness: {what} within {limit:?}");
            }
            self.sim.run_for(Duration::from_millis(10));
        }
    }

    /// For whoever looks for the reason.
    fn show(&self) {
        for (at, place) in self.places.iter().enumerate() {
            match self.voter(at) {
                Some(voter) => {
                    println!("{:?} {:?}: {:#?}", place.id, voter.leading(), voter.status());
                }
                None => println!("{:?} is up: {}", place.id, place.node.is_up()),
            }
        }
    }

    pub fn refusals(&self) {
        for place in &self.places {
            if let Some(error) = place.refused.borrow().as_ref() {
                panic!("OpensAfterACrash: {} says {error}", place.id);
            }
        }
    }

    /// Everything works again: whoever is down starts, all ways are open.
    pub fn heal(&self) {
        self.net.cut.borrow_mut().clear();
        self.net.slow.set(0);
        (0..self.active.get()).for_each(|at| self.start(at));
    }

    /// Nobody hears this place, and it hears nobody.
    pub fn cut_off(&self, at: usize) {
        let me = self.places[at].id.0;
        let mut cut = self.net.cut.borrow_mut();
        for other in self.places.iter().map(|place| place.id.0).filter(|other| *other != me) {
            cut.extend([(me, other), (other, me)]);
        }
    }

    /// After everything works again: somebody leads, something new is decided, all come to know it,
    /// and nothing that was acknowledged is missing.
    pub fn settle(&self) {
        let before = self.truth.borrow().acknowledged.len();
        self.within(Duration::from_secs(20), "decisions after everything is well", || {
            self.refusals();
            // A cut that was planned before may come only now.
            (0..self.active.get()).for_each(|at| self.start(at));
            self.truth.borrow().acknowledged.len() > before + 3
        });
        let end = self.truth.borrow().acknowledged.values().max().copied().unwrap() + 1;
        self.within(Duration::from_secs(20), "everybody knows", || {
            (0..self.active.get()).for_each(|at| self.start(at));
            (0..self.active.get())
                .all(|at| self.voter(at).is_some_and(|voter| voter.applied().value() >= end))
        });
        let truth = self.truth.borrow();
        for place in &self.places[..self.active.get()] {
            let running = place.running.borrow();
            let entries = running.as_ref().unwrap().2.entries.borrow();
            for (value, at) in truth.acknowledged.iter().filter(|(_, at)| **at < end) {
                let found = &entries[*at as usize];
                assert_eq!(
                    found,
                    &vec![value.to_be_bytes().to_vec()],
                    "CommittedIsNeverLost: {value} at {at} on {}",
                    place.id
                );
            }
        }
    }

    /// One bad thing at random.
    pub fn misfortune(&self, random: &Random) {
        let count = self.places.len() as u64;
        let at = random.below(count) as usize;
        let node = &self.places[at].node;
        match random.below(12) {
            0 => node.end(End::PowerCut),
            1 => node.end(End::Kill),
            2..=4 if node.is_up() => {
                let step = node.disk().steps() + random.below(12);
                let side = if random.chance(1, 2) { Side::Before } else { Side::After };
                let end = if random.chance(1, 4) { End::Kill } else { End::PowerCut };
                node.disk().cut_at(Cut { step, side, end });
            }
            5 => {
                // Nobody hears it, or it hears nobody, or both.
                let kind = random.below(3);
                let me = self.places[at].id.0;
                let mut cut = self.net.cut.borrow_mut();
                for other in self.places.iter().filter(|other| other.id.0 != me) {
                    if kind != 1 {
                        cut.insert((me, other.id.0));
                    }
                    if kind != 0 {
                        cut.insert((other.id.0, me));
                    }
                }
            }
            6 => {
                let other = random.below(count) as usize;
                let (one, other) = (self.places[at].id.0, self.places[other].id.0);
                self.net.cut.borrow_mut().insert((one, other));
            }
            7 | 8 => self.net.cut.borrow_mut().clear(),
            9 => self.net.slow.set(random.below(60)),
            10 => {
                if let (Some(leader), Some((env, _, _))) =
                    (self.voter(at), &*self.places[at].running.borrow())
                {
                    let to = self.places[random.below(count) as usize].id;
                    env.spawn(Queue::Request, async move {
                        let _ = leader.transfer(to).await;
                    });
                }
            }
            _ => (0..self.places.len()).for_each(|at| self.start(at)),
        }
    }
}

/// Removes everything below a directory.
async fn empty(env: &SimEnv, dir: &Path) {
    for entry in env.list(dir).await.unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            Box::pin(empty(env, &path)).await;
            env.remove_dir(&path).await.unwrap();
        } else {
            env.remove(&path).await.unwrap();
        }
    }
}

/// Follows what a coordinator shows to those who hold no vote.
async fn observe(env: SimEnv, quorum: Voter, truth: Rc<RefCell<Truth>>) {
    let mut at = Offset::ZERO;
    while let Ok(since) = quorum.committed_since(at, 100).await {
        match since.news {
            News::Entries(entries) => {
                for (index, records) in (at.value()..).zip(&entries) {
                    truth.borrow_mut().check(index, records);
                }
            }
            News::Snapshot(body) => _ = truth.borrow_mut().unpack(&body, since.end),
        }
        if since.end == at {
            env.sleep_until(env.now().after(Duration::from_micros(300))).await;
        }
        at = since.end;
    }
}

/// Proposes for as long as this coordinator leads, one entry after the other.
async fn propose(env: SimEnv, quorum: Voter, truth: Rc<RefCell<Truth>>) {
    let me = quorum.status().me;
    let mut changes = quorum.changes();
    loop {
        {
            let turn = quorum.turn().await;
            let _ = quorum.introduce().await;
            drop(turn);
        }
        let Ok(leading) = quorum.leading() else { return };
        let Some(term) = leading else {
            quorum.changed(&mut changes).await;
            continue;
        };
        truth.borrow_mut().leads(term, me);
        let value = {
            let mut truth = truth.borrow_mut();
            truth.next_value += 1;
            truth.next_value
        };
        let turn = quorum.turn().await;
        if quorum.reserve(100).await.is_err() {
            continue;
        }
        let at = quorum.next();
        let records = vec![value.to_be_bytes().to_vec()].into();
        let decided = Decided { wall: env.wall(), records };
        match quorum.propose(&turn, term, decided).await {
            Ok(committed) => {
                assert_eq!(committed, at, "the turn is kept");
                truth.borrow_mut().acknowledged.insert(value, committed.value());
            }
            Err(ProposeError::Ended(_)) => return,
            Err(_) => {}
        }
        drop(turn);
        env.sleep_until(env.now().after(Duration::from_millis(12))).await;
    }
}

/// Brings a message to whom it is for and the answer back, if the ways are open.
async fn deliver(
    env: SimEnv,
    net: Rc<Net>,
    places: Vec<Rc<Place>>,
    from: BrokerId,
    message: Outbound,
) {
    env.sleep_until(env.now().after(net.delay())).await;
    let Some(place) = places.iter().find(|place| place.id == message.to) else { return };
    assert!(message.endpoint == format!("host-{}", message.to.0), "{}", message.endpoint);
    if !net.passes(from, message.to) {
        // Silence, not an error.
        env.sleep_until(env.now().after(Duration::from_secs(5))).await;
        return;
    }
    let running = place.running.borrow();
    let Some((theirs, voter, _)) = running.as_ref().filter(|_| place.node.is_up()) else { return };
    let (theirs, voter) = (theirs.clone(), voter.clone());
    drop(running);
    theirs.clone().spawn(Queue::Request, async move {
        let Outbound { to, message, reply, .. } = message;
        let answer = voter.receive(&message).await;
        theirs.sleep_until(theirs.now().after(net.delay())).await;
        if net.passes(to, from) {
            reply.send(answer);
        } else {
            theirs.sleep_until(theirs.now().after(Duration::from_secs(5))).await;
        }
    });
}
