//! DescribeTopicPartitions: topics and their partitions in pages, for clusters whose Metadata would
//! be too large for one answer. A page ends anywhere; the cursor says where the next one begins.

use std::borrow::Cow;
use std::collections::BTreeSet;

use coordinator::cluster::Topic;
use coordinator::image::Image;

use super::admin::{self, Header};
use super::metadata::{self, Placed};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, ResponseCursor,
    ResponsePartition, ResponseTopic,
};
use crate::wire::{Array, DecodeError, Encoded, ErrorCode, Reader};

/// Answers DescribeTopicPartitions (Kafka's `DescribeTopicPartitionsRequestHandler`).
pub async fn describe_topic_partitions<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeTopicPartitionsRequest::decode(&mut body, header.version)?;
    let cursor = request.cursor.as_ref().map(|at| (at.topic_name, at.partition_index));
    let (from, _) = cursor.unwrap_or_default();
    let named: BTreeSet<&str> =
        request.topics.iter().map(|topic| topic.name).filter(|name| *name >= from).collect();
    let all = request.topics.is_empty();
    let astray = |(topic, partition)| partition < 0 || (!all && !named.contains(topic));
    if cursor.is_some_and(astray) {
        return Ok(header.encode(&refused(&request)));
    }
    let image = shard.image();
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let left = limit.min(shard.options().broker.describe_partitions_max).max(1);
    let mut page = Page { image: &image, header, cursor, left, topics: Vec::new(), next: None };
    if all {
        for topic in image.cluster().topics_from(from) {
            if !page.push(&topic.name, Some(topic)) {
                break;
            }
            shard.env().turn().await;
        }
    } else {
        for name in named {
            if !page.push(name, image.topic(name).map(|topic| &**topic)) {
                break;
            }
            shard.env().turn().await;
        }
    }
    let Page { topics, next, .. } = page;
    let next_cursor = next.map(|(topic, partition_index)| ResponseCursor {
        topic_name: Cow::Borrowed(topic),
        partition_index,
    });
    let topics = topics.into();
    Ok(header.encode(&DescribeTopicPartitionsResponse {
        topics,
        next_cursor,
        ..Default::default()
    }))
}

fn refused<'a>(
    request: &DescribeTopicPartitionsRequest<'a>,
) -> DescribeTopicPartitionsResponse<'a> {
    let topics = request.topics.iter().map(|topic| ResponseTopic {
        error_code: ErrorCode::InvalidRequest,
        name: Some(Cow::Borrowed(topic.name)),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

/// A page that is being filled.
struct Page<'i, 'c> {
    image: &'i Image,
    header: Header<'c>,
    /// Where it begins.
    cursor: Option<(&'i str, i32)>,
    /// How many partitions still fit.
    left: usize,
    topics: Vec<ResponseTopic<'i>>,
    /// Where the next one begins, once this one is full.
    next: Option<(&'i str, i32)>,
}

impl<'i> Page<'i, '_> {
    /// Adds a topic, or what fits of it. Whether the page takes another one.
    fn push(&mut self, name: &'i str, topic: Option<&'i Topic>) -> bool {
        if self.left == 0 {
            self.next = Some((name, 0));
            return false;
        }
        let mut described = ResponseTopic {
            name: Some(Cow::Borrowed(name)),
            is_internal: admin::is_internal(name),
            topic_authorized_operations: admin::TOPIC_OPERATIONS,
            ..Default::default()
        };
        let Some(topic) = topic else {
            described.error_code = metadata::of_absence(name);
            self.topics.push(described);
            return true;
        };
        described.topic_id = topic.id;
        let first = match self.cursor {
            Some((at, partition)) if at == name => usize::try_from(partition).unwrap_or(0),
            _ => 0,
        };
        let count = self.left.min(topic.partitions.len().saturating_sub(first));
        described.partitions = self.partitions(topic, first, count);
        self.topics.push(described);
        self.left -= count;
        let end = first + count;
        if end < topic.partitions.len() {
            self.next = Some((name, end as i32));
        }
        self.next.is_none()
    }

    fn partitions(
        &self,
        topic: &Topic,
        first: usize,
        count: usize,
    ) -> Array<'i, ResponsePartition<'i>> {
        let each = topic.partitions().skip(first).take(count).map(|(index, partition)| {
            let placed = Placed::of(self.image, self.header, partition);
            ResponsePartition {
                // Kafka names no reason here: that there is no leader says enough.
                error_code: ErrorCode::None,
                partition_index: index.0,
                leader_id: placed.leader_id,
                leader_epoch: partition.leader_epoch.0,
                replica_nodes: placed.replicas.into(),
                isr_nodes: placed.isr.into(),
                eligible_leader_replicas: Some(partition.elr.iter().map(|id| id.0).collect()),
                // Kafka, too, keeps only the last leader of them.
                last_known_elr: Some(partition.last_leader.iter().map(|id| id.0).collect()),
                offline_replicas: placed.offline.into(),
            }
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coordinator::cluster::{Partition, Replicas, nobody};
    use engine::ids::{BrokerId, TopicId};

    use super::*;

    #[test]
    fn who_may_lead_without_being_in_sync_is_told() {
        let replicas = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Replicas>();
        let small = Partition {
            elr: replicas(&[3, 2]),
            ..Partition::with_isr(replicas(&[1, 2, 3]), replicas(&[1]))
        };
        let lost = Partition {
            elr: replicas(&[3]),
            last_leader: Some(BrokerId(2)),
            ..Partition::with_isr(replicas(&[2, 3]), nobody())
        };
        let topic = Topic {
            id: TopicId::random(1, 2),
            name: "t".into(),
            partitions: vec![small, lost],
            overrides: BTreeMap::new(),
        };
        let header = Header::of_test(0);
        let (image, topics) = (Image::empty(), Vec::new());
        let page = Page { image: &image, header, cursor: None, left: 9, topics, next: None };
        let list = |of: Option<Array<'_, i32>>| of.expect("it is known").iter().collect::<Vec<_>>();
        let partitions = page.partitions(&topic, 0, 2);
        let each = partitions.iter().map(|partition| {
            let last = list(partition.last_known_elr);
            (list(partition.eligible_leader_replicas), last)
        });
        let told: Vec<_> = each.collect();
        assert_eq!(told, [(vec![3, 2], vec![]), (vec![3], vec![2])]);
    }
}
