//! Live migration: a classic group becomes a consumer group when the first member joins that
//! speaks the consumer protocol, and a classic group again when the last such member has gone
//! (KIP-848). Nobody loses what it has on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::ids::{PartitionIndex, TopicId};

use super::embedded::{self, Named, Subscription};
use super::records::{Change, ClassicMember, Current, GroupValue, MemberValue};
use super::topics::Topics;
use super::{ConsumerGroup, Mutant, Record, Scene};
use crate::group::assignor::Partitions;

/// A classic group of consumers, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicGroup {
    /// Its generation.
    pub generation: i32,
    /// The protocol (an assignor's name) that its members agreed on, if they did yet.
    pub protocol: Option<String>,
    /// Who assigns; of one that was a consumer group until now, who will.
    pub leader: Option<String>,
    /// Its members, by id.
    pub members: Vec<ClassicConsumer>,
}

/// A member of a [`ClassicGroup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicConsumer {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may be silent, in milliseconds.
    pub session_ms: i32,
    /// How long it may take to rejoin, in milliseconds.
    pub rebalance_ms: i32,
    /// What it can speak, preferred first: name, and its subscription in it.
    pub protocols: Vec<(String, Rc<[u8]>)>,
    /// What the leader gave it; empty if nothing, or nothing yet.
    pub assignment: Rc<[u8]>,
}

/// Why a classic group cannot become a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The operator does not want it.
    #[error("groups do not change to the consumer protocol here")]
    NotWanted,
    /// It would have more members than it may.
    #[error("the group is too large")]
    TooLarge,
    /// What a member says, or was given, cannot be read.
    #[error("what member {member} says or has cannot be read: {error}")]
    Unreadable {
        /// The member.
        member: String,
        /// Why.
        error: super::bytes::BytesError,
    },
    /// Two members were given one partition, which only an assignor of their own can have done.
    #[error("two members have {topic}/{partition}")]
    Shared {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
    },
}

/// The consumer group that a classic group (with members, all of protocol type `consumer`) becomes,
/// and the records that make it so; the classic group's tombstone goes before them. Members that
/// wait for an answer are to join again, with `REBALANCE_IN_PROGRESS`.
///
/// A member has what it was given, and what it said, when it joined, that it has: cooperative
/// members go on using what they had until they hear of their assignment, and while a rebalance is
/// interrupted by another. Kafka goes by what it was given alone, and gives the rest to others.
pub fn upgrade(
    name: &Rc<str>,
    classic: &ClassicGroup,
    scene: &Scene<'_>,
) -> Result<(ConsumerGroup, Vec<Record>), UpgradeError> {
    if !scene.config.migration.may_upgrade() {
        return Err(UpgradeError::NotWanted);
    }
    if classic.members.len() > scene.config.members_max {
        return Err(UpgradeError::TooLarge);
    }
    let epoch = classic.generation;
    let (mut members, mut targets, mut currents) = (Vec::new(), Vec::new(), Vec::new());
    let mut people = Vec::new();
    for person in &classic.members {
        people.push((person, read_person(person, classic.protocol.as_deref())?));
    }
    let owned = owners(&people)?;
    for ((person, Read { value, .. }), owned) in people.into_iter().zip(owned) {
        let id: Rc<str> = person.id.as_str().into();
        let mut owned = by_id(&owned, scene.topics);
        if scene.config.mutant == Some(Mutant::UpgradeForgetsOwners) {
            owned.clear();
        }
        let with_epochs = |(topic, all): (&TopicId, &BTreeSet<PartitionIndex>)| {
            (*topic, all.iter().map(|partition| (*partition, epoch)).collect())
        };
        let assigned = owned.iter().map(with_epochs).collect();
        let current = Current { assigned, ..Current::new(epoch) };
        members.push(Change::Member(id.clone(), Some(Rc::new(value))));
        targets.push(Change::Target(id.clone(), Some(Rc::new(owned))));
        currents.push(Change::Current(id, Some(Rc::new(current))));
    }

    let mut slot = Some(ConsumerGroup::default());
    let mut records = Vec::new();
    let mut put = |slot: &mut Option<ConsumerGroup>, change: Change| {
        ConsumerGroup::apply(slot, &change);
        records.push(Record { group: name.clone(), change });
    };
    members.into_iter().for_each(|change| put(&mut slot, change));
    // Topics of which it is not known whether they are taken into account: whoever comes next
    // begins a new epoch, also a static member that only takes its own place. What a leader gave
    // may leave out what somebody was to give up first.
    let value = GroupValue { epoch, topics_hash: 0, created: Some(scene.at.wall) };
    put(&mut slot, Change::Group(Some(value)));
    targets.into_iter().for_each(|change| put(&mut slot, change));
    put(&mut slot, Change::TargetEpoch(Some(epoch)));
    currents.into_iter().for_each(|change| put(&mut slot, change));
    Ok((slot.expect("it is there"), records))
}

/// What a member is, was given, and says that it has, and of which generation that is.
struct Read {
    value: MemberValue,
    given: Named,
    says: (i32, Named),
}

