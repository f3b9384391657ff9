//! What one decision does to partitions: gathered, so that a later step of the same decision sees
//! an earlier one, and remembered as one record per topic.

use std::collections::BTreeMap;

use engine::ids::{BrokerId, PartitionIndex, TopicId, TopicPartition};

use super::change::{Candidates, Election, Target};
use super::{Controller, Loss, Rules};
use crate::cluster::{Partition, Topic};
use crate::machine::Seen;
use crate::records::Record;

/// Partitions as they will be.
pub(super) struct Changes<'a> {
    seen: Seen<'a, Controller>,
    changed: BTreeMap<TopicId, BTreeMap<PartitionIndex, Partition>>,
    count: usize,
}

impl<'a> Changes<'a> {
    pub fn new(seen: Seen<'a, Controller>) -> Changes<'a> {
        Changes { seen, changed: BTreeMap::new(), count: 0 }
    }

    /// A partition as it will be.
    pub fn partition(&self, id: TopicPartition) -> Option<&Partition> {
        let changed = self.changed.get(&id.topic).and_then(|topic| topic.get(&id.partition));
        changed.or_else(|| self.seen.hard.topic_by_id(id.topic)?.partition(id.partition))
    }

    /// A partition becomes this.
    pub fn put(&mut self, id: TopicPartition, after: Partition) {
        let topic = self.changed.entry(id.topic).or_default();
        self.count += usize::from(topic.insert(id.partition, after).is_none());
    }

    /// How many partitions change.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All that change, as they will be.
    pub fn iter(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.changed.iter().flat_map(|(topic, partitions)| {
            let id = |index: &PartitionIndex| TopicPartition { topic: *topic, partition: *index };
            partitions.iter().map(move |(index, partition)| (id(index), partition))
        })
    }

    /// Remembers them.
    pub fn record(self, records: &mut Vec<Record>) {
        for (topic, partitions) in self.changed {
            let partitions = partitions.into_iter().collect();
            records.push(Record::PartitionsChanged { topic, partitions });
        }
    }

    /// Every partition for which `target` has a target is settled, until `most` have changed.
    pub fn sweep(
        &mut self,
        candidates: &Candidates<'_>,
        most: usize,
        target: impl Fn(&Partition, &Rules) -> Option<Target>,
    ) {
        let Seen { hard, config, .. } = self.seen;
        for topic in hard.topics() {
            let mut rules = None;
            for (partition, before) in topic.partitions() {
                if self.count >= most {
                    return;
                }
                let rules = rules.get_or_insert_with(|| Rules::of(topic, config));
                let settled = target(before, rules)
                    .and_then(|target| target.settle(before, rules, candidates));
                if let Some(after) = settled {
                    self.put(TopicPartition { topic: topic.id, partition }, after);
                }
            }
        }
    }

    /// A broker leaves every ISR that has others in it, and leads nothing any more; or, if it
    /// only wants to stop, nothing that another could lead.
    pub fn leave(&mut self, broker: BrokerId, stops: bool) {
        let mutant = self.seen.config.mutant;
        let except = Some(broker);
        let candidates =
            Candidates { except, except_keeps: stops, ..Candidates::of(self.seen.hard) };
        self.sweep(&candidates, usize::MAX, |before, rules| {
            let concerned = before.isr.contains(&broker) || before.leader == except;
            concerned.then(|| Target {
                leaves: except,
                ..Target::of(before, Election::by(rules), mutant)
            })
        });
    }

    /// A broker begins another session; its last one ended with a loss.
    pub fn return_with(&mut self, broker: BrokerId, lost: Loss) {
        let mutant = self.seen.config.mutant;
        let leaves = Some(broker);
        let candidates = Candidates { except: leaves, ..Candidates::of(self.seen.hard) };
        self.sweep(&candidates, usize::MAX, |before, rules| {
            before.replicas.contains(&broker).then(|| Target {
                leaves,
                lost: match lost {
                    Loss::Unsynced if rules.synced => Loss::Nothing,
                    lost => lost,
                },
                ..Target::of(before, Election::by(rules), mutant)
            })
        });
    }

    /// A broker is about to be unfenced: what waits for a leader may have one now.
    pub fn welcome(&mut self, broker: BrokerId) {
        let mutant = self.seen.config.mutant;
        let hard = self.seen.hard;
        let candidates = Candidates { also: Some(broker), ..Candidates::of(hard) };
        let stops = |leader| hard.broker(leader).is_none_or(|leader| !leader.is_active());
        self.sweep(&candidates, usize::MAX, |before, rules| {
            let waits = before.leader.is_none_or(stops) && before.replicas.contains(&broker);
            waits.then(|| Target::of(before, Election::by(rules), mutant))
        });
    }

    /// A broker is no member any more. It stays where nobody else has what was committed.
    pub fn forget(&mut self, broker: BrokerId) {
        let mutant = self.seen.config.mutant;
        let leaves = Some(broker);
        let candidates = Candidates { except: leaves, ..Candidates::of(self.seen.hard) };
        self.sweep(&candidates, usize::MAX, |before, rules| {
            let concerned = before.isr.contains(&broker)
                || before.elr.contains(&broker)
                || before.leader == leaves;
            concerned.then(|| Target {
                leaves,
                forgotten: true,
                ..Target::of(before, Election::by(rules), mutant)
            })
        });
    }

    /// The settings of a topic have become `rules`.
    pub fn rule(&mut self, topic: &Topic, rules: &Rules) {
        let candidates = Candidates::of(self.seen.hard);
        for (partition, before) in topic.partitions() {
            let target = Target::of(before, Election::by(rules), self.seen.config.mutant);
            if let Some(after) = target.settle(before, rules, &candidates) {
                self.put(TopicPartition { topic: topic.id, partition }, after);
            }
        }
    }
}
