//! A shard: a whole broker for the partitions that it owns. One pinned core, no locks; what it
//! shares with the others is the immutable [`Image`] and the mesh.
//!
//! Any shard takes any connection. A request for a partition of another shard costs one message
//! there and one back, grouped by shard; its own partitions are function calls.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::{ClusterId, DirectoryId, Topic};
use coordinator::controller::{Loss, Reply, Request};
use coordinator::group;
use coordinator::image::Image;
use coordinator::image::delta::Delta;
use coordinator::quorum::Status;
use engine::config::{EngineLimits, LogConfig, LogOverrides};
use engine::env::Queue;
use engine::ids::{BrokerId, TopicId, TopicPartition};
use engine::log::{Bounds, Shared};
use engine::wait::{Gate, Watch};
use replication::ask::{FetchFault, ReplicaFetch};
use replication::config::ReplicationConfig;
use replication::leader::Verdict;
use replication::partition::Notices;

use crate::api::produce::{Outcome, ProduceCall};
use crate::api::producers::ProducerIds;
use crate::api::read::{Growth, ReadCall, ReadPart};
use crate::ask::{self, Ask, Told};
use crate::config::{BrokerConfig, Resolved, Shown};
use crate::duties;
use crate::env::NetEnv;
use crate::fetch_session::Sessions;
use crate::groups::{self, Kept};
use crate::mesh::{Answering, Ends, Mesh};
use crate::partitions::Partitions;
use crate::replica;
use crate::replica::leader::{ReadOne, ReplicaRead, Wait};
use crate::topic_config;
use crate::wire::ErrorCode;

/// What shards go by: what the operator chose, and what follows from it for each of them. The same
/// for the life of the process.
#[derive(Clone, Debug)]
pub struct Options {
    /// This broker.
    pub me: BrokerId,
    /// Its data directory.
    pub data: PathBuf,
    /// What topics are told that say nothing themselves.
    pub log: LogOverrides,
    /// What bounds the engine of each shard.
    pub limits: EngineLimits,
    /// What bounds each log.
    pub bounds: Bounds,
    /// Requests of one connection that may wait for their answers.
    pub requests_in_flight_max: usize,
    /// Most connections of one shard.
    pub connections_max: usize,
    /// Most incremental fetch sessions of one shard.
    pub fetch_sessions_max: usize,
    /// Appended bytes of one shard that may wait for the device before sockets are left unread.
    pub unwritten_bytes_max: usize,
    /// How often the logs are looked after.
    pub tend_every: Duration,
    /// How often a log is looked for that is worth compacting.
    pub compact_every: Duration,
    /// The cluster that the data directory belongs to.
    pub cluster: ClusterId,
    /// Its place in a cluster of several nodes; `None`: it is all of it.
    pub quorum: Option<QuorumOptions>,
    /// All of what the operator chose.
    pub broker: BrokerConfig,
    /// The same with names and sources, as DescribeConfigs shows it.
    pub settings: Vec<Shown>,
}

/// This node's place in a cluster of several nodes.
#[derive(Clone, Debug)]
pub struct QuorumOptions {
    /// The coordinators, this node among them if it votes: who, and `host:port` of the listener on
    /// which they answer other nodes (`controller.quorum.voters`).
    pub voters: Vec<(BrokerId, String)>,
    /// Whether this node is one of them.
    pub votes: bool,
    /// The listener by which brokers fetch from each other (`inter.broker.listener.name`): only
    /// there a client may be a replica.
    pub peer_listener: String,
    /// Which data directory this is, for life.
    pub directory: DirectoryId,
    /// What the last end of this broker may have lost.
    pub lost: Loss,
    /// How often the controller is told that this broker is there
    /// (`broker.heartbeat.interval.ms`).
    pub heartbeat: Duration,
    /// Numbers of replication.
    pub replication: ReplicationConfig,
}

