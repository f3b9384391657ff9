//! Consumer groups of KIP-848: members say what they want with each heartbeat, the broker decides
//! who gets what, and members are led from what they have to what they are to have one by one.
//!
//! ```text
//! heartbeat ─► member (what it wants) ─► group epoch ─► target assignment ─► member epoch
//!              record 5                  record 3       records 7, 6         record 8
//! ```
//!
//! Whatever changes what members want, or the topics that they want, begins a new *group epoch*.
//! Each group epoch gets a *target assignment*. A member arrives at the target's epoch when it has
//! given up what it is not to have any more, and is told what it is to have as soon as others have
//! let go of it ([`reconcile`]). A member that comes with an old epoch is fenced.
//!
//! A [`ConsumerGroup`] is hard state: only [`ConsumerGroup::apply`] changes it. Decisions are
//! functions of it ([`heartbeat`], [`classic`] for members of the old protocol, [`expiry`]), which
//! answer and append records; [`soft::Soft`] is what may be forgotten. They look at topics through
//! [`topics::Topics`], and are called by the machine of groups.
//!
//! Invariants, tried by `tests/consumer_groups.rs` on seeds, and by [`mutant`] on the code itself:
//! * **OneOwnerPerPartition**: no partition is in the hands of two members who do what they are
//!   told.
//! * **EpochsNeverRegress**: what a member is told of its epoch only grows while it is a member.
//! * **EveryoneIsServed**: once faults end, everybody has the target assignment, which is whole.

use std::collections::BTreeMap;
use std::rc::Rc;

use engine::ids::{PartitionIndex, TopicId};
use engine::time::Timestamp;

use super::assignor::Partitions;

pub mod bytes;
pub mod classic;
pub mod config;
pub mod convert;
pub mod describe;
mod draft;
pub mod embedded;
pub mod expiry;
mod fault;
pub mod heartbeat;
pub mod mutant;
pub mod offsets;
pub mod patterns;
pub mod reconcile;
pub mod records;
pub mod soft;
mod subscription;
pub mod times;
pub mod topics;

pub use config::ConsumerConfig;
pub use draft::{Effects, Scene};
pub use fault::Fault;
pub use mutant::Mutant;
pub use records::Record;
pub use soft::Soft;
pub use times::Times;

use records::{Assigned, Change, Current, GroupValue, MemberState, MemberValue, PatternValue};

/// Epoch with which a member joins.
pub const JOIN_EPOCH: i32 = 0;
/// Epoch with which a member leaves.
pub const LEAVE_EPOCH: i32 = -1;
/// Epoch with which a static member leaves to come back; and that it has in the meantime.
pub const AWAY_EPOCH: i32 = -2;

/// What the log remembers of one group.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct ConsumerGroup {
    epoch: i32,
    topics_hash: i64,
    created: Option<Timestamp>,
    target_epoch: i32,
    members: BTreeMap<Rc<str>, Rc<MemberValue>>,
    currents: BTreeMap<Rc<str>, Rc<Current>>,
    targets: BTreeMap<Rc<str>, Rc<Partitions>>,
    patterns: BTreeMap<Rc<str>, Rc<PatternValue>>,
    /// By `group.instance.id`, which member it is. Follows from `members`.
    instances: BTreeMap<Rc<str>, Rc<str>>,
    /// How many members have a partition, or are about to give it up. Follows from `currents`. One
    /// at most but while a compacted log is replayed, from which the record that let go of a
    /// partition may be gone (KAFKA-19862).
    owners: BTreeMap<TopicId, Rc<BTreeMap<PartitionIndex, u32>>>,
}

/// What a group is doing (KIP-848).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no members.
    Empty,
    /// Its target assignment is not that of its epoch.
    Assigning,
    /// Some member is not where it is to be.
    Reconciling,
    /// Everybody has what it is to have.
    Stable,
}

impl State {
    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

impl ConsumerGroup {
    /// Makes one record of this group true. A group comes to be with the first record that says
    /// anything, and is gone with the tombstone of [`Change::Group`]. Whatever the order that
    /// compaction leaves behind, the last record of each key decides.
    pub fn apply(slot: &mut Option<ConsumerGroup>, change: &Change) {
        let is_tombstone = match change {
            Change::Group(None) => {
                *slot = None;
                return;
            }
            Change::PartitionMetadata(_) => return,
            Change::Group(Some(_)) => false,
            Change::Member(_, value) => value.is_none(),
            Change::TargetEpoch(value) => value.is_none(),
            Change::Target(_, value) => value.is_none(),
            Change::Current(_, value) => value.is_none(),
            Change::Pattern(_, value) => value.is_none(),
        };
        if slot.is_some() || !is_tombstone {
            slot.get_or_insert_default().change(change);
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Group(value) => {
                let value = value.as_ref().expect("tombstones are handled by the caller");
                self.epoch = value.epoch;
                self.topics_hash = value.topics_hash;
                self.created = value.created;
            }
            Change::PartitionMetadata(_) => {}
            Change::Member(id, value) => self.change_member(id, value.clone()),
            Change::TargetEpoch(epoch) => self.target_epoch = epoch.unwrap_or_default(),
            Change::Target(id, value) => replace(&mut self.targets, id, value.clone()),
            Change::Current(id, value) => self.change_current(id, value.clone()),
            Change::Pattern(text, value) => replace(&mut self.patterns, text, value.clone()),
        }
    }

