//! The metadata quorum: an odd number of coordinators that agree on one log.
//!
//! Consensus is openraft's; this folder is its house: the environment it runs in ([`runtime`]), the
//! device under it (`log`, `facts`, `snapshots`), the way to the others as data ([`outbox`],
//! [`Quorum::receive`]), and the words in which everybody else speaks of it. It knows nothing of
//! what the records say; a [`Memory`] does.
//!
//! ```text
//! DIR/facts.a, facts.b                 who this is, how it voted
//! DIR/log/…                            entries
//! DIR/snapshot.00000000000000001234    every entry below 1234; the two newest are kept
//! ```
//! Invariants, proved by `tests/quorum.rs` on the simulator:
//! - OneLeaderPerTerm: a vote is durable before it is told.
//! - CommittedIsNeverLost: an entry is acknowledged when it is durable, never earlier.
//! - PrefixesAgree: what two nodes applied is the same as far as both have come.
//! - A voter is its id and its directory; one without its past is not let in again under its name.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::env::{Env, Queue};
use engine::ids::{BrokerId, Offset};
use engine::wait::Watch;
use openraft::async_runtime::{Mutex, WatchReceiver};
use openraft::impls::ProgressResponder;
use openraft::{ServerState, SnapshotPolicy, StepDownPolicy};

use facts::{Facts, FactsError, Owner};
use log::{Entries, LogError};
use memory::{Applier, State, apply_to, photograph};
use network::Lines;
use outbox::Outbox;
use peers::Peers;
use receive::Desk;
use runtime::{Lock, World};
use snapshots::{Snapshots, end_of};
use storage::Storage;
use types::{CommittedLeader, Decided, Types, Voter, term_of};

mod facts;
pub(crate) mod layout;
mod log;
mod members;
mod memory;
mod mutant;
mod network;
pub mod outbox;
mod peers;
mod receive;
pub mod runtime;
pub mod since;
mod snapshots;
mod status;
mod storage;
pub mod types;
mod wire;

pub use facts::FactsError as IdentityError;
pub use layout::SealError;
pub use log::LogError as EntriesError;
pub use members::ChangeError;
pub use memory::{Memory, Picture};
pub use mutant::Mutant;
pub use status::{Progress, Status};
pub use wire::Refusal;

/// Most voters: more cost more than they protect from.
pub const VOTERS_MAX: usize = 7;

/// Entries of one message to another voter, at most.
const MESSAGE_ENTRIES_MAX: u64 = 256;

type Raft<E, S> = openraft::Raft<Types, Applier<E, S>>;
type Metrics = openraft::type_config::alias::WatchReceiverOf<Types, openraft::RaftMetrics<Types>>;

/// How a voter is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its node id (`node.id`).
    pub me: BrokerId,
    /// The cluster's name, where the operator gave one: another cluster's voters and directories
    /// are refused.
    pub cluster: Option<String>,
    /// With whom to begin a new quorum (`controller.quorum.voters`): every voter's id and where it
    /// listens, this node among them; read only when the directory is new. Empty: this node waits
    /// until it is added to a quorum.
    pub voters: Vec<(BrokerId, String)>,
    /// How long the leader may be silent before others believe that it is gone, at least; up to a
    /// third longer (`controller.quorum.election.timeout.ms`). Before that they keep the lease that
    /// it has with them, which is as long as that at the most.
    pub election_timeout: Duration,
    /// How often the leader says that it is there.
    pub heartbeat: Duration,
    /// Bytes of records after which a snapshot is taken
    /// (`metadata.log.max.record.bytes.between.snapshots`).
    pub snapshot_bytes: u64,
    /// A bug on purpose, for the proof that tests see it.
    pub mutant: Option<Mutant>,
}

impl Options {
    /// A quorum of one.
    pub fn alone(me: BrokerId) -> Options {
        Options {
            me,
            cluster: None,
            voters: vec![(me, String::new())],
            election_timeout: Duration::from_millis(300),
            heartbeat: Duration::from_millis(60),
            snapshot_bytes: 20 << 20,
            mutant: None,
        }
    }
}

