//! What may be forgotten of a group: who was heard when, and what is due. A machine that takes
//! over begins it anew ([`Soft::take_up`]).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use engine::time::Instant;
use regex::Regex;

use super::records::{Current, MemberState, MemberValue};
use super::{ConsumerConfig, ConsumerGroup, Mutant, Times};

/// What can be due for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// It was silent for its session.
    Session,
    /// It was to give up partitions, and has not.
    Rebalance,
    /// A member of the classic protocol was to join again, and has not.
    Join,
    /// A member of the classic protocol was to ask for its assignment, and has not.
    Sync,
}

/// The forgettable part of one group.
#[derive(Clone, Default, Debug)]
pub struct Soft {
    by_time: BTreeSet<(Instant, Alarm, Rc<str>)>,
    by_alarm: BTreeMap<(Rc<str>, Alarm), Instant>,
    /// The version of the topics that the group's epoch takes into account.
    pub(super) topics_version: Option<i64>,
    /// When patterns were last looked for.
    pub(super) patterns_at: Option<Instant>,
    /// When the target was last made.
    pub(super) assigned_at: Option<Instant>,
    /// Expressions that members use, compiled.
    pub(super) compiled: BTreeMap<Rc<str>, Regex>,
}

impl Soft {
    /// Begins to watch the members that a machine found in its log: they have a whole session, and
    /// those that are to give something up a whole time for it.
    pub fn take_up(
        &mut self,
        group: &ConsumerGroup,
        config: &ConsumerConfig,
        times: &Times,
        now: Instant,
    ) {
        if config.mutant == Some(Mutant::SessionsNotTakenUp) {
            return;
        }
        for (id, member) in group.members() {
            self.watch(id, member, times, now);
            self.watch_revocation(id, member, &group.current(id), config, now);
        }
    }

    /// The group's times are known now, which they were not when it was taken up: nobody may be
    /// silent for longer than they say.
    pub fn take_up_times(&mut self, group: &ConsumerGroup, times: &Times, now: Instant) {
        for (id, member) in group.members() {
            let known = self.by_alarm.get(&(id.clone(), Alarm::Session));
            if known.is_some_and(|at| *at > now.after(session(member, times))) {
                self.watch(id, member, times, now);
            }
        }
    }

    /// A decision comes to nothing that had stopped watching members: they are watched again.
    pub(super) fn watch_again(&mut self, group: &ConsumerGroup, times: &Times, now: Instant) {
        for (id, member) in group.members() {
            if !self.by_alarm.contains_key(&(id.clone(), Alarm::Session)) {
                self.watch(id, member, times, now);
            }
        }
    }

    /// When [`super::expiry::expire`] wants to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, ..)| *at)
    }

    pub(super) fn set(&mut self, id: &Rc<str>, alarm: Alarm, at: Instant) {
        self.unset(id, alarm);
        self.by_alarm.insert((id.clone(), alarm), at);
        self.by_time.insert((at, alarm, id.clone()));
    }

    pub(super) fn set_once(&mut self, id: &Rc<str>, alarm: Alarm, at: Instant) {
        if !self.by_alarm.contains_key(&(id.clone(), alarm)) {
            self.set(id, alarm, at);
        }
    }

    pub(super) fn unset(&mut self, id: &Rc<str>, alarm: Alarm) {
        if let Some(at) = self.by_alarm.remove(&(id.clone(), alarm)) {
            self.by_time.remove(&(at, alarm, id.clone()));
        }
    }

    /// Whom something is due for.
    pub(super) fn due(&mut self, now: Instant) -> Option<Rc<str>> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, alarm, id) = self.by_time.pop_first().expect("there is a first");
        self.by_alarm.remove(&(id.clone(), alarm));
        Some(id)
    }

    /// Forgets a member.
    pub(super) fn forget(&mut self, id: &Rc<str>) {
        for alarm in [Alarm::Session, Alarm::Rebalance, Alarm::Join, Alarm::Sync] {
            self.unset(id, alarm);
        }
    }

    /// A member was heard.
    pub(super) fn watch(
        &mut self,
        id: &Rc<str>,
        member: &MemberValue,
        times: &Times,
        now: Instant,
    ) {
        self.set(id, Alarm::Session, now.after(session(member, times)));
    }

    /// A member may have to give something up, or nothing any more. The time for it begins once.
    pub(super) fn watch_revocation(
        &mut self,
        id: &Rc<str>,
        member: &MemberValue,
        current: &Current,
        config: &ConsumerConfig,
        now: Instant,
    ) {
        let is_revoking = current.state == MemberState::UnrevokedPartitions;
        if is_revoking && config.mutant != Some(Mutant::RevokesForever) {
            self.set_once(id, Alarm::Rebalance, now.after(millis(member.rebalance_ms)));
        } else {
            self.unset(id, Alarm::Rebalance);
        }
    }
}

/// How long a member may be silent. One of the classic protocol says so itself.
fn session(member: &MemberValue, times: &Times) -> Duration {
    match &member.classic {
        Some(classic) => millis(classic.session_ms),
        None => times.session,
    }
}

/// A time in milliseconds as members say it; none if it is negative.
pub(super) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
