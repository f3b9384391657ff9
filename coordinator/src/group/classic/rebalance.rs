//! From one generation to the next, and what is due when.

use std::rc::Rc;
use std::time::Duration;

use super::desk::Desk;
use super::{First, Live, Phase};
use crate::group::mutant::Mutant;
use crate::group::request::GroupFault;
use crate::group::timers::Alarm;

/// Shortest second round of waiting for members to rejoin.
const ROUND_MIN: Duration = Duration::from_secs(1);

impl Live {
    /// Takes up a group that was found in the log: its members' sessions begin now. Where nobody is
    /// written down as leader (`is_led`) nobody has assigned: it was a consumer group, and its
    /// members may not have been called together yet. Kafka leaves those as they are, and what
    /// members had that are gone to nobody.
    pub(in crate::group) fn take_up(&mut self, desk: &mut Desk<'_>, is_led: bool) {
        if desk.config.mutant == Some(Mutant::SessionsNotTakenUp) {
            return;
        }
        for (id, member) in &self.members {
            desk.session(id, member.session());
        }
        if self.members.len() > desk.config.members_max {
            self.prepare(desk, "more members than there may be now");
        } else if !is_led {
            self.prepare(desk, "nobody has assigned yet");
        }
    }

    /// A sign of life: the session begins anew.
    pub(super) fn renew(&mut self, desk: &mut Desk<'_>, id: &str) {
        if let Some((id, member)) = self.members.get_key_value(id) {
            desk.session(id, member.session());
        }
    }

    /// Something changed: the members are called together, unless they are on their way.
    pub(super) fn prepare_or_complete(&mut self, desk: &mut Desk<'_>, reason: &str) {
        match self.phase {
            Phase::Preparing => self.complete_if_all_joined(desk),
            Phase::Empty | Phase::Completing | Phase::Stable => self.prepare(desk, reason),
        }
    }

    /// Calls the members together.
    pub(super) fn prepare(&mut self, desk: &mut Desk<'_>, reason: &str) {
        if self.phase == Phase::Completing {
            self.void_assignments(desk, GroupFault::RebalanceInProgress);
        }
        self.end_sync(desk);
        let (group, generation) = (&desk.group, self.generation);
        tracing::info!(%group, generation, from = self.phase.name(), reason, "rebalance");
        let first = self.phase == Phase::Empty;
        self.enter(Phase::Preparing, desk.at.wall);
        if first {
            let delay = desk.config.initial_rebalance_delay;
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let remaining_ms = self.rebalance_ms().saturating_sub(delay_ms);
            self.first = Some(First { delay_ms, remaining_ms, joined: false });
            desk.set(Alarm::Join(desk.group.clone()), delay);
        } else if self.all_have_joined() {
            self.complete(desk);
        } else {
            self.await_joins(desk);
        }
    }

    fn await_joins(&mut self, desk: &mut Desk<'_>) {
        desk.set(Alarm::Join(desk.group.clone()), Duration::from_millis(self.rebalance_ms()));
    }

    /// The time was over, and there is to be another round. Members may say that they need no
    /// time at all; this must come to an end nevertheless.
    fn await_more_joins(&mut self, desk: &mut Desk<'_>) {
        let lasts = Duration::from_millis(self.rebalance_ms()).max(ROUND_MIN);
        desk.set(Alarm::Join(desk.group.clone()), lasts);
    }

    /// Begins the next generation if nobody is missing. The first one waits for its time.
    pub(super) fn complete_if_all_joined(&mut self, desk: &mut Desk<'_>) {
        if self.phase == Phase::Preparing && self.first.is_none() && self.all_have_joined() {
            self.complete(desk);
        }
    }

    /// The time to join is over.
    pub(in crate::group) fn on_join_alarm(&mut self, desk: &mut Desk<'_>) {
        if self.phase != Phase::Preparing {
            return;
        }
        if desk.config.mutant == Some(Mutant::PendingForever) && !self.pending.is_empty() {
            return self.await_more_joins(desk);
        }
        match &mut self.first {
            Some(First { delay_ms, remaining_ms, joined }) if *joined && *remaining_ms > 0 => {
                // More members came: others may be on their way.
                let most = desk.config.initial_rebalance_delay.as_millis();
                let next = u64::try_from(most).unwrap_or(u64::MAX).min(*remaining_ms);
                *remaining_ms = remaining_ms.saturating_sub(*delay_ms);
                (*delay_ms, *joined) = (next, false);
                desk.set(Alarm::Join(desk.group.clone()), Duration::from_millis(next));
            }
            _ => self.complete(desk),
        }
    }

