//! ConsumerGroupHeartbeat: how a member joins, lives, and leaves. Kafka:
//! `GroupMetadataManager.consumerGroupHeartbeat`.

use std::rc::Rc;
use std::time::Duration;

use engine::ids::TopicId;

use super::bytes::STRING_BYTES_MAX;
use super::draft::Draft;
use super::records::{Change, Current, MemberState, MemberValue};
use super::{
    AWAY_EPOCH, ConsumerGroup, Effects, Fault, JOIN_EPOCH, LEAVE_EPOCH, Mutant, Scene, Soft,
    patterns,
};
use crate::group::assignor::{Assignor, Partitions};

/// What a member says. `None` where nothing changed since its last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its id; empty if it wants to be given one, as in version 0 of the API.
    pub member: String,
    /// Its epoch; or [`JOIN_EPOCH`], [`LEAVE_EPOCH`], [`AWAY_EPOCH`].
    pub epoch: i32,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<String>,
    /// The rack that it is in.
    pub rack: Option<String>,
    /// How long it may take to give up partitions, in milliseconds.
    pub rebalance_ms: Option<i32>,
    /// The topics that it is subscribed to, by name.
    pub topics: Option<Vec<String>>,
    /// The same by a regular expression; empty: by none.
    pub pattern: Option<String>,
    /// The assignor that it prefers; empty: none.
    pub assignor: Option<String>,
    /// What it has.
    pub owned: Option<Partitions>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// Its id.
    pub member: String,
    /// Its epoch from now on.
    pub epoch: i32,
    /// When the next heartbeat is due.
    pub interval: Duration,
    /// What it is to have, exactly; `None`: as before.
    pub assignment: Option<Partitions>,
}

/// Decides one heartbeat of a member of the group `name`, which is `group` (`None`: there is no
/// such group). `soft` is the group's; of a group that is not there, a new one, to be kept only if
/// there are records.
pub fn heartbeat(
    name: &Rc<str>,
    group: Option<&ConsumerGroup>,
    soft: &mut Soft,
    scene: Scene<'_>,
    mut beat: Heartbeat,
    out: &mut Effects,
) -> Result<Beaten, Fault> {
    check(name, &beat, scene)?;
    match (group, beat.epoch) {
        (None, JOIN_EPOCH) => {}
        (None, _) => return Err(Fault::GroupIdNotFound),
        (Some(group), LEAVE_EPOCH | AWAY_EPOCH) => {
            return leave(name, group, soft, scene, &beat, out);
        }
        (Some(_), _) => {}
    }
    if beat.member.is_empty() {
        let [high, low] = scene.at.random;
        beat.member = TopicId::random(high, low).to_string();
    }
    join_or_stay(name, group, soft, scene, &beat, out)
}

fn check(name: &str, beat: &Heartbeat, scene: Scene<'_>) -> Result<(), Fault> {
    let invalid = |why| Err(Fault::InvalidRequest(why));
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
    let keys = [Some(name), Some(&beat.member), beat.instance.as_deref()];
    if name.is_empty() {
        return invalid("the group has no name");
    }
    if keys.into_iter().flatten().any(|key| key.len() > STRING_BYTES_MAX - 64) {
        return invalid("a name is too long");
    }
    if is_empty(&beat.instance) || is_empty(&beat.rack) {
        return invalid("an instance id or rack is empty");
    }
    if beat.member.is_empty() && beat.epoch != JOIN_EPOCH {
        return invalid("the member has no id");
    }
    match beat.epoch {
        JOIN_EPOCH => {
            if beat.rebalance_ms.is_none() {
                return invalid("whoever joins says how long it may take to give up partitions");
            }
            if beat.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("whoever joins has no partitions");
            }
            if beat.topics.is_none() && beat.pattern.is_none() {
                return invalid("whoever joins says which topics it wants");
            }
        }
        AWAY_EPOCH if beat.instance.is_none() => {
            return invalid("only a static member leaves to come back");
        }
        ..AWAY_EPOCH => return invalid("there is no such epoch"),
        _ => {}
    }
    let assignors = &scene.config.assignors;
    let is_known = |text: &String| {
        text.is_empty() || Assignor::by_name(text).is_some_and(|a| assignors.contains(&a))
    };
    if !beat.assignor.as_ref().is_none_or(is_known) {
        let names: Vec<&str> = assignors.iter().map(|assignor| assignor.name()).collect();
        return Err(Fault::UnsupportedAssignor(names.join(", ")));
    }
    Ok(())
}

