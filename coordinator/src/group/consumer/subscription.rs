//! What the members of a group want, together: the topics, a hash of them, and a new target.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::ids::TopicId;

use super::records::{Change, MemberValue};
use super::topics::Topics;
use super::{ConsumerConfig, ConsumerGroup, Mutant};
use crate::group::assignor::{Assignor, Consumer, Partitions};

impl ConsumerGroup {
    /// Whether this member wants the topic with this identity, which exists.
    pub(super) fn wants(&self, member: &MemberValue, topic: TopicId, topics: &dyn Topics) -> bool {
        let Some(name) = topics.name(topic) else { return false };
        let resolved = member.pattern.as_ref().and_then(|text| self.patterns.get(text));
        member.topics.contains(name) || resolved.is_some_and(|all| all.topics.contains(name))
    }

    /// The topics that this member wants and that exist. A pattern that was not resolved yet
    /// stands for none.
    pub(super) fn wanted(&self, member: &MemberValue, topics: &dyn Topics) -> BTreeSet<TopicId> {
        let resolved = member.pattern.as_ref().and_then(|text| self.patterns.get(text));
        let by_pattern = resolved.iter().flat_map(|pattern| &pattern.topics);
        let names = member.topics.iter().chain(by_pattern);
        names.filter_map(|name| topics.by_name(name)).map(|(id, _)| id).collect()
    }

    /// The topics that anybody wants and that exist, in order of their names.
    pub(super) fn wanted_by_any(&self, topics: &dyn Topics) -> Vec<(TopicId, i32)> {
        let patterns = self.patterns.values().flat_map(|pattern| &pattern.topics);
        let names = self.members.values().flat_map(|member| &member.topics).chain(patterns);
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        names.into_iter().filter_map(|name| topics.by_name(name)).collect()
    }

    /// A hash of the topics that anybody wants and that exist, with their partitions. Compared
    /// only with others of this function (as Kafka's, KIP-1101). 0 without topics.
    pub(super) fn hash_of_topics(&self, topics: &dyn Topics) -> i64 {
        let mut hash: Option<u64> = None;
        for (id, partitions) in self.wanted_by_any(topics) {
            let bytes = id.bytes().iter().copied().chain(partitions.to_be_bytes());
            let start = hash.unwrap_or(0xcbf2_9ce4_8422_2325);
            // FNV-1a, 64 bits.
            let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            hash = Some(bytes.fold(start, step));
        }
        hash.map_or(0, |hash| i64::from_be_bytes(hash.max(1).to_be_bytes()))
    }

    /// The assignor that most members prefer; the first of the broker's where nobody does. Between
    /// two that are preferred by as many, the one that the broker names first.
    pub(super) fn assignor(&self, config: &ConsumerConfig) -> Assignor {
        let votes = |assignor: Assignor| {
            let prefers =
                |member: &&Rc<MemberValue>| member.assignor.as_deref() == Some(assignor.name());
            self.members.values().filter(prefers).count()
        };
        let mut best = (*config.assignors.first().expect("there is one"), 0);
        for assignor in &config.assignors {
            let votes = votes(*assignor);
            if votes > best.1 {
                best = (*assignor, votes);
            }
        }
        best.0
    }

    /// What has to be written so that the target is one for the present epoch.
    pub(super) fn new_target(&self, config: &ConsumerConfig, topics: &dyn Topics) -> Vec<Change> {
        let mut ids: BTreeSet<&Rc<str>> = self.members.keys().collect();
        if config.mutant == Some(Mutant::LeaversAssigned) {
            ids.extend(self.targets.keys());
        }
        let nothing = MemberValue::nothing();
        let of = |id: &Rc<str>| self.members.get(id).map_or(&nothing, |member| &**member);
        let wanted: Vec<BTreeSet<TopicId>> = if config.mutant == Some(Mutant::LeaversAssigned) {
            let all: BTreeSet<TopicId> =
                self.members.values().flat_map(|member| self.wanted(member, topics)).collect();
            vec![all; ids.len()]
        } else {
            ids.iter().map(|id| self.wanted(of(id), topics)).collect()
        };
        let before: Vec<Rc<Partitions>> = ids.iter().map(|id| self.target(id)).collect();
        let consumers: Vec<Consumer<'_>> = (ids.iter().zip(&wanted).zip(&before))
            .map(|((id, topics), before)| Consumer {
                id,
                instance: of(id).instance.as_deref(),
                topics,
                before,
            })
            .collect();
        let sizes: BTreeMap<TopicId, i32> = wanted
            .iter()
            .flatten()
            .filter_map(|id| Some((*id, topics.by_name(topics.name(*id)?)?.1)))
            .collect();

        let target = self.assignor(config).assign(&consumers, &sizes);
        let mut changes = Vec::new();
        for ((id, now), before) in ids.into_iter().zip(target).zip(&before) {
            if now != **before || !self.targets.contains_key(id) {
                changes.push(Change::Target(id.clone(), Some(Rc::new(now))));
            }
        }
        changes.push(Change::TargetEpoch(Some(self.epoch)));
        changes
    }
}

impl MemberValue {
    /// A member that wants nothing.
    pub(super) fn nothing() -> MemberValue {
        MemberValue {
            instance: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            topics: BTreeSet::new(),
            pattern: None,
            rebalance_ms: -1,
            assignor: None,
            classic: None,
        }
    }
}
