//! The life of a classic group's member: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. What they
//! mean is decided by `coordinator::group`; here they are read and told.

use std::borrow::Cow;

use coordinator::group::consumer::topics::View;
use coordinator::group::request::{
    GroupFault, Heartbeat, Join, Joined, Leave, Leaver, Protocol, Reply, Request, Sync,
};

use super::admin::Header;
use super::errors::of_group;
use crate::env::NetEnv;
use crate::groups::ask;
use crate::shard::Shard;
use crate::wire::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use crate::wire::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use crate::wire::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// Most protocols, assignments or members in one request; who brings more loses the connection.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// Answers JoinGroup.
pub async fn join<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = JoinGroupRequest::decode(&mut body, header.version)?;
    if request.protocols.len() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let session_ms = request.session_timeout_ms;
    let join = Join {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        client_id: header.client_id.unwrap_or_default().to_owned(),
        client_host: host(&header),
        session_ms,
        // Version 0 knows one timeout for both.
        rebalance_ms: if header.version == 0 { session_ms } else { request.rebalance_timeout_ms },
        protocol_type: request.protocol_type.to_owned(),
        protocols: request
            .protocols
            .iter()
            .map(|one| Protocol { name: one.name.to_owned(), metadata: one.metadata.to_vec() })
            .collect(),
        reason: request.reason.map(str::to_owned),
        takes_member_id: header.version >= 4,
        may_skip_assignment: header.version >= 9,
        topics: view(shard),
    };
    let member = request.member_id.to_owned();
    let joined = match ask(shard, request.group_id, Request::Join(join)).await {
        Ok(Reply::Joined(joined)) => joined,
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(code) => return Ok(header.encode(&not_joined(header.version, member, code))),
    };
    Ok(header.encode(&told_joined(header.version, joined)))
}

/// The topics as this broker knows them, for groups whose members the broker assigns.
pub(super) fn view<E: NetEnv>(shard: &Shard<E>) -> View {
    View::new(shard.image())
}

/// Where a client is, as Kafka writes it (`InetAddress.toString`).
pub(super) fn host(header: &Header<'_>) -> String {
    format!("/{}", header.peer.ip())
}

fn told_joined(version: i16, joined: Joined) -> JoinGroupResponse<'static> {
    let Joined { member, generation } = joined;
    let generation = match generation {
        Ok(generation) => generation,
        Err(fault) => return not_joined(version, member, of_group(fault)),
    };
    let members = generation.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: member.id.into(),
        group_instance_id: member.instance.map(Cow::Owned),
        metadata: member.metadata.into(),
    });
    JoinGroupResponse {
        generation_id: generation.id,
        protocol_type: generation.protocol_type.map(Cow::Owned),
        protocol_name: protocol_name(version, generation.protocol),
        leader: generation.leader.into(),
        skip_assignment: generation.skip_assignment,
        member_id: member.into(),
        members: members.collect(),
        ..Default::default()
    }
}

fn not_joined(version: i16, member: String, error_code: ErrorCode) -> JoinGroupResponse<'static> {
    JoinGroupResponse {
        error_code,
        protocol_name: protocol_name(version, None),
        member_id: member.into(),
        ..Default::default()
    }
}

/// Null is not allowed before version 7.
fn protocol_name(version: i16, name: Option<String>) -> Option<Cow<'static, str>> {
    name.map(Cow::Owned).or((version < 7).then_some(Cow::Borrowed("")))
}

/// Answers SyncGroup.
pub async fn sync<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = SyncGroupRequest::decode(&mut body, header.version)?;
    if request.assignments.len() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let failed = |error_code| SyncGroupResponse { error_code, ..Default::default() };
    let unnamed = request.protocol_type.is_none() || request.protocol_name.is_none();
    if header.version >= 5 && unnamed {
        return Ok(header.encode(&failed(ErrorCode::InconsistentGroupProtocol)));
    }
    let given = request.assignments.iter();
    let sync = Sync {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(str::to_owned),
        protocol: request.protocol_name.map(str::to_owned),
        assignments: given.map(|one| (one.member_id.to_owned(), one.assignment.to_vec())).collect(),
        topics: view(shard),
    };
    let answer = match ask(shard, request.group_id, Request::Sync(sync)).await {
        Ok(Reply::Synced(Ok(synced))) => SyncGroupResponse {
            protocol_type: synced.protocol_type.map(Cow::Owned),
            protocol_name: synced.protocol.map(Cow::Owned),
            assignment: synced.assignment.into(),
            ..Default::default()
        },
        Ok(Reply::Synced(Err(fault))) => failed(of_group(fault)),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(code) => failed(code),
    };
    Ok(header.encode(&answer))
}

/// Answers Heartbeat.
pub async fn heartbeat<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = HeartbeatRequest::decode(&mut body, header.version)?;
    let beat = Heartbeat {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id,
        topics: view(shard),
    };
    let error_code = match ask(shard, request.group_id, Request::Heartbeat(beat)).await {
        Ok(Reply::Heartbeat(Ok(()))) => ErrorCode::None,
        Ok(Reply::Heartbeat(Err(fault))) => of_group(fault),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        // As in Kafka: a member that has joined has nothing to wait for while groups are loaded.
        Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
        Err(code) => code,
    };
    Ok(header.encode(&HeartbeatResponse { error_code, ..Default::default() }))
}

/// Answers LeaveGroup.
pub async fn leave<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = LeaveGroupRequest::decode(&mut body, header.version)?;
    if request.members.len() > ENTRIES_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let alone = header.version < 3;
    let members = match alone {
        true => vec![Leaver { member: request.member_id.to_owned(), ..Leaver::default() }],
        false => {
            let each = request.members.iter().map(|one| Leaver {
                member: one.member_id.to_owned(),
                instance: one.group_instance_id.map(str::to_owned),
                reason: one.reason.map(str::to_owned),
            });
            each.collect()
        }
    };
    let failed = |error_code| LeaveGroupResponse { error_code, ..Default::default() };
    let leave = Leave { group: request.group_id.to_owned(), members, topics: view(shard) };
    let left = match ask(shard, request.group_id, Request::Leave(leave)).await {
        Ok(Reply::Left(Ok(left))) => left,
        Ok(Reply::Left(Err(fault))) => return Ok(header.encode(&failed(of_group(fault)))),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(code) => return Ok(header.encode(&failed(code))),
    };
    let code = |fault: Option<GroupFault>| fault.map_or(ErrorCode::None, of_group);
    if alone {
        let fault = left.into_iter().next().and_then(|one| one.fault);
        return Ok(header.encode(&failed(code(fault))));
    }
    let members = left.into_iter().map(|one| MemberResponse {
        member_id: one.member.into(),
        group_instance_id: one.instance.map(Cow::Owned),
        error_code: code(one.fault),
    });
    let members = members.collect();
    Ok(header.encode(&LeaveGroupResponse { members, ..Default::default() }))
}