/// Why the quorum cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A number of voters that nobody should run.
    #[error("{count} voters: {why}")]
    Voters {
        /// How many.
        count: usize,
        /// What is wrong with that.
        why: &'static str,
    },
    /// This node is not among the voters.
    #[error("node {me} is not among the voters of its quorum")]
    NotAVoter {
        /// This node.
        me: BrokerId,
    },
    /// The device said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The directory is another's, or not whole.
    #[error(transparent)]
    Identity(#[from] FactsError),
    /// The entries cannot be used.
    #[error(transparent)]
    Entries(#[from] LogError),
    /// Snapshots and log together do not reach from the beginning to the end.
    #[error("entries from {from} on are missing: the log begins at {first}")]
    Gap {
        /// Where the newest whole snapshot ends.
        from: u64,
        /// Where the log begins.
        first: u64,
    },
    /// openraft does not begin.
    #[error("the quorum cannot begin: {0}")]
    Raft(String),
}

/// How a start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The end of the snapshot that it began with; `ZERO` without one.
    pub snapshot: Offset,
    /// Bytes of records in the log on top of it.
    pub replayed_bytes: u64,
    /// Nothing was there before.
    pub created: bool,
}

/// Why something was not decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another leads, or nobody does.
    #[error("this coordinator does not lead")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<BrokerId>,
    },
    /// The device is full; later attempts may succeed.
    #[error("no space left on the device")]
    NoSpace,
    /// The quorum has ended on this node.
    #[error("the quorum has ended here: {0}")]
    Ended(String),
}

/// One coordinator of a quorum. Cloning shares it; it lives on one shard.
pub struct Quorum<E: Env, S: Memory>(Rc<Inner<E, S>>);

impl<E: Env, S: Memory> Clone for Quorum<E, S> {
    fn clone(&self) -> Self {
        Quorum(self.0.clone())
    }
}

struct Inner<E: Env, S: Memory> {
    env: E,
    options: Options,
    world: World,
    raft: Raft<E, S>,
    desk: Desk<E, S>,
    log: Entries<E>,
    facts: Facts<E>,
    peers: Peers<E>,
    snapshots: Snapshots<E>,
    memory: Rc<S>,
    state: Rc<State>,
    outbox: Outbox,
    /// Who appends entries of one's own will; one at a time.
    turn: Lock<()>,
    /// Closed when this ends.
    ended: Watch,
    /// Bytes of records that were there when the last snapshot was begun.
    photographed: Cell<u64>,
}

/// What a directory holds.
struct Found<E: Env> {
    facts: Facts<E>,
    snapshots: Snapshots<E>,
    log: Entries<E>,
    state: Rc<State>,
    opened: Opened,
}

impl<E: Env> Found<E> {
    /// Looks, and makes what is not there.
    async fn look(
        env: &E,
        dir: &Path,
        options: &Options,
        world: &World,
    ) -> Result<Found<E>, OpenError> {
        let (me, mutant) = (options.me, options.mutant);
        env.create_dir(dir).await?;
        let owner = Owner { me, cluster: options.cluster.as_deref() };
        let (facts, created) = Facts::open(env, dir, owner, mutant).await?;
        let snapshots = Snapshots::new(env, dir, mutant);
        let newest = snapshots.newest().await?;
        let log = Entries::open(env, &dir.join("log"), &facts, world, mutant).await?;
        let from = newest.as_ref().map_or(0, |newest| end_of(&newest.meta));
        if log.first() > from {
            return Err(OpenError::Gap { from, first: log.first() });
        }
        let replayed_bytes = log.record_bytes_from(from);
        let opened = Opened { snapshot: Offset::new(from), replayed_bytes, created };
        let state = Rc::new(State::begin(newest));
        Ok(Found { facts, snapshots, log, state, opened })
    }

    /// Lets openraft begin with it.
    async fn take_part<S: Memory>(
        &self,
        env: &E,
        options: &Options,
        world: &World,
        memory: &Rc<S>,
        (peers, outbox): (&Peers<E>, &Outbox),
    ) -> Result<Raft<E, S>, OpenError> {
        let (me, mutant) = (options.me, options.mutant);
        let lines = Lines {
            env: env.clone(),
            me,
            peers: peers.clone(),
            outbox: outbox.clone(),
            patience: options.election_timeout,
        };
        let early = (mutant == Some(Mutant::ApplyUncommitted)).then(|| {
            let memory = memory.clone();
            let early: storage::Early = Rc::new(move |entry| {
                let _ = apply_to(&*memory, entry);
            });
            early
        });
        let storage = Storage { log: self.log.clone(), facts: self.facts.clone(), early };
        let applier = Applier::new(memory, &self.snapshots, &self.state, mutant);
        let config = Arc::new(config(options));
        let begun = world.within(Raft::new(me, config, lines, storage, applier)).await;
        let raft = begun.map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
        *self.state.found.borrow_mut() = None;
        Ok(raft)
    }
}

