//! A group as ConsumerGroupDescribe shows it.

use std::collections::BTreeSet;

use super::records::MemberValue;
use super::{ConsumerConfig, ConsumerGroup};
use crate::group::assignor::Partitions;

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What it is doing, in Kafka's word.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor: &'static str,
    /// Its members, by id.
    pub members: Vec<DescribedMember>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<String>,
    /// The rack that it is in.
    pub rack: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Its epoch.
    pub epoch: i32,
    /// The topics that it is subscribed to, by name.
    pub topics: BTreeSet<String>,
    /// The same by a regular expression.
    pub pattern: Option<String>,
    /// It speaks the classic protocol.
    pub is_classic: bool,
    /// What it has.
    pub assignment: Partitions,
    /// What it is to have in the end.
    pub target: Partitions,
}

impl ConsumerGroup {
    /// All of it, for people.
    pub fn describe(&self, config: &ConsumerConfig) -> Described {
        let describe = |(id, value): (&std::rc::Rc<str>, &std::rc::Rc<MemberValue>)| {
            let current = self.current(id);
            DescribedMember {
                id: id.to_string(),
                instance: value.instance.as_deref().map(String::from),
                rack: value.rack.clone(),
                client_id: value.client_id.clone(),
                client_host: value.client_host.clone(),
                epoch: current.epoch,
                topics: value.topics.clone(),
                pattern: value.pattern.as_deref().map(String::from),
                is_classic: value.classic.is_some(),
                assignment: current.partitions(),
                target: (*self.target(id)).clone(),
            }
        };
        Described {
            state: self.state().name(),
            epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: self.assignor(config).name(),
            members: self.members().map(describe).collect(),
        }
    }
}
