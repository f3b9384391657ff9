//! What coordinators tell each other, as bytes: versioned, checksummed, checked when read.
//!
//! Each message says from whom it is and for whom, down to the directory, and which cluster both
//! belong to. So a node that lost its disk, was given another's id, or was wired into another
//! cluster is found out at the first word, and told why.

use engine::ids::BrokerId;
use rkyv::{Archive, Deserialize, Serialize};

use super::layout::{EntryV1, LogIdV1, SealError, SnapshotMetaV1, VoteV1, seal, unseal};
use super::types::Directory;

const ASK_MAGIC: &[u8; 4] = b"RBqa";
const REPLY_MAGIC: &[u8; 4] = b"RBqr";
const VERSION: u32 = 1;

/// A question.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct AskV1 {
    pub cluster: Option<String>,
    pub from: i32,
    pub from_directory: [u8; 16],
    pub to: i32,
    /// Whom it is meant for, where that is known.
    pub to_directory: Option<[u8; 16]>,
    pub body: AskBodyV1,
}

/// What is asked.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) enum AskBodyV1 {
    PreVote(VoteAskV1),
    Vote(VoteAskV1),
    Append {
        vote: VoteV1,
        previous: Option<LogIdV1>,
        entries: Vec<EntryV1>,
        committed: Option<LogIdV1>,
    },
    /// A piece of a snapshot; the last one lets it be installed.
    Snapshot {
        vote: VoteV1,
        meta: SnapshotMetaV1,
        total: u64,
        at: u64,
        piece: Vec<u8>,
    },
    Transfer {
        leader: VoteV1,
        to: i32,
        last: Option<LogIdV1>,
    },
}

/// A vote that is asked for.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct VoteAskV1 {
    pub vote: VoteV1,
    pub last: Option<LogIdV1>,
    pub transfer: bool,
}

/// An answer.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct ReplyV1 {
    pub from: i32,
    pub directory: [u8; 16],
    pub body: ReplyBodyV1,
}

/// What is answered.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) enum ReplyBodyV1 {
    Voted {
        vote: VoteV1,
        granted: bool,
        last: Option<LogIdV1>,
    },
    Appended,
    AppendedUpTo(Option<LogIdV1>),
    Conflict,
    HigherVote(VoteV1),
    /// The next piece begins here.
    Taken {
        next: u64,
    },
    Installed {
        vote: VoteV1,
    },
    Transferred,
    VoteChanged {
        expected: VoteV1,
        actual: VoteV1,
    },
    NotFlushed {
        expected: Option<LogIdV1>,
        actual: Option<LogIdV1>,
    },
    Refused(RefusalV1),
}

/// Why a message was not looked at.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) enum RefusalV1 {
    OtherCluster(String),
    OtherNode(i32),
    OtherDirectory([u8; 16]),
    Stranger([u8; 16]),
    NoSpace,
    Ended(String),
    Unreadable(String),
}

/// Why a coordinator refuses to hear another.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another cluster.
    #[error("it belongs to cluster {0}")]
    OtherCluster(String),
    /// Somebody else listens there.
    #[error("node {0} listens there")]
    OtherNode(BrokerId),
    /// The node that listens there has lost its directory, or is another one with the same id.
    #[error("its directory is {0} now: the one that voted is gone, or two nodes share an id")]
    OtherDirectory(Directory),
    /// It knows the asker's id with another directory.
    #[error("it knows this node's id with directory {0}: that one is gone, or two share an id")]
    Stranger(Directory),
    /// Its device is full.
    #[error("its device is full")]
    NoSpace,
    /// Its quorum has ended.
    #[error("it has ended: {0}")]
    Ended(String),
    /// It cannot read the message.
    #[error("it cannot read this node's messages: {0}")]
    Unreadable(String),
}

impl From<RefusalV1> for Refusal {
    fn from(refusal: RefusalV1) -> Refusal {
        match refusal {
            RefusalV1::OtherCluster(name) => Refusal::OtherCluster(name),
            RefusalV1::OtherNode(id) => Refusal::OtherNode(BrokerId(id)),
            RefusalV1::OtherDirectory(id) => Refusal::OtherDirectory(Directory(id)),
            RefusalV1::Stranger(id) => Refusal::Stranger(Directory(id)),
            RefusalV1::NoSpace => Refusal::NoSpace,
            RefusalV1::Ended(why) => Refusal::Ended(why),
            RefusalV1::Unreadable(why) => Refusal::Unreadable(why),
        }
    }
}

impl AskV1 {
    pub fn encode(&self) -> Vec<u8> {
        seal(ASK_MAGIC, VERSION, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<AskV1, SealError> {
        unseal(ASK_MAGIC, VERSION, bytes)
    }
}

impl ReplyV1 {
    pub fn encode(&self) -> Vec<u8> {
        seal(REPLY_MAGIC, VERSION, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<ReplyV1, SealError> {
        unseal(REPLY_MAGIC, VERSION, bytes)
    }
}
