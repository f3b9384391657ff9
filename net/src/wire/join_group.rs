//! JoinGroup (key 11): a member of a classic group asks for a part in its next generation.
//!
//! Versions 0–9. 1: rebalance timeout. 2: throttle time. 4: a member without an id is told one and
//! asks again with it (KIP-394). 5: instance ids (KIP-345). 6: flexible. 7: protocol type in the
//! answer (KIP-559). 8: a reason (KIP-800). 9: a leader may be told not to assign (KIP-814).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Who wants to join, and what it can speak.
    pub struct JoinGroupRequest<'a>:
        request 11 -> JoinGroupResponse<'r>, versions 0..=9, flexible 6;
    {
        /// The group.
        group_id: &'a str,
        /// Milliseconds without a heartbeat after which the member is taken for dead.
        session_timeout_ms: i32,
        /// Milliseconds that a rebalance waits for the member to join again; -1 where the version
        /// lacks it, which means the session timeout.
        rebalance_timeout_ms: i32 [1..] = -1,
        /// The member; empty if it has no id yet.
        member_id: &'a str,
        /// Its instance id, if it is static.
        group_instance_id: Option<&'a str> [5..],
        /// What kind of protocols: `consumer`, `connect`, …
        protocol_type: &'a str,
        /// What the member can speak, preferred first.
        protocols: Array<'a, JoinGroupRequestProtocol<'a>>,
        /// Why it joins, in words.
        reason: Option<&'a str> [8..],
    }

    /// One protocol that a member can speak.
    pub struct JoinGroupRequestProtocol<'a> {
        /// Its name, for consumers that of an assignor.
        name: &'a str,
        /// What the member has to say in it; for consumers its subscription.
        metadata: &'a [u8],
    }

    /// The generation that came out.
    pub struct JoinGroupResponse<'a>: response 11, versions 0..=9, flexible 6;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [2..],
        /// Why it did not join, if so.
        error_code: ErrorCode,
        /// Number of the generation; -1 with an error.
        generation_id: i32 = -1,
        /// What kind of protocols.
        protocol_type: Option<Cow<'a, str>> [7..],
        /// The protocol that all speak.
        protocol_name: Option<Cow<'a, str>> [0.., nullable 7..],
        /// Who is to assign.
        leader: Cow<'a, str>,
        /// Whether the leader is not to assign after all.
        skip_assignment: bool [9..],
        /// The member's id.
        member_id: Cow<'a, str>,
        /// For the leader: who is in the group.
        members: Array<'a, JoinGroupResponseMember<'a>>,
    }

    /// One member, for the leader.
    pub struct JoinGroupResponseMember<'a> {
        /// Its id.
        member_id: Cow<'a, str>,
        /// Its instance id, if it is static.
        group_instance_id: Option<Cow<'a, str>> [5..],
        /// What it said in the chosen protocol.
        metadata: Cow<'a, [u8]>,
    }
}
