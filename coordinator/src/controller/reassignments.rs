//! Replicas move (KIP-455). Kafka's `ReplicationControlManager.alterPartitionReassignments`.
//!
//! A reassignment first makes the new replicas replicas beside the old ones; when all that shall
//! stay are in sync, [`Target::settle`] takes the others away.

use engine::ids::{BrokerId, PartitionIndex, TopicPartition};

use super::change::{Candidates, Election, Target};
use super::changes::Changes;
use super::topics::check_assignment;
use super::{Controller, Reassignment, Refusal, Rules, Why};
use crate::cluster::Partition;
use crate::machine::Seen;
use crate::records::Record;

pub(super) fn alter(
    seen: Seen<'_, Controller>,
    wanted: Vec<Reassignment>,
    keep_factor: bool,
    records: &mut Vec<Record>,
) -> Vec<(String, PartitionIndex, Result<(), Refusal>)> {
    let mut changes = Changes::new(seen);
    let altered = wanted
        .into_iter()
        .map(|wanted| {
            let altered = alter_one(&mut changes, seen, &wanted, keep_factor);
            (wanted.topic, wanted.partition, altered)
        })
        .collect();
    changes.record(records);
    altered
}

fn alter_one(
    changes: &mut Changes<'_>,
    seen: Seen<'_, Controller>,
    wanted: &Reassignment,
    keep_factor: bool,
) -> Result<(), Refusal> {
    let (name, partition) = (&wanted.topic, wanted.partition);
    let Some(topic) = seen.hard.topic(name) else {
        let message = format!("Unable to find a topic named {name}.");
        return Err(Refusal::new(Why::UnknownTopic, message));
    };
    let id = TopicPartition { topic: topic.id, partition };
    let Some(before) = changes.partition(id) else {
        let message = format!("Unable to find partition {name}:{partition}.");
        return Err(Refusal::new(Why::UnknownTopic, message));
    };
    let rules = Rules::of(topic, seen.config);
    let target = Target::of(before, Election::by(&rules), seen.config.mutant);
    let target = match &wanted.replicas {
        Some(replicas) => {
            check_assignment(seen.hard, replicas, None)?;
            if keep_factor {
                check_factor(before, replicas)?;
            }
            if changes.count() >= seen.config.request_partitions_max {
                let most = seen.config.request_partitions_max;
                let message = format!("One request may reassign at most {most} partitions.");
                return Err(Refusal::new(Why::LimitReached, message));
            }
            towards(target, before, replicas)
        }
        None => back(target, before, &rules, name, partition)?,
    };
    if let Some(after) = target.settle(before, &rules, &Candidates::of(seen.hard)) {
        changes.put(id, after);
    }
    Ok(())
}

/// Refuses another number of replicas than the partition has, or will have when its reassignment
/// is done.
fn check_factor(before: &Partition, replicas: &[BrokerId]) -> Result<(), Refusal> {
    let stay = before.replicas.iter().filter(|one| !before.removing.contains(one)).count();
    if stay == replicas.len() {
        return Ok(());
    }
    let message = format!("The replication factor is changed from {stay} to {}", replicas.len());
    Err(Refusal::new(Why::ReplicationFactorInvalid, message))
}

/// To `replicas`, from what the partition had before any reassignment.
fn towards(target: Target, before: &Partition, replicas: &[BrokerId]) -> Target {
    let original = |one: &BrokerId| before.replicas.contains(one) && !before.adding.contains(one);
    let removing: Vec<BrokerId> =
        before.replicas.iter().copied().filter(|one| !replicas.contains(one)).collect();
    Target {
        adding: replicas.iter().copied().filter(|one| !original(one)).collect(),
        replicas: [replicas, &removing].concat(),
        removing,
        ..target
    }
}

/// To what the partition had before its reassignment began.
fn back(
    target: Target,
    before: &Partition,
    rules: &Rules,
    name: &str,
    partition: PartitionIndex,
) -> Result<Target, Refusal> {
    if !before.is_reassigning() {
        let message = "No partition reassignment is in progress.";
        return Err(Refusal::new(Why::NoReassignmentInProgress, message));
    }
    let stays = |one: &BrokerId| !before.adding.contains(one);
    let replicas: Vec<BrokerId> = before.replicas.iter().copied().filter(stays).collect();
    let holds = before.isr.iter().chain(&*before.elr).any(stays);
    if !holds && (!rules.unclean_election || replicas.is_empty()) {
        let message = format!(
            "Unable to revert partition assignment for {name}:{partition} because it would \
             require an unclean leader election."
        );
        return Err(Refusal::new(Why::AssignmentInvalid, message));
    }
    Ok(Target { replicas, adding: Vec::new(), removing: Vec::new(), ..target })
}
