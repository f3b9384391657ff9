//! Consumer groups in the machine: whom a request is for, what comes of it, and the way between
//! the two protocols. What a consumer group decides is in [`super::consumer`].

use std::rc::Rc;
use std::time::Duration;

use super::classic::{CONSUMER, Live, Phase};
use super::consumer::heartbeat::{Beaten, Heartbeat, heartbeat};
use super::consumer::topics::{Topics, UNKNOWN, View};
use super::consumer::{
    self, ConsumerGroup, Effects, Fault, JOIN_EPOCH, Mutant, Scene, convert, expiry,
};
use super::records::{ClassicValue, Record};
use super::request::{
    self, ConsumerHeartbeat, Generation, GroupFault, Join, Joined, Leave, Left, Reply, Sync, Synced,
};
use super::timers::Alarm;
use super::{Group, Groups, Hard, Soft, check_name, desk};
use crate::machine::{Outcome, Seen, Token};

/// How long members that are silent are let be where topics are not known yet but needed.
const TOPICS_PAUSE: Duration = Duration::from_secs(1);

/// The consumer group of this name.
pub(super) fn find<'a>(hard: &'a Hard, name: &str) -> Option<(&'a Rc<str>, &'a ConsumerGroup)> {
    match hard.groups.find(name)? {
        (name, Group::Consumer(group)) => Some((name, group)),
        (_, Group::Classic(_)) => None,
    }
}

fn scene<'a>(seen: Seen<'a, Groups>, topics: &'a View, group: &str) -> Scene<'a> {
    let config = &seen.config.consumer;
    Scene { config, times: topics.own(group).within(&config.times), topics, at: seen.at }
}

impl Soft {
    /// Looks at the topics as `view` shows them, unless it knows of newer ones.
    pub(super) fn see(&mut self, seen: Seen<'_, Groups>, view: View) {
        if view.version() <= self.topics.version() {
            return;
        }
        let is_first = self.topics.version() == UNKNOWN;
        self.topics = view;
        if is_first {
            self.take_up_times(seen);
        }
    }

    /// Groups that were taken up before anything was known of their own settings go by them.
    fn take_up_times(&mut self, seen: Seen<'_, Groups>) {
        for (name, mut life) in std::mem::take(&mut self.consumers) {
            if let Some((_, group)) = find(seen.hard, &name) {
                let times = scene(seen, &self.topics, &name).times;
                life.take_up_times(group, &times, seen.at.now);
            }
            self.watch(name, life);
        }
    }

    /// Goes on watching the members of a consumer group; forgets it if there are none.
    fn watch(&mut self, name: Rc<str>, life: consumer::Soft) {
        let alarm = Alarm::Consumer(name.clone());
        match life.deadline() {
            Some(at) => {
                self.timers.set(alarm, at);
                self.consumers.insert(name, life);
            }
            None => {
                self.timers.unset(&alarm);
                self.consumers.remove(&name);
            }
        }
    }

    /// Makes a decision come true: `life` is the group's from now on.
    fn keep(
        &mut self,
        seen: Seen<'_, Groups>,
        name: Rc<str>,
        life: consumer::Soft,
        effects: Effects,
        out: &mut Outcome<Groups>,
    ) {
        out.records.extend(effects.records.into_iter().map(Record::Consumer));
        self.watch(name.clone(), life);
        let Some(classic) = effects.downgraded else { return };
        tracing::info!(group = %name, members = classic.members.len(), "is a classic group now");
        let mut live = Live::from_consumers(classic, seen.at.wall);
        let mut desk = desk(seen, name.clone(), &mut self.timers, out);
        // Whoever takes over before they have assigned anew has to know that they have not.
        let mut value = ClassicValue { leader: None, ..live.to_value() };
        if seen.config.consumer.mutant == Some(Mutant::DowngradeTakenForAssigned) {
            value = live.to_value();
        }
        desk.remember(value);
        live.come_from_consumers(&mut desk);
        self.live.insert(name, live);
    }
}

/// Begins to watch the members of a group that a machine found in its log.
pub(super) fn take_up(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    name: &Rc<str>,
    group: &ConsumerGroup,
) {
    let mut life = consumer::Soft::default();
    // Its own are not known before somebody shows them.
    let times = match seen.config.consumer.mutant {
        Some(Mutant::OwnTimesForgotten) => seen.config.consumer.times.usual,
        _ => seen.config.consumer.times.unknown(),
    };
    life.take_up(group, &seen.config.consumer, &times, seen.at.now);
    soft.watch(name.clone(), life);
}

