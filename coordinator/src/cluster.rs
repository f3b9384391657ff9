//! What a cluster agrees on, as a value: brokers, topics, partitions, settings, producer ids.
//!
//! It is the controller's hard state and, frozen at an offset, the content of an
//! [`crate::image::Image`]. Copies are cheap ([`map::SharedMap`]); only [`Cluster::apply`] changes
//! one. `Send + Sync`: crosses lanes inside an image.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use engine::ids::{BrokerEpoch, BrokerId, Offset, PartitionIndex, ProducerId, TopicId};

use crate::records::Record;
use map::SharedMap;

mod broker;
pub mod features;
pub mod map;
mod partition;

pub use broker::{Broker, DirectoryId, Endpoint, Incarnation};
pub(crate) use partition::min_isr;
pub use partition::{Partition, PartitionEpoch, Replicas, nobody};

/// Name of a cluster for its whole life, in Kafka's form: 22 characters of URL-safe base64.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    /// From its text.
    pub fn new(text: &str) -> ClusterId {
        ClusterId(text.into())
    }

    /// A new one from two random words.
    pub fn random(random: [u64; 2]) -> ClusterId {
        ClusterId(TopicId::random(random[0], random[1]).to_string().into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happens to a broker between its registration and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BrokerChange {
    /// It may not lead nor be in sync with others any more; a controlled shutdown is over.
    Fenced,
    /// It may.
    Unfenced,
    /// It is in controlled shutdown.
    Stopping,
}

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name; unique, and does not collide with another after `.` → `_`.
    pub name: Arc<str>,
    /// Its partitions, by index; never empty.
    pub partitions: Vec<Partition>,
    /// Settings that differ from the brokers', by name.
    pub overrides: Overrides,
}

impl Topic {
    /// The partition with this index.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// Its partitions with their indexes.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        (0..).map(PartitionIndex).zip(&self.partitions)
    }

    pub(crate) fn change_overrides(&mut self, changes: &[(String, Option<String>)]) {
        change_overrides(&mut self.overrides, changes);
    }

    /// How many replicas its first partition has, which is what Kafka shows.
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }
}

/// A topic that was deleted and whose files some broker may still have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletedTopic {
    /// Its name when it lived.
    pub name: Arc<str>,
    /// Brokers that have not yet said that they removed it; sorted, never empty.
    pub holders: Vec<BrokerId>,
}

/// Settings that differ from the brokers', by name.
pub type Overrides = BTreeMap<String, String>;

/// The whole of it.
#[derive(Clone, Default, Debug)]
pub struct Cluster {
    id: Option<ClusterId>,
    /// Behind one pointer, so that images that share it are compared at once.
    brokers: Arc<BTreeMap<BrokerId, Arc<Broker>>>,
    /// Finalized levels by name; none is 0.
    features: Arc<BTreeMap<String, i16>>,
    by_id: SharedMap<TopicId, Arc<Topic>>,
    by_name: SharedMap<Arc<str>, Arc<Topic>>,
    /// For names with `.` or `_`: the name with all `_` → the name. See [`Cluster::colliding`].
    unified: SharedMap<Arc<str>, Arc<str>>,
    deleted: SharedMap<TopicId, Arc<DeletedTopic>>,
    /// Groups that have settings of their own: those, by name; never none.
    groups: SharedMap<Arc<str>, Arc<Overrides>>,
    partitions: usize,
    last_broker_epoch: BrokerEpoch,
    next_producer_id: i64,
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Cluster) -> bool {
        self.id == other.id
            && self.brokers == other.brokers
            && self.features == other.features
            && self.by_id.iter().eq(other.by_id.iter())
            && self.deleted.iter().eq(other.deleted.iter())
            && self.groups.iter().eq(other.groups.iter())
            && self.last_broker_epoch == other.last_broker_epoch
            && self.next_producer_id == other.next_producer_id
    }
}

impl Cluster {
    /// Its name; `None` until the first broker has registered.
    pub fn id(&self) -> Option<&ClusterId> {
        self.id.as_ref()
    }

