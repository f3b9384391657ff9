//! The uniform assignor where everybody is subscribed to the same.

use std::collections::{BTreeMap, BTreeSet};

use engine::ids::TopicId;

use super::{Consumer, Partitions, by_id, count, give, take, unassigned};

/// Makes `owned`, what members keep, whole and even. Kafka hands the odd partitions to whichever
/// members come first; here to those that have one too many already, so that nothing moves only to
/// make room for the order.
pub(super) fn assign(
    members: &[Consumer<'_>],
    subscribed: &[BTreeSet<TopicId>],
    topics: &BTreeMap<TopicId, i32>,
    owned: &mut [Partitions],
) {
    let Some(wanted) = subscribed.first() else { return };
    let total =
        wanted.iter().map(|topic| usize::try_from(topics[topic]).unwrap_or(0)).sum::<usize>();
    let (least, mut odd) = (total / members.len(), total % members.len());

    let order = by_id(members);
    let mut quota = vec![least; members.len()];
    for at in &order {
        if odd > 0 && count(&owned[*at]) > least {
            quota[*at] += 1;
            odd -= 1;
        }
    }
    for at in &order {
        if odd > 0 && quota[*at] == least {
            quota[*at] += 1;
            odd -= 1;
        }
    }

    for at in &order {
        let surplus = count(&owned[*at]).saturating_sub(quota[*at]);
        let all = owned[*at].iter().flat_map(|(topic, p)| p.iter().map(|p| (*topic, *p)));
        let last: Vec<_> = all.rev().take(surplus).collect();
        for (topic, partition) in last {
            take(&mut owned[*at], topic, partition);
        }
    }

    let free = unassigned(wanted.iter().copied(), topics, owned);
    let mut free = free.into_iter().flat_map(|(t, all)| all.into_iter().map(move |p| (t, p)));
    for at in &order {
        let missing = quota[*at].saturating_sub(count(&owned[*at]));
        for (topic, partition) in free.by_ref().take(missing) {
            give(&mut owned[*at], topic, partition);
        }
    }
    assert!(free.next().is_none(), "quotas add up to all partitions");
}
