//! The simulated cluster: coordinators and brokers on machines of their own, clients on others, and
//! whatever goes wrong between and below them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::env::Queue;
use engine::env::sim::{End, Node, Random, Sim};
use engine::ids::{BrokerId, TopicId};
use engine::wait::Watch;
use futures_lite::future;
use net::env::sim::SimNet;
use net::groups::OFFSETS_TOPIC;
use net::history::{History, Op};
use net::wire::ErrorCode;
use net::wire::create_topics::{CreateTopicsRequest, CreateTopicsResponse, RequestTopic};

use crate::Bug;
use crate::client::Member;
use crate::consumer::{consume, read_whole};
use crate::groups::{GroupNumbers, Groups};
use crate::ledger::Ledger;
use crate::line::{Client, Come, gone};
use crate::machine::{CLIENT_PORT, CONTROL_PORT, Machine, Numbers, Role};
use crate::oracle::{Broken, Invariant, Kept, Oracle, Place, broken};
use crate::producer::produce;
use crate::watcher::{Registry, is_whole, watch};

/// A topic of the run.
pub struct Topic {
    pub name: &'static str,
    pub partitions: u32,
}

/// The first is for idempotent producers, the second for plain ones.
pub const TOPICS: [Topic; 2] =
    [Topic { name: "safe", partitions: 3 }, Topic { name: "plain", partitions: 2 }];

/// All partitions of them.
pub fn places() -> impl Iterator<Item = Place> {
    TOPICS.iter().enumerate().flat_map(|(topic, of)| {
        (0..of.partitions as i32).map(move |partition| Place { topic, partition })
    })
}

/// Producers: the first half of them idempotent.
const PRODUCERS: u32 = 4;
const CONSUMERS: u32 = 2;
/// From which source of random numbers groups are drawn.
const GROUP_STREAM: u64 = 1_000;
/// Within so long of virtual time everything is acknowledged when all is well again.
pub const HEALTHY_MAX: Duration = Duration::from_secs(30);

/// What a run was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub trace_hash: u64,
    pub events_hash: u64,
    pub acked: u64,
    pub read: u64,
    pub lives: u64,
    pub elections: u64,
    pub millis: u64,
    /// `None`: there were no groups.
    pub groups: Option<GroupSummary>,
}

/// What the groups of a run were like.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GroupSummary {
    /// How often another broker took to acknowledging the commits of a group.
    pub failovers: u64,
    pub commits: u64,
    pub assignments: u64,
    /// How often a member was told that it is none, or has left.
    pub fenced: u64,
}

/// A run.
pub struct World {
    pub machines: Vec<Machine>,
    clients: Vec<Node>,
    pub net: SimNet,
    pub random: Random,
    pub oracle: Rc<Oracle>,
    registry: Rc<Registry>,
    history: Rc<RefCell<History>>,
    /// Topics whose creation was acknowledged.
    created: Rc<RefCell<BTreeMap<String, TopicId>>>,
    groups: Option<Groups>,
    pub sim: Sim,
}

/// Runs a seed from its beginning to its verdict.
pub fn run(seed: u64, bug: Bug, is_shown: bool) -> Kept<Summary> {
    let world = World::new(seed, bug, is_shown);
    world.begin();
    let kept = world.sim.run_until(future::or(world.play(), world.supervise()));
    let verdict = world.oracle.verdict().and(kept);
    let text = match &verdict {
        Ok(()) => "kept".to_owned(),
        Err(broken) => broken.to_string(),
    };
    world.event("verdict", format_args!("{text}"));
    verdict?;
    Ok(Summary {
        trace_hash: world.sim.trace_hash(),
        events_hash: world.oracle.events_hash(),
        acked: world.oracle.acked.get(),
        read: world.oracle.read.get(),
        lives: world.machines.iter().map(|machine| machine.lives.get()).sum(),
        elections: world.registry.elections.get(),
        millis: world.sim.now().nanos() / 1_000_000,
        groups: world.groups.as_ref().map(Groups::summary),
    })
}

