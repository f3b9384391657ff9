//! SyncGroup and Heartbeat. Kafka: `classicGroupSyncToClassicGroup` and
//! `classicGroupHeartbeatToClassicGroup` of `GroupMetadataManager`.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::desk::Desk;
use super::{Live, Phase};
use crate::group::mutant::Mutant;
use crate::group::request::{GroupFault, Heartbeat, Reply, Sync, Synced};
use crate::group::timers::Alarm;
use crate::machine::Token;

/// What a member takes in the log beyond its names and bytes; more than it does.
const MEMBER_OVERHEAD: usize = 64;

impl Live {
    /// Decides a request for an assignment.
    pub(in crate::group) fn sync(&mut self, desk: &mut Desk<'_>, from: Token, sync: Sync) {
        if let Err(why) = self.check_sync(&sync) {
            return desk.out.reply(from, Reply::Synced(Err(why)));
        }
        let (id, member) = self.members.get_key_value(sync.member.as_str()).expect("checked");
        let id = id.clone();
        match self.phase {
            Phase::Empty => unreachable!("an empty group has no members"),
            Phase::Preparing => {
                let why = GroupFault::RebalanceInProgress;
                desk.out.reply(from, Reply::Synced(Err(why)));
            }
            Phase::Stable => {
                let synced = self.synced(&member.assignment);
                self.has_synced(desk, &id);
                self.tell(desk, from, synced);
            }
            Phase::Completing => {
                let member = self.members.get_mut(&id).expect("checked");
                desk.refuse_sync(member, GroupFault::RebalanceInProgress);
                member.sync = Some(from);
                self.has_synced(desk, &id);
                if self.is_leader(&id) {
                    self.assign(desk, sync.assignments);
                }
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupFault> {
        self.check_member(&sync.member, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupFault::IllegalGeneration);
        }
        let other = |asked: &Option<String>, ours: &Option<String>| {
            asked.is_some() && ours.is_some() && asked != ours
        };
        match other(&sync.protocol_type, &self.protocol_type)
            || other(&sync.protocol, &self.protocol)
        {
            true => Err(GroupFault::InconsistentGroupProtocol),
            false => Ok(()),
        }
    }

    fn has_synced(&mut self, desk: &mut Desk<'_>, id: &str) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            desk.timers.unset(&Alarm::Sync(desk.group.clone()));
        }
    }

    /// The leader has assigned: that is remembered, and told to all who wait for it.
    fn assign(&mut self, desk: &mut Desk<'_>, assignments: Vec<(String, Vec<u8>)>) {
        let mut by_id: BTreeMap<String, Vec<u8>> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            member.assignment = by_id.remove(&**id).unwrap_or_default().into();
        }
        if self.bytes() > desk.config.records_bytes_max {
            self.void_assignments(desk, GroupFault::GroupTooLarge);
            return self.prepare(desk, "more than one batch holds");
        }
        self.enter(Phase::Stable, desk.at.wall);
        desk.remember(self.to_value());
        let mixed = desk.config.mutant == Some(Mutant::AssignmentsMixed);
        let leaders = self.leader.as_ref().map(|id| self.members[id].assignment.clone());
        let mut told = Vec::new();
        for (id, member) in &mut self.members {
            if let Some(to) = member.sync.take() {
                desk.session(id, member.session());
                told.push((to, member.assignment.clone()));
            }
        }
        for (to, own) in told {
            let assignment = leaders.as_ref().filter(|_| mixed).unwrap_or(&own);
            let synced = self.synced(assignment);
            self.tell(desk, to, synced);
        }
    }

    fn synced(&self, assignment: &Rc<[u8]>) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.to_vec(),
        }
    }

    fn tell(&self, desk: &mut Desk<'_>, to: Token, synced: Synced) {
        let reply = Reply::Synced(Ok(synced));
        match desk.config.mutant {
            Some(Mutant::AssignmentToldEarly) => desk.out.reply_now(to, reply),
            _ => desk.out.reply(to, reply),
        }
    }

    /// How much it takes in the log; rather too much.
    fn bytes(&self) -> usize {
        let protocol = self.protocol.as_deref();
        let member = |(id, member): (&Rc<str>, &super::Member)| {
            let names = id.len() + member.client_id.len() + member.client_host.len();
            let instance = member.instance.as_ref().map_or(0, String::len);
            let said = member.metadata(protocol).len() + member.assignment.len();
            names + instance + said + MEMBER_OVERHEAD
        };
        self.members.iter().map(member).sum::<usize>() + MEMBER_OVERHEAD
    }

    /// Decides a sign of life. That all is well is soft state and told at once: a member must not
    /// be taken for dead because nothing becomes durable for a while.
    pub(in crate::group) fn heartbeat(
        &mut self,
        desk: &mut Desk<'_>,
        from: Token,
        beat: &Heartbeat,
    ) {
        if let Err(why) = self.check_heartbeat(beat) {
            return desk.out.reply(from, Reply::Heartbeat(Err(why)));
        }
        self.renew(desk, &beat.member);
        let answer = match self.phase {
            Phase::Preparing => Err(GroupFault::RebalanceInProgress),
            Phase::Empty | Phase::Completing | Phase::Stable => Ok(()),
        };
        desk.out.reply_now(from, Reply::Heartbeat(answer));
    }

    fn check_heartbeat(&self, beat: &Heartbeat) -> Result<(), GroupFault> {
        self.check_member(&beat.member, beat.instance.as_deref())?;
        match beat.generation == self.generation {
            true => Ok(()),
            false => Err(GroupFault::IllegalGeneration),
        }
    }
}