fn join_or_stay(
    name: &Rc<str>,
    group: Option<&ConsumerGroup>,
    soft: &mut Soft,
    scene: Scene<'_>,
    beat: &Heartbeat,
    out: &mut Effects,
) -> Result<Beaten, Fault> {
    let mut draft = Draft::new(name, group, scene);
    let is_full = draft.group().members().len() >= scene.config.members_max;
    if is_full && draft.group().member(&beat.member).is_none() {
        return Err(Fault::GroupMaxSizeReached);
    }
    let id: Rc<str> = match group.and_then(|group| group.members.get_key_value(&*beat.member)) {
        Some((id, _)) => id.clone(),
        None => beat.member.as_str().into(),
    };
    if beat.epoch != JOIN_EPOCH {
        let current = find(draft.group(), &id, beat.instance.as_deref())?;
        check_epoch(&current, beat.epoch, beat.owned.as_ref(), scene.config.mutant)?;
    }
    let is_new = draft.group().member(&id).is_none();
    let predecessor = match (&beat.instance, beat.epoch) {
        (Some(instance), JOIN_EPOCH) => predecessor(draft.group(), &id, instance)?,
        _ => None,
    };
    let known = draft.group().member(predecessor.as_ref().unwrap_or(&id)).cloned();
    let member = merge(known.as_deref(), beat);
    check_pattern(draft.group(), soft, &member)?;

    if let Some(old) = &predecessor {
        replace(&mut draft, soft, old, &id);
    }
    let before = draft.group().current(&id);
    let bump = draft.update_member(&id, member) || (is_new && predecessor.is_none());
    draft.advance(soft, bump);
    let Some(after) = draft.reconcile(soft, &id, beat.owned.as_ref()) else {
        // Nothing of this is kept, so what was looked at has to be looked at again.
        (soft.topics_version, soft.assigned_at) = (None, None);
        return Err(Fault::FencedMemberEpoch { epoch: before.epoch, received: beat.epoch });
    };
    draft.check_size(soft)?;
    let member = draft.group().member(&id).cloned().expect("it was just put there");
    soft.watch(&id, &member, &scene.times, scene.at.now);

    let subscribes = beat.topics.is_some() || beat.pattern.is_some();
    let says_all = beat.rebalance_ms.is_some() && subscribes && beat.owned.is_some();
    let is_told = says_all || Draft::assignment_changed(&before, &after);
    draft.finish(out);
    Ok(Beaten {
        member: id.to_string(),
        epoch: after.epoch,
        interval: scene.times.heartbeat_interval,
        assignment: is_told.then(|| after.partitions()),
    })
}

/// Refuses an expression before anything else is decided, so that a member with a good one is
/// never told of another's.
fn check_pattern(
    group: &ConsumerGroup,
    soft: &mut Soft,
    member: &MemberValue,
) -> Result<(), Fault> {
    let Some(text) = &member.pattern else { return Ok(()) };
    if !group.patterns.contains_key(text) && !soft.compiled.contains_key(text) {
        let compiled = patterns::compile(text).map_err(Fault::InvalidRegularExpression)?;
        soft.compiled.insert(text.clone(), compiled);
    }
    Ok(())
}

/// The present state of a member that says that it is one.
pub(super) fn find(
    group: &ConsumerGroup,
    id: &Rc<str>,
    instance: Option<&str>,
) -> Result<Rc<Current>, Fault> {
    if let Some(instance) = instance {
        match group.static_member(instance) {
            None => return Err(Fault::UnknownMemberId),
            Some(other) if other != id => return Err(Fault::FencedInstanceId),
            Some(_) => {}
        }
    }
    group.member(id).map(|_| group.current(id)).ok_or(Fault::UnknownMemberId)
}

/// A member may be in the epoch that it was told last, or, if it missed the answer, in the one
/// before, as long as it has nothing that it is not to have.
fn check_epoch(
    current: &Current,
    received: i32,
    owned: Option<&Partitions>,
    mutant: Option<Mutant>,
) -> Result<(), Fault> {
    if mutant == Some(Mutant::FencingForgotten) || received == current.epoch {
        return Ok(());
    }
    let is_subset = owned.is_some_and(|owned| {
        owned.iter().all(|(topic, partitions)| {
            let assigned = current.assigned.get(topic);
            partitions.iter().all(|p| assigned.is_some_and(|all| all.contains_key(p)))
        })
    });
    if received < current.epoch && received == current.previous_epoch && is_subset {
        return Ok(());
    }
    Err(Fault::FencedMemberEpoch { epoch: current.epoch, received })
}