/// Something is due for a member of the group.
pub(super) fn on_alarm(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    name: &Rc<str>,
    out: &mut Outcome<Groups>,
) {
    let Some((name, group)) = find(seen.hard, name) else { return };
    let Some(mut life) = soft.consumers.remove(name) else { return };
    let (topics, mut effects) = (soft.topics.clone(), Effects::default());
    let before = (topics.version() == UNKNOWN).then(|| life.clone());
    expiry::expire(name, group, &mut life, scene(seen, &topics, name), &mut effects);
    if let Some(before) = before.filter(|_| effects.downgraded.is_some()) {
        // What its members have cannot be named. They say soon that they live, and what topics
        // there are with it; or they are gone, too.
        soft.consumers.insert(name.clone(), before);
        let again = seen.at.now.after(TOPICS_PAUSE);
        return soft.timers.set(Alarm::Consumer(name.clone()), again);
    }
    soft.keep(seen, name.clone(), life, effects, out);
}

/// ConsumerGroupHeartbeat.
pub(super) fn decide_heartbeat(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    from: Token,
    asked: ConsumerHeartbeat,
    out: &mut Outcome<Groups>,
) {
    let ConsumerHeartbeat { group: name, beat, topics } = asked;
    soft.see(seen, topics);
    let (epoch, records) = (beat.epoch, out.records.len());
    let answer = match seen.hard.groups.find(&name) {
        Some((name, Group::Consumer(group))) => stay(seen, soft, name, group, beat, out),
        Some((name, Group::Classic(value))) => match soft.live.get(name) {
            Some(live) if live.phase() != Phase::Empty => upgrade(seen, soft, name, beat, out),
            _ => begin(seen, soft, name.clone(), value, beat, out),
        },
        None => begin(seen, soft, name.into(), None, beat, out),
    };
    // That all is as the member knows it says nothing that it was not told before; it must not be
    // taken for dead because nothing becomes durable for a while.
    let is_quiet = out.records.len() == records
        && answer.as_ref().is_ok_and(|told| told.epoch == epoch && told.assignment.is_none());
    let reply = Reply::ConsumerHeartbeat(answer);
    match is_quiet {
        true => out.reply_now(from, reply),
        false => out.reply(from, reply),
    }
}

/// A heartbeat to a group that is there.
fn stay(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    name: &Rc<str>,
    group: &ConsumerGroup,
    beat: Heartbeat,
    out: &mut Outcome<Groups>,
) -> Result<Beaten, Fault> {
    let mut life = soft.consumers.remove(name).unwrap_or_default();
    let (topics, mut effects) = (soft.topics.clone(), Effects::default());
    let scene = scene(seen, &topics, name);
    let answer = heartbeat(name, Some(group), &mut life, scene, beat, &mut effects);
    soft.keep(seen, name.clone(), life, effects, out);
    answer
}

/// A heartbeat where no group is, or a classic one without members, which makes room: its name and
/// offsets stay.
fn begin(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    name: Rc<str>,
    classic: Option<&Rc<ClassicValue>>,
    beat: Heartbeat,
    out: &mut Outcome<Groups>,
) -> Result<Beaten, Fault> {
    let (mut life, mut effects) = (consumer::Soft::default(), Effects::default());
    let topics = soft.topics.clone();
    let scene = scene(seen, &topics, &name);
    let beaten = heartbeat(&name, None, &mut life, scene, beat, &mut effects)?;
    if let Some(mut live) = soft.live.remove(&name) {
        live.dissolve(&mut desk(seen, name.clone(), &mut soft.timers, out));
    }
    if classic.is_some() {
        out.record(Record::Classic(name.to_string(), None));
    }
    soft.keep(seen, name, life, effects, out);
    Ok(beaten)
}

/// A heartbeat to a classic group with members: it becomes a consumer group, if it can and the
/// member joins. Kafka tells the member that there is no such group if it cannot.
fn upgrade(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    name: &Rc<str>,
    beat: Heartbeat,
    out: &mut Outcome<Groups>,
) -> Result<Beaten, Fault> {
    let live = soft.live.get(name).expect("the caller found it");
    if beat.epoch != JOIN_EPOCH || live.protocol_type() != Some(CONSUMER) {
        return Err(Fault::GroupIdNotFound);
    }
    let topics = soft.topics.clone();
    let scene = scene(seen, &topics, name);
    let (group, records) = convert::upgrade(name, &live.to_consumers(), &scene).map_err(|why| {
        tracing::info!(group = %name, %why, "cannot become a consumer group");
        Fault::GroupIdNotFound
    })?;
    let (mut life, mut effects) = (consumer::Soft::default(), Effects::default());
    let careful = seen.config.consumer.mutant != Some(Mutant::WaitersForgotten);
    if careful {
        life.take_up(&group, &seen.config.consumer, &scene.times, seen.at.now);
    }
    let beaten = heartbeat(name, Some(&group), &mut life, scene, beat, &mut effects)?;
    let bytes: usize = records.iter().chain(&effects.records).map(consumer::Record::bytes).sum();
    if bytes > seen.config.records_bytes_max {
        return Err(Fault::GroupTooLarge);
    }
    tracing::info!(group = %name, members = group.members().len(), "is a consumer group now");
    let mut live = soft.live.remove(name).expect("it was just there");
    if careful {
        live.dissolve(&mut desk(seen, name.clone(), &mut soft.timers, out));
    }
    out.record(Record::Classic(name.to_string(), None));
    out.records.extend(records.into_iter().map(Record::Consumer));
    soft.keep(seen, name.clone(), life, effects, out);
    Ok(beaten)
}

