//! Our codec against the published `kafka-protocol` crate (generated from Kafka 4.1's schemas).
//!
//! For every API and version that it knows, frames with random values, made from the declarations
//! but by a third encoder (`wire/frames.rs`), pass through both codecs in both directions: the
//! bytes must come out equal, and the fields must have the same names and values in the same order
//! (those that the version lacks, their default). What it
//! does not know yet (ListOffsets 11, DescribeLogDirs 5, ApiVersions 5, OffsetCommit 10, OffsetFetch
//! 10, DeleteGroups 3) is held against frames written down by hand or by Kafka 4.3's own client.
//!
//! `kafka-protocol` panics on some malformed input; it is only given valid frames.

use std::fmt::Debug;

#[allow(dead_code, reason = "what it has for the fuzzer is not needed here")]
#[path = "../fuzz/entries.rs"]
mod entries;
#[path = "wire/frames.rs"]
mod frames;

use entries::{CLIENT_ID, CORRELATION_ID, Entry, REQUESTS, RESPONSES};
use frames::Random;
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message};
use net::api;
use net::wire::{FRAME_LEN_BYTES, HeaderError, Reader, RequestHeader};

/// Frames per message and version.
const ROUNDS: usize = 60;

/// What the other codec makes of a body: the same body again, and its debug output.
type Pass = fn(&[u8], i16) -> (Vec<u8>, String);

fn pass<M: Encodable + Decodable + Debug>(body: &[u8], version: i16) -> (Vec<u8>, String) {
    let mut rest = body;
    let message = M::decode(&mut rest, version).expect("a valid frame");
    assert!(rest.is_empty(), "{} bytes too many in {message:?}", rest.len());
    let mut out = Vec::new();
    message.encode(&mut out, version).expect("it was just decoded");
    assert_eq!(message.compute_size(version).expect("it was just encoded"), out.len());
    (out, format!("{message:?}"))
}

struct Oracle {
    request_max: i16,
    response_max: i16,
    request: Pass,
    response: Pass,
    header_versions: fn(i16) -> (i16, i16),
}

macro_rules! oracle {
    ($($key:literal $request:ident $response:ident),* $(,)?) => {
        fn oracle(key: i16) -> Oracle {
            match key {
                $($key => Oracle {
                    request_max: theirs::$request::VERSIONS.max,
                    response_max: theirs::$response::VERSIONS.max,
                    request: pass::<theirs::$request>,
                    response: pass::<theirs::$response>,
                    header_versions: |version| (
                        theirs::$request::header_version(version),
                        theirs::$response::header_version(version),
                    ),
                },)*
                _ => panic!("API {key} has no oracle"),
            }
        }
    };
}

oracle! {
    0 ProduceRequest ProduceResponse, 1 FetchRequest FetchResponse,
    2 ListOffsetsRequest ListOffsetsResponse, 3 MetadataRequest MetadataResponse,
    8 OffsetCommitRequest OffsetCommitResponse, 9 OffsetFetchRequest OffsetFetchResponse,
    10 FindCoordinatorRequest FindCoordinatorResponse, 11 JoinGroupRequest JoinGroupResponse,
    12 HeartbeatRequest HeartbeatResponse, 13 LeaveGroupRequest LeaveGroupResponse,
    14 SyncGroupRequest SyncGroupResponse, 15 DescribeGroupsRequest DescribeGroupsResponse,
    16 ListGroupsRequest ListGroupsResponse, 18 ApiVersionsRequest ApiVersionsResponse,
    19 CreateTopicsRequest CreateTopicsResponse, 20 DeleteTopicsRequest DeleteTopicsResponse,
    21 DeleteRecordsRequest DeleteRecordsResponse, 22 InitProducerIdRequest InitProducerIdResponse,
    23 OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    32 DescribeConfigsRequest DescribeConfigsResponse, 33 AlterConfigsRequest AlterConfigsResponse,
    35 DescribeLogDirsRequest DescribeLogDirsResponse,
    37 CreatePartitionsRequest CreatePartitionsResponse,
    42 DeleteGroupsRequest DeleteGroupsResponse, 43 ElectLeadersRequest ElectLeadersResponse,
    44 IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    45 AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
    46 ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
    47 OffsetDeleteRequest OffsetDeleteResponse, 55 DescribeQuorumRequest DescribeQuorumResponse,
    57 UpdateFeaturesRequest UpdateFeaturesResponse,
    60 DescribeClusterRequest DescribeClusterResponse,
    61 DescribeProducersRequest DescribeProducersResponse,
    64 UnregisterBrokerRequest UnregisterBrokerResponse,
    68 ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
    69 ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
    74 ListConfigResourcesRequest ListConfigResourcesResponse,
    75 DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
}

