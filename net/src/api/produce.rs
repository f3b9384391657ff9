//! Produce: batches in, offsets out, each at the durability that its acks ask for.
//!
//! In two steps. [`start`] is synchronous where it matters: it decodes the request (borrowing the
//! frame), finds each partition's owner, checks and appends the batches of this shard and sends the
//! others on, one message per shard. So batches of one connection reach a partition in the order
//! in which they were sent, also while earlier ones still wait for the device. [`Produce::finish`]
//! then waits for the tickets, at most `timeout_ms`, and encodes the answer.
//!
//! Deliberately absent: transactions (a transactional id is refused), batches of the formats 0
//! and 1 (Kafka 4 has no down-conversion either).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use coordinator::image::Image;
use engine::batch::{self, BatchError, Codec};
use engine::ids::{PartitionIndex, TopicId, TopicPartition};
use engine::time::Instant;
use futures_lite::future;
use replication::partition::Refused;
use replication::{Acks, Ticket};

use super::leaders::Leaders;
use super::{admin, errors};
use crate::env::NetEnv;
use crate::frame::Frame;
use crate::mesh::Awaited;
use crate::partitions::Unavailable;
use crate::shard::{Answer, Call, Shard};
use crate::wire::produce::{
    ProduceRequest, ProduceResponse, RecordError, ResponsePartition, ResponseTopic,
};
use crate::wire::{Encoded, ErrorCode, encode_response};

/// Batches for partitions of one shard.
pub struct ProduceCall {
    /// The request that they stand in.
    pub frame: Frame,
    /// Version of that request.
    pub version: i16,
    /// Who must have them.
    pub acks: Acks,
    /// Which, in request order.
    pub parts: Vec<Part>,
}

/// One partition's record set.
pub struct Part {
    /// The partition.
    pub id: TopicPartition,
    /// Where in the frame its bytes are.
    pub range: Range<usize>,
}

impl ProduceCall {
    /// The partitions that it is for.
    pub fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.parts.iter().map(|part| part.id)
    }
}

/// What became of one partition's batch.
pub type Outcome = Result<Done, Failure>;

/// A batch that is as durable as its acks ask.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Offset of its first record.
    pub base: i64,
    /// Stamped time, or -1.
    pub log_append_time: i64,
    /// First readable offset.
    pub log_start: i64,
}

/// Why a batch was not appended, or is not known to be durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The partition cannot be used.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The batch is not what a client may append.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The partition refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The device failed or was full after it was appended.
    #[error(transparent)]
    Lost(#[from] replication::partition::Lost),
    /// It was not durable in time. It may become so yet.
    #[error("the batch was not durable within the timeout")]
    TimedOut,
    /// The request was wrong for it.
    #[error("{1}")]
    Request(ErrorCode, &'static str),
}

/// Opens partitions, so that `append` finds them.
pub async fn open_all<E: NetEnv>(
    shard: &Shard<E>,
    partitions: impl Iterator<Item = TopicPartition>,
) {
    for id in partitions {
        if shard.0.partitions.opened(id).is_none() {
            // An error is found again, and told, when the batch is to be appended.
            let _ = shard.0.partitions.get(shard, id).await;
        }
    }
}

/// Batches that were appended, or refused, on their owner.
pub struct Appended(Vec<Result<Ticket, Failure>>);

/// Checks and appends batches of this shard's partitions. Synchronous.
pub fn append<E: NetEnv>(shard: &Shard<E>, call: &ProduceCall) -> Appended {
    let each = call.parts.iter().map(|part| append_one(shard, call, part));
    Appended(each.collect())
}

fn append_one<E: NetEnv>(
    shard: &Shard<E>,
    call: &ProduceCall,
    part: &Part,
) -> Result<Ticket, Failure> {
    let partition = match shard.0.partitions.opened(part.id) {
        Some(partition) => partition,
        None => return Err(shard.0.partitions.why_not(shard, part.id).into()),
    };
    let bytes = &call.frame[part.range.clone()];
    let rules = partition.log().config().rules(&shard.options().limits, shard.env().wall());
    let checked = batch::check(bytes, &rules)?;
    // Who writes zstd in an old request may be read by clients that have never heard of it
    // (KIP-110; Kafka's `ProduceRequest.validateRecords`).
    if call.version < ZSTD_VERSION_MIN && checked.attributes().codec() == Some(Codec::Zstd) {
        return Err(Failure::Request(ErrorCode::UnsupportedCompressionType, NO_ZSTD));
    }
    Ok(partition.append(&checked, call.acks)?)
}

impl Appended {
    /// Waits for all of them.
    pub async fn done(self) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(self.0.len());
        for ticket in self.0 {
            outcomes.push(done(ticket).await);
        }
        outcomes
    }
}

async fn done(ticket: Result<Ticket, Failure>) -> Outcome {
    let ticket = ticket?;
    ticket.done().await?;
    Ok(Done {
        base: ticket.appended.base.to_wire(),
        log_append_time: ticket.appended.log_append_time.0,
        log_start: ticket.log_start.to_wire(),
    })
}