/// JoinGroup of a member of the classic protocol to a consumer group with members.
pub(super) fn decide_join(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    (name, group): (&Rc<str>, &ConsumerGroup),
    join: Join,
    out: &mut Outcome<Groups>,
) -> Joined {
    let mut life = soft.consumers.remove(name).unwrap_or_default();
    let (topics, mut effects) = (soft.topics.clone(), Effects::default());
    let member = join.member.clone();
    let asked = consumer::classic::Join {
        member: join.member,
        instance: join.instance,
        session_ms: join.session_ms,
        rebalance_ms: join.rebalance_ms,
        protocol_type: join.protocol_type,
        protocols: join.protocols.into_iter().map(|one| (one.name, one.metadata.into())).collect(),
        id_required: join.takes_member_id,
        client_id: join.client_id,
        client_host: join.client_host,
    };
    let scene = scene(seen, &topics, name);
    let answer = consumer::classic::join(name, group, &mut life, scene, asked, &mut effects);
    soft.keep(seen, name.clone(), life, effects, out);
    match answer {
        Ok(joined) => {
            // Nobody leads: the broker assigns. Whoever is named must not be the one who asked.
            let generation = Generation {
                id: joined.generation,
                protocol_type: Some(CONSUMER.into()),
                protocol: Some(joined.protocol),
                leader: String::new(),
                skip_assignment: false,
                members: Vec::new(),
            };
            Joined { member: joined.member, generation: Ok(generation) }
        }
        Err(Fault::MemberIdRequired(member)) => {
            Joined { member, generation: Err(GroupFault::MemberIdRequired) }
        }
        Err(fault) => Joined { member, generation: Err(fault.into()) },
    }
}

/// SyncGroup of a member of the classic protocol.
pub(super) fn decide_sync(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    (name, group): (&Rc<str>, &ConsumerGroup),
    sync: Sync,
) -> Result<Synced, GroupFault> {
    if sync.protocol_type.as_deref().is_some_and(|kind| kind != CONSUMER) {
        return Err(GroupFault::InconsistentGroupProtocol);
    }
    let present = consumer::classic::Present {
        member: sync.member,
        instance: sync.instance,
        generation: sync.generation,
    };
    let mut life = soft.consumers.remove(name).unwrap_or_default();
    let topics = soft.topics.clone();
    let (scene, protocol) = (scene(seen, &topics, name), sync.protocol.as_deref());
    let answer = consumer::classic::sync(group, &mut life, scene, &present, protocol);
    soft.watch(name.clone(), life);
    let assignment = answer?;
    Ok(Synced { protocol_type: Some(CONSUMER.into()), protocol: sync.protocol, assignment })
}

/// Heartbeat of a member of the classic protocol.
pub(super) fn decide_classic_heartbeat(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    (name, group): (&Rc<str>, &ConsumerGroup),
    beat: request::Heartbeat,
) -> Result<(), GroupFault> {
    let present = consumer::classic::Present {
        member: beat.member,
        instance: beat.instance,
        generation: beat.generation,
    };
    let mut life = soft.consumers.remove(name).unwrap_or_default();
    let topics = soft.topics.clone();
    let scene = scene(seen, &topics, name);
    let answer = consumer::classic::heartbeat(group, &mut life, scene, &present);
    soft.watch(name.clone(), life);
    Ok(answer?)
}

/// LeaveGroup from a consumer group.
pub(super) fn decide_leave(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    (name, group): (&Rc<str>, &ConsumerGroup),
    leave: Leave,
    out: &mut Outcome<Groups>,
) -> Vec<Left> {
    let leavers: Vec<_> =
        leave.members.into_iter().map(|leaver| (leaver.member, leaver.instance)).collect();
    let mut life = soft.consumers.remove(name).unwrap_or_default();
    let (topics, mut effects) = (soft.topics.clone(), Effects::default());
    let scene = scene(seen, &topics, name);
    let left = consumer::classic::leave(name, group, &mut life, scene, &leavers, &mut effects);
    soft.keep(seen, name.clone(), life, effects, out);
    let told = |((member, instance), left): ((String, Option<String>), Result<(), Fault>)| Left {
        member,
        instance,
        fault: left.err().map(GroupFault::from),
    };
    leavers.into_iter().zip(left).map(told).collect()
}

/// ConsumerGroupDescribe.
pub(super) fn describe(
    seen: Seen<'_, Groups>,
    name: String,
) -> (String, Result<consumer::describe::Described, GroupFault>) {
    let described = check_name(&name).and_then(|()| match seen.hard.groups.get(&name) {
        Some(Group::Consumer(group)) => Ok(group.describe(&seen.config.consumer)),
        Some(Group::Classic(_)) => Err(GroupFault::OtherType),
        None => Err(GroupFault::GroupIdNotFound),
    });
    (name, described)
}