/// Fields that are called otherwise here: (message, Kafka's name, ours).
const RENAMED: &[(&str, &str, &str)] = &[
    ("ProduceRequest", "topic_data", "topics"),
    ("ProduceRequest", "partition_data", "partitions"),
    ("ProduceResponse", "responses", "topics"),
    ("ProduceResponse", "partition_responses", "partitions"),
    ("ProduceResponse", "batch_index_error_message", "message"),
    ("FetchRequest", "forgotten_topics_data", "forgotten_topics"),
    ("FetchResponse", "responses", "topics"),
    ("DeleteTopicsResponse", "responses", "topics"),
    ("CreatePartitionsResponse", "results", "topics"),
];

/// Fields of ours that are newer than the other codec, or private (which it passes on unread).
const NEWER: &[(&str, &str)] = &[
    ("ApiVersionsRequest", "cluster_id"),
    ("ApiVersionsRequest", "node_id"),
    ("DeleteGroupsResponse", "error_message"),
    ("DescribeLogDirsResponse", "is_cordoned"),
    ("FetchRequest", "durable_end"),
    ("FetchRequest", "partition_epoch"),
    ("FetchRequest", "stream_seq"),
];

/// Fields that belong to a version that is left out here (InitProducerId 6).
const LEFT_OUT: &[(&str, &str)] = &[
    ("InitProducerIdRequest", "enable_2_pc"),
    ("InitProducerIdRequest", "keep_prepared_txn"),
    ("InitProducerIdResponse", "ongoing_txn_producer_id"),
    ("InitProducerIdResponse", "ongoing_txn_producer_epoch"),
];

/// The fields in debug output, in order: name, and value if it is a number or a truth value (which
/// may stand in a newtype, or behind the name of an error).
fn fields(debug: &str) -> Vec<(&str, Option<&str>)> {
    let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let mut fields = Vec::new();
    let mut rest = debug;
    while let Some(colon) = rest.find(": ") {
        let start = rest[..colon].rfind(|c| !word(c));
        let name = &rest[start.map_or(0, |at| at + 1)..colon];
        rest = &rest[colon + 2..];
        let mut value = rest;
        while let Some(open) = value.find(|c| !word(c)).filter(|at| value[*at..].starts_with('(')) {
            value = &value[open + 1..];
        }
        let value = &value[..value.find([',', ')', ' ']).unwrap_or(value.len())];
        let plain = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
        // Unknown tagged fields are a map from tags, in which ours go through the other codec.
        if name != "unknown_tagged_fields" && name.parse::<u32>().is_err() {
            fields.push((name, plain.then_some(value)));
        }
    }
    fields
}

