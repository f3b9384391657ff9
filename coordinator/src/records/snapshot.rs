//! A whole cluster as bytes, so that the metadata log need not be kept for ever.
//!
//! A snapshot holds what the log said below an offset; a start reads the newest snapshot and the
//! log from that offset on. Layout, in bytes, numbers little endian:
//!
//! ```text
//! 0   8  magic "ringmeta"
//! 8   4  version of the layout
//! 12  4  CRC-32C of everything after it
//! 16  8  offset: every record below it is in here
//! 24  8  length of the archive
//! 32  …  the archive (rkyv, checked on read); after it, padding that nobody reads
//! ```

use std::collections::BTreeMap;

use engine::ids::{BrokerEpoch, BrokerId, Offset, ProducerId, TopicId};
use rkyv::{Archive, Deserialize, Serialize};

use super::layout::{self, BrokerV1, TopicV1};
use super::layout_v2::{BrokerV2, TopicV2};
use crate::cluster::{Broker, Cluster, ClusterId, DeletedTopic, Overrides, Parts, Topic};

const MAGIC: &[u8; 8] = b"ringmeta";
/// The layout that is written; all up to it are read.
const VERSION: u32 = 3;
const HEADER_BYTES: usize = 32;

#[derive(Archive, Serialize, Deserialize)]
struct SnapshotV1 {
    cluster: Option<String>,
    brokers: Vec<BrokerV1>,
    topics: Vec<TopicV1>,
    deleted: Vec<DeletedV1>,
    last_broker_epoch: i64,
    next_producer_id: i64,
}

#[derive(Archive, Serialize, Deserialize)]
struct SnapshotV2 {
    cluster: Option<String>,
    brokers: Vec<BrokerV2>,
    features: Vec<(String, i16)>,
    topics: Vec<TopicV2>,
    deleted: Vec<DeletedV1>,
    last_broker_epoch: i64,
    next_producer_id: i64,
}

#[derive(Archive, Serialize, Deserialize)]
struct SnapshotV3 {
    rest: SnapshotV2,
    /// Groups with settings of their own.
    groups: Vec<(String, Vec<(String, String)>)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct DeletedV1 {
    id: [u8; 16],
    name: String,
    holders: Vec<i32>,
}

/// Why bytes are not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// They do not begin like one, or are too short.
    #[error("not a metadata snapshot")]
    Foreign,
    /// A newer release wrote it.
    #[error("metadata snapshot version {0} is not known to this release")]
    Unknown(u32),
    /// Torn or rotten.
    #[error("metadata snapshot is corrupt: {0}")]
    Corrupt(String),
}

/// The cluster as of everything below `offset`, as bytes.
pub fn encode(cluster: &Cluster, offset: Offset) -> Vec<u8> {
    let rest = SnapshotV2 {
        cluster: cluster.id().map(ClusterId::to_string),
        brokers: cluster.brokers().map(|broker| BrokerV2::from(&**broker)).collect(),
        features: cluster.features().map(|(name, level)| (name.to_string(), level)).collect(),
        topics: cluster.topics().map(|topic| TopicV2::from(&**topic)).collect(),
        deleted: cluster
            .deleted_topics()
            .map(|(id, deleted)| DeletedV1 {
                id: *id.bytes(),
                name: deleted.name.to_string(),
                holders: deleted.holders.iter().map(|broker| broker.0).collect(),
            })
            .collect(),
        last_broker_epoch: cluster.last_broker_epoch().0,
        next_producer_id: cluster.next_producer_id().0,
    };
    let plain = |overrides: &Overrides| overrides.clone().into_iter().collect();
    let groups = cluster.configured_groups();
    let groups = groups.map(|(name, overrides)| (name.to_string(), plain(overrides))).collect();
    let archive = layout::write(&SnapshotV3 { rest, groups });
    let mut bytes = Vec::with_capacity(HEADER_BYTES + archive.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&offset.value().to_le_bytes());
    bytes.extend_from_slice(&(archive.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&archive);
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The cluster that `bytes` hold, and the offset below which it knows every record.
pub fn decode(bytes: &[u8]) -> Result<(Cluster, Offset), SnapshotError> {
    let corrupt = |reason: &str| SnapshotError::Corrupt(reason.to_string());
    if bytes.len() < HEADER_BYTES || &bytes[..8] != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let version = word(8);
    if !(1..=VERSION).contains(&version) {
        return Err(SnapshotError::Unknown(version));
    }
    let end = usize::try_from(long(24)).ok().and_then(|len| len.checked_add(HEADER_BYTES));
    let Some(checked) = end.and_then(|end| bytes.get(16..end)) else {
        return Err(corrupt("it is cut short"));
    };
    if crc32c::crc32c(checked) != word(12) {
        return Err(corrupt("its checksum does not match"));
    }
    let offset = i64::try_from(long(16)).ok().and_then(Offset::from_wire);
    let offset = offset.ok_or_else(|| corrupt("its offset is none"))?;
    let archive = &checked[HEADER_BYTES - 16..];
    let parts = match version {
        1 => layout::read::<SnapshotV1>(archive).map(Parts::from),
        2 => layout::read::<SnapshotV2>(archive).map(Parts::from),
        _ => layout::read::<SnapshotV3>(archive).map(Parts::from),
    };
    Ok((Cluster::restore(parts.map_err(SnapshotError::Corrupt)?), offset))
}

fn deleted(topics: Vec<DeletedV1>) -> Vec<(TopicId, DeletedTopic)> {
    let one = |topic: DeletedV1| {
        let holders = topic.holders.into_iter().map(BrokerId).collect();
        (TopicId::from_bytes(topic.id), DeletedTopic { name: topic.name.into(), holders })
    };
    topics.into_iter().map(one).collect()
}

impl From<SnapshotV1> for Parts {
    fn from(snapshot: SnapshotV1) -> Parts {
        Parts {
            id: snapshot.cluster.as_deref().map(ClusterId::new),
            brokers: snapshot.brokers.into_iter().map(Broker::from).collect(),
            features: BTreeMap::new(),
            topics: snapshot.topics.into_iter().map(Topic::from).collect(),
            deleted: deleted(snapshot.deleted),
            groups: Vec::new(),
            last_broker_epoch: BrokerEpoch(snapshot.last_broker_epoch),
            next_producer_id: ProducerId(snapshot.next_producer_id),
        }
    }
}

impl From<SnapshotV2> for Parts {
    fn from(snapshot: SnapshotV2) -> Parts {
        Parts {
            id: snapshot.cluster.as_deref().map(ClusterId::new),
            brokers: snapshot.brokers.into_iter().map(Broker::from).collect(),
            features: snapshot.features.into_iter().collect(),
            topics: snapshot.topics.into_iter().map(Topic::from).collect(),
            deleted: deleted(snapshot.deleted),
            groups: Vec::new(),
            last_broker_epoch: BrokerEpoch(snapshot.last_broker_epoch),
            next_producer_id: ProducerId(snapshot.next_producer_id),
        }
    }
}

impl From<SnapshotV3> for Parts {
    fn from(snapshot: SnapshotV3) -> Parts {
        let whole = |(name, overrides): (String, Vec<_>)| (name, Overrides::from_iter(overrides));
        Parts { groups: snapshot.groups.into_iter().map(whole).collect(), ..snapshot.rest.into() }
    }
}
