//! Groups of the consumer protocol (KIP-848), spoken to a whole simulated broker of one to three
//! shards: members of both protocols in one group, its offsets, its life over a restart.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use engine::env::sim::End;
use engine::ids::TopicId;
use net::wire::alter_configs::{
    Change, ChangedEntry, DELETE, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    SET,
};
use net::wire::consumer_group_describe::{
    CLASSIC, CONSUMER, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
};
use net::wire::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use net::wire::create_topics::{CreateTopicsRequest, CreateTopicsResponse, RequestTopic};
use net::wire::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use net::wire::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResponse, RESOURCE_GROUP, RequestResource,
    SOURCE_DEFAULT, SOURCE_GROUP, SOURCE_STATIC_BROKER, TYPE_INT,
};
use net::wire::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse, GROUP};
use net::wire::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::wire::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use net::wire::list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use net::wire::list_groups::{ListGroupsRequest, ListGroupsResponse};
use net::wire::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};
use net::wire::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use net::wire::sync_group::{SyncGroupRequest, SyncGroupResponse};
use net::wire::update_features::{FeatureUpdate, UpdateFeaturesRequest, UpdateFeaturesResponse};
use net::wire::{Array, ErrorCode};

#[allow(dead_code, reason = "each test file uses its part")]
mod broker;

use broker::{Broker, Client, Connection};

/// What a heartbeat leads to is told with it.
const AT_ONCE: [(&str, &str); 1] = [("group.consumer.assignment.interval.ms", "0")];

/// A connection to a broker that has topic "t" of four partitions, and its id.
async fn begin(client: &Client) -> (Connection, TopicId) {
    let on = client.connect().await;
    let topics = [RequestTopic {
        name: "t",
        num_partitions: 4,
        replication_factor: 1,
        ..Default::default()
    }];
    let request = CreateTopicsRequest { topics: (&topics).into(), ..Default::default() };
    let answer = on.call(&request, 7).await;
    let created: CreateTopicsResponse<'_> = answer.read();
    let topic = created.topics.first().expect("one topic");
    assert_eq!(topic.error_code, ErrorCode::None);
    find(client, &on).await;
    (on, topic.topic_id)
}

/// Waits until the group has its coordinator.
async fn find(client: &Client, on: &Connection) {
    for _ in 0..100 {
        let keys = ["g"];
        let request = FindCoordinatorRequest {
            key_type: GROUP,
            coordinator_keys: (&keys).into(),
            ..Default::default()
        };
        let answer = on.call(&request, 4).await;
        let found: FindCoordinatorResponse<'_> = answer.read();
        if found.coordinators.first().expect("one").error_code == ErrorCode::None {
            // And has read all that it remembers.
            let answer = on.call(&ListGroupsRequest::default(), 5).await;
            let groups: ListGroupsResponse<'_> = answer.read();
            if groups.error_code == ErrorCode::None {
                return;
            }
        }
        client.sleep(Duration::from_millis(100)).await;
    }
    panic!("no coordinator");
}

/// What a member is told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    code: ErrorCode,
    epoch: i32,
    /// Its partitions of the topic, if it was told.
    has: Option<BTreeSet<i32>>,
}

fn told(code: ErrorCode, epoch: i32, has: Option<&[i32]>) -> Told {
    Told { code, epoch, has: has.map(|has| has.iter().copied().collect()) }
}

async fn beat(on: &Connection, request: ConsumerGroupHeartbeatRequest<'_>) -> Told {
    let answer = on.call(&request, 1).await;
    let response: ConsumerGroupHeartbeatResponse<'_> = answer.read();
    let partitions = response.assignment.map(|all| {
        let each = all.topic_partitions.iter();
        each.flat_map(|topic| topic.partitions.iter().collect::<Vec<_>>()).collect()
    });
    if response.error_code == ErrorCode::None && request.member_epoch >= 0 {
        assert_eq!(response.heartbeat_interval_ms, 5_000);
        assert_eq!(response.member_id.as_deref(), Some(request.member_id));
    }
    Told { code: response.error_code, epoch: response.member_epoch, has: partitions }
}