    /// Its brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// How many brokers.
    pub fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    /// The broker with this id.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// The finalized level of a feature; 0 when it is off or unknown.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// The finalized features that are on, by name.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (name.as_str(), *level))
    }

    /// The topic with this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this identity.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.iter().map(|(_, topic)| topic)
    }

    /// Topics whose names are `start` or later, by name.
    pub fn topics_from(&self, start: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.iter_from(start).map(|(_, topic)| topic)
    }

    /// How many topics.
    pub fn topic_count(&self) -> usize {
        self.by_id.len()
    }

    /// How many partitions, of all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// The existing topic, if any, whose name becomes the same as `name` when each `.` is
    /// replaced by `_` (metric names cannot tell them apart).
    pub fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        self.unified.get(unify(name)?.as_str())
    }

    /// The deleted topic, if some broker may still have its files.
    pub fn deleted_topic(&self, id: TopicId) -> Option<&Arc<DeletedTopic>> {
        self.deleted.get(&id)
    }

    /// Deleted topics whose files some broker may still have, by identity.
    pub fn deleted_topics(&self) -> impl Iterator<Item = (TopicId, &Arc<DeletedTopic>)> {
        self.deleted.iter().map(|(id, topic)| (*id, topic))
    }

    /// How many deleted topics are not purged yet.
    pub fn deleted_topic_count(&self) -> usize {
        self.deleted.len()
    }

    /// The settings that a group has of its own, if any.
    pub fn group_overrides(&self, group: &str) -> Option<&Overrides> {
        self.groups.get(group).map(|overrides| &**overrides)
    }

    /// Groups with settings of their own, by name. Such a group need not be there.
    pub fn configured_groups(&self) -> impl Iterator<Item = (&Arc<str>, &Overrides)> {
        self.groups.iter().map(|(name, overrides)| (name, &**overrides))
    }

    /// How many groups have settings of their own.
    pub fn configured_group_count(&self) -> usize {
        self.groups.len()
    }

    /// The first producer id that was never given out.
    pub fn next_producer_id(&self) -> ProducerId {
        ProducerId(self.next_producer_id)
    }

    /// The newest broker epoch ever given out.
    pub fn last_broker_epoch(&self) -> BrokerEpoch {
        self.last_broker_epoch
    }

    pub(crate) fn topics_by_id(&self) -> &SharedMap<TopicId, Arc<Topic>> {
        &self.by_id
    }

    pub(crate) fn brokers_by_id(&self) -> &Arc<BTreeMap<BrokerId, Arc<Broker>>> {
        &self.brokers
    }

    pub(crate) fn features_by_name(&self) -> &Arc<BTreeMap<String, i16>> {
        &self.features
    }

    pub(crate) fn groups_by_name(&self) -> &SharedMap<Arc<str>, Arc<Overrides>> {
        &self.groups
    }

    pub(crate) fn deleted_by_id(&self) -> &SharedMap<TopicId, Arc<DeletedTopic>> {
        &self.deleted
    }

    /// Makes the record at metadata offset `at` true. Panics on one that contradicts the state: no
    /// log of ours holds it.
    pub fn apply(&mut self, at: Offset, record: &Record) {
        match record {
            Record::ClusterFormed { id } => {
                assert!(self.id.is_none(), "cluster {id} formed twice");
                self.id = Some(id.clone());
            }
            Record::BrokerReturned(broker) => {
                self.register(at, broker);
                self.lead_anew(broker.id);
            }
            Record::BrokerRegistered(broker) => self.register(at, broker),
            Record::BrokerChanged { broker, epoch, change } => {
                self.change_broker(at, *broker, *epoch, *change);
            }
            Record::BrokerUnregistered { broker, epoch } => {
                let gone = Arc::make_mut(&mut self.brokers).remove(broker);
                assert_eq!(gone.map(|gone| gone.epoch), Some(*epoch), "broker {broker}");
            }
            Record::FeatureChanged { name, level: 0 } => {
                Arc::make_mut(&mut self.features).remove(name);
            }
            Record::FeatureChanged { name, level } => {
                Arc::make_mut(&mut self.features).insert(name.clone(), *level);
            }
            Record::TopicCreated(topic) => self.insert_topic(topic),
            Record::PartitionsAdded { topic, first, partitions } => {
                self.add_partitions(*topic, *first, partitions);
            }
            Record::PartitionsChanged { topic, partitions } => {
                self.change_partitions(*topic, partitions);
            }
            Record::TopicOverridesChanged { topic, changes } => {
                self.change_topic(*topic, |topic| topic.change_overrides(changes));
            }
            Record::GroupOverridesChanged { group, changes } => self.change_group(group, changes),
            Record::TopicDeleted { topic } => self.delete_topic(*topic),
            Record::TopicPurged { topic, broker } => self.purge_topic(*topic, *broker),
            Record::ProducerIdsAllocated { next, .. } => {
                assert!(next.0 > self.next_producer_id, "producer ids go back to {next}");
                self.next_producer_id = next.0;
            }
        }
    }

    /// A broker begins an uptime session, or amends the registration of its present one.
    fn register(&mut self, at: Offset, broker: &Arc<Broker>) {
        let amended = self.broker(broker.id).is_some_and(|known| known.epoch == broker.epoch);
        assert!(
            amended || broker.epoch > self.last_broker_epoch,
            "broker epoch {} again",
            broker.epoch
        );
        self.last_broker_epoch = self.last_broker_epoch.max(broker.epoch);
        let mut broker = Broker::clone(broker);
        if !amended {
            broker.registered = at;
        }
        Arc::make_mut(&mut self.brokers).insert(broker.id, Arc::new(broker));
    }

    /// Each partition that `broker` leads enters a new leader epoch.
    fn lead_anew(&mut self, broker: BrokerId) {
        let led: Vec<TopicId> = self
            .by_id
            .iter()
            .filter(|(_, topic)| topic.partitions.iter().any(|p| p.leader == Some(broker)))
            .map(|(id, _)| *id)
            .collect();
        for id in led {
            self.change_topic(id, |topic| {
                for partition in &mut topic.partitions {
                    if partition.leader == Some(broker) {
                        partition.leader_epoch.0 += 1;
                        partition.epoch.0 += 1;
                    }
                }
            });
        }
    }

    fn change_broker(
        &mut self,
        at: Offset,
        id: BrokerId,
        epoch: BrokerEpoch,
        change: BrokerChange,
    ) {
        let brokers = Arc::make_mut(&mut self.brokers);
        let broker = brokers.get_mut(&id).unwrap_or_else(|| panic!("no broker {id}"));
        assert_eq!(broker.epoch, epoch, "broker {id} in another session");
        let broker = Arc::make_mut(broker);
        match change {
            BrokerChange::Fenced => (broker.fenced, broker.stopping) = (true, None),
            BrokerChange::Unfenced => broker.fenced = false,
            BrokerChange::Stopping => broker.stopping = Some(at),
        }
    }

    fn add_partitions(&mut self, topic: TopicId, first: PartitionIndex, added: &[Partition]) {
        self.change_topic(topic, |topic| {
            let expected = topic.partitions.len();
            assert_eq!(first.0 as usize, expected, "partitions of {} skip", topic.name);
            topic.partitions.extend(added.iter().cloned());
        });
        self.partitions += added.len();
    }

    fn change_partitions(&mut self, topic: TopicId, changed: &[(PartitionIndex, Partition)]) {
        self.change_topic(topic, |topic| {
            for (index, after) in changed {
                let at = usize::try_from(index.0).expect("an index is not negative");
                let before = &mut topic.partitions[at];
                assert!(
                    after.epoch > before.epoch && after.leader_epoch >= before.leader_epoch,
                    "{}-{index} goes back from {before:?} to {after:?}",
                    topic.name
                );
                let mut after = after.clone();
                after.share(before);
                *before = after;
            }
        });
    }

    fn insert_topic(&mut self, topic: &Arc<Topic>) {
        let name = topic.name.clone();
        assert!(self.by_id.insert(topic.id, topic.clone()).is_none(), "{} twice", topic.id);
        assert!(self.by_name.insert(name.clone(), topic.clone()).is_none(), "{name} twice");
        if let Some(unified) = unify(&name) {
            self.unified.insert(unified.into(), name);
        }
        self.partitions += topic.partitions.len();
    }

    fn change_topic(&mut self, id: TopicId, change: impl FnOnce(&mut Topic)) {
        let before = self.by_id.get(&id).unwrap_or_else(|| panic!("no topic {id}"));
        let mut topic = Topic::clone(before);
        change(&mut topic);
        let topic = Arc::new(topic);
        self.by_name.insert(topic.name.clone(), topic.clone());
        self.by_id.insert(id, topic);
    }

    fn change_group(&mut self, group: &str, changes: &[(String, Option<String>)]) {
        let mut overrides = self.group_overrides(group).cloned().unwrap_or_default();
        change_overrides(&mut overrides, changes);
        match overrides.is_empty() {
            true => self.groups.remove(group),
            false => self.groups.insert(group.into(), Arc::new(overrides)),
        };
    }

    fn delete_topic(&mut self, id: TopicId) {
        let topic = self.by_id.remove(&id).unwrap_or_else(|| panic!("no topic {id}"));
        self.by_name.remove(&topic.name);
        if let Some(unified) = unify(&topic.name) {
            self.unified.remove(unified.as_str());
        }
        self.partitions -= topic.partitions.len();
        let mut holders: Vec<BrokerId> =
            topic.partitions.iter().flat_map(|p| p.replicas.iter().copied()).collect();
        holders.sort_unstable();
        holders.dedup();
        let deleted = DeletedTopic { name: topic.name.clone(), holders };
        self.deleted.insert(id, Arc::new(deleted));
    }

    fn purge_topic(&mut self, id: TopicId, broker: BrokerId) {
        let Some(deleted) = self.deleted.get(&id) else {
            panic!("no deleted topic {id}");
        };
        let mut deleted = DeletedTopic::clone(deleted);
        deleted.holders.retain(|holder| *holder != broker);
        if deleted.holders.is_empty() {
            self.deleted.remove(&id);
        } else {
            self.deleted.insert(id, Arc::new(deleted));
        }
    }

    /// Rebuilds one from the parts that a snapshot holds.
    pub(crate) fn restore(parts: Parts) -> Cluster {
        let mut cluster = Cluster {
            id: parts.id,
            brokers: Arc::new(parts.brokers.into_iter().map(|b| (b.id, Arc::new(b))).collect()),
            features: Arc::new(parts.features),
            last_broker_epoch: parts.last_broker_epoch,
            next_producer_id: parts.next_producer_id.0,
            ..Cluster::default()
        };
        for topic in parts.topics {
            cluster.insert_topic(&Arc::new(topic));
        }
        for (id, topic) in parts.deleted {
            cluster.deleted.insert(id, Arc::new(topic));
        }
        for (name, overrides) in parts.groups {
            cluster.groups.insert(name.into(), Arc::new(overrides));
        }
        cluster
    }
}

/// All that a cluster consists of, flat.
pub(crate) struct Parts {
    pub id: Option<ClusterId>,
    pub brokers: Vec<Broker>,
    pub features: BTreeMap<String, i16>,
    pub topics: Vec<Topic>,
    pub deleted: Vec<(TopicId, DeletedTopic)>,
    pub groups: Vec<(String, Overrides)>,
    pub last_broker_epoch: BrokerEpoch,
    pub next_producer_id: ProducerId,
}

fn change_overrides(overrides: &mut Overrides, changes: &[(String, Option<String>)]) {
    for (name, value) in changes {
        match value {
            Some(value) => overrides.insert(name.clone(), value.clone()),
            None => overrides.remove(name),
        };
    }
}

/// `name` with `_` for each `.`, if it has one of them.
pub(crate) fn unify(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}
