//! The APIs around the data, spoken to a whole simulated broker of one to three shards: what one
//! connection is told is true for every other one, whichever shard accepts it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use engine::batch::{BatchBuilder, Codec, NewRecord, Producer, Sequence};
use engine::env::sim::{End, Fault, OpKind};
use engine::ids::{ProducerEpoch, ProducerId, TopicId};
use engine::time::Timestamp;
use net::api::APIS;
use net::wire::alter_configs::*;
use net::wire::api_versions::*;
use net::wire::delete_records::{DeleteRecordsRequest, DeleteRecordsResponse};
use net::wire::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use net::wire::describe_configs::*;
use net::wire::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use net::wire::describe_producers::{DescribeProducersRequest, DescribeProducersResponse};
use net::wire::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, RequestCursor,
};
use net::wire::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse, TRANSACTION};
use net::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use net::wire::list_offsets::{self, ListOffsetsRequest, ListOffsetsResponse};
use net::wire::metadata::{MetadataRequest, MetadataResponse};
use net::wire::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use net::wire::produce::{ProduceRequest, ProduceResponse};
use net::wire::{
    Array, ErrorCode, Records, create_partitions, create_topics, delete_records, delete_topics,
    describe_log_dirs, describe_producers, describe_topic_partitions, metadata,
    offset_for_leader_epoch, produce,
};

#[path = "admin/steering.rs"]
mod steering;

mod broker;

use broker::{Broker, Client, Connection};

