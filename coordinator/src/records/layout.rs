//! The layouts of metadata records, one struct per type and version. Plain numbers and strings,
//! so that a domain type may change without moving a byte of what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId,
};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::Record;
use super::layout_v2::{
    BrokerChangedV1, BrokerRegisteredV2, BrokerUnregisteredV1, BrokerV2, FeatureChangedV1,
    PartitionV2, PartitionsAddedV2, PartitionsChangedV1, TopicCreatedV2, TopicV2,
};
use crate::cluster::{
    Broker, ClusterId, DirectoryId, Endpoint, Incarnation, Partition, PartitionEpoch, Replicas,
    Topic,
};

/// Declares the types: for each its number, its versions, and the struct of each version.
macro_rules! kinds {
    ($($kind:literal $version:literal $layout:ident;)*) => {
        /// The record in a layout that this release knows; `None` for one that it does not.
        pub(super) fn restore(
            kind: u8,
            version: u16,
            archive: &[u8],
        ) -> Result<Option<Record>, String> {
            match (kind, version) {
                $(($kind, $version) => read::<$layout>(archive).map(|l| Some(l.into())),)*
                _ => Ok(None),
            }
        }

        $(impl Layout for $layout {
            const KIND: u8 = $kind;
            const VERSION: u16 = $version;
        })*
    };
}

kinds! {
    1 1 ClusterFormedV1;
    2 1 BrokerRegisteredV1;
    3 1 TopicCreatedV1;
    4 1 PartitionsAddedV1;
    5 1 TopicOverridesChangedV1;
    6 1 TopicDeletedV1;
    7 1 TopicPurgedV1;
    8 1 ProducerIdsAllocatedV1;
    2 2 BrokerRegisteredV2;
    3 2 TopicCreatedV2;
    4 2 PartitionsAddedV2;
    9 1 BrokerChangedV1;
    10 1 BrokerUnregisteredV1;
    11 1 FeatureChangedV1;
    12 1 PartitionsChangedV1;
    13 1 GroupOverridesChangedV1;
}

