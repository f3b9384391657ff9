//! The machine of groups: who consumes together, and how far they are.
//!
//! One machine is one partition of `__consumer_offsets`; it holds the groups whose names hash
//! there ([`hash::partition_of`]), in Kafka's record formats ([`records`]). What the log remembers
//! of a group is its last assigned generation and its offsets; the life in between, who is
//! joining and whose session lasts how long, is soft ([`classic`]). After a failover the members
//! of the last assigned generation go on as if nothing had happened, and a rebalance that was
//! under way is begun anew by its members. Groups of the consumer protocol (KIP-848) remember all
//! of what they are ([`consumer`]); a group goes over from one protocol to the other while it lives
//! ([`consumer::convert`]).
//!
//! Invariants, tried by `tests/groups.rs` on seeds, and by [`mutant`] on the code itself:
//! * **OneOwnerPerGeneration**: within a generation no two members are told the same partition.
//! * **CommittedOffsetsNeverRegress**: what was acknowledged is what is fetched, until somebody
//!   who may commits something else.
//! * **GenerationNeverRegresses**: an assigned generation is followed by larger ones only, as long
//!   as the group is there.
//! * **EveryoneIsServed**: once faults end, every member that behaves gets an assignment.
//!
//! It knows not the wire, which `net` looks at. Which topics there are, and which settings groups
//! have of their own, it is shown with requests ([`consumer::topics::View`]).

use std::collections::BTreeMap;
use std::rc::Rc;

use engine::ids::Offset;
use engine::time::Instant;

use crate::machine::{Machine, Outcome, Seen, Token};
use crate::runtime;
use classic::Live;
use classic::desk::Desk;
use consumer::topics::View;
use offsets::OffsetTable;
use offsets::sweep::{self, Sweep};
use records::Record;
use records::bytes::STRING_BYTES_MAX;
use request::{GroupFault, Heartbeat, Join, Joined, Leave, Left, Reply, Request, Sync};
use timers::{Alarm, Timers};

pub mod assignor;
pub mod classic;
pub mod config;
pub mod consumer;
mod consumers;
mod describe;
pub mod hash;
pub mod mutant;
pub mod offsets;
pub mod records;
pub mod request;
pub mod table;
pub mod timers;

pub use config::GroupConfig;
pub use hash::partition_of;
pub use mutant::Mutant;
pub use table::{Group, GroupTable};

/// The machine.
pub enum Groups {}

/// What the log remembers.
#[derive(Clone, Default)]
pub struct Hard {
    /// Every group that is there, by name.
    pub groups: GroupTable,
    /// What they committed. Of groups that are there only.
    pub offsets: OffsetTable,
}

/// What is forgotten with the machine.
#[derive(Default)]
pub struct Soft {
    /// Classic groups with members, or with somebody about to become one. Each is in
    /// [`Hard::groups`], or its record is on the way there.
    live: BTreeMap<Rc<str>, Live>,
    /// Consumer groups with members. Each is in [`Hard::groups`].
    consumers: BTreeMap<Rc<str>, consumer::Soft>,
    /// The topics as the newest request showed them.
    topics: View,
    timers: Timers,
    sweep: Sweep,
}

/// Longest name that a request may bring, in bytes, such as a group's: together with what is put
/// behind it the log can hold it.
pub const NAME_BYTES_MAX: usize = STRING_BYTES_MAX - 64;

impl Machine for Groups {
    type Config = GroupConfig;
    type Hard = Hard;
    type Soft = Soft;
    type Request = Request;
    type Reply = Reply;
    type Record = Record;

    fn begin(seen: Seen<'_, Groups>, soft: &mut Soft, out: &mut Outcome<Groups>) {
        soft.sweep.begin(seen.config, seen.at.now, &mut soft.timers);
        for (name, group) in seen.hard.groups.iter() {
            match group {
                Group::Classic(Some(value)) if !value.members.is_empty() => {
                    let mut live = Live::from_value(value);
                    let mut desk = desk(seen, name.clone(), &mut soft.timers, out);
                    live.take_up(&mut desk, value.leader.is_some());
                    soft.live.insert(name.clone(), live);
                }
                Group::Classic(_) => {}
                Group::Consumer(group) => consumers::take_up(seen, soft, name, group),
            }
        }
    }