    fn change_member(&mut self, id: &Rc<str>, value: Option<Rc<MemberValue>>) {
        let before = self.members.get(id).and_then(|member| member.instance.clone());
        if let Some(instance) = before
            && self.instances.get(&instance) == Some(id)
        {
            self.instances.remove(&instance);
        }
        if let Some(instance) = value.as_ref().and_then(|member| member.instance.clone()) {
            self.instances.insert(instance, id.clone());
        }
        replace(&mut self.members, id, value);
    }

    fn change_current(&mut self, id: &Rc<str>, value: Option<Rc<Current>>) {
        if let Some(before) = self.currents.get(id).cloned() {
            self.count_owners(&before, |count| count.saturating_sub(1));
        }
        if let Some(now) = &value {
            self.count_owners(now, |count| count + 1);
        }
        replace(&mut self.currents, id, value);
    }

    fn count_owners(&mut self, current: &Current, change: impl Fn(u32) -> u32) {
        for (topic, partitions) in current.assigned.iter().chain(&current.revoking) {
            let counts = Rc::make_mut(self.owners.entry(*topic).or_default());
            for partition in partitions.keys() {
                match change(counts.get(partition).copied().unwrap_or_default()) {
                    0 => _ = counts.remove(partition),
                    count => _ = counts.insert(*partition, count),
                }
            }
            if counts.is_empty() {
                self.owners.remove(topic);
            }
        }
    }

    /// Its epoch: of what its members and topics are.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The epoch that the target assignment was made for.
    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    /// Its members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&Rc<str>, &Rc<MemberValue>)> {
        self.members.iter()
    }

    /// What a member is and wants.
    pub fn member(&self, id: &str) -> Option<&Rc<MemberValue>> {
        self.members.get(id)
    }

    /// The member that has this `group.instance.id`.
    pub fn static_member(&self, instance: &str) -> Option<&Rc<str>> {
        self.instances.get(instance)
    }

    /// What a member has; of one that has just come, nothing in epoch 0.
    pub fn current(&self, id: &str) -> Rc<Current> {
        self.currents.get(id).cloned().unwrap_or_else(|| Rc::new(Current::new(JOIN_EPOCH)))
    }

    /// What a member is to have in the end.
    pub fn target(&self, id: &str) -> Rc<Partitions> {
        self.targets.get(id).cloned().unwrap_or_default()
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        let is_there = |id: &Rc<str>| {
            let current = self.current(id);
            current.state == MemberState::Stable && current.epoch == self.target_epoch
        };
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.target_epoch {
            State::Assigning
        } else if self.members.keys().all(is_there) {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    /// Whether any member is subscribed to the topic of this name.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            let resolved = member.pattern.as_ref().and_then(|text| self.patterns.get(text));
            member.topics.contains(topic) || resolved.is_some_and(|p| p.topics.contains(topic))
        })
    }

    /// All that has to be written so that the group is gone, what hangs on it first.
    pub fn tombstones(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.currents.keys().map(|id| Change::Current(id.clone(), None)));
        changes.extend(self.targets.keys().map(|id| Change::Target(id.clone(), None)));
        changes.push(Change::TargetEpoch(None));
        changes.extend(self.members.keys().map(|id| Change::Member(id.clone(), None)));
        changes.extend(self.patterns.keys().map(|text| Change::Pattern(text.clone(), None)));
        changes.push(Change::Group(None));
        changes
    }

    /// Whether nobody but perhaps `member` has the partition or is about to give it up.
    fn is_free_for(&self, member: &Current, topic: TopicId, partition: PartitionIndex) -> bool {
        let holds = |of: &Assigned| of.get(&topic).is_some_and(|all| all.contains_key(&partition));
        let mine = u32::from(holds(&member.assigned)) + u32::from(holds(&member.revoking));
        let all = self.owners.get(&topic).and_then(|counts| counts.get(&partition));
        all.is_none_or(|count| *count <= mine)
    }
}

impl Current {
    /// Nothing, in this epoch.
    pub fn new(epoch: i32) -> Current {
        Current {
            epoch,
            previous_epoch: epoch,
            state: MemberState::Stable,
            assigned: Assigned::new(),
            revoking: Assigned::new(),
        }
    }

    /// What the member may use, without epochs.
    pub fn partitions(&self) -> Partitions {
        without_epochs(&self.assigned)
    }
}

fn without_epochs(assigned: &Assigned) -> Partitions {
    let plain = |(topic, all): (&TopicId, &BTreeMap<PartitionIndex, i32>)| {
        (*topic, all.keys().copied().collect())
    };
    assigned.iter().map(plain).collect()
}

fn replace<T>(map: &mut BTreeMap<Rc<str>, T>, key: &Rc<str>, value: Option<T>) {
    match value {
        Some(value) => _ = map.insert(key.clone(), value),
        None => _ = map.remove(key),
    }
}

impl GroupValue {
    /// What the log remembers of `group` itself, in its next epoch.
    fn next(group: &ConsumerGroup, topics_hash: i64, now: Timestamp) -> GroupValue {
        let epoch = group.epoch.checked_add(1).expect("an epoch a second lasts 68 years");
        GroupValue { epoch, topics_hash, created: group.created.or(Some(now)) }
    }
}
