//! QuorumChange (key 10,003, ours): other coordinators shall vote.
//!
//! Version 0, flexible. Only on listeners of coordinators ([`crate::api::PRIVATE`]). Kafka has two
//! requests for this (AddRaftVoter, RemoveRaftVoter, KIP-853) that change one voter each; an odd
//! number of voters stays odd only if two come or go together, or one for another.

use std::borrow::Cow;

use super::message::message;
use super::{Array, ErrorCode};

message! {
    /// Who comes and who goes, in one step.
    pub struct QuorumChangeRequest<'a>:
        request 10_003 -> QuorumChangeResponse<'r>, versions 0..=0, flexible 0;
    {
        /// Who shall vote.
        add: Array<'a, NewVoter<'a>>,
        /// Who shall not any more.
        remove: Array<'a, i32>,
    }

    /// A coordinator that shall vote.
    pub struct NewVoter<'a> {
        /// Its node.
        node_id: i32,
        /// Where it answers coordinators, `host:port`.
        endpoint: &'a str,
        /// Its directory.
        directory: [u8; 16],
    }

    /// What became of it.
    pub struct QuorumChangeResponse<'a>: response 10_003, versions 0..=0, flexible 0;
    {
        /// Why nothing was changed, if so; `NotController`: ask `leader_id`.
        error_code: ErrorCode,
        /// The same in words.
        error_message: Option<Cow<'a, str>>,
        /// The leading coordinator as far as the answering one knows; -1 if it does not.
        leader_id: i32 = -1,
    }
}
