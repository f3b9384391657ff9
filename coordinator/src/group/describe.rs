//! DescribeGroups, ListGroups and DeleteGroups.

use std::rc::Rc;

use super::classic::member::Member;
use super::classic::{CONSUMER, Live, Phase};
use super::consumer;
use super::records::{OffsetKey, Record};
use super::request::{Described, DescribedMember, GroupFault, List, Listed};
use super::{Group, Hard, Soft};

/// Kafka's name of a group that is not there.
const DEAD: &str = "Dead";

/// A classic group in full. One of the consumer protocol is none to who asks for classic ones.
pub(super) fn describe(hard: &Hard, soft: &Soft, name: String) -> Described {
    let found = hard.groups.get(&name);
    let Some(group) = found.filter(|group| matches!(group, Group::Classic(_))) else {
        let fault = match found {
            Some(_) => Some(GroupFault::OtherType),
            None => Some(GroupFault::GroupIdNotFound),
        };
        let (protocol_type, protocol) = Default::default();
        return Described {
            group: name,
            fault,
            state: DEAD,
            protocol_type,
            protocol,
            members: Vec::new(),
        };
    };
    let (state, protocol_type) = standing(group, soft.live.get(&*name));
    let stable = soft.live.get(&*name).filter(|live| live.phase() == Phase::Stable);
    let protocol = stable.and_then(Live::protocol);
    let member = |(id, member): (&Rc<str>, &Member)| DescribedMember {
        id: id.to_string(),
        instance: member.instance.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: member.metadata(protocol).to_vec(),
        assignment: stable.map(|_| member.assignment.to_vec()).unwrap_or_default(),
    };
    let members = soft.live.get(&*name).map(|live| live.members().iter().map(member).collect());
    Described {
        state,
        fault: None,
        protocol_type: protocol_type.into(),
        protocol: protocol.unwrap_or_default().into(),
        members: members.unwrap_or_default(),
        group: name,
    }
}

/// A group's state and protocol type.
fn standing<'a>(group: Group<'a>, live: Option<&'a Live>) -> (&'static str, &'a str) {
    match (group, live) {
        (Group::Consumer(group), _) => (group.state().name(), CONSUMER),
        (_, Some(live)) => (live.phase().name(), live.protocol_type().unwrap_or_default()),
        (Group::Classic(Some(value)), None) => (Phase::Empty.name(), &value.protocol_type),
        (Group::Classic(None), None) => (Phase::Empty.name(), ""),
    }
}

/// The groups that are in one of the states and of one of the types.
pub(super) fn list(hard: &Hard, soft: &Soft, asked: &List) -> Vec<Listed> {
    let among = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|one| one.eq_ignore_ascii_case(name))
    };
    let listed = hard.groups.iter().filter_map(|(name, group)| {
        let (state, protocol_type) = standing(group, soft.live.get(name));
        let group_type = group.type_name();
        (among(&asked.states, state) && among(&asked.types, group_type)).then(|| Listed {
            group: name.to_string(),
            protocol_type: protocol_type.into(),
            state,
            group_type,
        })
    });
    listed.collect()
}

/// Forgets a group and all that it committed, if it has no members.
pub(super) fn delete(
    hard: &Hard,
    soft: &mut Soft,
    name: &str,
    records: &mut Vec<Record>,
) -> Result<(), GroupFault> {
    let group = hard.groups.get(name).ok_or(GroupFault::GroupIdNotFound)?;
    let is_used = match group {
        Group::Classic(_) => soft.live.get(name).is_some_and(|live| live.phase() != Phase::Empty),
        Group::Consumer(group) => group.members().len() > 0,
    };
    if is_used {
        return Err(GroupFault::NonEmptyGroup);
    }
    // Who was given an id and has not come yet has to ask anew.
    soft.live.remove(name);
    for (topic, partition, _) in hard.offsets.of_group(name) {
        let key = OffsetKey { group: name.into(), topic: topic.to_string(), partition };
        records.push(Record::Offset(key, None));
    }
    match group {
        Group::Classic(_) => records.push(Record::Classic(name.into(), None)),
        Group::Consumer(group) => {
            let name: Rc<str> = name.into();
            let gone = |change| consumer::Record { group: name.clone(), change };
            records.extend(group.tombstones().into_iter().map(gone).map(Record::Consumer));
        }
    }
    Ok(())
}