    fn writes(request: &Request) -> bool {
        match request {
            Request::Join(_)
            | Request::Sync(_)
            | Request::Leave(_)
            | Request::ConsumerHeartbeat(_)
            | Request::CommitOffsets(_)
            | Request::DeleteOffsets(_)
            | Request::Delete(_) => true,
            Request::Heartbeat(_)
            | Request::FetchOffsets(_)
            | Request::Describe(_)
            | Request::DescribeConsumers(_)
            | Request::List(_)
            | Request::See(_)
            | Request::ForgetTopics(_) => false,
        }
    }

    fn runtime_mutant(config: &GroupConfig) -> Option<runtime::Mutant> {
        config.runtime_mutant
    }

    fn decide(
        seen: Seen<'_, Groups>,
        soft: &mut Soft,
        from: Token,
        request: Request,
        out: &mut Outcome<Groups>,
    ) {
        let reply = match request {
            Request::Join(join) => return decide_join(seen, soft, from, join, out),
            Request::Sync(sync) => return decide_sync(seen, soft, from, sync, out),
            Request::Heartbeat(beat) => return decide_heartbeat(seen, soft, from, beat, out),
            Request::ConsumerHeartbeat(beat) => {
                return consumers::decide_heartbeat(seen, soft, from, beat, out);
            }
            Request::DescribeConsumers(names) => {
                let describe = |name| consumers::describe(seen, name);
                Reply::ConsumersDescribed(names.into_iter().map(describe).collect())
            }
            Request::Leave(leave) => Reply::Left(decide_leave(seen, soft, leave, out)),
            Request::CommitOffsets(commit) => {
                let name = commit.group.as_str().into();
                let live = soft.live.get_mut(&*commit.group);
                let mut desk = desk(seen, name, &mut soft.timers, out);
                let topics = &soft.topics;
                return offsets::commit::commit(seen.hard, live, topics, &mut desk, from, commit);
            }
            Request::FetchOffsets(groups) => {
                let fetch = |one| offsets::fetch::fetch(seen.hard, one);
                Reply::Offsets(groups.into_iter().map(fetch).collect())
            }
            Request::DeleteOffsets(delete) => {
                let live = soft.live.get(&*delete.group);
                let named = check_name(&delete.group);
                Reply::OffsetsDeleted(named.and_then(|()| {
                    offsets::commit::delete(seen.hard, live, delete, &mut out.records)
                }))
            }
            Request::Describe(names) => {
                let describe = |name| describe::describe(seen.hard, soft, name);
                Reply::Described(names.into_iter().map(describe).collect())
            }
            Request::List(list) => Reply::Listed(describe::list(seen.hard, soft, &list)),
            Request::Delete(names) => Reply::Deleted(decide_delete(seen, soft, names, out)),
            Request::See(view) => {
                soft.see(seen, view);
                Reply::Seen
            }
            Request::ForgetTopics(topics) => {
                let at = (seen.at.wall, seen.at.now);
                soft.sweep.forget(topics, at, &mut soft.timers);
                Reply::Forgotten
            }
        };
        out.reply(from, reply);
    }

    fn expire(seen: Seen<'_, Groups>, soft: &mut Soft, out: &mut Outcome<Groups>) {
        while let Some(alarm) = soft.timers.due(seen.at.now) {
            let name = match &alarm {
                Alarm::Sweep => {
                    // By itself: it looks at what is remembered, and nothing else may have
                    // changed that in the same turn.
                    if out.records.is_empty() && out.replies.is_empty() {
                        sweep::step(seen, soft, &mut out.records);
                    } else {
                        soft.timers.set(Alarm::Sweep, seen.at.now);
                    }
                    return;
                }
                Alarm::Consumer(name) => {
                    consumers::on_alarm(seen, soft, name, out);
                    continue;
                }
                Alarm::Join(name) | Alarm::Sync(name) | Alarm::Session(name, _) => name.clone(),
            };
            let Some(live) = soft.live.get_mut(&name) else { continue };
            let mut desk = desk(seen, name.clone(), &mut soft.timers, out);
            match &alarm {
                Alarm::Join(_) => live.on_join_alarm(&mut desk),
                Alarm::Sync(_) => live.on_sync_alarm(&mut desk),
                Alarm::Session(_, member) => live.on_session_alarm(&mut desk, member),
                Alarm::Sweep | Alarm::Consumer(_) => unreachable!("handled above"),
            }
            soft.tidy(&name);
        }
    }