fn agree(entry: &Entry, version: i16, theirs: Pass, random: &mut Random) {
    let mut body = Vec::new();
    frames::body(&entry.shape, entry.version(version), random, &mut body);

    let context = || format!("{} version {version}, frame {body:02x?}", entry.name);
    let (ours_out, ours_text) =
        (entry.check)(&body, version).unwrap_or_else(|e| panic!("{}: {e}", context()));
    let (theirs_out, theirs_text) = theirs(&body, version);
    assert_eq!(ours_out, theirs_out, "{}", context());
    let (again, _) = theirs(&ours_out, version);
    assert_eq!(again, theirs_out, "ours is read by them: {}", context());
    let (again, _) = (entry.check)(&theirs_out, version).expect("theirs is read by us");
    assert_eq!(again, theirs_out, "theirs is read by us: {}", context());

    let mut ours_fields = fields(&ours_text);
    ours_fields.retain(|(name, _)| !NEWER.contains(&(entry.name, name)));
    let mut theirs_fields = fields(&theirs_text);
    theirs_fields.retain(|(name, _)| !LEFT_OUT.contains(&(entry.name, name)));
    for (name, _) in &mut theirs_fields {
        let mut renamed = RENAMED.iter().filter(|(message, _, _)| *message == entry.name);
        *name = renamed.find(|(_, from, _)| from == name).map_or(*name, |(_, _, to)| to);
    }
    assert_eq!(ours_fields, theirs_fields, "{} version {version}", entry.name);
}

/// Every request of Kafka's, with its response.
fn public() -> impl Iterator<Item = (&'static Entry, &'static Entry)> {
    let pairs = REQUESTS.iter().zip(RESPONSES);
    pairs.filter(|(request, _)| request.key < api::PRIVATE_KEY_MIN)
}

#[test]
fn both_codecs_agree_on_every_message_in_every_version() {
    let mut random = Random(0x5eed);
    let (mut requests, mut responses, mut all) = (0, 0, 0);
    for (request, response) in public() {
        let oracle = oracle(request.key);
        for version in request.min..=request.max {
            for _ in 0..ROUNDS {
                if version <= oracle.request_max {
                    agree(request, version, oracle.request, &mut random);
                }
                if version <= oracle.response_max {
                    agree(response, version, oracle.response, &mut random);
                }
            }
            requests += i16::from(version <= oracle.request_max);
            responses += i16::from(version <= oracle.response_max);
            all += 1;
        }
    }
    // Kafka 4.4's ranges, less the versions that are newer than the oracle: of six requests and,
    // since it knows those of OffsetCommit 10 and OffsetFetch 10, of four responses.
    assert_eq!((requests, responses), (all - 6, all - 4));
}

#[test]
fn headers_are_those_of_the_other_codec() {
    let mut random = Random(7);
    for (request, response) in public() {
        let oracle = oracle(request.key);
        for version in request.min..=request.max.min(oracle.request_max) {
            let (request_header, response_header) = (oracle.header_versions)(version);

            let frame = frame_of(request, version, &mut random);
            let mut body = &frame[FRAME_LEN_BYTES..];
            let theirs = theirs::RequestHeader::decode(&mut body, request_header).expect("valid");
            assert_eq!(theirs.request_api_key, request.key);
            assert_eq!(theirs.request_api_version, version);
            assert_eq!(theirs.correlation_id, CORRELATION_ID);
            assert_eq!(theirs.client_id.as_deref(), Some(CLIENT_ID));
            let (_, _) = (oracle.request)(body, version);

            let mut reader = Reader::new(&frame[FRAME_LEN_BYTES..]);
            if let Some(api) = api::lookup(request.key) {
                assert_eq!(api.request_header_version(version), request_header, "{}", api.name);
                let ours = RequestHeader::decode(&mut reader).expect("valid");
                assert_eq!((ours.api.key, ours.version), (request.key, version));
                assert_eq!(ours.correlation_id, CORRELATION_ID);
                assert_eq!(ours.client_id, Some(CLIENT_ID));
                assert_eq!(reader.remaining(), body.len());
            } else {
                let refused = RequestHeader::decode(&mut reader).expect_err("it is not served");
                assert_eq!(refused, HeaderError::UnknownApi { key: request.key });
            }

            let frame = frame_of(response, version, &mut random);
            let mut body = &frame[FRAME_LEN_BYTES..];
            let theirs = theirs::ResponseHeader::decode(&mut body, response_header).expect("valid");
            assert_eq!(theirs.correlation_id, CORRELATION_ID);
            let (_, _) = (oracle.response)(body, version);
        }
    }
}