/// Runs a test against brokers of one, two and three shards, each on a seed of its own.
fn on_brokers(settings: &[(&'static str, &str)], test: impl AsyncFn(&Client)) {
    for (seed, shards) in [(1, 1), (2, 2), (3, 3), (4, 2)] {
        Broker::start(seed, shards, settings).client(async |client| test(&client).await);
    }
}

/// Creates one topic, and says what was answered: the code, and the topic's id.
async fn create(
    on: &Connection,
    name: &str,
    partitions: i32,
    configs: &[(&str, Option<&str>)],
) -> (ErrorCode, TopicId) {
    let configs = configs.iter().map(|&(name, value)| create_topics::RequestConfig { name, value });
    let topics = [create_topics::RequestTopic {
        name,
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.collect(),
        ..Default::default()
    }];
    let request =
        create_topics::CreateTopicsRequest { topics: (&topics).into(), ..Default::default() };
    let answer = on.call(&request, 7).await;
    let response: create_topics::CreateTopicsResponse<'_> = answer.read();
    let topic = response.topics.first().expect("one topic");
    assert_eq!(topic.name, name);
    if topic.error_code == ErrorCode::None {
        assert_eq!((topic.num_partitions, topic.replication_factor), (partitions, 1));
        assert_eq!(topic.configs.map(|configs| configs.len()), Some(33));
    }
    (topic.error_code, topic.topic_id)
}

/// Error, id and number of partitions of one topic, by name.
async fn look_up(on: &Connection, name: &str) -> (ErrorCode, TopicId, usize) {
    let topics = [metadata::RequestTopic { name: Some(name), ..Default::default() }];
    let request = MetadataRequest {
        topics: Some((&topics).into()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let answer = on.call(&request, 12).await;
    let response: MetadataResponse<'_> = answer.read();
    let topic = response.topics.first().expect("one topic");
    assert_eq!(topic.name.as_deref(), Some(name));
    for (at, partition) in topic.partitions.iter().enumerate() {
        assert_eq!((partition.partition_index, partition.leader_id), (at as i32, 1));
        assert_eq!(partition.error_code, ErrorCode::None);
    }
    (topic.error_code, topic.topic_id, topic.partitions.len())
}

/// Appends one batch with these timestamps, acks all; the base offset.
async fn append(
    on: &Connection,
    topic: &str,
    index: i32,
    timestamps: &[i64],
    producer: Option<Producer>,
) -> Result<i64, ErrorCode> {
    let mut builder = BatchBuilder::new(1 << 20);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for &timestamp in timestamps {
        let timestamp = Timestamp(timestamp);
        builder.push(&NewRecord { timestamp, value: Some(b"v"), ..Default::default() }).unwrap();
    }
    let batch = builder.build().unwrap();
    let partitions = [produce::RequestPartition { index, records: Some(Records::Here(&batch)) }];
    let topics = [produce::RequestTopic {
        name: topic,
        partitions: (&partitions).into(),
        ..Default::default()
    }];
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topics: (&topics).into(),
        ..Default::default()
    };
    let answer = on.call(&request, 9).await;
    let response: ProduceResponse<'_> = answer.read();
    let partition = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
    match partition.error_code {
        ErrorCode::None => Ok(partition.base_offset),
        error => Err(error),
    }
}

/// What ListOffsets answers: (timestamp, offset, leader epoch).
async fn find(
    on: &Connection,
    topic: &str,
    partition_index: i32,
    timestamp: i64,
    current_leader_epoch: i32,
) -> Result<(i64, i64, i32), ErrorCode> {
    let partitions =
        [list_offsets::RequestPartition { partition_index, current_leader_epoch, timestamp }];
    let topics = [list_offsets::RequestTopic { name: topic, partitions: (&partitions).into() }];
    let request =
        ListOffsetsRequest { replica_id: -1, topics: (&topics).into(), ..Default::default() };
    let answer = on.call(&request, 11).await;
    let response: ListOffsetsResponse<'_> = answer.read();
    let found = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
    match found.error_code {
        ErrorCode::None => Ok((found.timestamp, found.offset, found.leader_epoch)),
        error => Err(error),
    }
}

#[test]
fn a_topic_that_was_created_is_there_on_every_connection() {
    on_brokers(&[], async |client| {
        let (one, other) = (client.connect().await, client.connect().await);
        let (error, id) = create(&one, "hits", 5, &[]).await;
        assert_eq!(error, ErrorCode::None);
        assert_eq!(look_up(&other, "hits").await, (ErrorCode::None, id, 5));
        assert_eq!(create(&other, "hits", 5, &[]).await.0, ErrorCode::TopicAlreadyExists);
        assert_eq!(create(&other, "a b", 5, &[]).await.0, ErrorCode::InvalidTopic);
        assert_eq!(create(&other, "none", 0, &[]).await.0, ErrorCode::InvalidPartitions);
        let bad = [("retention.ms", Some("soon"))];
        assert_eq!(create(&other, "bad", 1, &bad).await.0, ErrorCode::InvalidConfig);
        for index in 0..5 {
            let on = if index % 2 == 0 { &one } else { &other };
            assert_eq!(append(on, "hits", index, &[5], None).await, Ok(0));
        }
    });
}

#[test]
fn asking_for_a_topic_creates_it_where_that_is_allowed() {
    let ask = async |client: &Client, name: &'static str, allow| {
        let topics = [metadata::RequestTopic { name: Some(name), ..Default::default() }];
        let request = MetadataRequest {
            topics: Some((&topics).into()),
            allow_auto_topic_creation: allow,
            ..Default::default()
        };
        let answer = client.connect().await.call(&request, 9).await;
        let response: MetadataResponse<'_> = answer.read();
        let topic = response.topics.first().expect("one topic");
        (topic.error_code, topic.partitions.len())
    };
    let unknown = (ErrorCode::UnknownTopicOrPartition, 0);
    on_brokers(&[("num.partitions", "3")], async |client| {
        assert_eq!(ask(client, "new", false).await, unknown);
        assert_eq!(ask(client, "new", true).await, (ErrorCode::None, 3));
        assert_eq!(ask(client, "new", false).await, (ErrorCode::None, 3));
        assert_eq!(ask(client, "n e w", true).await, (ErrorCode::InvalidTopic, 0));
        // It would collide with another one in the names of metrics.
        assert_eq!(ask(client, "a.b", true).await, (ErrorCode::None, 3));
        assert_eq!(ask(client, "a_b", true).await, (ErrorCode::InvalidTopic, 0));
        assert_eq!(ask(client, "__consumer_offsets", true).await, unknown);
    });
    on_brokers(&[("auto.create.topics.enable", "false")], async |client| {
        assert_eq!(ask(client, "new", true).await, unknown);
    });
}

#[test]
fn metadata_tells_what_was_asked_for() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        let (_, id) = create(&on, "a", 1, &[]).await;
        create(&on, "b", 2, &[]).await;
        let names = async |topics: Option<Array<'static, metadata::RequestTopic<'static>>>, v| {
            let request = MetadataRequest { topics, ..Default::default() };
            let answer = on.call(&request, v).await;
            let response: MetadataResponse<'_> = answer.read();
            let names = response.topics.iter().map(|topic| topic.name.map(Cow::into_owned));
            names.collect::<Vec<_>>()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(names(None, 1).await, [some("a"), some("b")]);
        assert_eq!(names(Some(Array::new()), 0).await, [some("a"), some("b")]);
        assert_eq!(names(Some(Array::new()), 1).await, []);
        let by_id = |topic_id| metadata::RequestTopic { topic_id, name: None };
        let ids = vec![by_id(TopicId::from_bytes([9; 16])), by_id(id), by_id(id)];
        assert_eq!(names(Some(ids.into()), 12).await, [None, some("a")]);
        let request = MetadataRequest { topics: Some(Array::new()), ..Default::default() };
        let answer = on.call(&request, 13).await;
        let response: MetadataResponse<'_> = answer.read();
        let broker = response.brokers.first().expect("one broker");
        assert_eq!((broker.node_id, broker.port, response.controller_id), (1, 9092, 1));
        assert_eq!(broker.host, "10.0.0.1");
        assert_eq!(response.cluster_id.map(|id| id.len()), Some(22));
    });
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_free() {
    on_brokers(&[], async |client| {
        let (one, other) = (client.connect().await, client.connect().await);
        let (_, first) = create(&one, "hits", 3, &[]).await;
        append(&one, "hits", 2, &[5, 6], None).await.unwrap();
        let delete = async |name, topic_id| {
            let topics = [delete_topics::RequestTopic { name, topic_id }];
            let request = DeleteTopicsRequest {
                topics: (&topics).into(),
                timeout_ms: 30_000,
                ..Default::default()
            };
            let answer = one.call(&request, 6).await;
            let response: DeleteTopicsResponse<'_> = answer.read();
            let topic = response.topics.first().expect("one topic");
            (topic.error_code, topic.topic_id)
        };
        assert_eq!(delete(Some("hits"), TopicId::ZERO).await, (ErrorCode::None, first));
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(look_up(&other, "hits").await, (unknown, TopicId::ZERO, 0));
        assert_eq!(append(&other, "hits", 2, &[5], None).await, Err(unknown));
        assert_eq!(delete(None, first).await, (ErrorCode::UnknownTopicId, first));
        let (error, second) = create(&other, "hits", 3, &[]).await;
        assert_eq!(error, ErrorCode::None);
        assert_ne!(first, second);
        assert_eq!(append(&one, "hits", 2, &[7], None).await, Ok(0), "nothing is left in it");
        assert_eq!(delete(None, second).await, (ErrorCode::None, second));
    });
}

#[test]
fn added_partitions_can_be_written_at_once() {
    on_brokers(&[], async |client| {
        let (one, other) = (client.connect().await, client.connect().await);
        create(&one, "hits", 1, &[]).await;
        let widen = async |count, validate_only| {
            let topics =
                [create_partitions::RequestTopic { name: "hits", count, assignments: None }];
            let request = create_partitions::CreatePartitionsRequest {
                topics: (&topics).into(),
                timeout_ms: 30_000,
                validate_only,
            };
            let answer = one.call(&request, 3).await;
            let response: create_partitions::CreatePartitionsResponse<'_> = answer.read();
            response.topics.first().expect("one topic").error_code
        };
        assert_eq!(widen(1, false).await, ErrorCode::InvalidPartitions);
        assert_eq!(widen(4, true).await, ErrorCode::None);
        assert_eq!(look_up(&other, "hits").await.2, 1, "it was only asked");
        assert_eq!(widen(4, false).await, ErrorCode::None);
        assert_eq!(look_up(&other, "hits").await.2, 4);
        for index in 0..4 {
            assert_eq!(append(&other, "hits", index, &[5], None).await, Ok(0));
        }
    });
}

#[test]
fn offsets_are_found_by_time() {
    on_brokers(&[], async |client| {
        let (one, other) = (client.connect().await, client.connect().await);
        create(&one, "t", 4, &[]).await;
        for index in 0..4 {
            for empty in [-1, -2, -4] {
                assert_eq!(find(&one, "t", index, empty, -1).await, Ok((-1, 0, 0)));
            }
            assert_eq!(find(&one, "t", index, -3, -1).await, Ok((-1, -1, -1)));
            assert_eq!(append(&one, "t", index, &[10, 20, 30], None).await, Ok(0));
            assert_eq!(append(&one, "t", index, &[25, 50, 40], None).await, Ok(3));
            let found = async |timestamp| find(&other, "t", index, timestamp, 0).await;
            assert_eq!(found(-1).await, Ok((-1, 6, 0)));
            assert_eq!(found(-2).await, Ok((-1, 0, 0)));
            assert_eq!(found(-3).await, Ok((50, 4, 0)));
            assert_eq!(found(0).await, Ok((10, 0, 0)));
            assert_eq!(found(21).await, Ok((30, 2, 0)));
            assert_eq!(found(31).await, Ok((50, 4, 0)));
            assert_eq!(found(51).await, Ok((-1, -1, -1)));
            assert_eq!(found(-5).await, Ok((-1, -1, -1)));
            assert_eq!(found(-7).await, Err(ErrorCode::UnsupportedVersion));
            let stale = find(&other, "t", index, -1, 3).await;
            assert_eq!(stale, Err(ErrorCode::UnknownLeaderEpoch));
        }
        let unknown = Err(ErrorCode::UnknownTopicOrPartition);
        assert_eq!(find(&other, "t", 4, -1, -1).await, unknown);
        assert_eq!(find(&other, "u", 0, -1, -1).await, unknown);
    });
}

#[test]
fn deleted_records_stay_deleted() {
    let delete_in = async |on: &Connection, partition_index, offset, timeout_ms| {
        let partitions = [delete_records::RequestPartition { partition_index, offset }];
        let topics = [delete_records::RequestTopic { name: "t", partitions: (&partitions).into() }];
        let request = DeleteRecordsRequest { topics: (&topics).into(), timeout_ms };
        let answer = on.call(&request, 2).await;
        let response: DeleteRecordsResponse<'_> = answer.read();
        let partition = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
        (partition.error_code, partition.low_watermark)
    };
    let delete = async |on: &Connection, index, offset| delete_in(on, index, offset, 30_000).await;
    for (seed, end) in [(5, End::Kill), (6, End::PowerCut)] {
        let broker = Broker::start(seed, 2, &[]);
        broker.client(async |client| {
            let on = client.connect().await;
            create(&on, "t", 2, &[]).await;
            for index in 0..2 {
                append(&on, "t", index, &[10, 20, 30, 40], None).await.unwrap();
            }
            // Nobody waits for these, and still they are carried out, one after the other.
            for (index, offset) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
                let timed_out = (ErrorCode::RequestTimedOut, -1);
                assert_eq!(delete_in(&on, index, offset, 0).await, timed_out);
            }
            assert_eq!(delete(&on, 0, 3).await, (ErrorCode::None, 3));
            assert_eq!(delete(&on, 0, 1).await, (ErrorCode::None, 3), "it never goes back");
            assert_eq!(delete(&on, 1, 5).await, (ErrorCode::OffsetOutOfRange, -1));
            assert_eq!(delete(&on, 1, -2).await, (ErrorCode::OffsetOutOfRange, -1));
            assert_eq!(delete(&on, 1, -1).await, (ErrorCode::None, 4));
            assert_eq!(delete(&on, 2, 0).await, (ErrorCode::UnknownTopicOrPartition, -1));
            assert_eq!(find(&on, "t", 0, -2, -1).await, Ok((-1, 3, 0)));
        });
        broker.restart(end);
        broker.client(async |client| {
            let on = client.connect().await;
            assert_eq!(find(&on, "t", 0, -2, -1).await.map(|found| found.1), Ok(3));
            assert_eq!(find(&on, "t", 1, -2, -1).await.map(|found| found.1), Ok(4));
            assert_eq!(find(&on, "t", 0, 15, -1).await.map(|found| found.1), Ok(3));
        });
    }
}

