//! DescribeQuorum: who agrees on the metadata, and how far everybody is.
//!
//! The node that leads the quorum knows all of it. Another voter tells whom it knows and what it
//! knows of itself; the ends of others' logs are -1. A broker without a vote names the leader and
//! says that another is to be asked.

use std::borrow::Cow;
use std::time::Duration;

use coordinator::quorum::{Progress, Status};
use engine::ids::{BrokerId, Offset};
use engine::time::Timestamp;

use super::admin::Header;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, ReplicaState, ResponsePartition,
    ResponseTopic,
};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// Kafka's name of the log of the metadata; its only partition is 0.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// Name of the listener by which voters are reached, as Kafka's documentation has it.
const VOTER_LISTENER: &str = "CONTROLLER";
/// Most partitions that one request may ask for, of which there is one; who asks for more loses the
/// connection.
const PARTITIONS_MAX: usize = 10_000;
/// What is not known.
const UNKNOWN: i64 = -1;

/// Answers DescribeQuorum (Kafka's `KafkaRaftClient.handleDescribeQuorumRequest`).
pub async fn describe_quorum<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeQuorumRequest::decode(&mut body, header.version)?;
    let asked: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if asked > PARTITIONS_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let status = shard.quorum_status().await;
    if let Some(status) = status {
        return Ok(header.encode(&describe(&request, &status, shard.env().wall())));
    }
    if !is_of_metadata(&request) {
        return Ok(header.encode(&unknown(&request)));
    }
    Ok(header.encode(&of_metadata(elsewhere(shard.image().controller()), Vec::new())))
}

/// What a coordinator says of the quorum at `now`.
pub(crate) fn describe<'a>(
    request: &DescribeQuorumRequest<'a>,
    status: &Status,
    now: Timestamp,
) -> DescribeQuorumResponse<'a> {
    match is_of_metadata(request) {
        true => of_metadata(described(status, now), nodes(status)),
        false => unknown(request),
    }
}

fn of_metadata<'a>(
    partition: ResponsePartition<'static>,
    nodes: Vec<Node<'static>>,
) -> DescribeQuorumResponse<'a> {
    let topic = ResponseTopic {
        topic_name: Cow::Borrowed(METADATA_TOPIC),
        partitions: vec![partition].into(),
    };
    DescribeQuorumResponse { topics: vec![topic].into(), nodes: nodes.into(), ..Default::default() }
}

/// Whether the request names the metadata's partition and nothing else.
fn is_of_metadata(request: &DescribeQuorumRequest<'_>) -> bool {
    let alone = request.topics.len() == 1;
    request.topics.first().filter(|_| alone).is_some_and(|topic| {
        let partitions = &topic.partitions;
        let first = partitions.first().map(|partition| partition.partition_index);
        topic.topic_name == METADATA_TOPIC && partitions.len() == 1 && first == Some(0)
    })
}

fn unknown<'a>(request: &DescribeQuorumRequest<'a>) -> DescribeQuorumResponse<'a> {
    let error_code = ErrorCode::UnknownTopicOrPartition;
    let topics = request.topics.iter().map(|topic| ResponseTopic {
        topic_name: Cow::Borrowed(topic.topic_name),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| ResponsePartition {
                partition_index: partition.partition_index,
                error_code,
                ..Default::default()
            })
            .collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), ..Default::default() }
}

/// What a node without a vote can say. The code makes clients ask another one.
fn elsewhere(leader: Option<BrokerId>) -> ResponsePartition<'static> {
    ResponsePartition {
        error_code: ErrorCode::NotLeaderOrFollower,
        error_message: Some(Cow::Borrowed("this broker has no vote in the quorum")),
        leader_id: leader.map_or(-1, |leader| leader.0),
        leader_epoch: -1,
        high_watermark: UNKNOWN,
        ..Default::default()
    }
}

fn described(status: &Status, now: Timestamp) -> ResponsePartition<'static> {
    let state = |progress: &Progress| replica_state(status, progress, now);
    let mut observers: Vec<ReplicaState> = status.learners.iter().map(state).collect();
    let known = |id| status.voters.iter().chain(&status.learners).any(|one| one.id == id);
    if !known(status.me) {
        // It waits to be let in: who does that asks for its directory here.
        let me = Progress {
            id: status.me,
            directory: Some(status.directory),
            endpoint: String::new(),
            end: None,
            heard: None,
            trouble: None,
        };
        observers.push(state(&me));
    }
    ResponsePartition {
        partition_index: 0,
        leader_id: status.leader.map_or(-1, |leader| leader.0),
        leader_epoch: i32::try_from(status.term).unwrap_or(i32::MAX),
        high_watermark: status.high_watermark.to_wire(),
        current_voters: status.voters.iter().map(state).collect(),
        observers: observers.into(),
        ..Default::default()
    }
}