impl Options {
    /// What follows from the settings for each of `shards`.
    pub fn new(resolved: Resolved, cluster: ClusterId, shards: usize) -> Options {
        let settings = resolved.shown().collect();
        let broker = resolved.config;
        Options {
            me: broker.node_id,
            data: broker.data_dir.clone(),
            log: broker.log.clone(),
            limits: broker.engine,
            bounds: Bounds { block_bytes_max: broker.engine.block_bytes_max, ..Bounds::default() },
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            connections_max: CONNECTIONS_MAX,
            fetch_sessions_max: broker.fetch_sessions_max.div_ceil(shards),
            unwritten_bytes_max: UNWRITTEN_BYTES_MAX,
            tend_every: Duration::from_millis(broker.engine.checkpoint_ms),
            compact_every: Duration::from_millis(broker.engine.compaction_check_ms),
            cluster,
            quorum: None,
            broker,
            settings,
        }
    }
}

/// Requests of one connection that may wait for their answers. Clients send at most a handful
/// (librdkafka up to 1,000 with acks, which then wait in the socket).
const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// Most connections of one shard; each costs a descriptor and about 20 KiB.
const CONNECTIONS_MAX: usize = 8_000;
/// Appended bytes of one shard that may wait for the device.
const UNWRITTEN_BYTES_MAX: usize = 64 << 20;

/// One call from shard to shard.
pub enum Call {
    /// Append batches.
    Produce(ProduceCall),
    /// Read batches.
    Read(ReadCall),
    /// Say when one of these partitions has grown.
    Park(Growth),
    /// Look at partitions.
    Ask(Vec<Ask>),
    /// Decide (shard 0 only).
    Control(Box<Request>),
    /// Describe the quorum (shard 0 only).
    QuorumStatus,
    /// Take this picture of the cluster.
    Image(Arc<Image>),
    /// Remove what is left of a deleted topic.
    Purge(TopicId),
    /// Take a follower's promises.
    ReplicaFetch(Vec<ReplicaFetch>),
    /// Read for a follower.
    ReplicaRead(ReplicaRead),
    /// Say when one of these partitions has news for a follower.
    ReplicaPark(Vec<Wait>, Duration),
    /// Nothing of this broker is needed any more: stop when told to. Has no answer.
    Release,
    /// The sender has answered all its connections: it needs no other shard any more. Has no
    /// answer.
    Drained,
    /// Say whether the device of the data directory has failed.
    Disk,
    /// Ask the machine that keeps the groups of a partition.
    Group(TopicPartition, Box<group::request::Request>),
}

/// The answer to a [`Call`], variant by variant.
pub enum Answer {
    /// To `Produce`: one per part.
    Produced(Vec<Outcome>),
    /// To `Read`: one per part, with the bytes copied once into memory that may cross.
    Read(Vec<ReadPart<Vec<u8>>>),
    /// To `Park` and `ReplicaPark`.
    Grew,
    /// To `ReplicaFetch`: one each.
    ReplicaVerdicts(Vec<Result<Verdict, FetchFault>>),
    /// To `ReplicaRead`: of the first ones, until the limit was spent; copied once into memory that
    /// may cross.
    ReplicaRead(Vec<ReadOne<Vec<u8>>>),
    /// To `Ask`: one each.
    Told(Vec<Told>),
    /// To `Control`; `None` while the process is stopping.
    Controlled(Option<Box<Reply>>),
    /// To `QuorumStatus`; `None` where this node has no vote.
    QuorumStatus(Option<Box<Status>>),
    /// To `Image` and `Purge`.
    Done,
    /// To `Disk`: what has failed, if something has.
    Disk(Option<String>),
    /// To `Group`.
    Grouped(Result<Box<group::request::Reply>, ErrorCode>),
}

/// The mesh of this process.
pub type ShardMesh<E> = Mesh<E, Call, Answer>;
/// One shard's lane ends.
pub type ShardEnds<E> = Ends<E, Call, Answer>;
/// What asks the controller; lives on shard 0.
pub type Control = Box<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Option<Reply>>>>>;
/// What tells how the quorum is; lives on shard 0.
pub type QuorumStatus = Box<dyn Fn() -> Status>;

/// A shard. Cloning shares it; it never leaves its thread.
pub struct Shard<E: NetEnv>(pub(crate) Rc<Inner<E>>);

impl<E: NetEnv> Clone for Shard<E> {
    fn clone(&self) -> Self {
        Shard(self.0.clone())
    }
}

