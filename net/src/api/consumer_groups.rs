//! Groups of the consumer protocol (KIP-848): ConsumerGroupHeartbeat and ConsumerGroupDescribe.
//! What they mean is decided by `coordinator::group`; here they are read and told.

use std::borrow::Cow;

use coordinator::cluster::features::GROUP_VERSION;
use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::describe::{Described, DescribedMember};
use coordinator::group::consumer::heartbeat::Heartbeat;
use coordinator::group::request::{ConsumerHeartbeat, GroupFault, Reply, Request};
use coordinator::image::Image;
use engine::ids::PartitionIndex;

use super::admin::Header;
use super::describe_groups::{by_home, named, operations};
use super::errors::{of_consumer, of_group};
use super::groups::{ENTRIES_MAX, host, view};
use crate::env::NetEnv;
use crate::groups::{ask, ask_partition};
use crate::shard::Shard;
use crate::wire::consumer_group_describe as describe;
use crate::wire::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup, Member,
};
use crate::wire::consumer_group_heartbeat as heartbeat;
use crate::wire::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// Whether the cluster has switched the protocol on, and this broker's operator has not switched it
/// off.
fn is_on<E: NetEnv>(shard: &Shard<E>, image: &Image) -> bool {
    let is_allowed = shard.options().broker.consumer_protocol;
    is_allowed
        && image.cluster().features().any(|(name, level)| name == GROUP_VERSION && level >= 1)
}

/// Answers ConsumerGroupHeartbeat.
pub async fn heartbeat<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ConsumerGroupHeartbeatRequest::decode(&mut body, header.version)?;
    let names = request.subscribed_topic_names.as_ref().map_or(0, |names| names.len());
    let owned = request.topic_partitions.iter().flat_map(|topics| topics.iter());
    let owned: usize = owned.map(|topic| topic.partitions.len() + 1).sum();
    if names + owned > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let failed = |error_code, message: Option<String>| ConsumerGroupHeartbeatResponse {
        error_code,
        error_message: message.map(Cow::Owned),
        ..Default::default()
    };
    if !is_on(shard, &shard.image()) {
        return Ok(header.encode(&failed(ErrorCode::UnsupportedVersion, None)));
    }
    // From version 1 on the member chooses its id itself (KIP-1082).
    if header.version >= 1 && request.member_id.is_empty() {
        let message = Some("MemberId can't be empty.".to_owned());
        return Ok(header.encode(&failed(ErrorCode::InvalidRequest, message)));
    }
    if request.subscribed_topic_names.iter().flat_map(|names| names.iter()).any(str::is_empty) {
        let message = Some("A topic that is subscribed to has no name.".to_owned());
        return Ok(header.encode(&failed(ErrorCode::InvalidRequest, message)));
    }
    let asked = Request::ConsumerHeartbeat(ConsumerHeartbeat {
        group: request.group_id.to_owned(),
        beat: beat(&header, &request),
        topics: view(shard),
    });
    let answer = match ask(shard, request.group_id, asked).await {
        Ok(Reply::ConsumerHeartbeat(Ok(told))) => ConsumerGroupHeartbeatResponse {
            member_id: Some(told.member.into()),
            member_epoch: told.epoch,
            heartbeat_interval_ms: i32::try_from(told.interval.as_millis()).unwrap_or(i32::MAX),
            assignment: told.assignment.map(|all| heartbeat::Assignment {
                topic_partitions: all.into_iter().map(told_topic).collect(),
            }),
            ..Default::default()
        },
        Ok(Reply::ConsumerHeartbeat(Err(fault))) => {
            failed(of_consumer(&fault), Some(fault.to_string()))
        }
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(code) => failed(code, None),
    };
    Ok(header.encode(&answer))
}

fn beat(header: &Header<'_>, request: &ConsumerGroupHeartbeatRequest<'_>) -> Heartbeat {
    let rebalance_ms = request.rebalance_timeout_ms;
    let partitions = |topics: &_| -> Partitions {
        let topics: &crate::wire::Array<'_, heartbeat::TopicPartitions<'_>> = topics;
        let each = topics
            .iter()
            .map(|topic| (topic.topic_id, topic.partitions.iter().map(PartitionIndex).collect()));
        each.filter(|(_, all): &(_, std::collections::BTreeSet<_>)| !all.is_empty()).collect()
    };
    Heartbeat {
        member: request.member_id.to_owned(),
        epoch: request.member_epoch,
        instance: request.instance_id.map(str::to_owned),
        rack: request.rack_id.map(str::to_owned),
        rebalance_ms: (rebalance_ms != -1).then_some(rebalance_ms),
        topics: request
            .subscribed_topic_names
            .as_ref()
            .map(|names| names.iter().map(str::to_owned).collect()),
        pattern: request.subscribed_topic_regex.map(str::to_owned),
        assignor: request.server_assignor.map(str::to_owned),
        owned: request.topic_partitions.as_ref().map(partitions),
        client_id: header.client_id.unwrap_or_default().to_owned(),
        client_host: host(header),
    }
}

