//! Broker-wide values of what a topic may override: the properties that `engine::config`'s table
//! names for each topic setting. Where several concern one setting (`log.retention.ms`,
//! `.minutes`, `.hours`), one counts: of the last layer that gave any, the most exact.

use std::collections::BTreeMap;

use engine::config::{LogOverrides, SETTINGS, Setting, Synonym};

use super::{Given, Problem};

/// A property that gives a topic setting its default.
#[derive(Clone, Copy)]
pub struct Property {
    /// The topic setting.
    pub setting: &'static Setting,
    /// The property.
    pub synonym: &'static Synonym,
}

/// All of them.
pub fn properties() -> impl Iterator<Item = Property> {
    let of = |setting: &'static Setting| {
        setting.synonyms.iter().map(move |synonym| Property { setting, synonym })
    };
    SETTINGS.iter().flat_map(of)
}

/// The one with this name.
pub fn find(name: &str) -> Option<Property> {
    properties().find(|property| property.synonym.name == name)
}

/// The typed values of what was given, by property name. Each problem names its own place.
pub(super) fn resolve(
    given: &BTreeMap<&'static str, Given>,
    problems: &mut Vec<Problem>,
) -> LogOverrides {
    let given = given.iter().filter(|(name, _)| find(name).is_some());
    let mut good = Vec::new();
    for (name, given) in given {
        match LogOverrides::from_broker([(*name, given.text.as_str())]) {
            Ok(_) => good.push((*name, given.text.as_str())),
            Err(error) => {
                let (source, message) = (given.source.clone(), error.to_string());
                problems.push(Problem { source, message });
            }
        }
    }
    LogOverrides::from_broker(good).expect("each of them was accepted alone")
}
