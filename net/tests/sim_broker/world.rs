//! The simulated world: one broker of some shards on a machine of its own, clients on others, and
//! whatever goes wrong between and below them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::ClusterId;
use engine::env::sim::{End, Fault, Node, OpKind, Random, Sim, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::TopicId;
use engine::log::Mutant;
use engine::wait::Watch;
use futures_lite::future;
use net::config::{Inputs, Resolved, resolve};
use net::env::sim::SimNet;
use net::env::{LANE_LEN_MAX, mesh};
use net::mesh::Ends;
use net::node::run_shard;
use net::shard::Options;
use net::wire::ErrorCode;
use net::wire::create_topics::{
    CreateTopicsRequest, CreateTopicsResponse, RequestConfig, RequestTopic,
};

use crate::consumer::{consume, read_whole};
use crate::line::{Client, Come, gone};
use crate::oracle::{Broken, Invariant, Kept, Oracle, Place};
use crate::producer::{Task, produce};

/// A topic of the run.
pub struct Topic {
    pub name: &'static str,
    pub partitions: u32,
    flush_messages: &'static str,
}

/// The two classes of durability.
pub const TOPICS: [Topic; 2] = [
    Topic { name: "synced", partitions: 3, flush_messages: "1" },
    Topic { name: "written", partitions: 2, flush_messages: "1000" },
];

/// Their ids.
pub type Topics = [TopicId; TOPICS.len()];

const PORT: u16 = 9092;
/// Producers: the first half of them idempotent.
const PRODUCERS: u32 = 4;
const CONSUMERS: u64 = 2;
/// Within so long of virtual time everything is acknowledged when all is well again.
const HEALTHY_MAX: Duration = Duration::from_secs(20);

/// What a run was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub trace_hash: u64,
    pub events_hash: u64,
    pub acked: u64,
    pub read: u64,
    pub lives: u64,
    pub millis: u64,
}

/// A run.
pub struct World {
    machine: Node,
    clients: Vec<Node>,
    net: SimNet,
    options: Arc<Options>,
    shards: usize,
    random: Random,
    oracle: Rc<Oracle>,
    /// Shards of the present life that have ended by themselves, and why.
    ended: Rc<RefCell<Vec<String>>>,
    lives: Cell<u64>,
    sim: Sim,
}

/// Runs a seed from its beginning to its verdict.
pub fn run(seed: u64, mutant: Option<Mutant>, is_shown: bool) -> Kept<Summary> {
    let world = World::new(seed, mutant, is_shown);
    world.begin();
    // Both borrow the world: the supervisor ends with the story.
    let kept = world.sim.run_until(future::or(world.play(), world.supervise()));
    let verdict = world.oracle.verdict().and(kept);
    world.event(
        "verdict",
        format_args!(
            "{}",
            match &verdict {
                Ok(()) => "kept".to_owned(),
                Err(broken) => broken.to_string(),
            }
        ),
    );
    verdict?;
    Ok(Summary {
        trace_hash: world.sim.trace_hash(),
        events_hash: world.oracle.events_hash(),
        acked: world.oracle.acked.get(),
        read: world.oracle.read.get(),
        lives: world.lives.get(),
        millis: world.sim.now().nanos() / 1_000_000,
    })
}

