//! DeleteGroups (key 42): deletes groups that have no members, with their offsets (KIP-229).
//!
//! Versions 0–3. 2: flexible. 3: an error in words.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Which groups to delete.
    pub struct DeleteGroupsRequest<'a>:
        request 42 -> DeleteGroupsResponse<'r>, versions 0..=3, flexible 2;
    {
        /// Their ids.
        groups_names: Array<'a, &'a str>,
    }

    /// Which groups are deleted.
    pub struct DeleteGroupsResponse<'a>: response 42, versions 0..=3, flexible 2;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// By group.
        results: Array<'a, DeletableGroupResult<'a>>,
    }

    /// Whether one group is deleted.
    pub struct DeletableGroupResult<'a> {
        /// Its id.
        group_id: Cow<'a, str>,
        /// Why it is not, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>> [3..],
    }
}
