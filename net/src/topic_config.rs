//! From a topic's overrides to the configuration of its logs.

use coordinator::cluster::Topic;
use engine::config::{self, EngineLimits, LogConfig, LogOverrides};

/// A topic's overrides, typed. They were checked before the controller took them; one that this
/// version does not know any more is named in the log and passed over.
pub fn overrides(topic: &Topic) -> LogOverrides {
    let mut overrides = LogOverrides::default();
    for (name, text) in &topic.overrides {
        match config::parse(name, text) {
            Ok(change) => overrides.apply(change),
            Err(error) => tracing::warn!(topic = %topic.name, %error, "a setting is passed over"),
        }
    }
    overrides
}

/// What a topic's logs are told: the broker's defaults, overridden.
pub fn effective(topic: &Topic, broker: &LogOverrides, limits: &EngineLimits) -> LogConfig {
    config::effective(&overrides(topic), broker, limits)
}
