//! Every API but Produce and Fetch: decoded, carried out and answered in one go, one after the
//! other on each connection. One file for each group of APIs; what they share is here.
//!
//! Deliberately absent, everywhere: throttling (`throttle_time_ms` is 0) and authorization
//! (whoever asks may do everything, as in Kafka without an authorizer).

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::{Broker, Endpoint};
use coordinator::controller::{Refusal, Reply, Request};
use coordinator::image::Image;
use engine::env::Queue;
use engine::ids::{PartitionIndex, TopicPartition};
use engine::time::Instant;
use engine::wait::Watch;

use super::{
    alter_configs, api_versions, cluster, consumer_groups, create_topics, describe_configs,
    describe_groups, describe_topics, elect_leaders, errors, features, find_coordinator,
    group_offsets, groups, log_dirs, metadata, offsets, produce, producers, quorum, reassignments,
    topics,
};
use crate::ask::{Ask, Told};
use crate::env::NetEnv;
use crate::groups::OFFSETS_TOPIC;
use crate::partitions::Unavailable;
use crate::shard::Shard;
use crate::wire::{
    DecodeError, DecodeErrorKind, Encoded, ErrorCode, Message, Reader, RequestHeader,
    encode_response,
};

/// Longest body that is looked at, in bytes; who sends a longer one loses the connection. What is
/// made of a request is larger than the request (many times, where it names what does not exist),
/// and what Kafka's own tools send for 100,000 topics has a tenth of this.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// What answering a request takes from its header, and from the connection that it came by.
#[derive(Clone, Copy, Debug)]
pub struct Header<'c> {
    /// In which version it asks, and is answered.
    pub version: i16,
    /// The client's number for it.
    pub correlation_id: i32,
    /// Name of the listener that the client is connected to: brokers are told as they are reached
    /// by it.
    pub listener: &'c str,
    /// The client's name for itself.
    pub client_id: Option<&'c str>,
    /// Where the client is.
    pub peer: SocketAddr,
}

impl Header<'_> {
    /// Of a request that nobody sent, by the listener `here`.
    #[cfg(test)]
    pub(super) fn of_test(version: i16) -> Header<'static> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Header { version, correlation_id: 0, listener: "here", client_id: None, peer }
    }

    /// Encodes the answer.
    pub fn encode<'a>(&self, response: &impl Message<'a>) -> Encoded {
        encode_response(response, self.version, self.correlation_id)
    }
}

/// Answers a request of any API but Produce and Fetch, which came by `listener`. Bytes behind the
/// body are ignored, as Kafka does.
pub async fn answer<E: NetEnv>(
    shard: &Shard<E>,
    (listener, peer): (&str, SocketAddr),
    header: &RequestHeader<'_>,
    body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    if body.remaining() > BODY_BYTES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let (key, version) = (header.api.key, header.version);
    let RequestHeader { correlation_id, client_id, .. } = *header;
    let header = Header { version, correlation_id, listener, client_id, peer };
    match key {
        2 => offsets::list_offsets(shard, header, body).await,
        3 => metadata::metadata(shard, header, body).await,
        8 => group_offsets::commit(shard, header, body).await,
        9 => group_offsets::fetch(shard, header, body).await,
        10 => find_coordinator::find_coordinator(shard, header, body).await,
        11 => groups::join(shard, header, body).await,
        12 => groups::heartbeat(shard, header, body).await,
        13 => groups::leave(shard, header, body).await,
        14 => groups::sync(shard, header, body).await,
        15 => describe_groups::describe(shard, header, body).await,
        16 => describe_groups::list(shard, header, body).await,
        18 => api_versions::api_versions(shard, header, body),
        19 => create_topics::create_topics(shard, header, body).await,
        20 => topics::delete_topics(shard, header, body).await,
        21 => offsets::delete_records(shard, header, body).await,
        22 => producers::init_producer_id(shard, header, body).await,
        23 => offsets::offset_for_leader_epoch(shard, header, body).await,
        32 => describe_configs::describe_configs(shard, header, body).await,
        33 => alter_configs::alter_configs(shard, header, body).await,
        35 => log_dirs::describe_log_dirs(shard, header, body).await,
        37 => topics::create_partitions(shard, header, body).await,
        42 => describe_groups::delete(shard, header, body).await,
        43 => elect_leaders::elect_leaders(shard, header, body).await,
        44 => alter_configs::incremental_alter_configs(shard, header, body).await,
        45 => reassignments::alter(shard, header, body).await,
        46 => reassignments::list(shard, header, body).await,
        47 => group_offsets::delete(shard, header, body).await,
        55 => quorum::describe_quorum(shard, header, body).await,
        57 => features::update_features(shard, header, body).await,
        60 => cluster::describe_cluster(shard, header, body),
        61 => producers::describe_producers(shard, header, body).await,
        64 => cluster::unregister_broker(shard, header, body).await,
        68 => consumer_groups::heartbeat(shard, header, body).await,
        69 => consumer_groups::describe(shard, header, body).await,
        74 => cluster::list_config_resources(shard, header, body),
        75 => describe_topics::describe_topic_partitions(shard, header, body).await,
        _ => Err(body.error(DecodeErrorKind::UnsupportedVersion)),
    }
}

