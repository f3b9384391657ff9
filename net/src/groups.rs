//! Consumer groups on this broker. A group is kept by the broker that leads its partition of
//! `__consumer_offsets`, on the shard that owns the partition; the topic is made when the first
//! group is looked for.

use std::sync::Arc;

use coordinator::cluster::Topic;
use coordinator::controller::{NewTopic, Reply, Request};
use engine::ids::{BrokerId, PartitionIndex, TopicPartition};

use crate::api::admin;
use crate::env::NetEnv;
use crate::shard::Shard;

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
}

impl Default for OffsetsTopic {
    fn default() -> OffsetsTopic {
        OffsetsTopic { partitions: 50, replicas: 3, segment_bytes: 100 << 20 }
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
    let request = Request::CreateTopics { topics: vec![new], validate_only: false };
    match admin::decide(shard, request, CREATION_WAIT_MS).await {
        Ok(Reply::CreatedTopics(created)) => {
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

/// Index of the partition, of `count`, that keeps a group: clients and tools of Kafka compute it,
/// too (`Utils.abs(groupId.hashCode()) % count`, Java's hash over UTF-16).
pub fn partition_of(group: &str, count: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_kafka_looks_for_them() {
        // `"...".hashCode()` as Java's documentation defines it, worked out by hand.
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("a", 50), 97 % 50);
        assert_eq!(partition_of("ab", 50), (97 * 31 + 98) % 50);
        // A hash below zero: the sign bit is dropped, not the number negated.
        assert_eq!(partition_of("polygenelubricants", 50), 0, "hashCode is i32::MIN");
        assert_eq!(partition_of("ä", 50), 228 % 50, "UTF-16, not UTF-8");
    }
}
