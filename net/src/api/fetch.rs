//! Fetch: batches out. The request names partitions (or a session that remembers them); they are
//! read on the shards that own them, hot ones without waiting; the answer is sent from where the
//! bytes are. With too little to answer, it waits on the watermarks until `max_wait_ms` is over:
//! nobody polls.
//!
//! Deliberately absent: replicas (a client that claims to be one is refused: they have a listener
//! of their own), transactions (read_committed reads up to the same offset, nothing is aborted),
//! reads from followers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use coordinator::image::Image;
use engine::ids::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use engine::log::Slice;
use futures_lite::future;

use super::errors;
use super::leaders::Leaders;
use super::read::{self, Fault, Found, Growth, ReadCall, ReadPart, ReadSpec};
use crate::env::NetEnv;
use crate::fetch_session::{Key, Plan, Seen, SessionError, TopicKey, Want};
use crate::partitions::Unavailable;
use crate::shard::{Answer, Call, Shard};
use crate::wire::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, ResponsePartition, ResponseTopic,
};
use crate::wire::{Encoded, ErrorCode, Outgoing, Records, encode_response};

/// First version in which a reader is told who leads instead (KIP-951).
const LEADERS_VERSION_MIN: i16 = 16;

/// Record bytes of an answer: in place on this shard, or copied on another.
pub enum Bytes<E: NetEnv> {
    /// Of this shard.
    Here(Slice<E>),
    /// Of another shard.
    There(Vec<u8>),
}

impl<E: NetEnv> Deref for Bytes<E> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Here(slice) => slice,
            Bytes::There(bytes) => bytes,
        }
    }
}

/// A Fetch on its way.
pub struct Fetch {
    version: i16,
    correlation_id: i32,
    max_wait: Duration,
    min_bytes: usize,
    bytes_max: usize,
    plan: Result<Plan, (ErrorCode, String)>,
}

/// One partition's outcome.
struct Part<E: NetEnv> {
    high_watermark: i64,
    log_start: i64,
    error: ErrorCode,
    diverging: Option<(LeaderEpoch, Offset)>,
    slices: Vec<Bytes<E>>,
    bytes: usize,
}

/// Takes the request in; synchronous.
pub fn start<E: NetEnv>(
    shard: &Shard<E>,
    request: &FetchRequest<'_>,
    version: i16,
    correlation_id: i32,
) -> Fetch {
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    Fetch {
        version,
        correlation_id,
        max_wait: Duration::from_millis(request.max_wait_ms.max(0) as u64),
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: bytes_max.min(shard.options().broker.fetch_bytes_max),
        plan: plan(shard, request, version),
    }
}

fn plan<E: NetEnv>(
    shard: &Shard<E>,
    request: &FetchRequest<'_>,
    version: i16,
) -> Result<Plan, (ErrorCode, String)> {
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        let why = "replicas do not fetch from a client listener";
        return Err((ErrorCode::ClusterAuthorizationFailed, why.into()));
    }
    let key = |name: &str, id| match version {
        13.. => TopicKey::Id(id),
        _ => TopicKey::Name(Rc::from(name)),
    };
    let epoch = |epoch: i32| (epoch >= 0).then_some(LeaderEpoch(epoch));
    let mut wants = Vec::new();
    for topic in request.topics.iter() {
        let topic_key = key(topic.topic, topic.topic_id);
        wants.extend(topic.partitions.iter().map(|partition| {
            let want = Want {
                offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                leader_epoch: epoch(partition.current_leader_epoch),
                last_fetched_epoch: epoch(partition.last_fetched_epoch),
            };
            ((topic_key.clone(), partition.partition), want)
        }));
    }
    let forgotten = request.forgotten_topics.iter().flat_map(|topic| {
        let topic_key = key(topic.topic, topic.topic_id);
        let each = topic.partitions.iter().map(move |index| (topic_key.clone(), index));
        each.collect::<Vec<_>>()
    });
    let (now, random) = (shard.env().now(), shard.env().random());
    let session = (request.session_id, request.session_epoch);
    let mut sessions = shard.0.sessions.borrow_mut();
    sessions.plan(now, session, wants, forgotten, random).map_err(|error| {
        let code = match error {
            SessionError::Unknown(_) => ErrorCode::FetchSessionIdNotFound,
            SessionError::Epoch { .. } => ErrorCode::InvalidFetchSessionEpoch,
            SessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
        };
        (code, error.to_string())
    })
}

