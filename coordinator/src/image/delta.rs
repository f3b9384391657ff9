//! What differs between two images, for shards that open, change and close partitions by it.
//!
//! It compares any two images, not only neighbours, so a shard that was busy may leave some out;
//! parts that the two share are skipped, so its cost is that of the change.

use std::sync::Arc;

use engine::ids::{PartitionIndex, TopicId};

use super::Image;
use crate::cluster::{DeletedTopic, Partition, Topic};

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
    /// Whether brokers came, went, or moved.
    pub brokers_changed: bool,
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
        let mut delta =
            Delta { brokers_changed: !before.brokers().eq(after.brokers()), ..Delta::default() };
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
        delta
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.created.is_empty()
            && self.deleted.is_empty()
            && self.changed.is_empty()
            && self.purges.is_empty()
            && !self.brokers_changed
    }
}
