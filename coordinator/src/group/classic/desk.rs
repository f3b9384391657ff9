//! What a group has at hand while it decides.

use std::rc::Rc;
use std::time::Duration;

use super::member::Member;
use crate::group::Groups;
use crate::group::config::GroupConfig;
use crate::group::records::{ClassicValue, Record};
use crate::group::request::{Generation, GroupFault, Joined, Reply};
use crate::group::timers::{Alarm, Timers};
use crate::machine::{Moment, Outcome, Token};

/// The moment, the limits, and where decisions go.
pub struct Desk<'a> {
    /// Limits and defaults.
    pub config: &'a GroupConfig,
    /// The moment.
    pub at: Moment,
    /// Whose desk it is.
    pub group: Rc<str>,
    /// The group as it is written down.
    pub written: Option<Rc<ClassicValue>>,
    /// What is set.
    pub timers: &'a mut Timers,
    /// Where records and replies go.
    pub out: &'a mut Outcome<Groups>,
}

impl Desk<'_> {
    /// Sets an alarm, some time from now.
    pub fn set(&mut self, alarm: Alarm, after: Duration) {
        self.timers.set(alarm, self.at.now.after(after));
    }

    /// A member's session begins anew.
    pub fn session(&mut self, id: &Rc<str>, lasts: Duration) {
        self.set(Alarm::Session(self.group.clone(), id.clone()), lasts);
    }

    /// A session is not watched any more.
    pub fn end_session(&mut self, id: &str) {
        self.timers.unset(&Alarm::Session(self.group.clone(), id.into()));
    }

    /// Remembers the group.
    pub fn remember(&mut self, value: ClassicValue) {
        self.out.record(Record::Classic(self.group.to_string(), Some(Rc::new(value))));
    }

    /// Answers who joins.
    pub fn joined(&mut self, to: Token, member: &str, generation: Result<Generation, GroupFault>) {
        self.out.reply(to, Reply::Joined(Joined { member: member.into(), generation }));
    }

    /// Answers who waits to join, if it does.
    pub fn answer_join(
        &mut self,
        member: &mut Member,
        id: &str,
        generation: Result<Generation, GroupFault>,
    ) {
        if let Some(to) = member.join.take() {
            self.joined(to, id, generation);
        }
    }

    /// Tells who waits for an assignment, if it does, that there is none.
    pub fn refuse_sync(&mut self, member: &mut Member, why: GroupFault) {
        if let Some(to) = member.sync.take() {
            self.out.reply(to, Reply::Synced(Err(why)));
        }
    }
}
