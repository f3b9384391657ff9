//! Metadata: the cluster as the image has it, and topics that come to be because somebody asked
//! for them.
//!
//! A topic that is created here is described in the same answer: when the controller has answered,
//! every shard knows the topic. (Kafka answers `UNKNOWN_TOPIC_OR_PARTITION` at first and lets the
//! client ask again, which every client does; it then finds what this one is told at once.)

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use coordinator::cluster::{Partition, Topic};
use coordinator::controller::{NewTopic, Refusal, Reply, Request, Why, check_topic_name};
use coordinator::image::Image;
use engine::ids::{PartitionIndex, TopicId};

use super::admin::{self, Header};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::metadata::{
    Broker, MetadataRequest, MetadataResponse, OPERATIONS_UNKNOWN, ResponsePartition, ResponseTopic,
};
use crate::wire::{DecodeError, Encoded, ErrorCode, Reader};

/// How long an answer waits for topics to be created before it says that there are none.
const CREATION_WAIT_MS: i32 = 5_000;

/// Which topics a client wants to know about; no two the same.
enum Wanted<'a> {
    All,
    Names(Vec<&'a str>),
    Ids(Vec<TopicId>),
}

/// Why topics are not there that were to be created, by name.
type Refused<'a> = BTreeMap<&'a str, ErrorCode>;

/// Answers Metadata.
pub async fn metadata<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = MetadataRequest::decode(&mut body, header.version)?;
    let Some(wanted) = wanted(&request, header.version) else {
        return Ok(header.encode(&refused(&request)));
    };
    let mut failures = Refused::new();
    if let Wanted::Names(names) = &wanted
        && request.allow_auto_topic_creation
        && shard.options().broker.auto_create_topics
    {
        failures = create_missing(shard, names).await;
    }
    let image = shard.image();
    let describe = Describe {
        image: &image,
        header,
        operations: match request.include_topic_authorized_operations {
            true => admin::TOPIC_OPERATIONS,
            false => OPERATIONS_UNKNOWN,
        },
    };
    let mut topics = Vec::new();
    match wanted {
        Wanted::All => {
            for topic in image.topics() {
                topics.push(describe.topic(topic));
                shard.env().turn().await;
            }
        }
        Wanted::Names(names) => {
            for name in names {
                topics.push(describe.name(name, &failures));
                shard.env().turn().await;
            }
        }
        Wanted::Ids(ids) => {
            for id in ids {
                topics.push(describe.id(id));
                shard.env().turn().await;
            }
        }
    }
    let response = MetadataResponse {
        brokers: describe.brokers().collect(),
        cluster_id: image.cluster_id().map(|id| Cow::Borrowed(id.as_str())),
        controller_id: admin::controller_id(&image, header.listener),
        topics: topics.into(),
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => admin::CLUSTER_OPERATIONS,
            false => OPERATIONS_UNKNOWN,
        },
        ..Default::default()
    };
    Ok(header.encode(&response))
}

/// What the request is about; `None` if it contradicts its version.
fn wanted<'a>(request: &MetadataRequest<'a>, version: i16) -> Option<Wanted<'a>> {
    let Some(topics) = &request.topics else { return Some(Wanted::All) };
    if version == 0 && topics.is_empty() {
        return Some(Wanted::All);
    }
    let (mut names, mut ids) = (Vec::new(), Vec::new());
    let (mut names_seen, mut ids_seen) = (BTreeSet::new(), BTreeSet::new());
    for topic in topics.iter() {
        match (topic.name, topic.topic_id) {
            (Some(name), TopicId::ZERO) if names_seen.insert(name) => names.push(name),
            (_, id) if id != TopicId::ZERO && version >= 12 => {
                if ids_seen.insert(id) {
                    ids.push(id);
                }
            }
            (Some(_), TopicId::ZERO) => {}
            // Ids before they are allowed, or a topic without a name or an id.
            _ => return None,
        }
    }
    // As in Kafka: one id among them, and names do not count.
    Some(if ids.is_empty() { Wanted::Names(names) } else { Wanted::Ids(ids) })
}

