//! When something is due, by what it is. Soft state: a machine that takes over sets them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::time::Instant;

/// What can be due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A member, or one who has been given an id, was silent for its session: group and member.
    Session(Rc<str>, Rc<str>),
    /// The time to join is over.
    Join(Rc<str>),
    /// The time to ask for assignments is over.
    Sync(Rc<str>),
    /// Something is due for a member of this consumer group.
    Consumer(Rc<str>),
    /// Something is to be swept: offsets that expired or whose topic is gone.
    Sweep,
}

/// All that is set.
#[derive(Default)]
pub struct Timers {
    /// In the order in which they ring.
    by_time: BTreeSet<(Instant, Alarm)>,
    by_alarm: BTreeMap<Alarm, Instant>,
}

impl Timers {
    /// Sets `alarm`, in place of what it was set to.
    pub fn set(&mut self, alarm: Alarm, at: Instant) {
        if let Some(before) = self.by_alarm.insert(alarm.clone(), at) {
            self.by_time.remove(&(before, alarm.clone()));
        }
        self.by_time.insert((at, alarm));
    }

    /// Unsets it, if it was set.
    pub fn unset(&mut self, alarm: &Alarm) {
        if let Some(before) = self.by_alarm.remove(alarm) {
            self.by_time.remove(&(before, alarm.clone()));
        }
    }

    /// When it is set to.
    pub fn at(&self, alarm: &Alarm) -> Option<Instant> {
        self.by_alarm.get(alarm).copied()
    }

    /// When the first rings.
    pub fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub fn due(&mut self, now: Instant) -> Option<Alarm> {
        if self.first()? > now {
            return None;
        }
        let (_, alarm) = self.by_time.pop_first().expect("there is a first");
        self.by_alarm.remove(&alarm);
        Some(alarm)
    }
}