/// Whose place a static member takes that joins: nobody's if the instance is new or it is the same
/// member; that of the member that has left to come back, or that speaks the classic protocol, which
/// cannot say so; and an error while another is there.
fn predecessor(
    group: &ConsumerGroup,
    id: &Rc<str>,
    instance: &str,
) -> Result<Option<Rc<str>>, Fault> {
    match group.static_member(instance) {
        None => Ok(None),
        Some(old) if group.current(old).epoch == AWAY_EPOCH => Ok(Some(old.clone())),
        Some(old) if old == id => Ok(None),
        Some(old) if group.member(old).is_some_and(|old| old.classic.is_some()) => {
            Ok(Some(old.clone()))
        }
        Some(_) => Err(Fault::UnreleasedInstanceId),
    }
}

/// Gives the place of `old`, and all that it had, to `new`, which begins in epoch 0.
pub(super) fn replace(draft: &mut Draft<'_>, soft: &mut Soft, old: &Rc<str>, new: &Rc<str>) {
    let member = draft.group().member(old).cloned().expect("it is a member");
    let target = draft.group().target(old);
    let current = draft.group().current(old);
    let current = Current {
        epoch: JOIN_EPOCH,
        previous_epoch: JOIN_EPOCH,
        state: MemberState::Stable,
        assigned: current.assigned.clone(),
        revoking: Default::default(),
    };
    soft.forget(old);
    if old != new && draft.scene.config.mutant != Some(Mutant::StaticChangeForgotten) {
        draft.put(Change::Current(old.clone(), None));
        draft.put(Change::Target(old.clone(), None));
        draft.put(Change::Member(old.clone(), None));
    }
    draft.put(Change::Member(new.clone(), Some(member)));
    draft.put(Change::Target(new.clone(), Some(target)));
    draft.put(Change::Current(new.clone(), Some(Rc::new(current))));
}

/// What a member is, by what was known and what it says now.
fn merge(known: Option<&MemberValue>, beat: &Heartbeat) -> MemberValue {
    let mut member = known.cloned().unwrap_or_else(MemberValue::nothing);
    member.classic = None;
    member.client_id.clone_from(&beat.client_id);
    member.client_host.clone_from(&beat.client_host);
    if let Some(instance) = &beat.instance {
        member.instance = Some(instance.as_str().into());
    }
    if let Some(rack) = &beat.rack {
        member.rack = Some(rack.clone());
    }
    if let Some(rebalance_ms) = beat.rebalance_ms {
        member.rebalance_ms = rebalance_ms;
    }
    if let Some(topics) = &beat.topics {
        member.topics = topics.iter().cloned().collect();
    }
    if let Some(pattern) = &beat.pattern {
        member.pattern = Some(pattern.as_str().into()).filter(|text: &Rc<str>| !text.is_empty());
    }
    if let Some(assignor) = &beat.assignor {
        member.assignor = Some(assignor.clone()).filter(|text| !text.is_empty());
    }
    member
}

fn leave(
    name: &Rc<str>,
    group: &ConsumerGroup,
    soft: &mut Soft,
    scene: Scene<'_>,
    beat: &Heartbeat,
    out: &mut Effects,
) -> Result<Beaten, Fault> {
    let id: Rc<str> = beat.member.as_str().into();
    let current = find(group, &id, beat.instance.as_deref())?;
    let mut draft = Draft::new(name, Some(group), scene);
    if beat.epoch == AWAY_EPOCH {
        // It lets go of what it was giving up; the rest stays its own until its session ends.
        let away = Current {
            epoch: AWAY_EPOCH,
            state: MemberState::Stable,
            revoking: Default::default(),
            ..(*current).clone()
        };
        soft.unset(&id, super::soft::Alarm::Rebalance);
        draft.put(Change::Current(id.clone(), Some(Rc::new(away))));
        draft.finish(out);
    } else {
        draft.remove_member(&id, soft);
        draft.settle(soft, out);
    }
    Ok(Beaten {
        member: beat.member.clone(),
        epoch: beat.epoch,
        interval: scene.times.heartbeat_interval,
        assignment: None,
    })
}
