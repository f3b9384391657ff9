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

use engine::ids::{BrokerEpoch, BrokerId, Offset, ProducerId, TopicId};
use rkyv::{Archive, Deserialize, Serialize};

use super::layout::{self, BrokerV1, TopicV1};
use crate::cluster::{Broker, Cluster, ClusterId, DeletedTopic, Parts, Topic};

const MAGIC: &[u8; 8] = b"ringmeta";
const VERSION: u32 = 1;
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
    let archive = layout::write(&SnapshotV1 {
        cluster: cluster.id().map(ClusterId::to_string),
        brokers: cluster.brokers().map(|broker| BrokerV1::from(&**broker)).collect(),
        topics: cluster.topics().map(|topic| TopicV1::from(&**topic)).collect(),
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
    });
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
    if word(8) != VERSION {
        return Err(SnapshotError::Unknown(word(8)));
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
    let snapshot: SnapshotV1 = layout::read(archive).map_err(SnapshotError::Corrupt)?;
    Ok((restore(snapshot), offset))
}

fn restore(snapshot: SnapshotV1) -> Cluster {
    let deleted = |topic: DeletedV1| {
        let holders = topic.holders.into_iter().map(BrokerId).collect();
        (TopicId::from_bytes(topic.id), DeletedTopic { name: topic.name.into(), holders })
    };
    Cluster::restore(Parts {
        id: snapshot.cluster.as_deref().map(ClusterId::new),
        brokers: snapshot.brokers.into_iter().map(Broker::from).collect(),
        topics: snapshot.topics.into_iter().map(Topic::from).collect(),
        deleted: snapshot.deleted.into_iter().map(deleted).collect(),
        last_broker_epoch: BrokerEpoch(snapshot.last_broker_epoch),
        next_producer_id: ProducerId(snapshot.next_producer_id),
    })
}
