//! FindCoordinator (key 10): which broker coordinates a group, transactional id or share partition.
//!
//! Versions 0–6. 1: key type; error in words. 3: flexible. 4: several keys at once (KIP-699). 5:
//! `TRANSACTION_ABORTABLE` is known (KIP-890). 6: share partitions (KIP-932).

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

/// Key type: a consumer group's id.
pub const GROUP: i8 = 0;
/// Key type: a transactional id.
pub const TRANSACTION: i8 = 1;
/// Key type: a share partition, `group:topic-id:partition`.
pub const SHARE: i8 = 2;

message! {
    /// Whose coordinators to find.
    pub struct FindCoordinatorRequest<'a>:
        request 10 -> FindCoordinatorResponse<'r>, versions 0..=6, flexible 3;
    {
        /// The key.
        key: &'a str [..=3],
        /// What kind of key: [`GROUP`], [`TRANSACTION`], [`SHARE`].
        key_type: i8 [1..],
        /// The keys.
        coordinator_keys: Array<'a, &'a str> [4..],
    }

    /// Where the coordinators are.
    pub struct FindCoordinatorResponse<'a>: response 10, versions 0..=6, flexible 3;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32 [1..],
        /// Why none was found, if so.
        error_code: ErrorCode [..=3],
        /// The same in words.
        error_message: Option<Cow<'a, str>> [1..=3],
        /// The broker; -1 with an error.
        node_id: i32 [..=3],
        /// Its host.
        host: Cow<'a, str> [..=3],
        /// Its port; -1 with an error.
        port: i32 [..=3],
        /// By key.
        coordinators: Array<'a, Coordinator<'a>> [4..],
    }

    /// Where one coordinator is.
    pub struct Coordinator<'a> {
        /// The key.
        key: Cow<'a, str>,
        /// The broker; -1 with an error.
        node_id: i32,
        /// Its host.
        host: Cow<'a, str>,
        /// Its port; -1 with an error.
        port: i32,
        /// Why none was found, if so.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
    }
}
