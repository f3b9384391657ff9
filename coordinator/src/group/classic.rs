//! The present life of a classic group: what its members are doing. Soft state, but for what
//! `Live::to_value` writes down when a generation has its assignments: whoever takes over finds
//! the members of that generation, stable, with their sessions just begun.
//!
//! ```text
//!            first join                all joined, or time over            leader's sync
//!   Empty ──────────────► Preparing ─────────────────────────► Completing ─────────────► Stable
//!     ▲                     │   ▲                                  │                        │
//!     └──── nobody left ────┘   └── join, leave, silence, no sync ─┴────────────────────────┘
//! ```
//!
//! What this follows, case by case: Kafka 4's `ClassicGroup` and the classic half of
//! `GroupMetadataManager`. A group without a life here is empty, or not there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::time::Timestamp;

use super::mutant::Mutant;
use super::records::{ClassicValue, MemberValue};
use super::request::{CommitOffsets, GroupFault, Protocol};
use desk::Desk;
use member::Member;

pub mod desk;
pub mod join;
pub mod leave;
pub mod member;
pub mod migrate;
pub mod rebalance;
pub mod subscription;
pub mod sync;

/// What kind of members consumers are.
pub const CONSUMER: &str = "consumer";

/// Where a group is between two generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No members.
    Empty,
    /// Members are joining the next generation.
    Preparing,
    /// The leader of the new generation is assigning.
    Completing,
    /// All is assigned.
    Stable,
}

impl Phase {
    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::Preparing => "PreparingRebalance",
            Phase::Completing => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }
}

/// A group's life.
pub struct Live {
    phase: Phase,
    /// When it entered the phase; `None` if that is not known.
    since: Option<Timestamp>,
    generation: i32,
    protocol_type: Option<String>,
    /// The generation's protocol.
    protocol: Option<String>,
    /// Who assigns; a member whenever there are members.
    leader: Option<Rc<str>>,
    members: BTreeMap<Rc<str>, Member>,
    /// Static members by their instance: exactly the members with one.
    statics: BTreeMap<String, Rc<str>>,
    /// Ids that were given out and not used yet. None is a member's.
    pending: BTreeSet<Rc<str>>,
    /// Members that have not asked for this generation's assignment yet.
    pending_sync: BTreeSet<Rc<str>>,
    /// What the members consume, as of the present generation; `None`: not known.
    subscribed: Option<BTreeSet<String>>,
    /// Set while a group that was empty waits for more members.
    first: Option<First>,
}

/// The wait of a group's first generation.
struct First {
    /// How long the present round is, in milliseconds.
    delay_ms: u64,
    /// How much longer it may be drawn out, in milliseconds.
    remaining_ms: u64,
    /// Somebody joined in this round: there is to be another.
    joined: bool,
}

impl Live {
    /// A group that was not there before.
    pub(super) fn new(since: Timestamp) -> Live {
        Live {
            phase: Phase::Empty,
            since: Some(since),
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed: None,
            first: None,
        }
    }

    /// A group as it was written down.
    pub(super) fn from_value(value: &ClassicValue) -> Live {
        let kind = (!value.protocol_type.is_empty()).then(|| value.protocol_type.clone());
        let mut live = Live {
            phase: if value.members.is_empty() { Phase::Empty } else { Phase::Stable },
            since: value.since,
            generation: value.generation,
            protocol_type: kind,
            protocol: value.protocol.clone(),
            leader: None,
            ..Live::new(Timestamp::NONE)
        };
        for member in &value.members {
            let id: Rc<str> = member.id.as_str().into();
            if let Some(instance) = &member.instance {
                live.statics.insert(instance.clone(), id.clone());
            }
            let protocol = value.protocol.clone().unwrap_or_default();
            live.members.insert(id, Member::from_value(member, protocol));
        }
        // Whoever it was; a leader that is no member would assign nothing.
        let named = value.leader.as_deref().and_then(|id| live.members.get_key_value(id));
        live.leader = named.or_else(|| live.members.first_key_value()).map(|(id, _)| id.clone());
        live.subscribed = live.subscriptions();
        live
    }

    /// What is to be remembered of it.
    pub(super) fn to_value(&self) -> ClassicValue {
        let member = |(id, member): (&Rc<str>, &Member)| MemberValue {
            id: id.to_string(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_ms: member.rebalance_ms,
            session_ms: member.session_ms,
            subscription: member.metadata(self.protocol.as_deref()).into(),
            assignment: member.assignment.clone(),
        };
        ClassicValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(String::from),
            since: self.since,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Its phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When it entered its phase.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// What kind of members it has.
    pub(super) fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The generation's protocol.
    pub(super) fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Its members by id.
    pub(super) fn members(&self) -> &BTreeMap<Rc<str>, Member> {
        &self.members
    }

    /// Nothing but what is written down: the life can be let go.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Empty && self.members.is_empty() && self.pending.is_empty()
    }

    fn enter(&mut self, phase: Phase, at: Timestamp) {
        (self.phase, self.since) = (phase, Some(at));
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// How many members wait for the next generation.
    fn awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.join.is_some()).count()
    }

