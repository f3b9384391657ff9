//! JoinGroup. Kafka: `GroupMetadataManager.classicGroupJoinToClassicGroup` and what it calls.

use std::rc::Rc;

use super::desk::Desk;
use super::member::Member;
use super::{Live, Phase};
use crate::group::config::NEW_MEMBER_JOIN;
use crate::group::mutant::Mutant;
use crate::group::records::{ClassicValue, MemberValue};
use crate::group::request::{Generation, GroupFault, Join, JoinedMember};
use crate::machine::Token;

impl Live {
    /// Decides a join. The names have been looked at, and the session timeout.
    pub(in crate::group) fn join(&mut self, desk: &mut Desk<'_>, from: Token, join: Join) {
        let unknown = join.member.is_empty();
        if !self.has_room(desk, &join.member) {
            if let Some(mut turned_away) = self.remove(&join.member) {
                desk.end_session(&join.member);
                // It cannot wait here any more than where it asks now.
                let full = GroupFault::GroupMaxSizeReached;
                desk.answer_join(&mut turned_away, "", Err(full));
                desk.refuse_sync(&mut turned_away, full);
            }
            return desk.joined(from, "", Err(GroupFault::GroupMaxSizeReached));
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            let why = GroupFault::InconsistentGroupProtocol;
            return desk.joined(from, &join.member, Err(why));
        }
        match (unknown, &join.instance) {
            (true, Some(instance)) => match self.statics.get(instance).cloned() {
                Some(old) => self.replace_static(desk, from, join, old),
                None => self.add_new(desk, from, member_id(instance, desk.at.random), join),
            },
            (true, None) => self.join_new(desk, from, join),
            (false, None) if self.pending.contains(join.member.as_str()) => {
                let id = join.member.as_str().into();
                self.add_new(desk, from, id, join);
            }
            (false, _) => self.rejoin(desk, from, join),
        }
    }

