//! The range assignor.

use std::collections::{BTreeMap, BTreeSet};

use engine::ids::{PartitionIndex, TopicId};

use super::{Consumer, Partitions};

/// Deals each topic in ranges to its subscribers, in one order for all topics: static members by
/// instance id, so that one that comes back has the same ranges, then the others by id.
pub(super) fn assign(
    members: &[Consumer<'_>],
    subscribed: &[BTreeSet<TopicId>],
    topics: &BTreeMap<TopicId, i32>,
) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|at| {
        let member = &members[*at];
        (member.instance.is_none(), member.instance, member.id)
    });
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for at in order {
        for topic in &subscribed[at] {
            subscribers.entry(*topic).or_default().push(at);
        }
    }

    let mut assigned = vec![Partitions::new(); members.len()];
    for (topic, subscribers) in subscribers {
        let len = i32::try_from(subscribers.len()).expect("a group is smaller");
        let (least, odd) = (topics[&topic] / len, topics[&topic] % len);
        let mut next = 0;
        for (rank, at) in (0..).zip(subscribers) {
            let end = next + least + i32::from(rank < odd);
            if next < end {
                assigned[at].insert(topic, (next..end).map(PartitionIndex).collect());
            }
            next = end;
        }
    }
    assigned
}
