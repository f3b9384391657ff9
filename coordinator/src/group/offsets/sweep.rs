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
use crate::group::config::{GROUPS_PER_STEP, GroupConfig, STEP_PAUSE, TOMBSTONES_MAX};
use crate::group::mutant::Mutant;
use crate::group::records::{ClassicValue, OffsetKey, Record};
use crate::group::timers::{Alarm, Timers};
use crate::group::{Group, Groups, Soft};
use crate::machine::Seen;

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
    /// The group that was looked at last.
    after: Option<Rc<str>>,
    /// Topics that are gone. Only what was committed before that goes with them: a topic of the
    /// same name may be there again.
    gone: BTreeMap<String, Timestamp>,
    /// Whether offsets are looked at for their age, too.
    expire: bool,
}

impl Sweep {
    /// Expiry begins an interval from now.
    pub(in crate::group) fn begin(
        &mut self,
        config: &GroupConfig,
        now: Instant,
        timers: &mut Timers,
    ) {
        self.expiry = now.after(config.offsets_retention_check);
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
        after: None,
        gone: std::mem::take(&mut sweep.gone),
        expire: now >= sweep.expiry,
    });
    if walk.go_on(seen, &soft.live, records) {
        if walk.expire {
            sweep.expiry = now.after(seen.config.offsets_retention_check);
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
        let after = self.after.clone();
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = seen.hard.groups.range::<str, _>((from, Bound::Unbounded));
        for (looked_at, (name, group)) in rest.enumerate() {
            if looked_at == GROUPS_PER_STEP {
                return false;
            }
            let room = TOMBSTONES_MAX.saturating_sub(records.len());
            let whole = match group {
                Group::Classic(value) => {
                    let life = Life { value: value.as_deref(), live: live.get(name) };
                    self.look_at(seen, name, life, room, records)
                }
            };
            if !whole {
                // The rest of its offsets is for the next step: by then the first are gone.
                return false;
            }
            self.after = Some(name.clone());
        }
        true
    }

    /// Forgets what is to be forgotten of one group, at most `room` offsets; whether that was all.
    fn look_at(
        &self,
        seen: Seen<'_, Groups>,
        name: &str,
        life: Life<'_>,
        room: usize,
        records: &mut Vec<Record>,
    ) -> bool {
        let (mut left, mut forgotten) = (0, 0);
        for (topic, partition, committed) in seen.hard.offsets.of_group(name) {
            let is_gone = self.gone.get(&**topic).is_some_and(|when| committed.committed <= *when);
            if !is_gone && !(self.expire && life.expires(seen, topic, committed)) {
                left += 1;
                continue;
            }
            if forgotten == room {
                return false;
            }
            forgotten += 1;
            let key = OffsetKey { group: name.into(), topic: topic.to_string(), partition };
            records.push(Record::Offset(key, None));
        }
        // A group without members and offsets is nothing to anybody.
        if self.expire && left == 0 && life.is_idle() {
            records.push(Record::Classic(name.into(), None));
        }
        true
    }
}

/// What is known of a group's use.
struct Life<'a> {
    value: Option<&'a ClassicValue>,
    live: Option<&'a Live>,
}

impl Life<'_> {
    /// No member, and nobody about to become one.
    fn is_idle(&self) -> bool {
        self.live.is_none()
    }

    fn expires(&self, seen: Seen<'_, Groups>, topic: &str, committed: &Committed) -> bool {
        let subscribed = self.live.is_some_and(|live| live.is_subscribed(topic));
        let blind = seen.config.mutant == Some(Mutant::ExpiresInUse);
        if subscribed && !blind {
            return false;
        }
        let since = match (self.live, self.value) {
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
