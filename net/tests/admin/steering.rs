//! What operators steer a cluster with, as far as one broker can show it.

use engine::env::sim::End;
use net::wire::alter_partition_reassignments::{self as alter, *};
use net::wire::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use net::wire::describe_quorum::{self, DescribeQuorumRequest, DescribeQuorumResponse};
use net::wire::elect_leaders::{self, *};
use net::wire::list_partition_reassignments::*;
use net::wire::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use net::wire::update_features::{self, *};

use super::*;

/// Topic, partition and what became of it.
type Outcomes = Vec<(String, i32, ErrorCode)>;

fn outcomes(all: &[(&str, i32, ErrorCode)]) -> Outcomes {
    all.iter().map(|&(topic, index, error)| (topic.to_owned(), index, error)).collect()
}

/// Asks for elections in this version; all partitions if none are named.
async fn elect(
    on: &Connection,
    version: i16,
    election_type: i8,
    named: Option<&[(&str, &[i32])]>,
) -> (ErrorCode, Outcomes) {
    let topics = named.map(|named| {
        let each = named.iter().map(|&(topic, partitions)| elect_leaders::TopicPartitions {
            topic,
            partitions: partitions.into(),
        });
        each.collect()
    });
    let request =
        ElectLeadersRequest { election_type, topic_partitions: topics, timeout_ms: 30_000 };
    let answer = on.call(&request, version).await;
    let response: ElectLeadersResponse<'_> = answer.read();
    let mut all = Outcomes::new();
    for topic in &response.replica_election_results {
        for partition in &topic.partition_result {
            assert_eq!(partition.error_code.is_none(), partition.error_message.is_none());
            all.push((topic.topic.to_string(), partition.partition_id, partition.error_code));
        }
    }
    (response.error_code, all)
}

#[test]
fn a_leader_that_is_the_preferred_one_needs_no_election() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        create(&on, "a", 2, &[]).await;
        create(&on, "b", 1, &[]).await;
        let named: &[(&str, &[i32])] = &[("a", &[1, 0, 7]), ("x", &[0]), ("b", &[0])];
        let (no, unknown) = (ErrorCode::ElectionNotNeeded, ErrorCode::UnknownTopicOrPartition);
        let answer =
            [("a", 1, no), ("a", 0, no), ("a", 7, unknown), ("x", 0, unknown), ("b", 0, no)];
        for version in 0..=2 {
            let elected = elect(&on, version, PREFERRED, Some(named)).await;
            assert_eq!(elected, (ErrorCode::None, outcomes(&answer)));
            assert_eq!(elect(&on, version, PREFERRED, None).await, (ErrorCode::None, vec![]));
        }
        let elected = elect(&on, 2, UNCLEAN, Some(&[("a", &[0])])).await;
        assert_eq!(elected, (ErrorCode::None, outcomes(&[("a", 0, no)])));
        let invalid = ErrorCode::InvalidRequest;
        let refused = elect(&on, 2, 7, Some(&[("a", &[0])])).await;
        assert_eq!(refused, (invalid, outcomes(&[("a", 0, invalid)])));
    });
}

/// Asks for one topic's first partition to be on these brokers: its error, and the flag that comes
/// back.
async fn reassign(
    on: &Connection,
    version: i16,
    allow: bool,
    name: &str,
    replicas: Option<&[i32]>,
) -> (ErrorCode, bool) {
    let replicas = replicas.map(Array::from);
    let partitions = [ReassignablePartition { partition_index: 0, replicas }];
    let topics = [ReassignableTopic { name, partitions: (&partitions).into() }];
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: 30_000,
        allow_replication_factor_change: allow,
        topics: (&topics).into(),
    };
    let answer = on.call(&request, version).await;
    let response: AlterPartitionReassignmentsResponse<'_> = answer.read();
    assert_eq!(response.error_code, ErrorCode::None);
    let topic: alter::ReassignableTopicResponse<'_> = response.responses.first().expect("one");
    assert_eq!((&*topic.name, topic.partitions.len()), (name, 1));
    let partition = topic.partitions.first().expect("one");
    assert_eq!(partition.partition_index, 0);
    assert_eq!(partition.error_code.is_none(), partition.error_message.is_none());
    (partition.error_code, response.allow_replication_factor_change)
}