/// The right to append the next entry.
pub struct Turn<'a> {
    _guard: runtime::Guard<'a, ()>,
}

impl<E: Env, S: Memory> Quorum<E, S> {
    /// Opens the coordinator in `dir`, which may be new, and begins to take part. `memory` is
    /// empty; what is known to be committed is in there when this returns, more may come.
    pub async fn open(
        env: &E,
        dir: &Path,
        options: Options,
        memory: &Rc<S>,
    ) -> Result<(Quorum<E, S>, Opened), OpenError> {
        check_voters(&options)?;
        let world = World::new(env);
        let found = Found::look(env, dir, &options, &world).await?;
        let Found { facts, snapshots, log, state, opened } = &found;
        let peers = Peers::new(options.me, facts, log, state);
        let outbox = Outbox::new();
        let raft = found.take_part(env, &options, &world, memory, (&peers, &outbox)).await?;
        let desk = Desk {
            raft: raft.clone(),
            peers: peers.clone(),
            log: log.clone(),
            incoming: RefCell::default(),
        };
        let quorum = Quorum(Rc::new(Inner {
            env: env.clone(),
            options,
            world,
            raft,
            desk,
            log: log.clone(),
            facts: facts.clone(),
            peers,
            snapshots: snapshots.clone(),
            memory: memory.clone(),
            state: state.clone(),
            outbox,
            turn: Lock::new(()),
            ended: Watch::new(0),
            photographed: Cell::new(log.record_bytes() - opened.replayed_bytes),
        }));
        quorum.begin().await?;
        env.spawn(Queue::Background, quorum.clone().keep_short());
        Ok((quorum, *opened))
    }

    /// Begins a new quorum where there is none; one that this node is alone in begins to lead.
    async fn begin(&self) -> Result<(), OpenError> {
        let inner = &self.0;
        let raft = |error: String| OpenError::Raft(error);
        let begun = inner.log.last().is_some() || inner.facts.vote().is_some();
        if !begun && !inner.options.voters.is_empty() {
            let alone = inner.options.voters.len() == 1;
            let voters: BTreeMap<BrokerId, Voter> = inner
                .options
                .voters
                .iter()
                .map(|(id, endpoint)| {
                    let directory = alone.then(|| inner.facts.directory());
                    (*id, Voter { directory, endpoint: endpoint.clone() })
                })
                .collect();
            inner.log.reserve(0).await?;
            match inner.world.within(inner.raft.initialize(voters)).await {
                // Beginning includes the first election.
                Ok(()) => return Ok(()),
                // Not allowed any more: another's word has come before.
                Err(openraft::errors::RaftError::APIError(_)) => {}
                Err(fatal) => return Err(raft(fatal.to_string())),
            }
        }
        if self.is_alone() {
            let elect = inner.world.within(async { inner.raft.trigger().elect(false).await });
            elect.await.map_err(|fatal| raft(fatal.to_string()))?;
        }
        Ok(())
    }

    /// This node.
    pub fn me(&self) -> BrokerId {
        self.0.options.me
    }

    /// Whether this node is the only voter.
    pub fn is_alone(&self) -> bool {
        let newest = self.0.peers.newest();
        let mut voters = newest.voter_ids();
        voters.next() == Some(self.0.options.me) && voters.next().is_none()
    }

    /// The answer to another coordinator's message; never fails, refusals are answers.
    pub async fn receive(&self, message: &[u8]) -> Vec<u8> {
        self.0.world.within(self.0.desk.receive(message)).await
    }

    /// Messages to the other coordinators, for whoever delivers them.
    pub fn outbox(&self) -> Outbox {
        self.0.outbox.clone()
    }

    /// The offset of the next entry that will be applied here.
    pub fn applied(&self) -> Offset {
        Offset::new(self.0.state.applied.value())
    }