fn frame_of(entry: &Entry, version: i16, random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    frames::body(&entry.shape, entry.version(version), random, &mut body);
    let frame = (entry.frame)(&body, version).expect("a valid frame");
    let (len, rest) = frame.split_first_chunk().expect("a length");
    assert_eq!(i32::from_be_bytes(*len) as usize, rest.len());
    frame
}

/// Frames of versions that the other codec does not know. Those of ListOffsets, DescribeLogDirs and
/// Fetch were written by `kafka-clients` 4.3.1 (`MessageUtil.toByteBufferAccessor`); ApiVersions 5
/// follows KIP-1242's schema, and those of groups follow Kafka 4.4's.
mod newer {
    use std::borrow::Cow;

    use net::wire::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
    use net::wire::delete_groups::{self, DeleteGroupsRequest, DeleteGroupsResponse};
    use net::wire::describe_log_dirs::{self, DescribeLogDirsRequest, DescribeLogDirsResponse};
    use net::wire::fetch::{self, FetchRequest};
    use net::wire::list_offsets::{self, ListOffsetsRequest, ListOffsetsResponse};
    use net::wire::offset_commit::{self, OffsetCommitRequest};
    use net::wire::offset_fetch::{self, OffsetFetchRequest};
    use net::wire::{ErrorCode, Message, Writer};