fn joining<'a>(member: &'a str, topics: &'a [&'a str]) -> ConsumerGroupHeartbeatRequest<'a> {
    ConsumerGroupHeartbeatRequest {
        group_id: "g",
        member_id: member,
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(topics.into()),
        topic_partitions: Some(Array::default()),
        ..Default::default()
    }
}

fn living(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest<'_> {
    ConsumerGroupHeartbeatRequest {
        group_id: "g",
        member_id: member,
        member_epoch: epoch,
        ..Default::default()
    }
}

async fn having(on: &Connection, member: &str, epoch: i32, id: TopicId, owned: &[i32]) -> Told {
    let topics = [TopicPartitions { topic_id: id, partitions: owned.into() }];
    let beat_now = living(member, epoch);
    beat(on, ConsumerGroupHeartbeatRequest { topic_partitions: Some((&topics).into()), ..beat_now })
        .await
}

async fn commit(on: &Connection, member: &str, epoch: i32, offset: i64) -> ErrorCode {
    commit_in(on, 9, member, epoch, offset).await
}

/// The same in another version of the request.
async fn commit_in(
    on: &Connection,
    version: i16,
    member: &str,
    epoch: i32,
    offset: i64,
) -> ErrorCode {
    let partitions = [OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..Default::default()
    }];
    let partitions = (&partitions).into();
    let topics = [OffsetCommitRequestTopic { name: "t", partitions, ..Default::default() }];
    let request = OffsetCommitRequest {
        group_id: "g",
        generation_id_or_member_epoch: epoch,
        member_id: member,
        topics: (&topics).into(),
        ..Default::default()
    };
    let answer = on.call(&request, version).await;
    let response: OffsetCommitResponse<'_> = answer.read();
    let topic = response.topics.first().expect("one topic");
    topic.partitions.first().expect("one partition").error_code
}

async fn fetch(on: &Connection, member: Option<&str>, epoch: i32) -> Result<i64, ErrorCode> {
    fetch_in(on, 9, member, epoch).await
}

/// The same in another version of the request.
async fn fetch_in(
    on: &Connection,
    version: i16,
    member: Option<&str>,
    epoch: i32,
) -> Result<i64, ErrorCode> {
    let partitions = [0];
    let partition_indexes = (&partitions).into();
    let topics = [OffsetFetchRequestTopics { name: "t", partition_indexes, ..Default::default() }];
    let groups = [OffsetFetchRequestGroup {
        group_id: "g",
        member_id: member,
        member_epoch: epoch,
        topics: Some((&topics).into()),
    }];
    let request = OffsetFetchRequest { groups: (&groups).into(), ..Default::default() };
    let answer = on.call(&request, version).await;
    let response: OffsetFetchResponse<'_> = answer.read();
    let group = response.groups.first().expect("one group");
    if group.error_code != ErrorCode::None {
        return Err(group.error_code);
    }
    let topic = group.topics.first().expect("one topic");
    Ok(topic.partitions.first().expect("one partition").committed_offset)
}

/// State, type and protocol type of the group in the list.
async fn listed(on: &Connection, types: &[&str]) -> Option<(String, String, String)> {
    let request = ListGroupsRequest { types_filter: types.into(), ..Default::default() };
    let answer = on.call(&request, 5).await;
    let response: ListGroupsResponse<'_> = answer.read();
    assert_eq!(response.error_code, ErrorCode::None);
    let group = response.groups.iter().find(|group| group.group_id == "g")?;
    let texts = [group.group_state, group.group_type, group.protocol_type];
    let [state, kind, protocol] = texts.map(Cow::into_owned);
    Some((state, kind, protocol))
}

/// Code, state, and per member: id, epoch, type, and what it has.
async fn described(on: &Connection) -> (ErrorCode, String, Vec<(String, i32, i8, BTreeSet<i32>)>) {
    let names = ["g"];
    let request = ConsumerGroupDescribeRequest {
        group_ids: (&names).into(),
        include_authorized_operations: true,
    };
    let answer = on.call(&request, 1).await;
    let response: ConsumerGroupDescribeResponse<'_> = answer.read();
    let group = response.groups.first().expect("one group");
    let members = group.members.iter().map(|member| {
        let has = member.assignment.topic_partitions.iter();
        let has = has.inspect(|topic| assert_eq!(topic.topic_name, "t"));
        let has = has.flat_map(|topic| topic.partitions.iter().collect::<Vec<_>>()).collect();
        (member.member_id.into_owned(), member.member_epoch, member.member_type, has)
    });
    (group.error_code, group.group_state.to_string(), members.collect())
}

