//! Layouts of the second version: brokers with sessions and fencing, partitions with everything
//! that a reassignment and an election need. See [`super::layout`] for the rules.

use std::sync::Arc;

use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use rkyv::{Archive, Deserialize, Serialize};

use super::Record;
use super::layout::{numbers, replicas};
use crate::cluster::features::FeatureRange;
use crate::cluster::{
    Broker, BrokerChange, DirectoryId, Endpoint, Incarnation, Partition, PartitionEpoch, Replicas,
    Topic, nobody,
};

/// A broker, in records and snapshots.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BrokerV2 {
    id: i32,
    epoch: i64,
    incarnation: [u8; 16],
    directory: [u8; 16],
    /// Listener, host, port.
    endpoints: Vec<(String, String, u16)>,
    rack: Option<String>,
    /// Name, lowest level, highest level.
    features: Vec<(String, i16, i16)>,
    fenced: bool,
    registered: u64,
    stopping: Option<u64>,
}

/// A partition, in records and snapshots.
#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct PartitionV2 {
    replicas: Vec<i32>,
    /// `None`: the same as `replicas`.
    isr: Option<Vec<i32>>,
    leader: Option<i32>,
    leader_epoch: i32,
    epoch: i32,
    /// What most partitions have nothing of.
    unsettled: Option<UnsettledV2>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct UnsettledV2 {
    elr: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
    last_leader: Option<i32>,
}

