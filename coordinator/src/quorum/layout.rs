//! How what the quorum keeps and sends stands in bytes: one struct per thing and version, plain
//! numbers, strings and lists, checked (`bytecheck`) before it is believed. Layouts are never
//! changed, only succeeded.

use std::collections::{BTreeMap, BTreeSet};

use engine::ids::BrokerId;
use engine::time::Timestamp;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::types::{
    Decided, Directory, Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
    Voter, log_id, term_of,
};

/// Bytes before the archive of something sealed: magic, version, length, CRC-32C.
pub(super) const SEAL_BYTES: usize = 16;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogIdV1 {
    term: u64,
    index: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VoteV1 {
    term: u64,
    node: i32,
    committed: bool,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct VoterV1 {
    id: i32,
    directory: Option<[u8; 16]>,
    endpoint: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct MembershipV1 {
    configs: Vec<Vec<i32>>,
    nodes: Vec<VoterV1>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) enum PayloadV1 {
    Blank,
    Decided { wall: i64, records: Vec<Vec<u8>> },
    Membership(MembershipV1),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct EntryV1 {
    id: LogIdV1,
    payload: PayloadV1,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct SnapshotMetaV1 {
    last: Option<LogIdV1>,
    membership_at: Option<LogIdV1>,
    membership: MembershipV1,
}

impl From<&LogId> for LogIdV1 {
    fn from(id: &LogId) -> LogIdV1 {
        LogIdV1 { term: term_of(id), index: id.index }
    }
}

impl From<LogIdV1> for LogId {
    fn from(id: LogIdV1) -> LogId {
        log_id(id.term, id.index)
    }
}

impl From<&Vote> for VoteV1 {
    fn from(vote: &Vote) -> VoteV1 {
        let (leader, committed) = (&vote.leader_id, vote.committed);
        VoteV1 { term: leader.term, node: leader.voted_for.0, committed }
    }
}

impl From<VoteV1> for Vote {
    fn from(vote: VoteV1) -> Vote {
        let node = BrokerId(vote.node);
        match vote.committed {
            true => Vote::new_committed(vote.term, node),
            false => Vote::new(vote.term, node),
        }
    }
}

impl From<&Membership> for MembershipV1 {
    fn from(membership: &Membership) -> MembershipV1 {
        let ids = |config: &BTreeSet<BrokerId>| config.iter().map(|id| id.0).collect();
        let voter = |(id, voter): (&BrokerId, &Voter)| VoterV1 {
            id: id.0,
            directory: voter.directory.map(|directory| directory.0),
            endpoint: voter.endpoint.clone(),
        };
        MembershipV1 {
            configs: membership.get_joint_config().iter().map(ids).collect(),
            nodes: membership.nodes().map(voter).collect(),
        }
    }
}

impl TryFrom<MembershipV1> for Membership {
    type Error = String;

    fn try_from(membership: MembershipV1) -> Result<Membership, String> {
        let ids = |config: Vec<i32>| config.into_iter().map(BrokerId).collect();
        let configs: Vec<BTreeSet<BrokerId>> = membership.configs.into_iter().map(ids).collect();
        let voter = |voter: VoterV1| {
            let directory = voter.directory.map(Directory);
            (BrokerId(voter.id), Voter { directory, endpoint: voter.endpoint })
        };
        let nodes: BTreeMap<BrokerId, Voter> = membership.nodes.into_iter().map(voter).collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|error| error.to_string())
    }
}

impl From<&Entry> for EntryV1 {
    fn from(entry: &Entry) -> EntryV1 {
        let payload = match &entry.payload {
            Payload::Blank => PayloadV1::Blank,
            Payload::Normal(decided) => {
                PayloadV1::Decided { wall: decided.wall.0, records: decided.records.to_vec() }
            }
            Payload::Membership(membership) => PayloadV1::Membership(membership.into()),
        };
        EntryV1 { id: (&entry.log_id).into(), payload }
    }
}

impl EntryV1 {
    /// Roughly what it takes in a log, in bytes.
    pub fn bytes(&self) -> usize {
        let payload = match &self.payload {
            PayloadV1::Blank => 0,
            PayloadV1::Decided { records, .. } => {
                records.iter().map(|record| record.len() + 16).sum()
            }
            PayloadV1::Membership(membership) => membership.nodes.len() * 512,
        };
        payload + 128
    }

    /// The entry.
    pub fn restore(self) -> Result<Entry, String> {
        let payload = match self.payload {
            PayloadV1::Blank => Payload::Blank,
            PayloadV1::Decided { wall, records } => {
                Payload::Normal(Decided { wall: Timestamp(wall), records: records.into() })
            }
            PayloadV1::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(Entry { log_id: self.id.into(), payload })
    }
}

impl From<&SnapshotMeta> for SnapshotMetaV1 {
    fn from(meta: &SnapshotMeta) -> SnapshotMetaV1 {
        SnapshotMetaV1 {
            last: meta.last_log_id.as_ref().map(LogIdV1::from),
            membership_at: meta.last_membership.log_id().as_ref().map(LogIdV1::from),
            membership: meta.last_membership.membership().into(),
        }
    }
}

impl TryFrom<SnapshotMetaV1> for SnapshotMeta {
    type Error = String;

    fn try_from(meta: SnapshotMetaV1) -> Result<SnapshotMeta, String> {
        let membership = meta.membership.try_into()?;
        Ok(SnapshotMeta {
            last_log_id: meta.last.map(LogId::from),
            last_membership: StoredMembership::new(meta.membership_at.map(LogId::from), membership),
        })
    }
}

/// The archive of a value.
pub(super) fn write<T>(value: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    rkyv::to_bytes::<rancor::Error>(value).expect("plain values serialize").into_vec()
}

/// The value of an archive, wherever it stands in memory.
pub(super) fn read<T>(archive: &[u8]) -> Result<T, String>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
        + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
    aligned.extend_from_slice(archive);
    rkyv::from_bytes::<T, rancor::Error>(&aligned).map_err(|error| error.to_string())
}

/// A value's archive behind its magic, version, length and checksum.
pub(crate) fn seal<T>(magic: &[u8; 4], version: u32, value: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let body = write(value);
    let mut bytes = Vec::with_capacity(SEAL_BYTES + body.len());
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// They are something else, or too short.
    #[error("not what it should be")]
    Foreign,
    /// A newer release wrote them.
    #[error("version {0} is not known to this release")]
    Unknown(u32),
    /// Torn or rotten.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

/// Opens what [`seal`] made; bytes after it are not looked at.
pub(crate) fn unseal<T>(magic: &[u8; 4], version: u32, bytes: &[u8]) -> Result<T, SealError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
        + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let Some((head, rest)) = bytes.split_at_checked(SEAL_BYTES) else {
        return Err(SealError::Foreign);
    };
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if head[..4] != *magic {
        return Err(SealError::Foreign);
    }
    if word(4) != version {
        return Err(SealError::Unknown(word(4)));
    }
    let corrupt = |reason: &str| SealError::Corrupt(reason.to_string());
    let body = rest.get(..word(8) as usize).ok_or_else(|| corrupt("it is cut short"))?;
    if crc32c::crc32c(body) != word(12) {
        return Err(corrupt("its checksum does not match"));
    }
    read(body).map_err(SealError::Corrupt)
}
