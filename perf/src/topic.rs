//! Topics of the broker under measurement: made, found, measured at their ends, removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::ids::TopicId;
use net::client::{Client, ClientError};
use net::wire::create_topics::{self, CreateTopicsRequest, RequestConfig};
use net::wire::delete_topics::{self, DeleteTopicsRequest};
use net::wire::list_offsets::{self, LATEST, ListOffsetsRequest};
use net::wire::metadata::{self, MetadataRequest};
use net::wire::{ErrorCode, Request};

use crate::broker::connect;
use crate::error::{PerfError, accepted};

/// How long a new topic may take until each partition has a leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic as its brokers tell it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zero where the broker does not know ids.
    pub id: TopicId,
    /// Address of each partition's leader, by partition.
    pub leaders: Vec<String>,
}

/// One connection's share of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The leader of its partitions.
    pub leader: String,
    /// Its partitions.
    pub partitions: Vec<i32>,
}

impl Topic {
    /// Highest common version of a request that names topics: by id if they are known, else one
    /// that names them by name. `by_name_max` is the last version that does.
    pub fn version_of<'q, R: Request<'q>>(
        &self,
        client: &Client,
        by_name_max: i16,
    ) -> Result<i16, ClientError> {
        let max = if self.id == TopicId::ZERO { by_name_max } else { i16::MAX };
        client.versions().at_most::<R>(max)
    }

    /// Gives each of `connections` its partitions: each connection talks to one leader, leaders
    /// share the connections, and connections of a leader share its partitions.
    pub fn seats(&self, connections: usize) -> Vec<Seat> {
        let mut by_leader: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in self.leaders.iter().enumerate() {
            by_leader.entry(leader).or_default().push(partition as i32);
        }
        let leaders: Vec<_> = by_leader.into_iter().collect();
        let seat = |i: usize| {
            let (leader, partitions) = &leaders[i % leaders.len()];
            let place = i / leaders.len();
            let mates = connections / leaders.len()
                + usize::from(i % leaders.len() < connections % leaders.len());
            let mut mine: Vec<i32> =
                partitions.iter().copied().skip(place).step_by(mates).collect();
            if mine.is_empty() {
                mine.push(partitions[place % partitions.len()]);
            }
            Seat { leader: (*leader).to_owned(), partitions: mine }
        };
        (0..connections).map(seat).collect()
    }
}

/// Finds a topic, or makes it with `partitions` partitions of the broker's default replication.
pub fn ensure(client: &mut Client, name: &str, partitions: i32) -> Result<Topic, PerfError> {
    if let Some(topic) = find(client, name)? {
        return Ok(topic);
    }
    create(client, name, partitions, &[])
}

