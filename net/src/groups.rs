//! Consumer groups on this broker. A group is kept by the broker that leads its partition of
//! `__consumer_offsets`, on the shard that owns the partition; the topic is made when the first
//! group is looked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coordinator::cluster::Topic;
use coordinator::controller;
use coordinator::controller::NewTopic;
use coordinator::group::consumer::topics::View;
use coordinator::group::request::{Reply, Request};
use coordinator::group::{Groups, partition_of};
use coordinator::journal::{Journal, ProposeError};
use coordinator::runtime::{RequestError, Runtime};
use engine::env::Queue;
use engine::ids::{BrokerId, PartitionIndex, TopicPartition};
use replication::Partition;

use crate::api::{admin, produce};
use crate::env::NetEnv;
use crate::shard::{Answer, Call, Shard};
use crate::wire::ErrorCode;

/// Name of the topic in which groups are kept (Kafka's `Topic.GROUP_METADATA_TOPIC_NAME`).
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How long whoever looks for a group waits for the topic to be made, in milliseconds.
const CREATION_WAIT_MS: i32 = 5_000;

/// Numbers of the topic in which groups are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsTopic {
    /// How many partitions it gets (`offsets.topic.num.partitions`).
    pub partitions: i32,
    /// How many replicas each of them gets (`offsets.topic.replication.factor`); fewer where the
    /// cluster has fewer brokers.
    pub replicas: i16,
    /// Bytes of a segment (`offsets.topic.segment.bytes`).
    pub segment_bytes: i64,
    /// How long a request that writes may wait for its records to be committed
    /// (`offsets.commit.timeout.ms`).
    pub commit_max: Duration,
}

impl Default for OffsetsTopic {
    fn default() -> OffsetsTopic {
        OffsetsTopic {
            partitions: 50,
            replicas: 3,
            segment_bytes: 100 << 20,
            commit_max: Duration::from_secs(5),
        }
    }
}

/// Where a group is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The partition of its records.
    pub partition: TopicPartition,
    /// Who leads that, if anybody does.
    pub leader: Option<BrokerId>,
}

/// Where a group is kept, as far as this broker knows; `None` while the topic is not there.
pub fn home<E: NetEnv>(shard: &Shard<E>, group: &str) -> Option<Home> {
    shard.image().topic(OFFSETS_TOPIC).map(|topic| home_in(topic, group))
}

/// Where a group is kept.
pub fn home_in(topic: &Topic, group: &str) -> Home {
    let partition = PartitionIndex(partition_of(group, topic.partitions.len() as i32));
    let leader = topic.partition(partition).and_then(|known| known.leader);
    Home { partition: TopicPartition { topic: topic.id, partition }, leader }
}

/// The topic in which groups are kept; made if it is not there. `None`: it cannot be made now,
/// because too few brokers are up or nobody decides.
pub async fn topic<E: NetEnv>(shard: &Shard<E>) -> Option<Arc<Topic>> {
    let image = shard.image();
    if let Some(topic) = image.topic(OFFSETS_TOPIC) {
        return Some(topic.clone());
    }
    let config = &shard.options().broker.offsets_topic;
    // All that have ever been members count: who is down for a moment shall keep groups, too.
    let brokers = i16::try_from(image.brokers().count()).unwrap_or(i16::MAX);
    let overrides = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", config.segment_bytes.to_string()),
    ];
    let new = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: config.partitions,
        replication_factor: config.replicas.min(brokers),
        assignments: Vec::new(),
        overrides: overrides.map(|(name, value)| (name.to_owned(), Some(value))).into(),
    };
    let request = controller::Request::CreateTopics { topics: vec![new], validate_only: false };
    match admin::decide(shard, request, CREATION_WAIT_MS).await {
        Ok(controller::Reply::CreatedTopics(created)) => {
            for refusal in created.into_iter().filter_map(|(_, created)| created.err()) {
                // That somebody else was faster is no news.
                tracing::debug!(%refusal, "{OFFSETS_TOPIC} was not created");
            }
        }
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(error) => tracing::warn!(%error, "{OFFSETS_TOPIC} was not created"),
    }
    shard.image().topic(OFFSETS_TOPIC).cloned()
}

/// The groups that this shard keeps: a machine for each partition of the topic that it leads.
pub struct Kept<E: NetEnv>(RefCell<BTreeMap<TopicPartition, Machine<E>>>);

struct Machine<E: NetEnv> {
    journal: Journal<E>,
    runtime: Runtime<E, Groups>,
}

impl<E: NetEnv> Default for Kept<E> {
    fn default() -> Kept<E> {
        Kept(RefCell::default())
    }
}

