//! Producers: InitProducerId gives an idempotent producer its identity, DescribeProducers tells
//! which ones partitions remember.
//!
//! Ids come from the controller in blocks, one block for each shard at a time (KIP-730), so that a
//! new producer costs a message to the controller only once in a thousand times. Ids of a block
//! that are left when the process ends are never given out.
//!
//! Deliberately absent: transactions. A transactional id is refused here, before a producer that
//! counts on one writes anything.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use coordinator::controller::{ProducerIdBlock, Reply, Request, check_topic_name};
use engine::env::Queue;
use engine::ids::ProducerId;
use engine::producers::ActiveProducer;
use engine::wait::Watch;

use super::admin::{self, Header};
use super::errors;
use crate::ask::{Ask, Told};
use crate::env::NetEnv;
use crate::partitions::Unavailable;
use crate::shard::Shard;
use crate::wire::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, Producer, ResponsePartition, ResponseTopic,
};
use crate::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::{DecodeError, Encoded, ErrorCode, Reader};

/// How often one request waits for a new block of ids before it is told to come again: others may
/// take all of a block first.
const BLOCKS_AWAITED_MAX: usize = 3;

/// About how many producers one DescribeProducers tells at most: the partition with which the limit
/// is reached is told whole, those behind it are refused.
const PRODUCERS_TOLD_MAX: usize = 100_000;

/// The producer ids that a shard may give out.
#[derive(Default)]
pub struct ProducerIds {
    block: Cell<Option<ProducerIdBlock>>,
    /// Raised to 1 when the controller has answered, if it was asked.
    asked: RefCell<Option<Watch>>,
}

impl ProducerIds {
    fn take(&self) -> Option<ProducerId> {
        let ProducerIdBlock { first, count } = self.block.take()?;
        if count > 1 {
            let next = ProducerId(first.0 + 1);
            self.block.set(Some(ProducerIdBlock { first: next, count: count - 1 }));
        }
        Some(first)
    }
}

/// An id that nobody has; `None` when the controller gives none now.
async fn next_id<E: NetEnv>(shard: &Shard<E>) -> Option<ProducerId> {
    let ids = &shard.0.producer_ids;
    for _ in 0..BLOCKS_AWAITED_MAX {
        if let Some(id) = ids.take() {
            return Some(id);
        }
        let asked = ids.asked.borrow().clone();
        let answered = asked.unwrap_or_else(|| ask_for_block(shard));
        answered.reach(1).await.ok()?;
    }
    ids.take()
}

/// Asks the controller, in a task of its own: whoever needs the ids may leave meanwhile.
fn ask_for_block<E: NetEnv>(shard: &Shard<E>) -> Watch {
    let answered = Watch::new(0);
    *shard.0.producer_ids.asked.borrow_mut() = Some(answered.clone());
    let (asking, raise) = (shard.clone(), answered.clone());
    shard.env().spawn(Queue::Request, async move {
        let block = allocate(&asking).await;
        let ids = &asking.0.producer_ids;
        if block.is_some() {
            ids.block.set(block);
        }
        *ids.asked.borrow_mut() = None;
        raise.raise(1);
    });
    answered
}

async fn allocate<E: NetEnv>(shard: &Shard<E>) -> Option<ProducerIdBlock> {
    let broker = shard.options().me;
    let epoch = shard.image().broker(broker)?.epoch;
    match shard.control(Request::AllocateProducerIds { broker, epoch }).await? {
        Reply::AllocatedProducerIds(Ok(block)) => Some(block),
        Reply::AllocatedProducerIds(Err(refusal)) => {
            tracing::warn!(%refusal, "the controller gives no producer ids");
            None
        }
        _ => unreachable!("a reply is of its request's kind"),
    }
}

/// Answers InitProducerId (Kafka's `KafkaApis.handleInitProducerIdRequest` and
/// `TransactionCoordinator.handleInitProducerId`). A producer without a transactional id always
/// gets a new identity, whatever it had: it counts its own epochs.
pub async fn init_producer_id<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = InitProducerIdRequest::decode(&mut body, header.version)?;
    let (id, epoch) = (request.producer_id, request.producer_epoch);
    let given = if request.transactional_id.is_some() || (id == -1) != (epoch == -1) {
        Err(ErrorCode::InvalidRequest)
    } else {
        // What Kafka answers while a block is on its way; clients ask again.
        next_id(shard).await.ok_or(ErrorCode::CoordinatorLoadInProgress)
    };
    let response = match given {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, ..Default::default() },
        Err(error_code) => {
            InitProducerIdResponse { error_code, producer_epoch: -1, ..Default::default() }
        }
    };
    Ok(header.encode(&response))
}

/// Answers DescribeProducers (Kafka's `KafkaApis.handleDescribeProducersRequest`).
pub async fn describe_producers<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeProducersRequest::decode(&mut body, header.version)?;
    let image = shard.image();
    let mut left = PRODUCERS_TOLD_MAX;
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics.iter() {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes.iter() {
            let known = check_topic_name(topic.name)
                .map_err(|refusal| (errors::of_refusal(refusal.why), refusal.message));
            let found = known.and_then(|()| {
                let id = admin::led(shard, &image, topic.name, index).map_err(unavailable)?;
                if left == 0 || !seen.insert(id) {
                    let message = "Ask for fewer partitions, and for each of them once.";
                    return Err((ErrorCode::InvalidRequest, message.to_owned()));
                }
                Ok(id)
            });
            let told = match found {
                Ok(id) => shard.ask(vec![Ask::Producers(id)]).await.pop(),
                Err(refused) => {
                    partitions.push(described(index, Err(refused)));
                    continue;
                }
            };
            let Some(Told::Producers(producers)) = told else {
                unreachable!("what is told is of its question's kind")
            };
            left = left.saturating_sub(producers.as_ref().map_or(0, Vec::len));
            partitions.push(described(index, producers.map_err(unavailable)));
        }
        let name = Cow::Borrowed(topic.name);
        topics.push(ResponseTopic { name, partitions: partitions.into() });
    }
    let topics = topics.into();
    Ok(header.encode(&DescribeProducersResponse { topics, ..Default::default() }))
}

/// Why a partition is not described.
type Refused = (ErrorCode, String);

fn unavailable(error: Unavailable) -> Refused {
    (errors::of_unavailable(&error), error.to_string())
}

fn described(
    partition_index: i32,
    found: Result<Vec<ActiveProducer>, Refused>,
) -> ResponsePartition<'static> {
    let of = ResponsePartition { partition_index, ..Default::default() };
    match found {
        Ok(producers) => {
            let active_producers = producers.iter().map(producer).collect();
            ResponsePartition { active_producers, ..of }
        }
        Err((error_code, message)) => {
            ResponsePartition { error_code, error_message: Some(Cow::Owned(message)), ..of }
        }
    }
}

fn producer(active: &ActiveProducer) -> Producer {
    Producer {
        producer_id: active.id.0,
        producer_epoch: i32::from(active.epoch.0),
        last_sequence: active.last_sequence.map_or(-1, |sequence| sequence.to_wire()),
        last_timestamp: active.last_timestamp.0,
        // No transactions, so no coordinator has ever written a marker.
        coordinator_epoch: -1,
        ..Default::default()
    }
}