fn configuration(address: SocketAddr) -> Resolved {
    let own = [("listeners", format!("PLAINTEXT://{address}")), ("log.dirs", "/data".to_owned())];
    let flags = own.map(|(name, value)| ("--test", name, value)).into_iter().collect();
    resolve(Inputs { flags, ..Inputs::default() }).expect("a good configuration")
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, is_shown: bool) -> World {
        let sim = Sim::new(seed);
        let machine = sim.node();
        let random = sim.workload(0);
        let address = SocketAddr::new(SimNet::address(&machine), PORT);
        let shards = random.between(1, 3) as usize;
        let cluster = ClusterId::random([seed, 1]);
        let mut options = Options::new(configuration(address), cluster, shards);
        // Small, so that every border is met.
        options.bounds.block_bytes_max = random.between(1, 4) as usize * 4_096;
        options.bounds.unsynced_bytes_max = random.between(4_000, 40_000);
        options.bounds.checkpoint_bytes = random.between(4_000, 40_000);
        options.bounds.zeroed_bytes_max = 8_192;
        options.bounds.mutant = mutant;
        options.limits.tail_bytes_max = random.below(60_000) as usize;
        options.tend_every = Duration::from_millis(random.between(50, 2_000));
        options.requests_in_flight_max = random.between(2, 6) as usize;
        options.fetch_sessions_max = random.between(1, 4) as usize;
        let clients = (0..u64::from(PRODUCERS) + CONSUMERS + 1).map(|_| sim.node()).collect();
        World {
            machine,
            clients,
            net: SimNet::of(sim.executor()),
            options: Arc::new(options),
            shards,
            random,
            oracle: Rc::new(Oracle::new(is_shown)),
            ended: Rc::default(),
            lives: Cell::new(0),
            sim,
        }
    }

    fn event(&self, who: &str, what: std::fmt::Arguments<'_>) {
        self.oracle.event(self.sim.now(), who, what);
    }

    fn client(&self, number: usize, name: &str) -> Client {
        Client {
            env: self.clients[number].env(),
            broker: SocketAddr::new(SimNet::address(&self.machine), PORT),
            name: name.into(),
            oracle: self.oracle.clone(),
            random: Rc::new(self.sim.workload(1 + number as u64)),
        }
    }

    /// One life of the broker's process, unless it runs.
    fn begin(&self) {
        if self.machine.is_up() {
            return;
        }
        self.lives.set(self.lives.get() + 1);
        self.ended.borrow_mut().clear();
        let shards = self.shards;
        let doors = self.net.bind(&self.machine, PORT, shards).expect("the port is free");
        let calls = mesh::<SimEnv, _>(shards, LANE_LEN_MAX);
        let answers = mesh::<SimEnv, _>(shards, LANE_LEN_MAX);
        self.event("broker", format_args!("life {} begins, {shards} shards", self.lives.get()));
        for (index, ((calls, answers), door)) in
            calls.into_iter().zip(answers).zip(doors).enumerate()
        {
            let (env, options) = (self.machine.env(), self.options.clone());
            let doors = vec![("PLAINTEXT".to_owned(), door)];
            let ends = Ends { calls, answers };
            let ended = self.ended.clone();
            env.clone().spawn(Queue::Request, async move {
                let stop = std::future::pending();
                let at = (index, shards);
                let end = run_shard(env, at, options, ends, doors, || {}, stop).await;
                ended.borrow_mut().push(format!("shard {index}: {end:?}"));
            });
        }
    }

    /// The whole story.
    async fn play(&self) -> Kept {
        let topics = self.prepare().await;
        let (produced, calm, finish) = (Watch::new(0), Watch::new(0), Watch::new(0));
        for number in 0..PRODUCERS {
            let is_idempotent = number < PRODUCERS / 2;
            let name = format!("{}-{number}", if is_idempotent { "idempotent" } else { "plain" });
            let client = self.client(number as usize, &name);
            let task = Task { number, is_idempotent, calm: calm.clone(), topics };
            let produced = produced.clone();
            client.env.clone().spawn(Queue::Request, async move {
                produce(client, task).await;
                produced.raise(produced.value() + 1);
            });
        }
        let consumed = Watch::new(0);
        for number in 0..CONSUMERS {
            let at = PRODUCERS as usize + number as usize;
            let client = self.client(at, &format!("consumer-{number}"));
            let (finish, consumed) = (finish.clone(), consumed.clone());
            client.env.clone().spawn(Queue::Request, async move {
                consume(client, topics, finish).await;
                consumed.raise(consumed.value() + 1);
            });
        }
        self.trouble().await;
        self.heal();
        calm.raise(1);
        let all = async { produced.reach(u64::from(PRODUCERS)).await.is_ok() };
        let late = async {
            self.sim.sleep(HEALTHY_MAX).await;
            false
        };
        if !future::or(all, late).await {
            let how = format!("{} of {PRODUCERS} producers are done", produced.value());
            return Err(Broken(Invariant::EverythingIsAcknowledged, how));
        }
        self.sim.sleep(Duration::from_millis(300)).await;
        finish.raise(1);
        let ended = async { consumed.reach(CONSUMERS).await.is_ok() };
        if !future::or(ended, async {
            self.sim.sleep(HEALTHY_MAX).await;
            false
        })
        .await
        {
            let how = "consumers are not answered".to_owned();
            return Err(Broken(Invariant::EverythingIsAcknowledged, how));
        }
        self.compare().await
    }

    /// Compares every log with what was promised.
    async fn compare(&self) -> Kept {
        let client = self.client(self.clients.len() - 1, "reader");
        let until = self.sim.now().after(HEALTHY_MAX);
        for (topic, of) in TOPICS.iter().enumerate() {
            for partition in 0..of.partitions as i32 {
                let place = Place { topic, partition };
                let log = loop {
                    if self.sim.now() > until {
                        let how = format!("{place:?} cannot be read");
                        return Err(Broken(Invariant::EverythingIsAcknowledged, how));
                    }
                    match read_whole(&client, place).await {
                        Ok(log) => break log,
                        Err(stop) if client.ended(&stop) => client.pause().await,
                        Err(_) => return self.oracle.verdict(),
                    }
                };
                let count = log.records.len();
                self.event("reader", format_args!("{}-{partition} has {count}", of.name));
                self.oracle.check_log(place, &log)?;
            }
        }
        Ok(())
    }

    /// Creates the topics, while nothing goes wrong yet.
    async fn prepare(&self) -> Topics {
        let client = self.client(self.clients.len() - 1, "admin");
        let mut ids = [TopicId::ZERO; TOPICS.len()];
        for (topic, id) in TOPICS.iter().zip(&mut ids) {
            while *id == TopicId::ZERO {
                match self.create(&client, topic).await {
                    Ok(created) => *id = created,
                    Err(stop) => assert!(client.ended(&stop), "nothing goes wrong yet"),
                }
            }
        }
        ids
    }

    async fn create(&self, client: &Client, topic: &Topic) -> Come<TopicId> {
        let line = client.connect().await;
        let segment_ms = self.random.between(100, 3_000).to_string();
        let configs = [("flush.messages", topic.flush_messages), ("segment.ms", &segment_ms)];
        let configs = configs.map(|(name, value)| RequestConfig { name, value: Some(value) });
        let wanted = [RequestTopic {
            name: topic.name,
            num_partitions: topic.partitions as i32,
            replication_factor: -1,
            configs: (&configs).into(),
            ..Default::default()
        }];
        let message = CreateTopicsRequest { topics: (&wanted).into(), ..Default::default() };
        let answer = line.call(&message, 7).await?;
        let response: CreateTopicsResponse<'_> = answer.read()?;
        match response.topics.first() {
            Some(created) if created.error_code == ErrorCode::None => Ok(created.topic_id),
            other => gone(format!("not created: {:?}", other.map(|topic| topic.error_code))),
        }
    }

    /// Starts the broker again when a shard has ended by itself, as a supervisor would; for ever.
    ///
    /// After a failed sync the system may still show what the device does not have, and the next
    /// sync says nothing of it. So a machine whose device has failed is started anew: what recovery
    /// finds is then on the device. (Where only the process is started again, recovery syncs what
    /// it reads, believes that, and a later power cut takes it; seed 31 shows it with `End::Kill`.)
    async fn supervise(&self) -> Kept {
        loop {
            self.sim.sleep(Duration::from_millis(5)).await;
            let why = self.ended.borrow().join(", ");
            if why.is_empty() || !self.machine.is_up() {
                continue;
            }
            self.event("broker", format_args!("ended by itself: {why}"));
            self.end(End::PowerCut, true);
            self.pause(20, 300).await;
            self.machine.disk().heal();
            self.begin();
        }
    }

    fn end(&self, end: End, has_loss: bool) {
        self.machine.end(end);
        if has_loss {
            self.oracle.on_loss();
        }
    }

    async fn pause(&self, low: u64, high: u64) {
        self.sim.sleep(Duration::from_millis(self.random.between(low, high))).await;
    }

    /// What goes wrong, one thing after the other, sometimes the next before the last is over.
    async fn trouble(&self) {
        for _ in 0..self.random.between(4, 12) {
            self.pause(20, 500).await;
            match self.random.below(14) {
                0..2 => self.cut_connections(),
                2 => self.block(self.random.below(3)).await,
                3 => self.slow_link(),
                4..6 => self.restart(End::Kill).await,
                6..9 => self.restart(End::PowerCut).await,
                9 => self.fail_disk().await,
                10 => self.fill_disk().await,
                11 => self.slow_disk().await,
                12 => self.hang_disk().await,
                _ => self.skew_clock(),
            }
        }
    }

    /// Nothing is wrong any more.
    fn heal(&self) {
        self.event("world", format_args!("all is well again"));
        self.net.heal();
        for client in &self.clients {
            let (low, high) = (Duration::from_micros(60), Duration::from_micros(600));
            for (from, to) in [(client, &self.machine), (&self.machine, client)] {
                self.net.set_latency(from, to, low, high);
                self.net.set_rate(from, to, 1_250_000_000);
            }
        }
        let disk = self.machine.disk();
        disk.heal();
        disk.set_capacity(None);
        disk.set_slow(1);
        disk.set_hang(false);
        self.begin();
    }

    fn some_client(&self) -> &Node {
        &self.clients[self.random.below(self.clients.len() as u64 - 1) as usize]
    }

    fn cut_connections(&self) {
        let client = self.some_client();
        let count = self.net.reset(client, &self.machine);
        self.event("net", format_args!("{count} connections of node {} cut", client.number()));
    }

    /// Blocks the way to the broker, from it, or both.
    async fn block(&self, ways: u64) {
        let client = self.some_client();
        let name = ["to the broker", "from the broker", "both ways"][ways as usize];
        self.event("net", format_args!("node {} is blocked, {name}", client.number()));
        if ways != 1 {
            self.net.block(client, &self.machine);
        }
        if ways != 0 {
            self.net.block(&self.machine, client);
        }
        self.pause(50, 2_500).await;
        self.net.heal();
        self.event("net", format_args!("node {} is reachable again", client.number()));
    }

    fn slow_link(&self) {
        let client = self.some_client();
        let low = Duration::from_millis(self.random.between(1, 30));
        let rate = self.random.between(20_000, 2_000_000);
        self.event("net", format_args!("node {}: {low:?}, {rate} B/s", client.number()));
        for (from, to) in [(client, &self.machine), (&self.machine, client)] {
            self.net.set_latency(from, to, low, low * 3);
            self.net.set_rate(from, to, rate);
        }
    }

    async fn restart(&self, end: End) {
        self.event("broker", format_args!("ended by {end:?}"));
        self.end(end, end == End::PowerCut);
        if self.random.chance(1, 2) {
            self.pause(1, 400).await;
        }
        self.begin();
    }

    /// The device fails once or twice, if it comes to that; then it is another one.
    async fn fail_disk(&self) {
        let kind = [OpKind::Write, OpKind::Sync][self.random.below(2) as usize];
        let skip = self.random.below(20);
        self.event("disk", format_args!("EIO: {kind:?} after {skip}"));
        self.machine.disk().fail(Fault::eio(kind).under("/data").skip(skip).times(1));
        self.pause(50, 800).await;
        self.machine.disk().heal();
    }

    async fn fill_disk(&self) {
        let disk = self.machine.disk();
        let left = self.random.below(8) * 4_096;
        self.event("disk", format_args!("full but for {left} bytes"));
        disk.set_capacity(Some(disk.used() + left));
        self.pause(100, 1_500).await;
        disk.set_capacity(None);
        self.event("disk", format_args!("has room again"));
    }

    async fn slow_disk(&self) {
        let factor = self.random.between(2, 100) as u32;
        self.event("disk", format_args!("{factor} times slower"));
        self.machine.disk().set_slow(factor);
        self.pause(50, 1_000).await;
        self.machine.disk().set_slow(1);
    }

    async fn hang_disk(&self) {
        self.event("disk", format_args!("hangs"));
        self.machine.disk().set_hang(true);
        self.pause(10, 1_000).await;
        self.machine.disk().set_hang(false);
        self.event("disk", format_args!("goes on"));
    }

    fn skew_clock(&self) {
        let millis = self.random.below(20_000) as i64 - 10_000;
        self.event("clock", format_args!("{millis} ms off"));
        self.machine.set_wall_skew(millis);
    }
}
