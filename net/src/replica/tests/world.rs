//! Three brokers of two shards each on a simulated network, with the real controller's decisions in
//! memory: what replication on the wire needs, and nothing else.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::{Cluster, ClusterId, DirectoryId, Endpoint, Incarnation};
use coordinator::config::Config;
use coordinator::controller::{
    Assignment, Controller, Heartbeat, Loss, NewTopic, Registration, Reply, Request, Soft,
};
use coordinator::image::Image;
use coordinator::machine::{Machine, Moment, Outcome, Seen, Token};
use engine::batch::{BatchBuilder, NewRecord};
use engine::cache::BlockBudget;
use engine::env::sim::{End, Node, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::{BrokerId, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Disk, Limit, Shared};
use engine::time::Timestamp;
use engine::wait::Watch;
use replication::Partition;
use replication::config::ReplicationConfig;

use crate::config::{Inputs, resolve};
use crate::duties;
use crate::env::sim::SimNet;
use crate::env::{LANE_LEN_MAX, mesh};
use crate::link::{Answer, Link};
use crate::mesh::Ends;
use crate::node;
use crate::replica::follower;
use crate::shard::{Options, QuorumOptions, Shard};
use crate::wire::produce::{ProduceRequest, ProduceResponse, RequestPartition, RequestTopic};
use crate::wire::{ErrorCode, Records, Request as WireRequest};

const SHARDS: usize = 2;
pub const CLIENTS: u16 = 9_092;
pub const PEERS: u16 = 9_093;
/// So long a leader keeps a fetch without news: far longer than anything here may take, so that
/// nothing is saved by it.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// What the controller remembers, and who decides by it.
pub struct Decider {
    hard: RefCell<Cluster>,
    soft: RefCell<Soft>,
    image: RefCell<Arc<Image>>,
    /// Raised to the offset of the newest picture.
    offset: Watch,
    runs: Cell<u128>,
}

impl Decider {
    fn decide(&self, env: &SimEnv, request: Request) -> (Reply, Offset) {
        let config = Config { session_timeout: None, leader_rebalance: None, ..Config::default() };
        let random = [env.random(), env.random()];
        let at = Moment { now: env.now(), wall: env.wall(), random };
        let mut out = Outcome::default();
        let mut hard = self.hard.borrow_mut();
        let seen = Seen { hard: &*hard, config: &config, at };
        Controller::decide(seen, &mut self.soft.borrow_mut(), Token(0), request, &mut out);
        let at = Offset::new(self.offset.value());
        out.records.iter().for_each(|record| hard.apply(at, record));
        let image = Image::new(hard.clone(), at.plus(1), None);
        *self.image.borrow_mut() = Arc::new(image);
        drop(hard);
        self.offset.raise(at.value() + 1);
        (out.replies.remove(0).1, at.plus(1))
    }

    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }
}

/// All of it.
pub struct World {
    pub net: SimNet,
    pub machines: Vec<Node>,
    pub env: SimEnv,
    pub decider: Rc<Decider>,
    pub topic: Cell<TopicId>,
    lives: Rc<RefCell<BTreeMap<BrokerId, Vec<Shard<SimEnv>>>>>,
    options: Vec<Arc<Options>>,
    pub sim: Sim,
}

impl World {
    /// Three brokers that serve, and nothing that they replicate. `change` is done to what each is
    /// told.
    pub fn new(seed: u64, change: impl Fn(&mut Options)) -> World {
        let sim = Sim::new(seed);
        let machines: Vec<Node> = (0..3).map(|_| sim.node()).collect();
        let cluster = ClusterId::random([seed, 1]);
        let options = machines.iter().zip(1..).map(|(machine, id)| {
            let mut options = options(machine, BrokerId(id), &cluster);
            change(&mut options);
            Arc::new(options)
        });
        let world = World {
            net: SimNet::of(sim.executor()),
            options: options.collect(),
            machines,
            env: sim.node().env(),
            decider: Rc::new(Decider {
                hard: RefCell::default(),
                soft: RefCell::default(),
                image: RefCell::new(Arc::new(Image::empty())),
                offset: Watch::new(0),
                runs: Cell::new(0),
            }),
            topic: Cell::new(TopicId::ZERO),
            lives: Rc::default(),
            sim,
        };
        (1..=3).for_each(|id| world.begin(BrokerId(id)));
        let all = async {
            while world.lives.borrow().len() < 3 {
                world.sleep(10).await;
            }
        };
        world.sim.run_until(all);
        world
    }

