//! Offsets that go by themselves: those that nobody used for long, and those whose topic is gone.
//! A walk over all groups, in steps, so that requests get their turn in between.
//!
//! When an offset expires, Kafka: `ClassicGroup.offsetExpirationCondition` and
//! `OffsetExpirationConditionImpl`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use engine::time::{Instant, Timestamp};

use super::Committed;
use crate::group::classic::{Live, Phase};
use crate::group::config::{GroupConfig, LOOKS_MAX, STEP_PAUSE, TOMBSTONES_MAX};
use crate::group::consumer::{self, ConsumerGroup};
use crate::group::mutant::Mutant;
use crate::group::records::{ClassicValue, OffsetKey, Record};
use crate::group::timers::{Alarm, Timers};
use crate::group::{Group, Groups, Soft};
use crate::machine::Seen;

/// What a tombstone takes in the log beyond its names, in bytes; more than it does.
const TOMBSTONE_BYTES: usize = 64;

/// What is to be swept.
#[derive(Default)]
pub struct Sweep {
    walk: Option<Walk>,
    /// Topics that are gone, for the next walk, and since when.
    gone: BTreeMap<String, Timestamp>,
    /// When offsets are looked at for their age next.
    expiry: Instant,
}

struct Walk {
    /// The group to go on with, or the last one that is done.
    from: Bound<Rc<str>>,
    /// The offset of that group that was looked at last, if it is not done.
    inside: Option<(Rc<str>, i32)>,
    /// That group has offsets that stay.
    stays: bool,
    /// Topics that are gone. Only what was committed before that goes with them: a topic of the
    /// same name may be there again.
    gone: BTreeMap<String, Timestamp>,
    /// Whether offsets are looked at for their age, too.
    expire: bool,
}

/// What one step may still do.
struct Room {
    looks: usize,
    tombstones: usize,
    bytes: usize,
}

impl Room {
    /// Takes a tombstone's worth, if it is there.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.tombstones > 0 && self.bytes >= bytes;
        if fits {
            self.tombstones -= 1;
            self.bytes -= bytes;
        }
        fits
    }

    /// Takes a look's worth, if it is there.
    fn look(&mut self) -> bool {
        let fits = self.looks > 0;
        self.looks -= usize::from(fits);
        fits
    }
}

impl Sweep {
    /// Expiry begins an interval from now.
    pub(in crate::group) fn begin(
        &mut self,
        config: &GroupConfig,
        now: Instant,
        timers: &mut Timers,
    ) {
        self.expiry = now.after(config.offsets_retention_check.max(STEP_PAUSE));
        timers.set(Alarm::Sweep, self.expiry);
    }

    /// Topics are gone.
    pub(in crate::group) fn forget(
        &mut self,
        topics: Vec<String>,
        (wall, now): (Timestamp, Instant),
        timers: &mut Timers,
    ) {
        self.gone.extend(topics.into_iter().map(|topic| (topic, wall)));
        if self.walk.is_none() {
            timers.set(Alarm::Sweep, now);
        }
    }
}

/// One step of a walk; begins one if none is under way.
pub(in crate::group) fn step(seen: Seen<'_, Groups>, soft: &mut Soft, records: &mut Vec<Record>) {
    let now = seen.at.now;
    let sweep = &mut soft.sweep;
    let mut walk = sweep.walk.take().unwrap_or_else(|| Walk {
        from: Bound::Unbounded,
        inside: None,
        stays: false,
        gone: std::mem::take(&mut sweep.gone),
        expire: now >= sweep.expiry,
    });
    if walk.go_on(seen, &soft.live, records) {
        if walk.expire {
            sweep.expiry = now.after(seen.config.offsets_retention_check.max(STEP_PAUSE));
        }
        let next = if sweep.gone.is_empty() { sweep.expiry } else { now };
        soft.timers.set(Alarm::Sweep, next);
    } else {
        sweep.walk = Some(walk);
        soft.timers.set(Alarm::Sweep, now.after(STEP_PAUSE));
    }
}