    fn all_have_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    /// The longest time that one of its members wants to rejoin, in milliseconds.
    fn rebalance_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_ms).max();
        longest.map_or(0, |ms| ms.max(0).unsigned_abs().into())
    }

    /// Whether `id`, as `instance` if it says so, is a member.
    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), GroupFault> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(GroupFault::UnknownMemberId),
                Some(present) if **present != *id => return Err(GroupFault::FencedInstanceId),
                Some(_) => {}
            }
        }
        self.members.contains_key(id).then_some(()).ok_or(GroupFault::UnknownMemberId)
    }

    /// Whether who offers these protocols could be a member.
    fn supports(&self, kind: &str, protocols: &[Protocol]) -> bool {
        if self.phase == Phase::Empty {
            return !kind.is_empty() && !protocols.is_empty();
        }
        let everybody = |name: &str| self.members.values().all(|member| member.can(name));
        self.protocol_type.as_deref() == Some(kind)
            && protocols.iter().any(|protocol| everybody(&protocol.name))
    }

    /// The protocol of the next generation: of those that all members can, the one that most like
    /// best; of several such, the first by name.
    fn elect_protocol(&self) -> Option<String> {
        let all = |name: &str| self.members.values().all(|member| member.can(name));
        let first = self.members.values().next()?;
        let offered = first.protocols.iter().map(|protocol| protocol.name.as_str());
        let common: BTreeSet<&str> = offered.filter(|name| all(name)).collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut liked = member.protocols.iter().map(|protocol| protocol.name.as_str());
            *votes.entry(liked.find(|name| common.contains(name))?).or_default() += 1;
        }
        let most = *votes.values().max()?;
        let elected = votes.into_iter().find(|(_, count)| *count == most);
        elected.map(|(name, _)| name.to_string())
    }

    /// Takes a member in.
    fn add(&mut self, id: Rc<str>, member: Member, kind: String) {
        if let Some(instance) = &member.instance {
            let before = self.statics.insert(instance.clone(), id.clone());
            assert!(
                before.is_none(),
                "an instance that is a member already is replaced, not added"
            );
        }
        if self.members.is_empty() {
            self.protocol_type = Some(kind);
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending.remove(&id);
        self.members.insert(id, member);
    }

    /// Takes whoever has this id out, member or about to become one.
    fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id);
        if let Some(instance) = member.as_ref().and_then(|member| member.instance.as_ref()) {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending.remove(id);
        self.pending_sync.remove(id);
        member
    }

    /// Whether a commit of offsets may be; it says that the member lives, too. Kafka:
    /// `ClassicGroup.validateOffsetCommit`.
    pub(super) fn admit_commit(
        &mut self,
        desk: &mut Desk<'_>,
        request: &CommitOffsets,
    ) -> Result<(), GroupFault> {
        let stranger =
            request.generation < 0 && request.member.is_empty() && request.instance.is_none();
        if self.phase == Phase::Empty && request.generation < 0 {
            return Ok(());
        }
        if stranger {
            return Err(GroupFault::UnknownMemberId);
        }
        self.check_member(&request.member, request.instance.as_deref())?;
        let blind = desk.config.mutant == Some(Mutant::StaleGenerationCommits);
        if request.generation != self.generation && !blind {
            return Err(GroupFault::IllegalGeneration);
        }
        match self.phase {
            // It has joined this generation, but has no assignment of it: it cannot speak for it.
            Phase::Completing => Err(GroupFault::RebalanceInProgress),
            _ => {
                self.renew(desk, &request.member);
                Ok(())
            }
        }
    }

    /// Whether offsets may not be deleted at all: only of consumers it is known what they use.
    pub(super) fn refuses_delete(&self) -> bool {
        self.phase != Phase::Empty && self.protocol_type.as_deref() != Some(CONSUMER)
    }

    /// Whether its members consume `topic`; yes if that cannot be known of consumers.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(CONSUMER),
        }
    }

    /// Whether it is known what its members consume, so that the rest may expire.
    pub(super) fn may_expire(&self) -> bool {
        self.phase == Phase::Stable
            && self.protocol_type.as_deref() == Some(CONSUMER)
            && self.subscribed.is_some()
    }
}
