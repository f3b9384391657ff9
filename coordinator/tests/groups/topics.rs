//! The topics that groups are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordinator::group::assignor::Partitions;
use coordinator::group::consumer::times::Own;
use coordinator::group::consumer::topics::{Topics, View};
use engine::ids::{PartitionIndex, TopicId};

/// Topics by name, with as many partitions.
#[derive(Clone, Default)]
pub struct Table {
    version: i64,
    topics: BTreeMap<String, (TopicId, i32)>,
    own: BTreeMap<String, Own>,
}

impl Table {
    pub fn new(topics: &[(&str, i32)]) -> Table {
        let mut table = Table::default();
        topics.iter().for_each(|(name, partitions)| table.set(name, *partitions));
        table
    }

    /// Makes a topic, or lets it grow.
    pub fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        let id = TopicId::from_bytes([u8::try_from(self.version).expect("few"); 16]);
        self.topics.entry(name.into()).or_insert((id, 0)).1 = partitions;
    }

    /// Gives a group settings of its own.
    #[allow(dead_code, reason = "each test file uses its part")]
    pub fn set_own(&mut self, group: &str, own: Own) {
        self.version += 1;
        self.own.insert(group.into(), own);
    }

    /// As requests show it.
    pub fn view(&self) -> View {
        View::new(Arc::new(self.clone()))
    }

    /// Partitions of a topic.
    #[allow(dead_code, reason = "each test file uses its part")]
    pub fn of(&self, topic: &str, partitions: impl IntoIterator<Item = i32>) -> Partitions {
        let all = partitions.into_iter().map(PartitionIndex).collect();
        Partitions::from([(self.topics[topic].0, all)])
    }
}

impl Topics for Table {
    fn version(&self) -> i64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.topics.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.topics.iter().find(|(_, (other, _))| *other == id).map(|(name, _)| name.as_str())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn own(&self, group: &str) -> Own {
        self.own.get(group).copied().unwrap_or_default()
    }
}