impl Walk {
    /// Looks at some more groups; whether these were the last.
    fn go_on(
        &mut self,
        seen: Seen<'_, Groups>,
        live: &BTreeMap<Rc<str>, Live>,
        records: &mut Vec<Record>,
    ) -> bool {
        let mut room = Room {
            looks: LOOKS_MAX,
            tombstones: TOMBSTONES_MAX,
            bytes: seen.config.records_bytes_max,
        };
        let from = self.from.clone();
        let from = from.as_ref().map(|name| &**name);
        for (name, group) in seen.hard.groups.iter_from(from) {
            if !matches!(&self.from, Bound::Included(begun) if begun == name) {
                (self.inside, self.stays) = (None, false);
            }
            self.from = Bound::Included(name.clone());
            let life = match group {
                Group::Classic(value) => {
                    Life::Classic { value: value.map(|value| &**value), live: live.get(name) }
                }
                Group::Consumer(group) => Life::Consumer(group),
            };
            if !room.look() || !self.look_at(seen, name, life, &mut room, records) {
                return false;
            }
            self.from = Bound::Excluded(name.clone());
        }
        true
    }

    /// Forgets what is to be forgotten of one group; whether that was all.
    fn look_at(
        &mut self,
        seen: Seen<'_, Groups>,
        name: &Rc<str>,
        life: Life<'_>,
        room: &mut Room,
        records: &mut Vec<Record>,
    ) -> bool {
        let inside = self.inside.clone();
        let after = inside.as_ref().map(|(topic, partition)| (&**topic, *partition));
        for (topic, partition, committed) in seen.hard.offsets.of_group_after(name, after) {
            let is_gone = self.gone.get(&**topic).is_some_and(|when| committed.committed <= *when);
            let goes = is_gone || (self.expire && life.expires(seen, topic, committed));
            if !room.look() || (goes && !room.take(name.len() + topic.len() + TOMBSTONE_BYTES)) {
                return false;
            }
            self.inside = Some((topic.clone(), partition));
            self.stays |= !goes;
            if goes {
                let key =
                    OffsetKey { group: name.to_string(), topic: topic.to_string(), partition };
                records.push(Record::Offset(key, None));
            }
        }
        // A group without members and offsets is nothing to anybody.
        if self.expire && !self.stays && life.is_idle() {
            life.end(name, room, records);
        }
        true
    }
}

/// What is known of a group's use.
enum Life<'a> {
    Classic { value: Option<&'a ClassicValue>, live: Option<&'a Live> },
    Consumer(&'a ConsumerGroup),
}

impl Life<'_> {
    /// No member, and nobody about to become one.
    fn is_idle(&self) -> bool {
        match self {
            Life::Classic { live, .. } => live.is_none(),
            Life::Consumer(group) => group.members().len() == 0,
        }
    }

    /// Forgets the group itself, if there is room for that now.
    fn end(&self, name: &Rc<str>, room: &mut Room, records: &mut Vec<Record>) {
        let bytes = name.len() + TOMBSTONE_BYTES;
        match self {
            Life::Classic { .. } if room.take(bytes) => {
                records.push(Record::Classic(name.to_string(), None));
            }
            Life::Classic { .. } => {}
            Life::Consumer(group) => {
                // All or none: the one that ends the group comes last.
                let changes = group.tombstones();
                if room.take(bytes * changes.len()) {
                    let gone = |change| consumer::Record { group: name.clone(), change };
                    records.extend(changes.into_iter().map(gone).map(Record::Consumer));
                }
            }
        }
    }

    fn expires(&self, seen: Seen<'_, Groups>, topic: &str, committed: &Committed) -> bool {
        let subscribed = match self {
            Life::Classic { live, .. } => live.is_some_and(|live| live.is_subscribed(topic)),
            Life::Consumer(group) => group.is_subscribed(topic),
        };
        let blind = seen.config.mutant == Some(Mutant::ExpiresInUse);
        if subscribed && !blind {
            return false;
        }
        let (live, value) = match *self {
            Life::Classic { live, value } => (live, value),
            // Kafka goes by each offset here, whatever the members do.
            Life::Consumer(_) => (None, None),
        };
        let since = match (live, value) {
            (Some(live), _) if blind || live.may_expire() => committed.committed,
            (Some(live), _) if live.phase() == Phase::Empty => {
                live.since().unwrap_or(committed.committed)
            }
            (Some(_), _) => return false,
            // Empty since then; a group that never had members goes by each offset.
            (None, Some(value)) if !value.protocol_type.is_empty() => {
                value.since.unwrap_or(committed.committed)
            }
            (None, _) => committed.committed,
        };
        let wall = seen.at.wall;
        match committed.expires() {
            Some(at) => wall >= at,
            None => {
                let retention = seen.config.offsets_retention.as_millis();
                u128::from(wall.millis_since(since)) >= retention
            }
        }
    }
}