#[test]
fn members_share_a_topic_and_go_on_after_a_restart() {
    for (seed, shards) in [(1, 1), (2, 2), (3, 3)] {
        let broker = Broker::start(seed, shards, &AT_ONCE);
        let id = broker.client(async |client| {
            let (on, id) = begin(&client).await;
            let none = ErrorCode::None;
            let a = beat(&on, joining("a", &["t"])).await;
            assert_eq!(a, told(none, 1, Some(&[0, 1, 2, 3])));
            assert_eq!(beat(&on, living("a", 1)).await, told(none, 1, None));
            assert_eq!(commit(&on, "a", 1, 5).await, none);
            // Versions before 9 know no member epochs: a member cannot commit in them, and who
            // fetches in them is nobody in particular.
            for version in 2..9 {
                let code = commit_in(&on, version, "a", 1, 6).await;
                assert_eq!(code, ErrorCode::UnsupportedVersion, "version {version}");
                assert_eq!(commit_in(&on, version, "x", 1, 6).await, ErrorCode::UnknownMemberId);
            }
            assert_eq!(fetch_in(&on, 8, None, -1).await, Ok(5));
            let other = client.connect().await;
            assert_eq!(beat(&other, joining("b", &["t"])).await, told(none, 2, Some(&[])));
            assert_eq!(beat(&on, living("a", 1)).await, told(none, 1, Some(&[0, 1])));
            assert_eq!(having(&on, "a", 1, id, &[0, 1]).await, told(none, 2, None));
            assert_eq!(beat(&other, living("b", 2)).await, told(none, 2, Some(&[2, 3])));
            let stable = ("Stable", "consumer", "consumer");
            let stable = Some((stable.0.to_owned(), stable.1.to_owned(), stable.2.to_owned()));
            assert_eq!(listed(&on, &["consumer"]).await, stable);
            assert_eq!(listed(&on, &["classic"]).await, None);
            id
        });
        broker.restart(End::Kill);
        broker.client(async |client| {
            let on = client.connect().await;
            find(&client, &on).await;
            let none = ErrorCode::None;
            assert_eq!(having(&on, "a", 2, id, &[0, 1]).await, told(none, 2, None));
            assert_eq!(fetch(&on, Some("a"), 2).await, Ok(5));
            assert_eq!(fetch(&on, Some("a"), 1).await, Err(ErrorCode::StaleMemberEpoch));
            assert_eq!(fetch(&on, None, -1).await, Ok(5));
            assert_eq!(commit(&on, "b", 3, 6).await, ErrorCode::StaleMemberEpoch);
            assert_eq!(commit(&on, "x", 2, 6).await, ErrorCode::UnknownMemberId);
            assert_eq!(beat(&on, living("a", 1)).await.code, ErrorCode::FencedMemberEpoch);
            let (code, state, members) = described(&on).await;
            assert_eq!((code, state.as_str()), (none, "Stable"));
            let member = |id: &str, has: [i32; 2]| (id.to_owned(), 2, CONSUMER, has.into());
            assert_eq!(members, [member("a", [0, 1]), member("b", [2, 3])]);

            assert_eq!(beat(&on, living("b", -1)).await.code, none);
            client.sleep(Duration::from_secs(46)).await;
            assert_eq!(listed(&on, &[]).await.expect("it is there").0, "Empty", "a was silent");
            let names = ["g"];
            let request = DeleteGroupsRequest { groups_names: (&names).into() };
            let answer = on.call(&request, 2).await;
            let deleted: DeleteGroupsResponse<'_> = answer.read();
            assert_eq!(deleted.results.first().expect("one group").error_code, none);
            assert_eq!(described(&on).await.0, ErrorCode::GroupIdNotFound);
        });
    }
}

