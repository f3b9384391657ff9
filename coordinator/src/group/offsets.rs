//! Committed offsets: the table, and what is asked about it.
//!
//! The table must hold millions: one ordered map whose keys are three numbers, with the names of
//! groups and topics kept once. An offset costs about 120 bytes with its place in the map; the
//! promise is 300 (`tests/group_memory.rs`).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use engine::ids::LeaderEpoch;
use engine::time::Timestamp;

use super::records::OffsetValue;
use interned::Names;

pub mod commit;
pub mod fetch;
pub mod interned;
pub mod sweep;

/// What a partition's groups have committed.
#[derive(Clone, Default)]
pub struct OffsetTable {
    groups: Names,
    topics: Names,
    committed: BTreeMap<Spot, Committed>,
}

/// Whose offset, by the numbers of names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    group: u32,
    topic: u32,
    partition: i32,
}

/// A committed offset as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to consume.
    pub offset: i64,
    /// When it was committed.
    pub committed: Timestamp,
    /// When it expires by its own word; [`Timestamp::NONE`] if it does not say.
    expires: Timestamp,
    /// What was remembered with it; nothing is allocated for nothing.
    metadata: Option<Box<str>>,
    /// −1: not known.
    epoch: i32,
}

impl Committed {
    fn new(value: &OffsetValue) -> Committed {
        let metadata = (!value.metadata.is_empty()).then(|| value.metadata.as_str().into());
        Committed {
            offset: value.offset,
            committed: value.committed,
            expires: value.expires.unwrap_or(Timestamp::NONE),
            metadata,
            epoch: value.leader_epoch.map_or(-1, |epoch| epoch.0),
        }
    }

    /// The leader epoch of the last record consumed.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        (self.epoch >= 0).then_some(LeaderEpoch(self.epoch))
    }

    /// What was remembered with it.
    pub fn metadata(&self) -> &str {
        self.metadata.as_deref().unwrap_or_default()
    }

    /// When it expires by its own word, if it says so.
    pub fn expires(&self) -> Option<Timestamp> {
        (self.expires != Timestamp::NONE).then_some(self.expires)
    }
}

impl OffsetTable {
    /// Remembers an offset.
    pub(super) fn put(&mut self, group: &Rc<str>, topic: &str, partition: i32, of: &OffsetValue) {
        let group_number = self.groups.number(group);
        let topic_number = self.topics.number(topic);
        let spot = Spot {
            group: group_number.unwrap_or_else(|| self.groups.add(group.clone())),
            topic: topic_number.unwrap_or_else(|| self.topics.add(topic.into())),
            partition,
        };
        if self.committed.insert(spot, Committed::new(of)).is_none() {
            self.groups.hold(spot.group);
            self.topics.hold(spot.topic);
        }
    }

    /// Forgets an offset, if there was one.
    pub(super) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(spot) = self.spot(group, topic, partition) else { return };
        if self.committed.remove(&spot).is_some() {
            self.groups.let_go(spot.group);
            self.topics.let_go(spot.topic);
        }
    }

    fn spot(&self, group: &str, topic: &str, partition: i32) -> Option<Spot> {
        let (group, topic) = (self.groups.number(group)?, self.topics.number(topic)?);
        Some(Spot { group, topic, partition })
    }

    /// What a group committed for a partition.
    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(&self.spot(group, topic, partition)?)
    }

    /// All that a group committed: topic, partition, offset; the partitions of a topic in one run.
    pub fn of_group<'a>(
        &'a self,
        group: &str,
    ) -> impl Iterator<Item = (&'a Rc<str>, i32, &'a Committed)> + use<'a> {
        self.of_group_after(group, None)
    }

    /// What comes behind `after`, a topic and a partition, of [`OffsetTable::of_group`]; all of
    /// it if nobody has committed for that topic any more.
    pub(super) fn of_group_after<'a>(
        &'a self,
        group: &str,
        after: Option<(&str, i32)>,
    ) -> impl Iterator<Item = (&'a Rc<str>, i32, &'a Committed)> + use<'a> {
        let range = self.groups.number(group).map(|group| {
            let after = after.and_then(|(topic, partition)| {
                Some(Spot { group, topic: self.topics.number(topic)?, partition })
            });
            let first = Spot { group, topic: 0, partition: i32::MIN };
            let last = Spot { group, topic: u32::MAX, partition: i32::MAX };
            let from = after.map_or(Bound::Included(first), Bound::Excluded);
            self.committed.range((from, Bound::Included(last)))
        });
        range
            .into_iter()
            .flatten()
            .map(|(spot, committed)| (self.topics.name(spot.topic), spot.partition, committed))
    }

    /// Whether a group has committed anything.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.number(group).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.committed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty()
    }
}