#[test]
fn each_producer_gets_an_id_of_its_own() {
    let broker = Broker::start(7, 3, &[]);
    let mut seen = BTreeSet::new();
    let mut give = |count: usize| {
        broker.client(async |client| {
            let mut connections = Vec::new();
            for _ in 0..6 {
                connections.push(client.connect().await);
            }
            for at in 0..count {
                let answer = connections[at % 6].call(&InitProducerIdRequest::default(), 5).await;
                let response: InitProducerIdResponse = answer.read();
                assert_eq!((response.error_code, response.producer_epoch), (ErrorCode::None, 0));
                assert!(seen.insert(response.producer_id), "{} twice", response.producer_id);
            }
        });
    };
    // More than a block; then a new life, which has lost what was left of the old blocks.
    give(2_500);
    broker.restart(End::PowerCut);
    give(10);
    broker.client(async |client| {
        let on = client.connect().await;
        let transactional =
            InitProducerIdRequest { transactional_id: Some("t"), ..Default::default() };
        let half = InitProducerIdRequest { producer_id: 5, ..Default::default() };
        for request in [transactional, half] {
            let answer = on.call(&request, 5).await;
            let response: InitProducerIdResponse = answer.read();
            assert_eq!(response.error_code, ErrorCode::InvalidRequest);
            assert_eq!((response.producer_id, response.producer_epoch), (-1, -1));
        }
    });
}