    /// The same, to wait for.
    pub fn applied_watch(&self) -> Watch {
        self.0.state.applied.clone()
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<BrokerId> {
        self.0.raft.metrics().borrow_watched().current_leader
    }

    /// The term in which this node leads and may decide: it has applied everything, has heard of a
    /// majority lately, and a majority is introduced. `Err` when the quorum has ended here.
    pub fn leading(&self) -> Result<Option<u64>, ProposeError> {
        let term = self.leading_unintroduced()?;
        Ok(term.filter(|_| self.0.peers.is_majority_introduced()))
    }

    fn leading_unintroduced(&self) -> Result<Option<u64>, ProposeError> {
        let inner = &self.0;
        if inner.ended.is_closed() {
            return Err(ProposeError::Ended("closed".into()));
        }
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        if let Err(fatal) = &metrics.running_state {
            return Err(ProposeError::Ended(fatal.to_string()));
        }
        let leader = &metrics.vote.leader_id;
        let (term, leads) = (leader.term, leader.voted_for == inner.options.me);
        let last = *inner.state.last.borrow();
        let leads = leads
            && metrics.vote.committed
            && metrics.state == ServerState::Leader
            && last.is_some_and(|last| term_of(&last) == term);
        Ok((leads && self.lease_left(&metrics) > Duration::ZERO).then_some(term))
    }

    /// How long a leader may go on without hearing of a majority.
    fn lease_left(&self, metrics: &openraft::RaftMetrics<Types>) -> Duration {
        let membership = metrics.membership_config.membership();
        let lease = longest(self.0.options.election_timeout);
        if membership.voter_ids().count() <= 1 {
            return lease;
        }
        let Some(heard) = metrics.last_quorum_acked else { return Duration::ZERO };
        lease.saturating_sub(self.0.env.now().since(heard.into_inner().0))
    }

    /// Waits until what [`Quorum::leading`] looks at may have changed.
    pub async fn changed(&self, since: &mut Changes) {
        let (lease, known) = {
            let metrics = since.0.borrow_and_update();
            (self.lease_left(&metrics), metrics.last_quorum_acked.is_some())
        };
        let changed = async {
            // An error: the quorum has ended, which `leading` says.
            let _ = since.0.changed().await;
        };
        let applied = async {
            let _ = self.0.state.applied.reach(self.0.state.applied.value() + 1).await;
        };
        let either = futures_lite::future::or(changed, applied);
        let end = self.0.env.now().after(lease);
        match known && lease > Duration::ZERO {
            true => futures_lite::future::or(either, self.0.env.sleep_until(end)).await,
            false => either.await,
        }
    }

    /// To wait for changes from now on.
    pub fn changes(&self) -> Changes {
        let mut metrics = self.0.raft.metrics();
        let _ = metrics.borrow_and_update();
        Changes(metrics)
    }

    /// Waits for the right to append the next entry; while it is held, nobody else on this node
    /// appends of its own will.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { _guard: self.0.turn.lock().await }
    }

    /// The offset that the next entry will get, if this node appends it.
    pub fn next(&self) -> Offset {
        Offset::new(self.0.log.end())
    }

