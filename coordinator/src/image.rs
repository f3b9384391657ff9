//! The picture of the cluster that every broker carries: what is committed, as of one offset.
//!
//! Immutable and `Send + Sync`: shards share one behind an `Arc` and never ask each other who
//! leads what. A newer one is made by applying committed records; [`delta`] says what changed.

use std::sync::Arc;

use engine::ids::{BrokerId, Offset, PartitionIndex, TopicId};

use crate::cluster::{Broker, Cluster, ClusterId, Overrides, Partition, Topic};
use crate::records::Record;

pub mod delta;

/// A cluster as of an offset of the metadata log.
#[derive(Clone, Debug)]
pub struct Image {
    cluster: Cluster,
    offset: Offset,
    controller: Option<BrokerId>,
}

const _: () = {
    const fn crosses_lanes<T: Send + Sync>() {}
    crosses_lanes::<Image>();
};

impl Image {
    /// The picture of `cluster`, which knows every record below `offset`.
    pub fn new(cluster: Cluster, offset: Offset, controller: Option<BrokerId>) -> Image {
        Image { cluster, offset, controller }
    }

    /// The picture before anything was remembered.
    pub fn empty() -> Image {
        Image::new(Cluster::default(), Offset::ZERO, None)
    }

    /// It reflects every metadata record below this offset and none from it on.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The broker whose controller is active, where known.
    pub fn controller(&self) -> Option<BrokerId> {
        self.controller
    }

    /// All of it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The cluster's name; `None` until the first broker has registered.
    pub fn cluster_id(&self) -> Option<&ClusterId> {
        self.cluster.id()
    }

    /// The broker with this id.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.cluster.broker(id)
    }

    /// Its brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.cluster.brokers()
    }

    /// The topic with this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.cluster.topic(name)
    }

    /// The topic with this identity.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.cluster.topic_by_id(id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.cluster.topics()
    }

    /// The settings that a group has of its own, if any.
    pub fn group_overrides(&self, group: &str) -> Option<&Overrides> {
        self.cluster.group_overrides(group)
    }

    /// One partition of a topic by identity.
    pub fn partition(&self, topic: TopicId, partition: PartitionIndex) -> Option<&Partition> {
        self.cluster.topic_by_id(topic)?.partition(partition)
    }

    /// Makes the next record, which stands at offset `at`, part of the picture. Records of one
    /// entry share its offset; offsets between entries may hold no records. The picture may be
    /// shown only between entries.
    pub fn apply(&mut self, at: Offset, record: &Record) {
        assert!(at.plus(1) >= self.offset, "an image is a prefix of the metadata log");
        self.cluster.apply(at, record);
        self.offset = at.plus(1);
    }

    /// Moves to `offset` over offsets that hold no records.
    pub fn skip_to(&mut self, offset: Offset) {
        assert!(offset >= self.offset, "an image does not go back to {offset}");
        self.offset = offset;
    }

    /// Names the broker whose controller is active from now on.
    pub fn set_controller(&mut self, controller: Option<BrokerId>) {
        self.controller = controller;
    }
}
