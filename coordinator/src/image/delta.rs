//! What differs between two images, for shards that open, change and close partitions by it.
//!
//! It compares any two images, not only neighbours, so a shard that was busy may leave some out;
//! parts that the two share are skipped, so its cost is that of the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::ids::{BrokerId, PartitionIndex, TopicId, TopicPartition};

use super::Image;
use crate::cluster::{Broker, DeletedTopic, Partition, Topic};

type Brokers = BTreeMap<BrokerId, Arc<Broker>>;

/// The differences, by topic identity: a topic that was deleted and made again is in both lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Topics that only the newer image has.
    pub created: Vec<Arc<Topic>>,
    /// Topics that only the older image has, as they were.
    pub deleted: Vec<Arc<Topic>>,
    /// Topics that both have and that differ.
    pub changed: Vec<TopicChange>,
    /// Deleted topics that all brokers have purged since, or that were deleted since and are to
    /// be purged: those whose state as a deleted topic differs, with the newer state.
    pub purges: Vec<(TopicId, Option<Arc<DeletedTopic>>)>,
    /// Brokers that came, went, or changed (fenced, unfenced, stopping, moved, restarted), by id.
    pub brokers: Vec<BrokerDifference>,
    /// Whether finalized features changed.
    pub features_changed: bool,
    /// Groups whose own settings changed, by name.
    pub groups: Vec<Arc<str>>,
}

/// A broker before and after; at least one of them is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDifference {
    /// As it was.
    pub before: Option<Arc<Broker>>,
    /// As it is.
    pub after: Option<Arc<Broker>>,
}

impl BrokerDifference {
    /// Its id.
    pub fn id(&self) -> BrokerId {
        let either = self.after.as_ref().or(self.before.as_ref());
        either.expect("a difference has a side").id
    }

    /// Whether it can be talked to now: a member, and not fenced.
    pub fn is_up(&self) -> bool {
        self.after.as_ref().is_some_and(|broker| !broker.fenced)
    }

    /// Whether it began another uptime session, so that what was known of its last one is void.
    pub fn has_restarted(&self) -> bool {
        let epoch = |side: &Option<Arc<Broker>>| side.as_ref().map(|broker| broker.epoch);
        epoch(&self.before) != epoch(&self.after)
    }
}

/// A partition before and after, for a broker that keeps it or kept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty<'a> {
    /// Which.
    pub id: TopicPartition,
    /// Its topic; as it was, if it is no more.
    pub topic: &'a Arc<Topic>,
    /// As it was; `None`: it is new, or the broker did not keep it.
    pub before: Option<&'a Partition>,
    /// As it is; `None`: it is no more, or the broker does not keep it any more.
    pub after: Option<&'a Partition>,
}

/// A topic before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicChange {
    /// As it was.
    pub before: Arc<Topic>,
    /// As it is.
    pub after: Arc<Topic>,
}

impl TopicChange {
    /// Whether its overrides differ.
    pub fn overrides_changed(&self) -> bool {
        self.before.overrides != self.after.overrides
    }

    /// Partitions that are new.
    pub fn partitions_added(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        self.after.partitions().skip(self.before.partitions.len())
    }

    /// Partitions that were there and differ, as they are now.
    pub fn partitions_changed(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        self.after
            .partitions()
            .zip(&self.before.partitions)
            .filter(|((_, after), before)| after != before)
            .map(|(after, _)| after)
    }
}

impl Delta {
    /// What happened from `before` to `after`.
    pub fn between(before: &Image, after: &Image) -> Delta {
        let mut delta = Delta::default();
        let (old, new) = (before.cluster.brokers_by_id(), after.cluster.brokers_by_id());
        if !Arc::ptr_eq(old, new) {
            delta.brokers = differing_brokers(old, new);
        }
        let (old, new) = (before.cluster.features_by_name(), after.cluster.features_by_name());
        delta.features_changed = !Arc::ptr_eq(old, new) && old != new;
        before.cluster.topics_by_id().differences(
            after.cluster.topics_by_id(),
            |a, b| Arc::ptr_eq(a, b) || a == b,
            |_, old, new| match (old, new) {
                (None, Some(new)) => delta.created.push(new.clone()),
                (Some(old), None) => delta.deleted.push(old.clone()),
                (Some(old), Some(new)) => {
                    delta.changed.push(TopicChange { before: old.clone(), after: new.clone() });
                }
                (None, None) => unreachable!("a difference has a side"),
            },
        );
        before.cluster.deleted_by_id().differences(
            after.cluster.deleted_by_id(),
            |a, b| Arc::ptr_eq(a, b) || a == b,
            |id, _, new| delta.purges.push((*id, new.cloned())),
        );
        before.cluster.groups_by_name().differences(
            after.cluster.groups_by_name(),
            |a, b| Arc::ptr_eq(a, b) || a == b,
            |name, _, _| delta.groups.push(name.clone()),
        );
        delta
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.created.is_empty()
            && self.deleted.is_empty()
            && self.changed.is_empty()
            && self.purges.is_empty()
            && self.brokers.is_empty()
            && !self.features_changed
            && self.groups.is_empty()
    }

    /// What changed of the partitions that `broker` keeps or kept: created, deleted, or with
    /// another leader, epoch, ISR or set of replicas.
    pub fn duties(&self, broker: BrokerId) -> impl Iterator<Item = Duty<'_>> {
        let created = self.created.iter().map(|topic| (None, Some(topic)));
        let deleted = self.deleted.iter().map(|topic| (Some(topic), None));
        let changed = self.changed.iter().map(|one| (Some(&one.before), Some(&one.after)));
        deleted.chain(created).chain(changed).flat_map(move |(before, after)| {
            let topic: &Arc<Topic> = after.or(before).expect("a difference has a side");
            let count = topic.partitions.len();
            (0..).map(PartitionIndex).take(count).filter_map(move |partition| {
                let kept = |kept: &&Partition| kept.replicas.contains(&broker);
                let was = before.and_then(|topic| topic.partition(partition)).filter(kept);
                let is = after.and_then(|topic| topic.partition(partition)).filter(kept);
                let id = TopicPartition { topic: topic.id, partition };
                (was != is).then_some(Duty { id, topic, before: was, after: is })
            })
        })
    }
}

/// Brokers on which two images differ, by id.
fn differing_brokers(old: &Brokers, new: &Brokers) -> Vec<BrokerDifference> {
    let ids: BTreeSet<BrokerId> = old.keys().chain(new.keys()).copied().collect();
    let difference = |id: BrokerId| {
        let (before, after) = (old.get(&id), new.get(&id));
        let same = match (before, after) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
            _ => false,
        };
        (!same).then(|| BrokerDifference { before: before.cloned(), after: after.cloned() })
    };
    ids.into_iter().filter_map(difference).collect()
}