#[test]
fn where_there_is_one_broker_nothing_moves() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        create(&on, "a", 1, &[]).await;
        let idle = (ErrorCode::NoReassignmentInProgress, true);
        assert_eq!(reassign(&on, 0, true, "a", None).await, idle);
        assert_eq!(reassign(&on, 1, true, "a", None).await, idle);
        let unknown = (ErrorCode::UnknownTopicOrPartition, true);
        assert_eq!(reassign(&on, 1, true, "x", Some(&[1])).await, unknown);
        let invalid = ErrorCode::InvalidReplicaAssignment;
        assert_eq!(reassign(&on, 1, true, "a", Some(&[1, 2])).await, (invalid, true));
        assert_eq!(reassign(&on, 1, true, "a", Some(&[])).await, (invalid, true));
        assert_eq!(reassign(&on, 1, false, "a", Some(&[1, 1])).await, (invalid, false));
        // It is there already.
        assert_eq!(reassign(&on, 1, false, "a", Some(&[1])).await, (ErrorCode::None, false));

        let partitions = [0, 0, 5];
        let topics =
            ["a", "x"].map(|name| ListedTopic { name, partition_indexes: (&partitions).into() });
        for topics in [None, Some((&topics).into()), Some(Array::new())] {
            let request = ListPartitionReassignmentsRequest { topics, ..Default::default() };
            let answer = on.call(&request, 0).await;
            let response: ListPartitionReassignmentsResponse<'_> = answer.read();
            assert_eq!((response.error_code, response.topics.len()), (ErrorCode::None, 0));
        }
    });
}

#[test]
fn a_quorum_of_one_is_described() {
    let describe = async |on: &Connection, version, topic_name: &str, partition_index| {
        let partitions = [describe_quorum::RequestPartition { partition_index }];
        let topics =
            [describe_quorum::RequestTopic { topic_name, partitions: (&partitions).into() }];
        let request = DescribeQuorumRequest { topics: (&topics).into() };
        let answer = on.call(&request, version).await;
        let response: DescribeQuorumResponse<'_> = answer.read();
        assert_eq!(response.error_code, ErrorCode::None);
        let topic = response.topics.first().expect("one topic");
        assert_eq!(topic.topic_name, topic_name);
        let partition = topic.partitions.first().expect("one partition");
        assert_eq!(partition.partition_index, partition_index);
        let nodes: Vec<_> = response.nodes.iter().map(|node| node.node_id).collect();
        assert_eq!(nodes.is_empty(), version < 2 || !partition.error_code.is_none());
        let voters: Vec<_> = partition.current_voters.iter().collect();
        assert_eq!(partition.observers.len(), 0);
        let led = (partition.leader_id, partition.leader_epoch, partition.high_watermark);
        (partition.error_code, led, voters)
    };
    on_brokers(&[], async |client| {
        // Whichever shard accepts it.
        for on in [client.connect().await, client.connect().await, client.connect().await] {
            for version in 0..=2 {
                let (error, (leader, epoch, end), voters) =
                    describe(&on, version, "__cluster_metadata", 0).await;
                assert_eq!((error, leader), (ErrorCode::None, 1));
                assert!(epoch > 0 && end > 0, "{epoch} {end}");
                let [me] = &voters[..] else { panic!("{} voters", voters.len()) };
                assert_eq!((me.replica_id, me.log_end_offset), (1, end));
                assert_eq!(me.replica_directory_id == [0; 16], version < 2);
                let (fetched, caught_up) = (me.last_fetch_timestamp, me.last_caught_up_timestamp);
                assert_eq!((fetched > 0, caught_up), (version > 0, fetched));
            }
        }
        let on = client.connect().await;
        for (topic, partition) in [("__cluster_metadata", 1), ("a", 0)] {
            let (error, _, voters) = describe(&on, 2, topic, partition).await;
            assert_eq!((error, voters.len()), (ErrorCode::UnknownTopicOrPartition, 0));
        }
    });
}

/// Asks for one feature's level: the error, and of how many features it is told.
async fn update(
    on: &Connection,
    version: i16,
    feature: update_features::FeatureUpdate<'_>,
    validate_only: bool,
) -> (ErrorCode, usize) {
    let name = feature.feature;
    let updates = [feature];
    let request = UpdateFeaturesRequest {
        timeout_ms: 30_000,
        feature_updates: (&updates).into(),
        validate_only,
    };
    let answer = on.call(&request, version).await;
    let response: UpdateFeaturesResponse<'_> = answer.read();
    assert_eq!(response.error_code.is_none(), response.error_message.is_none());
    for result in &response.results {
        assert_eq!((&*result.feature, result.error_code), (name, ErrorCode::None));
    }
    (response.error_code, response.results.len())
}

/// Finalized levels, as ApiVersions tells them, and the version of them.
async fn levels(on: &Connection) -> (Vec<(String, i16)>, i64) {
    let request = ApiVersionsRequest {
        client_software_name: "test",
        client_software_version: "1",
        ..Default::default()
    };
    let answer = on.call(&request, 4).await;
    let response: ApiVersionsResponse<'_> = answer.read();
    for feature in &response.finalized_features {
        assert_eq!(feature.min_version_level, feature.max_version_level);
    }
    let each = response.finalized_features.iter();
    let levels = each.map(|feature| (feature.name.to_string(), feature.max_version_level));
    (levels.collect(), response.finalized_features_epoch)
}

