//! The uniform assignor where members are subscribed to different topics.

use std::collections::{BTreeMap, BTreeSet};

use engine::ids::{PartitionIndex, TopicId};

use super::{Consumer, Partitions, by_id, count, give, take, unassigned};

/// Rounds of levelling over all topics. Where subscriptions overlap without being equal, levelling
/// one topic may unbalance another; each round about halves what is uneven (as in Kafka's
/// `UniformHeterogeneousAssignmentBuilder`).
const ROUNDS_MAX: usize = 16;

/// Makes `owned`, what members keep, whole and as even as subscriptions allow.
pub(super) fn assign(
    members: &[Consumer<'_>],
    subscribed: &[BTreeSet<TopicId>],
    topics: &BTreeMap<TopicId, i32>,
    owned: &mut [Partitions],
) {
    // Subscribers of each topic, in the order of ids.
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for at in by_id(members) {
        for topic in &subscribed[at] {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    let mut load: Vec<usize> = owned.iter().map(count).collect();

    let order = hardest_first(&subscribers, topics);
    for (topic, free) in unassigned(order.iter().copied(), topics, owned) {
        // By load, then by rank: whoever has least gets the next one.
        let all = subscribers[&topic].iter().enumerate();
        let mut queue: BTreeSet<_> = all.map(|(rank, at)| (load[*at], rank, *at)).collect();
        for partition in free {
            let (_, rank, at) = queue.pop_first().expect("a topic is here for its subscribers");
            give(&mut owned[at], topic, partition);
            load[at] += 1;
            queue.insert((load[at], rank, at));
        }
    }

    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for topic in &order {
            moved |= level(*topic, &subscribers[topic], owned, &mut load);
        }
        if !moved {
            break;
        }
    }
}

/// Topics with most partitions per subscriber first, because they leave least choice; then those
/// with fewer subscribers.
fn hardest_first(
    subscribers: &BTreeMap<TopicId, Vec<usize>>,
    topics: &BTreeMap<TopicId, i32>,
) -> Vec<TopicId> {
    let mut order: Vec<TopicId> = subscribers.keys().copied().collect();
    order.sort_by(|a, b| {
        let len = |topic: &TopicId| subscribers[topic].len() as u64;
        let partitions = |topic: &TopicId| u64::try_from(topics[topic]).unwrap_or(0);
        // a's partitions per subscriber against b's, without dividing.
        let (left, right) = (partitions(a) * len(b), partitions(b) * len(a));
        right.cmp(&left).then(len(a).cmp(&len(b))).then(a.cmp(b))
    });
    order
}

/// Moves partitions of one topic from whoever has most to whoever has least, until its subscribers
/// that can give any are within one of those that can take. Whether anything moved.
fn level(
    topic: TopicId,
    subscribers: &[usize],
    owned: &mut [Partitions],
    load: &mut [usize],
) -> bool {
    let entry = |(rank, at): (usize, &usize)| (load[*at], rank, *at);
    let mut takers: BTreeSet<_> = subscribers.iter().enumerate().map(entry).collect();
    let mut givers: BTreeSet<_> = takers.clone();
    givers.retain(|(_, _, at)| owned[*at].contains_key(&topic));
    let mut moved = false;
    while let (Some(&most), Some(&least)) = (givers.last(), takers.first()) {
        if most.0 <= least.0 + 1 {
            break;
        }
        let ((_, rank, from), (_, to_rank, to)) = (most, least);
        let partition: PartitionIndex = *owned[from][&topic].last().expect("it has some to give");
        take(&mut owned[from], topic, partition);
        give(&mut owned[to], topic, partition);
        moved = true;
        for (key, change) in [((load[from], rank, from), -1), ((load[to], to_rank, to), 1)] {
            takers.remove(&key);
            givers.remove(&key);
            let (before, rank, at) = key;
            load[at] = before.checked_add_signed(change).expect("whoever gives has some");
            takers.insert((load[at], rank, at));
            if owned[at].contains_key(&topic) {
                givers.insert((load[at], rank, at));
            }
        }
    }
    moved
}