    fn hex(text: &str) -> Vec<u8> {
        let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn golden<'a, M: Message<'a> + PartialEq + std::fmt::Debug>(
        message: &M,
        version: i16,
        bytes: &'a [u8],
    ) {
        let version = M::version(version).expect("a version that is spoken");
        let mut writer = Writer::default();
        message.write(&mut writer, version);
        assert_eq!(writer.bytes, bytes);
        let mut reader = net::wire::Reader::new(bytes);
        assert_eq!(M::read(&mut reader, version).as_ref(), Ok(message));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn list_offsets_11() {
        let partitions = [list_offsets::RequestPartition {
            partition_index: 2,
            current_leader_epoch: 7,
            timestamp: list_offsets::EARLIEST_PENDING_UPLOAD,
        }];
        let topics =
            [list_offsets::RequestTopic { name: "hits", partitions: (&partitions).into() }];
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: 1,
            topics: (&topics).into(),
            timeout_ms: 30_000,
        };
        let bytes = hex(concat!(
            "ffffffff01020568697473020000000200000007fffffffffffffffa0000",
            "0000753000"
        ));
        golden(&request, 11, &bytes);

        let partitions = [list_offsets::ResponsePartition {
            partition_index: 2,
            offset: 1_234_567,
            leader_epoch: 7,
            ..Default::default()
        }];
        let topics =
            [list_offsets::ResponseTopic { name: "hits".into(), partitions: (&partitions).into() }];
        let response = ListOffsetsResponse { throttle_time_ms: 5, topics: (&topics).into() };
        let bytes = hex(concat!(
            "0000000502056869747302000000020000ffffffffffffffff0000000000",
            "12d68700000007000000"
        ));
        golden(&response, 11, &bytes);
    }

    #[test]
    fn describe_log_dirs_5() {
        let topics =
            [describe_log_dirs::RequestTopic { topic: "hits", partitions: (&[0, 3]).into() }];
        let request = DescribeLogDirsRequest { topics: Some((&topics).into()) };
        golden(&request, 5, &hex("0205686974730300000000000000030000"));

        let partitions = [describe_log_dirs::ResponsePartition {
            partition_index: 3,
            partition_size: 4_096,
            offset_lag: 9,
            is_future_key: true,
        }];
        let topics = [describe_log_dirs::ResponseTopic {
            name: "hits".into(),
            partitions: (&partitions).into(),
        }];
        let results = [describe_log_dirs::LogDir {
            log_dir: Cow::Borrowed("/data"),
            topics: (&topics).into(),
            total_bytes: 1_000_000,
            usable_bytes: 400_000,
            is_cordoned: true,
            ..Default::default()
        }];
        let response = DescribeLogDirsResponse {
            throttle_time_ms: 5,
            results: (&results).into(),
            ..Default::default()
        };
        let bytes = hex(concat!(
            "000000050000020000062f64617461020568697473020000000300000000",
            "00001000000000000000000901000000000000000f42400000000000061a",
            "80010000"
        ));
        golden(&response, 5, &bytes);
    }

    #[test]
    fn api_versions_5() {
        let mut request = ApiVersionsRequest {
            client_software_name: "me",
            client_software_version: "1.0",
            cluster_id: Some("c"),
            node_id: 3,
        };
        golden(&request, 5, &hex("036d6504312e3002630000000300"));
        request.cluster_id = None;
        request.node_id = -1;
        golden(&request, 5, &hex("036d6504312e3000ffffffff00"));
        golden(&request, 4, &hex("036d6504312e3000"));

        let api_keys = [ApiVersion { api_key: 18, min_version: 0, max_version: 5 }];
        let response = ApiVersionsResponse {
            error_code: ErrorCode::RebootstrapRequired,
            api_keys: (&api_keys).into(),
            finalized_features_epoch: 2,
            ..Default::default()
        };
        golden(&response, 5, &hex("00810200120000000500000000000101080000000000000002"));
    }

    #[test]
    fn offset_commit_10() {
        let partitions = [offset_commit::OffsetCommitRequestPartition {
            partition_index: 3,
            committed_offset: 1_000,
            committed_leader_epoch: 7,
            committed_metadata: Some("m"),
        }];
        let topics = [offset_commit::OffsetCommitRequestTopic {
            topic_id: engine::ids::TopicId::from_bytes([0xab; 16]),
            partitions: (&partitions).into(),
            ..Default::default()
        }];
        let request = OffsetCommitRequest {
            group_id: "g",
            generation_id_or_member_epoch: 5,
            member_id: "me",
            group_instance_id: None,
            topics: (&topics).into(),
            ..Default::default()
        };
        let bytes = hex(concat!(
            // Group, epoch, member, no instance; one topic by its id.
            "0267",
            "00000005",
            "036d65",
            "00",
            "02",
            "abababababababababababababababab",
            // One partition: number, offset, leader epoch, metadata, no tags; no tags twice.
            "02",
            "00000003",
            "00000000000003e8",
            "00000007",
            "026d",
            "00",
            "0000"
        ));
        golden(&request, 10, &bytes);
    }

    #[test]
    fn offset_fetch_10() {
        let topics = [offset_fetch::OffsetFetchRequestTopics {
            topic_id: engine::ids::TopicId::from_bytes([0xcd; 16]),
            partition_indexes: (&[2, 4]).into(),
            ..Default::default()
        }];
        let group = |topics| offset_fetch::OffsetFetchRequestGroup {
            group_id: "g",
            member_id: Some("me"),
            member_epoch: 5,
            topics,
        };
        let groups = [group(Some((&topics).into())), group(None)];
        let request = OffsetFetchRequest {
            groups: (&groups).into(),
            require_stable: true,
            ..Default::default()
        };
        let bytes = hex(concat!(
            // Two groups: id, member, epoch; topics by id.
            "03",
            "0267",
            "036d65",
            "00000005",
            "02",
            "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            "030000000200000004",
            "00",
            "00",
            // The second asks for all topics.
            "0267",
            "036d65",
            "00000005",
            "00",
            "00",
            // Stable offsets only.
            "01",
            "00"
        ));
        golden(&request, 10, &bytes);
    }

    #[test]
    fn delete_groups_3() {
        let request = DeleteGroupsRequest { groups_names: (&["g", "hh"]).into() };
        golden(&request, 3, &hex("03026703686800"));
        let results = [
            delete_groups::DeletableGroupResult { group_id: "g".into(), ..Default::default() },
            delete_groups::DeletableGroupResult {
                group_id: "hh".into(),
                error_code: ErrorCode::NonEmptyGroup,
                error_message: Some("busy".into()),
            },
        ];
        let response = DeleteGroupsResponse { throttle_time_ms: 5, results: (&results).into() };
        golden(&response, 3, &hex("0000000503026700000000036868004405627573790000"));
        // The version before has no words.
        let version = DeleteGroupsResponse::version(2).expect("a version that is spoken");
        let mut writer = Writer::default();
        net::wire::Field::write(&response, &mut writer, version);
        assert_eq!(writer.bytes, hex("0000000503026700000003686800440000"));
    }

    #[test]
    fn a_replicas_fetch_18_with_everything_tagged() {
        let uuid = |high: u64, low: u64| {
            let bits = u128::from(high) << 64 | u128::from(low);
            bits.to_be_bytes()
        };
        let topic_id = engine::ids::TopicId::from_bytes(uuid(1, 2));
        let partitions = [fetch::RequestPartition {
            partition: 1,
            current_leader_epoch: 6,
            fetch_offset: 77,
            last_fetched_epoch: 5,
            log_start_offset: 0,
            partition_max_bytes: 1_000,
            replica_directory_id: uuid(3, 4),
            high_watermark: 70,
            ..Default::default()
        }];
        let topics =
            [fetch::RequestTopic { topic: "", topic_id, partitions: (&partitions).into() }];
        let forgotten = [fetch::ForgottenTopic { topic: "", topic_id, partitions: (&[8]).into() }];
        let request = FetchRequest {
            cluster_id: Some("c"),
            replica_state: fetch::ReplicaState { replica_id: 3, replica_epoch: 4 },
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_id: 9,
            session_epoch: 2,
            topics: (&topics).into(),
            forgotten_topics: (&forgotten).into(),
            rack_id: "r",
            ..Default::default()
        };
        let bytes = hex(concat!(
            "000001f40000000100100000000000000900000002020000000000000001",
            "0000000000000002020000000100000006000000000000004d0000000500",
            "00000000000000000003e802001000000000000000030000000000000004",
            "010800000000000000460002000000000000000100000000000000020200",
            "0000080002720200020263010d00000003000000000000000400"
        ));
        golden(&request, 18, &bytes);
    }

    #[test]
    fn a_followers_promise_is_a_tagged_field_that_others_skip() {
        let partition = fetch::RequestPartition { durable_end: 76, ..Default::default() };
        let tagged = concat!(
            // One tagged field: 10,000, of 8 bytes.
            "01904e08",
            "000000000000004c"
        );
        for version in [12, 18] {
            let plain = fetch::RequestPartition { durable_end: -1, ..partition.clone() };
            let version = FetchRequest::version(version).expect("a version that is spoken");
            let (mut with, mut without) = (Writer::default(), Writer::default());
            net::wire::Field::write(&partition, &mut with, version);
            net::wire::Field::write(&plain, &mut without, version);
            let common = without.bytes.strip_suffix(&[0]).expect("no tagged field");
            assert_eq!(with.bytes, [common, &hex(tagged)].concat());
        }
        // Versions before tagged fields know nothing of it.
        let topics =
            [fetch::RequestTopic { partitions: vec![partition].into(), ..Default::default() }];
        let request = FetchRequest { topics: (&topics).into(), ..Default::default() };
        let frame = request.encode(11, 1, None).into_bytes();
        let mut reader = net::wire::Reader::new(&frame[net::wire::FRAME_LEN_BYTES..]);
        net::wire::RequestHeader::decode(&mut reader).expect("valid");
        let read = FetchRequest::decode(&mut reader, 11).expect("valid");
        let partition = read.topics.first().and_then(|topic| topic.partitions.first());
        assert_eq!(partition.map(|p| p.durable_end), Some(-1));
    }
}
