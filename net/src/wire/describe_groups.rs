//! DescribeGroups (key 15): classic groups and their members.
//!
//! Versions 0–6. 1: throttle time. 3: authorized operations (KIP-430). 4: instance ids (KIP-345).
//! 5: flexible. 6: an error in words, and `GROUP_ID_NOT_FOUND` where there was `Dead` (KIP-1043).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which groups to describe.
    pub struct DescribeGroupsRequest<'a>:
        request 15 -> DescribeGroupsResponse<'r>, versions 0..=6, flexible 5;
    {
        /// Their ids.
        groups: Array<'a, &'a str>,
        /// Whether to say what the client may do with them.
        include_authorized_operations: bool [3..],
    }

    /// The groups.
    pub struct DescribeGroupsResponse<'a>: response 15, versions 0..=6, flexible 5;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// By group.
        groups: Array<'a, DescribedGroup<'a>>,
    }

    /// One group.
    pub struct DescribedGroup<'a> {
        /// Why it is not described, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>> [6..],
        /// Its id.
        group_id: Cow<'a, str>,
        /// Its state: `Stable`, `Empty`, `Dead`, …
        group_state: Cow<'a, str>,
        /// What kind of protocols it speaks.
        protocol_type: Cow<'a, str>,
        /// Which of them; empty if none is chosen.
        protocol_data: Cow<'a, str>,
        /// Its members.
        members: Array<'a, DescribedGroupMember<'a>>,
        /// What the client may do with it, as bits; `i32::MIN` if not asked for.
        authorized_operations: i32 [3..] = i32::MIN,
    }

    /// One member.
    pub struct DescribedGroupMember<'a> {
        /// Its id.
        member_id: Cow<'a, str>,
        /// Its instance id, if it is static.
        group_instance_id: Option<Cow<'a, str>> [4..],
        /// What its client calls itself.
        client_id: Cow<'a, str>,
        /// Where it connects from.
        client_host: Cow<'a, str>,
        /// What it said in the chosen protocol; empty unless the group is stable.
        member_metadata: Cow<'a, [u8]>,
        /// Its assignment; empty unless the group is stable.
        member_assignment: Cow<'a, [u8]>,
    }
}