#[test]
fn producers_that_wrote_are_described() {
    on_brokers(&[], async |client| {
        let (one, other) = (client.connect().await, client.connect().await);
        create(&one, "t", 2, &[]).await;
        let producer = |sequence| Producer {
            id: ProducerId(1_234),
            epoch: ProducerEpoch(2),
            base_sequence: Sequence::from_wire(sequence),
        };
        append(&one, "t", 1, &[5, 6], Some(producer(0))).await.unwrap();
        append(&one, "t", 1, &[9], Some(producer(2))).await.unwrap();
        assert_eq!(
            append(&other, "t", 1, &[9], Some(producer(7))).await,
            Err(ErrorCode::OutOfOrderSequenceNumber)
        );
        let indexes = [0, 1, 2, 1];
        let topics =
            [describe_producers::RequestTopic { name: "t", partition_indexes: (&indexes).into() }];
        let request = DescribeProducersRequest { topics: (&topics).into() };
        let answer = other.call(&request, 0).await;
        let response: DescribeProducersResponse<'_> = answer.read();
        let partitions: Vec<_> = response.topics.first().expect("one").partitions.iter().collect();
        let errors: Vec<_> = partitions.iter().map(|partition| partition.error_code).collect();
        let (none, unknown) = (ErrorCode::None, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(errors, [none, none, unknown, ErrorCode::InvalidRequest]);
        assert!(partitions[0].active_producers.is_empty());
        let active = partitions[1].active_producers.first().expect("one producer");
        assert_eq!((active.producer_id, active.producer_epoch), (1_234, 2));
        assert_eq!((active.last_sequence, active.last_timestamp), (2, 9));
        assert_eq!(active.current_txn_start_offset, -1);
    });
}

/// Value and source of one setting of a topic.
async fn setting(on: &Connection, topic: &str, name: &str) -> (String, i8, Vec<(String, i8)>) {
    let keys = [name];
    let resources = [RequestResource {
        resource_type: RESOURCE_TOPIC,
        resource_name: topic,
        configuration_keys: Some((&keys).into()),
    }];
    let request = DescribeConfigsRequest {
        resources: (&resources).into(),
        include_synonyms: true,
        include_documentation: true,
    };
    let answer = on.call(&request, 4).await;
    let response: DescribeConfigsResponse<'_> = answer.read();
    let entry = response.results.first().and_then(|r| r.configs.first()).expect("one entry");
    assert_eq!((&*entry.name, entry.read_only, entry.is_sensitive), (name, false, false));
    assert!(entry.documentation.is_some_and(|text| text.ends_with('.')));
    let synonyms = entry.synonyms.iter();
    let synonyms = synonyms.map(|synonym| (synonym.name.into_owned(), synonym.source));
    (entry.value.unwrap_or_default().into_owned(), entry.config_source, synonyms.collect())
}

#[test]
fn settings_of_a_topic_change_and_say_where_they_come_from() {
    on_brokers(&[("log.retention.hours", "2")], async |client| {
        let (one, other) = (client.connect().await, client.connect().await);
        create(&one, "t", 1, &[("flush.ms", Some("50"))]).await;
        let change = async |name, config_operation, value, validate_only| {
            let configs = [ChangedEntry { name, config_operation, value }];
            let resources = [Change {
                resource_type: RESOURCE_TOPIC,
                resource_name: "t",
                configs: (&configs).into(),
            }];
            let request =
                IncrementalAlterConfigsRequest { resources: (&resources).into(), validate_only };
            let answer = one.call(&request, 1).await;
            let response: IncrementalAlterConfigsResponse<'_> = answer.read();
            response.responses.first().expect("one").error_code
        };
        let (value, source, synonyms) = setting(&other, "t", "retention.ms").await;
        assert_eq!((&*value, source), ("7200000", SOURCE_STATIC_BROKER));
        assert!(synonyms.contains(&("log.retention.hours".into(), SOURCE_STATIC_BROKER)));
        assert_eq!(synonyms.last().map(|last| last.1), Some(SOURCE_DEFAULT));
        assert_eq!(setting(&other, "t", "flush.ms").await.1, SOURCE_TOPIC);
        assert_eq!(setting(&other, "t", "segment.bytes").await.1, SOURCE_DEFAULT);

        assert_eq!(change("retention.ms", SET, Some("5"), true).await, ErrorCode::None);
        assert_eq!(setting(&other, "t", "retention.ms").await.0, "7200000", "only validated");
        assert_eq!(change("retention.ms", SET, Some("5"), false).await, ErrorCode::None);
        let (value, source, synonyms) = setting(&other, "t", "retention.ms").await;
        assert_eq!((&*value, source), ("5", SOURCE_TOPIC));
        assert_eq!(synonyms.first(), Some(&("retention.ms".into(), SOURCE_TOPIC)));
        assert_eq!(change("retention.ms", SET, Some("x"), false).await, ErrorCode::InvalidConfig);
        assert_eq!(change("retention.ms", 7, Some("5"), false).await, ErrorCode::InvalidRequest);
        assert_eq!(change("retention.ms", DELETE, None, false).await, ErrorCode::None);
        assert_eq!(setting(&other, "t", "retention.ms").await.0, "7200000");
        // What a topic takes is in force when it is answered.
        assert_eq!(change("max.message.bytes", SET, Some("20"), false).await, ErrorCode::None);
        let too_large = append(&other, "t", 0, &[5], None).await;
        assert_eq!(too_large, Err(ErrorCode::MessageTooLarge));
    });
}

#[test]
fn replacing_a_configuration_and_what_is_refused() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        create(&on, "t", 1, &[("flush.ms", Some("50"))]).await;
        let entry = |name, value| net::wire::alter_configs::Entry { name, value: Some(value) };
        let some = [entry("retention.ms", "9")];
        let of = |resource_type, resource_name| Replacement {
            resource_type,
            resource_name,
            configs: (&some).into(),
        };
        let resources = [
            of(RESOURCE_TOPIC, "t"),
            of(RESOURCE_TOPIC, "none"),
            of(RESOURCE_BROKER, "1"),
            of(RESOURCE_BROKER, "2"),
            of(RESOURCE_GROUP, "g"),
            of(RESOURCE_TOPIC, "twice"),
            of(RESOURCE_TOPIC, "twice"),
        ];
        let request = AlterConfigsRequest { resources: (&resources).into(), validate_only: false };
        let answer = on.call(&request, 2).await;
        let response: AlterConfigsResponse<'_> = answer.read();
        let errors: Vec<_> = response.responses.iter().map(|one| one.error_code).collect();
        let invalid = ErrorCode::InvalidRequest;
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let config = ErrorCode::InvalidConfig;
        let expected = [ErrorCode::None, unknown, invalid, invalid, config, invalid, invalid];
        assert_eq!(errors, expected);
        assert_eq!(setting(&on, "t", "retention.ms").await.1, SOURCE_TOPIC);
        assert_eq!(setting(&on, "t", "flush.ms").await.1, SOURCE_DEFAULT, "replaced as a whole");
    });
}

