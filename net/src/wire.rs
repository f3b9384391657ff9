//! Kafka's wire protocol: frames in, frames out, nothing about what they mean.
//!
//! One file per API declares its messages in a table-like form ([`message`]), from which structs,
//! decoders and encoders follow. What is decoded borrows the frame and allocates nothing: strings
//! and record sets are slices of it, arrays are checked views ([`Array`]) that are iterated by
//! value. What is encoded has its exact size from the start; record bytes are not copied but
//! announced ([`Records::Elsewhere`]) and joined when the frame is sent ([`Outgoing`]).
//!
//! Both directions exist for every message: the broker decodes requests and encodes responses, our
//! client (peers, tests, perf) the reverse.
//!
//! ```
//! use net::wire::metadata::{MetadataRequest, MetadataResponse, ResponseTopic};
//! use net::wire::{ErrorCode, FRAME_LEN_BYTES, Reader, RequestHeader, decode_response};
//!
//! // A client asks …
//! let topics = [net::wire::metadata::RequestTopic { name: Some("hits"), ..Default::default() }];
//! let request = MetadataRequest { topics: Some((&topics).into()), ..Default::default() };
//! let frame = request.encode(12, 7, Some("me")).into_bytes();
//!
//! // … the broker reads the frame (after its 4-byte length), borrowing it …
//! let mut reader = Reader::new(&frame[FRAME_LEN_BYTES..]);
//! let header = RequestHeader::decode(&mut reader)?;
//! assert_eq!((header.api.name, header.version, header.correlation_id), ("Metadata", 12, 7));
//! let request = MetadataRequest::decode(&mut reader, header.version)?;
//! let mut topics = Vec::new();
//! for topic in request.topics.iter().flatten() {
//!     topics.push(ResponseTopic {
//!         error_code: ErrorCode::UnknownTopicOrPartition,
//!         name: topic.name.map(Into::into),
//!         ..Default::default()
//!     });
//! }
//!
//! // … and answers.
//! let response = MetadataResponse { topics: topics.into(), ..Default::default() };
//! let frame = response.encode(header.version, header.correlation_id).into_bytes();
//! let (correlation_id, response) =
//!     decode_response::<MetadataResponse<'_>>(&frame[FRAME_LEN_BYTES..], 12)?;
//! assert_eq!(correlation_id, 7);
//! assert_eq!(response.topics.first().and_then(|t| t.name).as_deref(), Some("hits"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: decoding never panics and never allocates, whatever the bytes (`tests/wire_bounds`,
//! `fuzz/`); every message agrees with the published `kafka-protocol` crate in both directions
//! (`tests/wire_oracle`). Deviation from Kafka: a string that is not UTF-8 is refused, where Java
//! replaces what it cannot read.

pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod api_versions;
mod array;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod control;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
mod encoded;
mod error_code;
pub mod fetch;
pub mod find_coordinator;
mod header;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod message;
pub mod metadata;
pub mod metadata_fetch;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod quorum;
mod reader;
pub mod shape;
pub mod sync_group;
pub mod unregister_broker;
pub mod update_features;
mod writer;

pub use array::{Array, Iter};
pub use encoded::{
    Encoded, FRAME_LEN_BYTES, Outgoing, Part, decode_response, encode_request, encode_response,
};
pub use error_code::ErrorCode;
pub use header::{HeaderError, RequestHeader};
pub use message::{Field, Message, Records, Request, Version};
pub use reader::{DecodeError, DecodeErrorKind, Reader, STRING_BYTES_MAX};
pub use shape::{Shape, ShapeField};
pub use writer::{Cut, Measure, Sink, Writer};
