//! Partitions that move to other replicas (KIP-455): AlterPartitionReassignments,
//! ListPartitionReassignments.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use coordinator::cluster::Topic;
use coordinator::controller::{Reassignment, Refusal, Reply, Request};
use engine::ids::{BrokerId, PartitionIndex};

use super::admin::{self, Header};
use super::errors;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use crate::wire::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, Reader};

/// What became of the wish to move one partition.
type Altered = (String, PartitionIndex, Result<(), Refusal>);

/// Answers AlterPartitionReassignments. What it says has begun has only begun: replicas fetch what
/// they lack first.
pub async fn alter<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = AlterPartitionReassignmentsRequest::decode(&mut body, header.version)?;
    let Some(partitions) = reassignments(&request) else {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    };
    let allow_replication_factor_change = request.allow_replication_factor_change;
    let keep_factor = !allow_replication_factor_change;
    let decision = Request::AlterReassignments { partitions, keep_factor };
    let empty = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change,
        ..Default::default()
    };
    let response = match admin::decide(shard, decision, request.timeout_ms).await {
        Ok(Reply::AlteredReassignments(altered)) => {
            let responses = by_topic(&request, altered);
            AlterPartitionReassignmentsResponse { responses: responses.into(), ..empty }
        }
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => AlterPartitionReassignmentsResponse {
            error_code: errors::of_no_reply(why),
            error_message: Some(Cow::Owned(why.to_string())),
            ..empty
        },
    };
    Ok(header.encode(&response))
}

/// What is asked of the controller; `None` if that is too much.
fn reassignments(request: &AlterPartitionReassignmentsRequest<'_>) -> Option<Vec<Reassignment>> {
    let mut cost = admin::Cost::default();
    let mut wanted = Vec::new();
    for topic in request.topics.iter() {
        for partition in topic.partitions.iter() {
            let replicas = partition.replicas.as_ref();
            if !cost.affords(topic.name, replicas.map_or(0, |replicas| replicas.len())) {
                return None;
            }
            wanted.push(Reassignment {
                topic: topic.name.to_owned(),
                partition: PartitionIndex(partition.partition_index),
                replicas: replicas.map(|replicas| replicas.iter().map(BrokerId).collect()),
            });
        }
    }
    Some(wanted)
}

/// In the order of the request, which is that of what was answered.
fn by_topic<'a>(
    request: &AlterPartitionReassignmentsRequest<'a>,
    altered: Vec<Altered>,
) -> Vec<ReassignableTopicResponse<'a>> {
    let mut altered = altered.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let each = topic.partitions.iter().map(|partition| {
            let (_, _, altered) = altered.next().expect("one for each that was asked");
            let (error_code, error_message) = admin::outcome(altered);
            let partition_index = partition.partition_index;
            ReassignablePartitionResponse { partition_index, error_code, error_message }
        });
        let partitions = each.collect();
        ReassignableTopicResponse { name: Cow::Borrowed(topic.name), partitions }
    });
    topics.collect()
}

/// Answers ListPartitionReassignments. Topics and partitions that there are not do not move.
pub async fn list<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ListPartitionReassignmentsRequest::decode(&mut body, header.version)?;
    let image = shard.image();
    let mut topics = Vec::new();
    match &request.topics {
        None => {
            for topic in image.topics() {
                topics.extend(moving(topic, |_| true));
                shard.env().turn().await;
            }
        }
        Some(asked) => {
            // Each once, however often it is named.
            let mut named: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for topic in asked.iter() {
                named.entry(topic.name).or_default().extend(topic.partition_indexes.iter());
            }
            for (name, indexes) in named {
                let topic = image.topic(name);
                topics.extend(topic.and_then(|topic| moving(topic, |at| indexes.contains(&at))));
                shard.env().turn().await;
            }
        }
    }
    let topics = topics.into();
    Ok(header.encode(&ListPartitionReassignmentsResponse { topics, ..Default::default() }))
}

/// The moves of one topic's partitions, if there are any.
fn moving(topic: &Topic, asked: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment<'_>> {
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    let each = topic
        .partitions()
        .filter(|(index, partition)| partition.is_reassigning() && asked(index.0))
        .map(|(index, partition)| OngoingPartitionReassignment {
            partition_index: index.0,
            replicas: numbers(&partition.replicas),
            adding_replicas: numbers(&partition.adding),
            removing_replicas: numbers(&partition.removing),
        });
    let partitions: Vec<_> = each.collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment {
        name: Cow::Borrowed(&topic.name),
        partitions: partitions.into(),
    })
}

#[cfg(test)]
mod tests {
    use coordinator::cluster::{Partition, Replicas};
    use engine::ids::TopicId;

    use super::*;

    #[test]
    fn what_moves_is_listed_and_nothing_else() {
        let replicas = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Replicas>();
        let still = Partition::new(replicas(&[1, 2]));
        let moves = Partition {
            adding: replicas(&[3]),
            removing: replicas(&[1]),
            ..Partition::with_isr(replicas(&[3, 1, 2]), replicas(&[1, 2]))
        };
        let shrinks = Partition { removing: replicas(&[2]), ..still.clone() };
        let topic = Topic {
            id: TopicId::random(1, 2),
            name: "t".into(),
            partitions: vec![still.clone(), moves, shrinks],
            overrides: BTreeMap::new(),
        };
        let all = moving(&topic, |_| true).expect("two move");
        let list = |of: &crate::wire::Array<'_, i32>| of.iter().collect::<Vec<_>>();
        let told = all.partitions.iter().map(|one| {
            let (adding, removing) = (list(&one.adding_replicas), list(&one.removing_replicas));
            (one.partition_index, list(&one.replicas), adding, removing)
        });
        let expected = [(1, vec![3, 1, 2], vec![3], vec![1]), (2, vec![1, 2], vec![], vec![2])];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(moving(&topic, |at| at == 2).map(|topic| topic.partitions.len()), Some(1));
        assert!(moving(&topic, |at| at == 0).is_none());
        let idle = Topic { partitions: vec![still], ..topic };
        assert!(moving(&idle, |_| true).is_none());
    }
}
