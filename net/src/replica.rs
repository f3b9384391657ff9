//! Replication on the wire: what followers and leaders of partitions say to each other, as Fetch
//! requests and their answers (version 18, in a stream as [`replication::stream`] has it).
//!
//! * [`leader`]: answers a follower, on a connection that came by the brokers' own listener.
//! * `vigil`: whatever its partitions have to say, without looking at all of them.
//! * [`follower`]: fetches from each leader, for the partitions of one shard.
//!
//! On the wire a stream's session is the session id, the number of a request in it a private field
//! (Kafka's session epoch is too short for it), and what [`FetchFault`]s cannot say as an error
//! code stands in the offsets beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::epochs::EpochEnd;
use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition,
};
use replication::ask::{AnswerPart, FetchAsk, FetchFault, FetchPart, Outcome, Position};
use replication::role::PartitionEpoch;

use crate::wire::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, ForgottenTopic, ReplicaState, RequestPartition,
    RequestTopic, ResponsePartition,
};
use crate::wire::{Encoded, ErrorCode, Records, encode_request};

pub mod follower;
pub mod leader;
mod vigil;

/// The version of Fetch that brokers speak with each other.
pub const VERSION: i16 = 18;

/// A request of a stream as a frame.
pub fn encode_ask(ask: &FetchAsk, me: BrokerId, epoch: BrokerEpoch, number: i32) -> Encoded {
    let mut topics: BTreeMap<TopicId, Vec<RequestPartition>> = BTreeMap::new();
    for part in &ask.parts {
        topics.entry(part.id.topic).or_default().push(request_part(ask, part));
    }
    let mut forgotten: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    for id in &ask.forgotten {
        forgotten.entry(id.topic).or_default().push(id.partition.0);
    }
    let topics: Vec<_> = topics
        .into_iter()
        .map(|(topic_id, partitions)| RequestTopic {
            topic_id,
            partitions: partitions.into(),
            ..Default::default()
        })
        .collect();
    let forgotten: Vec<_> = forgotten
        .into_iter()
        .map(|(topic_id, partitions)| ForgottenTopic {
            topic_id,
            partitions: partitions.into(),
            ..Default::default()
        })
        .collect();
    let request = FetchRequest {
        replica_state: ReplicaState { replica_id: me.0, replica_epoch: epoch.0 },
        max_wait_ms: i32::try_from(ask.wait_max.as_millis()).unwrap_or(i32::MAX),
        min_bytes: 1,
        max_bytes: i32::try_from(ask.bytes_max).unwrap_or(i32::MAX),
        session_id: ask.session as i32,
        session_epoch: if ask.seq == 0 { 0 } else { 1 },
        stream_seq: ask.seq as i64,
        topics: topics.into(),
        forgotten_topics: forgotten.into(),
        ..Default::default()
    };
    encode_request(&request, VERSION, number, Some("ringbolt"))
}

fn request_part(ask: &FetchAsk, part: &FetchPart) -> RequestPartition {
    let position = part.position;
    RequestPartition {
        partition: part.id.partition.0,
        current_leader_epoch: part.leader_epoch.0,
        fetch_offset: position.map_or(-1, |position| position.offset.to_wire()),
        last_fetched_epoch: position.and_then(|p| p.last_epoch).map_or(-1, |epoch| epoch.0),
        partition_max_bytes: i32::try_from(ask.partition_bytes_max).unwrap_or(i32::MAX),
        durable_end: part.durable_end.to_wire(),
        partition_epoch: part.partition_epoch.0,
        ..Default::default()
    }
}

/// A stream's request from what was decoded; `None`: it is not one.
pub fn decode_ask(request: &FetchRequest<'_>) -> Option<FetchAsk> {
    let mut parts = Vec::new();
    let mut partition_bytes_max = usize::MAX;
    for topic in request.topics.iter() {
        for part in topic.partitions.iter() {
            let id =
                TopicPartition { topic: topic.topic_id, partition: PartitionIndex(part.partition) };
            let last = part.last_fetched_epoch;
            let last_epoch = (last >= 0).then_some(LeaderEpoch(last));
            let position = Offset::from_wire(part.fetch_offset);
            let bytes_max = usize::try_from(part.partition_max_bytes).unwrap_or(0);
            partition_bytes_max = partition_bytes_max.min(bytes_max);
            parts.push(FetchPart {
                id,
                leader_epoch: LeaderEpoch(part.current_leader_epoch),
                partition_epoch: PartitionEpoch(part.partition_epoch),
                position: position.map(|offset| Position { offset, last_epoch }),
                durable_end: Offset::from_wire(part.durable_end)?,
            });
        }
    }
    let forgotten = request.forgotten_topics.iter().flat_map(|topic| {
        let id =
            move |index| TopicPartition { topic: topic.topic_id, partition: PartitionIndex(index) };
        topic.partitions.iter().map(id).collect::<Vec<_>>()
    });
    Some(FetchAsk {
        session: u64::try_from(request.session_id).ok()?,
        seq: u64::try_from(request.stream_seq).ok()?,
        parts,
        forgotten: forgotten.collect(),
        bytes_max: usize::try_from(request.max_bytes).ok()?,
        partition_bytes_max,
        wait_max: Duration::from_millis(request.max_wait_ms.max(0) as u64),
    })
}