#[test]
fn the_brokers_settings_are_told_and_read_only() {
    on_brokers(&[("num.partitions", "4")], async |client| {
        let on = client.connect().await;
        let of = |resource_type, resource_name| RequestResource {
            resource_type,
            resource_name,
            configuration_keys: None,
        };
        let resources = [
            of(RESOURCE_BROKER, "1"),
            of(RESOURCE_BROKER, ""),
            of(RESOURCE_BROKER, "7"),
            of(RESOURCE_TOPIC, "none"),
            of(RESOURCE_TOPIC, "n o"),
            of(RESOURCE_GROUP, ""),
        ];
        let request =
            DescribeConfigsRequest { resources: (&resources).into(), ..Default::default() };
        let answer = on.call(&request, 4).await;
        let response: DescribeConfigsResponse<'_> = answer.read();
        let results: Vec<_> = response.results.iter().collect();
        let errors: Vec<_> = results.iter().map(|result| result.error_code).collect();
        let (none, invalid) = (ErrorCode::None, ErrorCode::InvalidRequest);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        assert_eq!(errors, [none, none, invalid, unknown, ErrorCode::InvalidTopic, invalid]);
        let entry = |name: &str| results[0].configs.iter().find(|entry| entry.name == name);
        let given = entry("num.partitions").expect("a setting of the broker");
        assert_eq!((given.value.as_deref(), given.config_source), (Some("4"), 4));
        assert!(given.read_only && given.synonyms.is_empty() && given.documentation.is_none());
        let not_given = entry("delete.topic.enable").expect("a setting of the broker");
        assert_eq!(not_given.config_source, SOURCE_DEFAULT);
        assert_eq!(not_given.config_type, TYPE_BOOLEAN);
        assert!(results[1].configs.is_empty());
    });
}