/// Makes a topic, and waits until every partition has a leader.
pub fn create(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<Topic, PerfError> {
    request_creation(client, name, partitions, configs)?;
    let begun = Instant::now();
    loop {
        match find(client, name)? {
            Some(topic) if topic.leaders.len() == partitions as usize => return Ok(topic),
            _ if begun.elapsed() > PATIENCE => {
                let why = format!("{name} has no {partitions} leaders after {PATIENCE:?}");
                return Err(PerfError::Broker(why));
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn request_creation(
    client: &mut Client,
    name: &str,
    num_partitions: i32,
    configs: &[(&str, &str)],
) -> Result<(), PerfError> {
    let config = |&(name, value)| RequestConfig { name, value: Some(value) };
    // From version 4 on the broker's default; before, a number must be said.
    let version = client.versions().highest::<CreateTopicsRequest<'_>>()?;
    let topic = create_topics::RequestTopic {
        name,
        num_partitions,
        replication_factor: if version >= 4 { -1 } else { 1 },
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    let topics = vec![topic].into();
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let response = client.call(&request)?;
    for topic in &response.topics {
        let words = topic.error_message.unwrap_or_default();
        accepted(format!("creating topic {name} ({words})"), topic.error_code)?;
    }
    Ok(())
}

/// A topic, unless it does not exist. Partitions without a leader end its list.
pub fn find(client: &mut Client, name: &str) -> Result<Option<Topic>, PerfError> {
    let ask = metadata::RequestTopic { name: Some(name), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![ask].into()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let response = client.call(&request)?;
    let brokers: BTreeMap<i32, String> = response
        .brokers
        .iter()
        .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)))
        .collect();
    let Some(found) = response.topics.first() else { return Ok(None) };
    match found.error_code {
        ErrorCode::None => {}
        ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable => return Ok(None),
        error => return Err(PerfError::Refused { what: format!("topic {name}"), error }),
    }
    let leaders: BTreeMap<i32, String> = found
        .partitions
        .iter()
        .filter_map(|p| Some((p.partition_index, brokers.get(&p.leader_id)?.clone())))
        .collect();
    let in_order = leaders
        .into_iter()
        .enumerate()
        .map_while(|(i, (partition, leader))| (partition == i as i32).then_some(leader));
    Ok(Some(Topic { name: name.to_owned(), id: found.topic_id, leaders: in_order.collect() }))
}

/// Removes a topic.
pub fn delete(client: &mut Client, topic: &Topic) -> Result<(), PerfError> {
    let by_name = delete_topics::RequestTopic { name: Some(&topic.name), topic_id: TopicId::ZERO };
    let request = DeleteTopicsRequest {
        topics: vec![by_name].into(),
        topic_names: vec![topic.name.as_str()].into(),
        timeout_ms: 30_000,
    };
    let response = client.call(&request)?;
    for answer in &response.topics {
        accepted(format!("deleting topic {}", topic.name), answer.error_code)?;
    }
    Ok(())
}

/// One offset of each partition: `at` is a timestamp, or a special one of
/// [`net::wire::list_offsets`].
pub fn offsets(topic: &Topic, at: i64) -> Result<Vec<i64>, PerfError> {
    let mut offsets = vec![-1; topic.leaders.len()];
    for seat in topic.seats(distinct(&topic.leaders)) {
        let mut client = connect(&seat.leader)?;
        let ask = |&partition_index| list_offsets::RequestPartition {
            partition_index,
            timestamp: at,
            ..Default::default()
        };
        let partitions = seat.partitions.iter().map(ask).collect();
        let asked = list_offsets::RequestTopic { name: &topic.name, partitions };
        let topics = vec![asked].into();
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let response = client.call(&request)?;
        for found in response.topics.iter().flat_map(|t| t.partitions.iter().collect::<Vec<_>>()) {
            let what = format!("offsets of {}-{}", topic.name, found.partition_index);
            accepted(what, found.error_code)?;
            let slot = offsets.get_mut(found.partition_index as usize);
            *slot.ok_or_else(|| PerfError::Wrong("an offset of no partition".into()))? =
                found.offset;
        }
    }
    Ok(offsets)
}

/// End of each partition.
pub fn ends(topic: &Topic) -> Result<Vec<i64>, PerfError> {
    offsets(topic, LATEST)
}

fn distinct(leaders: &[String]) -> usize {
    leaders.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(leaders: &[&str]) -> Topic {
        let leaders = leaders.iter().map(|&leader| leader.to_owned()).collect();
        Topic { name: "t".into(), id: TopicId::ZERO, leaders }
    }

    fn seats(leaders: &[&str], connections: usize) -> Vec<(String, Vec<i32>)> {
        let seats = topic(leaders).seats(connections);
        seats.into_iter().map(|seat| (seat.leader, seat.partitions)).collect()
    }

    #[test]
    fn connections_share_partitions_and_leaders() {
        let a = || "a".to_owned();
        let b = || "b".to_owned();
        assert_eq!(seats(&["a"; 5], 2), [(a(), vec![0, 2, 4]), (a(), vec![1, 3])]);
        assert_eq!(seats(&["a"; 2], 3), [(a(), vec![0]), (a(), vec![1]), (a(), vec![0])]);
        assert_eq!(
            seats(&["a", "b", "a", "b", "a"], 3),
            [(a(), vec![0, 4]), (b(), vec![1, 3]), (a(), vec![2])]
        );
    }

    #[test]
    fn every_partition_has_a_connection_when_each_leader_has_one() {
        for leaders in [&["a", "a", "b", "c", "c", "c", "b"][..], &["a"; 11]] {
            for connections in 3..20 {
                let mut seen: Vec<i32> =
                    seats(leaders, connections).into_iter().flat_map(|(_, p)| p).collect();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), leaders.len(), "{leaders:?} over {connections}");
            }
        }
    }
}
