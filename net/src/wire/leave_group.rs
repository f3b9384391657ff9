//! LeaveGroup (key 13): members leave a classic group, or are removed from any by an administrator.
//!
//! Versions 0–5. 1: throttle time. 3: several members at once, by member or instance id (KIP-345).
//! 4: flexible. 5: a reason (KIP-800).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Who leaves.
    pub struct LeaveGroupRequest<'a>:
        request 13 -> LeaveGroupResponse<'r>, versions 0..=5, flexible 4;
    {
        /// The group.
        group_id: &'a str,
        /// The member.
        member_id: &'a str [..=2],
        /// The members.
        members: Array<'a, MemberIdentity<'a>> [3..],
    }

    /// One member that leaves.
    pub struct MemberIdentity<'a> {
        /// Its id; may be empty if there is an instance id.
        member_id: &'a str,
        /// Its instance id, if it is static.
        group_instance_id: Option<&'a str>,
        /// Why, in words.
        reason: Option<&'a str> [5..],
    }

    /// Who has left.
    pub struct LeaveGroupResponse<'a>: response 13, versions 0..=5, flexible 4;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// Why nobody has, if so.
        error_code: ErrorCode,
        /// By member.
        members: Array<'a, MemberResponse<'a>> [3..],
    }

    /// Whether one member has left.
    pub struct MemberResponse<'a> {
        /// Its id.
        member_id: Cow<'a, str>,
        /// Its instance id, if it is static.
        group_instance_id: Option<Cow<'a, str>>,
        /// Why it has not, if so.
        error_code: ErrorCode,
    }
}