fn refused<'a>(request: &MetadataRequest<'a>) -> MetadataResponse<'a> {
    let error_code = ErrorCode::InvalidRequest;
    let topics = request.topics.iter().flatten().map(|topic| ResponseTopic {
        error_code,
        // Null is not allowed before version 12.
        name: Some(Cow::Borrowed(topic.name.unwrap_or_default())),
        topic_id: topic.topic_id,
        ..Default::default()
    });
    MetadataResponse { topics: topics.collect(), error_code, ..Default::default() }
}

/// Creates those of the topics that are not there and may be.
async fn create_missing<'a, E: NetEnv>(shard: &Shard<E>, names: &[&'a str]) -> Refused<'a> {
    let image = shard.image();
    // Kafka's own topics are created by those who write them.
    let creatable = |name: &str| !admin::is_internal(name) && check_topic_name(name).is_ok();
    let missing: Vec<&'a str> = names
        .iter()
        .filter(|name| image.topic(name).is_none() && creatable(name))
        .copied()
        .collect();
    if missing.is_empty() {
        return Refused::new();
    }
    let topics = missing.iter().map(|name| NewTopic {
        name: (*name).to_owned(),
        partitions: -1,
        replication_factor: -1,
        assignments: Vec::new(),
        overrides: Vec::new(),
    });
    let request = Request::CreateTopics { topics: topics.collect(), validate_only: false };
    let created = match admin::decide(shard, request, CREATION_WAIT_MS).await {
        Ok(Reply::CreatedTopics(created)) => created,
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(_) => return Refused::new(),
    };
    // There is one for each: the names are distinct.
    let each = missing.into_iter().zip(created).filter_map(|(name, (_, created))| {
        let refusal = created.err()?;
        tracing::info!(topic = name, %refusal, "a topic was not created");
        Some((name, of_creation(&refusal)))
    });
    each.collect()
}

/// What a client is told of a topic that could not be created: to give up where only another name
/// would help, to come again otherwise, which is all that Kafka ever says here.
fn of_creation(refusal: &Refusal) -> ErrorCode {
    match refusal.why {
        Why::TopicNameInvalid => ErrorCode::InvalidTopic,
        // Another client was faster.
        Why::TopicExists => ErrorCode::LeaderNotAvailable,
        Why::UnknownTopic
        | Why::UnknownTopicId
        | Why::PartitionsInvalid
        | Why::ReplicationFactorInvalid
        | Why::AssignmentInvalid
        | Why::ConfigInvalid
        | Why::RequestInvalid
        | Why::DeletionDisabled
        | Why::LimitReached
        | Why::StaleBrokerEpoch
        | Why::UnknownBroker
        | Why::ForeignCluster
        | Why::DuplicateBroker
        | Why::RegistrationInvalid
        | Why::FeatureUnsupported
        | Why::FeatureUpdateInvalid
        | Why::NotController
        | Why::FencedLeaderEpoch
        | Why::InvalidUpdateVersion
        | Why::IneligibleReplica
        | Why::NewLeaderElected
        | Why::ElectionNotNeeded
        | Why::PreferredLeaderNotAvailable
        | Why::EligibleLeadersNotAvailable
        | Why::NoReassignmentInProgress => ErrorCode::UnknownTopicOrPartition,
    }
}

/// How topics are described in one answer.
struct Describe<'i, 'c> {
    image: &'i Image,
    header: Header<'c>,
    operations: i32,
}

