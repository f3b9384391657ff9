//! Who of a group gets which partitions: server-side assignors of KIP-848, as functions of values.
//!
//! Names and promises are those of Kafka's `UniformAssignor` and `RangeAssignor`. Like Kafka's
//! since 4.0 they do not look at racks: a rack is part of what a topic or member *is*, so that a
//! change of racks begins a new epoch, but no partition is placed by it. Everything is
//! deterministic: the same input gives the same output on every broker.

use std::collections::{BTreeMap, BTreeSet};

use engine::ids::{PartitionIndex, TopicId};

mod heterogeneous;
mod homogeneous;
mod range;

/// Partitions by topic. No topic is without partitions.
pub type Partitions = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// How many partitions there are in all.
pub fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

/// A server-side assignor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Assignor {
    /// Everybody has as many partitions as everybody else, give or take one, and keeps what it
    /// has where that is possible.
    Uniform,
    /// Everybody has a range of each topic, and the same range of topics with as many partitions,
    /// so that topics can be joined. Keeps nothing.
    Range,
}

impl Assignor {
    /// All of them; Kafka's default is the first.
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// What each of `members` is to have, in their order. Every partition of a topic that anybody
    /// is subscribed to goes to exactly one of its subscribers. `topics` says how many partitions
    /// a topic has; topics that are not there are passed over. Member ids must be distinct.
    pub fn assign(
        self,
        members: &[Consumer<'_>],
        topics: &BTreeMap<TopicId, i32>,
    ) -> Vec<Partitions> {
        let subscribed: Vec<BTreeSet<TopicId>> = members
            .iter()
            .map(|m| m.topics.iter().copied().filter(|topic| topics.contains_key(topic)).collect())
            .collect();
        match self {
            Assignor::Range => range::assign(members, &subscribed, topics),
            Assignor::Uniform => {
                let mut before = keep(members, &subscribed, topics);
                if subscribed.windows(2).all(|pair| pair[0] == pair[1]) {
                    homogeneous::assign(members, &subscribed, topics, &mut before);
                } else {
                    heterogeneous::assign(members, &subscribed, topics, &mut before);
                }
                before
            }
        }
    }
}

/// A member as an assignor sees it.
#[derive(Clone, Copy, Debug)]
pub struct Consumer<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<&'a str>,
    /// What it is subscribed to.
    pub topics: &'a BTreeSet<TopicId>,
    /// What it was to have so far.
    pub before: &'a Partitions,
}

/// What members may keep: what they were to have, are still subscribed to, and nobody before them
/// in the order of ids was to have as well.
fn keep(
    members: &[Consumer<'_>],
    subscribed: &[BTreeSet<TopicId>],
    topics: &BTreeMap<TopicId, i32>,
) -> Vec<Partitions> {
    let mut taken: BTreeMap<TopicId, Vec<bool>> = BTreeMap::new();
    let mut kept = vec![Partitions::new(); members.len()];
    for at in by_id(members) {
        for (topic, partitions) in members[at].before {
            if !subscribed[at].contains(topic) {
                continue;
            }
            let len = usize::try_from(topics[topic]).unwrap_or(0);
            let taken = taken.entry(*topic).or_insert_with(|| vec![false; len]);
            let mut free = |partition: &PartitionIndex| {
                let slot = usize::try_from(partition.0).ok().and_then(|i| taken.get_mut(i));
                slot.is_some_and(|slot| !std::mem::replace(slot, true))
            };
            let mine: BTreeSet<_> = partitions.iter().copied().filter(|p| free(p)).collect();
            if !mine.is_empty() {
                kept[at].insert(*topic, mine);
            }
        }
    }
    kept
}

/// Where the members stand, in the order of their ids.
fn by_id(members: &[Consumer<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|at| members[*at].id);
    order
}

/// The partitions of these topics that nobody has, in order.
fn unassigned(
    wanted: impl Iterator<Item = TopicId>,
    topics: &BTreeMap<TopicId, i32>,
    owned: &[Partitions],
) -> Vec<(TopicId, Vec<PartitionIndex>)> {
    let mut taken: BTreeMap<TopicId, BTreeSet<PartitionIndex>> = BTreeMap::new();
    for (topic, partitions) in owned.iter().flatten() {
        taken.entry(*topic).or_default().extend(partitions);
    }
    let free = |topic: TopicId| {
        let taken = taken.get(&topic);
        let all = (0..topics[&topic]).map(PartitionIndex);
        (topic, all.filter(|p| taken.is_none_or(|taken| !taken.contains(p))).collect())
    };
    wanted.map(free).collect()
}

fn give(to: &mut Partitions, topic: TopicId, partition: PartitionIndex) {
    to.entry(topic).or_default().insert(partition);
}

fn take(from: &mut Partitions, topic: TopicId, partition: PartitionIndex) {
    let left = from.get_mut(&topic).expect("it has partitions of this topic");
    assert!(left.remove(&partition), "it has {topic}/{partition}");
    if left.is_empty() {
        from.remove(&topic);
    }
}
