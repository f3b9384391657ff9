//! What the controller remembers, record by record, and how each stands in the log.
//!
//! A [`Record`] becomes the value of one Kafka record (without key). The value begins with three
//! bytes, the record's type and the version of its layout; the rest is an rkyv archive of that
//! version's struct in `layout`, checked (`bytecheck`) before it is believed. Layouts are never
//! changed, only succeeded: a new field is a new version with a struct of its own, and every
//! version that was ever written stays readable.

use std::sync::Arc;

use engine::ids::{BrokerEpoch, BrokerId, PartitionIndex, ProducerId, TopicId};

use crate::cluster::{Broker, BrokerChange, ClusterId, Partition, Topic};
use crate::machine::Stored;

mod layout;
mod layout_v2;
pub mod snapshot;

pub(crate) use layout_v2::{PartitionV2, TopicV2};

/// One change to a cluster. Decided by [`crate::controller::Controller`], made true by
/// [`crate::cluster::Cluster::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster has a name from now on.
    ClusterFormed {
        /// Its name.
        id: ClusterId,
    },
    /// A broker began an uptime session, not fenced: the partitions that it leads enter a new
    /// leader epoch. Releases that knew no fencing wrote this; it is only read.
    BrokerReturned(Arc<Broker>),
    /// A broker began an uptime session, or amended the registration of its present one. Of a new
    /// session, `registered` is where the record stands, whatever it says.
    BrokerRegistered(Arc<Broker>),
    /// A broker was fenced, unfenced, or began its controlled shutdown.
    BrokerChanged {
        /// The broker.
        broker: BrokerId,
        /// Its uptime session.
        epoch: BrokerEpoch,
        /// What happened.
        change: BrokerChange,
    },
    /// A broker is no member any more.
    BrokerUnregistered {
        /// The broker.
        broker: BrokerId,
        /// Its last uptime session.
        epoch: BrokerEpoch,
    },
    /// A feature has another finalized level.
    FeatureChanged {
        /// Its name.
        name: String,
        /// Its level; 0: off.
        level: i16,
    },
    /// A topic exists, with all of its partitions.
    TopicCreated(Arc<Topic>),
    /// A topic has more partitions.
    PartitionsAdded {
        /// The topic.
        topic: TopicId,
        /// Index of the first new one: as many as there were.
        first: PartitionIndex,
        /// The new ones.
        partitions: Vec<Partition>,
    },
    /// Partitions of a topic changed: each as it is now, whole.
    PartitionsChanged {
        /// The topic.
        topic: TopicId,
        /// The partitions that changed, each once.
        partitions: Vec<(PartitionIndex, Partition)>,
    },
    /// Overrides of a topic changed.
    TopicOverridesChanged {
        /// The topic.
        topic: TopicId,
        /// Names with their new values; `None`: no longer overridden.
        changes: Vec<(String, Option<String>)>,
    },
    /// A group's own settings changed.
    GroupOverridesChanged {
        /// The group.
        group: String,
        /// Names with their new values; `None`: the broker's again.
        changes: Vec<(String, Option<String>)>,
    },
    /// A topic is no more; its replicas' brokers are to remove its files.
    TopicDeleted {
        /// The topic.
        topic: TopicId,
    },
    /// A broker has removed a deleted topic's files.
    TopicPurged {
        /// The topic.
        topic: TopicId,
        /// The broker.
        broker: BrokerId,
    },
    /// A broker was given the producer ids below `next` that nobody had.
    ProducerIdsAllocated {
        /// The broker.
        broker: BrokerId,
        /// Its uptime session.
        epoch: BrokerEpoch,
        /// The first id still free.
        next: ProducerId,
    },
}

/// Bytes before the archive: type (`u8`), version of the layout (`u16`, big endian).
const ENVELOPE_BYTES: usize = 3;

/// Why a value of the metadata log is not a record of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than any record, or null.
    #[error("a metadata record of {len} bytes is too short to be one")]
    Short {
        /// Its length in bytes.
        len: usize,
    },
    /// Written by a newer release, or not by us.
    #[error("metadata record type {kind} version {version} is not known to this release")]
    Unknown {
        /// Its type.
        kind: u8,
        /// Its version.
        version: u16,
    },
    /// The archive does not hold together.
    #[error("metadata record type {kind} version {version} is corrupt: {reason}")]
    Corrupt {
        /// Its type.
        kind: u8,
        /// Its version.
        version: u16,
        /// What does not.
        reason: String,
    },
}

impl Record {
    /// As the value of a log record.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, version, archive) = layout::archive(self);
        let mut value = Vec::with_capacity(ENVELOPE_BYTES + archive.len());
        value.push(kind);
        value.extend_from_slice(&version.to_be_bytes());
        value.extend_from_slice(&archive);
        value
    }

    /// From the value of a log record. Allocates in proportion to `value` only.
    pub fn decode(value: &[u8]) -> Result<Record, DecodeError> {
        let Some((envelope, archive)) = value.split_at_checked(ENVELOPE_BYTES) else {
            return Err(DecodeError::Short { len: value.len() });
        };
        let (kind, version) = (envelope[0], u16::from_be_bytes([envelope[1], envelope[2]]));
        match layout::restore(kind, version, archive) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(DecodeError::Unknown { kind, version }),
            Err(reason) => Err(DecodeError::Corrupt { kind, version, reason }),
        }
    }
}

impl Stored for Record {
    type Error = DecodeError;

    fn store(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        (None, Some(self.encode()))
    }

    fn load(_key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Record, DecodeError> {
        Record::decode(value.unwrap_or_default())
    }
}
