//! The topics of the cluster as groups look at them.

use engine::ids::TopicId;

use crate::image::Image;

/// What groups have to know of topics. Racks are no part of it: brokers have none yet.
pub trait Topics {
    /// Grows whenever anything changes.
    fn version(&self) -> i64;
    /// The topic of this name: its identity and how many partitions it has.
    fn by_name(&self, name: &str) -> Option<(TopicId, i32)>;
    /// The name of the topic with this identity.
    fn name(&self, id: TopicId) -> Option<&str>;
    /// The names of all topics.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
}

impl Topics for Image {
    fn version(&self) -> i64 {
        self.offset().to_wire()
    }

    fn by_name(&self, name: &str) -> Option<(TopicId, i32)> {
        let topic = self.topic(name)?;
        Some((topic.id, i32::try_from(topic.partitions.len()).expect("partitions are limited")))
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.topic_by_id(id).map(|topic| &*topic.name)
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics().map(|topic| &*topic.name))
    }
}
