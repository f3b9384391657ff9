//! OffsetCommit and OffsetDelete. Kafka: `OffsetMetadataManager.commitOffset`, `deleteOffsets`.

use engine::ids::PartitionIndex;

use crate::group::classic::Live;
use crate::group::classic::desk::Desk;
use crate::group::consumer::ConsumerGroup;
use crate::group::consumer::topics::{Topics, View};
use crate::group::mutant::Mutant;
use crate::group::records::bytes::STRING_BYTES_MAX;
use crate::group::records::{OffsetKey, OffsetValue, Record};
use crate::group::request::{CommitOffsets, DeleteOffsets, GroupFault, Outcomes, Reply, expiry};
use crate::group::{Group, Hard};
use crate::machine::Token;

/// What a record takes beyond its names and metadata, in bytes; more than it does.
const RECORD_OVERHEAD: usize = 64;

/// Decides a commit. `live` is the group's present life, if it is a classic one that has one.
pub(in crate::group) fn commit(
    hard: &Hard,
    live: Option<&mut Live>,
    topics: &View,
    desk: &mut Desk<'_>,
    from: Token,
    request: CommitOffsets,
) {
    let outcome = check_names(&request)
        .and_then(|()| admit(hard, live, desk, &request))
        .and_then(|members| record(members, topics, desk, &request));
    let reply = Reply::OffsetsCommitted(outcome);
    match desk.config.mutant {
        Some(Mutant::CommitToldEarly) => desk.out.reply_now(from, reply),
        _ => desk.out.reply(from, reply),
    }
}

/// Whether the log can hold the names.
fn check_names(request: &CommitOffsets) -> Result<(), GroupFault> {
    let topics = request.topics.iter().map(|(topic, _)| topic);
    let mut names = topics.chain([&request.group]);
    match names.any(|name| name.len() > STRING_BYTES_MAX) {
        true => Err(GroupFault::InvalidRequest),
        false => Ok(()),
    }
}

/// Whether who commits may; and, where it depends on the partition, who knows.
fn admit<'h>(
    hard: &'h Hard,
    live: Option<&mut Live>,
    desk: &mut Desk<'_>,
    request: &CommitOffsets,
) -> Result<Option<&'h ConsumerGroup>, GroupFault> {
    match (hard.groups.get(&request.group), live) {
        // Who uses no membership needs no group beforehand.
        (None, _) if request.generation < 0 => Ok(None),
        (None, _) => Err(GroupFault::GroupIdNotFound),
        (Some(Group::Consumer(group)), _) => {
            group.check_commit(&request.member, request.generation, request.is_old)?;
            Ok(Some(group))
        }
        (Some(Group::Classic(_)), Some(live)) => live.admit_commit(desk, request).map(|()| None),
        (Some(Group::Classic(_)), None) if request.generation < 0 => Ok(None),
        // An empty group knows no member.
        (Some(Group::Classic(_)), None) => Err(GroupFault::UnknownMemberId),
    }
}

/// Writes down what can be, offset by offset.
fn record(
    members: Option<&ConsumerGroup>,
    seen: &View,
    desk: &mut Desk<'_>,
    request: &CommitOffsets,
) -> Result<Vec<Outcomes>, GroupFault> {
    let committed = desk.at.wall;
    let expires = request.retention.map(|retention| expiry(committed, retention));
    let mut outcomes = Vec::with_capacity(request.topics.len());
    let (mut records, mut bytes) = (Vec::new(), 0);
    for (topic, partitions) in &request.topics {
        let mut of_topic = Vec::with_capacity(partitions.len());
        let id = members.and_then(|_| seen.by_name(topic)).map(|(id, _)| id);
        let may = |at| match members {
            Some(group) => {
                let (member, epoch) = (&request.member, request.generation);
                group.may_commit(member, epoch, id, PartitionIndex(at))
            }
            None => Ok(()),
        };
        for one in partitions {
            let metadata = one.metadata.as_deref().unwrap_or_default();
            let fault = is_too_long(metadata, desk.config.offset_metadata_max)
                .then_some(GroupFault::OffsetMetadataTooLarge)
                .or(may(one.partition).err().map(GroupFault::from));
            of_topic.push((one.partition, fault));
            if fault.is_some() {
                continue;
            }
            bytes += request.group.len() + topic.len() + metadata.len() + RECORD_OVERHEAD;
            if bytes > desk.config.records_bytes_max {
                return Err(GroupFault::InvalidCommitOffsetSize);
            }
            let group = request.group.clone();
            let key = OffsetKey { group, topic: topic.clone(), partition: one.partition };
            let value = OffsetValue {
                offset: one.offset,
                leader_epoch: one.leader_epoch,
                metadata: metadata.into(),
                committed,
                expires,
            };
            records.push(Record::Offset(key, Some(value)));
        }
        outcomes.push((topic.clone(), of_topic));
    }
    desk.out.records.append(&mut records);
    Ok(outcomes)
}

/// Kafka counts UTF-16 units; and the log cannot hold more than a short string.
fn is_too_long(metadata: &str, max: usize) -> bool {
    metadata.len() > STRING_BYTES_MAX
        || (metadata.len() > max && metadata.encode_utf16().count() > max)
}

/// Decides which offsets are forgotten at a user's wish.
pub(in crate::group) fn delete(
    hard: &Hard,
    live: Option<&Live>,
    request: DeleteOffsets,
    records: &mut Vec<Record>,
) -> Result<Vec<Outcomes>, GroupFault> {
    let group = hard.groups.get(&request.group).ok_or(GroupFault::GroupIdNotFound)?;
    if live.is_some_and(Live::refuses_delete) {
        return Err(GroupFault::NonEmptyGroup);
    }
    let mut outcomes = Vec::with_capacity(request.topics.len());
    for (topic, partitions) in request.topics {
        let subscribed = match group {
            Group::Classic(_) => live.is_some_and(|live| live.is_subscribed(&topic)),
            Group::Consumer(members) => members.is_subscribed(&topic),
        };
        let fault = subscribed.then_some(GroupFault::GroupSubscribedToTopic);
        for &partition in &partitions {
            if !subscribed && hard.offsets.get(&request.group, &topic, partition).is_some() {
                let group = request.group.clone();
                let key = OffsetKey { group, topic: topic.clone(), partition };
                records.push(Record::Offset(key, None));
            }
        }
        let partitions = partitions.into_iter().map(|partition| (partition, fault)).collect();
        outcomes.push((topic, partitions));
    }
    Ok(outcomes)
}