pub(crate) struct Inner<E: NetEnv> {
    pub env: E,
    pub index: usize,
    pub count: usize,
    pub options: Arc<Options>,
    pub image: RefCell<Arc<Image>>,
    /// Raised to the image's offset.
    pub image_offset: Watch,
    /// On shard 0: raised to the offset of the picture that every shard has.
    pub published: Watch,
    pub mesh: RefCell<Option<ShardMesh<E>>>,
    pub partitions: Partitions<E>,
    /// What the picture says this shard should have and that has not been opened yet, unless
    /// somebody asked for it.
    pub unopened: RefCell<BTreeSet<TopicPartition>>,
    pub shared: Shared,
    pub sessions: RefCell<Sessions>,
    pub groups: Kept<E>,
    /// Partitions that have something for other nodes.
    pub notices: Notices,
    /// Those of them that may have something for the controller.
    pub asks: RefCell<BTreeSet<TopicPartition>>,
    /// Rises when there are some.
    pub asking: Watch,
    /// Raised to 1 when this shard may stop: others lead what this broker led.
    pub released: Watch,
    /// How many other shards have answered all their connections.
    pub drained: Watch,
    pub producer_ids: ProducerIds,
    pub control: RefCell<Option<Control>>,
    /// On shard 0 of a node with a vote.
    pub quorum_status: RefCell<Option<QuorumStatus>>,
    /// Who is inside: connections and calls. Closed by `stop`.
    pub gate: Gate,
    /// Raised to 1 when the shard begins to stop.
    pub stopping: Watch,
    pub connections: Cell<usize>,
    /// Bytes of requests that were read and not answered.
    pub queued_bytes: Cell<usize>,
    /// Bytes of requests that were answered over all time.
    pub answered_bytes: Watch,
}

impl<E: NetEnv> Shard<E> {
    /// A shard of `count`, without a picture of the cluster yet.
    pub fn new(
        env: &E,
        index: usize,
        count: usize,
        options: Arc<Options>,
        shared: Shared,
        ends: ShardEnds<E>,
    ) -> Shard<E> {
        let sessions = Sessions::new(options.fetch_sessions_max);
        let shard = Shard(Rc::new(Inner {
            env: env.clone(),
            index,
            count,
            partitions: Partitions::new(),
            unopened: RefCell::default(),
            options,
            image: RefCell::new(Arc::new(Image::empty())),
            image_offset: Watch::new(0),
            published: Watch::new(0),
            mesh: RefCell::new(None),
            shared,
            sessions: sessions.into(),
            groups: Kept::default(),
            notices: Notices::default(),
            asks: RefCell::default(),
            asking: Watch::new(0),
            released: Watch::new(0),
            drained: Watch::new(0),
            producer_ids: ProducerIds::default(),
            control: RefCell::new(None),
            quorum_status: RefCell::new(None),
            gate: Gate::default(),
            stopping: Watch::new(0),
            connections: Cell::new(0),
            queued_bytes: Cell::new(0),
            answered_bytes: Watch::new(0),
        }));
        let serving = shard.clone();
        let mesh = Mesh::start(env, ends, move |_from, call, answering| {
            let shard = serving.clone();
            async move { shard.serve(call, answering).await }
        });
        *shard.0.mesh.borrow_mut() = Some(mesh);
        shard
    }

    /// Its environment.
    pub fn env(&self) -> &E {
        &self.0.env
    }

    /// What the operator chose.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// What the logs of a topic are told.
    pub fn log_config(&self, topic: &Topic) -> LogConfig {
        topic_config::effective(topic, &self.0.options.log, &self.0.options.limits)
    }

    /// The present picture of the cluster.
    pub fn image(&self) -> Arc<Image> {
        self.0.image.borrow().clone()
    }

    /// The shard that owns a partition: computed, never stored, so that another number of shards
    /// is only a restart. FNV-1a over the topic id and the index.
    pub fn owner(&self, of: TopicPartition) -> usize {
        owner(of, self.0.count)
    }

    /// Whether this shard owns it.
    pub fn owns(&self, partition: TopicPartition) -> bool {
        self.owner(partition) == self.0.index
    }

    pub(crate) fn mesh(&self) -> ShardMesh<E> {
        self.0.mesh.borrow().clone().expect("set when the shard was made")
    }