/// Waits for `what`, but not beyond the deadline if there is one.
pub(crate) async fn in_time<E: NetEnv, T>(
    shard: &Shard<E>,
    deadline: Option<Instant>,
    what: impl Future<Output = T>,
) -> Option<T> {
    let Some(deadline) = deadline else { return Some(what.await) };
    let mut what = std::pin::pin!(what);
    // What is ready needs no timer.
    if let Some(ready) = future::poll_once(&mut what).await {
        return Some(ready);
    }
    let expired = async {
        shard.env().sleep_until(deadline).await;
        None
    };
    future::or(async { Some(what.await) }, expired).await
}

/// A Produce on its way.
pub struct Produce<E: NetEnv> {
    version: i16,
    correlation_id: i32,
    acks: Acks,
    timeout: Duration,
    topics: Vec<Topic>,
    /// Of this shard: places in `topics`, and what was appended.
    own: Option<(Vec<(usize, usize)>, Appended)>,
    /// Of other shards.
    calls: Vec<Sent<E>>,
}

/// A call to another shard: where its outcomes belong, and the answer on its way.
type Sent<E> = (Vec<(usize, usize)>, Awaited<E, Call, Answer>);

struct Topic {
    name: String,
    id: TopicId,
    partitions: Vec<(i32, Option<Outcome>)>,
}

/// One shard's part of a request: where its outcomes belong, and what to append.
type Share = (Vec<(usize, usize)>, Vec<Part>);

/// Which partitions of this shard the request is for: those must be open before `start`.
pub fn own_partitions<E: NetEnv>(
    shard: &Shard<E>,
    request: &ProduceRequest<'_>,
) -> Vec<TopicPartition> {
    let image = shard.image();
    let mut own = Vec::new();
    for topic in request.topics.iter() {
        let found = super::topic_of(&image, topic.name, topic.topic_id);
        let Some(found) = found else { continue };
        for partition in topic.partitions.iter() {
            let id = TopicPartition { topic: found.id, partition: PartitionIndex(partition.index) };
            if shard.owns(id) && shard.0.partitions.opened(id).is_none() {
                own.push(id);
            }
        }
    }
    own
}

/// Appends what is this shard's and sends on the rest. Synchronous.
pub fn start<E: NetEnv>(
    shard: &Shard<E>,
    frame: &Frame,
    request: &ProduceRequest<'_>,
    version: i16,
    correlation_id: i32,
) -> Produce<E> {
    let (acks, refused) = match (request.acks, request.transactional_id) {
        (_, Some(_)) => (Acks::All, Some(NO_TRANSACTIONS)),
        (0, _) => (Acks::None, None),
        (1, _) => (Acks::Leader, None),
        (-1, _) => (Acks::All, None),
        _ => (Acks::All, Some((ErrorCode::InvalidRequiredAcks, "acks must be 0, 1 or -1 (all)"))),
    };
    let mut produce = Produce {
        version,
        correlation_id,
        acks,
        timeout: Duration::from_millis(request.timeout_ms.max(0) as u64),
        topics: Vec::with_capacity(request.topics.len()),
        own: None,
        calls: Vec::new(),
    };
    let mut shares = BTreeMap::new();
    produce.resolve(shard, frame, request, refused, &mut shares);
    for (owner, (places, parts)) in shares {
        let call = ProduceCall { frame: frame.clone(), version, acks, parts };
        if owner == shard.0.index {
            produce.own = Some((places, append(shard, &call)));
        } else {
            let call = shard.mesh().call(shard.env(), owner, Call::Produce(call));
            produce.calls.push((places, call));
        }
    }
    produce
}

/// First version that may carry zstd.
const ZSTD_VERSION_MIN: i16 = 7;
const NO_ZSTD: &str = "a produce request needs version 7 to carry zstd";

const NO_TRANSACTIONS: (ErrorCode, &str) =
    (ErrorCode::InvalidRequest, "transactions are not supported by this broker yet");

impl<E: NetEnv> Produce<E> {
    /// Whether the client waits for an answer.
    pub fn is_answered(&self) -> bool {
        self.acks != Acks::None
    }