/// The partition, if this broker leads it.
pub(super) fn led<E: NetEnv>(
    shard: &Shard<E>,
    image: &Image,
    topic: &str,
    index: i32,
) -> Result<TopicPartition, Unavailable> {
    let topic = image.topic(topic).ok_or(Unavailable::Unknown)?;
    let index = PartitionIndex(index);
    let partition = topic.partition(index).ok_or(Unavailable::Unknown)?;
    if partition.leader != Some(shard.options().me) {
        return Err(Unavailable::NotLeader);
    }
    Ok(TopicPartition { topic: topic.id, partition: index })
}

/// Looks at those partitions that there are; one answer for each, in the same order.
pub(super) async fn survey<E: NetEnv>(
    shard: &Shard<E>,
    asks: Vec<Result<Ask, Unavailable>>,
) -> Vec<Result<Told, Unavailable>> {
    let refused: Vec<_> = asks.iter().map(|ask| ask.as_ref().err().cloned()).collect();
    let mut told = shard.ask(asks.into_iter().flatten().collect()).await.into_iter();
    let each = refused.into_iter().map(|refused| match refused {
        Some(error) => Err(error),
        None => Ok(told.next().expect("each is told")),
    });
    each.collect()
}

/// Looks at partitions, and waits until `deadline` at most. What was begun is carried out to its
/// end even when nobody waits for it any more: half a deletion, or a log that is half open, would
/// be in everyone's way.
pub(super) async fn ask_until<E: NetEnv>(
    shard: &Shard<E>,
    asks: Vec<Ask>,
    deadline: Instant,
) -> Option<Vec<Told>> {
    let told = Rc::new(Cell::new(None));
    let done = Watch::new(0);
    let (asking, tell, finish) = (shard.clone(), told.clone(), done.clone());
    shard.env().spawn(Queue::Request, async move {
        tell.set(Some(asking.ask(asks).await));
        finish.raise(1);
    });
    produce::in_time(shard, Some(deadline), done.reach(1)).await?.ok()?;
    told.take()
}

/// Why the controller gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// Not within the time that the client gave. What it asked for may happen yet.
    #[error("the request timed out")]
    TimedOut,
    /// The process is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

/// Asks the controller, and waits for at most `timeout_ms`. When it has answered, every shard
/// knows what it decided.
pub(crate) async fn decide<E: NetEnv>(
    shard: &Shard<E>,
    request: Request,
    timeout_ms: i32,
) -> Result<Reply, NoReply> {
    let deadline = deadline(shard, timeout_ms);
    match produce::in_time(shard, Some(deadline), shard.control(request)).await {
        Some(Some(reply)) => Ok(reply),
        Some(None) => Err(NoReply::Stopping),
        None => Err(NoReply::TimedOut),
    }
}

/// What a request costs that names topics again and again where it itself names them once.
#[derive(Default)]
pub(super) struct Cost(usize);

/// Most bytes that are made of one request before the controller sees it.
const COST_MAX: usize = 64 << 20;

impl Cost {
    /// Adds one thing of this name, with so many brokers in it. Whether the request may still have
    /// it; who asks for more loses the connection.
    pub fn affords(&mut self, name: &str, brokers: usize) -> bool {
        self.0 = self.0.saturating_add(name.len() + brokers.saturating_mul(4) + 64);
        self.0 <= COST_MAX
    }
}

/// What was decided of one thing, as code and sentence.
pub(super) fn outcome(decided: Result<(), Refusal>) -> (ErrorCode, Option<Cow<'static, str>>) {
    match decided {
        Ok(()) => (ErrorCode::None, None),
        Err(Refusal { why, message }) => (errors::of_refusal(why), Some(Cow::Owned(message))),
    }
}

/// The end of the time that a client gave; none where it gave a negative one.
pub(super) fn deadline<E: NetEnv>(shard: &Shard<E>, timeout_ms: i32) -> Instant {
    let timeout = u64::try_from(timeout_ms).unwrap_or(0);
    shard.env().now().after(Duration::from_millis(timeout))
}

/// How clients of `listener` reach a broker.
pub(super) fn endpoint<'b>(broker: &'b Broker, listener: &str) -> Option<&'b Endpoint> {
    broker.endpoints.iter().find(|endpoint| endpoint.listener == listener)
}

/// Whether clients of `listener` reach a broker: it listens there, and is alive as far as is known.
pub(super) fn is_reached(broker: &Broker, listener: &str) -> bool {
    !broker.fenced && endpoint(broker, listener).is_some()
}

/// The broker that clients are told is the controller: requests for it are taken by any broker.
/// One that they can reach by `listener`, the one with the active controller first, or -1.
pub(super) fn controller_id(image: &Image, listener: &str) -> i32 {
    let reached = |broker: &&Arc<Broker>| is_reached(broker, listener);
    let active = image.controller().and_then(|id| image.broker(id)).filter(reached);
    active.or_else(|| image.brokers().find(reached)).map_or(-1, |broker| broker.id.0)
}

/// Whether the topic is one that Kafka keeps for itself (`Topic.isInternal`).
pub(crate) fn is_internal(topic: &str) -> bool {
    matches!(topic, OFFSETS_TOPIC | "__transaction_state" | "__share_group_state")
}

/// What anybody may do to a topic, as bits of Kafka's `AclOperation`: read, write, create, delete,
/// alter, describe, describe and alter its configuration.
pub(super) const TOPIC_OPERATIONS: i32 = 0x0df8;

/// The same of the cluster: create, alter, describe, cluster action, describe and alter
/// configurations, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = 0x1fa0;