/// Joins by the classic protocol; the id, generation and code.
async fn join(on: &Connection, member: &str) -> (String, i32, ErrorCode) {
    // A subscription of version 0: topic "t".
    let protocols =
        [JoinGroupRequestProtocol { name: "range", metadata: b"\0\0\0\0\0\x01\0\x01t\0\0\0\0" }];
    let request = JoinGroupRequest {
        group_id: "g",
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member,
        protocol_type: "consumer",
        protocols: (&protocols).into(),
        ..Default::default()
    };
    let answer = on.call(&request, 7).await;
    let response: JoinGroupResponse<'_> = answer.read();
    (response.member_id.into_owned(), response.generation_id, response.error_code)
}

async fn sync(on: &Connection, member: &str, generation: i32) -> Result<Vec<u8>, ErrorCode> {
    let request = SyncGroupRequest {
        group_id: "g",
        generation_id: generation,
        member_id: member,
        protocol_type: Some("consumer"),
        protocol_name: Some("range"),
        ..Default::default()
    };
    let answer = on.call(&request, 5).await;
    let response: SyncGroupResponse<'_> = answer.read();
    match response.error_code {
        ErrorCode::None => Ok(response.assignment.to_vec()),
        code => Err(code),
    }
}

#[test]
fn a_member_of_the_classic_protocol_joins_stays_and_is_left_alone() {
    Broker::start(5, 2, &AT_ONCE).client(async |client| {
        let (on, id) = begin(&client).await;
        beat(&on, joining("a", &["t"])).await;
        let (old, _, code) = join(&on, "").await;
        assert_eq!(code, ErrorCode::MemberIdRequired);
        let (_, generation, code) = join(&on, &old).await;
        assert_eq!((generation, code), (2, ErrorCode::None));
        let nothing = sync(&on, &old, 2).await.expect("it is told");
        assert_eq!(nothing, b"\0\0\0\0\0\0\xff\xff\xff\xff");
        beat(&on, living("a", 1)).await;
        assert_eq!(having(&on, "a", 1, id, &[0, 1]).await.epoch, 2);
        let (_, _, members) = described(&on).await;
        let kinds: Vec<i8> = members.iter().map(|member| member.2).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == CLASSIC).count(), 1);
        let request = HeartbeatRequest {
            group_id: "g",
            generation_id: 2,
            member_id: &old,
            ..Default::default()
        };
        let answer = on.call(&request, 4).await;
        let response: HeartbeatResponse = answer.read();
        assert_eq!(response.error_code, ErrorCode::RebalanceInProgress, "something is free");
        assert_eq!(join(&on, &old).await.1, 2);
        let given = sync(&on, &old, 2).await.expect("it is told");
        assert_eq!(&given[..13], b"\0\0\0\0\0\x01\0\x01t\0\0\0\x02");
        // The last of the new protocol leaves: it is a classic group again.
        assert_eq!(beat(&on, living("a", -1)).await.code, ErrorCode::None);
        assert_eq!(listed(&on, &[]).await.expect("it is there").1, "classic");
        assert_eq!(described(&on).await.0, ErrorCode::GroupIdNotFound);
    });
}