    pub fn machine(&self, id: BrokerId) -> &Node {
        &self.machines[id.0 as usize - 1]
    }

    /// One life of a broker's process.
    pub fn begin(&self, id: BrokerId) {
        let (machine, options) = (self.machine(id), &self.options[id.0 as usize - 1]);
        let calls = mesh::<SimEnv, _>(SHARDS, LANE_LEN_MAX);
        let answers = mesh::<SimEnv, _>(SHARDS, LANE_LEN_MAX);
        let ends = calls.into_iter().zip(answers).enumerate();
        let shards: Vec<_> = ends
            .map(|(index, (calls, answers))| {
                let shared = Shared {
                    budget: BlockBudget::new(options.limits.tail_bytes_max, 64 << 20),
                    disk: Disk::default(),
                    bounds: options.bounds,
                };
                let ends = Ends { calls, answers };
                Shard::new(&machine.env(), index, SHARDS, options.clone(), shared, ends)
            })
            .collect();
        let [clients, peers] =
            [CLIENTS, PEERS].map(|port| self.net.bind(machine, port, SHARDS).expect("it is free"));
        let doors: Vec<_> = clients
            .into_iter()
            .zip(peers)
            .map(|(client, peer)| vec![("CLIENTS".to_owned(), client), ("PEERS".to_owned(), peer)])
            .collect();
        let (decider, lives) = (self.decider.clone(), self.lives.clone());
        machine.env().spawn(Queue::Request, async move {
            join(&decider, &shards[0]).await;
            for (shard, doors) in shards.iter().zip(doors) {
                node::listen(shard, doors).await.expect("the doors are there");
                shard.env().spawn(Queue::Background, node::open_own(shard.clone()));
                shard.env().spawn(Queue::Replication, follower::run(shard.clone()));
                shard.env().spawn(Queue::Replication, duties::carry_asks(shard.clone()));
            }
            lives.borrow_mut().insert(id, shards);
        });
    }

    pub fn end(&self, id: BrokerId, end: End) {
        self.lives.borrow_mut().remove(&id);
        self.machine(id).end(end);
    }

    /// The broker registers anew while its process goes on, as one does that was not heard of.
    pub async fn register_again(&self, id: BrokerId) {
        let shard = self.lives.borrow()[&id][0].clone();
        register(&self.decider, &shard).await;
    }

    /// Makes the topic: so many partitions on all brokers, led by each in turn.
    pub async fn create(&self, partitions: i32) -> Vec<TopicPartition> {
        let assignments = (0..partitions).map(|index| Assignment {
            partition: PartitionIndex(index),
            replicas: (0..3).map(|nth| BrokerId((index + nth) % 3 + 1)).collect(),
        });
        let topic = NewTopic {
            name: "t".into(),
            partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            overrides: vec![("min.insync.replicas".into(), Some("2".into()))],
        };
        let request = Request::CreateTopics { topics: vec![topic], validate_only: false };
        let (reply, _) = self.decider.decide(&self.env, request);
        let Reply::CreatedTopics(created) = reply else { panic!("{reply:?}") };
        let id = created[0].1.as_ref().expect("created").topic.id;
        self.topic.set(id);
        (0..partitions)
            .map(|p| TopicPartition { topic: id, partition: PartitionIndex(p) })
            .collect()
    }

    pub fn decide(&self, request: Request) -> Reply {
        self.decider.decide(&self.env, request).0
    }

    pub fn leader(&self, id: TopicPartition) -> Option<BrokerId> {
        self.decider.image().partition(id.topic, id.partition)?.leader
    }

    pub fn isr(&self, id: TopicPartition) -> Vec<BrokerId> {
        let image = self.decider.image();
        image.partition(id.topic, id.partition).map_or(Vec::new(), |p| p.isr.to_vec())
    }

    /// A partition where it is open.
    pub fn partition(&self, broker: BrokerId, id: TopicPartition) -> Option<Partition<SimEnv>> {
        let lives = self.lives.borrow();
        let shards = lives.get(&broker)?;
        shards[shards[0].owner(id)].0.partitions.opened(id)
    }

    pub async fn sleep(&self, millis: u64) {
        self.env.sleep_until(self.env.now().after(Duration::from_millis(millis))).await;
    }

