//! The deterministic environment: whole machines in one thread, decided by one seed.
//!
//! ```
//! use engine::env::sim::{End, Sim};
//! use engine::env::{Env, File, Open};
//! use std::path::Path;
//!
//! let sim = Sim::new(7);
//! let node = sim.node();
//! let env = node.env();
//! node.run(async {
//!     let file = env.open(Path::new("/a"), Open::Create).await.unwrap();
//!     file.truncate(10).await.unwrap();
//! });
//! node.end(End::PowerCut); // neither the name nor the length was synced: both may be gone
//! let env = node.env(); // the next life of the same machine
//! assert!(node.run(env.list(Path::new("/"))).unwrap().unwrap().len() <= 1);
//! ```
//!
//! - [`Sim`] owns the run: the seed, virtual time, all tasks. What it ends, ends at its drop.
//! - [`Node`] is a machine: a disk that stays, a process that can be ended at any step.
//! - [`SimEnv`] is what code under test sees: [`Env`] for one shard of one life of one node.
//! - [`SimDisk`] is what tests see of the disk: faults, steps, cuts.
//!
//! Scheduling, disk, network, programs and test loads draw from streams of their own ([`Stream`]),
//! so that a change of one does not shift the others.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use self::disk::{Done, Op};
use self::executor::Group;
use self::file::Doing;
use self::node::nothing;
use super::{Entry, Env, Open, Queue, Space};
use crate::time::{Instant, Timestamp};

mod disk;
pub mod executor;
mod file;
mod node;
pub mod random;

pub use self::disk::{Cut, End, Fault, OpKind, Side};
pub use self::executor::Executor;
pub use self::file::{SimBlock, SimFile};
pub use self::node::{Node, SimDisk};
pub use self::random::{Random, Stream};

/// What the wall clocks show at virtual time zero: a moment in 2024, in Kafka's milliseconds.
const WALL_START: i64 = 1_717_171_717_171;

/// One run of the simulator. Dropping it drops every task of every node.
pub struct Sim {
    executor: Executor,
    /// The group of what belongs to no node: tests, clients, whoever pulls plugs.
    world: Group,
}

impl Sim {
    /// A world without nodes at time zero.
    pub fn new(seed: u64) -> Sim {
        let executor = Executor::new(seed);
        let world = executor.group();
        Sim { executor, world }
    }

    /// A new machine with an empty disk. Nodes draw from streams by their number, so that one more
    /// of them does not change the luck of the others' disks.
    pub fn node(&self) -> Node {
        Node::add(&self.executor)
    }

    /// The executor, for other simulated things (the network) and for its trace hash.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The group of tasks that belong to no node.
    pub fn world(&self) -> Group {
        self.world
    }

    /// A random stream for the test's own load.
    pub fn workload(&self, index: u64) -> Random {
        Random::new(self.executor.seed(), Stream::Workload, index)
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.executor.now()
    }

    /// Waits for virtual time to pass, outside every node.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        self.executor.sleep_until(self.world, self.now().after(duration))
    }

    /// Starts a task that belongs to no node.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(self.world, task);
    }

    /// Runs everything until `future` is ready, as a task that belongs to no node. Panics if
    /// nothing can ever run again, and on a livelock.
    pub fn run_until<T>(&self, future: impl Future<Output = T>) -> T {
        self.executor.run_in(self.world, future).expect("the world is not killed")
    }

    /// Runs everything for `duration` of virtual time.
    pub fn run_for(&self, duration: Duration) {
        self.executor.run_for(duration);
    }

    /// The same for the same seed and program: over every poll, event and outcome so far.
    pub fn trace_hash(&self) -> u64 {
        self.executor.trace_hash()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "in simulation seed {} at {:?} after {} polls",
                self.executor.seed(),
                self.now(),
                self.executor.polls(),
            );
        }
        self.executor.shut_down();
    }
}

/// [`Env`] for one shard of one life of one [`Node`].
///
/// When that life has ended, nothing asked of it happens any more and its futures stay pending.
#[derive(Clone)]
pub struct SimEnv(Rc<Shard>);

struct Shard {
    executor: Executor,
    node: Node,
    life: Group,
    random: Random,
}

impl SimEnv {
    fn new(executor: Executor, node: Node, life: Group, random: Random) -> SimEnv {
        SimEnv(Rc::new(Shard { executor, node, life, random }))
    }

    /// The machine it runs on.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The life it belongs to.
    pub fn life(&self) -> Group {
        self.0.life
    }

    /// The executor that runs it.
    pub fn executor(&self) -> &Executor {
        &self.0.executor
    }

    fn start(&self, op: Op) -> Doing {
        Doing::new(self.0.node.clone(), self.0.life, op)
    }
}

impl Env for SimEnv {
    type File = SimFile;

    fn now(&self) -> Instant {
        self.0.executor.now()
    }

    fn wall(&self) -> Timestamp {
        let millis = (self.now().nanos() / 1_000_000) as i64;
        Timestamp(WALL_START + millis + self.0.node.wall_skew())
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> {
        self.0.executor.sleep_until(self.0.life, at)
    }

    /// The queue does not matter here: any order that shares could lead to is drawn anyway.
    fn spawn(&self, _queue: Queue, task: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(self.0.life, task);
    }

    /// No time is measured: the seed decides whether the budget is used up.
    async fn turn(&self) {
        match self.0.executor.draw(4) {
            0 => self.sleep_until(self.now().after(Duration::from_micros(1))).await,
            1 => self.0.executor.pass().await,
            _ => {}
        }
    }

    fn random(&self) -> u64 {
        self.0.random.next()
    }

    fn block(&self, len: usize) -> SimBlock {
        SimBlock::new(len)
    }

    async fn open(&self, path: &Path, how: Open) -> io::Result<SimFile> {
        let opening = self.start(Op::Open { path: path.to_owned(), how });
        let slot = opening.slot();
        opening.await?;
        Ok(slot.take_opened().expect("an open that succeeded brings a file"))
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for part in path.components() {
            at.push(part);
            if at.file_name().is_none() {
                continue;
            }
            match self.start(Op::CreateDir { path: at.clone() }).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => nothing(done)?,
            }
        }
        // A file may have been in the way.
        self.list(path).await.map(|_| ())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        match self.start(Op::List { path: path.to_owned() }).await? {
            Done::Entries(entries) => Ok(entries),
            other => unreachable!("a listing brought {other:?}"),
        }
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        nothing(self.start(Op::Rename { from: from.to_owned(), to: to.to_owned() }).await)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        nothing(self.start(Op::Remove { path: path.to_owned() }).await)
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        nothing(self.start(Op::RemoveDir { path: path.to_owned() }).await)
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> {
        // What it covers is decided here, by the call.
        let upto = self.0.node.next_name_change();
        let sync = self.start(Op::SyncDir { path: path.to_owned(), upto });
        async move { nothing(sync.await) }
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        // Takes the time of a look at the directory, and fails like one.
        self.list(path).await?;
        Ok(self.0.node.disk().space())
    }
}

#[cfg(test)]
mod tests;
