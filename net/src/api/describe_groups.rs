//! Groups from outside: DescribeGroups, ListGroups, DeleteGroups.

use std::borrow::Cow;
use std::collections::BTreeMap;

use coordinator::group::request::{Described, GroupFault, List, Listed, Reply, Request};
use engine::ids::{PartitionIndex, TopicPartition};

use super::admin::Header;
use super::errors::of_group;
use super::groups::ENTRIES_MAX;
use crate::env::NetEnv;
use crate::groups::{OFFSETS_TOPIC, ask_partition, home};
use crate::shard::Shard;
use crate::wire::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::wire::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::wire::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// What anybody may do to a group, as bits of Kafka's `AclOperation`: read, delete, describe,
/// describe and alter its configuration.
const GROUP_OPERATIONS: i32 = 0x0d48;
/// Operations that were not asked for.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Sorts groups by the partition that keeps them, if this broker leads it; answers those, and the
/// places of the others.
pub(super) fn by_home<E: NetEnv>(
    shard: &Shard<E>,
    groups: &[&str],
) -> (BTreeMap<TopicPartition, Vec<usize>>, Vec<usize>) {
    let (mut here, mut elsewhere) = (BTreeMap::<_, Vec<usize>>::new(), Vec::new());
    for (at, group) in groups.iter().enumerate() {
        match home(shard, group).filter(|home| home.leader == Some(shard.options().me)) {
            Some(home) => here.entry(home.partition).or_default().push(at),
            None => elsewhere.push(at),
        }
    }
    (here, elsewhere)
}

pub(super) fn named(groups: &[&str], places: &[usize]) -> Vec<String> {
    places.iter().map(|&at| groups[at].to_owned()).collect()
}

/// What is told of what a client may do to a group.
pub(super) fn operations(are_asked_for: bool) -> i32 {
    if are_asked_for { GROUP_OPERATIONS } else { OPERATIONS_UNKNOWN }
}

/// Answers DescribeGroups.
pub async fn describe<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeGroupsRequest::decode(&mut body, header.version)?;
    if request.groups.len() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let groups: Vec<&str> = request.groups.iter().collect();
    let operations = operations(request.include_authorized_operations);
    let failed = |at: usize, error_code| DescribedGroup {
        error_code,
        group_id: Cow::Borrowed(groups[at]),
        ..Default::default()
    };
    let mut told: Vec<DescribedGroup<'_>> =
        (0..groups.len()).map(|at| failed(at, ErrorCode::NotCoordinator)).collect();
    for (partition, places) in by_home(shard, &groups).0 {
        let asked = Request::Describe(named(&groups, &places));
        match ask_partition(shard, partition, asked).await {
            Ok(Reply::Described(all)) => {
                for (at, described) in places.into_iter().zip(all) {
                    told[at] = told_group(header.version, described, operations);
                }
            }
            Ok(_) => unreachable!("a reply is of its request's kind"),
            Err(code) => places.into_iter().for_each(|at| told[at] = failed(at, code)),
        }
    }
    Ok(header.encode(&DescribeGroupsResponse { groups: told.into(), ..Default::default() }))
}

fn told_group(version: i16, group: Described, operations: i32) -> DescribedGroup<'static> {
    // Before version 6 a group that is not there is one that is dead.
    let is_gone = |fault| matches!(fault, GroupFault::GroupIdNotFound | GroupFault::OtherType);
    let fault = group.fault.filter(|fault| version >= 6 || !is_gone(*fault));
    let message = fault.map(|fault| match fault {
        GroupFault::GroupIdNotFound => format!("Group {} not found.", group.group),
        GroupFault::OtherType => format!("Group {} is not a classic group.", group.group),
        fault => fault.to_string(),
    });
    let members = group.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.id.into(),
        group_instance_id: member.instance.map(Cow::Owned),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata.into(),
        member_assignment: member.assignment.into(),
    });
    DescribedGroup {
        error_code: fault.map_or(ErrorCode::None, of_group),
        error_message: message.map(Cow::Owned),
        group_id: group.group.into(),
        group_state: Cow::Borrowed(group.state),
        protocol_type: group.protocol_type.into(),
        protocol_data: group.protocol.into(),
        members: members.collect(),
        authorized_operations: operations,
    }
}

/// Answers ListGroups: all groups of all partitions of the topic that this broker leads.
pub async fn list<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ListGroupsRequest::decode(&mut body, header.version)?;
    let wanted = List {
        states: request.states_filter.iter().map(str::to_owned).collect(),
        types: request.types_filter.iter().map(str::to_owned).collect(),
    };
    let image = shard.image();
    let mut all: Vec<Listed> = Vec::new();
    let partitions = image.topic(OFFSETS_TOPIC).map_or(0, |topic| topic.partitions.len() as i32);
    for index in (0..partitions).map(PartitionIndex) {
        let topic = image.topic(OFFSETS_TOPIC).expect("it has partitions");
        let leader = topic.partition(index).and_then(|partition| partition.leader);
        if leader != Some(shard.options().me) {
            continue;
        }
        let id = TopicPartition { topic: topic.id, partition: index };
        match ask_partition(shard, id, Request::List(wanted.clone())).await {
            Ok(Reply::Listed(some)) => all.extend(some),
            Ok(_) => unreachable!("a reply is of its request's kind"),
            // Another broker tells of it by now.
            Err(ErrorCode::NotCoordinator) => {}
            Err(error_code) => {
                return Ok(header.encode(&ListGroupsResponse { error_code, ..Default::default() }));
            }
        }
    }
    let groups = all.into_iter().map(|group| ListedGroup {
        group_id: group.group.into(),
        protocol_type: group.protocol_type.into(),
        group_state: Cow::Borrowed(group.state),
        group_type: Cow::Borrowed(group.group_type),
    });
    Ok(header.encode(&ListGroupsResponse { groups: groups.collect(), ..Default::default() }))
}

/// Answers DeleteGroups.
pub async fn delete<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DeleteGroupsRequest::decode(&mut body, header.version)?;
    if request.groups_names.len() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let mut groups: Vec<&str> = request.groups_names.iter().collect();
    groups.sort_unstable();
    groups.dedup();
    let (here, elsewhere) = by_home(shard, &groups);
    let mut told: BTreeMap<String, ErrorCode> = BTreeMap::new();
    let fail = |told: &mut BTreeMap<String, ErrorCode>, places: &[usize], code| {
        told.extend(named(&groups, places).into_iter().map(|name| (name, code)));
    };
    fail(&mut told, &elsewhere, ErrorCode::NotCoordinator);
    for (partition, places) in here {
        let asked = Request::Delete(named(&groups, &places));
        match ask_partition(shard, partition, asked).await {
            Ok(Reply::Deleted(all)) => {
                let code = |fault: Option<GroupFault>| fault.map_or(ErrorCode::None, of_group);
                told.extend(all.into_iter().map(|(name, fault)| (name, code(fault))));
            }
            Ok(_) => unreachable!("a reply is of its request's kind"),
            Err(code) => fail(&mut told, &places, code),
        }
    }
    let results = told.into_iter().map(|(name, error_code)| DeletableGroupResult {
        group_id: name.into(),
        error_code,
        error_message: None,
    });
    Ok(header.encode(&DeleteGroupsResponse { results: results.collect(), ..Default::default() }))
}