    /// Waits for what must become true by itself.
    pub async fn until(&self, what: &str, is_true: impl Fn() -> bool) {
        let late = self.env.now().after(PATIENCE);
        while !is_true() {
            assert!(self.env.now() < late, "it did not come to this: {what}");
            self.sleep(5).await;
        }
    }

    fn show(&self, id: TopicPartition) -> String {
        let one = |broker| {
            let Some(p) = self.partition(BrokerId(broker), id) else { return "closed".into() };
            let (end, durable, high_watermark) =
                (p.log().end(), p.log().durable().value(), p.high_watermark());
            let (leads, follows) = (p.isr(), p.followed());
            let (epoch, version) = (p.epoch(), p.partition_epoch());
            format!("{end} {durable} {high_watermark} {epoch} {version:?} {leads:?} {follows:?}")
        };
        let known = self.decider.image().partition(id.topic, id.partition).cloned();
        format!("{id}: {:?}, {known:?}", [1, 2, 3].map(one))
    }

    /// Waits until every replica has everything, knows that it is committed, and is in sync.
    pub async fn settle(&self, ids: &[TopicPartition]) {
        for &id in ids {
            let settled = || {
                let all = (1..=3).map(|broker| self.partition(BrokerId(broker), id));
                let all: Option<Vec<_>> = all.collect();
                all.is_some_and(|all| {
                    let end = all[0].log().end();
                    let even = |p: &Partition<_>| p.log().end() == end && p.high_watermark() == end;
                    all.iter().all(even) && self.isr(id).len() == 3
                })
            };
            let late = self.env.now().after(PATIENCE);
            while !settled() {
                assert!(self.env.now() < late, "the replicas stay uneven: {}", self.show(id));
                self.sleep(5).await;
            }
            let first = self.bytes(BrokerId(1), id).await;
            for broker in 2..=3 {
                let other = self.bytes(BrokerId(broker), id).await;
                assert!(first == other, "{id} differs on 1 and {broker}");
            }
        }
    }

    /// What a log holds.
    pub async fn bytes(&self, broker: BrokerId, id: TopicPartition) -> Vec<u8> {
        let partition = self.partition(broker, id).expect("it is open");
        let (log, mut bytes) = (partition.log(), Vec::new());
        let (mut from, end) = (log.start(), log.end());
        while from < end {
            let limit = Limit { bytes_max: 1 << 20, bound: end, at_least_one: true };
            let chunk = log.read(from, limit).await.expect("it can be read");
            chunk.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            from = chunk.next;
        }
        bytes
    }

    pub async fn connect(&self, broker: BrokerId, port: u16) -> Link<SimEnv> {
        let address = SocketAddr::new(SimNet::address(self.machine(broker)), port);
        let link = Link::connect(&self.env, &address.to_string(), PATIENCE).await;
        link.expect("the broker listens")
    }

    /// Appends one batch to a partition by a connection to its leader: its base offset.
    pub async fn produce(
        &self,
        link: &mut Link<SimEnv>,
        id: TopicPartition,
        acks: i16,
        value: &[u8],
    ) -> Result<Offset, ErrorCode> {
        let answer = self.offer(link, id, acks, value).await;
        let response: ProduceResponse<'_> = answer.decode(13).expect("an answer");
        let partition = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
        match partition.error_code {
            ErrorCode::None => Ok(Offset::new(partition.base_offset as u64)),
            error => Err(error),
        }
    }

    /// Asks a broker to append one batch: its whole answer, in version 13.
    pub async fn offer(
        &self,
        link: &mut Link<SimEnv>,
        id: TopicPartition,
        acks: i16,
        value: &[u8],
    ) -> Answer {
        let mut builder = BatchBuilder::new(1 << 20);
        let timestamp = Timestamp(self.env.wall().0);
        let record = NewRecord { timestamp, value: Some(value), ..NewRecord::default() };
        builder.push(&record).expect("it has room");
        let batch = builder.build().expect("uncompressed");
        let records = Some(Records::Here(&batch));
        let partitions = [RequestPartition { index: id.partition.0, records }];
        let partitions = (&partitions).into();
        let topics = [RequestTopic { topic_id: id.topic, partitions, ..Default::default() }];
        let topics = (&topics).into();
        let request = ProduceRequest { acks, timeout_ms: 30_000, topics, ..Default::default() };
        call(link, &request, 13).await
    }
}

pub async fn call<'q>(
    link: &mut Link<SimEnv>,
    request: &impl WireRequest<'q>,
    version: i16,
) -> Answer {
    link.call(request, version, PATIENCE).await.expect("an answer comes")
}

