//! Overrides of topics and groups change: replaced as a whole, or edited one by one. Kafka's
//! `ConfigurationControlManager` and the checks of `ConfigAdminManager`. What a topic can override,
//! and with which values, is `engine::config`'s table, and for a group
//! [`crate::group::consumer::times`]; here values stay text, as they were given.

use std::collections::BTreeSet;

use engine::config::{ConfigError, Kind, setting};

use super::changes::Changes;
use super::topics::{distinct, unknown_topic};
use super::{Change, ConfigChange, Controller, Edit, Refusal, Rules, Why, check_topic_name};
use crate::cluster::{Overrides, Topic};
use crate::group::NAME_BYTES_MAX;
use crate::machine::Seen;
use crate::records::Record;

/// The overrides of a topic to make; refused if one has no value or cannot be.
pub(super) fn of_new_topic(
    seen: Seen<'_, Controller>,
    wanted: &[(String, Option<String>)],
) -> Result<Overrides, Refusal> {
    let nulls: Vec<&str> =
        wanted.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str()).collect();
    if !nulls.is_empty() {
        return Err(Refusal::new(
            Why::ConfigInvalid,
            format!("Null value not supported for topic configs: {}", nulls.join(",")),
        ));
    }
    let overrides =
        wanted.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    check(seen, &overrides)?;
    Ok(overrides)
}

pub(super) fn alter(
    seen: Seen<'_, Controller>,
    changes: Vec<ConfigChange>,
    validate_only: bool,
    records: &mut Vec<Record>,
) -> Vec<(String, Result<(), Refusal>)> {
    each(changes, |change| {
        let record = alter_topic(seen, change)?;
        if !validate_only && let Some(record) = record {
            follow(seen, &record, records);
        }
        Ok(())
    })
}

pub(super) fn alter_groups(
    seen: Seen<'_, Controller>,
    changes: Vec<ConfigChange>,
    validate_only: bool,
    records: &mut Vec<Record>,
) -> Vec<(String, Result<(), Refusal>)> {
    let (most, there) = (seen.config.configured_groups_max, seen.hard.configured_group_count());
    let mut room = most.saturating_sub(there);
    each(changes, |change| {
        let record = alter_group(seen, change, &mut room)?;
        if !validate_only {
            records.extend(record);
        }
        Ok(())
    })
}

/// Alters each, unless it is mentioned more than once.
fn each(
    changes: Vec<ConfigChange>,
    mut alter: impl FnMut(ConfigChange) -> Result<(), Refusal>,
) -> Vec<(String, Result<(), Refusal>)> {
    distinct(changes, |change| &change.name)
        .map(|(change, duplicate)| {
            let name = change.name.clone();
            if duplicate {
                let message = "Each resource must appear at most once.";
                return (name, Err(Refusal::new(Why::RequestInvalid, message)));
            }
            (name, alter(change))
        })
        .collect()
}

/// Remembers changed overrides, and what they mean for the topic's partitions: with a lower
/// minimum, eligible replicas may fall behind what is committed from now on; with unclean
/// elections allowed, whoever is alive may lead.
fn follow(seen: Seen<'_, Controller>, change: &Record, records: &mut Vec<Record>) {
    records.push(change.clone());
    let Record::TopicOverridesChanged { topic, changes } = change else { return };
    let Some(before) = seen.hard.topic_by_id(*topic) else { return };
    let mut after = Topic::clone(before);
    after.change_overrides(changes);
    let rules = Rules::of(&after, seen.config);
    if rules != Rules::of(before, seen.config) {
        let mut partitions = Changes::new(seen);
        partitions.rule(before, &rules);
        partitions.record(records);
    }
}

