//! Several brokers, all pure: abstract logs, a model controller, links that keep order and break.
//! One seed decides everything. What must hold is checked after every step, by name.

#![allow(dead_code)] // each test file uses its share

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::env::sim::{Random, Stream as RandomStream};
use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition,
};
use engine::time::Instant;
use replication::ask::{AlterIsr, AnswerPart, Ask, FetchAsk, IsrAnswer};
use replication::config::ReplicationConfig;
use replication::fetcher::{Delivery, Fetcher};
use replication::mutant::Mutant;
use replication::role::{Assignment, Replica};
use replication::stream::Stream;

pub mod broker;
pub mod controller;
pub mod log;
pub mod truth;

use controller::Controller;
use log::{ModelLog, Records};
use truth::Truth;

/// A broken invariant: its name, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub name: &'static str,
    pub seen: String,
}

pub type Checked = Result<(), Violation>;

pub fn violation<T>(name: &'static str, seen: String) -> Result<T, Violation> {
    Err(Violation { name, seen })
}

/// One partition on one broker.
pub struct Part {
    pub log: ModelLog,
    pub replica: Replica,
    /// Acks wanted: (epoch, offset, value).
    pub tickets: Vec<(LeaderEpoch, u64, u64)>,
    /// A truncation that was begun: to where, and whether the log begins anew there.
    pub cutting: Option<(u64, bool)>,
    /// Answers that wait for their turn.
    pub inbox: VecDeque<Delivery<Records>>,
    /// How far the log was compared with the truth.
    pub told: u64,
}

/// One broker. Its logs outlive its process.
pub struct Broker {
    pub id: BrokerId,
    pub epoch: BrokerEpoch,
    pub up: bool,
    /// Stopped (SIGSTOP): nothing happens in it, and it does not know.
    pub paused: bool,
    pub parts: BTreeMap<TopicPartition, Part>,
    pub fetchers: BTreeMap<BrokerId, Fetcher>,
    /// How much of the controller's history it has applied.
    pub seen: usize,
}

/// A connection of a follower to a leader. Order is kept; a broken one still delivers what the
/// leader's side has received.
pub struct Link {
    pub follower: BrokerId,
    pub leader: BrokerId,
    pub follower_epoch: BrokerEpoch,
    pub leader_epoch: BrokerEpoch,
    pub broken: bool,
    pub requests: VecDeque<FetchAsk>,
    /// Taken in and not answered.
    pub waiting: VecDeque<FetchAsk>,
    pub answers: VecDeque<(u64, u64, Vec<AnswerPart<Records>>)>,
    pub stream: Stream,
}

/// A proposal on its way to the controller, or an answer on its way back.
pub enum Letter {
    Ask {
        from: BrokerId,
        epoch: BrokerEpoch,
        part: TopicPartition,
        ask: Ask,
        ghost: bool,
    },
    Answer {
        to: BrokerId,
        epoch: BrokerEpoch,
        part: TopicPartition,
        term: LeaderEpoch,
        attempt: u64,
        answer: IsrAnswer,
    },
}

/// What kinds of trouble there are, as chances in a thousand per step.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub crash: u64,
    /// All at once.
    pub blackout: u64,
    pub wipe: u64,
    pub cut: u64,
    pub pause: u64,
    pub fence: u64,
    pub give_up: u64,
    pub delete: u64,
    pub replace: u64,
    pub elect: u64,
    pub lose_letter: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        crash: 0,
        blackout: 0,
        wipe: 0,
        cut: 0,
        pause: 0,
        fence: 0,
        give_up: 0,
        delete: 0,
        replace: 0,
        elect: 0,
        lose_letter: 0,
    };

    pub const USUAL: Faults = Faults {
        crash: 8,
        blackout: 3,
        wipe: 2,
        cut: 10,
        pause: 5,
        fence: 6,
        give_up: 4,
        delete: 3,
        replace: 10,
        elect: 10,
        lose_letter: 5,
    };
}

impl Faults {
    /// Each seed has its own mixture: some of them often, some never.
    fn mixed(self, random: &Random) -> Faults {
        let some = |usual: u64| usual * [0, 1, 1, 4][random.below(4) as usize];
        Faults {
            crash: some(self.crash),
            blackout: some(self.blackout),
            wipe: some(self.wipe),
            cut: some(self.cut),
            pause: some(self.pause),
            fence: some(self.fence),
            give_up: some(self.give_up),
            delete: some(self.delete),
            replace: some(self.replace),
            elect: some(self.elect),
            lose_letter: some(self.lose_letter),
        }
    }
}

