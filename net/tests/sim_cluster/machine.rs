//! A node of the simulated cluster: its settings, the lives of its process, and what it has lost.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::{ClusterId, DirectoryId};
use coordinator::controller::Loss;
use coordinator::group::consumer::Times;
use engine::env::sim::{End, Node, Random, SimEnv};
use engine::env::{Env, Queue};
use engine::ids::BrokerId;
use engine::wait::Watch;
use net::config::{Inputs, Resolved, resolve};
use net::env::sim::SimNet;
use net::env::{LANE_LEN_MAX, mesh};
use net::mesh::Ends;
use net::node::{run_coordinator, run_shard};
use net::shard::{Options, QuorumOptions};

use crate::Bug;
use crate::groups::{ASSIGNMENT_INTERVAL, GroupNumbers, HEARTBEAT};

/// Where clients come in …
pub const CLIENT_PORT: u16 = 9092;
/// … other brokers …
const PEER_PORT: u16 = 9093;
/// … and whoever asks a coordinator.
pub const CONTROL_PORT: u16 = 9090;
/// Shards of each broker.
pub const SHARDS: usize = 2;
/// The cluster's name.
const CLUSTER: &str = "simulated";

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Coordinator,
    Broker,
    Both,
}

impl Role {
    pub fn serves(self) -> bool {
        self != Role::Coordinator
    }

    pub fn votes(self) -> bool {
        self != Role::Broker
    }
}

/// Numbers that are the same for all nodes of a run.
#[derive(Clone, Debug)]
pub struct Numbers {
    session: Duration,
    heartbeat: Duration,
    election: Duration,
    lag_max: Duration,
    block_bytes: usize,
    checkpoint_bytes: u64,
    snapshot_bytes: u64,
    tend_every: Duration,
    /// Of groups, where there are some.
    pub groups: Option<GroupNumbers>,
    pub bug: Bug,
}

impl Numbers {
    /// Small ones, so that borders are met and elections do not take long.
    pub fn draw(random: &Random, groups: Option<GroupNumbers>, bug: Bug) -> Numbers {
        let millis = |low, high| Duration::from_millis(random.between(low, high));
        Numbers {
            session: millis(400, 900),
            heartbeat: millis(80, 150),
            election: millis(150, 300),
            lag_max: millis(300, 1_500),
            block_bytes: random.between(1, 4) as usize * 4_096,
            checkpoint_bytes: random.between(4_000, 40_000),
            snapshot_bytes: random.between(1_000, 20_000),
            tend_every: millis(50, 1_000),
            groups,
            bug,
        }
    }
}

/// A node.
pub struct Machine {
    pub node: Node,
    pub id: i32,
    pub role: Role,
    voters: Vec<(BrokerId, String)>,
    numbers: Numbers,
    /// How many data directories it has had.
    directories: Cell<u64>,
    lost: Cell<Loss>,
    /// Parts of the present life that have ended by themselves: why, if not in good order.
    ended: Rc<RefCell<Vec<Option<String>>>>,
    stop: RefCell<Watch>,
    pub lives: Cell<u64>,
}

impl Machine {
    pub fn new(node: Node, id: i32, role: Role, numbers: Numbers) -> Machine {
        Machine {
            node,
            id,
            role,
            voters: Vec::new(),
            numbers,
            directories: Cell::new(1),
            lost: Cell::new(Loss::Everything),
            ended: Rc::default(),
            stop: RefCell::new(Watch::new(0)),
            lives: Cell::new(0),
        }
    }

    /// Tells it who votes.
    pub fn meet(&mut self, voters: Vec<(BrokerId, String)>) {
        self.voters = voters;
    }

    pub fn name(&self) -> String {
        match self.role {
            Role::Coordinator => format!("coord-{}", self.id),
            Role::Broker => format!("broker-{}", self.id),
            Role::Both => format!("node-{}", self.id),
        }
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(SimNet::address(&self.node), port)
    }

    /// Its data directory.
    pub fn data(&self) -> String {
        format!("/data-{}", self.directories.get())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let voters: Vec<_> =
            self.voters.iter().map(|(id, address)| format!("{}@{address}", id.0)).collect();
        let mut listeners = Vec::new();
        if self.role.serves() {
            listeners.push(format!("PLAINTEXT://{}", self.address(CLIENT_PORT)));
            listeners.push(format!("REPLICATION://{}", self.address(PEER_PORT)));
        }
        if self.role.votes() {
            listeners.push(format!("CONTROLLER://{}", self.address(CONTROL_PORT)));
        }
        let roles = match self.role {
            Role::Coordinator => "controller",
            Role::Broker => "broker",
            Role::Both => "broker,controller",
        };
        let mut settings = vec![
            ("node.id", self.id.to_string()),
            ("process.roles", roles.to_owned()),
            ("cluster.id", CLUSTER.to_owned()),
            ("controller.quorum.voters", voters.join(",")),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("listeners", listeners.join(",")),
            ("default.replication.factor", "3".to_owned()),
            ("min.insync.replicas", "2".to_owned()),
            ("log.dirs", self.data()),
        ];
        if self.role.serves() {
            settings.push(("inter.broker.listener.name", "REPLICATION".to_owned()));
        }
        settings
    }

    fn resolved(&self) -> Resolved {
        let flags = self.settings().into_iter();
        let flags = flags.map(|(name, value)| ("--test", name, value)).collect();
        resolve(Inputs { flags, ..Inputs::default() }).expect("a good configuration")
    }