impl<'i> Describe<'i, '_> {
    /// Brokers that clients of this listener can reach.
    fn brokers(&self) -> impl Iterator<Item = Broker<'i>> {
        let alive = self.image.brokers().filter(|broker| !broker.fenced);
        alive.filter_map(|broker| {
            let endpoint = admin::endpoint(broker, self.header.listener)?;
            Some(Broker {
                node_id: broker.id.0,
                host: Cow::Borrowed(&endpoint.host),
                port: i32::from(endpoint.port),
                rack: broker.rack.as_deref().map(Cow::Borrowed),
            })
        })
    }

    fn topic(&self, topic: &'i Topic) -> ResponseTopic<'i> {
        let partitions = topic.partitions();
        ResponseTopic {
            name: Some(Cow::Borrowed(&topic.name)),
            topic_id: topic.id,
            is_internal: admin::is_internal(&topic.name),
            partitions: partitions.map(|(index, found)| self.partition(index, found)).collect(),
            topic_authorized_operations: self.operations,
            ..Default::default()
        }
    }

    fn name<'a>(&self, name: &'a str, failures: &Refused<'_>) -> ResponseTopic<'a>
    where
        'i: 'a,
    {
        match self.image.topic(name) {
            Some(topic) => self.topic(topic),
            None => ResponseTopic {
                error_code: failures.get(name).copied().unwrap_or_else(|| of_absence(name)),
                name: Some(Cow::Borrowed(name)),
                is_internal: admin::is_internal(name),
                topic_authorized_operations: self.operations,
                ..Default::default()
            },
        }
    }

    fn id(&self, topic_id: TopicId) -> ResponseTopic<'i> {
        match self.image.topic_by_id(topic_id) {
            Some(topic) => self.topic(topic),
            None => ResponseTopic {
                error_code: ErrorCode::UnknownTopicId,
                topic_id,
                ..Default::default()
            },
        }
    }

    fn partition(&self, index: PartitionIndex, found: &Partition) -> ResponsePartition<'i> {
        let Placed { leader_id, error_code, replicas, isr, offline } =
            Placed::of(self.image, self.header, found);
        ResponsePartition {
            error_code,
            partition_index: index.0,
            leader_id,
            leader_epoch: found.leader_epoch.0,
            replica_nodes: replicas.into(),
            isr_nodes: isr.into(),
            offline_replicas: offline.into(),
        }
    }
}

/// Why a topic of this name is not there.
pub(super) fn of_absence(name: &str) -> ErrorCode {
    match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopic,
    }
}

/// Where a partition is, as clients of one listener see it.
pub(super) struct Placed {
    /// -1 where nobody leads it whom the client could reach.
    pub leader_id: i32,
    /// Why it cannot be used, if so.
    pub error_code: ErrorCode,
    /// All who keep it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// Those that are dead, or that the client cannot reach.
    pub offline: Vec<i32>,
}

