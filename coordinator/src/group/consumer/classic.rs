//! Members that speak the classic protocol in a consumer group, while the group migrates. Their
//! generation is their member epoch; each JoinGroup is a heartbeat that says what they want and
//! have, and SyncGroup fetches what the group gives them. Kafka: `GroupMetadataManager`'s
//! `classicGroup…ToConsumerGroup`.

use std::rc::Rc;

use engine::ids::TopicId;

use super::convert::{by_id, by_name, version_of};
use super::draft::Draft;
use super::embedded::{self, CONSUMER, Subscription};
use super::heartbeat::{find, replace};
use super::records::{ClassicMember, Current, MemberState, MemberValue};
use super::soft::{Alarm, millis};
use super::{ConsumerGroup, Effects, Fault, Scene, Soft};

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The member; empty if it has no id yet.
    pub member: String,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<String>,
    /// How long it may be silent, in milliseconds.
    pub session_ms: i32,
    /// How long it may take to rejoin, in milliseconds.
    pub rebalance_ms: i32,
    /// What kind of protocols.
    pub protocol_type: String,
    /// What it can speak, preferred first: name, and its subscription in it.
    pub protocols: Vec<(String, Rc<[u8]>)>,
    /// Whether a member without an id is given one first, and joins with the next request
    /// (JoinGroup from version 4 on).
    pub id_required: bool,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
}

/// What a member of the classic protocol is told when it has joined. It is never the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub member: String,
    /// Its generation.
    pub generation: i32,
    /// The protocol that it is to speak.
    pub protocol: String,
}

/// What a member of the classic protocol says of itself in other requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub member: String,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<String>,
    /// Its generation.
    pub generation: i32,
}

/// JoinGroup of a member of the classic protocol to a consumer group.
pub fn join(
    name: &Rc<str>,
    group: &ConsumerGroup,
    soft: &mut Soft,
    scene: Scene<'_>,
    join: Join,
    out: &mut Effects,
) -> Result<Joined, Fault> {
    let first = join.protocols.first().ok_or(Fault::InconsistentGroupProtocol)?;
    if join.protocol_type != CONSUMER || !speaks_with_all(group, &join) {
        return Err(Fault::InconsistentGroupProtocol);
    }
    let said = Subscription::read(&first.1).map_err(|_| Fault::InconsistentGroupProtocol)?;
    let protocol = first.0.clone();
    let is_known = group.member(&join.member).is_some();
    let place = join.instance.as_deref().and_then(|instance| group.static_member(instance));
    if group.members().len() >= scene.config.members_max && !is_known && place.is_none() {
        return Err(Fault::GroupMaxSizeReached);
    }
    let id: Rc<str> = if join.member.is_empty() {
        let [high, low] = scene.at.random;
        let prefix = join.instance.as_ref().unwrap_or(&join.client_id);
        let id = format!("{prefix}-{}", TopicId::random(high, low));
        if join.id_required && join.instance.is_none() {
            return Err(Fault::MemberIdRequired(id));
        }
        id.into()
    } else {
        if join.instance.is_some() {
            find(group, &join.member.as_str().into(), join.instance.as_deref())?;
        }
        // Kafka takes it in again; but it does not know that it was struck off, and would go on
        // with what others have by now until it is told what it has. As in a classic group it is
        // told to begin anew.
        if !is_known && said.generation >= 0 {
            return Err(Fault::UnknownMemberId);
        }
        join.member.as_str().into()
    };

    let mut draft = Draft::new(name, Some(group), scene);
    let mut replaced_another_kind = false;
    if let Some(old) = place.filter(|old| **old != id) {
        let old = old.clone();
        replaced_another_kind = group.member(&old).is_some_and(|old| old.classic.is_none());
        replace(&mut draft, soft, &old, &id);
    }
    let is_new = draft.group().member(&id).is_none();
    // By its own word, of whatever generation: what it may still use nobody else is given.
    let owned = by_id(&said.owned, scene.topics);
    let (session_ms, rebalance_ms) = (join.session_ms, join.rebalance_ms);
    let bump = draft.update_member(&id, member(join, said)) || is_new;
    draft.advance(soft, bump);
    let Some(after) = draft.reconcile(soft, &id, Some(&owned)) else {
        return Err(Fault::UnknownMemberId);
    };
    draft.check_size(soft)?;
    if replaced_another_kind && draft.downgrade(soft, out) {
        draft.finish(out);
        return Ok(Joined { member: id.to_string(), generation: after.epoch, protocol });
    }
    draft.finish(out);
    soft.unset(&id, Alarm::Join);
    soft.set(&id, Alarm::Sync, scene.at.now.after(millis(rebalance_ms)));
    soft.set(&id, Alarm::Session, scene.at.now.after(millis(session_ms)));
    Ok(Joined { member: id.to_string(), generation: after.epoch, protocol })
}

/// Whether some protocol of the member's is spoken by all others of the classic protocol.
fn speaks_with_all(group: &ConsumerGroup, join: &Join) -> bool {
    let is_other = |id: &Rc<str>| {
        let instance = group.member(id).and_then(|member| member.instance.as_deref());
        **id != *join.member && (instance.is_none() || instance != join.instance.as_deref())
    };
    let others = || {
        let others = group.members().filter(|(id, _)| is_other(id));
        others.filter_map(|(_, member)| member.classic.as_ref())
    };
    join.protocols.iter().any(|(name, _)| {
        others().all(|other| other.protocols.iter().any(|(protocol, _)| protocol == name))
    })
}

