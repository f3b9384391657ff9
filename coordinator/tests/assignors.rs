//! Properties of the assignors, on seeds; and how long they take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use coordinator::group::assignor::{Assignor, Consumer, Partitions, count};
use engine::ids::{PartitionIndex, TopicId};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn topic(number: usize) -> TopicId {
    TopicId::from_bytes((number as u128 + 1).to_be_bytes())
}

#[derive(Clone, Debug)]
struct Member {
    id: String,
    instance: Option<String>,
    topics: BTreeSet<TopicId>,
    before: Partitions,
}

fn assign(
    assignor: Assignor,
    members: &[Member],
    topics: &BTreeMap<TopicId, i32>,
) -> Vec<Partitions> {
    let consumers: Vec<Consumer<'_>> = members
        .iter()
        .map(|m| Consumer {
            id: &m.id,
            instance: m.instance.as_deref(),
            topics: &m.topics,
            before: &m.before,
        })
        .collect();
    assignor.assign(&consumers, topics)
}

/// One owner for every partition of every topic with a subscriber, who is a subscriber.
fn check_owners(members: &[Member], topics: &BTreeMap<TopicId, i32>, assigned: &[Partitions]) {
    assert_eq!(members.len(), assigned.len());
    let mut owners: BTreeMap<(TopicId, PartitionIndex), usize> = BTreeMap::new();
    for (member, partitions) in members.iter().zip(assigned) {
        for (topic, partitions) in partitions {
            assert!(!partitions.is_empty());
            assert!(member.topics.contains(topic), "{} is not subscribed to {topic}", member.id);
            for partition in partitions {
                *owners.entry((*topic, *partition)).or_default() += 1;
            }
        }
    }
    let mut all = 0;
    for (topic, partitions) in topics {
        if members.iter().any(|m| m.topics.contains(topic)) {
            for partition in (0..*partitions).map(PartitionIndex) {
                assert_eq!(owners.get(&(*topic, partition)), Some(&1), "{topic}/{partition}");
                all += 1;
            }
        }
    }
    assert_eq!(owners.len(), all, "nothing that does not exist");
}

fn loads(assigned: &[Partitions]) -> (usize, usize) {
    let counts = || assigned.iter().map(count);
    (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
}

/// How many partitions have another owner than before, of those whose owner is still there.
fn moved(before: &[Member], members: &[Member], assigned: &[Partitions]) -> usize {
    let mut moved = 0;
    for old in before {
        let Some(at) = members.iter().position(|m| m.id == old.id) else { continue };
        for (topic, partitions) in &old.before {
            let now = assigned[at].get(topic);
            moved += partitions.iter().filter(|p| now.is_none_or(|now| !now.contains(p))).count();
        }
    }
    moved
}

fn group(random: &mut Random, same: bool) -> (Vec<Member>, BTreeMap<TopicId, i32>) {
    let topics: BTreeMap<TopicId, i32> =
        (0..1 + random.below(6)).map(|i| (topic(i), 1 + random.below(20) as i32)).collect();
    let all: Vec<TopicId> = topics.keys().copied().collect();
    let choose = |random: &mut Random| -> BTreeSet<TopicId> {
        all.iter().copied().filter(|_| random.below(3) > 0).collect()
    };
    let shared = choose(random);
    let members = (0..1 + random.below(12))
        .map(|i| {
            let mut topics = if same { shared.clone() } else { choose(random) };
            if random.below(10) == 0 {
                // One that does not exist is no reason to stop.
                topics.extend(same.then(|| topic(99)));
            }
            Member {
                id: format!("m{:03}", (i * 37) % 101),
                instance: (random.below(4) == 0)
                    .then(|| format!("i{}", random.below(1_000) + i * 1_000)),
                topics,
                before: Partitions::new(),
            }
        })
        .collect();
    (members, topics)
}

fn settle(members: &mut [Member], assigned: Vec<Partitions>) {
    for (member, partitions) in members.iter_mut().zip(assigned) {
        member.before = partitions;
    }
}

#[test]
fn everything_has_one_owner_and_homogeneous_groups_are_even() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let same = random.below(2) == 0;
        let (mut members, topics) = group(&mut random, same);
        for _ in 0..4 {
            for assignor in Assignor::ALL {
                let assigned = assign(assignor, &members, &topics);
                check_owners(&members, &topics, &assigned);
                assert_eq!(assigned, assign(assignor, &members, &topics), "deterministic");
            }
            let assigned = assign(Assignor::Uniform, &members, &topics);
            if same {
                let (least, most) = loads(&assigned);
                assert!(most - least <= 1, "seed {seed}: {least}..{most}");
            }
            settle(&mut members, assigned);
            // Somebody changes its mind, or what it has is damaged.
            let at = random.below(members.len());
            if !same {
                members[at].topics.remove(&topic(random.below(6)));
            }
            let stolen = members[random.below(members.len())].before.clone();
            members[at].before = stolen;
        }
    }
}

