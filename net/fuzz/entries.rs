//! What the fuzzer calls, and the tests as well: every decoder behind one function of bytes.
//!
//! The first byte chooses the message, the second its version, the rest is the body; so each input
//! is understood by exactly one decoder. This file belongs to `net/fuzz` and is included by
//! `net/tests/wire_bounds.rs`.

use net::wire::alter_configs::*;
use net::wire::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
use net::wire::api_versions::*;
use net::wire::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
};
use net::wire::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use net::wire::control::{ControlRequest, ControlResponse};
use net::wire::create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
use net::wire::create_topics::{CreateTopicsRequest, CreateTopicsResponse};
use net::wire::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use net::wire::delete_records::{DeleteRecordsRequest, DeleteRecordsResponse};
use net::wire::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use net::wire::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use net::wire::describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
use net::wire::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use net::wire::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use net::wire::describe_producers::{DescribeProducersRequest, DescribeProducersResponse};
use net::wire::describe_quorum::{DescribeQuorumRequest, DescribeQuorumResponse};
use net::wire::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use net::wire::elect_leaders::{ElectLeadersRequest, ElectLeadersResponse};
use net::wire::fetch::{FetchRequest, FetchResponse};
use net::wire::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use net::wire::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::wire::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use net::wire::join_group::{JoinGroupRequest, JoinGroupResponse};
use net::wire::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use net::wire::list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use net::wire::list_groups::{ListGroupsRequest, ListGroupsResponse};
use net::wire::list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
use net::wire::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use net::wire::metadata::{MetadataRequest, MetadataResponse};
use net::wire::metadata_fetch::{MetadataFetchRequest, MetadataFetchResponse};
use net::wire::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use net::wire::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use net::wire::offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
use net::wire::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use net::wire::produce::{ProduceRequest, ProduceResponse};
use net::wire::quorum::{QuorumRequest, QuorumResponse};
use net::wire::quorum_change::{QuorumChangeRequest, QuorumChangeResponse};
use net::wire::sync_group::{SyncGroupRequest, SyncGroupResponse};
use net::wire::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use net::wire::update_features::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use net::wire::{
    DecodeError, Field, Measure, Message, Reader, Request, RequestHeader, Shape, Version, Writer,
    encode_request, encode_response,
};

/// A message that was decoded: how it is encoded, and what it looks like in debug output.
pub type Checked = Result<(Vec<u8>, String), DecodeError>;

/// One message and what can be done with bytes that claim to be it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Kafka's number of its API.
    pub key: i16,
    /// First version.
    pub min: i16,
    /// Last version.
    pub max: i16,
    /// First flexible version.
    pub flexible: i16,
    /// What it looks like.
    pub shape: Shape,
    /// Decodes a body and walks over all of it, without keeping anything.
    pub walk: fn(&[u8], i16) -> Result<usize, DecodeError>,
    /// Decodes a body; if that works, encodes it, decodes that, and compares.
    pub check: fn(&[u8], i16) -> Checked,
    /// Decodes a body and encodes it as a frame with [`CORRELATION_ID`] and [`CLIENT_ID`].
    pub frame: fn(&[u8], i16) -> Result<Vec<u8>, DecodeError>,
}

/// Of every frame that is made here.
pub const CORRELATION_ID: i32 = 0x0102_0304;
/// Of every request frame that is made here.
pub const CLIENT_ID: &str = "me";

impl Entry {
    /// A version of this message.
    pub fn version(&self, number: i16) -> Version {
        assert!((self.min..=self.max).contains(&number));
        Version { number, flexible: number >= self.flexible }
    }
}

fn decode<'a, M: Message<'a>>(
    bytes: &'a [u8],
    number: i16,
) -> Result<(M, Version, usize), DecodeError> {
    let version = M::version(number).expect("callers choose a version of the message");
    let mut reader = Reader::new(bytes);
    let message = M::read(&mut reader, version)?;
    Ok((message, version, reader.position()))
}