#[test]
fn topics_are_described_page_by_page() {
    on_brokers(&[("max.request.partition.size.limit", "5")], async |client| {
        let on = client.connect().await;
        for (name, partitions) in [("a", 3), ("b", 7), ("c", 1), ("d", 5)] {
            create(&on, name, partitions, &[]).await;
        }
        let mut cursor: Option<(String, i32)> = None;
        let mut told = Vec::new();
        let mut pages = 0;
        loop {
            let from = cursor.as_ref().map(|(topic_name, partition_index)| RequestCursor {
                topic_name,
                partition_index: *partition_index,
            });
            let request = DescribeTopicPartitionsRequest { cursor: from, ..Default::default() };
            let answer = on.call(&request, 0).await;
            let response: DescribeTopicPartitionsResponse<'_> = answer.read();
            let mut count = 0;
            for topic in response.topics.iter() {
                let name = topic.name.expect("by name").into_owned();
                count += topic.partitions.len();
                told.extend(topic.partitions.iter().map(|one| (name.clone(), one.partition_index)));
            }
            assert!(count <= 5, "{count} partitions on a page");
            pages += 1;
            let Some(next) = response.next_cursor else { break };
            cursor = Some((next.topic_name.into_owned(), next.partition_index));
        }
        assert_eq!(pages, 4);
        let all = [("a", 3), ("b", 7), ("c", 1), ("d", 5)];
        let all = all.iter().flat_map(|&(name, count)| (0..count).map(move |i| (name.into(), i)));
        assert_eq!(told, all.collect::<Vec<(String, i32)>>());

        let topics = ["d", "x", "a b"].map(|name| describe_topic_partitions::RequestTopic { name });
        let request =
            DescribeTopicPartitionsRequest { topics: (&topics).into(), ..Default::default() };
        let answer = on.call(&request, 0).await;
        let response: DescribeTopicPartitionsResponse<'_> = answer.read();
        let errors: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(errors, [ErrorCode::InvalidTopic, ErrorCode::None], "sorted, and 5 fill a page");
        assert_eq!(response.next_cursor.map(|next| next.topic_name.into_owned()), Some("x".into()));
    });
}