#[test]
fn features_change_for_all_and_only_as_they_may() {
    on_brokers(&[], async |client| {
        let (on, other) = (client.connect().await, client.connect().await);
        let (before, epoch) = levels(&on).await;
        assert!(before.contains(&("metadata.version".to_owned(), 25)), "{before:?}");
        let down = |level, upgrade_type| update_features::FeatureUpdate {
            feature: "eligible.leader.replicas.version",
            max_version_level: level,
            allow_downgrade: false,
            upgrade_type,
        };
        let invalid = (ErrorCode::InvalidUpdateVersion, 0);
        assert_eq!(update(&on, 1, down(0, UPGRADE), false).await, invalid);
        assert_eq!(update(&on, 1, down(9, UPGRADE), false).await, invalid);
        assert_eq!(update(&on, 1, down(-1, SAFE_DOWNGRADE), false).await, invalid);
        assert_eq!(update(&on, 1, down(0, 7), false).await, invalid);
        let unknown = update_features::FeatureUpdate { feature: "x", ..down(1, UPGRADE) };
        assert_eq!(update(&on, 2, unknown, false).await, invalid);
        assert_eq!(update(&on, 1, down(0, SAFE_DOWNGRADE), true).await, (ErrorCode::None, 1));
        assert_eq!(levels(&other).await, (before.clone(), epoch), "only asked");

        let gone =
            before.iter().filter(|(name, _)| name != "eligible.leader.replicas.version").cloned();
        let gone: Vec<_> = gone.collect();
        assert_eq!(update(&on, 2, down(0, SAFE_DOWNGRADE), false).await, (ErrorCode::None, 0));
        let (after, newer) = levels(&other).await;
        assert_eq!(after, gone);
        assert!(newer > epoch);
        assert_eq!(update(&on, 1, down(1, UPGRADE), false).await, (ErrorCode::None, 1));
        assert_eq!(levels(&other).await.0, before);
        // Version 0 says it in another way.
        let allowed = update_features::FeatureUpdate { allow_downgrade: true, ..down(0, UPGRADE) };
        assert_eq!(update(&on, 0, down(0, UPGRADE), false).await, invalid);
        assert_eq!(update(&on, 0, allowed, false).await, (ErrorCode::None, 1));
        assert_eq!(levels(&other).await.0, gone);
    });
}

#[test]
fn features_are_told_in_versions_that_have_room_for_them() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        for version in 0..=5 {
            let request = ApiVersionsRequest {
                client_software_name: "test",
                client_software_version: "1",
                node_id: -1,
                ..Default::default()
            };
            let answer = on.call(&request, version).await;
            let response: ApiVersionsResponse<'_> = answer.read();
            assert_eq!(response.error_code, ErrorCode::None);
            let lowest: Vec<_> =
                response.supported_features.iter().map(|one| one.min_version).collect();
            assert_eq!(lowest.is_empty(), version < 3);
            assert_eq!(lowest.contains(&0), version > 3, "KAFKA-17492");
            assert_eq!(response.finalized_features.is_empty(), version < 3);
            assert_eq!(response.finalized_features_epoch >= 0, version >= 3);
        }
    });
}

#[test]
fn who_is_no_member_cannot_be_struck_off() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        let answer = on.call(&UnregisterBrokerRequest { broker_id: 9 }, 0).await;
        let response: UnregisterBrokerResponse<'_> = answer.read();
        assert_eq!(response.error_code, ErrorCode::BrokerIdNotRegistered);
        assert!(response.error_message.is_some());
    });
}

#[test]
fn a_cluster_tells_its_brokers_and_a_restart_changes_nothing_of_it() {
    let cluster = async |client: Client, include_fenced_brokers| {
        let on = client.connect().await;
        let request = DescribeClusterRequest { include_fenced_brokers, ..Default::default() };
        let answer = on.call(&request, 2).await;
        let response: DescribeClusterResponse<'_> = answer.read();
        let brokers = response.brokers.iter().map(|broker| (broker.broker_id, broker.is_fenced));
        (response.controller_id, brokers.collect::<Vec<_>>())
    };
    let broker = Broker::start(1, 2, &[]);
    for include in [false, true] {
        let told = broker.client(async |client| cluster(client, include).await);
        assert_eq!(told, (1, vec![(1, false)]));
        broker.restart(End::Kill);
    }
}