fn member(join: Join, said: Subscription) -> MemberValue {
    MemberValue {
        instance: join.instance.map(Rc::from),
        rack: said.rack,
        client_id: join.client_id,
        client_host: join.client_host,
        topics: said.topics.into_iter().collect(),
        pattern: None,
        rebalance_ms: join.rebalance_ms,
        assignor: None,
        classic: Some(ClassicMember { session_ms: join.session_ms, protocols: join.protocols }),
    }
}

/// A member of the classic protocol.
struct Found<'g> {
    id: Rc<str>,
    current: Rc<Current>,
    value: &'g MemberValue,
    classic: &'g ClassicMember,
}

fn find_classic<'g>(group: &'g ConsumerGroup, present: &Present) -> Result<Found<'g>, Fault> {
    let id: Rc<str> = present.member.as_str().into();
    let current = find(group, &id, present.instance.as_deref())?;
    let value = group.member(&id).ok_or(Fault::UnknownMemberId)?;
    let classic = value.classic.as_ref().ok_or(Fault::UnknownMemberId)?;
    if present.generation != current.epoch {
        return Err(Fault::IllegalGeneration);
    }
    Ok(Found { id, current, value, classic })
}

/// SyncGroup of a member of the classic protocol: what it has from now on, in the embedded
/// protocol. `protocol` is what it takes its protocol to be, if it says so.
pub fn sync(
    group: &ConsumerGroup,
    soft: &mut Soft,
    scene: Scene<'_>,
    present: &Present,
    protocol: Option<&str>,
) -> Result<Vec<u8>, Fault> {
    let Found { id, current, value, classic } = find_classic(group, present)?;
    let spoken = classic.protocols.first().map(|(name, _)| name.as_str());
    if protocol.is_some() && protocol != spoken {
        return Err(Fault::InconsistentGroupProtocol);
    }
    // One that is giving something up has rejoined already; its next rebalance begins with a
    // heartbeat.
    if group.epoch() > current.epoch && current.state != MemberState::UnrevokedPartitions {
        rejoin(soft, &id, value, scene);
        return Err(Fault::RebalanceInProgress);
    }
    soft.unset(&id, Alarm::Sync);
    soft.watch(&id, value, &scene.times, scene.at.now);
    let partitions = by_name(&current.partitions(), scene.topics);
    Ok(embedded::write_assignment(version_of(classic), &partitions))
}

/// Heartbeat of a member of the classic protocol: an error if it has to join again, because the
/// group moved on, or it has to give something up, or what it was waiting for is free.
pub fn heartbeat(
    group: &ConsumerGroup,
    soft: &mut Soft,
    scene: Scene<'_>,
    present: &Present,
) -> Result<(), Fault> {
    let Found { id, current, value, .. } = find_classic(group, present)?;
    soft.watch(&id, value, &scene.times, scene.at.now);
    let has_to = current.epoch < group.epoch()
        || match current.state {
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => group.something_is_free(&id, &current),
            MemberState::Stable | MemberState::Unknown => false,
        };
    if !has_to {
        return Ok(());
    }
    rejoin(soft, &id, value, scene);
    Err(Fault::RebalanceInProgress)
}

fn rejoin(soft: &mut Soft, id: &Rc<str>, value: &MemberValue, scene: Scene<'_>) {
    soft.set_once(id, Alarm::Join, scene.at.now.after(millis(value.rebalance_ms)));
}

/// LeaveGroup from a consumer group, of members of either protocol: by id, or by
/// `group.instance.id` (an administrator's way). What became of each, in their order.
pub fn leave(
    name: &Rc<str>,
    group: &ConsumerGroup,
    soft: &mut Soft,
    scene: Scene<'_>,
    leavers: &[(String, Option<String>)],
    out: &mut Effects,
) -> Vec<Result<(), Fault>> {
    let mut draft = Draft::new(name, Some(group), scene);
    let mut any = false;
    let mut one = |(member, instance): &(String, Option<String>)| {
        let id = match instance.as_deref().filter(|_| member.is_empty()) {
            Some(instance) => {
                let id = draft.group().static_member(instance);
                id.ok_or(Fault::UnknownMemberId)?.clone()
            }
            None => {
                let id: Rc<str> = member.as_str().into();
                find(draft.group(), &id, instance.as_deref())?;
                id
            }
        };
        draft.remove_member(&id, soft);
        any = true;
        Ok(())
    };
    let results = leavers.iter().map(&mut one).collect();
    if any {
        draft.settle(soft, out);
    }
    results
}

impl ConsumerGroup {
    /// Whether there is anything in the member's target that it does not have and could have.
    fn something_is_free(&self, id: &str, current: &Current) -> bool {
        let has = |topic: &TopicId, partition| {
            current.assigned.get(topic).is_some_and(|all| all.contains_key(partition))
        };
        self.target(id).iter().any(|(topic, partitions)| {
            let mut missing = partitions.iter().filter(|partition| !has(topic, partition));
            missing.any(|partition| self.is_free_for(current, *topic, *partition))
        })
    }
}