    /// `host:port` at which another broker serves replicas; `None` if it is not known or not up.
    pub fn peer_address(&self, broker: BrokerId) -> Option<String> {
        let listener = &self.options().quorum.as_ref()?.peer_listener;
        let image = self.image();
        let broker = image.broker(broker)?;
        let endpoint = broker.endpoints.iter().find(|e| e.listener == *listener)?;
        Some(match endpoint.host.contains(':') {
            true => format!("[{}]:{}", endpoint.host, endpoint.port),
            false => format!("{}:{}", endpoint.host, endpoint.port),
        })
    }

    /// Asks the controller, wherever it lives. `None`: the process is stopping.
    pub async fn control(&self, request: Request) -> Option<Reply> {
        if self.0.index != 0 {
            let call = Call::Control(Box::new(request));
            return match self.mesh().call(&self.0.env, 0, call).answer().await {
                Answer::Controlled(reply) => reply.map(|reply| *reply),
                _ => unreachable!("an answer is of its call's kind"),
            };
        }
        let decided = self.0.control.borrow().as_ref().map(|control| control(request));
        decided?.await
    }

    /// The quorum as this node sees it. `None`: it has no vote.
    pub async fn quorum_status(&self) -> Option<Status> {
        if self.0.index != 0 {
            return match self.mesh().call(&self.0.env, 0, Call::QuorumStatus).answer().await {
                Answer::QuorumStatus(status) => status.map(|status| *status),
                _ => unreachable!("an answer is of its call's kind"),
            };
        }
        self.0.quorum_status.borrow().as_ref().map(|status| status())
    }

    /// Looks at partitions of any shard, one message per shard; answers in the order asked.
    pub async fn ask(&self, asks: Vec<Ask>) -> Vec<Told> {
        let mut told: Vec<Option<Told>> = asks.iter().map(|_| None).collect();
        let mut by_shard: Vec<Vec<(usize, Ask)>> = (0..self.0.count).map(|_| Vec::new()).collect();
        for (at, ask) in asks.into_iter().enumerate() {
            by_shard[self.owner(ask.partition())].push((at, ask));
        }
        let mut calls = Vec::new();
        let mut own = Vec::new();
        for (shard, asks) in by_shard.into_iter().enumerate() {
            if shard == self.0.index {
                own = asks;
            } else if !asks.is_empty() {
                let (places, asks): (Vec<_>, Vec<_>) = asks.into_iter().unzip();
                calls.push((places, self.mesh().call(&self.0.env, shard, Call::Ask(asks))));
            }
        }
        for (at, ask) in own {
            told[at] = Some(ask::tell(self, ask).await);
        }
        for (places, mut call) in calls {
            let Answer::Told(answers) = call.answer().await else {
                unreachable!("an answer is of its call's kind")
            };
            for (at, answer) in places.into_iter().zip(answers) {
                told[at] = Some(answer);
            }
        }
        told.into_iter().map(|told| told.expect("each was asked of one shard")).collect()
    }

    /// What has failed first on the device of the data directory, as far as any shard has noticed:
    /// each finds out by itself, from its own writes.
    pub async fn disk_failure(&self) -> Option<String> {
        let others = (0..self.0.count).filter(|&shard| shard != self.0.index);
        let calls: Vec<_> =
            others.map(|shard| self.mesh().call(&self.0.env, shard, Call::Disk)).collect();
        let mut failure = self.0.shared.disk.failed();
        for mut call in calls {
            let Answer::Disk(failed) = call.answer().await else {
                unreachable!("an answer is of its call's kind")
            };
            failure = failure.or(failed);
        }
        failure
    }

