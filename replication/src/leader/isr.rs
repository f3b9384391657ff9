//! Changes of the in-sync set: who has fallen behind, who has caught up, and the one proposal that
//! is on its way to the controller.

use std::collections::BTreeSet;

use engine::ids::{BrokerEpoch, BrokerId};
use engine::time::Instant;

use super::Leader;
use crate::ask::{AlterIsr, IsrAnswer};
use crate::mutant::Mutant;
use crate::role::PartitionEpoch;

/// A proposal that the controller has not answered for good.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    attempt: u64,
    /// Repeated as it is: a member that has registered anew is another one.
    isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
    stage: Stage,
    /// An attempt was not answered: it may be carried out at any time, until the partition has a
    /// newer version.
    doubtful: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// On its way.
    Asked,
    /// To be repeated then.
    Again(Instant),
    /// Refused, but an earlier attempt may still be carried out: then, propose the ISR as it is,
    /// which ends all that.
    Void(Instant),
    /// That is on its way.
    Voiding,
    /// The partition has a newer version, which is on its way here.
    Outdated,
}

impl Proposal {
    pub fn members(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.isr.iter().map(|&(id, _)| id)
    }
}

impl Leader {
    /// A committed ISR, if it is newer than the one known.
    pub(super) fn on_isr(&mut self, partition_epoch: PartitionEpoch, isr: &[BrokerId]) -> bool {
        if partition_epoch <= self.partition_epoch {
            return false;
        }
        self.partition_epoch = partition_epoch;
        let new: BTreeSet<_> = isr.iter().copied().chain([self.me]).collect();
        if new != self.isr {
            tracing::info!(epoch = %self.term.epoch, ?partition_epoch, from = ?self.isr,
                to = ?new, "in-sync replicas changed");
        }
        self.isr = new;
        // Whatever was proposed named an older version and cannot be carried out any more.
        self.proposal = None;
        self.advance()
    }

    pub(super) fn on_answer(&mut self, attempt: u64, answer: &IsrAnswer, now: Instant) -> bool {
        if let IsrAnswer::Accepted { partition_epoch, isr } = answer
            && *partition_epoch > self.partition_epoch
        {
            self.refusals = 0;
            return self.on_isr(*partition_epoch, isr);
        }
        let Some(mut proposal) = self.proposal.take_if(|known| known.attempt == attempt) else {
            return false;
        };
        self.refusals += 1;
        let later = now.after(self.config.back_off(self.refusals));
        let voiding = proposal.stage == Stage::Voiding;
        proposal.stage = match answer {
            IsrAnswer::Ineligible if !proposal.doubtful => {
                self.quiet_until = Some(later);
                return self.advance();
            }
            IsrAnswer::Ineligible => Stage::Void(later),
            // Not newer than what is known: it did not raise the version, as it must.
            IsrAnswer::Accepted { .. } => Stage::Void(later),
            IsrAnswer::Stale => Stage::Outdated,
            IsrAnswer::Unknown => {
                proposal.doubtful = true;
                if voiding { Stage::Void(later) } else { Stage::Again(later) }
            }
        };
        self.proposal = Some(proposal);
        false
    }

    pub(super) fn propose(&mut self, now: Instant) -> Option<AlterIsr> {
        match self.proposal.as_ref().map(|proposal| proposal.stage) {
            Some(Stage::Asked | Stage::Voiding | Stage::Outdated) => None,
            Some(Stage::Again(at) | Stage::Void(at)) if now < at => None,
            Some(Stage::Again(_)) => Some(self.send(Stage::Asked)),
            Some(Stage::Void(_)) => Some(self.send(Stage::Voiding)),
            None if self.quiet_until.is_some_and(|until| now < until) => None,
            None => {
                let wanted = self.wanted(now);
                if wanted == self.isr {
                    return None;
                }
                let isr = self.named(&wanted);
                let stage = Stage::Asked;
                self.proposal = Some(Proposal { attempt: 0, isr, stage, doubtful: false });
                Some(self.send(stage))
            }
        }
    }

    /// The members with their registrations.
    fn named(&self, isr: &BTreeSet<BrokerId>) -> Vec<(BrokerId, Option<BrokerEpoch>)> {
        let epoch = |id| self.peers.get(id).and_then(|peer| peer.broker_epoch);
        isr.iter().map(|id| (*id, epoch(id))).collect()
    }

    fn send(&mut self, stage: Stage) -> AlterIsr {
        self.attempts += 1;
        self.quiet_until = None;
        let unchanged = self.named(&self.isr);
        let proposal = self.proposal.as_mut().expect("only a proposal is sent");
        proposal.attempt = self.attempts;
        proposal.stage = stage;
        let isr = match stage {
            Stage::Voiding => unchanged,
            _ => proposal.isr.clone(),
        };
        AlterIsr {
            attempt: self.attempts,
            leader_epoch: self.term.epoch,
            partition_epoch: self.partition_epoch,
            isr,
        }
    }

    /// Who should be in sync: members that are not too late, and whoever has caught up.
    fn wanted(&self, now: Instant) -> BTreeSet<BrokerId> {
        let stays = |id: &BrokerId| match self.peers.get(id) {
            Some(peer) => {
                peer.promise >= self.end || now < peer.caught_up_at.after(self.config.lag_max)
            }
            None => *id == self.me,
        };
        let kept = self.isr.iter().filter(|id| stays(id)).copied();
        let joins = self.peers.keys().filter(|id| !self.isr.contains(id) && self.may_join(**id));
        kept.chain(joins.copied()).collect()
    }

    /// A replica is in sync when all that is committed is durable on it. After an election the
    /// leader may not know yet what is; but nothing behind its log end at that time can be
    /// (KAFKA-7128).
    fn may_join(&self, id: BrokerId) -> bool {
        let peer = &self.peers[&id];
        let begun =
            peer.promise >= self.term.start || self.config.has(Mutant::JoinBeforeEpochStart);
        let fits = peer.fits || self.config.has(Mutant::KeepOldPromise);
        fits && begun && peer.promise >= self.high_watermark
    }

    pub(super) fn isr_deadline(&self) -> Option<Instant> {
        if self.spent {
            return Some(self.quiet_until.unwrap_or(Instant::ZERO));
        }
        match self.proposal.as_ref().map(|proposal| proposal.stage) {
            Some(Stage::Asked | Stage::Voiding | Stage::Outdated) => return None,
            Some(Stage::Again(at) | Stage::Void(at)) => return Some(at),
            None => {}
        }
        let behind = self.isr.iter().filter_map(|id| self.peers.get(id));
        let behind = behind.filter(|peer| peer.promise < self.end);
        let late = behind.map(|peer| peer.caught_up_at.after(self.config.lag_max)).min();
        let joins = self.peers.keys().any(|id| !self.isr.contains(id) && self.may_join(*id));
        let joins = joins.then_some(Instant::ZERO);
        let next = [late, joins].into_iter().flatten().min()?;
        Some(next.max(self.quiet_until.unwrap_or(Instant::ZERO)))
    }
}