fn told_topic(
    (topic_id, partitions): (engine::ids::TopicId, std::collections::BTreeSet<PartitionIndex>),
) -> heartbeat::TopicPartitions<'static> {
    let partitions = partitions.into_iter().map(|partition| partition.0).collect();
    heartbeat::TopicPartitions { topic_id, partitions }
}

/// Answers ConsumerGroupDescribe.
pub async fn describe<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ConsumerGroupDescribeRequest::decode(&mut body, header.version)?;
    if request.group_ids.len() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let groups: Vec<&str> = request.group_ids.iter().collect();
    let operations = operations(request.include_authorized_operations);
    let failed = |at: usize, error_code, message: Option<String>| DescribedGroup {
        error_code,
        error_message: message.map(Cow::Owned),
        group_id: Cow::Borrowed(groups[at]),
        ..Default::default()
    };
    let image = shard.image();
    let unserved = match is_on(shard, &image) {
        true => ErrorCode::NotCoordinator,
        false => ErrorCode::UnsupportedVersion,
    };
    let mut told: Vec<DescribedGroup<'_>> =
        (0..groups.len()).map(|at| failed(at, unserved, None)).collect();
    let here = if is_on(shard, &image) { by_home(shard, &groups).0 } else { Default::default() };
    for (partition, places) in here {
        let asked = Request::DescribeConsumers(named(&groups, &places));
        match ask_partition(shard, partition, asked).await {
            Ok(Reply::ConsumersDescribed(all)) => {
                for (at, (name, described)) in places.into_iter().zip(all) {
                    told[at] = match described {
                        Ok(described) => told_group(&image, name, described, operations),
                        Err(fault) => {
                            let message = match fault {
                                GroupFault::GroupIdNotFound => format!("Group {name} not found."),
                                GroupFault::OtherType => {
                                    format!("Group {name} is not a consumer group.")
                                }
                                fault => fault.to_string(),
                            };
                            failed(at, of_group(fault), Some(message))
                        }
                    };
                }
            }
            Ok(_) => unreachable!("a reply is of its request's kind"),
            Err(code) => places.into_iter().for_each(|at| told[at] = failed(at, code, None)),
        }
    }
    let response = ConsumerGroupDescribeResponse { groups: told.into(), ..Default::default() };
    Ok(header.encode(&response))
}

fn told_group(
    image: &Image,
    name: String,
    group: Described,
    authorized_operations: i32,
) -> DescribedGroup<'static> {
    DescribedGroup {
        group_id: name.into(),
        group_state: Cow::Borrowed(group.state),
        group_epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        assignor_name: Cow::Borrowed(group.assignor),
        members: group.members.into_iter().map(|member| told_member(image, member)).collect(),
        authorized_operations,
        ..Default::default()
    }
}

fn told_member(image: &Image, member: DescribedMember) -> Member<'static> {
    let kind = if member.is_classic { describe::CLASSIC } else { describe::CONSUMER };
    Member {
        member_id: member.id.into(),
        instance_id: member.instance.map(Cow::Owned),
        rack_id: member.rack.map(Cow::Owned),
        member_epoch: member.epoch,
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        subscribed_topic_names: member.topics.into_iter().map(Cow::Owned).collect(),
        subscribed_topic_regex: member.pattern.map(Cow::Owned),
        assignment: told_assignment(image, member.assignment),
        target_assignment: told_assignment(image, member.target),
        member_type: kind,
    }
}

/// Topics that are gone have no name, and are left out as in Kafka.
fn told_assignment(image: &Image, partitions: Partitions) -> describe::Assignment<'static> {
    let each = partitions.into_iter().filter_map(|(topic_id, partitions)| {
        let name = image.topic_by_id(topic_id)?.name.to_string();
        Some(describe::TopicPartitions {
            topic_id,
            topic_name: name.into(),
            partitions: partitions.into_iter().map(|partition| partition.0).collect(),
        })
    });
    describe::Assignment { topic_partitions: each.collect() }
}