/// A struct that stands in the log under a type and a version.
trait Layout {
    const KIND: u8;
    const VERSION: u16;
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ClusterFormedV1 {
    id: String,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BrokerRegisteredV1 {
    broker: BrokerV1,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TopicCreatedV1 {
    topic: TopicV1,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PartitionsAddedV1 {
    topic: [u8; 16],
    first: i32,
    partitions: Vec<PartitionV1>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TopicOverridesChangedV1 {
    topic: [u8; 16],
    changes: Vec<(String, Option<String>)>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct GroupOverridesChangedV1 {
    group: String,
    changes: Vec<(String, Option<String>)>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TopicDeletedV1 {
    topic: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TopicPurgedV1 {
    topic: [u8; 16],
    broker: i32,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ProducerIdsAllocatedV1 {
    broker: i32,
    epoch: i64,
    next: i64,
}

/// A broker, in records and snapshots.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BrokerV1 {
    id: i32,
    epoch: i64,
    /// Listener, host, port.
    endpoints: Vec<(String, String, u16)>,
    rack: Option<String>,
}

/// A topic, in records and snapshots.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TopicV1 {
    id: [u8; 16],
    name: String,
    partitions: Vec<PartitionV1>,
    overrides: Vec<(String, String)>,
}

/// A partition, in records and snapshots.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PartitionV1 {
    replicas: Vec<i32>,
    /// `None`: the same as `replicas`.
    isr: Option<Vec<i32>>,
    leader: Option<i32>,
    leader_epoch: i32,
    epoch: i32,
}

/// Type, version and archive of a record, in the newest layout.
pub(super) fn archive(record: &Record) -> (u8, u16, AlignedVec) {
    match record {
        Record::ClusterFormed { id } => written(&ClusterFormedV1 { id: id.to_string() }),
        Record::BrokerReturned(broker) => {
            written(&BrokerRegisteredV1 { broker: BrokerV1::from(&**broker) })
        }
        Record::BrokerRegistered(broker) => {
            written(&BrokerRegisteredV2 { broker: BrokerV2::from(&**broker) })
        }
        Record::BrokerChanged { broker, epoch, change } => {
            written(&BrokerChangedV1 { broker: broker.0, epoch: epoch.0, change: (*change).into() })
        }
        Record::BrokerUnregistered { broker, epoch } => {
            written(&BrokerUnregisteredV1 { broker: broker.0, epoch: epoch.0 })
        }
        Record::FeatureChanged { name, level } => {
            written(&FeatureChangedV1 { name: name.clone(), level: *level })
        }
        Record::TopicCreated(topic) => written(&TopicCreatedV2 { topic: TopicV2::from(&**topic) }),
        Record::PartitionsAdded { topic, first, partitions } => written(&PartitionsAddedV2 {
            topic: *topic.bytes(),
            first: first.0,
            partitions: partitions.iter().map(PartitionV2::from).collect(),
        }),
        Record::PartitionsChanged { topic, partitions } => written(&PartitionsChangedV1 {
            topic: *topic.bytes(),
            partitions: partitions.iter().map(|(index, one)| (index.0, one.into())).collect(),
        }),
        Record::TopicOverridesChanged { topic, changes } => {
            written(&TopicOverridesChangedV1 { topic: *topic.bytes(), changes: changes.clone() })
        }
        Record::GroupOverridesChanged { group, changes } => {
            written(&GroupOverridesChangedV1 { group: group.clone(), changes: changes.clone() })
        }
        Record::TopicDeleted { topic } => written(&TopicDeletedV1 { topic: *topic.bytes() }),
        Record::TopicPurged { topic, broker } => {
            written(&TopicPurgedV1 { topic: *topic.bytes(), broker: broker.0 })
        }
        Record::ProducerIdsAllocated { broker, epoch, next } => {
            written(&ProducerIdsAllocatedV1 { broker: broker.0, epoch: epoch.0, next: next.0 })
        }
    }
}

/// How rkyv writes these structs: into memory, with an arena for what it must remember.
pub(super) type Writer<'a> =
    HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Error>;

fn written<L>(layout: &L) -> (u8, u16, AlignedVec)
where
    L: Layout + for<'a> Serialize<Writer<'a>>,
{
    (L::KIND, L::VERSION, write(layout))
}

/// The archive of a layout.
pub(super) fn write<L: for<'a> Serialize<Writer<'a>>>(layout: &L) -> AlignedVec {
    rkyv::to_bytes::<rancor::Error>(layout).expect("an archive in memory fits 2 GiB")
}

/// Checks an archive and reads the layout out of it. It is copied first, because rkyv wants it
/// aligned and a record's value lies where it lies.
pub(super) fn read<L>(archive: &[u8]) -> Result<L, String>
where
    L: Archive,
    L::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
        + Deserialize<L, HighDeserializer<rancor::Error>>,
{
    let mut aligned: AlignedVec = AlignedVec::with_capacity(archive.len());
    aligned.extend_from_slice(archive);
    rkyv::from_bytes::<L, rancor::Error>(&aligned).map_err(|error| error.to_string())
}

pub(super) fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

pub(super) fn replicas(numbers: &[i32]) -> Replicas {
    numbers.iter().copied().map(BrokerId).collect()
}

impl From<&Broker> for BrokerV1 {
    fn from(broker: &Broker) -> BrokerV1 {
        let endpoint = |e: &Endpoint| (e.listener.clone(), e.host.clone(), e.port);
        BrokerV1 {
            id: broker.id.0,
            epoch: broker.epoch.0,
            endpoints: broker.endpoints.iter().map(endpoint).collect(),
            rack: broker.rack.clone(),
        }
    }
}

impl From<BrokerV1> for Broker {
    fn from(broker: BrokerV1) -> Broker {
        let endpoint = |(listener, host, port)| Endpoint { listener, host, port };
        Broker {
            id: BrokerId(broker.id),
            epoch: BrokerEpoch(broker.epoch),
            endpoints: broker.endpoints.into_iter().map(endpoint).collect(),
            rack: broker.rack,
            incarnation: Incarnation::UNKNOWN,
            directory: DirectoryId::UNKNOWN,
            features: BTreeMap::new(),
            fenced: false,
            registered: Offset::ZERO,
            stopping: None,
        }
    }
}

/// Partitions as they were written. Equal neighbours share one list of replicas.
fn partitions(written: Vec<PartitionV1>) -> Vec<Partition> {
    let mut last: Replicas = Replicas::from([]);
    written
        .into_iter()
        .map(|partition| {
            let kept = replicas(&partition.replicas);
            if kept != last {
                last = kept;
            }
            let isr = partition.isr.map_or_else(|| last.clone(), |isr| replicas(&isr));
            Partition {
                leader: partition.leader.map(BrokerId),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
                epoch: PartitionEpoch(partition.epoch),
                ..Partition::with_isr(last.clone(), isr)
            }
        })
        .collect()
}

impl From<TopicV1> for Topic {
    fn from(topic: TopicV1) -> Topic {
        Topic {
            id: TopicId::from_bytes(topic.id),
            name: topic.name.into(),
            partitions: partitions(topic.partitions),
            overrides: BTreeMap::from_iter(topic.overrides),
        }
    }
}

impl From<ClusterFormedV1> for Record {
    fn from(layout: ClusterFormedV1) -> Record {
        Record::ClusterFormed { id: ClusterId::new(&layout.id) }
    }
}

impl From<BrokerRegisteredV1> for Record {
    fn from(layout: BrokerRegisteredV1) -> Record {
        Record::BrokerReturned(Arc::new(layout.broker.into()))
    }
}

impl From<TopicCreatedV1> for Record {
    fn from(layout: TopicCreatedV1) -> Record {
        Record::TopicCreated(Arc::new(layout.topic.into()))
    }
}

impl From<PartitionsAddedV1> for Record {
    fn from(layout: PartitionsAddedV1) -> Record {
        Record::PartitionsAdded {
            topic: TopicId::from_bytes(layout.topic),
            first: PartitionIndex(layout.first),
            partitions: partitions(layout.partitions),
        }
    }
}

impl From<TopicOverridesChangedV1> for Record {
    fn from(layout: TopicOverridesChangedV1) -> Record {
        Record::TopicOverridesChanged {
            topic: TopicId::from_bytes(layout.topic),
            changes: layout.changes,
        }
    }
}

impl From<GroupOverridesChangedV1> for Record {
    fn from(layout: GroupOverridesChangedV1) -> Record {
        Record::GroupOverridesChanged { group: layout.group, changes: layout.changes }
    }
}

impl From<TopicDeletedV1> for Record {
    fn from(layout: TopicDeletedV1) -> Record {
        Record::TopicDeleted { topic: TopicId::from_bytes(layout.topic) }
    }
}

impl From<TopicPurgedV1> for Record {
    fn from(layout: TopicPurgedV1) -> Record {
        Record::TopicPurged {
            topic: TopicId::from_bytes(layout.topic),
            broker: BrokerId(layout.broker),
        }
    }
}

impl From<ProducerIdsAllocatedV1> for Record {
    fn from(layout: ProducerIdsAllocatedV1) -> Record {
        Record::ProducerIdsAllocated {
            broker: BrokerId(layout.broker),
            epoch: BrokerEpoch(layout.epoch),
            next: ProducerId(layout.next),
        }
    }
}
