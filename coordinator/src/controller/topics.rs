//! Topics are made, widened, deleted, purged. Kafka's `ReplicationControlManager` for the rules,
//! `ControllerApis` for duplicates within one request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::ids::{BrokerId, PartitionIndex, TopicId};

use super::random::Random;
use super::{
    Controller, CreatedTopic, Deletion, MorePartitions, NewTopic, Refusal, TopicRef, Why,
    check_topic_name, configs, placement,
};
use crate::cluster::{Cluster, Partition, Replicas, Topic, unify};
use crate::machine::Seen;
use crate::records::Record;

/// The name of Kafka's own metadata log, which nobody may create.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// What one request has used up and taken so far, on top of what the cluster has.
struct Taking<'a> {
    seen: Seen<'a, Controller>,
    topics: usize,
    partitions: usize,
    /// Unified names (see [`unify`]) of topics that this request makes.
    unified: BTreeMap<String, String>,
}

impl<'a> Taking<'a> {
    fn new(seen: Seen<'a, Controller>) -> Taking<'a> {
        Taking { seen, topics: 0, partitions: 0, unified: BTreeMap::new() }
    }

    /// Whether `topics` more with `partitions` more fit under the limits.
    fn check(&self, topics: usize, partitions: usize) -> Result<(), Refusal> {
        let (cluster, config) = (self.seen.hard, self.seen.config);
        let limit = |what: &str, max: usize| {
            let message = format!("This would exceed the limit of {max} {what}.");
            Err(Refusal::new(Why::LimitReached, message))
        };
        if self.partitions + partitions > config.request_partitions_max {
            limit("partitions created by one request", config.request_partitions_max)
        } else if cluster.topic_count() + self.topics + topics > config.topics_max {
            limit("topics in the cluster", config.topics_max)
        } else if cluster.partition_count() + self.partitions + partitions > config.partitions_max {
            limit("partitions in the cluster", config.partitions_max)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, topics: usize, partitions: usize) {
        self.topics += topics;
        self.partitions += partitions;
    }
}

/// Splits what a request names into distinct items, in order of first mention, and says of each
/// whether it was named more than once.
pub(super) fn distinct<T, K: Ord + Clone>(
    items: Vec<T>,
    key: impl Fn(&T) -> &K,
) -> impl Iterator<Item = (T, bool)> {
    let mut mentions: BTreeMap<K, usize> = BTreeMap::new();
    for item in &items {
        *mentions.entry(key(item).clone()).or_default() += 1;
    }
    items.into_iter().filter_map(move |item| {
        // Zero once it has been handed out.
        let count = std::mem::take(mentions.get_mut(key(&item))?);
        (count > 0).then_some((item, count > 1))
    })
}

fn duplicate_name() -> Refusal {
    Refusal::new(Why::RequestInvalid, "Duplicate topic name.")
}

pub(super) fn create(
    seen: Seen<'_, Controller>,
    topics: Vec<NewTopic>,
    validate_only: bool,
    records: &mut Vec<Record>,
) -> Vec<(String, Result<CreatedTopic, Refusal>)> {
    let mut random = Random::new(seen.at.random);
    let mut taking = Taking::new(seen);
    distinct(topics, |topic| &topic.name)
        .map(|(topic, duplicate)| {
            let name = topic.name.clone();
            if duplicate {
                return (name, Err(duplicate_name()));
            }
            let created = create_one(&mut taking, topic, &mut random).map(|topic| {
                if !validate_only {
                    records.push(Record::TopicCreated(topic.clone()));
                }
                CreatedTopic { topic }
            });
            (name, created)
        })
        .collect()
}

fn create_one(
    taking: &mut Taking<'_>,
    new: NewTopic,
    random: &mut Random,
) -> Result<Arc<Topic>, Refusal> {
    let seen = taking.seen;
    if new.name == METADATA_TOPIC {
        let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
        return Err(Refusal::new(Why::RequestInvalid, message));
    }
    check_topic_name(&new.name)?;
    if seen.hard.topic(&new.name).is_some() {
        let message = format!("Topic '{}' already exists.", new.name);
        return Err(Refusal::new(Why::TopicExists, message));
    }
    let unified = unify(&new.name);
    let with_existing = seen.hard.colliding(&new.name).map(|name| &**name);
    let with_new = || unified.as_ref().and_then(|unified| taking.unified.get(unified));
    if let Some(other) = with_existing.or_else(|| with_new().map(String::as_str)) {
        let message = format!("Topic '{}' collides with existing topic: {other}", new.name);
        return Err(Refusal::new(Why::TopicNameInvalid, message));
    }
    let overrides = configs::of_new_topic(seen, &new.overrides)?;
    let placed = place_new(taking, &new, random)?;
    taking.take(1, placed.len());
    if let Some(unified) = unified {
        taking.unified.insert(unified, new.name.clone());
    }
    Ok(Arc::new(Topic {
        id: new_topic_id(seen.hard, random),
        name: new.name.into(),
        partitions: placed,
        overrides,
    }))
}

/// An id that no topic has or had in this cluster's memory.
fn new_topic_id(cluster: &Cluster, random: &mut Random) -> TopicId {
    loop {
        let id = TopicId::random(random.word(), random.word());
        if cluster.topic_by_id(id).is_none() && cluster.deleted_topic(id).is_none() {
            return id;
        }
    }
}

/// The partitions of a new topic.
fn place_new(
    taking: &Taking<'_>,
    new: &NewTopic,
    random: &mut Random,
) -> Result<Vec<Partition>, Refusal> {
    let seen = taking.seen;
    if !new.assignments.is_empty() {
        return place_as_asked(taking, new);
    }
    if new.replication_factor < -1 || new.replication_factor == 0 {
        return Err(Refusal::new(
            Why::ReplicationFactorInvalid,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ));
    }
    if new.partitions < -1 || new.partitions == 0 {
        return Err(Refusal::new(
            Why::PartitionsInvalid,
            "Number of partitions was set to an invalid non-positive value.",
        ));
    }
    let partitions = if new.partitions == -1 { seen.config.num_partitions } else { new.partitions };
    let replication_factor = match new.replication_factor {
        -1 => seen.config.default_replication_factor,
        asked => asked,
    };
    let partitions = usize::try_from(partitions).expect("defaults are at least 1");
    taking.check(1, partitions)?;
    let placed = placement::place(seen.hard, partitions, replication_factor, random)?;
    Ok(placed.into_iter().map(Partition::new).collect())
}

fn place_as_asked(taking: &Taking<'_>, new: &NewTopic) -> Result<Vec<Partition>, Refusal> {
    for (what, set) in [
        ("replication factor", new.replication_factor != -1),
        ("numPartitions", new.partitions != -1),
    ] {
        if set {
            let message = format!(
                "A manual partition assignment was specified, but {what} was not set to -1."
            );
            return Err(Refusal::new(Why::RequestInvalid, message));
        }
    }
    taking.check(1, new.assignments.len())?;
    let mut by_index: BTreeMap<PartitionIndex, Partition> = BTreeMap::new();
    let mut width = None;
    for assignment in &new.assignments {
        let index = assignment.partition;
        if by_index.contains_key(&index) {
            let message =
                format!("Found multiple manual partition assignments for partition {index}");
            return Err(Refusal::new(Why::AssignmentInvalid, message));
        }
        check_assignment(taking.seen.hard, &assignment.replicas, width)?;
        width = Some(assignment.replicas.len());
        by_index.insert(index, as_assigned(taking.seen.hard, index, &assignment.replicas)?);
    }
    if !by_index.keys().copied().eq((0..).map(PartitionIndex).take(by_index.len())) {
        return Err(Refusal::new(
            Why::AssignmentInvalid,
            "partitions should be a consecutive 0-based integer sequence",
        ));
    }
    Ok(by_index.into_values().collect())
}

/// A new partition whose replicas somebody chose: those that are active are in sync.
fn as_assigned(
    cluster: &Cluster,
    index: PartitionIndex,
    replicas: &[BrokerId],
) -> Result<Partition, Refusal> {
    let active = |id: &BrokerId| cluster.broker(*id).is_some_and(|broker| broker.is_active());
    let isr: Vec<BrokerId> = replicas.iter().copied().filter(active).collect();
    if isr.is_empty() {
        let message = format!(
            "All brokers specified in the manual partition assignment for partition {index} are \
             fenced or in controlled shutdown."
        );
        return Err(Refusal::new(Why::AssignmentInvalid, message));
    }
    let replicas = Replicas::from(replicas);
    let isr = if isr == *replicas { replicas.clone() } else { isr.into() };
    Ok(Partition::with_isr(replicas, isr))
}

/// Refuses replicas that are none, unknown, repeated, or not `width` many.
pub(super) fn check_assignment(
    cluster: &Cluster,
    replicas: &[BrokerId],
    width: Option<usize>,
) -> Result<(), Refusal> {
    let refuse = |message: String| {
        let message = format!("The manual partition assignment includes {message}");
        Err(Refusal::new(Why::AssignmentInvalid, message))
    };
    if replicas.is_empty() {
        return refuse("an empty replica list.".into());
    }
    let mut seen = BTreeSet::new();
    for broker in replicas {
        if cluster.broker(*broker).is_none() {
            return refuse(format!("broker {broker}, but no such broker is registered."));
        }
        if !seen.insert(broker) {
            return refuse(format!("the broker {broker} more than once."));
        }
    }
    match width {
        Some(width) if width != replicas.len() => refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, \
             which have {width} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

pub(super) fn widen(
    seen: Seen<'_, Controller>,
    topics: Vec<MorePartitions>,
    validate_only: bool,
    records: &mut Vec<Record>,
) -> Vec<(String, Result<(), Refusal>)> {
    let mut random = Random::new(seen.at.random);
    let mut taking = Taking::new(seen);
    distinct(topics, |topic| &topic.name)
        .map(|(topic, duplicate)| {
            let name = topic.name.clone();
            if duplicate {
                return (name, Err(duplicate_name()));
            }
            let widened = widen_one(&mut taking, &topic, &mut random).map(|record| {
                if !validate_only {
                    records.push(record);
                }
            });
            (name, widened)
        })
        .collect()
}

fn widen_one(
    taking: &mut Taking<'_>,
    wanted: &MorePartitions,
    random: &mut Random,
) -> Result<Record, Refusal> {
    let cluster = taking.seen.hard;
    let topic = cluster.topic(&wanted.name).ok_or_else(unknown_topic)?;
    let present = topic.partitions.len();
    let count = usize::try_from(wanted.count).unwrap_or(0);
    if count <= present {
        let message = if count == present {
            format!("Topic already has {present} partition(s).")
        } else {
            format!(
                "The topic {} currently has {present} partition(s); {} would not be an increase.",
                wanted.name, wanted.count
            )
        };
        return Err(Refusal::new(Why::PartitionsInvalid, message));
    }
    let additional = count - present;
    if let Some(assignments) = &wanted.assignments
        && assignments.len() != additional
    {
        let message = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) \
             were specified.",
            assignments.len()
        );
        return Err(Refusal::new(Why::AssignmentInvalid, message));
    }
    taking.check(0, additional)?;
    let width = topic.replication_factor();
    let placed: Vec<Partition> = match &wanted.assignments {
        Some(assignments) => (present..)
            .zip(assignments)
            .map(|(index, replicas)| {
                check_assignment(cluster, replicas, Some(width))?;
                as_assigned(cluster, index_of(index), replicas)
            })
            .collect::<Result<_, Refusal>>()?,
        None => {
            let width = i16::try_from(width).expect("a replication factor is an int16");
            let placed = placement::place(cluster, additional, width, random)?;
            placed.into_iter().map(Partition::new).collect()
        }
    };
    taking.take(0, additional);
    Ok(Record::PartitionsAdded { topic: topic.id, first: index_of(present), partitions: placed })
}

fn index_of(at: usize) -> PartitionIndex {
    PartitionIndex(i32::try_from(at).expect("a partition count is an int32"))
}

pub(super) fn unknown_topic() -> Refusal {
    Refusal::new(Why::UnknownTopic, "This server does not host this topic-partition.")
}

pub(super) fn delete(
    seen: Seen<'_, Controller>,
    topics: Vec<TopicRef>,
    records: &mut Vec<Record>,
) -> Vec<Deletion> {
    let find = |topic: &TopicRef| match (&topic.name, topic.id) {
        (None, Some(id)) => seen.hard.topic_by_id(id),
        (Some(name), None) => seen.hard.topic(name),
        _ => None,
    };
    let topics: Vec<(TopicRef, bool)> = distinct(topics, |topic| topic).collect();
    let mut mentions: BTreeMap<TopicId, usize> = BTreeMap::new();
    for found in topics.iter().filter_map(|(topic, _)| find(topic)) {
        *mentions.entry(found.id).or_default() += 1;
    }
    let mut deletions = seen.hard.deleted_topic_count();
    topics
        .into_iter()
        .map(|(topic, duplicate)| {
            let found = find(&topic);
            let twice = found.is_some_and(|found| mentions[&found.id] > 1);
            let result = check_deletion(seen, &topic, found, duplicate, twice, deletions);
            let deleted = result.as_ref().ok().copied();
            if let Some(deleted) = deleted {
                deletions += 1;
                records.push(Record::TopicDeleted { topic: deleted.id });
            }
            // A refusal tells no more than the caller did.
            Deletion {
                name: deleted.map(|deleted| deleted.name.to_string()).or(topic.name),
                id: deleted.map(|deleted| deleted.id).or(topic.id),
                result: result.map(|_| ()),
            }
        })
        .collect()
}

/// The topic, if it may be deleted. It may not when it is mentioned more than once (`duplicate`:
/// in the same way; `twice`: by name and by identity), or `deletions` are too many already.
fn check_deletion<'a>(
    seen: Seen<'a, Controller>,
    topic: &TopicRef,
    found: Option<&'a Arc<Topic>>,
    duplicate: bool,
    twice: bool,
    deletions: usize,
) -> Result<&'a Arc<Topic>, Refusal> {
    let invalid = |message: &str| Err(Refusal::new(Why::RequestInvalid, message));
    if !seen.config.delete_topics {
        return Err(Refusal::new(Why::DeletionDisabled, "Topic deletion is disabled."));
    }
    match (&topic.name, topic.id) {
        (None, None) => return invalid("Neither topic name nor id were specified."),
        (Some(_), Some(_)) => return invalid("You may not specify both topic name and topic id."),
        (Some(_), None) if duplicate => return invalid("Duplicate topic name."),
        (None, Some(_)) if duplicate => return invalid("Duplicate topic id."),
        _ => (),
    }
    let Some(found) = found else {
        return Err(match topic.id {
            Some(_) => {
                Refusal::new(Why::UnknownTopicId, "This server does not host this topic ID.")
            }
            None => unknown_topic(),
        });
    };
    if twice {
        return invalid("The provided topic name maps to an ID that was already supplied.");
    }
    let most = seen.config.deleted_topics_max;
    if deletions >= most {
        let message = format!("The files of {most} deleted topics are still being removed.");
        return Err(Refusal::new(Why::LimitReached, message));
    }
    Ok(found)
}

/// A broker removed the files of these topics.
pub(super) fn purged(
    cluster: &Cluster,
    broker: BrokerId,
    topics: Vec<TopicId>,
    records: &mut Vec<Record>,
) {
    for (topic, _) in distinct(topics, |topic| topic) {
        if cluster.deleted_topic(topic).is_some_and(|deleted| deleted.holders.contains(&broker)) {
            records.push(Record::TopicPurged { topic, broker });
        }
    }
}
