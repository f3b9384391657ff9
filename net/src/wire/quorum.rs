//! Quorum (key 10,000, ours): a message of the agreement on metadata, between coordinators.
//!
//! Version 0, flexible. Only on listeners of peers ([`crate::api::PRIVATE`]). What is inside
//! belongs to `coordinator::quorum` and is not looked at here.

use std::borrow::Cow;

use super::message::message;

message! {
    /// A message to a coordinator.
    pub struct QuorumRequest<'a>:
        request 10_000 -> QuorumResponse<'r>, versions 0..=0, flexible 0;
    {
        /// What it says.
        message: &'a [u8],
    }

    /// Its answer.
    pub struct QuorumResponse<'a>: response 10_000, versions 0..=0, flexible 0;
    {
        /// What it says.
        message: Cow<'a, [u8]>,
    }
}