    /// Serves one call of another shard. Returns when the next of the same sender may be served.
    async fn serve(&self, call: Call, answering: Answering<E, Call, Answer>) {
        let shard = self.clone();
        match call {
            Call::Produce(call) => {
                // Partitions are opened first, so that batches are appended in arrival order.
                crate::api::produce::open_all(&shard, call.partitions()).await;
                let appended = crate::api::produce::append(&shard, &call);
                self.later(
                    async move { answering.answer(Answer::Produced(appended.done().await)) },
                );
            }
            Call::Read(call) => self.later(async move {
                let parts = crate::api::read::read(&shard, &call).await;
                answering.answer(Answer::Read(crate::api::read::copied(parts)));
            }),
            Call::Park(growth) => self.later(async move {
                crate::api::read::grew(&shard, &growth).await;
                answering.answer(Answer::Grew);
            }),
            Call::Ask(asks) => self.later(async move {
                let mut told = Vec::with_capacity(asks.len());
                for ask in asks {
                    told.push(ask::tell(&shard, ask).await);
                }
                answering.answer(Answer::Told(told));
            }),
            Call::Control(request) => self.later(async move {
                let reply = shard.control(*request).await;
                answering.answer(Answer::Controlled(reply.map(Box::new)));
            }),
            Call::QuorumStatus => {
                let status = self.0.quorum_status.borrow().as_ref().map(|status| status());
                answering.answer(Answer::QuorumStatus(status.map(Box::new)));
            }
            Call::Image(image) => {
                self.take_image(image);
                answering.answer(Answer::Done);
            }
            Call::Disk => answering.answer(Answer::Disk(self.0.shared.disk.failed())),
            Call::ReplicaFetch(fetches) => {
                answering.answer(Answer::ReplicaVerdicts(replica::leader::judge(&shard, &fetches)));
            }
            Call::ReplicaRead(call) => self.later(async move {
                let found = replica::leader::read(&shard, &call).await;
                answering.answer(Answer::ReplicaRead(replica::leader::copied(found)));
            }),
            Call::ReplicaPark(waits, wait_max) => self.later(async move {
                replica::leader::grew(&shard, &waits, wait_max).await;
                answering.answer(Answer::Grew);
            }),
            Call::Group(id, request) => self.later(async move {
                let reply = groups::serve(&shard, id, *request).await;
                answering.answer(Answer::Grouped(reply.map(Box::new)));
            }),
            Call::Release => self.0.released.raise(1),
            Call::Drained => self.0.drained.raise(self.0.drained.value() + 1),
            Call::Purge(topic) => self.later(async move {
                shard.0.partitions.purge(&shard, topic).await;
                answering.answer(Answer::Done);
            }),
        }
    }

    fn later(&self, task: impl Future<Output = ()> + 'static) {
        self.0.env.spawn(Queue::Request, task);
    }

    /// Takes over a newer picture, and does what it asks of this shard's partitions.
    pub fn take_image(&self, image: Arc<Image>) {
        let before = self.0.image.replace(image.clone());
        if image.offset() <= before.offset() && image.offset().value() > 0 {
            // An older one overtook it on another lane.
            if image.offset() < before.offset() {
                *self.0.image.borrow_mut() = before;
                return;
            }
        }
        let delta = Delta::between(&before, &image);
        let me = self.options().me;
        for duty in delta.duties(me).filter(|duty| self.owns(duty.id)) {
            match (duty.before, duty.after) {
                (None, Some(_)) => _ = self.0.unopened.borrow_mut().insert(duty.id),
                (Some(_), Some(_)) => {}
                (_, None) => _ = self.0.unopened.borrow_mut().remove(&duty.id),
            }
            match (duty.before, duty.after) {
                (_, Some(_)) => duties::settle_soon(self, duty.id),
                // Deleted topics are forgotten below.
                (Some(_), None) if image.topic_by_id(duty.id.topic).is_some() => {
                    self.0.partitions.give_up(self, duty.id);
                }
                _ => {}
            }
        }
        for change in delta.changed.iter().filter(|change| change.overrides_changed()) {
            self.0.partitions.configure(self, &change.after);
        }
        for topic in &delta.deleted {
            self.0.partitions.forget(topic.id);
        }
        let names = delta.deleted.iter().map(|topic| topic.name.to_string());
        self.0.groups.forget_topics(self, names.collect());
        self.0.image_offset.raise(image.offset().value());
    }

    /// Gives every shard the picture, and returns when all of them have taken it: whoever is told
    /// that a topic exists can use it on any connection.
    pub async fn publish(&self, image: Arc<Image>) {
        self.take_image(image.clone());
        let others = (0..self.0.count).filter(|&shard| shard != self.0.index);
        let calls: Vec<_> = others
            .map(|shard| self.mesh().call(&self.0.env, shard, Call::Image(image.clone())))
            .collect();
        for mut call in calls {
            call.answer().await;
        }
    }
}

/// The shard, of `count`, that owns a partition.
pub fn owner(of: TopicPartition, count: usize) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let index = of.partition.0.to_be_bytes();
    for &byte in of.topic.bytes().iter().chain(&index) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The low bits of FNV mix worst where only the last byte differs.
    ((hash ^ (hash >> 32)) % count as u64) as usize
}
