//! A follower's stream, answered.
//!
//! A request's promises go to the partitions the moment that it arrives, in the reader's turn: they
//! may be what producers wait for. Its answer waits, in the writer's turn, until there is something
//! to say, or a newer request of the stream has come. Nothing polls: logs that grow, watermarks
//! that rise and requests that arrive wake it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::env::Env;
use engine::ids::{BrokerEpoch, BrokerId, Offset, TopicPartition};
use engine::log::Slice;
use engine::time::Instant;
use engine::wait::{self, Watch};
use futures_lite::future;
use replication::Partition;
use replication::ask::{FetchFault, FetchPart, Outcome, ReplicaFetch};
use replication::leader::Verdict;
use replication::stream::{Head, Read, Stream};

use super::vigil::Vigil;
use super::{VERSION, decode_ask, encode_part};
use crate::api::fetch::Bytes;
use crate::env::NetEnv;
use crate::mesh::Awaited;
use crate::shard::{Answer, Call, Shard};
use crate::wire::fetch::{FetchRequest, FetchResponse, ResponseTopic};
use crate::wire::{ErrorCode, Outgoing, encode_response};

/// How often all partitions of a stream are looked at, whether or not one has said that it has
/// news.
const LOOK_AT_ALL: Duration = Duration::from_secs(5);

/// One follower's stream on its connection. A connection has one: whoever begins another, or has
/// registered anew, connects anew.
pub struct Session<E: NetEnv> {
    stream: RefCell<Stream>,
    follower: BrokerId,
    broker_epoch: BrokerEpoch,
    id: i32,
    /// About how many bytes of one partition: as said last. A request that names no partition
    /// says nothing about it.
    partition_bytes_max: Cell<usize>,
    /// Requests that have arrived, over all time.
    arrived: Watch,
    /// The partitions of this shard whose cursors are calm.
    vigil: RefCell<Vigil>,
    /// Those of the other shards, by shard.
    parked: RefCell<BTreeMap<usize, Parked<E>>>,
    /// When all of them were looked at last: that the start of a log moves wakes nobody.
    looked_at_all: Cell<Instant>,
}

/// What is waited for on another shard, and the call that waits; `None`: there is more to wait for
/// than it knows.
struct Parked<E: NetEnv> {
    waits: BTreeMap<TopicPartition, Wait>,
    call: Option<Awaited<E, Call, Answer>>,
}

/// One partition that is waited for: until it reaches beyond `from`, or its head differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// The partition.
    pub id: TopicPartition,
    /// Where the follower's cursor stands.
    pub from: Offset,
    /// What it was told last.
    pub told: Head,
}

/// Partitions to read on their shard for a follower.
pub struct ReplicaRead {
    /// Who reads.
    pub replica: BrokerId,
    /// What, in the order in which the limit is spent.
    pub reads: Vec<Read>,
    /// About how many bytes of all, and of one.
    pub bytes_max: usize,
    /// About how many bytes of one.
    pub partition_bytes_max: usize,
}

/// What was read of one partition: batches, the offset after them, and what goes with them.
pub type ReadOne<S> = Result<(Vec<S>, Offset, Head), FetchFault>;

/// A request on its way to its answer.
pub struct ReplicaRequest<E: NetEnv> {
    session: Rc<Session<E>>,
    correlation_id: i32,
    /// Number within the stream, or why it has none.
    seq: Result<u64, ErrorCode>,
    bytes_max: usize,
    until: Instant,
}

impl<E: NetEnv> Session<E> {
    /// Of the follower that a first request names; `None`: the request is no follower's.
    pub fn of(request: &FetchRequest<'_>, now: Instant) -> Option<Rc<Session<E>>> {
        let state = &request.replica_state;
        let (follower, broker_epoch) =
            (BrokerId(state.replica_id), BrokerEpoch(state.replica_epoch));
        (follower.0 >= 0).then(|| {
            Rc::new(Session {
                stream: Stream::new(follower, broker_epoch).into(),
                follower,
                broker_epoch,
                id: request.session_id,
                partition_bytes_max: Cell::new(usize::MAX),
                arrived: Watch::new(0),
                vigil: RefCell::default(),
                parked: RefCell::default(),
                looked_at_all: Cell::new(now),
            })
        })
    }

    /// Whether a request is of this stream.
    fn has(&self, request: &FetchRequest<'_>) -> bool {
        let state = &request.replica_state;
        let follower = (BrokerId(state.replica_id), BrokerEpoch(state.replica_epoch));
        follower == (self.follower, self.broker_epoch) && request.session_id == self.id
    }