#[test]
fn an_epoch_ends_where_the_broker_was_restarted() {
    let broker = Broker::start(8, 2, &[]);
    broker.client(async |client| {
        let on = client.connect().await;
        create(&on, "t", 2, &[]).await;
        append(&on, "t", 1, &[1, 2, 3], None).await.unwrap();
    });
    broker.restart(End::PowerCut);
    broker.client(async |client| {
        let on = client.connect().await;
        assert_eq!(append(&on, "t", 1, &[4], None).await, Ok(3));
        let end = async |current_leader_epoch, leader_epoch| {
            let partitions = [offset_for_leader_epoch::RequestPartition {
                partition: 1,
                current_leader_epoch,
                leader_epoch,
            }];
            let topics = [offset_for_leader_epoch::RequestTopic {
                topic: "t",
                partitions: (&partitions).into(),
            }];
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: (&topics).into() };
            let answer = on.call(&request, 4).await;
            let response: OffsetForLeaderEpochResponse<'_> = answer.read();
            let found = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
            (found.error_code, found.leader_epoch, found.end_offset)
        };
        // Nobody led while it was away, and that was an epoch, too.
        assert_eq!(end(2, 0).await, (ErrorCode::None, 0, 3));
        assert_eq!(end(-1, 2).await, (ErrorCode::None, 2, 4));
        assert_eq!(end(-1, 3).await, (ErrorCode::None, -1, -1));
        assert_eq!(end(0, 0).await, (ErrorCode::FencedLeaderEpoch, -1, -1));
        assert_eq!(end(3, 0).await, (ErrorCode::UnknownLeaderEpoch, -1, -1));
        assert_eq!(find(&on, "t", 1, -1, 2).await, Ok((-1, 4, 2)));
        assert_eq!(find(&on, "t", 1, 1, 2).await, Ok((1, 0, 0)), "of the first epoch");
    });
}

#[test]
fn log_dirs_tell_what_partitions_hold() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        create(&on, "t", 3, &[]).await;
        append(&on, "t", 2, &[1, 2, 3], None).await.unwrap();
        let sizes = async |topics| {
            let request = DescribeLogDirsRequest { topics };
            let answer = on.call(&request, 4).await;
            let response: DescribeLogDirsResponse<'_> = answer.read();
            let dir = response.results.first().expect("one directory");
            assert_eq!((&*dir.log_dir, dir.error_code), ("/data", ErrorCode::None));
            assert!(0 < dir.usable_bytes && dir.usable_bytes < dir.total_bytes);
            let partitions = dir.topics.first().map(|topic| topic.partitions);
            let partitions = partitions.unwrap_or_default();
            let sizes = partitions.iter().map(|one| (one.partition_index, one.partition_size > 0));
            sizes.collect::<Vec<_>>()
        };
        assert_eq!(sizes(None).await, [(0, false), (1, false), (2, true)]);
        let asked = [2, 9];
        let topics = [describe_log_dirs::RequestTopic { topic: "t", partitions: (&asked).into() }];
        assert_eq!(sizes(Some((&topics).into())).await, [(2, true)]);
    });
}

#[test]
fn a_disk_that_failed_under_one_shard_is_told_by_all() {
    let broker = Broker::start(5, 3, &[]);
    let (client, topic) = broker.client(async |client| {
        let (_, topic) = create(&client.connect().await, "t", 1, &[]).await;
        (client.clone(), topic)
    });
    broker.fail_disk(Fault::eio(OpKind::Write).under(&format!("/data/{topic}")).times(1));
    broker.client(async |_| {
        let on = client.connect().await;
        assert_eq!(append(&on, "t", 0, &[1], None).await, Err(ErrorCode::KafkaStorageError));
        // More connections than shards: each of them takes some.
        for _ in 0..12 {
            let on = client.connect().await;
            let request = DescribeLogDirsRequest { topics: None };
            let answer = on.call(&request, 4).await;
            let response: DescribeLogDirsResponse<'_> = answer.read();
            let dirs: Vec<_> = response.results.iter().map(|dir| dir.error_code).collect();
            assert_eq!(dirs, [ErrorCode::KafkaStorageError]);
        }
    });
}