/// A topic, in records and snapshots.
#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct TopicV2 {
    id: [u8; 16],
    name: String,
    partitions: Vec<PartitionV2>,
    overrides: Vec<(String, String)>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BrokerRegisteredV2 {
    pub(super) broker: BrokerV2,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TopicCreatedV2 {
    pub(super) topic: TopicV2,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PartitionsAddedV2 {
    pub(super) topic: [u8; 16],
    pub(super) first: i32,
    pub(super) partitions: Vec<PartitionV2>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BrokerChangedV1 {
    pub(super) broker: i32,
    pub(super) epoch: i64,
    pub(super) change: BrokerChangeV1,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) enum BrokerChangeV1 {
    Fenced,
    Unfenced,
    Stopping,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BrokerUnregisteredV1 {
    pub(super) broker: i32,
    pub(super) epoch: i64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct FeatureChangedV1 {
    pub(super) name: String,
    pub(super) level: i16,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PartitionsChangedV1 {
    pub(super) topic: [u8; 16],
    pub(super) partitions: Vec<(i32, PartitionV2)>,
}

impl From<&Broker> for BrokerV2 {
    fn from(broker: &Broker) -> BrokerV2 {
        let endpoint = |e: &Endpoint| (e.listener.clone(), e.host.clone(), e.port);
        BrokerV2 {
            id: broker.id.0,
            epoch: broker.epoch.0,
            incarnation: broker.incarnation.bytes(),
            directory: broker.directory.bytes(),
            endpoints: broker.endpoints.iter().map(endpoint).collect(),
            rack: broker.rack.clone(),
            features: broker.features.iter().map(|(n, r)| (n.clone(), r.min, r.max)).collect(),
            fenced: broker.fenced,
            registered: broker.registered.value(),
            stopping: broker.stopping.map(Offset::value),
        }
    }
}

/// An offset as it was written; numbers that are none become the last one there could be.
fn offset(value: u64) -> Offset {
    Offset::new(value.min(Offset::MAX.value()))
}

impl From<BrokerV2> for Broker {
    fn from(broker: BrokerV2) -> Broker {
        let endpoint = |(listener, host, port)| Endpoint { listener, host, port };
        let range = |(name, min, max)| (name, FeatureRange { min, max });
        Broker {
            id: BrokerId(broker.id),
            epoch: BrokerEpoch(broker.epoch),
            incarnation: Incarnation(u128::from_be_bytes(broker.incarnation)),
            directory: DirectoryId(u128::from_be_bytes(broker.directory)),
            endpoints: broker.endpoints.into_iter().map(endpoint).collect(),
            rack: broker.rack,
            features: broker.features.into_iter().map(range).collect(),
            fenced: broker.fenced,
            registered: offset(broker.registered),
            stopping: broker.stopping.map(offset),
        }
    }
}

impl From<&Partition> for PartitionV2 {
    fn from(partition: &Partition) -> PartitionV2 {
        let settled = partition.elr.is_empty()
            && !partition.is_reassigning()
            && partition.last_leader.is_none();
        PartitionV2 {
            replicas: numbers(&partition.replicas),
            isr: (partition.isr != partition.replicas).then(|| numbers(&partition.isr)),
            leader: partition.leader.map(|leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            epoch: partition.epoch.0,
            unsettled: (!settled).then(|| UnsettledV2 {
                elr: numbers(&partition.elr),
                adding: numbers(&partition.adding),
                removing: numbers(&partition.removing),
                last_leader: partition.last_leader.map(|leader| leader.0),
            }),
        }
    }
}

/// One partition; shares its list of replicas with the one before it where they are equal.
fn partition(written: PartitionV2, last: &mut Replicas) -> Partition {
    let kept = replicas(&written.replicas);
    if kept != *last {
        *last = kept;
    }
    let (mut elr, mut adding, mut removing, mut last_leader) = (nobody(), nobody(), nobody(), None);
    if let Some(unsettled) = written.unsettled {
        elr = replicas(&unsettled.elr);
        adding = replicas(&unsettled.adding);
        removing = replicas(&unsettled.removing);
        last_leader = unsettled.last_leader.map(BrokerId);
    }
    Partition {
        replicas: last.clone(),
        isr: written.isr.map_or_else(|| last.clone(), |isr| replicas(&isr)),
        elr,
        adding,
        removing,
        leader: written.leader.map(BrokerId),
        last_leader,
        leader_epoch: LeaderEpoch(written.leader_epoch),
        epoch: PartitionEpoch(written.epoch),
    }
}

impl From<PartitionV2> for Partition {
    fn from(written: PartitionV2) -> Partition {
        partition(written, &mut nobody())
    }
}

fn partitions(written: Vec<PartitionV2>) -> Vec<Partition> {
    let mut last = nobody();
    written.into_iter().map(|one| partition(one, &mut last)).collect()
}

impl From<&Topic> for TopicV2 {
    fn from(topic: &Topic) -> TopicV2 {
        TopicV2 {
            id: *topic.id.bytes(),
            name: topic.name.to_string(),
            partitions: topic.partitions.iter().map(PartitionV2::from).collect(),
            overrides: topic.overrides.iter().map(|(n, v)| (n.clone(), v.clone())).collect(),
        }
    }
}

impl From<TopicV2> for Topic {
    fn from(topic: TopicV2) -> Topic {
        Topic {
            id: TopicId::from_bytes(topic.id),
            name: topic.name.into(),
            partitions: partitions(topic.partitions),
            overrides: topic.overrides.into_iter().collect(),
        }
    }
}

impl From<BrokerRegisteredV2> for Record {
    fn from(layout: BrokerRegisteredV2) -> Record {
        Record::BrokerRegistered(Arc::new(layout.broker.into()))
    }
}

impl From<TopicCreatedV2> for Record {
    fn from(layout: TopicCreatedV2) -> Record {
        Record::TopicCreated(Arc::new(layout.topic.into()))
    }
}

impl From<PartitionsAddedV2> for Record {
    fn from(layout: PartitionsAddedV2) -> Record {
        Record::PartitionsAdded {
            topic: TopicId::from_bytes(layout.topic),
            first: PartitionIndex(layout.first),
            partitions: partitions(layout.partitions),
        }
    }
}

impl From<BrokerChangedV1> for Record {
    fn from(layout: BrokerChangedV1) -> Record {
        Record::BrokerChanged {
            broker: BrokerId(layout.broker),
            epoch: BrokerEpoch(layout.epoch),
            change: match layout.change {
                BrokerChangeV1::Fenced => BrokerChange::Fenced,
                BrokerChangeV1::Unfenced => BrokerChange::Unfenced,
                BrokerChangeV1::Stopping => BrokerChange::Stopping,
            },
        }
    }
}

impl From<BrokerChange> for BrokerChangeV1 {
    fn from(change: BrokerChange) -> BrokerChangeV1 {
        match change {
            BrokerChange::Fenced => BrokerChangeV1::Fenced,
            BrokerChange::Unfenced => BrokerChangeV1::Unfenced,
            BrokerChange::Stopping => BrokerChangeV1::Stopping,
        }
    }
}

impl From<BrokerUnregisteredV1> for Record {
    fn from(layout: BrokerUnregisteredV1) -> Record {
        Record::BrokerUnregistered {
            broker: BrokerId(layout.broker),
            epoch: BrokerEpoch(layout.epoch),
        }
    }
}

impl From<FeatureChangedV1> for Record {
    fn from(layout: FeatureChangedV1) -> Record {
        Record::FeatureChanged { name: layout.name, level: layout.level }
    }
}

impl From<PartitionsChangedV1> for Record {
    fn from(layout: PartitionsChangedV1) -> Record {
        let mut last = nobody();
        let one = |(index, one)| (PartitionIndex(index), partition(one, &mut last));
        Record::PartitionsChanged {
            topic: TopicId::from_bytes(layout.topic),
            partitions: layout.partitions.into_iter().map(one).collect(),
        }
    }
}