impl Fetch {
    /// Reads, waits if there is too little, and answers.
    pub async fn finish<E: NetEnv>(
        mut self,
        shard: &Shard<E>,
        listener: &str,
    ) -> Outgoing<Bytes<E>> {
        let plan = match std::mem::replace(&mut self.plan, Err((ErrorCode::None, String::new()))) {
            Ok(plan) => plan,
            Err((code, why)) => {
                tracing::debug!(why, "fetch refused");
                return self.refused(code).into();
            }
        };
        let deadline = shard.env().now().after(self.max_wait);
        loop {
            let (targets, parts) = self.read(shard, &plan).await;
            let bytes: usize = parts.iter().map(|part| part.bytes).sum();
            let enough = bytes >= self.min_bytes
                || parts
                    .iter()
                    .any(|part| part.error != ErrorCode::None || part.diverging.is_some());
            let now = shard.env().now();
            if enough || now >= deadline || parts.is_empty() || shard.0.gate.is_closed() {
                return self.encode(shard, listener, &plan, parts);
            }
            let seen: Vec<_> = targets
                .into_iter()
                .zip(&parts)
                .filter_map(|(id, part)| Some((id?, Offset::from_wire(part.high_watermark)?)))
                .collect();
            // What was read is let go while waiting: it is read again, hot, with what came.
            drop(parts);
            wait_for_growth(shard, seen, deadline.since(now)).await;
        }
    }

    /// One round over all partitions: where each is, and what was found.
    async fn read<E: NetEnv>(
        &self,
        shard: &Shard<E>,
        plan: &Plan,
    ) -> (Vec<Option<TopicPartition>>, Vec<Part<E>>) {
        let image = shard.image();
        let mut targets = Vec::with_capacity(plan.wants.len());
        let mut parts: Vec<Option<Part<E>>> = Vec::with_capacity(plan.wants.len());
        let mut shares: BTreeMap<usize, (Vec<usize>, Vec<ReadSpec>)> = BTreeMap::new();
        for (at, (key, want)) in plan.wants.iter().enumerate() {
            match find(&image, shard, key, want) {
                Ok(spec) => {
                    let share = shares.entry(shard.owner(spec.id)).or_default();
                    share.0.push(at);
                    share.1.push(spec);
                    targets.push(Some(spec.id));
                    parts.push(None);
                }
                Err(error) => {
                    targets.push(None);
                    parts.push(Some(Part::failed(error)));
                }
            }
        }
        let own = shares.remove(&shard.0.index);
        let calls: Vec<_> = shares
            .into_iter()
            .map(|(owner, (places, specs))| {
                let call = Call::Read(ReadCall { parts: specs, bytes_max: self.bytes_max });
                (places, shard.mesh().call(shard.env(), owner, call))
            })
            .collect();
        if let Some((places, specs)) = own {
            let call = ReadCall { parts: specs, bytes_max: self.bytes_max };
            for (at, part) in places.into_iter().zip(read::read(shard, &call).await) {
                parts[at] = Some(Part::found(part, Bytes::Here));
            }
        }
        for (places, mut call) in calls {
            let Answer::Read(found) = call.answer().await else {
                unreachable!("an answer is of its call's kind")
            };
            for (at, part) in places.into_iter().zip(found) {
                parts[at] = Some(Part::found(part, Bytes::There));
            }
        }
        let mut parts: Vec<_> =
            parts.into_iter().map(|part| part.expect("each was read")).collect();
        keep_within(&mut parts, self.bytes_max);
        (targets, parts)
    }

    fn refused(&self, error_code: ErrorCode) -> Encoded {
        let response = FetchResponse { error_code, ..Default::default() };
        encode_response(&response, self.version, self.correlation_id)
    }

    fn encode<E: NetEnv>(
        &self,
        shard: &Shard<E>,
        listener: &str,
        plan: &Plan,
        parts: Vec<Part<E>>,
    ) -> Outgoing<Bytes<E>> {
        let image = shard.image();
        let mut leaders = Leaders::new(&image, listener);
        let mut topics: Vec<ResponseTopic<'_>> = Vec::new();
        let mut partitions: Vec<ResponsePartition<'_>> = Vec::new();
        let mut records: Vec<Vec<Bytes<E>>> = Vec::new();
        let mut current: Option<&TopicKey> = None;
        for ((key, _), part) in plan.wants.iter().zip(parts) {
            let seen = Seen { high_watermark: part.high_watermark, log_start: part.log_start };
            let news = shard.0.sessions.borrow_mut().is_news(plan.session, key, seen);
            let silent =
                part.bytes == 0 && part.error == ErrorCode::None && part.diverging.is_none();
            if plan.incremental && silent && !news {
                continue;
            }
            if current.is_some_and(|current| *current != key.0) {
                topics.push(topic_of(current, std::mem::take(&mut partitions)));
            }
            current = Some(&key.0);
            let mut response = part.response(key.1, records.len() as u32);
            if self.version >= LEADERS_VERSION_MIN {
                response.current_leader = leaders.of(part.error, id_of(&image, key));
            }
            partitions.push(response);
            records.push(part.slices);
        }
        if !partitions.is_empty() {
            topics.push(topic_of(current, partitions));
        }
        let response = FetchResponse {
            session_id: plan.session,
            topics: topics.into(),
            node_endpoints: leaders.endpoints().into(),
            ..Default::default()
        };
        encode_response(&response, self.version, self.correlation_id).with_records(records)
    }
}