/// Everything.
pub struct World {
    pub random: Random,
    /// How much is produced, and how soon followers carry answers out, in quarters.
    pub busy: u64,
    pub eager: u64,
    pub now: Instant,
    pub config: ReplicationConfig,
    pub brokers: BTreeMap<BrokerId, Broker>,
    pub controller: Controller,
    pub links: Vec<Link>,
    pub letters: Vec<Letter>,
    pub truth: Truth,
    pub faults: Faults,
    next_value: u64,
    next_session: u64,
    /// Whether faults are over.
    pub calm: bool,
    pub trace: u64,
}

pub fn part_id(index: i32) -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionIndex(index) }
}

/// Short, so that members leave the ISR often though the log rests most of the time.
pub const LAG_MAX: Duration = Duration::from_millis(70);

impl World {
    /// Brokers 1 to `brokers`, partitions with all of them as replicas, each led by another one.
    pub fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let random = Random::new(seed, RandomStream::Workload, 0);
        let brokers = if random.chance(1, 4) { 4 } else { 3 };
        let partitions = if random.chance(1, 3) { 2 } else { 1 };
        let min_in_sync = random.between(1, 2) as usize;
        Self::of(seed, random, brokers, partitions, min_in_sync, mutant)
    }

    pub fn of(
        seed: u64,
        random: Random,
        brokers: i32,
        partitions: i32,
        min_in_sync: usize,
        mutant: Option<Mutant>,
    ) -> World {
        let config = ReplicationConfig {
            lag_max: LAG_MAX,
            back_off_min: Duration::from_millis(1),
            back_off_max: Duration::from_millis(20),
            in_flight_max: random.between(2, 4) as usize,
            mutant,
            ..ReplicationConfig::default()
        };
        let (busy, eager) = (random.between(1, 4), random.between(1, 4));
        let (eager, faults) = match random.below(7) {
            0 | 1 => (1, Faults { elect: 25, fence: 15, pause: 15, cut: 2, ..Faults::NONE }),
            2 => (eager, Faults { replace: 40, fence: 20, elect: 8, cut: 4, ..Faults::NONE }),
            _ => (eager, Faults::USUAL.mixed(&random)),
        };
        let mut world = World {
            random,
            busy,
            eager,
            now: Instant::from_nanos(1_000_000_000),
            config,
            brokers: BTreeMap::new(),
            controller: Controller::new(seed),
            links: Vec::new(),
            letters: Vec::new(),
            truth: Truth::default(),
            faults,
            next_value: 0,
            next_session: 0,
            calm: false,
            trace: 0,
        };
        let ids: Vec<_> = (1..=brokers).map(BrokerId).collect();
        for &id in &ids {
            let epoch = world.controller.register(id, false);
            world.controller.unfence(id);
            world.brokers.insert(id, Broker::new(id, epoch));
        }
        for index in 0..partitions {
            let mut replicas = ids.clone();
            replicas.rotate_left(index as usize);
            world.controller.create(part_id(index), replicas, min_in_sync);
        }
        world
    }

    pub fn ids(&self) -> Vec<BrokerId> {
        self.brokers.keys().copied().collect()
    }

    pub fn part_ids(&self) -> Vec<TopicPartition> {
        self.controller.parts.keys().copied().collect()
    }

    pub fn broker(&mut self, id: i32) -> &mut Broker {
        self.brokers.get_mut(&BrokerId(id)).expect("exists")
    }

    pub fn part(&mut self, id: i32) -> &mut Part {
        self.broker(id).parts.get_mut(&part_id(0)).expect("exists")
    }

    fn pick<T: Copy>(&self, items: &[T]) -> T {
        items[self.random.below(items.len() as u64) as usize]
    }

    /// Runs so many steps with faults, then heals and demands that everything goes on.
    pub fn run(&mut self, steps: u64) -> Checked {
        for step in 0..steps {
            self.step()?;
            if step % 16 == 0 {
                self.truth.check_logs(&self.brokers)?;
            }
        }
        self.truth.check_logs(&self.brokers)?;
        self.heal()
    }

    /// One thing happens.
    pub fn step(&mut self) -> Checked {
        if !self.calm {
            self.fault()?;
        }
        self.act()?;
        self.trace = self.trace.wrapping_mul(31).wrapping_add(self.digest());
        Ok(())
    }

    /// Something that has something to do, so that few steps are idle.
    fn act(&mut self) -> Checked {
        let id = self.pick(&self.ids());
        match self.random.below(20) {
            // In the end less is produced, so that the others can catch up.
            0..=1 if self.calm && self.random.chance(9, 10) => self.tick(id),
            0..=1 if !self.calm && !self.random.chance(self.busy, 4) => self.tick(id),
            0..=1 => self.with_one(|part| part.replica.leader().is_some(), Self::produce),
            2..=4 => self.with_one(|part| part.log.durable < part.log.end(), Self::persist),
            5..=8 => self.deliver(),
            9..=11 => self.answer(),
            12..=13 if !self.calm && !self.random.chance(self.eager, 4) => self.tick(id),
            12..=13 => {
                self.with_one(|part| part.cutting.is_some() || !part.inbox.is_empty(), Self::take)
            }
            14 => {
                let all = self.controller.history.len();
                let behind = self.brokers.values().filter(|b| b.works() && b.seen < all);
                let behind: Vec<_> = behind.map(|broker| broker.id).collect();
                if behind.is_empty() { Ok(()) } else { self.catch_up(self.pick(&behind)) }
            }
            15 => self.letter(),
            16 => {
                let most = if self.calm { 3 } else { 20 };
                self.now = self.now.after(Duration::from_millis(self.random.between(1, most)));
                self.sessions();
                Ok(())
            }
            17 => self.with_one(|_| true, Self::consume),
            _ => self.tick(id),
        }
    }

    /// Does it to one of the partitions for which it is of use.
    fn with_one(
        &mut self,
        of_use: impl Fn(&Part) -> bool,
        act: impl FnOnce(&mut World, BrokerId, TopicPartition) -> Checked,
    ) -> Checked {
        let working = self.brokers.values().filter(|broker| broker.works());
        let parts =
            working.flat_map(|broker| broker.parts.iter().map(|(id, p)| (broker.id, id, p)));
        let parts = parts.filter(|(_, _, part)| of_use(part)).map(|(id, part, _)| (id, *part));
        let parts: Vec<_> = parts.collect();
        if parts.is_empty() {
            return Ok(());
        }
        let (id, part) = self.pick(&parts);
        act(self, id, part)
    }

    fn digest(&self) -> u64 {
        let parts = self.brokers.values().flat_map(|broker| broker.parts.values());
        parts.map(|part| part.log.end() ^ part.replica.high_watermark().value() << 20).sum()
    }

    fn chance(&self, in_thousand: u64) -> bool {
        in_thousand > 0 && self.random.chance(in_thousand, 1_000)
    }

    fn fault(&mut self) -> Checked {
        let id = self.pick(&self.ids());
        let part = self.pick(&self.part_ids());
        let faults = self.faults;
        if self.chance(faults.crash) {
            self.crash(id);
        }
        if self.chance(faults.blackout) {
            self.ids().into_iter().for_each(|id| self.crash(id));
        }
        if self.chance(faults.wipe) {
            self.wipe(id)?;
        }
        if self.chance(30) && !self.brokers[&id].up {
            self.start(id)?;
        }
        if self.chance(faults.cut) && !self.links.is_empty() {
            let at = self.random.below(self.links.len() as u64) as usize;
            self.cut(at);
        }
        if self.chance(faults.pause) {
            let broker = self.brokers.get_mut(&id).expect("exists");
            broker.paused = !broker.paused;
        }
        if self.chance(faults.fence) {
            self.controller.fence(id);
        }
        if self.chance(faults.give_up) {
            self.give_up(id, part)?;
        }
        if self.chance(faults.delete) {
            self.delete(id, part);
        }
        if self.chance(faults.replace) {
            let state = &self.controller.parts[&part];
            if !state.current.isr.contains(&id) && !state.elr.contains(&id) {
                self.controller.replace(part, id);
                // Itself it may see that it was taken away, or not.
                self.apply_up_to(id, self.controller.history.len() - 1)?;
            }
        }
        if self.chance(faults.elect) {
            let leader = self.controller.parts[&part].current.leader;
            self.controller.elect(part, leader);
        }
        Ok(())
    }

    /// Brokers that have seen their registration are unfenced, those that are gone are fenced.
    fn sessions(&mut self) {
        for (id, broker) in &self.brokers {
            let member = self.controller.members[id];
            let works = broker.up && !broker.paused && broker.epoch == member.epoch;
            if member.fenced && works && broker.seen >= member.registered_at {
                self.controller.unfence(*id);
            } else if !member.fenced && !works && self.random.chance(1, 4) {
                self.controller.fence(*id);
            }
        }
    }

    /// No faults any more. Within bounded steps all replicas are in sync and equal, and a new
    /// batch is acknowledged by each partition.
    fn heal(&mut self) -> Checked {
        self.calm = true;
        for id in self.ids() {
            self.brokers.get_mut(&id).expect("exists").paused = false;
            if !self.brokers[&id].up {
                self.start(id)?;
            }
        }
        self.truth.forget_acks();
        for _ in 0..400 {
            for _ in 0..40 {
                self.step()?;
            }
            if self.is_well() {
                self.truth.check_logs(&self.brokers)?;
                return self.truth.check_acked(&self.brokers);
            }
        }
        violation("Liveness", format!("not well long after the faults: {}", self.picture()))
    }

    /// Everything that matters, for a human.
    pub fn picture(&self) -> String {
        let mut text = String::new();
        for (id, state) in &self.controller.parts {
            text += &format!("\n{id}: {:?} ELR {:?}", state.current, state.elr);
        }
        for (id, broker) in &self.brokers {
            let member = &self.controller.members[id];
            text += &format!("\nbroker {id} up {} seen {} {member:?}", broker.up, broker.seen);
            for (id, part) in &broker.parts {
                let (log, replica) = (&part.log, &part.replica);
                text += &format!(
                    "\n  {id} log {}..{}..{} cutting {:?} inbox {} {:?}",
                    log.start,
                    log.durable,
                    log.end(),
                    part.cutting,
                    part.inbox.len(),
                    replica.role(),
                );
            }
            for (leader, fetcher) in &broker.fetchers {
                text += &format!("\n  from {leader}: {fetcher:?}");
            }
        }
        for link in &self.links {
            text += &format!(
                "\nlink {} of {} to {}: broken {} requests {:?} waiting {} answers {:?} {:?}",
                link.follower,
                link.follower_epoch,
                link.leader,
                link.broken,
                link.requests,
                link.waiting.len(),
                link.answers,
                link.stream,
            );
        }
        text
    }

    fn is_well(&self) -> bool {
        self.controller.parts.iter().all(|(id, state)| {
            let Some(leader) = state.current.leader else { return false };
            let Some(leads) = self.brokers[&leader].parts.get(id) else { return false };
            let acked = self.truth.acked_lately(*id);
            leads.replica.leader().is_some()
                && state.current.isr.len() == state.current.replicas.len()
                && acked > 0
        })
    }

    /// Asks that leaders have, and requests that fetchers have.
    pub fn tick(&mut self, id: BrokerId) -> Checked {
        let broker = self.brokers.get_mut(&id).expect("exists");
        if !broker.up || broker.paused {
            return Ok(());
        }
        for (part, state) in &mut broker.parts {
            let Some(leader) = state.replica.leader_mut() else { continue };
            if leader.deadline().is_none_or(|at| at > self.now) && !self.random.chance(1, 4) {
                continue;
            }
            if let Some(ask) = leader.ask(self.now) {
                let (from, epoch, part) = (id, broker.epoch, *part);
                self.letters.push(Letter::Ask { from, epoch, part, ask, ghost: false });
            }
        }
        let mut asks = Vec::new();
        for (leader, fetcher) in &mut broker.fetchers {
            while let Some(ask) = fetcher.next(self.now) {
                asks.push((*leader, ask));
            }
        }
        let epoch = broker.epoch;
        for (leader, ask) in asks {
            self.send(id, epoch, leader, ask);
        }
        Ok(())
    }

    fn send(&mut self, follower: BrokerId, epoch: BrokerEpoch, leader: BrokerId, ask: FetchAsk) {
        let open = |link: &&mut Link| {
            (link.follower, link.leader, link.follower_epoch) == (follower, leader, epoch)
                && !link.broken
        };
        if ask.seq > 0 {
            if let Some(link) = self.links.iter_mut().find(open) {
                link.requests.push_back(ask);
            }
            return;
        }
        let theirs = &self.brokers[&leader];
        let reachable = theirs.up && (self.calm || self.random.chance(9, 10));
        if !reachable {
            let now = self.now;
            let broker = self.brokers.get_mut(&follower).expect("exists");
            broker.fetchers.get_mut(&leader).expect("just asked").on_lost(now);
            return;
        }
        self.links.push(Link {
            follower,
            leader,
            follower_epoch: epoch,
            leader_epoch: theirs.epoch,
            broken: false,
            requests: VecDeque::from([ask]),
            waiting: VecDeque::new(),
            answers: VecDeque::new(),
            stream: Stream::new(follower, epoch),
        });
    }

    /// Breaks a connection. What the leader's side has received already may still be worked on.
    pub fn cut(&mut self, at: usize) {
        let now = self.now;
        let link = &mut self.links[at];
        if link.broken {
            return;
        }
        link.broken = true;
        link.answers.clear();
        let kept = self.random.below(link.requests.len() as u64 + 1) as usize;
        link.requests.truncate(kept);
        let (follower, leader, epoch) = (link.follower, link.leader, link.follower_epoch);
        let broker = self.brokers.get_mut(&follower).expect("exists");
        if broker.up
            && broker.epoch == epoch
            && let Some(fetcher) = broker.fetchers.get_mut(&leader)
        {
            fetcher.on_lost(now);
        }
    }

    /// A request, an answer, arrives.
    fn deliver(&mut self) -> Checked {
        self.links
            .retain(|link| !(link.broken && link.requests.is_empty() && link.waiting.is_empty()));
        let busy = |(at, link): (usize, &Link)| {
            (!link.requests.is_empty() || !link.answers.is_empty()).then_some(at)
        };
        let busy: Vec<_> = self.links.iter().enumerate().filter_map(busy).collect();
        if busy.is_empty() {
            return Ok(());
        }
        let at = self.pick(&busy);
        match self.random.chance(1, 2) {
            true => self.deliver_request(at),
            false => self.deliver_answer(at),
        }
    }

    pub fn deliver_request(&mut self, at: usize) -> Checked {
        let link = &mut self.links[at];
        let leader = self.brokers.get_mut(&link.leader).expect("exists");
        if !leader.up || leader.epoch != link.leader_epoch {
            link.requests.clear();
            link.waiting.clear();
            self.cut(at);
            return Ok(());
        }
        if leader.paused {
            return Ok(());
        }
        let Some(ask) = link.requests.pop_front() else { return Ok(()) };
        let Ok(fetches) = link.stream.on_request(&ask) else {
            self.cut(at);
            return Ok(());
        };
        let mut touched = Vec::new();
        for fetch in &fetches {
            let verdict = leader.on_replica_fetch(fetch, self.now);
            link.stream.on_verdict(ask.seq, &fetch.part, verdict);
            touched.push((link.leader, fetch.part.id));
        }
        link.waiting.push_back(ask);
        touched.into_iter().try_for_each(|(id, part)| self.settle(id, part))
    }

    /// A leader composes an answer, if it has news or is asked for something newer.
    fn answer(&mut self) -> Checked {
        if self.links.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.links.len() as u64) as usize;
        self.answer_on(at, self.random.chance(1, 8))
    }

    pub fn answer_on(&mut self, at: usize, waited: bool) -> Checked {
        let budget = self.random.between(1, if self.calm { 64 } else { 6 }) as usize;
        let link = &mut self.links[at];
        let leader = self.brokers.get_mut(&link.leader).expect("exists");
        if !leader.up || leader.epoch != link.leader_epoch || leader.paused {
            return Ok(());
        }
        let Some(seq) = link.waiting.front().map(|ask| ask.seq) else { return Ok(()) };
        let parts = leader.compose(&mut link.stream, link.follower, seq, budget);
        if parts.is_empty() && !link.stream.is_superseded(seq) && !waited {
            return Ok(());
        }
        let ask = link.waiting.pop_front().expect("just seen");
        if !link.broken {
            link.answers.push_back((ask.session, ask.seq, parts));
        }
        Ok(())
    }

    pub fn deliver_answer(&mut self, at: usize) -> Checked {
        let link = &mut self.links[at];
        let broker = self.brokers.get_mut(&link.follower).expect("exists");
        if !broker.up || broker.epoch != link.follower_epoch {
            self.cut(at);
            return Ok(());
        }
        if broker.paused {
            return Ok(());
        }
        let Some((session, seq, parts)) = link.answers.pop_front() else { return Ok(()) };
        let fetcher = broker.fetchers.get_mut(&link.leader).expect("it asked");
        let Ok(deliveries) = fetcher.on_answer(session, seq, parts) else {
            return violation("AnswersInOrder", format!("{seq} of {session}"));
        };
        for delivery in deliveries {
            let part = broker.parts.get_mut(&delivery.answer.id).expect("it asked");
            part.inbox.push_back(delivery);
        }
        Ok(())
    }

    fn letter(&mut self) -> Checked {
        if self.letters.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.letters.len() as u64) as usize;
        let loses = !self.calm && self.chance(self.faults.lose_letter * 20);
        match self.letters.swap_remove(at) {
            Letter::Ask { from, epoch, part, ask, ghost } => {
                self.on_ask(from, epoch, part, ask, ghost, loses);
                Ok(())
            }
            Letter::Answer { to, epoch, part, term, attempt, answer } => {
                let now = self.now;
                let broker = self.brokers.get_mut(&to).expect("exists");
                if !broker.up || broker.epoch != epoch {
                    return Ok(());
                }
                if let Some(state) = broker.parts.get_mut(&part)
                    && let Some(leader) = state.replica.leader_mut()
                    && leader.epoch() == term
                {
                    leader.on_isr_answer(attempt, &answer, now);
                }
                self.settle(to, part)
            }
        }
    }

    /// The controller gets a request; or it is lost, or only thought to be.
    fn on_ask(
        &mut self,
        from: BrokerId,
        epoch: BrokerEpoch,
        part: TopicPartition,
        ask: Ask,
        ghost: bool,
        loses: bool,
    ) {
        let asked = match ask {
            Ask::NewTerm { leader_epoch } => {
                self.controller.new_term(part, leader_epoch);
                return;
            }
            Ask::AlterIsr(asked) => asked,
        };
        let (term, attempt) = (asked.leader_epoch, asked.attempt);
        let answer = match loses && !ghost {
            true => {
                if self.random.chance(2, 3) {
                    let ask = Ask::AlterIsr(asked);
                    self.letters.push(Letter::Ask { from, epoch, part, ask, ghost: true });
                }
                IsrAnswer::Unknown
            }
            false => self.decide(from, epoch, part, &asked),
        };
        let answer = match self.random.chance(1, 10) && !self.calm {
            true => IsrAnswer::Unknown,
            false => answer,
        };
        if !ghost {
            self.letters.push(Letter::Answer { to: from, epoch, part, term, attempt, answer });
        }
    }

    fn decide(
        &mut self,
        from: BrokerId,
        epoch: BrokerEpoch,
        part: TopicPartition,
        asked: &AlterIsr,
    ) -> IsrAnswer {
        let member = self.controller.members[&from];
        if member.epoch != epoch || member.fenced {
            return IsrAnswer::Stale;
        }
        self.controller.alter_isr(from, part, asked)
    }

    /// The broker applies some of what the controller decided; of each partition the last.
    fn catch_up(&mut self, id: BrokerId) -> Checked {
        let (seen, all) = (self.brokers[&id].seen, self.controller.history.len());
        if seen < all {
            let to = match self.random.chance(1, 3) {
                true => all,
                false => seen + 1,
            };
            self.apply_up_to(id, to)?;
        }
        Ok(())
    }

    pub fn apply_up_to(&mut self, id: BrokerId, to: usize) -> Checked {
        let broker = &self.brokers[&id];
        // While a log is being cut nothing else happens to it.
        let busy = broker.parts.values().any(|part| part.cutting.is_some());
        if !broker.up || broker.paused || busy {
            return Ok(());
        }
        let mut last: BTreeMap<TopicPartition, Assignment> = BTreeMap::new();
        for (part, assignment) in &self.controller.history[broker.seen..to] {
            last.insert(*part, assignment.clone());
        }
        self.brokers.get_mut(&id).expect("exists").seen = to;
        for (part, assignment) in last {
            self.assign(id, part, assignment)?;
        }
        Ok(())
    }

    pub fn new_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    pub fn new_session(&mut self) -> u64 {
        self.next_session += 1_000_000;
        self.next_session
    }
}

/// The offset as a plain number.
pub fn at(offset: Offset) -> u64 {
    offset.value()
}
