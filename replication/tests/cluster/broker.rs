//! A broker as net makes one: opens its log, applies assignments, runs a fetch stream as follower
//! and answers those of others as leader.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use engine::cache::BlockBudget;
use engine::config::LogConfig;
use engine::env::sim::{End, Node, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{BrokerEpoch, BrokerId};
use engine::log::{Bounds, Cleaner, CompactError, Disk, Log, Shared as LogShared};
use engine::time::Instant;
use engine::wait::{Watch, any};
use futures_lite::future;
use replication::Partition;
use replication::ask::{AnswerPart, Ask, FetchFault, IsrAnswer, Outcome};
use replication::config::ReplicationConfig;
use replication::fetcher::Fetcher;
use replication::partition::{Accepted, Notices};
use replication::stream::Stream;

use super::link::Link;
use crate::{PART, Shared};

/// By leader: the stream, and its connection while there is one.
type Streams = BTreeMap<BrokerId, (Fetcher, Option<Rc<Link>>)>;

/// One process.
pub struct Life {
    id: BrokerId,
    epoch: BrokerEpoch,
    env: SimEnv,
    ended: Cell<bool>,
    partition: RefCell<Option<Partition<SimEnv>>>,
    notices: Notices,
    fetchers: RefCell<Streams>,
    /// Links on which others fetch.
    served: RefCell<Vec<Rc<Link>>>,
}

pub struct Broker {
    id: BrokerId,
    node: Node,
    shared: Rc<Shared>,
}

impl Life {
    pub fn partition(&self) -> Option<Partition<SimEnv>> {
        self.partition.borrow().clone().filter(|_| !self.ended.get())
    }
}

fn config() -> ReplicationConfig {
    ReplicationConfig {
        lag_max: Duration::from_millis(300),
        fetch_wait_max: Duration::from_millis(50),
        partition_bytes_max: 20_000,
        ..ReplicationConfig::default()
    }
}

impl Broker {
    pub fn new(id: BrokerId, shared: &Rc<Shared>) -> Broker {
        Broker { id, node: shared.sim.node(), shared: shared.clone() }
    }

    pub fn id(&self) -> BrokerId {
        self.id
    }

    pub fn is_up(&self) -> bool {
        self.shared.lives.borrow().contains_key(&self.id)
    }

    /// Opens the log and registers, then applies what is decided from there on.
    pub async fn start(&self) {
        let env = self.node.env();
        let compacts = self.shared.keys > 0;
        let log_config = LogConfig {
            segment_bytes: if compacts { 10_000 } else { 60_000 },
            min_insync_replicas: 2,
            compacts,
            min_dirty_ppm: 0,
            ..LogConfig::default()
        };
        let log_shared = LogShared {
            budget: BlockBudget::new(100_000, 1 << 20),
            disk: Disk::default(),
            bounds: Bounds { block_bytes_max: 16_384, ..Bounds::default() },
        };
        let log_config = Rc::new(log_config);
        let log = Log::open(&env, Path::new("/t/0"), PART, log_config, &log_shared).await;
        let (log, _) = log.expect("a log can be opened");
        // Only a broker that did not end in good order is new to the controller.
        let epoch = self.shared.controller.borrow_mut().register(self.id, false);
        let seen = self.shared.controller.borrow().history.len();
        let notices = Notices::default();
        let partition = Partition::open(&env, log, self.id, config(), &notices);
        let life = Rc::new(Life {
            id: self.id,
            epoch,
            env: env.clone(),
            ended: Cell::new(false),
            partition: Some(partition.clone()).into(),
            notices,
            fetchers: RefCell::default(),
            served: RefCell::default(),
        });
        self.shared.lives.borrow_mut().insert(self.id, life.clone());
        let current = self.shared.controller.borrow().parts[&PART].current.clone();
        let _ = partition.assign(current).await;
        let (shared, applied) = (self.shared.clone(), life.clone());
        env.spawn(Queue::Background, apply(shared, applied, seen));
        if compacts {
            env.spawn(Queue::Background, compact(self.shared.clone(), life.clone()));
        }
        env.spawn(Queue::Replication, replicate(self.shared.clone(), life));
        self.shared.controller.borrow_mut().unfence(self.id);
    }

    /// Its process or machine ends; the controller notices after a while.
    pub fn end(&mut self, end: End) {
        let Some(life) = self.shared.lives.borrow_mut().remove(&self.id) else { return };
        life.break_links();
        life.ended.set(true);
        life.partition.borrow_mut().take();
        life.fetchers.borrow_mut().clear();
        self.node.end(end);
        let (shared, id, epoch) = (self.shared.clone(), self.id, life.epoch);
        self.shared.sim.spawn(async move {
            shared.pause(30_000).await;
            let mut controller = shared.controller.borrow_mut();
            if controller.members[&id].epoch == epoch {
                controller.fence(id);
            }
        });
    }

    pub fn break_links(&self) {
        if let Some(life) = self.shared.lives.borrow().get(&self.id) {
            life.break_links();
        }
    }
}

impl Life {
    fn break_links(&self) {
        let fetchers = self.fetchers.borrow();
        let mine = fetchers.values().filter_map(|(_, link)| link.as_ref());
        mine.chain(&*self.served.borrow()).for_each(|link| link.broken.raise(1));
    }
}

/// Applies what the controller decides, some time later, sometimes several at once.
async fn apply(shared: Rc<Shared>, life: Rc<Life>, mut seen: usize) {
    loop {
        shared.pause(shared.random.between(200, 4_000)).await;
        let history = shared.controller.borrow().history.len();
        let Some(partition) = life.partition() else { return };
        if seen < history {
            seen = if shared.random.chance(1, 2) { history } else { seen + 1 };
            let assignment = shared.controller.borrow().history[seen - 1].1.clone();
            let _ = partition.assign(assignment).await;
        }
    }
}

/// Compacts the log again and again, with little memory.
async fn compact(shared: Rc<Shared>, life: Rc<Life>) {
    let mut cleaner = Cleaner::new(10 * 24);
    loop {
        shared.pause(shared.random.between(1_000, 20_000)).await;
        let Some(partition) = life.partition() else { return };
        match partition.compact(&mut cleaner).await {
            Ok(Some(done)) => {
                let shrunk = done.read_bytes.saturating_sub(done.written_bytes);
                shared.shrunk.set(shared.shrunk.get() + shrunk);
            }
            Ok(None) | Err(CompactError::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The follower's end of the streams, and asks to the controller.
async fn replicate(shared: Rc<Shared>, life: Rc<Life>) {
    loop {
        let count = life.notices.count();
        let before = count.value();
        let Some(partition) = life.partition() else { return };
        if !life.notices.take().is_empty() {
            look(&shared, &life, &partition);
        }
        ask(&shared, &life, &partition);
        let mut watches = vec![(count, before + 1)];
        let mut until = life.env.now().after(Duration::from_millis(50));
        let leaders: Vec<_> = life.fetchers.borrow().keys().copied().collect();
        for leader in leaders {
            fetch(&shared, &life, leader);
            take(&life, &partition, leader, &mut watches).await;
            let fetchers = life.fetchers.borrow();
            until = fetchers[&leader].0.deadline().map_or(until, |at| until.min(at));
        }
        let until = until.max(life.env.now().after(Duration::from_micros(10)));
        future::or(any(&watches), life.env.sleep_until(until)).await;
    }
}

/// The partition has news.
fn look(shared: &Shared, life: &Life, partition: &Partition<SimEnv>) {
    let news = partition.follow_news();
    let mut fetchers = life.fetchers.borrow_mut();
    for (leader, (fetcher, _)) in fetchers.iter_mut() {
        if partition.followed() != Some(*leader) {
            fetcher.remove(PART);
        }
    }
    let Some(news) = news else { return };
    let session = shared.random.next() >> 8;
    let (fetcher, _) =
        fetchers.entry(news.leader).or_insert_with(|| (Fetcher::new(session, config()), None));
    match news.place {
        true => fetcher.place(news.standing),
        false => fetcher.on_progress(news.standing),
    }
}

/// Sends what the leader wants from the controller.
fn ask(shared: &Rc<Shared>, life: &Rc<Life>, partition: &Partition<SimEnv>) {
    let Some(asked) = partition.ask(life.env.now()) else { return };
    let (shared, partition, id, epoch) = (shared.clone(), partition.clone(), life.id, life.epoch);
    life.env.spawn(Queue::Background, async move {
        shared.pause(shared.random.between(100, 3_000)).await;
        let asked = match asked {
            Ask::AlterIsr(asked) => asked,
            Ask::NewTerm { leader_epoch } => {
                return shared.controller.borrow_mut().new_term(PART, leader_epoch);
            }
        };
        let member = shared.controller.borrow().members[&id];
        let answer = match member.epoch == epoch && !member.fenced {
            true => shared.controller.borrow_mut().alter_isr(id, PART, &asked),
            false => IsrAnswer::Stale,
        };
        shared.pause(shared.random.between(100, 3_000)).await;
        let answer = if shared.random.chance(1, 10) { IsrAnswer::Unknown } else { answer };
        partition.on_isr_answer(asked.leader_epoch, asked.attempt, &answer);
    });
}

/// Sends what the stream has to say, on a new connection if need be.
fn fetch(shared: &Rc<Shared>, life: &Rc<Life>, leader: BrokerId) {
    let mut fetchers = life.fetchers.borrow_mut();
    let (fetcher, link) = fetchers.get_mut(&leader).expect("listed");
    let now = life.env.now();
    if link.take_if(|link| link.is_broken()).is_some() {
        fetcher.on_lost(now);
    }
    while let Some(ask) = fetcher.next(now) {
        if link.is_none() {
            let Some(theirs) = shared.lives.borrow().get(&leader).cloned() else {
                fetcher.on_lost(now);
                return;
            };
            let new = Link::new(life.id, life.epoch);
            *link = Some(new.clone());
            theirs.served.borrow_mut().push(new.clone());
            let env = theirs.env.clone();
            env.spawn(Queue::Replication, serve(shared.clone(), theirs, new));
        }
        link.as_ref().expect("just made").requests.push(ask);
    }
}

/// Carries answers out.
async fn take(
    life: &Life,
    partition: &Partition<SimEnv>,
    leader: BrokerId,
    watches: &mut Vec<(Watch, u64)>,
) {
    let Some(link) = life.fetchers.borrow()[&leader].1.clone() else { return };
    while let Some((session, seq, parts)) = link.answers.pop() {
        let deliveries = {
            let mut fetchers = life.fetchers.borrow_mut();
            let (fetcher, _) = fetchers.get_mut(&leader).expect("listed");
            fetcher.on_answer(session, seq, parts).expect("answers come in order")
        };
        for delivery in &deliveries {
            let accepted = partition.accept(delivery).await;
            let now = life.env.now();
            let mut fetchers = life.fetchers.borrow_mut();
            let Some((fetcher, _)) = fetchers.get_mut(&leader) else { return };
            // What follows somebody else by now is not this stream's.
            let follows = partition.followed() == Some(leader);
            match accepted {
                _ if !follows => fetcher.remove(PART),
                Accepted::Ignored => {}
                Accepted::Taken(standing) => fetcher.on_progress(standing),
                Accepted::Place(standing) => fetcher.place(standing),
                Accepted::BackOff(standing, pause) => {
                    fetcher.place_at(standing, now.after(pause));
                }
            }
        }
        fetch_again(life, leader);
    }
    watches.push((link.answers.count.clone(), link.answers.count.value() + 1));
    watches.push((link.broken.clone(), 1));
}

fn fetch_again(life: &Life, leader: BrokerId) {
    let mut fetchers = life.fetchers.borrow_mut();
    let Some((fetcher, Some(link))) = fetchers.get_mut(&leader) else { return };
    while let Some(ask) = (!link.is_broken()).then(|| fetcher.next(life.env.now())).flatten() {
        link.requests.push(ask);
    }
}

/// The leader's end of one stream.
async fn serve(shared: Rc<Shared>, life: Rc<Life>, link: Rc<Link>) {
    let mut stream = Stream::new(link.follower, link.follower_epoch);
    let mut waiting: Vec<(u64, u64, Instant)> = Vec::new();
    loop {
        shared.pause(shared.random.between(20, 400)).await;
        let Some(partition) = life.partition() else { return };
        if link.is_broken() {
            return;
        }
        let count = link.requests.count.value();
        while let Some(ask) = link.requests.pop() {
            let Ok(fetches) = stream.on_request(&ask) else { return link.broken.raise(1) };
            for fetch in &fetches {
                let verdict = partition.on_replica_fetch(fetch);
                stream.on_verdict(ask.seq, &fetch.part, verdict);
            }
            waiting.push((ask.session, ask.seq, life.env.now().after(ask.wait_max)));
        }
        let Some(&(session, seq, until)) = waiting.first() else {
            any(&[(link.requests.count.clone(), count + 1), (link.broken.clone(), 1)]).await;
            continue;
        };
        let (parts, mut watches) = compose(&partition, &mut stream, link.follower, seq).await;
        if !parts.is_empty() || stream.is_superseded(seq) || life.env.now() >= until {
            waiting.remove(0);
            link.answers.push((session, seq, parts));
            continue;
        }
        watches.push((link.requests.count.clone(), count + 1));
        watches.push((link.broken.clone(), 1));
        future::or(any(&watches), life.env.sleep_until(until)).await;
    }
}

async fn compose(
    partition: &Partition<SimEnv>,
    stream: &mut Stream,
    follower: BrokerId,
    seq: u64,
) -> (Vec<AnswerPart<Vec<u8>>>, Vec<(Watch, u64)>) {
    let (mut parts, mut watches) = (Vec::new(), Vec::new());
    stream.stir_all();
    for read in stream.reads(seq) {
        let head = partition.head();
        watches.push((partition.growth(), read.from.value() + 1));
        watches.push((partition.watch(), head.high_watermark.value() + 1));
        let (epoch, from) = (read.leader_epoch, read.from);
        match partition.replica_read(follower, epoch, from, 20_000, true).await {
            Ok(chunk) => {
                if stream.on_read(&read, chunk.next, head) {
                    let mut bytes = Vec::with_capacity(chunk.bytes);
                    chunk.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
                    let records = Outcome::Records((!bytes.is_empty()).then_some(bytes));
                    parts.push(part(head, records));
                }
            }
            Err(fault) => stream.on_unreadable(&read, fault),
        }
    }
    let head = partition.head();
    let troubles = stream.take_troubles(seq).into_iter();
    parts.extend(troubles.map(|(_, trouble)| part(head, trouble.into())));
    (parts, watches)
}

fn part(head: replication::stream::Head, outcome: Outcome<Vec<u8>>) -> AnswerPart<Vec<u8>> {
    let failed = matches!(outcome, Outcome::Failed(FetchFault::NotLeader));
    let high_watermark = if failed { Default::default() } else { head.high_watermark };
    AnswerPart { id: PART, high_watermark, log_start: head.log_start, outcome }
}