fn walk<'a, M: Message<'a>>(bytes: &'a [u8], number: i16) -> Result<usize, DecodeError> {
    let (message, version, used) = decode::<M>(bytes, number)?;
    let mut measure = Measure::default();
    message.write(&mut measure, version);
    // Encoding drops unknown tagged fields and known ones that say the default; nothing is added
    // beyond a longer way to write a varint or two.
    assert!(measure.total <= used, "{} bytes from {used}", measure.total);
    Ok(used)
}

fn write<'a, M: Message<'a>>(message: &M, version: Version) -> Vec<u8> {
    let (mut measure, mut writer) = (Measure::default(), Writer::default());
    message.write(&mut measure, version);
    message.write(&mut writer, version);
    assert_eq!(measure.total, writer.bytes.len(), "measured what was written");
    assert!(writer.cuts.is_empty(), "decoded records are here");
    writer.bytes
}

fn request_frame<'a>(message: &impl Request<'a>, number: i16) -> Vec<u8> {
    encode_request(message, number, CORRELATION_ID, Some(CLIENT_ID)).into_bytes()
}

fn response_frame<'a>(message: &impl Message<'a>, number: i16) -> Vec<u8> {
    encode_response(message, number, CORRELATION_ID).into_bytes()
}

macro_rules! entries {
    ($(#[$meta:meta])* $list:ident, $frame:ident: $($name:ident $(<$life:lifetime>)?),* $(,)?) => {
        $(#[$meta])*
        pub static $list: &[Entry] = &[$(Entry {
            name: stringify!($name),
            key: $name::KEY,
            min: $name::VERSION_MIN,
            max: $name::VERSION_MAX,
            flexible: $name::FLEXIBLE_MIN,
            shape: $name::SHAPE,
            walk: |bytes, number| walk::<$name $(<$life>)?>(bytes, number),
            check: |bytes, number| {
                let (message, version, _) = decode::<$name $(<$life>)?>(bytes, number)?;
                let encoded = write(&message, version);
                let (again, _, used) =
                    decode::<$name $(<$life>)?>(&encoded, number).expect("our own encoding");
                assert_eq!(used, encoded.len());
                let (text, again_text) = (format!("{message:?}"), format!("{again:?}"));
                assert_eq!(text, again_text);
                assert_eq!(encoded, write(&again, version));
                Ok((encoded, text))
            },
            frame: |bytes, number| {
                let (message, _, _) = decode::<$name $(<$life>)?>(bytes, number)?;
                Ok($frame(&message, number))
            },
        }),*];
    };
}

entries! {
    /// All requests.
    REQUESTS, request_frame:
        ProduceRequest<'_>, FetchRequest<'_>, ListOffsetsRequest<'_>, MetadataRequest<'_>,
        OffsetCommitRequest<'_>, OffsetFetchRequest<'_>, FindCoordinatorRequest<'_>,
        JoinGroupRequest<'_>, HeartbeatRequest<'_>, LeaveGroupRequest<'_>, SyncGroupRequest<'_>,
        DescribeGroupsRequest<'_>, ListGroupsRequest<'_>, ApiVersionsRequest<'_>,
        CreateTopicsRequest<'_>, DeleteTopicsRequest<'_>, DeleteRecordsRequest<'_>,
        InitProducerIdRequest<'_>, OffsetForLeaderEpochRequest<'_>, DescribeConfigsRequest<'_>,
        AlterConfigsRequest<'_>, DescribeLogDirsRequest<'_>, CreatePartitionsRequest<'_>,
        DeleteGroupsRequest<'_>, ElectLeadersRequest<'_>, IncrementalAlterConfigsRequest<'_>,
        AlterPartitionReassignmentsRequest<'_>, ListPartitionReassignmentsRequest<'_>,
        OffsetDeleteRequest<'_>, DescribeQuorumRequest<'_>, UpdateFeaturesRequest<'_>,
        DescribeClusterRequest, DescribeProducersRequest<'_>, UnregisterBrokerRequest,
        ConsumerGroupHeartbeatRequest<'_>, ConsumerGroupDescribeRequest<'_>,
        ListConfigResourcesRequest<'_>, DescribeTopicPartitionsRequest<'_>, QuorumRequest<'_>,
        ControlRequest<'_>, MetadataFetchRequest, QuorumChangeRequest<'_>,
}

entries! {
    /// All responses, in the order of their requests.
    RESPONSES, response_frame:
        ProduceResponse<'_>, FetchResponse<'_>, ListOffsetsResponse<'_>, MetadataResponse<'_>,
        OffsetCommitResponse<'_>, OffsetFetchResponse<'_>, FindCoordinatorResponse<'_>,
        JoinGroupResponse<'_>, HeartbeatResponse, LeaveGroupResponse<'_>, SyncGroupResponse<'_>,
        DescribeGroupsResponse<'_>, ListGroupsResponse<'_>, ApiVersionsResponse<'_>,
        CreateTopicsResponse<'_>, DeleteTopicsResponse<'_>, DeleteRecordsResponse<'_>,
        InitProducerIdResponse, OffsetForLeaderEpochResponse<'_>, DescribeConfigsResponse<'_>,
        AlterConfigsResponse<'_>, DescribeLogDirsResponse<'_>, CreatePartitionsResponse<'_>,
        DeleteGroupsResponse<'_>, ElectLeadersResponse<'_>, IncrementalAlterConfigsResponse<'_>,
        AlterPartitionReassignmentsResponse<'_>, ListPartitionReassignmentsResponse<'_>,
        OffsetDeleteResponse<'_>, DescribeQuorumResponse<'_>, UpdateFeaturesResponse<'_>,
        DescribeClusterResponse<'_>, DescribeProducersResponse<'_>, UnregisterBrokerResponse<'_>,
        ConsumerGroupHeartbeatResponse<'_>, ConsumerGroupDescribeResponse<'_>,
        ListConfigResourcesResponse<'_>, DescribeTopicPartitionsResponse<'_>, QuorumResponse<'_>,
        ControlResponse<'_>, MetadataFetchResponse<'_>, QuorumChangeResponse<'_>,
}

/// Which message, in which version, the input is about, and its body.
fn chosen<'d>(
    entries: &'static [Entry],
    data: &'d [u8],
) -> Option<(&'static Entry, i16, &'d [u8])> {
    let [message, version, body @ ..] = data else { return None };
    let entry = &entries[*message as usize % entries.len()];
    Some((entry, entry.min + i16::from(*version) % (entry.max - entry.min + 1), body))
}

/// Decodes the body of a message and walks over it; this must not allocate.
pub fn walk_one(entries: &'static [Entry], data: &[u8]) {
    if let Some((entry, version, body)) = chosen(entries, data) {
        let _ = (entry.walk)(body, version);
    }
}

/// Decodes the body of a message and checks that its encoding is the same message.
pub fn check_one(entries: &'static [Entry], data: &[u8]) {
    if let Some((entry, version, body)) = chosen(entries, data) {
        let walked = (entry.walk)(body, version);
        assert_eq!(walked.is_ok(), (entry.check)(body, version).is_ok());
    }
}

/// A whole frame as it comes from a peer's socket, after its length: decodes the header (of a
/// client's request, else of a private one) and walks over the body; this must not
/// allocate. Returns the message, its version and its body, if it is answered in that version.
pub fn walk_frame(data: &[u8]) -> Option<(&'static Entry, i16, &[u8])> {
    let mut reader = Reader::new(data);
    let header = RequestHeader::decode(&mut reader).or_else(|_| {
        reader = Reader::new(data);
        RequestHeader::decode_from_peer(&mut reader)
    });
    let header = header.ok()?;
    let entry = REQUESTS.iter().find(|entry| entry.key == header.api.key);
    let entry = entry.expect("every API of the table has a request");
    if !header.api.accepts(header.version) {
        assert_eq!(header.api.key, net::api::API_VERSIONS, "only this may be of any version");
        return None;
    }
    let body = &data[reader.position()..];
    let _ = (entry.walk)(body, header.version);
    Some((entry, header.version, body))
}