/// The error code of a fault, and the two offsets beside it.
fn code_of(fault: FetchFault) -> (ErrorCode, Offset, Offset) {
    let plain = |code| (code, Offset::ZERO, Offset::ZERO);
    match fault {
        FetchFault::NotLeader => plain(ErrorCode::NotLeaderOrFollower),
        FetchFault::Fenced => plain(ErrorCode::FencedLeaderEpoch),
        FetchFault::UnknownEpoch => plain(ErrorCode::UnknownLeaderEpoch),
        FetchFault::NotReplica => plain(ErrorCode::StaleBrokerEpoch),
        FetchFault::Unpositioned => plain(ErrorCode::InvalidFetchSessionEpoch),
        FetchFault::OutOfRange { start, end } => (ErrorCode::OffsetOutOfRange, start, end),
        FetchFault::Storage => plain(ErrorCode::KafkaStorageError),
    }
}

/// The fault of an error code.
fn fault_of(part: &ResponsePartition<'_>) -> FetchFault {
    let offset = |wire| Offset::from_wire(wire).unwrap_or(Offset::ZERO);
    match part.error_code {
        ErrorCode::FencedLeaderEpoch => FetchFault::Fenced,
        ErrorCode::UnknownLeaderEpoch => FetchFault::UnknownEpoch,
        ErrorCode::StaleBrokerEpoch => FetchFault::NotReplica,
        ErrorCode::InvalidFetchSessionEpoch => FetchFault::Unpositioned,
        ErrorCode::OffsetOutOfRange => FetchFault::OutOfRange {
            start: offset(part.log_start_offset),
            end: offset(part.last_stable_offset),
        },
        ErrorCode::KafkaStorageError => FetchFault::Storage,
        _ => FetchFault::NotLeader,
    }
}

/// An answer's part as it stands on the wire; `records` bytes are announced under `slot`.
fn encode_part<'a>(
    id: TopicPartition,
    high_watermark: Offset,
    log_start: Offset,
    outcome: &Outcome<usize>,
    slot: u32,
) -> ResponsePartition<'a> {
    let mut part = ResponsePartition {
        partition_index: id.partition.0,
        high_watermark: high_watermark.to_wire(),
        last_stable_offset: high_watermark.to_wire(),
        log_start_offset: log_start.to_wire(),
        records: Some(Records::Here(&[])),
        ..Default::default()
    };
    match *outcome {
        Outcome::Records(Some(len)) if len > 0 => {
            part.records = Some(Records::Elsewhere { slot, len });
        }
        Outcome::Records(_) => {}
        Outcome::Diverging(EpochEnd { epoch, end }) => {
            let end_offset = end.to_wire();
            part.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset };
        }
        Outcome::Failed(fault) => {
            let (code, start, end) = code_of(fault);
            part.error_code = code;
            (part.log_start_offset, part.last_stable_offset) = (start.to_wire(), end.to_wire());
        }
    }
    part
}

/// What an answer says, by partition; batches are slices of the frame.
pub fn decode_answer<'a>(response: &FetchResponse<'a>) -> Vec<AnswerPart<&'a [u8]>> {
    let mut parts = Vec::new();
    for topic in response.topics.iter() {
        for part in topic.partitions.iter() {
            let id = TopicPartition {
                topic: topic.topic_id,
                partition: PartitionIndex(part.partition_index),
            };
            let offset = |wire| Offset::from_wire(wire).unwrap_or(Offset::ZERO);
            let (epoch, end) = (part.diverging_epoch.epoch, part.diverging_epoch.end_offset);
            let (high_watermark, log_start, outcome) = match (part.error_code, part.records) {
                (ErrorCode::None, _) if epoch >= 0 => {
                    let end = EpochEnd { epoch: LeaderEpoch(epoch), end: offset(end) };
                    let outcome = Outcome::Diverging(end);
                    (offset(part.high_watermark), offset(part.log_start_offset), outcome)
                }
                (ErrorCode::None, records) => {
                    let records = match records {
                        Some(Records::Here(bytes)) if !bytes.is_empty() => Some(bytes),
                        _ => None,
                    };
                    let outcome = Outcome::Records(records);
                    (offset(part.high_watermark), offset(part.log_start_offset), outcome)
                }
                _ => (Offset::ZERO, Offset::ZERO, Outcome::Failed(fault_of(&part))),
            };
            parts.push(AnswerPart { id, high_watermark, log_start, outcome });
        }
    }
    parts
}

#[cfg(test)]
mod tests;
