//! The topics of the cluster, and the settings of groups, as groups look at them.

use std::fmt;
use std::sync::Arc;

use engine::ids::TopicId;

use super::times::Own;
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
    /// What a group goes by instead of the broker's settings.
    fn own(&self, group: &str) -> Own;
}

/// The topics as whoever asks sees them. Shared, and crosses lanes; the newest that a machine was
/// shown is the one that it goes by. By default nothing is known.
#[derive(Clone, Default)]
pub struct View(Option<Arc<dyn Topics + Send + Sync>>);

/// The version of a view in which nothing is known.
pub const UNKNOWN: i64 = -1;

impl View {
    /// What is seen through `topics`, whose version is not negative.
    pub fn new(topics: Arc<dyn Topics + Send + Sync>) -> View {
        View(Some(topics))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({})", self.version())
    }
}

impl Topics for View {
    fn version(&self) -> i64 {
        self.0.as_ref().map_or(UNKNOWN, |topics| topics.version())
    }

    fn by_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.0.as_ref()?.by_name(name)
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.0.as_ref()?.name(id)
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.0 {
            Some(topics) => topics.names(),
            None => Box::new(std::iter::empty()),
        }
    }

    fn own(&self, group: &str) -> Own {
        self.0.as_ref().map(|topics| topics.own(group)).unwrap_or_default()
    }
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

    fn own(&self, group: &str) -> Own {
        self.group_overrides(group).map(Own::of).unwrap_or_default()
    }
}