impl Placed {
    /// Kafka's `KRaftMetadataCache.getPartitionMetadata`.
    pub fn of(image: &Image, header: Header<'_>, partition: &Partition) -> Placed {
        let reached = |id| {
            let broker = image.broker(id);
            broker.is_some_and(|broker| admin::is_reached(broker, header.listener))
        };
        let alive = |id| image.broker(id).is_some_and(|broker| !broker.fenced);
        let (leader_id, mut error_code) = match partition.leader {
            Some(leader) if reached(leader) => (leader.0, ErrorCode::None),
            Some(leader) if alive(leader) && header.version >= 6 => {
                (-1, ErrorCode::ListenerNotFound)
            }
            _ => (-1, ErrorCode::LeaderNotAvailable),
        };
        let all: Vec<i32> = partition.replicas.iter().map(|id| id.0).collect();
        let in_sync: Vec<i32> = partition.isr.iter().map(|id| id.0).collect();
        let away = partition.replicas.iter().copied().filter(|id| !reached(*id));
        let offline: Vec<i32> = away.map(|id| id.0).collect();
        if header.version > 0 {
            return Placed { leader_id, error_code, replicas: all, isr: in_sync, offline };
        }
        // Version 0 has no field for brokers that are away: they are left out, and that is said.
        let here = |ids: &[i32]| ids.iter().copied().filter(|id| !offline.contains(id)).collect();
        let (replicas, isr): (Vec<i32>, Vec<i32>) = (here(&all), here(&in_sync));
        if error_code == ErrorCode::None && replicas.len() < all.len() {
            error_code = ErrorCode::ReplicaNotAvailable;
        }
        Placed { leader_id, error_code, replicas, isr, offline }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coordinator::cluster::{
        self, Cluster, DirectoryId, Endpoint, Incarnation, Replicas, nobody,
    };
    use coordinator::records::Record;
    use engine::ids::{BrokerEpoch, BrokerId, Offset};

    use super::*;

    /// Brokers 1 and 2 are there, 3 is fenced, 4 listens elsewhere; 5 is not known.
    fn image() -> Image {
        let mut cluster = Cluster::default();
        for (id, listener, fenced) in
            [(1, "here", false), (2, "here", false), (3, "here", true), (4, "there", false)]
        {
            let endpoint = Endpoint { listener: listener.into(), host: "h".into(), port: 1 };
            let broker = cluster::Broker {
                id: BrokerId(id),
                epoch: BrokerEpoch(i64::from(id)),
                incarnation: Incarnation::UNKNOWN,
                directory: DirectoryId::UNKNOWN,
                endpoints: vec![endpoint],
                rack: None,
                features: BTreeMap::new(),
                fenced,
                registered: Offset::ZERO,
                stopping: None,
            };
            cluster.apply(Offset::ZERO, &Record::BrokerRegistered(Arc::new(broker)));
        }
        Image::new(cluster, Offset::new(1), Some(BrokerId(3)))
    }

    fn replicas(ids: &[i32]) -> Replicas {
        ids.iter().copied().map(BrokerId).collect()
    }

    /// Leader, error and offline replicas that a client of version 9 is told.
    fn placed(leader: Option<i32>, ids: &[i32]) -> (i32, ErrorCode, Vec<i32>) {
        let leader = leader.map(BrokerId);
        let partition = Partition { leader, ..Partition::new(replicas(ids)) };
        let header = Header::of_test(9);
        let placed = Placed::of(&image(), header, &partition);
        assert_eq!((&placed.replicas[..], &placed.isr[..]), (ids, ids));
        (placed.leader_id, placed.error_code, placed.offline)
    }

    #[test]
    fn replicas_that_are_fenced_or_gone_are_offline() {
        assert_eq!(placed(Some(1), &[1, 2]), (1, ErrorCode::None, vec![]));
        assert_eq!(placed(Some(1), &[1, 3, 5, 4]), (1, ErrorCode::None, vec![3, 5, 4]));
        let nobody = ErrorCode::LeaderNotAvailable;
        assert_eq!(placed(None, &[1, 2]), (-1, nobody, vec![]));
        assert_eq!(placed(None, &[3]), (-1, nobody, vec![3]));
        assert_eq!(placed(Some(5), &[5, 1]), (-1, nobody, vec![5]));
        assert_eq!(placed(Some(4), &[4]), (-1, ErrorCode::ListenerNotFound, vec![4]));
    }

    #[test]
    fn the_first_version_leaves_out_who_is_away() {
        let header = Header::of_test(0);
        let partition = Partition { isr: replicas(&[1]), ..Partition::new(replicas(&[1, 3])) };
        let placed = Placed::of(&image(), header, &partition);
        assert_eq!((placed.leader_id, placed.error_code), (1, ErrorCode::ReplicaNotAvailable));
        assert_eq!((placed.replicas, placed.isr), (vec![1], vec![1]));
        let alone = Partition { isr: nobody(), ..Partition::new(replicas(&[1])) };
        assert_eq!(Placed::of(&image(), header, &alone).error_code, ErrorCode::None);
    }

    #[test]
    fn clients_are_told_of_brokers_that_are_alive() {
        let image = image();
        let header = Header::of_test(9);
        let describe = Describe { image: &image, header, operations: 0 };
        let told: Vec<i32> = describe.brokers().map(|broker| broker.node_id).collect();
        assert_eq!(told, [1, 2]);
        // The one with the active controller is fenced, and any other takes its requests.
        assert_eq!(admin::controller_id(&image, "here"), 1);
        assert_eq!(admin::controller_id(&image, "there"), 4);
        assert_eq!(admin::controller_id(&image, "nowhere"), -1);
    }
}