    fn resolve(
        &mut self,
        shard: &Shard<E>,
        frame: &Frame,
        request: &ProduceRequest<'_>,
        refused: Option<(ErrorCode, &'static str)>,
        shares: &mut BTreeMap<usize, Share>,
    ) {
        let image = shard.image();
        let me = shard.options().me;
        for asked in request.topics.iter() {
            let found = super::topic_of(&image, asked.name, asked.topic_id);
            let at = self.topics.len();
            let mut partitions = Vec::with_capacity(asked.partitions.len());
            for part in asked.partitions.iter() {
                let index = PartitionIndex(part.index);
                let known = found.and_then(|topic| Some((topic.id, topic.partition(index)?)));
                let failure = match (refused, known, part.records) {
                    (Some((code, why)), ..) => Failure::Request(code, why),
                    (None, None, _) if found.is_none() && self.version >= 13 => {
                        Failure::Request(ErrorCode::UnknownTopicId, "no topic has this id")
                    }
                    (None, None, _) => Unavailable::Unknown.into(),
                    // What machines keep there is theirs alone (Kafka lets no client write it
                    // either).
                    (None, Some(_), _) if found.is_some_and(|t| admin::is_internal(&t.name)) => {
                        Failure::Request(ErrorCode::InvalidTopic, "the topic is the broker's own")
                    }
                    // A follower's owner refuses, so that the partition knows whom (it may lead
                    // before the producer's next batch, which is on its way already, comes).
                    (None, Some((_, known)), _)
                        if known.leader != Some(me) && !known.replicas.contains(&me) =>
                    {
                        Unavailable::NotLeader.into()
                    }
                    (None, Some(_), None) => {
                        Failure::Request(ErrorCode::InvalidRecord, "there is no record set")
                    }
                    (None, Some((topic, _)), Some(records)) => {
                        let id = TopicPartition { topic, partition: index };
                        let share = shares.entry(shard.owner(id)).or_default();
                        share.0.push((at, partitions.len()));
                        share.1.push(Part { id, range: frame.range_of(records.bytes()) });
                        partitions.push((part.index, None));
                        continue;
                    }
                };
                partitions.push((part.index, Some(Err(failure))));
            }
            let (name, id) = (asked.name.to_owned(), asked.topic_id);
            self.topics.push(Topic { name, id, partitions });
        }
    }

    /// Waits until everything is as durable as asked, or the time is up, and encodes the answer.
    /// `None`: `acks = 0`, nothing to answer; an error then closes the connection, as in Kafka,
    /// because the client has no other way to hear of it.
    pub async fn finish(
        mut self,
        shard: &Shard<E>,
        listener: &str,
    ) -> Result<Option<Encoded>, ErrorCode> {
        let deadline = shard.env().now().after(self.timeout);
        let deadline = (self.acks == Acks::All).then_some(deadline);
        if let Some((places, appended)) = self.own.take() {
            for ((topic, partition), ticket) in places.into_iter().zip(appended.0) {
                let outcome = in_time(shard, deadline, done(ticket)).await;
                let outcome = outcome.unwrap_or(Err(Failure::TimedOut));
                self.topics[topic].partitions[partition].1 = Some(outcome);
            }
        }
        for (places, mut call) in std::mem::take(&mut self.calls) {
            let outcomes = match in_time(shard, deadline, call.answer()).await {
                Some(Answer::Produced(outcomes)) => outcomes,
                Some(_) => unreachable!("an answer is of its call's kind"),
                None => places.iter().map(|_| Err(Failure::TimedOut)).collect(),
            };
            for ((topic, partition), outcome) in places.into_iter().zip(outcomes) {
                self.topics[topic].partitions[partition].1 = Some(outcome);
            }
        }
        self.encode(&shard.image(), listener)
    }

    fn encode(self, image: &Image, listener: &str) -> Result<Option<Encoded>, ErrorCode> {
        if self.acks == Acks::None {
            let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
            return match partitions
                .filter_map(|(_, outcome)| outcome.as_ref()?.as_ref().err())
                .next()
            {
                Some(failure) => Err(errors::of_produce(failure)),
                None => Ok(None),
            };
        }
        let mut leaders = Leaders::new(image, listener);
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|topic| {
                let id = super::topic_of(image, &topic.name, topic.id).map(|found| found.id);
                let partitions =
                    topic.partitions.iter().map(|of| response_of(of, id, &mut leaders));
                ResponseTopic {
                    name: Cow::Borrowed(topic.name.as_str()),
                    topic_id: topic.id,
                    partitions: partitions.collect(),
                }
            })
            .collect();
        let response = ProduceResponse {
            topics: topics.into(),
            node_endpoints: leaders.endpoints().into(),
            ..Default::default()
        };
        Ok(Some(encode_response(&response, self.version, self.correlation_id)))
    }
}

fn response_of(
    (index, outcome): &(i32, Option<Outcome>),
    topic: Option<TopicId>,
    leaders: &mut Leaders<'_>,
) -> ResponsePartition<'static> {
    match outcome.as_ref().expect("every partition has its outcome") {
        Ok(done) => ResponsePartition {
            index: *index,
            base_offset: done.base,
            log_append_time_ms: done.log_append_time,
            log_start_offset: done.log_start,
            ..Default::default()
        },
        Err(failure) => {
            let message = failure.to_string();
            let record = match failure {
                Failure::Batch(error) => error.record(),
                _ => None,
            };
            let record_errors = record.map(|at| RecordError {
                batch_index: at as i32,
                message: Some(Cow::Owned(message.clone())),
            });
            let error_code = errors::of_produce(failure);
            let partition = PartitionIndex(*index);
            let id = topic.map(|topic| TopicPartition { topic, partition });
            ResponsePartition {
                index: *index,
                error_code,
                current_leader: leaders.of(error_code, id),
                base_offset: -1,
                record_errors: record_errors.into_iter().collect(),
                error_message: Some(Cow::Owned(message)),
                ..Default::default()
            }
        }
    }
}