    /// A partition of another shard is to be waited for.
    fn park(&self, owner: usize, wait: Wait) {
        let mut parked = self.parked.borrow_mut();
        let none = || Parked { waits: BTreeMap::new(), call: None };
        let parked = parked.entry(owner).or_insert_with(none);
        if parked.waits.insert(wait.id, wait) != Some(wait) {
            parked.call = None;
        }
    }

    /// Cursors whose partitions have had news are to be read again.
    fn stir(&self, now: Instant) {
        let mut stream = self.stream.borrow_mut();
        self.vigil.borrow_mut().take().into_iter().for_each(|id| stream.stir(id));
        self.parked.borrow_mut().retain(|_, parked| {
            let grew = parked.call.as_ref().is_some_and(Awaited::is_answered);
            if grew {
                parked.waits.keys().for_each(|&id| stream.stir(id));
            }
            !grew
        });
        if now >= self.looked_at_all.get().after(LOOK_AT_ALL) {
            self.looked_at_all.set(now);
            stream.stir_all();
        }
    }
}

/// Takes a request in: its promises count from now on.
pub async fn start<E: NetEnv>(
    shard: &Shard<E>,
    session: &Rc<Session<E>>,
    request: &FetchRequest<'_>,
    correlation_id: i32,
) -> ReplicaRequest<E> {
    let mut started = ReplicaRequest {
        session: session.clone(),
        correlation_id,
        seq: Err(ErrorCode::InvalidRequest),
        bytes_max: 0,
        until: shard.env().now(),
    };
    if !session.has(request) {
        started.seq = Err(ErrorCode::InvalidFetchSessionEpoch);
        return started;
    }
    let Some(ask) = decode_ask(request) else { return started };
    let taken = session.stream.borrow_mut().on_request(&ask);
    // Whatever waits on this connection is answered at once now.
    session.arrived.raise(session.arrived.value() + 1);
    match taken {
        Err(error) => {
            tracing::debug!(%error, "a follower's request does not go on");
            started.seq = Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        Ok(fetches) => {
            started.seq = Ok(ask.seq);
            started.bytes_max = ask.bytes_max.min(shard.options().broker.fetch_bytes_max);
            if !ask.parts.is_empty() {
                session.partition_bytes_max.set(ask.partition_bytes_max);
            }
            started.until = started.until.after(ask.wait_max);
            promise(shard, session, ask.seq, fetches).await;
        }
    }
    started
}

/// Gives the promises of request `seq` to their partitions, one message for each other shard.
async fn promise<E: NetEnv>(
    shard: &Shard<E>,
    session: &Session<E>,
    seq: u64,
    fetches: Vec<ReplicaFetch>,
) {
    let mut shares: BTreeMap<usize, Vec<ReplicaFetch>> = BTreeMap::new();
    for fetch in fetches {
        shares.entry(shard.owner(fetch.part.id)).or_default().push(fetch);
    }
    let own = shares.remove(&shard.0.index).unwrap_or_default();
    let calls: Vec<_> = shares
        .into_iter()
        .map(|(owner, fetches)| {
            let parts: Vec<FetchPart> = fetches.iter().map(|fetch| fetch.part).collect();
            (parts, shard.mesh().call(shard.env(), owner, Call::ReplicaFetch(fetches)))
        })
        .collect();
    for (fetch, verdict) in own.iter().zip(judge(shard, &own)) {
        session.stream.borrow_mut().on_verdict(seq, &fetch.part, verdict);
    }
    for (parts, mut call) in calls {
        let Answer::ReplicaVerdicts(verdicts) = call.answer().await else {
            unreachable!("an answer is of its call's kind")
        };
        let mut stream = session.stream.borrow_mut();
        for (part, verdict) in parts.iter().zip(verdicts) {
            stream.on_verdict(seq, part, verdict);
        }
    }
}

/// What this shard's partitions say to a follower's fetches.
pub fn judge<E: NetEnv>(
    shard: &Shard<E>,
    fetches: &[ReplicaFetch],
) -> Vec<Result<Verdict, FetchFault>> {
    let image = shard.image();
    let judge = |fetch: &ReplicaFetch| {
        let known = image.broker(fetch.replica).map(|broker| broker.epoch);
        if known.is_some_and(|known| known > fetch.broker_epoch) {
            return Err(FetchFault::NotReplica);
        }
        let partition = shard.0.partitions.opened(fetch.part.id).ok_or(FetchFault::NotLeader)?;
        partition.on_replica_fetch(fetch)
    };
    fetches.iter().map(judge).collect()
}

/// One partition's part of an answer.
struct Part<E: NetEnv> {
    id: TopicPartition,
    high_watermark: Offset,
    log_start: Offset,
    outcome: Outcome<usize>,
    slices: Vec<Bytes<E>>,
}

impl<E: NetEnv> ReplicaRequest<E> {
    /// Waits until there is something to say, and says it.
    pub async fn finish(self, shard: &Shard<E>) -> Outgoing<Bytes<E>> {
        let seq = match self.seq {
            Ok(seq) => seq,
            Err(error_code) => {
                let response = FetchResponse { error_code, ..Default::default() };
                return encode_response(&response, VERSION, self.correlation_id).into();
            }
        };
        loop {
            let arrived = self.session.arrived.value();
            self.session.stir(shard.env().now());
            let parts = self.compose(shard, seq).await;
            let superseded = self.session.stream.borrow().is_superseded(seq);
            let now = shard.env().now();
            let stopping = shard.0.stopping.value() > 0;
            if !parts.is_empty() || superseded || now >= self.until || stopping {
                return self.encode(parts);
            }
            self.wait(shard, arrived, self.until.since(now)).await;
        }
    }

    /// What there is to say now. Where that is nothing, it is waited for.
    async fn compose(&self, shard: &Shard<E>, seq: u64) -> Vec<Part<E>> {
        let reads = self.session.stream.borrow().reads(seq);
        let mut shares: BTreeMap<usize, Vec<Read>> = BTreeMap::new();
        for read in reads {
            shares.entry(shard.owner(read.id)).or_default().push(read);
        }
        let share_bytes = self.bytes_max / shares.len().max(1);
        let call = |reads: Vec<Read>| ReplicaRead {
            replica: self.session.follower,
            reads,
            bytes_max: share_bytes,
            partition_bytes_max: self.session.partition_bytes_max.get(),
        };
        let own = shares.remove(&shard.0.index).unwrap_or_default();
        let mut calls = Vec::new();
        for (owner, reads) in shares {
            let asked = Call::ReplicaRead(call(reads.clone()));
            calls.push((owner, reads, shard.mesh().call(shard.env(), owner, asked)));
        }
        let mut parts = Vec::new();
        let found = read(shard, &call(own.clone())).await;
        for (read, found) in own.iter().zip(found) {
            if let Some(wait) = self.enter(read, found, Bytes::Here, &mut parts) {
                self.session.vigil.borrow_mut().post(wait.id, watches(shard, &wait));
            }
        }
        for (owner, reads, mut call) in calls {
            let Answer::ReplicaRead(found) = call.answer().await else {
                unreachable!("an answer is of its call's kind")
            };
            for (read, found) in reads.iter().zip(found) {
                if let Some(wait) = self.enter(read, found, Bytes::There, &mut parts) {
                    self.session.park(owner, wait);
                }
            }
        }
        for (id, trouble) in self.session.stream.borrow_mut().take_troubles(seq) {
            let outcome = trouble.into();
            let (high_watermark, log_start) = (Offset::ZERO, Offset::ZERO);
            parts.push(Part { id, high_watermark, log_start, outcome, slices: Vec::new() });
        }
        parts
    }

    /// Enters what was read; answers what is to be waited for, if there were no batches.
    fn enter<S>(
        &self,
        read: &Read,
        found: ReadOne<S>,
        wrap: impl Fn(S) -> Bytes<E>,
        parts: &mut Vec<Part<E>>,
    ) -> Option<Wait> {
        let mut stream = self.session.stream.borrow_mut();
        match found {
            Err(fault) => {
                stream.on_unreadable(read, fault);
                None
            }
            Ok((slices, next, head)) => {
                if stream.on_read(read, next, head) {
                    let slices: Vec<_> = slices.into_iter().map(wrap).collect();
                    let len: usize = slices.iter().map(|slice| slice.len()).sum();
                    let outcome = Outcome::Records((len > 0).then_some(len));
                    let Head { high_watermark, log_start } = head;
                    parts.push(Part { id: read.id, high_watermark, log_start, outcome, slices });
                }
                (next == read.from).then_some(Wait { id: read.id, from: next, told: head })
            }
        }
    }

    /// Waits until one of the partitions has news, another request has come, or the time is up.
    async fn wait(&self, shard: &Shard<E>, arrived: u64, wait_max: Duration) {
        let session = &self.session;
        for (owner, parked) in &mut *session.parked.borrow_mut() {
            parked.call.get_or_insert_with(|| {
                let waits = parked.waits.values().copied().collect();
                shard.mesh().call(shard.env(), *owner, Call::ReplicaPark(waits, wait_max))
            });
        }
        let elsewhere = std::future::poll_fn(|cx| {
            let mut parked = session.parked.borrow_mut();
            let mut calls = parked.values_mut().filter_map(|parked| parked.call.as_mut());
            match calls.any(|call| call.poll_answered(cx)) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        });
        let newer = async {
            let _ = session.arrived.reach(arrived + 1).await;
        };
        let stopping = async {
            let _ = shard.0.stopping.reach(1).await;
        };
        let late = shard.env().sleep_until(shard.env().now().after(wait_max));
        let heard = session.vigil.borrow().heard();
        let here = future::or(future::or(heard, stopping), late);
        future::or(newer, future::or(here, elsewhere)).await;
    }

    fn encode(&self, mut parts: Vec<Part<E>>) -> Outgoing<Bytes<E>> {
        parts.sort_by_key(|part| part.id);
        let mut topics: Vec<ResponseTopic<'_>> = Vec::new();
        let mut records = Vec::new();
        let mut rest = parts.into_iter().peekable();
        while let Some(topic) = rest.peek().map(|part| part.id.topic) {
            let mut partitions = Vec::new();
            while let Some(part) = rest.next_if(|part| part.id.topic == topic) {
                let slot = records.len() as u32;
                let Part { id, high_watermark, log_start, outcome, slices } = part;
                partitions.push(encode_part(id, high_watermark, log_start, &outcome, slot));
                records.push(slices);
            }
            let partitions = partitions.into();
            topics.push(ResponseTopic { topic_id: topic, partitions, ..Default::default() });
        }
        let response = FetchResponse {
            session_id: self.session.id,
            topics: topics.into(),
            ..Default::default()
        };
        encode_response(&response, VERSION, self.correlation_id).with_records(records)
    }
}

/// Reads for a follower on the shard that owns the partitions; fewer than asked for where the limit
/// is spent: their turn comes first in the next answer.
pub async fn read<E: NetEnv>(shard: &Shard<E>, call: &ReplicaRead) -> Vec<ReadOne<Slice<E>>> {
    let mut left = call.bytes_max;
    let mut found = Vec::with_capacity(call.reads.len());
    for read in &call.reads {
        if left == 0 {
            break;
        }
        let bytes_max = left.min(call.partition_bytes_max);
        let one = match shard.0.partitions.opened(read.id) {
            // It was deleted: nothing will come of waiting for it.
            Some(partition) if !partition.log().is_open() => Err(FetchFault::NotLeader),
            Some(partition) => read_one(&partition, call.replica, read, bytes_max).await,
            None => Err(FetchFault::NotLeader),
        };
        if let Ok((slices, ..)) = &one {
            let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
            left = left.saturating_sub(bytes);
        }
        found.push(one);
        shard.env().turn().await;
    }
    found
}

async fn read_one<E: Env>(
    partition: &Partition<E>,
    replica: BrokerId,
    read: &Read,
    bytes_max: usize,
) -> ReadOne<Slice<E>> {
    let chunk =
        partition.replica_read(replica, read.leader_epoch, read.from, bytes_max, true).await?;
    Ok((chunk.slices, chunk.next, partition.head()))
}

/// The same in memory that may cross a lane. One copy.
pub fn copied<S: std::ops::Deref<Target = [u8]>>(found: Vec<ReadOne<S>>) -> Vec<ReadOne<Vec<u8>>> {
    let copy = |one: ReadOne<S>| {
        one.map(|(slices, next, head)| {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            (if bytes.is_empty() { Vec::new() } else { vec![bytes] }, next, head)
        })
    };
    found.into_iter().map(copy).collect()
}

/// What to watch of a partition until it has news; `None`: it has some.
fn watches<E: NetEnv>(shard: &Shard<E>, wait: &Wait) -> Option<[(Watch, u64); 2]> {
    let partition = shard.0.partitions.opened(wait.id)?;
    (partition.head() == wait.told).then(|| {
        let told = wait.told.high_watermark.value();
        [(partition.growth(), wait.from.value() + 1), (partition.watch(), told + 1)]
    })
}

/// Waits until one of the partitions has news, or the time is up, or the shard stops.
pub async fn grew<E: NetEnv>(shard: &Shard<E>, waits: &[Wait], wait_max: Duration) {
    let mut all = vec![(shard.0.stopping.clone(), 1)];
    for wait in waits {
        match watches(shard, wait) {
            Some(watches) => all.extend(watches),
            None => return,
        }
    }
    let until = shard.env().now().after(wait_max);
    future::or(wait::any(&all), shard.env().sleep_until(until)).await;
}
