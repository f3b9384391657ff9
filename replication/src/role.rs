//! What this broker is to a partition, and how that changes: leader, follower, or neither. Pure;
//! [`crate::partition`] carries it out on a log.
//!
//! Assignments come from the committed metadata. Newer terms replace the role, newer versions of
//! the same term change its in-sync set, older ones are ignored: whatever order they come in, the
//! role is that of the newest one seen.

use engine::ids::{BrokerId, LeaderEpoch, Offset};
use engine::time::Instant;

use crate::ask::{AnswerPart, Outcome};
use crate::config::ReplicationConfig;
use crate::divergence::{self, View};
use crate::follower::{Follower, Step};
use crate::leader::Leader;
use crate::mutant::Mutant;

/// Version of a partition's metadata; rises with every change of leader or in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PartitionEpoch(pub i32);

/// Who has which part in a partition, as the controller decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Who leads; `None`: nobody can.
    pub leader: Option<BrokerId>,
    /// The term.
    pub leader_epoch: LeaderEpoch,
    /// The version.
    pub partition_epoch: PartitionEpoch,
    /// Everybody who has, or should have, a copy.
    pub replicas: Vec<BrokerId>,
    /// Those who are in sync.
    pub isr: Vec<BrokerId>,
}

/// The part that this broker has.
#[derive(Debug, Clone)]
pub enum Role {
    /// It leads.
    Leader(Leader),
    /// It follows.
    Follower(Follower),
    /// Neither: nobody leads, or this broker is no replica (any more).
    Standby,
}

/// What an assignment changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Change {
    /// Nothing: it is older than what is known, or the same.
    Ignored,
    /// A new version within the term. A follower has to say its position again, with the new
    /// version; a leader's high watermark may have risen.
    Version,
    /// This broker leads from now on, in a new term.
    Leads,
    /// It follows from now on, in a new term. `cut`: the log must be cut here first (a mutant).
    Follows {
        /// Only [`Mutant::TruncateByWatermark`] says where.
        cut: Option<Offset>,
    },
    /// It has no part from now on.
    Stands,
}

/// This broker's part in one partition.
#[derive(Debug, Clone)]
pub struct Replica {
    me: BrokerId,
    config: ReplicationConfig,
    assignment: Option<Assignment>,
    role: Role,
    /// Of the time without a role, and until a role has its own.
    ///
    /// Not stored on the device, because nothing is decided by it: logs are cut by epoch only, and
    /// what is committed follows from the durable ends of the in-sync replicas. After a restart it
    /// begins at the log start and is right again with the first promises of the others (at once
    /// where this broker is alone). The price: a broker that comes back alone into a partition
    /// whose `min.insync.replicas` is 2 shows consumers nothing until a second one is there.
    high_watermark: Offset,
}

impl Replica {
    /// Of a broker that has just opened its log, which starts at `log_start`.
    pub fn new(me: BrokerId, config: ReplicationConfig, log_start: Offset) -> Replica {
        Replica { me, config, assignment: None, role: Role::Standby, high_watermark: log_start }
    }

    /// The settings.
    pub fn config(&self) -> &ReplicationConfig {
        &self.config
    }

    /// What was assigned last.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// The term, -1 before the first assignment.
    pub fn epoch(&self) -> LeaderEpoch {
        self.assignment.as_ref().map_or(LeaderEpoch(-1), |known| known.leader_epoch)
    }

    /// The version of the partition, -1 before the first assignment.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.assignment.as_ref().map_or(PartitionEpoch(-1), |known| known.partition_epoch)
    }

    /// The part.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The leadership, if this broker leads.
    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// The same, to change.
    pub fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// The followership, if this broker follows.
    pub fn follower(&self) -> Option<&Follower> {
        match &self.role {
            Role::Follower(follower) => Some(follower),
            _ => None,
        }
    }

    /// The same, to change.
    pub fn follower_mut(&mut self) -> Option<&mut Follower> {
        match &mut self.role {
            Role::Follower(follower) => Some(follower),
            _ => None,
        }
    }

    /// Exclusive end of what is known here to be committed.
    pub fn high_watermark(&self) -> Offset {
        match &self.role {
            Role::Leader(leader) => leader.high_watermark(),
            Role::Follower(follower) => follower.high_watermark(),
            Role::Standby => self.high_watermark,
        }
    }

    /// Exclusive end of what consumers may read.
    pub fn read_bound(&self, view: &View<'_>) -> Offset {
        match self.config.has(Mutant::ReadToEnd) {
            true => view.end,
            false => self.high_watermark(),
        }
    }

    /// Looks at an answer to a fetch that was sent in the term `epoch`: only a follower in that
    /// term does anything about it (KAFKA-13207).
    pub fn on_answer<B>(
        &mut self,
        epoch: LeaderEpoch,
        answer: &AnswerPart<B>,
        view: &View<'_>,
    ) -> Step {
        match (&mut self.role, &answer.outcome) {
            (Role::Follower(follower), _) => follower.on_answer(epoch, answer, view),
            (Role::Leader(_), Outcome::Diverging(end)) if self.config.has(Mutant::ObeyZombies) => {
                Step::Truncate(divergence::truncation(view, *end))
            }
            _ => Step::Ignore,
        }
    }

    /// Takes an assignment in. `view` is of the log as it stands; no truncation may be on its way.
    pub fn on_assignment(
        &mut self,
        new: Assignment,
        view: &View<'_>,
        min_in_sync: usize,
        now: Instant,
    ) -> Change {
        let known = (self.epoch(), self.partition_epoch());
        let same_term = self.assignment.as_ref().is_some_and(|known| {
            known.leader_epoch == new.leader_epoch && known.leader == new.leader
        });
        if (new.leader_epoch, new.partition_epoch) <= known {
            return Change::Ignored;
        }
        let is_replica = new.replicas.contains(&self.me);
        if same_term && is_replica && !matches!(self.role, Role::Standby) {
            match &mut self.role {
                Role::Leader(leader) => {
                    leader.on_assignment(&new, now);
                }
                Role::Follower(follower) => follower.on_version(new.partition_epoch),
                Role::Standby => {}
            }
            self.assignment = Some(new);
            return Change::Version;
        }
        self.begin(new, is_replica, view, min_in_sync, now)
    }

    fn begin(
        &mut self,
        new: Assignment,
        is_replica: bool,
        view: &View<'_>,
        min_in_sync: usize,
        now: Instant,
    ) -> Change {
        let was_following = self.follower().is_some_and(|f| Some(f.leader()) == new.leader);
        self.high_watermark = self.high_watermark().clamp(view.start, view.end);
        let change = match new.leader {
            Some(leader) if leader == self.me && is_replica => {
                let known = self.high_watermark;
                self.role = Role::Leader(Leader::new(
                    self.me,
                    &new,
                    view,
                    known,
                    min_in_sync,
                    self.config,
                    now,
                ));
                Change::Leads
            }
            Some(leader) if is_replica => {
                let mut follower = Follower::new(leader, &new, self.high_watermark, self.config);
                let skips = was_following && self.config.has(Mutant::SkipMissedEpoch);
                let cuts = self.config.has(Mutant::TruncateByWatermark);
                follower.trust_log(skips || cuts);
                self.role = Role::Follower(follower);
                Change::Follows { cut: cuts.then_some(self.high_watermark) }
            }
            _ => {
                self.role = Role::Standby;
                Change::Stands
            }
        };
        self.assignment = Some(new);
        change
    }
}