impl<E: NetEnv> Kept<E> {
    /// A partition has got its role. If it is one of the topic, its machine is loaded, or goes with
    /// the term in which it was led.
    pub fn look(&self, shard: &Shard<E>, id: TopicPartition, partition: &Partition<E>) {
        let image = shard.image();
        if image.topic_by_id(id.topic).is_none_or(|topic| &*topic.name != OFFSETS_TOPIC) {
            return;
        }
        self.0.borrow_mut().retain(|_, machine| machine.journal.is_led());
        if shard.0.stopping.value() > 0 || !partition.is_leader() {
            return;
        }
        let mut machines = self.0.borrow_mut();
        if machines.contains_key(&id) {
            return;
        }
        let journal = Journal::new(partition.clone());
        let config = shard.options().broker.groups.clone();
        let runtime = Runtime::lead(shard.env(), journal.clone(), config);
        machines.insert(id, Machine { journal, runtime: runtime.clone() });
        // Until it knows the groups' own settings it cannot tell who was silent for too long.
        let shard = shard.clone();
        shard.env().clone().spawn(Queue::Request, async move {
            runtime.loaded().await;
            let _ = runtime.request(Request::See(View::new(shard.image()))).await;
        });
    }

    /// Ends all of them: who waits is told to look for the group elsewhere.
    pub fn stop(&self) {
        for (_, machine) in std::mem::take(&mut *self.0.borrow_mut()) {
            machine.runtime.stop();
        }
    }

    /// Topics are deleted, and what groups committed of them with them.
    pub fn forget_topics(&self, shard: &Shard<E>, topics: Vec<String>) {
        if topics.is_empty() {
            return;
        }
        for machine in self.0.borrow().values() {
            let (runtime, topics) = (machine.runtime.clone(), topics.clone());
            shard.env().spawn(Queue::Background, async move {
                // A machine that ends meanwhile leaves them to their retention, as in Kafka.
                let _ = runtime.request(Request::ForgetTopics(topics)).await;
            });
        }
    }

    fn machine(&self, id: TopicPartition) -> Option<Runtime<E, Groups>> {
        self.0.borrow().get(&id).map(|machine| machine.runtime.clone())
    }
}

/// Asks the machine that keeps `group`, on whichever shard it is.
pub async fn ask<E: NetEnv>(
    shard: &Shard<E>,
    group: &str,
    request: Request,
) -> Result<Reply, ErrorCode> {
    let home = home(shard, group).ok_or(ErrorCode::NotCoordinator)?;
    if home.leader != Some(shard.options().me) {
        return Err(ErrorCode::NotCoordinator);
    }
    ask_partition(shard, home.partition, request).await
}

/// Asks the machine of one partition, on whichever shard it is.
pub async fn ask_partition<E: NetEnv>(
    shard: &Shard<E>,
    id: TopicPartition,
    request: Request,
) -> Result<Reply, ErrorCode> {
    let owner = shard.owner(id);
    if owner == shard.0.index {
        return serve(shard, id, request).await;
    }
    let call = Call::Group(id, Box::new(request));
    match shard.mesh().call(shard.env(), owner, call).answer().await {
        Answer::Grouped(reply) => reply.map(|reply| *reply),
        _ => unreachable!("an answer is of its call's kind"),
    }
}

/// Asks the machine of one partition of this shard.
pub(crate) async fn serve<E: NetEnv>(
    shard: &Shard<E>,
    id: TopicPartition,
    request: Request,
) -> Result<Reply, ErrorCode> {
    let machine = match shard.0.groups.machine(id) {
        Some(machine) => machine,
        // Its log is not open yet, or its role not taken.
        None => {
            let opened = shard.0.partitions.get(shard, id).await;
            let partition = opened.map_err(|_| ErrorCode::NotCoordinator)?;
            shard.0.groups.look(shard, id, &partition);
            shard.0.groups.machine(id).ok_or(ErrorCode::NotCoordinator)?
        }
    };
    // Joins and syncs wait for other members, which has its own limits.
    let waits = matches!(request, Request::Join(_) | Request::Sync(_));
    let commit_max = shard.options().broker.offsets_topic.commit_max;
    let deadline = (!waits).then(|| shard.env().now().after(commit_max));
    let answer = produce::in_time(shard, deadline, machine.request(request)).await;
    match answer {
        Some(answer) => answer.map(|answer| answer.reply).map_err(|error| code_of(&error)),
        None => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

/// What a client is told, who looks again for the group or asks again (Kafka's
/// `GroupCoordinatorService.handleOperationException`).
fn code_of(error: &RequestError) -> ErrorCode {
    match error {
        RequestError::Loading => ErrorCode::CoordinatorLoadInProgress,
        RequestError::Busy
        | RequestError::Lost
        | RequestError::Refused(ProposeError::NoSpace | ProposeError::NotEnoughReplicas) => {
            ErrorCode::CoordinatorNotAvailable
        }
        RequestError::Refused(ProposeError::TooLarge { .. }) => ErrorCode::UnknownServerError,
        RequestError::NotCoordinator
        | RequestError::NotController { .. }
        | RequestError::Ended(_)
        | RequestError::Refused(ProposeError::NotLeader | ProposeError::Ended(_)) => {
            ErrorCode::NotCoordinator
        }
    }
}
