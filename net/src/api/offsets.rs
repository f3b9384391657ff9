//! Offsets by other things than themselves: ListOffsets (by time), OffsetForLeaderEpoch (by term),
//! and DeleteRecords, which moves the first one.
//!
//! Each asks the owners of the partitions, one message per shard. Deliberately absent: replicas (a
//! request that claims to come from one is answered like a consumer's: up to what is committed),
//! transactions (the last stable offset is the high watermark), tiered storage (there is never an
//! offset in it or on its way there).

use std::borrow::Cow;

use engine::ids::{LeaderEpoch, Offset};
use engine::time::Timestamp;

use super::admin::{self, Header};
use super::errors;
use super::read::Fault;
use crate::ask::{Ask, Found, Point, Told};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::delete_records::{self, DeleteRecordsRequest, DeleteRecordsResponse};
use crate::wire::list_offsets::{self, ListOffsetsRequest, ListOffsetsResponse};
use crate::wire::offset_for_leader_epoch::{
    self as epochs, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use crate::wire::{DecodeError, Encoded, ErrorCode, Reader};

/// What a client calls an epoch; -1 for none.
fn epoch_of(number: i32) -> Option<LeaderEpoch> {
    (number >= 0).then_some(LeaderEpoch(number))
}

/// What a timestamp of ListOffsets stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// A point of the log.
    Point(Point),
    /// An offset that only tiered storage has.
    Tiered,
    /// Nothing, in this version.
    Unknown,
}

impl Wanted {
    /// Kafka's `ReplicaManager.timestampMinSupportedVersion`.
    fn of(timestamp: i64, version: i16) -> Wanted {
        match timestamp {
            0.. => Wanted::Point(Point::Time(Timestamp(timestamp))),
            list_offsets::LATEST => Wanted::Point(Point::Latest),
            list_offsets::EARLIEST => Wanted::Point(Point::Earliest),
            list_offsets::MAX_TIMESTAMP if version >= 7 => Wanted::Point(Point::MaxTimestamp),
            // All that there is, is local.
            list_offsets::EARLIEST_LOCAL if version >= 8 => Wanted::Point(Point::Earliest),
            list_offsets::LATEST_TIERED if version >= 9 => Wanted::Tiered,
            list_offsets::EARLIEST_PENDING_UPLOAD if version >= 11 => Wanted::Tiered,
            _ => Wanted::Unknown,
        }
    }
}

/// Answers ListOffsets.
pub async fn list_offsets<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ListOffsetsRequest::decode(&mut body, header.version)?;
    let image = shard.image();
    // Without an answer: the owner is asked.
    let mut answers: Vec<Option<Result<Option<Found>, ErrorCode>>> = Vec::new();
    let mut asks = Vec::new();
    for topic in request.topics.iter() {
        let twice = twice(topic.partitions.iter().map(|partition| partition.partition_index));
        for partition in topic.partitions.iter() {
            let index = partition.partition_index;
            let wanted = Wanted::of(partition.timestamp, header.version);
            let found = admin::led(shard, &image, topic.name, index);
            answers.push(match (wanted, found) {
                _ if twice.binary_search(&index).is_ok() => Some(Err(ErrorCode::InvalidRequest)),
                (Wanted::Unknown, _) => Some(Err(ErrorCode::UnsupportedVersion)),
                (_, Err(error)) => Some(Err(errors::of_unavailable(&error))),
                (Wanted::Tiered, Ok(_)) => Some(Ok(None)),
                (Wanted::Point(point), Ok(id)) => {
                    let leader_epoch = epoch_of(partition.current_leader_epoch);
                    asks.push(Ask::FindOffset { id, point, leader_epoch });
                    None
                }
            });
        }
    }
    let mut told = shard.ask(asks).await.into_iter();
    let mut answers = answers.into_iter();
    let mut answer = || match answers.next().expect("one for each partition") {
        Some(answer) => answer,
        None => match told.next().expect("each is told") {
            Told::FoundOffset(found) => found.map_err(|fault| of_fault(&fault, header.version)),
            _ => unreachable!("what is told is of its question's kind"),
        },
    };
    let topics = request.topics.iter().map(|topic| list_offsets::ResponseTopic {
        name: Cow::Borrowed(topic.name),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| listed(partition.partition_index, answer()))
            .collect(),
    });
    let topics = topics.collect();
    Ok(header.encode(&ListOffsetsResponse { topics, ..Default::default() }))
}

/// `OFFSET_NOT_AVAILABLE` is understood from version 5 on; until then clients are told to look for
/// a leader again, which makes them come back as well.
fn of_fault(fault: &Fault, version: i16) -> ErrorCode {
    match errors::of_fetch(fault) {
        ErrorCode::OffsetNotAvailable if version < 5 => ErrorCode::LeaderNotAvailable,
        error_code => error_code,
    }
}

fn listed(
    partition_index: i32,
    answer: Result<Option<Found>, ErrorCode>,
) -> list_offsets::ResponsePartition {
    let nothing = list_offsets::ResponsePartition { partition_index, ..Default::default() };
    match answer {
        Ok(None) => nothing,
        Ok(Some(found)) => list_offsets::ResponsePartition {
            timestamp: found.timestamp.0,
            offset: found.offset.to_wire(),
            leader_epoch: found.leader_epoch.0,
            ..nothing
        },
        Err(error_code) => list_offsets::ResponsePartition { error_code, ..nothing },
    }
}