    fn deadline(soft: &Soft) -> Option<Instant> {
        soft.timers.first()
    }

    fn apply(hard: &mut Hard, _at: Offset, record: &Record) {
        match record {
            Record::Offset(key, Some(value)) => {
                let name = hard.groups.name_of(&key.group);
                hard.offsets.put(&name, &key.topic, key.partition, value);
            }
            Record::Offset(key, None) => {
                hard.offsets.remove(&key.group, &key.topic, key.partition);
            }
            Record::Classic(name, value) => {
                // Somebody else's log may have offsets left: we forget them first.
                let has_offsets = hard.offsets.has_group(name);
                hard.groups.apply_classic(name, value.as_ref(), has_offsets);
            }
            Record::Consumer(record) => {
                let has_offsets = hard.offsets.has_group(&record.group);
                hard.groups.apply_consumer(&record.group, &record.change, has_offsets);
            }
            Record::Unknown(_) => {}
        }
    }
}

impl Soft {
    /// Lets a life go that is over.
    fn tidy(&mut self, name: &str) {
        if self.live.get(name).is_some_and(Live::is_over) {
            self.live.remove(name);
            self.timers.unset(&Alarm::Join(name.into()));
            self.timers.unset(&Alarm::Sync(name.into()));
        }
    }
}

fn desk<'a>(
    seen: Seen<'a, Groups>,
    group: Rc<str>,
    timers: &'a mut Timers,
    out: &'a mut Outcome<Groups>,
) -> Desk<'a> {
    let written = match seen.hard.groups.get(&group) {
        Some(Group::Classic(value)) => value.cloned(),
        Some(Group::Consumer(_)) | None => None,
    };
    Desk { config: seen.config, at: seen.at, group, written, timers, out }
}

fn check_name(group: &str) -> Result<(), GroupFault> {
    (!group.is_empty()).then_some(()).ok_or(GroupFault::InvalidGroupId)
}

/// Whether a join can be looked at: its names fit into the log, and its session into the bounds.
fn check_join(seen: Seen<'_, Groups>, join: &Join) -> Result<(), GroupFault> {
    check_name(&join.group)?;
    let millis = |limit: std::time::Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let bounds = millis(seen.config.session_min)..=millis(seen.config.session_max);
    if !bounds.contains(&join.session_ms.into()) {
        return Err(GroupFault::InvalidSessionTimeout);
    }
    let names =
        [&join.group, &join.member, &join.client_id, &join.client_host, &join.protocol_type];
    let protocols = join.protocols.iter().map(|protocol| &protocol.name);
    let mut all = names.into_iter().chain(&join.instance).chain(protocols);
    match all.any(|name| name.len() > NAME_BYTES_MAX) {
        true => Err(GroupFault::InvalidRequest),
        false => Ok(()),
    }
}

fn decide_join(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    from: Token,
    mut join: Join,
    out: &mut Outcome<Groups>,
) {
    soft.see(seen, std::mem::take(&mut join.topics));
    // A consumer group without members makes room for a classic one.
    let (mut is_there, mut makes_room) = (soft.live.contains_key(&*join.group), Vec::new());
    let found = seen.hard.groups.find(&join.group);
    let checked = check_join(seen, &join);
    match found {
        Some((name, Group::Consumer(group))) if group.members().len() > 0 && checked.is_ok() => {
            let joined = consumers::decide_join(seen, soft, (name, group), join, out);
            return out.reply(from, Reply::Joined(joined));
        }
        Some((_, Group::Consumer(group))) => makes_room = group.tombstones(),
        Some((_, Group::Classic(_))) => is_there = true,
        None => {}
    }
    let known = match is_there || join.member.is_empty() {
        true => Ok(()),
        false => Err(GroupFault::UnknownMemberId),
    };
    if let Err(why) = checked.and(known) {
        return out
            .reply(from, Reply::Joined(Joined { member: join.member, generation: Err(why) }));
    }
    let name: Rc<str> = join.group.as_str().into();
    let live = soft.live.entry(name.clone()).or_insert_with(|| match found {
        Some((_, Group::Classic(Some(value)))) => Live::from_value(value),
        _ => Live::new(seen.at.wall),
    });
    let before = out.records.len();
    let mut desk = desk(seen, name.clone(), &mut soft.timers, out);
    live.join(&mut desk, from, join);
    if !is_there && !live.is_over() {
        if desk.out.records.len() == before {
            // It is there from now on, for those who list groups, too.
            desk.remember(Live::new(seen.at.wall).to_value());
        }
        let gone = |change| Record::Consumer(consumer::Record { group: name.clone(), change });
        desk.out.records.splice(before..before, makes_room.into_iter().map(gone));
    }
    soft.tidy(&name);
}