    /// Whether one more may join. While the members of the next generation gather, those who are
    /// there first are in; after that, those who are members.
    fn has_room(&self, desk: &Desk<'_>, id: &str) -> bool {
        let max = desk.config.members_max;
        let member = self.members.get(id);
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing => {
                member.is_some_and(|member| member.join.is_some()) || self.awaiting_join() < max
            }
            Phase::Completing | Phase::Stable => member.is_some() || self.members.len() < max,
        }
    }

    /// Somebody without an id.
    fn join_new(&mut self, desk: &mut Desk<'_>, from: Token, join: Join) {
        let id = member_id(&join.client_id, desk.at.random);
        if !join.takes_member_id {
            return self.add_new(desk, from, id, join);
        }
        tracing::debug!(group = %desk.group, member = %id, "asked to join again with its id");
        if desk.config.mutant != Some(Mutant::PendingForever) {
            let session = Member::new(join, from).session();
            desk.session(&id, session);
        }
        self.pending.insert(id.clone());
        desk.joined(from, &id, Err(GroupFault::MemberIdRequired));
    }

    /// Takes a new member in, and lets it wait for the next generation.
    fn add_new(&mut self, desk: &mut Desk<'_>, from: Token, id: Rc<str>, join: Join) {
        if let Some(first) = &mut self.first {
            first.joined = true;
        }
        if let Some(instance) = &join.instance {
            remember_exchange(desk, instance, &id);
        }
        let (kind, reason) = (join.protocol_type.clone(), join.reason.clone());
        self.add(id.clone(), Member::new(join, from), kind);
        desk.session(&id, NEW_MEMBER_JOIN);
        let reason = reason.unwrap_or_default();
        self.prepare_or_complete(desk, &format!("{id} joins: {reason}"));
    }

    /// A static member is back without its id: it gets another, and who had the old one is fenced.
    fn replace_static(&mut self, desk: &mut Desk<'_>, from: Token, join: Join, old: Rc<str>) {
        let instance = join.instance.clone().expect("it is static");
        let id = member_id(&instance, desk.at.random);
        let led = self.leader.clone();
        let mut member = self.members.remove(&old).expect("it is a member");
        desk.answer_join(&mut member, &old, Err(GroupFault::FencedInstanceId));
        desk.refuse_sync(&mut member, GroupFault::FencedInstanceId);
        desk.end_session(&old);
        let may_skip = join.may_skip_assignment;
        let reason = join.reason.clone().unwrap_or_default();
        member.renew(join, from);
        // While it waits it is excused, as every member that has been in a generation is.
        member.is_new = false;
        desk.session(&id, member.session());
        self.members.insert(id.clone(), member);
        self.statics.insert(instance.clone(), id.clone());
        if self.pending_sync.remove(&old) {
            self.pending_sync.insert(id.clone());
        }
        if self.is_leader(&old) {
            self.leader = Some(id.clone());
        }
        tracing::info!(group = %desk.group, member = %id, %old, %reason, "static member is back");
        match self.phase {
            Phase::Stable if self.elect_protocol() == self.protocol => {
                if desk.config.mutant != Some(Mutant::StaticChangeForgotten) {
                    desk.remember(self.to_value());
                }
                let leads = self.is_leader(&id);
                let mut generation = self.generation(may_skip.then_some(&*id));
                generation.skip_assignment = may_skip && leads;
                if !may_skip {
                    // Who does not know that it may leave the assignments alone must not lead.
                    generation.leader = led.as_deref().unwrap_or_default().into();
                }
                let member = self.members.get_mut(&id).expect("it is a member");
                desk.answer_join(member, &id, Ok(generation));
            }
            // The leader may be assigning to the old id right now.
            Phase::Stable | Phase::Completing => {
                remember_exchange(desk, &instance, &id);
                self.prepare(desk, &format!("static member {id} is back"));
            }
            Phase::Empty => {
                unreachable!("a static member is a member, and an empty group has none")
            }
            Phase::Preparing => {
                remember_exchange(desk, &instance, &id);
                self.complete_if_all_joined(desk);
            }
        }
    }

    /// Somebody with an id.
    fn rejoin(&mut self, desk: &mut Desk<'_>, from: Token, join: Join) {
        let id: Rc<str> = join.member.as_str().into();
        if let Err(why) = self.check_member(&id, join.instance.as_deref()) {
            return desk.joined(from, &id, Err(why));
        }
        let leads = self.is_leader(&id);
        let same = self.members[&id].protocols == join.protocols;
        match self.phase {
            Phase::Empty => unreachable!("an empty group has no members"),
            // Perhaps it never heard of this generation, or it has nothing new to say.
            Phase::Completing if same => {
                let generation = self.generation(Some(&id));
                desk.joined(from, &id, Ok(generation));
            }
            Phase::Stable if same && !leads => {
                let generation = self.generation(None);
                desk.joined(from, &id, Ok(generation));
            }
            // It says something new about itself; or it leads, and knows why to assign anew.
            Phase::Completing | Phase::Stable | Phase::Preparing => {
                let reason = join.reason.clone().unwrap_or_default();
                let member = self.members.get_mut(&id).expect("it is a member");
                desk.answer_join(member, &id, Err(GroupFault::RebalanceInProgress));
                member.renew(join, from);
                self.prepare_or_complete(desk, &format!("{id} rejoins: {reason}"));
            }
        }
    }

    /// The generation as `to` learns of it; with all members if it leads.
    pub(super) fn generation(&self, to: Option<&str>) -> Generation {
        let member = |(id, member): (&Rc<str>, &Member)| JoinedMember {
            id: id.to_string(),
            instance: member.instance.clone(),
            metadata: member.metadata(self.protocol.as_deref()).to_vec(),
        };
        let all = to.is_some_and(|id| self.is_leader(id));
        let members = all.then(|| self.members.iter().map(member).collect());
        Generation {
            id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().into(),
            skip_assignment: false,
            members: members.unwrap_or_default(),
        }
    }
}

/// Writes down that a static member of the last assigned generation has another id. Kafka does so
/// in a stable group only; but then whoever takes over during a rebalance knows the old id alone,
/// and fences a member that did nothing wrong.
fn remember_exchange(desk: &mut Desk<'_>, instance: &str, new: &str) {
    let Some(written) = desk.written.clone() else { return };
    let same = |member: &MemberValue| member.instance.as_deref() == Some(instance);
    let Some(old) = written.members.iter().find(|member| same(member)) else { return };
    let mut value = ClassicValue::clone(&written);
    for id in value.members.iter_mut().map(|member| &mut member.id).chain(&mut value.leader) {
        if *id == old.id {
            *id = new.into();
        }
    }
    desk.remember(value);
}

impl Member {
    /// It joins again, and may say other things than before.
    fn renew(&mut self, join: Join, from: Token) {
        self.protocols = join.protocols;
        self.rebalance_ms = join.rebalance_ms;
        self.session_ms = join.session_ms;
        self.join = Some(from);
    }
}

/// An id for a member, as Kafka makes them: what it calls itself, and a random UUID.
fn member_id(name: &str, [high, low]: [u64; 2]) -> Rc<str> {
    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0x0fff);
    let (d, e) = ((low >> 48) & 0x3fff | 0x8000, low & 0xffff_ffff_ffff);
    format!("{name}-{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}").into()
}
