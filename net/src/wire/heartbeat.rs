//! Heartbeat (key 12): a member of a classic group is alive, and hears of rebalances.
//!
//! Versions 0–4. 1: throttle time. 3: instance ids (KIP-345). 4: flexible.

use super::ErrorCode;
use super::message::message;

message! {
    /// Who is alive.
    pub struct HeartbeatRequest<'a>:
        request 12 -> HeartbeatResponse, versions 0..=4, flexible 4;
    {
        /// The group.
        group_id: &'a str,
        /// The generation that the member is in.
        generation_id: i32,
        /// The member.
        member_id: &'a str,
        /// Its instance id, if it is static.
        group_instance_id: Option<&'a str> [3..],
    }

    /// Whether all is well.
    pub struct HeartbeatResponse: response 12, versions 0..=4, flexible 4;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// What the member has to do otherwise, if so.
        error_code: ErrorCode,
    }
}