fn topic_of<'a>(key: Option<&'a TopicKey>, parts: Vec<ResponsePartition<'a>>) -> ResponseTopic<'a> {
    let mut topic = ResponseTopic { partitions: parts.into(), ..Default::default() };
    match key {
        Some(TopicKey::Name(name)) => topic.topic = Cow::Borrowed(name),
        Some(TopicKey::Id(id)) => topic.topic_id = *id,
        None => {}
    }
    topic
}

fn id_of(image: &Image, key: &Key) -> Option<TopicPartition> {
    let topic = match &key.0 {
        TopicKey::Name(name) => image.topic(name)?.id,
        TopicKey::Id(id) => *id,
    };
    Some(TopicPartition { topic, partition: PartitionIndex(key.1) })
}

/// Where a wanted partition is, or why it cannot be read.
fn find<E: NetEnv>(
    image: &Image,
    shard: &Shard<E>,
    key: &Key,
    want: &Want,
) -> Result<ReadSpec, ErrorCode> {
    let topic = match &key.0 {
        TopicKey::Name(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?,
        TopicKey::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId)?,
    };
    let index = PartitionIndex(key.1);
    let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if partition.leader != Some(shard.options().me) {
        return Err(errors::of_unavailable(&Unavailable::NotLeader));
    }
    Ok(ReadSpec {
        id: TopicPartition { topic: topic.id, partition: index },
        from: Offset::from_wire(want.offset).ok_or(ErrorCode::OffsetOutOfRange)?,
        bytes_max: usize::try_from(want.bytes_max).unwrap_or(0),
        leader_epoch: want.leader_epoch,
        last_fetched_epoch: want.last_fetched_epoch,
    })
}

/// Several shards each kept to the limit; together they may not have. In request order, what does
/// not fit any more is left for the next request; the first batches always fit.
fn keep_within<E: NetEnv>(parts: &mut [Part<E>], bytes_max: usize) {
    let mut total = 0;
    for part in parts {
        if total > 0 && total + part.bytes > bytes_max {
            part.slices.clear();
            part.bytes = 0;
        }
        total += part.bytes;
    }
}

/// Waits until one of the partitions has grown, on whichever shard.
async fn wait_for_growth<E: NetEnv>(
    shard: &Shard<E>,
    seen: Vec<(TopicPartition, Offset)>,
    wait_max: Duration,
) {
    let mut shares: BTreeMap<usize, Vec<(TopicPartition, Offset)>> = BTreeMap::new();
    for (id, offset) in seen {
        shares.entry(shard.owner(id)).or_default().push((id, offset));
    }
    let own = Growth { partitions: shares.remove(&shard.0.index).unwrap_or_default(), wait_max };
    let mut calls: Vec<_> = shares
        .into_iter()
        .map(|(owner, partitions)| {
            let call = Call::Park(Growth { partitions, wait_max });
            shard.mesh().call(shard.env(), owner, call)
        })
        .collect();
    let mut first_of_others = Box::pin(async {
        let mut answers: Vec<_> = calls.iter_mut().map(|call| Box::pin(call.answer())).collect();
        std::future::poll_fn(|cx| {
            match answers.iter_mut().any(|answer| answer.as_mut().poll(cx).is_ready()) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    });
    future::or(read::grew(shard, &own), first_of_others.as_mut()).await;
}

impl<E: NetEnv> Part<E> {
    fn failed(error: ErrorCode) -> Part<E> {
        let (slices, diverging) = (Vec::new(), None);
        Part { high_watermark: -1, log_start: -1, error, diverging, slices, bytes: 0 }
    }

    fn found<S>(part: ReadPart<S>, wrap: impl Fn(S) -> Bytes<E>) -> Part<E> {
        match part.read {
            Ok(Found { slices, bytes, diverging }) => Part {
                high_watermark: part.high_watermark.to_wire(),
                log_start: part.log_start.to_wire(),
                error: ErrorCode::None,
                diverging,
                slices: slices.into_iter().map(wrap).collect(),
                bytes,
            },
            Err(fault) => {
                if let Fault::Read(error) = &fault
                    && !matches!(error, engine::log::ReadError::OutOfRange { .. })
                {
                    tracing::error!(%error, "a partition could not be read");
                }
                Part::failed(errors::of_fetch(&fault))
            }
        }
    }

    fn response<'a>(&self, index: i32, slot: u32) -> ResponsePartition<'a> {
        let diverging = self
            .diverging
            .map(|(epoch, end)| EpochEndOffset { epoch: epoch.0, end_offset: end.to_wire() });
        ResponsePartition {
            partition_index: index,
            error_code: self.error,
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            log_start_offset: self.log_start,
            diverging_epoch: diverging.unwrap_or_default(),
            aborted_transactions: None,
            records: Some(match self.bytes {
                0 => Records::Here(&[]),
                len => Records::Elsewhere { slot, len },
            }),
            ..Default::default()
        }
    }
}
