//! Elections on demand. Kafka's `ReplicationControlManager.electLeaders`.

use engine::ids::{PartitionIndex, TopicPartition};

use super::change::{Candidates, Election, Target};
use super::changes::Changes;
use super::{Controller, ElectionKind, Refusal, Rules, Why};
use crate::cluster::Partition;
use crate::machine::Seen;
use crate::records::Record;

/// What became of each partition.
type Elected = Vec<(String, PartitionIndex, Result<(), Refusal>)>;

pub(super) fn elect(
    seen: Seen<'_, Controller>,
    kind: ElectionKind,
    partitions: Option<Vec<(String, PartitionIndex)>>,
    records: &mut Vec<Record>,
) -> Elected {
    let mut changes = Changes::new(seen);
    let elected = match partitions {
        Some(named) => named
            .into_iter()
            .map(|(topic, index)| {
                let elected = elect_one(&mut changes, seen, kind, &topic, index);
                (topic, index, elected)
            })
            .collect(),
        None => elect_all(&mut changes, seen, kind),
    };
    changes.record(records);
    elected
}

fn elect_all(changes: &mut Changes<'_>, seen: Seen<'_, Controller>, kind: ElectionKind) -> Elected {
    let mut elected = Elected::new();
    for topic in seen.hard.topics() {
        for (index, partition) in topic.partitions() {
            if is_needed(kind, partition) {
                let one = elect_one(changes, seen, kind, &topic.name, index);
                elected.push((topic.name.to_string(), index, one));
            }
        }
    }
    elected
}

fn is_needed(kind: ElectionKind, partition: &Partition) -> bool {
    match kind {
        ElectionKind::Preferred => !partition.has_preferred_leader(),
        ElectionKind::Unclean => partition.leader.is_none(),
    }
}

fn elect_one(
    changes: &mut Changes<'_>,
    seen: Seen<'_, Controller>,
    kind: ElectionKind,
    name: &str,
    partition: PartitionIndex,
) -> Result<(), Refusal> {
    let Some(topic) = seen.hard.topic(name) else {
        return Err(Refusal::new(Why::UnknownTopic, format!("No such topic as {name}")));
    };
    let id = TopicPartition { topic: topic.id, partition };
    let Some(before) = changes.partition(id) else {
        let message = format!("No such partition as {name}-{partition}");
        return Err(Refusal::new(Why::UnknownTopic, message));
    };
    if !is_needed(kind, before) {
        let message = "Leader election not needed for topic partition.";
        return Err(Refusal::new(Why::ElectionNotNeeded, message));
    }
    let election = match kind {
        ElectionKind::Preferred => Election::Preferred,
        ElectionKind::Unclean => Election::Unclean,
    };
    let target = Target::of(before, election, seen.config.mutant);
    let rules = Rules::of(topic, seen.config);
    match target.settle(before, &rules, &Candidates::of(seen.hard)) {
        Some(after) if after.leader != before.leader => {
            changes.put(id, after);
            Ok(())
        }
        _ => Err(match kind {
            ElectionKind::Preferred => Refusal::new(
                Why::PreferredLeaderNotAvailable,
                "The preferred leader was not available.",
            ),
            ElectionKind::Unclean => Refusal::new(
                Why::EligibleLeadersNotAvailable,
                "Eligible topic partition leaders are not available.",
            ),
        }),
    }
}
