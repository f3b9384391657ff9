//! Between the classic and the consumer protocol (KIP-848): a classic group as a value for
//! [`crate::group::consumer::convert`], and as it comes from there.

use std::rc::Rc;

use engine::time::Timestamp;

use super::desk::Desk;
use super::member::Member;
use super::{CONSUMER, Live, Phase};
use crate::group::consumer::convert::{ClassicConsumer, ClassicGroup};
use crate::group::request::{GroupFault, Protocol};
use crate::group::timers::Alarm;

impl Live {
    /// The group as what a consumer group can be made of.
    pub(in crate::group) fn to_consumers(&self) -> ClassicGroup {
        let member = |(id, member): (&Rc<str>, &Member)| ClassicConsumer {
            id: id.to_string(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_ms: member.session_ms,
            rebalance_ms: member.rebalance_ms,
            protocols: member
                .protocols
                .iter()
                .map(|protocol| (protocol.name.clone(), protocol.metadata.as_slice().into()))
                .collect(),
            assignment: member.assignment.clone(),
        };
        ClassicGroup {
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(String::from),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// The life of a group that was a consumer group until now: stable, with what each has.
    pub(in crate::group) fn from_consumers(group: ClassicGroup, since: Timestamp) -> Live {
        let mut live = Live {
            phase: Phase::Stable,
            generation: group.generation,
            protocol_type: Some(CONSUMER.into()),
            protocol: group.protocol,
            leader: group.leader.map(Rc::from),
            ..Live::new(since)
        };
        for one in group.members {
            let id: Rc<str> = one.id.into();
            if let Some(instance) = &one.instance {
                live.statics.insert(instance.clone(), id.clone());
            }
            let protocol = |(name, metadata): (String, Rc<[u8]>)| Protocol {
                name,
                metadata: metadata.to_vec(),
            };
            let member = Member {
                instance: one.instance,
                client_id: one.client_id,
                client_host: one.client_host,
                rebalance_ms: one.rebalance_ms,
                session_ms: one.session_ms,
                protocols: one.protocols.into_iter().map(protocol).collect(),
                assignment: one.assignment,
                join: None,
                sync: None,
                is_new: false,
            };
            live.members.insert(id, member);
        }
        live.subscribed = live.subscriptions();
        live
    }

    /// Begins to live after [`Live::from_consumers`]: the members' sessions begin, and they are
    /// called together, because nobody but the broker assigned so far.
    pub(in crate::group) fn come_from_consumers(&mut self, desk: &mut Desk<'_>) {
        for (id, member) in &self.members {
            desk.session(id, member.session());
        }
        self.prepare(desk, "it was a consumer group");
    }

    /// Ends: who waits is to join again, and nothing is due any more.
    pub(in crate::group) fn dissolve(&mut self, desk: &mut Desk<'_>) {
        for (id, member) in &mut self.members {
            desk.answer_join(member, id, Err(GroupFault::RebalanceInProgress));
            desk.refuse_sync(member, GroupFault::RebalanceInProgress);
        }
        self.members.keys().chain(&self.pending).for_each(|id| desk.end_session(id));
        desk.timers.unset(&Alarm::Join(desk.group.clone()));
        desk.timers.unset(&Alarm::Sync(desk.group.clone()));
    }
}