/// The record that makes the change true; none if it is true already.
fn alter_topic(
    seen: Seen<'_, Controller>,
    change: ConfigChange,
) -> Result<Option<Record>, Refusal> {
    if change.name.is_empty() {
        let message = "Default topic resources are not allowed.";
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    check_topic_name(&change.name)?;
    let topic = seen.hard.topic(&change.name);
    let before = topic.map(|topic| topic.overrides.clone()).unwrap_or_default();
    let after = changed(&before, change.change)?;
    check(seen, &after)?;
    let topic = topic.ok_or_else(unknown_topic)?.id;
    let changes = difference(&before, &after);
    Ok(changes.map(|changes| Record::TopicOverridesChanged { topic, changes }))
}

/// The record that makes the change true; none if it is true already. The group need not be
/// there: whoever makes it finds its settings. `room`: how many more groups may have some.
fn alter_group(
    seen: Seen<'_, Controller>,
    change: ConfigChange,
    room: &mut usize,
) -> Result<Option<Record>, Refusal> {
    let group = change.name;
    if group.is_empty() {
        let message = "Default group resources are not allowed.";
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    if group.len() > NAME_BYTES_MAX {
        let message = format!("A group's name is longer than {NAME_BYTES_MAX} bytes.");
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    let before = seen.hard.group_overrides(&group).cloned().unwrap_or_default();
    let after = changed(&before, change.change)?;
    check_lengths(seen, &after)?;
    let checked = seen.config.group_times.check_own(&after);
    checked.map_err(|error| Refusal::new(Why::ConfigInvalid, error.to_string()))?;
    if before.is_empty() && !after.is_empty() {
        *room = room.checked_sub(1).ok_or_else(|| {
            let most = seen.config.configured_groups_max;
            let message = format!("{most} groups have settings of their own already.");
            Refusal::new(Why::LimitReached, message)
        })?;
    }
    let changes = difference(&before, &after);
    Ok(changes.map(|changes| Record::GroupOverridesChanged { group, changes }))
}

/// The overrides after `change`.
fn changed(before: &Overrides, change: Change) -> Result<Overrides, Refusal> {
    match change {
        Change::Replace(wanted) => {
            check_mentions(wanted.iter().map(|(name, value)| (name, value.is_some())))?;
            Ok(wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
        }
        Change::Edit(edits) => {
            check_mentions(edits.iter().map(|(name, edit)| (name, edit.has_value())))?;
            edited(before, edits)
        }
    }
}

/// Refuses names that are mentioned twice and values that are missing.
fn check_mentions<'a>(
    mentions: impl Iterator<Item = (&'a String, bool)> + Clone,
) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    if !mentions.clone().all(|(name, _)| names.insert(name)) {
        let message = "Error due to duplicate config keys";
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    let nulls: Vec<&str> =
        mentions.filter(|(_, has_value)| !has_value).map(|(name, _)| name.as_str()).collect();
    if nulls.is_empty() {
        return Ok(());
    }
    let message = format!("Null value not supported for : {}", nulls.join(", "));
    Err(Refusal::new(Why::RequestInvalid, message))
}

impl Edit {
    fn has_value(&self) -> bool {
        match self {
            Edit::Delete => true,
            Edit::Set(value) | Edit::Append(value) | Edit::Subtract(value) => value.is_some(),
        }
    }
}

/// The overrides after `edits`, each of which has its value.
fn edited(before: &Overrides, edits: Vec<(String, Edit)>) -> Result<Overrides, Refusal> {
    let mut after = before.clone();
    for (name, edit) in edits {
        match edit {
            Edit::Set(value) => {
                after.insert(name, value.unwrap_or_default());
            }
            Edit::Delete => {
                after.remove(&name);
            }
            Edit::Append(value) => {
                let mut list = list_of(&after, &name, "APPEND")?;
                for item in value.unwrap_or_default().split(',') {
                    if !list.iter().any(|present| present == item) {
                        list.push(item.to_string());
                    }
                }
                after.insert(name, list.join(","));
            }
            Edit::Subtract(value) => {
                let mut list = list_of(&after, &name, "SUBTRACT")?;
                for item in value.unwrap_or_default().split(',') {
                    list.retain(|present| present != item);
                }
                after.insert(name, list.join(","));
            }
        }
    }
    Ok(after)
}

/// The items of a list setting: its override, or else its default.
fn list_of(overrides: &Overrides, name: &str, edit: &str) -> Result<Vec<String>, Refusal> {
    let Some(setting) = setting(name).filter(|setting| setting.kind == Kind::List) else {
        let message = format!("Can't {edit} to key {name} because its type is not LIST.");
        return Err(Refusal::new(Why::ConfigInvalid, message));
    };
    let list = overrides.get(name).map_or(setting.default, String::as_str);
    Ok(list.split(',').filter(|item| !item.is_empty()).map(str::to_string).collect())
}

/// Refuses overrides that a topic cannot have.
fn check(seen: Seen<'_, Controller>, overrides: &Overrides) -> Result<(), Refusal> {
    check_lengths(seen, overrides)?;
    for (name, value) in overrides {
        let refused = |error: ConfigError| Refusal::new(Why::ConfigInvalid, error.to_string());
        engine::config::parse(name, value).map_err(refused)?;
    }
    Ok(())
}

fn check_lengths(seen: Seen<'_, Controller>, overrides: &Overrides) -> Result<(), Refusal> {
    let most = seen.config.override_bytes_max;
    match overrides.iter().any(|(name, value)| name.len() > most || value.len() > most) {
        true => {
            let message = format!("A config name or value is longer than {most} bytes.");
            Err(Refusal::new(Why::ConfigInvalid, message))
        }
        false => Ok(()),
    }
}

/// What `after` changes, if anything.
fn difference(before: &Overrides, after: &Overrides) -> Option<Vec<(String, Option<String>)>> {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|n| (n.clone(), None));
    let set = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), Some(value.clone())));
    let changes: Vec<_> = gone.chain(set).collect();
    (!changes.is_empty()).then_some(changes)
}