    /// Makes room for records of so many bytes.
    pub async fn reserve(&self, bytes: u64) -> Result<(), ProposeError> {
        self.0.log.reserve(bytes).await.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => ProposeError::NoSpace,
            _ => ProposeError::Ended(error.to_string()),
        })
    }

    /// Appends one entry, if this node leads in `term`; ready when it is committed and applied
    /// here. After `NotLeader` it may still come to be, unless nothing had been appended.
    pub async fn propose(
        &self,
        _turn: &Turn<'_>,
        term: u64,
        decided: Decided,
    ) -> Result<Offset, ProposeError> {
        let inner = &self.0;
        inner.world.within(self.write(term, decided)).await
    }

    async fn write(&self, term: u64, decided: Decided) -> Result<Offset, ProposeError> {
        let raft = &self.0.raft;
        let ended = |fatal: openraft::errors::Fatal<Types>| ProposeError::Ended(fatal.to_string());
        let (responder, written) = ProgressResponder::complete_only();
        let leader = CommittedLeader::new(term);
        raft.write(decided).with_leader(leader).responder(responder).await.map_err(ended)?;
        match written.await {
            Ok(Ok(written)) => Ok(Offset::new(written.log_id.index)),
            Ok(Err(_)) => Err(ProposeError::NotLeader { leader: self.leader() }),
            Err(_) => Err(ProposeError::Ended("it stopped while an entry was on its way".into())),
        }
    }

    /// Takes a snapshot when the log has grown enough, and lets go of what two snapshots cover.
    async fn keep_short(self) {
        let inner = &self.0;
        let mut metrics = inner.raft.metrics();
        let mut taken = metrics.borrow_and_update().snapshot;
        loop {
            let (snapshot, ended) = {
                let metrics = metrics.borrow_and_update();
                (metrics.snapshot, metrics.running_state.is_err())
            };
            if ended || inner.ended.is_closed() {
                return;
            }
            if snapshot != taken {
                taken = snapshot;
                match inner.snapshots.covered().await {
                    Ok(Some(end)) if end > 0 => {
                        let purge = async { inner.raft.trigger().purge_log(end - 1).await };
                        let _ = inner.world.within(purge).await;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "entries that a snapshot covers stay"),
                }
            }
            let bytes = inner.log.record_bytes();
            if bytes - inner.photographed.get() >= inner.options.snapshot_bytes {
                inner.photographed.set(bytes);
                match photograph(&*inner.memory, &inner.state, &inner.snapshots).await {
                    Ok(()) => {
                        let tell = async { inner.raft.trigger().snapshot().await };
                        let _ = inner.world.within(tell).await;
                    }
                    // The next attempt is as far away as the next snapshot.
                    Err(error) => tracing::warn!(%error, "no snapshot of the metadata was taken"),
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends it in good order: what was appended is on the device when this returns.
    pub async fn close(&self) -> io::Result<()> {
        let inner = &self.0;
        inner.ended.close();
        inner.outbox.close();
        let _ = inner.world.within(inner.raft.shutdown()).await;
        inner.snapshots.settle().await;
        let synced = inner.log.settle().await;
        inner.log.close();
        synced
    }
}

/// Changes that were seen so far.
pub struct Changes(Metrics);

/// Whether a new quorum may begin like this.
fn check_voters(options: &Options) -> Result<(), OpenError> {
    let voters = &options.voters;
    let ids: BTreeSet<BrokerId> = voters.iter().map(|(id, _)| *id).collect();
    if voters.is_empty() {
        return Ok(());
    }
    if ids.len() < voters.len() {
        let why = "one id stands there twice";
        return Err(OpenError::Voters { count: voters.len(), why });
    }
    if let Some(why) = wrong_number(ids.len()) {
        return Err(OpenError::Voters { count: ids.len(), why });
    }
    match ids.contains(&options.me) {
        true => Ok(()),
        false => Err(OpenError::NotAVoter { me: options.me }),
    }
}

/// What is wrong with that many voters.
fn wrong_number(count: usize) -> Option<&'static str> {
    match count {
        0 => Some("somebody must decide"),
        _ if count > VOTERS_MAX => Some("more than 7 cost more than they protect from"),
        _ if count.is_multiple_of(2) => {
            Some("an even number survives no more failures than one voter less")
        }
        _ => None,
    }
}

/// The longest that a voter's patience is drawn. It is the leader's lease, too, which passes before
/// that patience begins to count: with twice the shortest, a leader's death would cost up to four
/// times that. A third is 100 ms by default, and two voters that stand within a round trip of each
/// other are rare enough then.
fn longest(election_timeout: Duration) -> Duration {
    election_timeout + election_timeout / 3
}

fn config(options: &Options) -> openraft::Config {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let election = millis(options.election_timeout);
    let config = openraft::Config {
        cluster_name: "metadata".into(),
        election_timeout_min: election,
        election_timeout_max: millis(longest(options.election_timeout)).max(election + 1),
        heartbeat_interval: millis(options.heartbeat),
        install_snapshot_timeout: election * 20,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::Never,
        // `keep_short` does it, because an older snapshot is worth nothing without its log.
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // State is in memory: a leader that comes back must learn what is committed.
        enable_leader_restore: Some(false),
        removed_leader_step_down: StepDownPolicy::After(election),
        // So that a leader that is heard but does not hear gives way.
        quorum_loss_probe_interval: Some(election * 4),
        ..openraft::Config::default()
    };
    config.validate().expect("derived from one number")
}