#[test]
fn heterogeneous_groups_are_as_even_as_they_can_be_by_single_moves() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let (members, topics) = group(&mut random, false);
        let assigned = assign(Assignor::Uniform, &members, &topics);
        for (member, has) in members.iter().zip(&assigned) {
            for (other, theirs) in members.iter().zip(&assigned) {
                let could_give = has.keys().any(|topic| other.topics.contains(topic));
                let better = could_give && count(has) > count(theirs) + 1;
                assert!(!better, "seed {seed}: {} could give to {}", member.id, other.id);
            }
        }
    }
}

#[test]
fn nothing_moves_without_need() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let (mut members, topics) = group(&mut random, true);
        // Real topics only, so that what is needed can be worked out.
        members.iter_mut().for_each(|m| _ = m.topics.remove(&topic(99)));
        let assigned = assign(Assignor::Uniform, &members, &topics);
        settle(&mut members, assigned);
        let again = assign(Assignor::Uniform, &members, &topics);
        assert_eq!(moved(&members, &members, &again), 0, "seed {seed}: nothing changed");

        let total: usize = members.iter().map(|m| count(&m.before)).sum();
        let mut more = members.clone();
        let topics_of = members[0].topics.clone();
        more.push(Member {
            id: format!("n{}", random.below(100)),
            instance: None,
            topics: topics_of,
            before: Partitions::new(),
        });
        let assigned = assign(Assignor::Uniform, &more, &topics);
        check_owners(&more, &topics, &assigned);
        let share = count(assigned.last().expect("there is one"));
        assert!(share == total / more.len() || share == total.div_ceil(more.len()));
        assert_eq!(moved(&members, &more, &assigned), share, "seed {seed}: only to the new one");

        let mut less = members.clone();
        less.remove(random.below(members.len()));
        let assigned = assign(Assignor::Uniform, &less, &topics);
        if !less.is_empty() {
            assert_eq!(moved(&members, &less, &assigned), 0, "seed {seed}: only from who left");
        }
    }
}

#[test]
fn ranges_are_co_partitioned_and_static_members_keep_theirs() {
    let topics = BTreeMap::from([(topic(0), 7), (topic(1), 7)]);
    let member = |id: &str, instance: Option<&str>| Member {
        id: id.into(),
        instance: instance.map(Into::into),
        topics: topics.keys().copied().collect(),
        before: Partitions::new(),
    };
    let members =
        [member("z", Some("a")), member("b", None), member("a", None), member("y", Some("b"))];
    let assigned = assign(Assignor::Range, &members, &topics);
    let ranges: Vec<Vec<i32>> =
        assigned.iter().map(|all| all[&topic(0)].iter().map(|p| p.0).collect()).collect();
    assert_eq!(ranges, [vec![0, 1], vec![6], vec![4, 5], vec![2, 3]]);
    for all in &assigned {
        assert_eq!(all[&topic(0)], all[&topic(1)], "the same ranges of both");
    }
    // A static member comes back under another id: nothing changes.
    let back =
        [member("aa", Some("a")), member("b", None), member("a", None), member("y", Some("b"))];
    assert_eq!(assign(Assignor::Range, &back, &topics), assigned);
    // More members than partitions: the last ones have none.
    let many: Vec<Member> = (0..9).map(|i| member(&format!("m{i}"), None)).collect();
    let assigned = assign(Assignor::Range, &many, &topics);
    assert_eq!(assigned.iter().filter(|all| all.is_empty()).count(), 2);
}

/// `cargo test --release -p coordinator --test assignors -- --nocapture` prints how long it takes.
#[test]
fn a_large_group_is_assigned_at_once() {
    let topics: BTreeMap<TopicId, i32> = (0..10).map(|i| (topic(i), 100)).collect();
    for same in [true, false] {
        let mut members: Vec<Member> = (0..100)
            .map(|i| Member {
                id: format!("member-{i:03}"),
                instance: None,
                topics: topics
                    .keys()
                    .copied()
                    .enumerate()
                    .filter(|(t, _)| same || t % 7 != i % 7)
                    .map(|(_, topic)| topic)
                    .collect(),
                before: Partitions::new(),
            })
            .collect();
        for assignor in Assignor::ALL {
            let start = Instant::now();
            let assigned = assign(assignor, &members, &topics);
            let fresh = start.elapsed();
            check_owners(&members, &topics, &assigned);
            settle(&mut members, assigned);
            members.pop();
            let start = Instant::now();
            let assigned = assign(assignor, &members, &topics);
            println!(
                "{:<8} same {same:<5} 100 members × 1,000 partitions: fresh {fresh:?}, one leaves {:?}",
                assignor.name(),
                start.elapsed()
            );
            check_owners(&members, &topics, &assigned);
        }
    }
}
