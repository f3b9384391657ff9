//! The words of the quorum, and openraft's types in them.

use std::fmt;
use std::rc::Rc;

use engine::ids::{BrokerId, TopicId};
use engine::time::Timestamp;
use openraft::impls::leader_id_std;

use super::runtime::Runtime;

openraft::declare_raft_types!(
    /// What openraft is instantiated with.
    pub Types:
        D = Decided,
        R = (),
        NodeId = BrokerId,
        Node = Voter,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, BrokerId>,
        AsyncRuntime = Runtime,
);

/// What one entry of the log holds: records decided together, all or none. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Decided {
    /// When, by the wall clock of the controller that decided.
    pub wall: Timestamp,
    /// The records, as bytes that the quorum does not look into.
    pub records: Rc<[Vec<u8>]>,
}

impl Decided {
    /// How much the records are, in bytes.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

impl fmt::Debug for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records.len())
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Identity of one voter's directory: drawn at random when the directory is begun, so that a node
/// that lost its disk is not taken for the one that voted before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Directory(pub [u8; 16]);

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As Kafka writes every such identity.
        fmt::Display::fmt(&TopicId::from_bytes(self.0), f)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known of a voter besides its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    /// Its directory; `None` until it has been heard of for the first time.
    pub directory: Option<Directory>,
    /// Where it listens for the other coordinators, in words that only `net` reads.
    pub endpoint: String,
}

pub(super) type CommittedLeader = openraft::type_config::alias::CommittedLeaderIdOf<Types>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(super) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(super) type Payload = openraft::type_config::alias::PayloadOf<Types>;
pub(super) type Membership = openraft::Membership<BrokerId, Voter>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// The log id of an entry that was appended in `term`.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeader::new(term), index }
}

/// The term in which an entry was appended.
pub(super) fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}