#[test]
fn the_protocol_is_off_where_the_cluster_says_so_and_bad_requests_are_refused() {
    Broker::start(6, 1, &[("group.consumer.assignors", "range")]).client(async |client| {
        let (on, _) = begin(&client).await;
        let refused = |code| told(code, 0, None);
        let nameless = beat(&on, joining("", &["t"])).await;
        assert_eq!(nameless, refused(ErrorCode::InvalidRequest));
        let uniform = joining("a", &["t"]);
        let uniform = ConsumerGroupHeartbeatRequest { server_assignor: Some("uniform"), ..uniform };
        assert_eq!(beat(&on, uniform).await, refused(ErrorCode::UnsupportedAssignor));
        let regex = joining("a", &[]);
        let regex = ConsumerGroupHeartbeatRequest { subscribed_topic_regex: Some("("), ..regex };
        assert_eq!(beat(&on, regex).await, refused(ErrorCode::InvalidRegularExpression));
        assert_eq!(beat(&on, living("a", 1)).await, refused(ErrorCode::GroupIdNotFound));
        let matching = joining("a", &[]);
        let matching =
            ConsumerGroupHeartbeatRequest { subscribed_topic_regex: Some("t|u"), ..matching };
        let a = beat(&on, matching).await;
        assert_eq!(a, told(ErrorCode::None, 1, Some(&[0, 1, 2, 3])));

        let updates = [FeatureUpdate {
            feature: "group.version",
            max_version_level: 0,
            allow_downgrade: false,
            upgrade_type: 2,
        }];
        let request = UpdateFeaturesRequest {
            feature_updates: (&updates).into(),
            timeout_ms: 10_000,
            ..Default::default()
        };
        let answer = on.call(&request, 1).await;
        let response: UpdateFeaturesResponse<'_> = answer.read();
        assert_eq!(response.error_code, ErrorCode::None, "{:?}", response.error_message);
        assert_eq!(beat(&on, living("a", 1)).await, refused(ErrorCode::UnsupportedVersion));
        assert_eq!(described(&on).await.0, ErrorCode::UnsupportedVersion);
    });
}

/// Changes one setting of the group; the code, and what it says.
async fn configure(
    on: &Connection,
    group: &str,
    name: &str,
    value: Option<&str>,
    validate_only: bool,
) -> (ErrorCode, String) {
    let config_operation = if value.is_some() { SET } else { DELETE };
    let configs = [ChangedEntry { name, config_operation, value }];
    let (resource_type, configs) = (RESOURCE_GROUP, (&configs).into());
    let resources = [Change { resource_type, resource_name: group, configs }];
    let request = IncrementalAlterConfigsRequest { resources: (&resources).into(), validate_only };
    let answer = on.call(&request, 1).await;
    let response: IncrementalAlterConfigsResponse<'_> = answer.read();
    let one = response.responses.first().expect("one");
    (one.error_code, one.error_message.unwrap_or_default().into_owned())
}

/// The settings of a group: name, value, where it comes from, and from where else it could.
async fn settings(on: &Connection, group: &str) -> Vec<(String, String, i8, Vec<(String, i8)>)> {
    let resources = [RequestResource {
        resource_type: RESOURCE_GROUP,
        resource_name: group,
        configuration_keys: None,
    }];
    let request = DescribeConfigsRequest {
        resources: (&resources).into(),
        include_synonyms: true,
        include_documentation: true,
    };
    let answer = on.call(&request, 4).await;
    let response: DescribeConfigsResponse<'_> = answer.read();
    let result = response.results.first().expect("one");
    assert_eq!(result.error_code, ErrorCode::None);
    let told = result.configs.iter().map(|entry| {
        assert_eq!((entry.read_only, entry.config_type), (false, TYPE_INT));
        assert!(entry.documentation.is_some_and(|text| text.ends_with('.')));
        let synonyms = entry.synonyms.iter().map(|one| (one.name.into_owned(), one.source));
        let value = entry.value.unwrap_or_default().into_owned();
        (entry.name.into_owned(), value, entry.config_source, synonyms.collect())
    });
    told.collect()
}

/// Code and interval that a member is told.
async fn interval(on: &Connection, member: &str, epoch: i32) -> (ErrorCode, i32) {
    let answer = on.call(&living(member, epoch), 1).await;
    let response: ConsumerGroupHeartbeatResponse<'_> = answer.read();
    (response.error_code, response.heartbeat_interval_ms)
}