/// What each has, in their order. Nobody else has what somebody was given; of those who say that
/// they have the same, the one of the newest generation has it.
fn owners(people: &[(&ClassicConsumer, Read)]) -> Result<Vec<Named>, UpgradeError> {
    let mut taken = BTreeSet::new();
    for (topic, partitions) in people.iter().flat_map(|(_, read)| &read.given) {
        for partition in partitions {
            if !taken.insert((topic.as_str(), *partition)) {
                let (topic, partition) = (topic.clone(), *partition);
                return Err(UpgradeError::Shared { topic, partition });
            }
        }
    }
    let mut owned: Vec<Named> = people.iter().map(|(_, read)| read.given.clone()).collect();
    let mut newest_first: Vec<usize> = (0..people.len()).collect();
    newest_first.sort_by_key(|at| std::cmp::Reverse(people[*at].1.says.0));
    for at in newest_first {
        for (topic, partitions) in &people[at].1.says.1 {
            let mine = partitions.iter().filter(|partition| taken.insert((topic, **partition)));
            owned[at].entry(topic.clone()).or_default().extend(mine);
        }
    }
    Ok(owned)
}

fn read_person(person: &ClassicConsumer, protocol: Option<&str>) -> Result<Read, UpgradeError> {
    let unreadable = |error| UpgradeError::Unreadable { member: person.id.clone(), error };
    let chosen = person.protocols.iter().find(|(name, _)| Some(&**name) == protocol);
    let said = chosen.or(person.protocols.first()).map_or(&[][..], |(_, said)| said);
    let said = Subscription::read(said).map_err(unreadable)?;
    let given = embedded::read_assignment(&person.assignment).map_err(unreadable)?;
    let says = (said.generation, said.owned);
    let value = MemberValue {
        instance: person.instance.as_deref().map(Rc::from),
        rack: said.rack,
        client_id: person.client_id.clone(),
        client_host: person.client_host.clone(),
        topics: said.topics.into_iter().collect(),
        pattern: None,
        rebalance_ms: person.rebalance_ms,
        assignor: None,
        classic: Some(ClassicMember {
            session_ms: person.session_ms,
            protocols: person.protocols.clone(),
        }),
    };
    Ok(Read { value, given, says })
}

/// Partitions of topics by identity; topics that do not exist are left out.
pub(super) fn by_id(named: &Named, topics: &dyn Topics) -> Partitions {
    let mut all = Partitions::new();
    for (name, partitions) in named {
        if let Some((id, _)) = topics.by_name(name)
            && !partitions.is_empty()
        {
            all.entry(id).or_default().extend(partitions);
        }
    }
    all
}

/// Partitions of topics by name; topics that do not exist are left out.
pub(super) fn by_name(partitions: &Partitions, topics: &dyn Topics) -> Named {
    let name = |(topic, all): (&TopicId, &BTreeSet<PartitionIndex>)| {
        Some((topics.name(*topic)?.to_owned(), all.iter().copied().collect()))
    };
    partitions.iter().filter_map(name).collect()
}

/// The classic group that a consumer group becomes of which only members of the classic protocol
/// are left; `None` if there are others, or none at all, or the operator does not want it.
pub(super) fn downgrade(group: &ConsumerGroup, scene: &Scene<'_>) -> Option<ClassicGroup> {
    let is_allowed = scene.config.migration.may_downgrade()
        && (1..=scene.config.classic_members_max).contains(&group.members().len());
    if !is_allowed {
        return None;
    }
    let mut members = Vec::new();
    for (id, value) in group.members() {
        let classic = value.classic.as_ref()?;
        let owned = by_name(&group.current(id).partitions(), scene.topics);
        members.push(ClassicConsumer {
            id: id.to_string(),
            instance: value.instance.as_deref().map(str::to_owned),
            client_id: value.client_id.clone(),
            client_host: value.client_host.clone(),
            session_ms: classic.session_ms,
            rebalance_ms: value.rebalance_ms,
            protocols: classic.protocols.clone(),
            assignment: embedded::write_assignment(version_of(classic), &owned).into(),
        });
    }
    let protocol = choose(&members)?;
    Some(ClassicGroup {
        generation: group.epoch(),
        protocol: Some(protocol),
        leader: members.first().map(|member| member.id.clone()),
        members,
    })
}

/// The version of the embedded protocol that a member speaks.
pub(super) fn version_of(classic: &ClassicMember) -> i16 {
    let said = classic.protocols.first().map(|(_, said)| Subscription::read(said));
    said.and_then(Result::ok).map_or(0, |said| said.version)
}

/// The protocol that all members can speak and most prefer; the first by name of several.
fn choose(members: &[ClassicConsumer]) -> Option<String> {
    let speaks = |member: &ClassicConsumer, name: &str| {
        member.protocols.iter().any(|(protocol, _)| protocol == name)
    };
    let common = |name: &str| members.iter().all(|member| speaks(member, name));
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for member in members {
        let mut names = member.protocols.iter().map(|(name, _)| name.as_str());
        *votes.entry(names.find(|name| common(name))?).or_default() += 1;
    }
    let best = votes.into_iter().rev().max_by_key(|(_, votes)| *votes);
    best.map(|(name, _)| name.to_owned())
}
