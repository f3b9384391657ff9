//! ListGroups (key 16): the groups that a broker coordinates.
//!
//! Versions 0–5. 1: throttle time. 3: flexible. 4: by state (KIP-518). 5: by type (KIP-848).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which groups to list.
    pub struct ListGroupsRequest<'a>:
        request 16 -> ListGroupsResponse<'r>, versions 0..=5, flexible 3;
    {
        /// Names of their states; empty for all.
        states_filter: Array<'a, &'a str> [4..],
        /// Names of their types; empty for all.
        types_filter: Array<'a, &'a str> [5..],
    }

    /// The groups.
    pub struct ListGroupsResponse<'a>: response 16, versions 0..=5, flexible 3;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// Why the list is not whole, if so.
        error_code: ErrorCode,
        /// The groups.
        groups: Array<'a, ListedGroup<'a>>,
    }

    /// One group.
    pub struct ListedGroup<'a> {
        /// Its id.
        group_id: Cow<'a, str>,
        /// What kind of protocols it speaks; empty if it has only offsets.
        protocol_type: Cow<'a, str>,
        /// Its state: `Stable`, `Empty`, …
        group_state: Cow<'a, str> [4..],
        /// Its type: `classic`, `consumer`, …
        group_type: Cow<'a, str> [5..],
    }
}