impl World {
    fn new(seed: u64, bug: Bug, is_shown: bool) -> World {
        let sim = Sim::new(seed);
        let random = sim.workload(0);
        // From a source of their own: what else happens on a seed does not depend on them.
        let of_groups = sim.workload(GROUP_STREAM);
        let always = bug.is_of_groups() || std::env::var_os("SIM_GROUPS").is_some();
        let has_groups = of_groups.chance(1, 2) || always;
        let groups = has_groups.then(|| GroupNumbers::draw(&of_groups));
        let numbers = Numbers::draw(&random, groups.clone(), bug);
        let roles: Vec<(i32, Role)> = match random.chance(1, 3) {
            true => (1..=3).map(|id| (id, Role::Both)).collect(),
            false => {
                let coordinators = (101..=103).map(|id| (id, Role::Coordinator));
                coordinators.chain((1..=3).map(|id| (id, Role::Broker))).collect()
            }
        };
        let mut machines: Vec<Machine> = roles
            .into_iter()
            .map(|(id, role)| Machine::new(sim.node(), id, role, numbers.clone()))
            .collect();
        let voters: Vec<(BrokerId, String)> = machines
            .iter()
            .filter(|machine| machine.role.votes())
            .map(|machine| (BrokerId(machine.id), machine.address(CONTROL_PORT).to_string()))
            .collect();
        for machine in &mut machines {
            machine.meet(voters.clone());
        }
        let clients: Vec<Node> = (0..PRODUCERS + CONSUMERS + 3).map(|_| sim.node()).collect();
        let oracle = Rc::new(Oracle::new(is_shown));
        let registry = Rc::new(Registry::new(oracle.clone()));
        let watching = clients.last().expect("the last one watches");
        for voter in voters {
            let env = watching.env();
            env.executor().spawn(env.life(), watch(env.clone(), registry.clone(), voter));
        }
        let groups = groups.map(|numbers| {
            let (session, registry) = (numbers.session, registry.clone());
            let ledger =
                move |name, is_classic| Ledger::new(name, is_classic, session, registry.clone());
            Groups::new(numbers, || sim.node(), ledger)
        });
        World {
            machines,
            clients,
            net: SimNet::of(sim.executor()),
            random,
            oracle,
            registry,
            history: Rc::default(),
            created: Rc::default(),
            groups,
            sim,
        }
    }

    pub fn event(&self, who: &str, what: std::fmt::Arguments<'_>) {
        self.oracle.event(self.sim.now(), who, what);
    }

    fn member(&self, number: u32, name: &str) -> Member {
        self.member_on(&self.clients[number as usize], number, name)
    }

    /// A client on a node, with the random numbers of its own `stream`.
    pub fn member_on(&self, node: &Node, stream: u32, name: &str) -> Member {
        let bootstrap: Vec<_> = self
            .machines
            .iter()
            .filter(|machine| machine.role.serves())
            .map(|machine| machine.address(CLIENT_PORT))
            .collect();
        let client = Client {
            env: node.env(),
            broker: bootstrap[0],
            name: name.into(),
            oracle: self.oracle.clone(),
            random: Rc::new(self.sim.workload(1 + u64::from(stream))),
        };
        Member::new(client, self.registry.clone(), self.history.clone(), bootstrap)
    }

    /// Starts whatever does not run.
    pub fn begin(&self) {
        self.machines.iter().for_each(|machine| self.begin_one(machine));
    }

    pub fn begin_one(&self, machine: &Machine) {
        if machine.begin(&self.net) {
            self.event(&machine.name(), format_args!("life {} begins", machine.lives.get()));
        }
    }