fn options(machine: &Node, me: BrokerId, cluster: &ClusterId) -> Options {
    let own = [("listeners", format!("PLAINTEXT://{}:1", SimNet::address(machine)))];
    let own = own.into_iter().chain([("log.dirs", "/data".to_owned())]);
    let flags = own.map(|(name, value)| ("--test", name, value)).collect();
    let resolved = resolve(Inputs { flags, ..Inputs::default() }).expect("good settings");
    let mut options = Options::new(resolved, cluster.clone(), SHARDS);
    let replication = ReplicationConfig {
        fetch_wait_max: WAIT_MAX,
        fetch_bytes_max: 60_000,
        partition_bytes_max: 20_000,
        ..ReplicationConfig::default()
    };
    options.me = me;
    options.bounds.block_bytes_max = 16_384;
    options.limits.tail_bytes_max = 50_000;
    options.broker.replication = replication;
    let endpoint = |listener: &str, port| Endpoint {
        listener: listener.into(),
        host: SimNet::address(machine).to_string(),
        port,
    };
    options.broker.advertised = vec![endpoint("CLIENTS", CLIENTS), endpoint("PEERS", PEERS)];
    options.quorum = Some(QuorumOptions {
        voters: Vec::new(),
        votes: false,
        peer_listener: "PEERS".into(),
        directory: DirectoryId(me.0 as u128 + 1_000),
        lost: Loss::Nothing,
        heartbeat: Duration::from_millis(300),
        replication,
    });
    options
}

/// Registers a broker, gives its shards the picture, and has it unfenced.
async fn join(decider: &Rc<Decider>, first: &Shard<SimEnv>) {
    let control = {
        let (decider, shard) = (decider.clone(), first.clone());
        move |request| {
            let (decider, shard) = (decider.clone(), shard.clone());
            let decided: Pin<Box<dyn Future<Output = Option<Reply>>>> = Box::pin(async move {
                let env = shard.env();
                env.sleep_until(env.now().after(Duration::from_micros(500))).await;
                let (reply, at) = decider.decide(env, request);
                shard.0.published.reach(at.value()).await.ok()?;
                Some(reply)
            });
            decided
        }
    };
    *first.0.control.borrow_mut() = Some(Box::new(control));
    // Nothing from before the registration is shown.
    let at = register_once(decider, first);
    let (publishing, shard) = (decider.clone(), first.clone());
    first.env().spawn(Queue::Request, async move {
        let mut next = at;
        while publishing.offset.reach(next.value()).await.is_ok() {
            let image = publishing.image();
            next = image.offset().plus(1);
            let (env, offset) = (shard.env(), image.offset().value());
            env.sleep_until(env.now().after(Duration::from_micros(env.random() % 2_000))).await;
            shard.publish(image).await;
            shard.0.published.raise(offset);
        }
    });
    appear(decider, first, at).await;
}

async fn register(decider: &Decider, first: &Shard<SimEnv>) {
    let at = register_once(decider, first);
    appear(decider, first, at).await;
}

fn register_once(decider: &Decider, first: &Shard<SimEnv>) -> Offset {
    decider.runs.set(decider.runs.get() + 1);
    let quorum = first.options().quorum.as_ref().expect("set");
    let registration = Registration {
        id: first.options().me,
        endpoints: first.options().broker.advertised.clone(),
        rack: None,
        cluster: Some(first.options().cluster.clone()),
        incarnation: Incarnation(decider.runs.get()),
        directory: quorum.directory,
        features: BTreeMap::new(),
        lost: quorum.lost,
    };
    let (reply, at) = decider.decide(first.env(), Request::RegisterBroker(registration));
    assert!(matches!(reply, Reply::Registered(Ok(_))), "{reply:?}");
    at
}

async fn appear(decider: &Decider, first: &Shard<SimEnv>, at: Offset) {
    let _ = first.0.published.reach(at.value()).await;
    let me = first.options().me;
    let epoch = decider.image().broker(me).expect("registered").epoch;
    let reached = first.image().offset();
    let beat = Heartbeat { broker: me, epoch, reached, want_shutdown: false };
    let (reply, _) = decider.decide(first.env(), Request::Heartbeat(beat));
    assert!(matches!(reply, Reply::Heartbeat(Ok(pulse)) if !pulse.fenced), "{reply:?}");
}
