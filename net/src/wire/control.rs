//! Control (key 10,001, ours): a broker asks the active controller to decide something.
//!
//! Version 0, flexible. Only on listeners of peers ([`crate::api::PRIVATE`]). Request and answer
//! are the controller's own (`coordinator::controller`) and are not looked at here.

use std::borrow::Cow;

use super::ErrorCode;
use super::message::message;

message! {
    /// What is asked for.
    pub struct ControlRequest<'a>:
        request 10_001 -> ControlResponse<'r>, versions 0..=0, flexible 0;
    {
        /// The controller's request.
        request: &'a [u8],
    }

    /// What was decided.
    pub struct ControlResponse<'a>: response 10_001, versions 0..=0, flexible 0;
    {
        /// Why nothing was, if so; `NotController`: ask `leader_id`.
        error_code: ErrorCode,
        /// The active controller as far as the answering node knows; -1 if it does not.
        leader_id: i32 = -1,
        /// The controller's answer; empty with an error.
        answer: Cow<'a, [u8]>,
        /// Offset in the metadata from which on the decision can be seen; -1 with an error.
        at: i64 = -1,
    }
}