    /// The whole story.
    async fn play(&self) -> Kept {
        let admin = self.member(PRODUCERS + CONSUMERS, "admin");
        for topic in &TOPICS {
            self.create(&admin, topic.name, topic.partitions as i32).await?;
        }
        let (produced, calm, finish) = (Watch::new(0), Watch::new(0), Watch::new(0));
        for number in 0..PRODUCERS {
            let is_idempotent = number < PRODUCERS / 2;
            let name = format!("{}-{number}", if is_idempotent { "sure" } else { "plain" });
            let (member, calm) = (self.member(number, &name), calm.clone());
            let (env, produced) = (member.client.env.clone(), produced.clone());
            env.spawn_client(async move {
                produce(member, number, is_idempotent, calm).await;
                produced.raise(produced.value() + 1);
            });
        }
        for number in PRODUCERS..PRODUCERS + CONSUMERS {
            let member = self.member(number, &format!("reader-{number}"));
            let (env, finish) = (member.client.env.clone(), finish.clone());
            env.spawn_client(consume(member, finish));
        }
        if let Some(groups) = &self.groups {
            groups.begin(self, &calm, &finish);
        }
        let trouble = future::zip(self.trouble(), self.trouble());
        let creating = async {
            for number in 0.. {
                self.sim.sleep(Duration::from_millis(700)).await;
                self.create(&admin, &format!("extra-{number}"), 1).await?;
            }
            Ok(())
        };
        future::or(
            async {
                trouble.await;
                Ok(())
            },
            creating,
        )
        .await?;
        self.heal();
        calm.raise(1);
        let all = async { produced.reach(u64::from(PRODUCERS)).await.is_ok() };
        let late = async {
            self.sim.sleep(HEALTHY_MAX).await;
            false
        };
        if !future::or(all, late).await {
            let how = format!("{} of {PRODUCERS} producers are done", produced.value());
            return self.oracle.verdict().and(broken(Invariant::EverythingIsAcknowledged, how));
        }
        self.settle().await?;
        finish.raise(1);
        self.oracle.verdict()?;
        if let Some(groups) = &self.groups {
            groups.judge()?;
        }
        self.compare().await?;
        self.check_topics()?;
        self.compare_replicas().await?;
        let report = std::mem::take(&mut *self.history.borrow_mut()).judge();
        if let Some((anomaly, found)) = report.anomalies().next() {
            return broken(Invariant::HistoryIsClean, format!("{}: {found:?}", anomaly.name()));
        }
        Ok(())
    }

    /// Waits until replicas are in sync, and groups have read all.
    async fn settle(&self) -> Kept {
        // The watchers may be behind by as much.
        self.sim.sleep(Duration::from_millis(1_500)).await;
        let until = self.sim.now().after(HEALTHY_MAX);
        while !is_whole(&self.registry.image()) {
            if self.sim.now() > until {
                let how = "replicas are not in sync again".to_owned();
                return broken(Invariant::EverythingIsAcknowledged, how);
            }
            self.sim.sleep(Duration::from_millis(50)).await;
        }
        self.sim.sleep(Duration::from_millis(500)).await;
        if let Some(groups) = &self.groups {
            groups.settle(self).await?;
        }
        Ok(())
    }

    /// Creates a topic, for as long as it takes.
    async fn create(&self, admin: &Member, name: &str, partitions: i32) -> Kept {
        loop {
            match create_once(admin, name, partitions).await {
                Ok(Some(id)) => {
                    self.created.borrow_mut().insert(name.to_owned(), id);
                    return Ok(());
                }
                // An earlier try that was not answered has made it.
                Ok(None) => return Ok(()),
                Err(stop) if admin.client.ended(&stop) => admin.client.pause().await,
                Err(_) => return self.oracle.verdict(),
            }
        }
    }

    fn check_topics(&self) -> Kept {
        let image = self.registry.image();
        for (name, id) in &*self.created.borrow() {
            if image.topic(name).is_none_or(|topic| topic.id != *id) {
                return broken(Invariant::TopicsStay, format!("{name} with id {id} is gone"));
            }
        }
        Ok(())
    }

    /// Compares every log, as its leader tells it, with what was promised.
    async fn compare(&self) -> Kept {
        let member = self.member(PRODUCERS + CONSUMERS + 1, "reader");
        let until = self.sim.now().after(HEALTHY_MAX);
        for place in places() {
            let log = loop {
                if self.sim.now() > until {
                    let how = format!("{place:?} cannot be read");
                    return broken(Invariant::EverythingIsAcknowledged, how);
                }
                match read_whole(&member, place).await {
                    Ok(log) => break log,
                    Err(stop) => {
                        if !member.again(&stop).await {
                            return self.oracle.verdict();
                        }
                    }
                }
            };
            self.oracle.check_log(place, &log)?;
            let mut told = Ok(());
            for (offset, tag) in log.records.iter().enumerate() {
                let offset = offset as i64;
                told = told.and(member.tell(Op::Poll, "reader", place, offset, Some(*tag)));
            }
            let end = log.records.len() as i64;
            told = told.and(member.tell(Op::End, "reader", place, end, None));
            if let Err(stop) = told {
                member.client.ended(&stop);
                return self.oracle.verdict();
            }
        }
        Ok(())
    }

