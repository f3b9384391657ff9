//! OffsetFetch. Kafka: `OffsetMetadataManager.fetchOffsets` and `fetchAllOffsets`.
//!
//! Transactions will make some offsets pending; a fetch that requires stable ones
//! ([`FetchOffsets::require_stable`]) is then answered [`GroupFault::UnstableOffsetCommit`] for
//! those. Without transactions every offset is stable.

use super::Committed;
use crate::group::request::{CommittedOffset, FetchOffsets, Fetched, FetchedOffset, GroupFault};
use crate::group::{Group, Hard};

/// What one group committed. A group that is not there has committed nothing, which is no fault;
/// members of a consumer group must be in the epoch that they believe to be in.
pub(in crate::group) fn fetch(hard: &Hard, request: FetchOffsets) -> Fetched {
    let group = request.group;
    if let Some(Group::Consumer(members)) = hard.groups.get(&group) {
        let (member, epoch) = match &request.member {
            Some((member, epoch)) => (Some(member.as_str()), *epoch),
            None => (None, -1),
        };
        if let Err(fault) = members.check_fetch(member, epoch) {
            return Fetched { group, topics: Err(fault.into()) };
        }
    }
    let topics = match request.topics {
        Some(topics) => topics
            .into_iter()
            .map(|(topic, partitions)| {
                let told = partitions
                    .into_iter()
                    .map(|at| told(at, hard.offsets.get(&group, &topic, at)))
                    .collect();
                (topic, told)
            })
            .collect(),
        None => all(hard, &group),
    };
    Fetched { group, topics: Ok::<_, GroupFault>(topics) }
}

fn all(hard: &Hard, group: &str) -> Vec<(String, Vec<FetchedOffset>)> {
    let mut topics: Vec<(String, Vec<FetchedOffset>)> = Vec::new();
    for (topic, partition, committed) in hard.offsets.of_group(group) {
        let told = told(partition, Some(committed));
        match topics.last_mut() {
            Some((last, partitions)) if **last == **topic => partitions.push(told),
            _ => topics.push((topic.to_string(), vec![told])),
        }
    }
    topics
}

fn told(partition: i32, committed: Option<&Committed>) -> FetchedOffset {
    let committed = committed.map(|committed| CommittedOffset {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch(),
        metadata: committed.metadata().into(),
    });
    FetchedOffset { partition, committed, fault: None }
}
