//! SyncGroup (key 14): members of a classic group fetch their assignments; the leader brings them.
//!
//! Versions 0–5. 1: throttle time. 3: instance ids (KIP-345). 4: flexible. 5: protocol type and
//! name, checked (KIP-559).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Who asks, and from the leader what each member gets.
    pub struct SyncGroupRequest<'a>:
        request 14 -> SyncGroupResponse<'r>, versions 0..=5, flexible 4;
    {
        /// The group.
        group_id: &'a str,
        /// The generation that the member is in.
        generation_id: i32,
        /// The member.
        member_id: &'a str,
        /// Its instance id, if it is static.
        group_instance_id: Option<&'a str> [3..],
        /// What kind of protocols it takes the group to speak.
        protocol_type: Option<&'a str> [5..],
        /// Which of them.
        protocol_name: Option<&'a str> [5..],
        /// By member; empty unless the leader asks.
        assignments: Array<'a, SyncGroupRequestAssignment<'a>>,
    }

    /// What one member gets.
    pub struct SyncGroupRequestAssignment<'a> {
        /// The member.
        member_id: &'a str,
        /// Its assignment, in the group's protocol.
        assignment: &'a [u8],
    }

    /// What the member gets.
    pub struct SyncGroupResponse<'a>: response 14, versions 0..=5, flexible 4;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// Why it gets nothing, if so.
        error_code: ErrorCode,
        /// What kind of protocols the group speaks.
        protocol_type: Option<Cow<'a, str>> [5..],
        /// Which of them.
        protocol_name: Option<Cow<'a, str>> [5..],
        /// Its assignment, in the group's protocol.
        assignment: Cow<'a, [u8]>,
    }
}