    /// Compares what the replicas of each partition have on their disks.
    async fn compare_replicas(&self) -> Kept {
        let image = self.registry.image();
        self.machines.iter().for_each(|machine| machine.end(End::Kill));
        for topic in image.topics() {
            for (index, _) in topic.partitions() {
                let mut first: Option<(String, Vec<u8>)> = None;
                for machine in self.machines.iter().filter(|machine| machine.role.serves()) {
                    let bytes = crate::disk::read(machine, topic, index).await;
                    let bytes = match bytes {
                        Ok(bytes) => bytes,
                        Err(how) => return broken(Invariant::LogMatching, how),
                    };
                    let (name, expected) =
                        first.get_or_insert_with(|| (machine.name(), bytes.clone()));
                    // Groups are never at rest: sessions end, and that is written down. What was
                    // on its way when the power went may be on some only.
                    let is_at_rest = &*topic.name != OFFSETS_TOPIC;
                    let len =
                        if is_at_rest { bytes.len() } else { bytes.len().min(expected.len()) };
                    if expected[..len.min(expected.len())] != bytes[..len]
                        || is_at_rest && expected.len() != len
                    {
                        let how = format!(
                            "{}-{index}: {} bytes on {name}, {} on {}, equal up to {:?}",
                            topic.name,
                            expected.len(),
                            bytes.len(),
                            machine.name(),
                            expected.iter().zip(&bytes).position(|(one, other)| one != other),
                        );
                        return broken(Invariant::LogMatching, how);
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts processes again that have ended by themselves, as a supervisor would; for ever. A
    /// machine whose device has failed is started anew (see `sim_broker`).
    async fn supervise(&self) -> Kept {
        loop {
            self.sim.sleep(Duration::from_millis(20)).await;
            self.oracle.verdict()?;
            for machine in &self.machines {
                let Some(why) = machine.over() else { continue };
                let end = if why.is_empty() { End::Kill } else { End::PowerCut };
                self.event(&machine.name(), format_args!("ended by itself: {why}"));
                machine.end(end);
                machine.node.disk().heal();
                self.begin_one(machine);
            }
        }
    }
}

/// A topic's id; `None` if it was there.
async fn create_once(admin: &Member, name: &str, partitions: i32) -> Come<Option<TopicId>> {
    let line = admin.any().await?;
    let wanted = [RequestTopic {
        name,
        num_partitions: partitions,
        replication_factor: 3,
        ..Default::default()
    }];
    let message = CreateTopicsRequest { topics: (&wanted).into(), ..Default::default() };
    let answer = line.call(&message, 7).await?;
    let response: CreateTopicsResponse<'_> = answer.read()?;
    match response.topics.first().map(|topic| (topic.error_code, topic.topic_id)) {
        Some((ErrorCode::None, id)) => Ok(Some(id)),
        Some((ErrorCode::TopicAlreadyExists, _)) => Ok(None),
        Some((error, _)) if error.is_retriable() => gone(format!("{name}: {error}")),
        // Fewer than three brokers are known yet.
        Some((ErrorCode::InvalidReplicationFactor, _)) => gone("too few brokers"),
        other => {
            let how = format!("{name} is answered {other:?}");
            Err(Broken(Invariant::ErrorsHaveCauses, how).into())
        }
    }
}

/// Tasks of clients.
pub trait SpawnClient {
    fn spawn_client(&self, task: impl Future<Output = ()> + 'static);
}

impl SpawnClient for engine::env::sim::SimEnv {
    fn spawn_client(&self, task: impl Future<Output = ()> + 'static) {
        engine::env::Env::spawn(self, Queue::Request, task);
    }
}