fn decide_sync(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    from: Token,
    mut sync: Sync,
    out: &mut Outcome<Groups>,
) {
    soft.see(seen, std::mem::take(&mut sync.topics));
    if let Some(found) = consumers::find(seen.hard, &sync.group) {
        return out.reply(from, Reply::Synced(consumers::decide_sync(seen, soft, found, sync)));
    }
    let name: Rc<str> = sync.group.as_str().into();
    let found = check_name(&name)
        .and_then(|()| soft.live.get_mut(&name).ok_or(GroupFault::UnknownMemberId));
    match found {
        Ok(live) => {
            live.sync(&mut desk(seen, name.clone(), &mut soft.timers, out), from, sync);
            soft.tidy(&name);
        }
        Err(why) => out.reply(from, Reply::Synced(Err(why))),
    }
}

fn decide_heartbeat(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    from: Token,
    mut beat: Heartbeat,
    out: &mut Outcome<Groups>,
) {
    soft.see(seen, std::mem::take(&mut beat.topics));
    if let Some(found) = consumers::find(seen.hard, &beat.group) {
        let answer = consumers::decide_classic_heartbeat(seen, soft, found, beat);
        return match answer {
            // Soft state: its session goes on.
            Ok(()) => out.reply_now(from, Reply::Heartbeat(Ok(()))),
            Err(why) => out.reply(from, Reply::Heartbeat(Err(why))),
        };
    }
    let name: Rc<str> = beat.group.as_str().into();
    let found = check_name(&name)
        .and_then(|()| soft.live.get_mut(&name).ok_or(GroupFault::UnknownMemberId));
    match found {
        Ok(live) => live.heartbeat(&mut desk(seen, name, &mut soft.timers, out), from, &beat),
        Err(why) => out.reply(from, Reply::Heartbeat(Err(why))),
    }
}

fn decide_leave(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    mut leave: Leave,
    out: &mut Outcome<Groups>,
) -> Result<Vec<Left>, GroupFault> {
    check_name(&leave.group)?;
    soft.see(seen, std::mem::take(&mut leave.topics));
    if let Some(found) = consumers::find(seen.hard, &leave.group) {
        return Ok(consumers::decide_leave(seen, soft, found, leave, out));
    }
    let name: Rc<str> = leave.group.as_str().into();
    let Some(live) = soft.live.get_mut(&name) else {
        let nobody = leave.members.into_iter().map(|leaver| Left {
            member: leaver.member,
            instance: leaver.instance,
            fault: Some(GroupFault::UnknownMemberId),
        });
        return Ok(nobody.collect());
    };
    let left = live.leave(&mut desk(seen, name.clone(), &mut soft.timers, out), leave.members);
    soft.tidy(&name);
    Ok(left)
}

fn decide_delete(
    seen: Seen<'_, Groups>,
    soft: &mut Soft,
    mut names: Vec<String>,
    out: &mut Outcome<Groups>,
) -> Vec<(String, Option<GroupFault>)> {
    // Twice the same would be forgotten twice.
    names.sort_unstable();
    names.dedup();
    let delete = |name: String| {
        let fault = describe::delete(seen.hard, soft, &name, &mut out.records).err();
        (name, fault)
    };
    names.into_iter().map(delete).collect()
}