/// How far one member is, seen from the node that says so at `now`.
fn replica_state(status: &Status, progress: &Progress, now: Timestamp) -> ReplicaState {
    let is_me = progress.id == status.me;
    let end = if is_me { Some(status.end) } else { progress.end };
    let leads = status.leader == Some(status.me);
    // The leader has what it has, now.
    let heard = if is_me && leads { Some(Duration::ZERO) } else { progress.heard };
    let ago = |passed: Duration| {
        now.0.saturating_sub(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
    };
    let heard = heard.map_or(UNKNOWN, ago);
    let has_all = leads && end.is_some_and(|end| end >= status.end);
    let directory = if is_me { Some(status.directory) } else { progress.directory };
    ReplicaState {
        replica_id: progress.id.0,
        replica_directory_id: directory.map(|directory| directory.0).unwrap_or_default(),
        log_end_offset: end.map_or(UNKNOWN, Offset::to_wire),
        last_fetch_timestamp: heard,
        last_caught_up_timestamp: if has_all { heard } else { UNKNOWN },
    }
}

/// Where the voters listen. One that is alone does not.
fn nodes(status: &Status) -> Vec<Node<'static>> {
    let each = status.voters.iter().map(|voter| {
        let listeners: Vec<_> = listener(&voter.endpoint).into_iter().collect();
        Node { node_id: voter.id.0, listeners: listeners.into() }
    });
    each.collect()
}

/// A listener from its `host:port`.
fn listener(endpoint: &str) -> Option<Listener<'static>> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Listener {
        name: Cow::Borrowed(VOTER_LISTENER),
        host: Cow::Owned(host.to_owned()),
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use coordinator::quorum::types::Directory;

    use super::*;

    /// The quorum of 1, 2 and 3, of which 1 leads, as `me` sees it.
    fn status(me: i32) -> Status {
        let leads = me == 1;
        let member = |id: i32, end: u64, heard: u64| Progress {
            id: BrokerId(id),
            directory: Some(Directory([id as u8; 16])),
            endpoint: format!("[::{id}]:909{id}"),
            end: leads.then_some(Offset::new(end)),
            heard: (leads && id != 1).then_some(Duration::from_millis(heard)),
            trouble: None,
        };
        Status {
            me: BrokerId(me),
            directory: Directory([me as u8; 16]),
            cluster: None,
            leader: Some(BrokerId(1)),
            term: 7,
            voters: vec![member(1, 9, 0), member(2, 9, 100), member(3, 5, 400)],
            learners: vec![member(4, 2, 200)],
            end: Offset::new(9),
            high_watermark: Offset::new(8),
        }
    }

    /// Id, end, last fetch, last caught up.
    fn told(status: &Status) -> Vec<(i32, i64, i64, i64)> {
        let partition = described(status, Timestamp(1_000));
        assert_eq!((partition.leader_id, partition.leader_epoch), (1, 7));
        assert_eq!(partition.high_watermark, 8);
        let all = partition.current_voters.iter().chain(partition.observers.iter());
        let each = all.map(|one| {
            assert_eq!(one.replica_directory_id, [one.replica_id as u8; 16]);
            let caught_up = one.last_caught_up_timestamp;
            (one.replica_id, one.log_end_offset, one.last_fetch_timestamp, caught_up)
        });
        each.collect()
    }

    #[test]
    fn the_leader_knows_how_far_everybody_is() {
        let all = [(1, 9, 1_000, 1_000), (2, 9, 900, 900), (3, 5, 600, -1), (4, 2, 800, -1)];
        assert_eq!(told(&status(1)), all);
        let nodes = nodes(&status(1));
        assert_eq!(nodes.len(), 3);
        let third = nodes[2].listeners.first().expect("it listens");
        assert_eq!((&*third.host, third.port), ("::3", 9093));
    }

    #[test]
    fn another_voter_knows_itself() {
        let all = [(1, -1, -1, -1), (2, 9, -1, -1), (3, -1, -1, -1), (4, -1, -1, -1)];
        assert_eq!(told(&status(2)), all);
    }

    #[test]
    fn a_node_without_a_vote_sends_clients_to_another() {
        let partition = elsewhere(Some(BrokerId(3)));
        assert_eq!((partition.leader_id, partition.leader_epoch), (3, -1));
        assert!(partition.error_code.is_retriable());
        assert_eq!(elsewhere(None).leader_id, -1);
    }
}