#[test]
fn a_group_goes_by_settings_of_its_own_also_after_a_restart() {
    let (session, beats) = ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms");
    let none = ErrorCode::None;
    for (seed, shards) in [(1, 1), (2, 2), (3, 3)] {
        let broker = Broker::start(seed, shards, &AT_ONCE);
        broker.client(async |client| {
            let (on, _) = begin(&client).await;
            let usual = settings(&on, "g").await;
            let brief: Vec<_> = usual.iter().map(|(n, v, s, _)| (&**n, &**v, *s)).collect();
            let assignment = "consumer.assignment.interval.ms";
            assert_eq!(
                brief,
                [
                    (beats, "5000", SOURCE_DEFAULT),
                    (session, "45000", SOURCE_DEFAULT),
                    (assignment, "0", SOURCE_STATIC_BROKER)
                ]
            );
            beat(&on, joining("a", &["t"])).await;
            let valid = configure(&on, "g", session, Some("50000"), true).await;
            assert_eq!(valid, (none, String::new()));
            assert_eq!(settings(&on, "g").await, usual, "only validated");
            for (name, value, expected) in [
                (session, "60001", "must be less than or equal to group.consumer.max.session"),
                (session, "44999", "must be greater than or equal to group.consumer.min.session"),
                (beats, "4999", "must be greater than or equal to group.consumer.min.heartbeat"),
                ("share.session.timeout.ms", "45000", "Unknown group config name: share.session"),
                ("streams.num.standby.replicas", "1", "Unknown group config name: streams.num"),
            ] {
                let (code, why) = configure(&on, "g", name, Some(value), false).await;
                assert_eq!(code, ErrorCode::InvalidConfig);
                assert!(why.contains(expected), "{why}");
            }
            let (code, why) = configure(&on, "", session, Some("50000"), false).await;
            assert_eq!(
                (code, &*why),
                (ErrorCode::InvalidRequest, "Default group resources are not allowed.")
            );

            // From its next heartbeat on, on every connection.
            assert_eq!(interval(&on, "a", 1).await, (none, 5_000));
            assert_eq!(configure(&on, "g", session, Some("60000"), false).await.0, none);
            assert_eq!(configure(&on, "g", beats, Some("15000"), false).await.0, none);
            let other = client.connect().await;
            assert_eq!(interval(&other, "a", 1).await, (none, 15_000));
            let own = settings(&other, "g").await;
            assert_eq!(own[1].1, "60000");
            let (mine, theirs) = (session.to_owned(), format!("group.{session}"));
            assert_eq!(own[1].3, [(mine, SOURCE_GROUP), (theirs, SOURCE_DEFAULT)]);
            client.sleep(Duration::from_secs(59)).await;
            assert_eq!(interval(&other, "a", 1).await, (none, 15_000));
            assert_eq!(settings(&on, "h").await, usual, "another group");
            let kinds = [RESOURCE_GROUP];
            let request = ListConfigResourcesRequest { resource_types: (&kinds).into() };
            let answer = on.call(&request, 1).await;
            let listed: ListConfigResourcesResponse<'_> = answer.read();
            let names = listed.config_resources.iter().map(|one| one.resource_name.into_owned());
            assert_eq!(names.collect::<Vec<_>>(), ["g"]);
        });
        broker.restart(End::Kill);
        broker.client(async |client| {
            let on = client.connect().await;
            find(&client, &on).await;
            // Nobody asked the group anything: its session is known all the same.
            client.sleep(Duration::from_secs(50)).await;
            assert_eq!(interval(&on, "a", 1).await, (none, 15_000));
            assert_eq!(configure(&on, "g", session, None, false).await.0, none);
            assert_eq!(configure(&on, "g", beats, None, false).await.0, none);
            assert_eq!(interval(&on, "a", 1).await, (none, 5_000));
        });
        broker.restart(End::Kill);
        broker.client(async |client| {
            let on = client.connect().await;
            find(&client, &on).await;
            // Nor is anybody kept for longer who might have had a longer session.
            client.sleep(Duration::from_secs(46)).await;
            assert_eq!(interval(&on, "a", 1).await.0, ErrorCode::UnknownMemberId);
        });
    }
}

#[test]
fn the_protocol_is_off_where_the_operator_says_so() {
    let settings = [("group.coordinator.rebalance.protocols", "classic")];
    Broker::start(7, 1, &settings).client(async |client| {
        let (on, _) = begin(&client).await;
        assert_eq!(beat(&on, joining("a", &["t"])).await.code, ErrorCode::UnsupportedVersion);
        assert_eq!(described(&on).await.0, ErrorCode::UnsupportedVersion);
        assert_eq!(join(&on, "").await.2, ErrorCode::MemberIdRequired);
    });
}
