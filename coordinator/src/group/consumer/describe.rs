//! A group as ConsumerGroupDescribe shows it.

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
    /// Its epoch.
    pub epoch: i32,
    /// What it is and wants; a member with `classic` speaks the classic protocol.
    pub value: MemberValue,
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
                epoch: current.epoch,
                value: (**value).clone(),
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