/// What is named more than once, sorted.
fn twice(indexes: impl Iterator<Item = i32>) -> Vec<i32> {
    let mut all: Vec<i32> = indexes.collect();
    all.sort_unstable();
    let mut twice: Vec<i32> =
        all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    twice.dedup();
    twice
}

/// Answers OffsetForLeaderEpoch.
pub async fn offset_for_leader_epoch<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = OffsetForLeaderEpochRequest::decode(&mut body, header.version)?;
    let image = shard.image();
    let asks = request.topics.iter().flat_map(|topic| {
        let each = topic.partitions.iter().map(|partition| {
            let leader_epoch = epoch_of(partition.current_leader_epoch);
            let epoch = LeaderEpoch(partition.leader_epoch);
            let id = admin::led(shard, &image, topic.topic, partition.partition)?;
            Ok(Ask::EndOfEpoch { id, leader_epoch, epoch })
        });
        each.collect::<Vec<_>>()
    });
    let mut told = admin::survey(shard, asks.collect()).await.into_iter();
    let mut end = |partition| {
        let end = match told.next().expect("as many as were asked") {
            Ok(Told::EndOfEpoch(end)) => end.map_err(|error| errors::of_fetch(&error)),
            Ok(_) => unreachable!("what is told is of its question's kind"),
            Err(error) => Err(errors::of_unavailable(&error)),
        };
        let nothing = epochs::ResponsePartition { partition, ..Default::default() };
        match end {
            Ok(None) => nothing,
            Ok(Some((epoch, end))) => epochs::ResponsePartition {
                leader_epoch: epoch.0,
                end_offset: end.to_wire(),
                ..nothing
            },
            Err(error_code) => epochs::ResponsePartition { error_code, ..nothing },
        }
    };
    let topics = request.topics.iter().map(|topic| epochs::ResponseTopic {
        topic: Cow::Borrowed(topic.topic),
        partitions: topic.partitions.iter().map(|partition| end(partition.partition)).collect(),
    });
    let topics = topics.collect();
    Ok(header.encode(&OffsetForLeaderEpochResponse { topics, ..Default::default() }))
}

/// Answers DeleteRecords.
pub async fn delete_records<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DeleteRecordsRequest::decode(&mut body, header.version)?;
    let image = shard.image();
    // Without an answer: the owner is asked.
    let mut answers = Vec::new();
    let mut asks = Vec::new();
    for topic in request.topics.iter() {
        for partition in topic.partitions.iter() {
            let found = admin::led(shard, &image, topic.name, partition.partition_index);
            let to = Offset::from_wire(partition.offset);
            answers.push(match found {
                Err(error) => Some(errors::of_unavailable(&error)),
                Ok(_) if to.is_none() && partition.offset != delete_records::HIGH_WATERMARK => {
                    Some(ErrorCode::OffsetOutOfRange)
                }
                Ok(id) => {
                    asks.push(Ask::DeleteBefore { id, to });
                    None
                }
            });
        }
    }
    let deadline = admin::deadline(shard, request.timeout_ms);
    let mut told = admin::ask_until(shard, asks, deadline).await.map(Vec::into_iter);
    let mut answers = answers.into_iter();
    let mut answer = || match (answers.next().expect("one for each partition"), &mut told) {
        (Some(error_code), _) => Err(error_code),
        (None, None) => Err(ErrorCode::RequestTimedOut),
        (None, Some(told)) => match told.next().expect("each is told") {
            Told::DeletedBefore(deleted) => deleted.map_err(|error| errors::of_not_deleted(&error)),
            _ => unreachable!("what is told is of its question's kind"),
        },
    };
    let topics = request.topics.iter().map(|topic| delete_records::ResponseTopic {
        name: Cow::Borrowed(topic.name),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| deleted(partition.partition_index, answer()))
            .collect(),
    });
    let topics = topics.collect();
    Ok(header.encode(&DeleteRecordsResponse { topics, ..Default::default() }))
}

fn deleted(
    partition_index: i32,
    answer: Result<Offset, ErrorCode>,
) -> delete_records::ResponsePartition {
    let (low_watermark, error_code) = match answer {
        Ok(start) => (start.to_wire(), ErrorCode::None),
        Err(error_code) => (-1, error_code),
    };
    delete_records::ResponsePartition { partition_index, low_watermark, error_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_mean_something_from_their_version_on() {
        let from = |timestamp| (1..=11).find(|v| Wanted::of(timestamp, *v) != Wanted::Unknown);
        let known = [-1, -2, -3, -4, -5, -6].map(from);
        assert_eq!(known, [Some(1), Some(1), Some(7), Some(8), Some(9), Some(11)]);
        assert_eq!(from(-7), None);
        assert_eq!(from(i64::MIN), None);
        assert_eq!(Wanted::of(-4, 8), Wanted::Point(Point::Earliest));
        assert_eq!(Wanted::of(0, 1), Wanted::Point(Point::Time(Timestamp(0))));
    }

    #[test]
    fn a_leader_that_is_not_settled_is_told_in_words_that_the_client_knows() {
        assert_eq!(of_fault(&Fault::Unsettled, 4), ErrorCode::LeaderNotAvailable);
        assert_eq!(of_fault(&Fault::Unsettled, 5), ErrorCode::OffsetNotAvailable);
    }

    #[test]
    fn partitions_that_are_named_twice_are_found() {
        assert_eq!(twice([3, 1, 3, 2, 3, 1].into_iter()), [1, 3]);
        assert_eq!(twice([3, 1, 2].into_iter()), [] as [i32; 0]);
    }
}
