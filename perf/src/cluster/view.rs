//! What the cluster says of itself, and what it is told to do with its topics.

use std::thread;
use std::time::{Duration, Instant};

use net::client::Client;
use net::wire::ErrorCode;
use net::wire::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use net::wire::create_topics::{Assignment, CreateTopicsRequest, RequestTopic};
use net::wire::describe_quorum::{self, DescribeQuorumRequest};
use net::wire::elect_leaders::{ElectLeadersRequest, PREFERRED, TopicPartitions};
use net::wire::metadata::{self, MetadataRequest};

use super::nodes::{BROKERS, Nodes};
use crate::error::{PerfError, accepted};
use crate::topic::{self, Topic};

/// How long something may take that has been decided.
const PATIENCE: Duration = Duration::from_secs(120);
/// Milliseconds that a request may wait for the controller.
const TIMEOUT_MS: i32 = 60_000;

/// One partition as a broker tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who leads; -1: nobody.
    pub leader: i32,
    /// Who is in sync.
    pub isr: Vec<i32>,
}

/// Which brokers keep each partition of a new topic, the preferred leader first: as many as there
/// are brokers, led by each in turn.
pub fn spread(partitions: usize) -> Vec<Vec<i32>> {
    let one = |index: usize| {
        let mut brokers = BROKERS;
        brokers.rotate_left(index % BROKERS.len());
        brokers.to_vec()
    };
    (0..partitions).map(one).collect()
}

/// Asks for a topic whose partitions are `placed` on brokers; what the broker said.
pub fn ask_for(
    client: &mut Client,
    name: &str,
    placed: &[Vec<i32>],
    timeout_ms: i32,
) -> Result<ErrorCode, PerfError> {
    let assignment = |(index, brokers): (usize, &Vec<i32>)| Assignment {
        partition_index: index as i32,
        broker_ids: brokers.clone().into(),
    };
    let topic = RequestTopic {
        name,
        num_partitions: -1,
        replication_factor: -1,
        assignments: placed.iter().enumerate().map(assignment).collect(),
        ..Default::default()
    };
    let topics = vec![topic].into();
    let request = CreateTopicsRequest { topics, timeout_ms, ..Default::default() };
    let response = client.call(&request)?;
    let told = response.topics.first().map(|topic| topic.error_code);
    told.ok_or_else(|| PerfError::Wrong("an answer without the topic".into()))
}

/// Makes such a topic, and waits until every broker knows the leader of each partition.
pub fn create(nodes: &Nodes, name: &str, placed: &[Vec<i32>]) -> Result<Topic, PerfError> {
    let error = ask_for(&mut nodes.connect(BROKERS[0])?, name, placed, TIMEOUT_MS)?;
    accepted(format!("creating topic {name}"), error)?;
    let mut found = None;
    for broker in BROKERS {
        let mut client = nodes.connect(broker)?;
        found = Some(until(&format!("the leaders of {name}"), || {
            let topic = topic::find(&mut client, name)?;
            Ok(topic.filter(|topic| topic.leaders.len() == placed.len()))
        })?);
    }
    Ok(found.expect("there are brokers"))
}

/// Asks again and again until there is an answer.
pub fn until<T>(
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>, PerfError>,
) -> Result<T, PerfError> {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            return Err(PerfError::Broker(format!("{what}: not after {PATIENCE:?}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The partitions of a topic, by number, as the broker behind `client` knows them.
pub fn partitions(client: &mut Client, name: &str) -> Result<Vec<Seen>, PerfError> {
    let ask = metadata::RequestTopic { name: Some(name), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![ask].into()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let response = client.call(&request)?;
    let Some(topic) = response.topics.first() else { return Ok(Vec::new()) };
    accepted(format!("describing {name}"), topic.error_code)?;
    let mut seen: Vec<(i32, Seen)> = topic
        .partitions
        .iter()
        .map(|one| {
            let seen = Seen { leader: one.leader_id, isr: one.isr_nodes.iter().collect() };
            (one.partition_index, seen)
        })
        .collect();
    seen.sort_by_key(|(index, _)| *index);
    Ok(seen.into_iter().map(|(_, seen)| seen).collect())
}

/// Puts the replicas of a partition in another order, or on other brokers.
pub fn reassign(
    client: &mut Client,
    name: &str,
    partition: i32,
    replicas: &[i32],
) -> Result<(), PerfError> {
    let replicas = Some(replicas.to_vec().into());
    let partition = ReassignablePartition { partition_index: partition, replicas };
    let topics = vec![ReassignableTopic { name, partitions: vec![partition].into() }];
    let request = AlterPartitionReassignmentsRequest {
        topics: topics.into(),
        timeout_ms: TIMEOUT_MS,
        ..Default::default()
    };
    let response = client.call(&request)?;
    accepted(format!("moving {name}"), response.error_code)?;
    for topic in &response.responses {
        for one in &topic.partitions {
            accepted(format!("moving {name}-{}", one.partition_index), one.error_code)?;
        }
    }
    Ok(())
}

/// Has the first replica of a partition lead it.
pub fn prefer(client: &mut Client, name: &str, partition: i32) -> Result<(), PerfError> {
    let named = TopicPartitions { topic: name, partitions: vec![partition].into() };
    let request = ElectLeadersRequest {
        election_type: PREFERRED,
        topic_partitions: Some(vec![named].into()),
        timeout_ms: TIMEOUT_MS,
    };
    let response = client.call(&request)?;
    accepted(format!("electing a leader of {name}"), response.error_code)?;
    for topic in &response.replica_election_results {
        for one in &topic.partition_result {
            match one.error_code {
                ErrorCode::ElectionNotNeeded => {}
                error => accepted(format!("electing a leader of {name}"), error)?,
            }
        }
    }
    Ok(())
}

/// The coordinator that leads the others.
pub fn leading_coordinator(client: &mut Client) -> Result<i32, PerfError> {
    let partitions = vec![describe_quorum::RequestPartition { partition_index: 0 }].into();
    let topic = describe_quorum::RequestTopic { topic_name: "__cluster_metadata", partitions };
    let response = client.call(&DescribeQuorumRequest { topics: vec![topic].into() })?;
    accepted("describing the quorum", response.error_code)?;
    let partition = response.topics.first().and_then(|topic| topic.partitions.first());
    match partition {
        Some(partition) if partition.leader_id >= 0 => Ok(partition.leader_id),
        _ => Err(PerfError::Broker("no coordinator leads".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_led_by_all_in_turn() {
        assert_eq!(spread(4), [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    }
}