    /// Begins the next generation with those who are there.
    pub(super) fn complete(&mut self, desk: &mut Desk<'_>) {
        desk.timers.unset(&Alarm::Join(desk.group.clone()));
        // A static member may be away for as long as its session; the others are gone.
        let absent = |live: &Live| -> Vec<Rc<str>> {
            let all = live.members.iter();
            let absent = all.filter(|(_, m)| m.join.is_none() && m.instance.is_none());
            absent.map(|(id, _)| id.clone()).collect()
        };
        for id in absent(self) {
            tracing::info!(group = %desk.group, member = %id, "did not rejoin");
            self.remove(&id);
            desk.end_session(&id);
        }
        if !self.members.is_empty() && !self.lead_is_present() {
            // Only static members, all away: their sessions decide.
            tracing::warn!(group = %desk.group, "no member rejoined");
            return self.await_more_joins(desk);
        }
        self.first = None;
        self.pending_sync.clear();
        if desk.config.mutant != Some(Mutant::GenerationReused) {
            // Kafka's numbers wrap as Java's do, after two thousand million rebalances.
            self.generation = self.generation.wrapping_add(1);
        }
        self.protocol = self.elect_protocol();
        self.subscribed = self.subscriptions();
        if self.members.is_empty() {
            self.enter(Phase::Empty, desk.at.wall);
            tracing::info!(group = %desk.group, generation = self.generation, "empty");
            desk.remember(self.to_value());
        } else {
            self.enter(Phase::Completing, desk.at.wall);
            self.tell_generation(desk);
        }
    }

    /// Whether the leader is there; another one that is takes its place.
    fn lead_is_present(&mut self) -> bool {
        let present = |id: &Rc<str>| self.members.get(id).is_some_and(|m| m.join.is_some());
        if self.leader.as_ref().is_some_and(present) {
            return true;
        }
        let other = self.members.iter().find(|(_, member)| member.join.is_some());
        match other.map(|(id, _)| id.clone()) {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    fn tell_generation(&mut self, desk: &mut Desk<'_>) {
        let (group, generation, members) = (&desk.group, self.generation, self.members.len());
        tracing::info!(%group, generation, members, "new generation");
        let ids: Vec<Rc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let generation = self.generation(Some(&id));
            let member = self.members.get_mut(&id).expect("its id was just there");
            desk.answer_join(member, &id, Ok(generation));
            member.is_new = false;
            desk.session(&id, member.session());
            self.pending_sync.insert(id);
        }
        if desk.config.mutant != Some(Mutant::SyncWaitsForever) {
            let lasts = Duration::from_millis(self.rebalance_ms());
            desk.set(Alarm::Sync(desk.group.clone()), lasts);
        }
    }

    /// Nobody has an assignment; who waits for one is told why.
    pub(super) fn void_assignments(&mut self, desk: &mut Desk<'_>, why: GroupFault) {
        for (id, member) in &mut self.members {
            member.assignment = Rc::default();
            if member.sync.is_some() {
                desk.refuse_sync(member, why);
                desk.session(id, member.session());
            }
        }
    }

    fn end_sync(&mut self, desk: &mut Desk<'_>) {
        self.pending_sync.clear();
        desk.timers.unset(&Alarm::Sync(desk.group.clone()));
    }

    /// The time to ask for assignments is over: who did not is taken out.
    pub(in crate::group) fn on_sync_alarm(&mut self, desk: &mut Desk<'_>) {
        let waits = matches!(self.phase, Phase::Completing | Phase::Stable);
        if !waits || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            tracing::info!(group = %desk.group, member = %id, "never asked for its assignment");
            self.remove(&id);
            desk.end_session(&id);
        }
        self.prepare(desk, "members never asked for their assignment");
    }

    /// A session is over.
    pub(in crate::group) fn on_session_alarm(&mut self, desk: &mut Desk<'_>, id: &str) {
        if self.pending.contains(id) {
            tracing::info!(group = %desk.group, member = id, "never joined");
            self.remove(id);
            return self.complete_if_all_joined(desk);
        }
        // Who waits for an answer need not say that it lives; its session begins anew with it.
        if self.members.get(id).is_none_or(|member| member.is_excused()) {
            return;
        }
        tracing::info!(group = %desk.group, member = id, "was silent for its session");
        self.take_out(desk, id);
        self.after_departures(desk, "a member was silent");
    }

    /// Takes a member out; if it waits to join it is told to come back as somebody new.
    pub(super) fn take_out(&mut self, desk: &mut Desk<'_>, id: &str) {
        desk.end_session(id);
        if let Some(mut member) = self.remove(id) {
            desk.answer_join(&mut member, "", Err(GroupFault::UnknownMemberId));
            desk.refuse_sync(&mut member, GroupFault::UnknownMemberId);
        }
    }

    /// Goes on without who was taken out.
    pub(super) fn after_departures(&mut self, desk: &mut Desk<'_>, reason: &str) {
        match self.phase {
            Phase::Completing | Phase::Stable => self.prepare(desk, reason),
            Phase::Preparing => self.complete_if_all_joined(desk),
            Phase::Empty => {}
        }
    }
}