#[test]
fn zstd_is_for_those_who_say_that_they_know_it() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        create(&on, "t", 1, &[]).await;
        let record = NewRecord { value: Some(b"v"), ..Default::default() };
        for (codec, version, expected) in [
            (Codec::Zstd, 3, ErrorCode::UnsupportedCompressionType),
            (Codec::Zstd, 6, ErrorCode::UnsupportedCompressionType),
            (Codec::Zstd, 7, ErrorCode::None),
            (Codec::Lz4, 6, ErrorCode::None),
        ] {
            let mut builder = BatchBuilder::new(1 << 20).codec(codec);
            builder.push(&record).expect("it has room");
            let batch = builder.build().expect("it can be compressed");
            let partitions =
                [produce::RequestPartition { index: 0, records: Some(Records::Here(&batch)) }];
            let topics = [produce::RequestTopic {
                name: "t",
                partitions: (&partitions).into(),
                ..Default::default()
            }];
            let request = ProduceRequest {
                acks: -1,
                topics: (&topics).into(),
                timeout_ms: 30_000,
                ..Default::default()
            };
            let answer = on.call(&request, version).await;
            let response: ProduceResponse<'_> = answer.read();
            let told = response.topics.first().and_then(|t| t.partitions.first()).expect("one");
            assert_eq!(told.error_code, expected, "{codec:?} in version {version}");
        }
    });
}

#[test]
fn coordinators_are_found_or_it_is_said_why_not() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        let keys = ["g", "h"];
        let request =
            FindCoordinatorRequest { coordinator_keys: (&keys).into(), ..Default::default() };
        let answer = on.call(&request, 6).await;
        let response: FindCoordinatorResponse<'_> = answer.read();
        let found: Vec<_> = response.coordinators.iter().map(|c| (c.node_id, c.port)).collect();
        assert_eq!(found, [(1, 9092), (1, 9092)]);
        let request =
            FindCoordinatorRequest { key: "t", key_type: TRANSACTION, ..Default::default() };
        let answer = on.call(&request, 2).await;
        let response: FindCoordinatorResponse<'_> = answer.read();
        assert_eq!(response.error_code, ErrorCode::CoordinatorNotAvailable);
        assert!(response.error_message.is_some_and(|why| why.contains("transactions")));
    });
}

/// A header of version 1 or 2 with no client id, then `body`, with its length in front.
fn frame(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(7i32.to_be_bytes());
    bytes.extend((-1i16).to_be_bytes());
    bytes.extend(flexible.then_some(0));
    bytes.extend(body);
    let mut frame = (bytes.len() as u32).to_be_bytes().to_vec();
    frame.append(&mut bytes);
    frame
}

#[test]
fn any_version_of_api_versions_is_answered() {
    on_brokers(&[], async |client| {
        let on = client.connect().await;
        for version in [6, 99, i16::MAX, -1, i16::MIN] {
            let answer = on.exchange(&frame(18, version, true, &[])).await.expect("an answer");
            let (_, response) =
                net::wire::decode_response::<ApiVersionsResponse<'_>>(&answer, 0).unwrap();
            assert_eq!(response.error_code, ErrorCode::UnsupportedVersion);
            assert_eq!(response.api_keys.len(), APIS.len());
        }
        let name = |client_software_name| ApiVersionsRequest {
            client_software_name,
            client_software_version: "1",
            ..Default::default()
        };
        for (request, error) in
            [(name("me"), ErrorCode::None), (name("m e"), ErrorCode::InvalidRequest)]
        {
            let answer = on.call(&request, 4).await;
            let response: ApiVersionsResponse<'_> = answer.read();
            assert_eq!(response.error_code, error);
        }
        let elsewhere = ApiVersionsRequest { cluster_id: Some("other"), node_id: 1, ..name("me") };
        let answer = on.call(&elsewhere, 5).await;
        let response: ApiVersionsResponse<'_> = answer.read();
        assert_eq!(response.error_code, ErrorCode::RebootstrapRequired);
    });
}

#[test]
fn a_request_that_costs_too_much_loses_its_connection_only() {
    on_brokers(&[], async |client| {
        let (good, bad) = (client.connect().await, client.connect().await);
        // 100,001 empty keys, each a byte, of which 100,000 are allowed.
        let keys = |count: u32| {
            let mut body = vec![0];
            let mut left = count + 1;
            while left >= 0x80 {
                body.push(left as u8 | 0x80);
                left >>= 7;
            }
            body.push(left as u8);
            body.extend(std::iter::repeat_n(1, count as usize));
            body.push(0);
            frame(10, 4, true, &body)
        };
        let answer = bad.exchange(&keys(100_000)).await.expect("as many as are allowed");
        assert!(answer.len() > 100_000 * 20);
        assert_eq!(bad.exchange(&keys(100_001)).await, None);
        let bad = client.connect().await;
        let long = vec![0; net::api::admin::BODY_BYTES_MAX + 1];
        assert_eq!(bad.exchange(&frame(3, 1, false, &long)).await, None);
        let bad = client.connect().await;
        assert_eq!(bad.exchange(&frame(3, 1, false, &[0x7f, 0xff, 0xff, 0xff, 0])).await, None);
        assert_eq!(create(&good, "t", 1, &[]).await.0, ErrorCode::None);
    });
}