    /// What its process goes by.
    pub fn options(&self) -> Options {
        let numbers = &self.numbers;
        let mut options = Options::new(self.resolved(), ClusterId::new(CLUSTER), SHARDS);
        options.bounds.block_bytes_max = numbers.block_bytes;
        options.bounds.unsynced_bytes_max = 40_000;
        options.bounds.checkpoint_bytes = numbers.checkpoint_bytes;
        options.bounds.zeroed_bytes_max = 8_192;
        options.limits.tail_bytes_max = 30_000;
        options.tend_every = numbers.tend_every;
        let broker = &mut options.broker;
        broker.heartbeat = numbers.heartbeat;
        broker.election_timeout = numbers.election;
        broker.topics.session_timeout = Some(numbers.session);
        broker.topics.snapshot_bytes = numbers.snapshot_bytes;
        broker.replication.lag_max = numbers.lag_max;
        if let Some(groups) = &numbers.groups {
            broker.offsets_topic.partitions = groups.partitions;
            broker.groups.session_min = Duration::ZERO;
            broker.groups.initial_rebalance_delay = groups.delay;
            broker.groups.consumer.times.usual = Times {
                session: groups.session,
                heartbeat_interval: HEARTBEAT,
                assignment_interval: ASSIGNMENT_INTERVAL,
            };
        }
        match numbers.bug {
            Bug::None => {}
            Bug::Groups(mutant) => broker.groups.mutant = Some(mutant),
            Bug::Consumers(mutant) => broker.groups.consumer.mutant = Some(mutant),
            Bug::Runtime(mutant) => broker.groups.runtime_mutant = Some(mutant),
            Bug::Log(mutant) => options.bounds.mutant = Some(mutant),
            Bug::Replication(mutant) => broker.replication.mutant = Some(mutant),
            Bug::Controller(mutant) => broker.topics.mutant = Some(mutant),
        }
        options.quorum = Some(QuorumOptions {
            voters: self.voters.clone(),
            votes: self.role.votes(),
            peer_listener: "REPLICATION".to_owned(),
            directory: DirectoryId::random([self.id as u64, self.directories.get()]),
            lost: self.lost.get(),
            heartbeat: numbers.heartbeat,
            replication: broker.replication,
        });
        options
    }

    /// One life of its process, unless it runs.
    pub fn begin(&self, net: &SimNet) -> bool {
        if self.node.is_up() {
            return false;
        }
        self.lives.set(self.lives.get() + 1);
        // What it says of itself until it ends: of the next life, the process was killed.
        self.ended.replace(Vec::new());
        self.stop.replace(Watch::new(0));
        let options = Arc::new(self.options());
        self.lost.set(Loss::Nothing);
        let bind = |port, shards| net.bind(&self.node, port, shards).expect("the port is free");
        if !self.role.serves() {
            let door = bind(CONTROL_PORT, 1).remove(0);
            let (env, stop) = (self.node.env(), self.stopped());
            let ended = self.ended.clone();
            env.clone().spawn(Queue::Request, async move {
                make_durable(&env, &options.data).await;
                let end = run_coordinator(env, options, door, || {}, stop).await;
                ended.borrow_mut().push(end.err().map(|error| error.to_string()));
            });
            return true;
        }
        let mut doors: Vec<Vec<_>> = bind(CLIENT_PORT, SHARDS)
            .into_iter()
            .zip(bind(PEER_PORT, SHARDS))
            .map(|(client, peer)| {
                vec![("PLAINTEXT".to_owned(), client), ("REPLICATION".to_owned(), peer)]
            })
            .collect();
        if self.role.votes() {
            doors[0].push(("CONTROLLER".to_owned(), bind(CONTROL_PORT, 1).remove(0)));
        }
        let calls = mesh::<SimEnv, _>(SHARDS, LANE_LEN_MAX);
        let answers = mesh::<SimEnv, _>(SHARDS, LANE_LEN_MAX);
        for (index, ((calls, answers), doors)) in
            calls.into_iter().zip(answers).zip(doors).enumerate()
        {
            let (env, options, stop) = (self.node.env(), options.clone(), self.stopped());
            let (ends, ended) = (Ends { calls, answers }, self.ended.clone());
            env.clone().spawn(Queue::Request, async move {
                let at = (index, SHARDS);
                make_durable(&env, &options.data).await;
                let end = run_shard(env, at, options, ends, doors, || {}, stop).await;
                let end = end.err().map(|error| format!("shard {index}: {error}"));
                ended.borrow_mut().push(end);
            });
        }
        true
    }

    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let stop = self.stop.borrow().clone();
        async move {
            let _ = stop.reach(1).await;
        }
    }

    /// Tells its process to stop in good order.
    pub fn stop(&self) {
        self.stop.borrow().raise(1);
    }

    /// Ends its process.
    pub fn end(&self, end: End) {
        self.node.end(end);
        if end == End::PowerCut && self.lost.get() == Loss::Nothing {
            self.lost.set(Loss::Unsynced);
        }
    }

    /// Its next life begins with nothing.
    pub fn empty(&self) {
        self.directories.set(self.directories.get() + 1);
        self.lost.set(Loss::Everything);
    }

    /// Why it has ended by itself, if it has; an empty text if it was told to.
    pub fn over(&self) -> Option<String> {
        if !self.node.is_up() {
            return None;
        }
        let ended = self.ended.borrow();
        let failed: Vec<_> = ended.iter().flatten().cloned().collect();
        let parts = if self.role.serves() { SHARDS } else { 1 };
        match failed.is_empty() {
            true if ended.len() == parts => Some(String::new()),
            true => None,
            false => Some(failed.join(", ")),
        }
    }
}

/// What the process does before its shards start: the directory is there, for good.
async fn make_durable(env: &SimEnv, data: &Path) {
    // A broken device shows itself again to whoever needs it next.
    let _ = env.create_dir(data).await;
    let _ = env.sync_dir(Path::new("/")).await;
}
