//! The leader's side of a partition, pure: who is in sync, how far each of them has come, and the
//! high watermark that follows.
//!
//! Positions are *promises*: everything below them is durable, in the class that the topic asks
//! for, on that replica. A leader counts itself like any other member, by its own durable end.
//!
//! # Whom the high watermark waits for
//! The least promise of the *maximal* ISR: the committed ISR and whoever is proposed for it. The
//! controller may have committed a proposal long before the leader hears of it, and from then on
//! may elect the new member; so it counts from the moment of the proposal until the controller's
//! answer, or a newer version of the partition, tells that it was not taken. That nobody answered
//! tells nothing. In the other direction a member that is proposed to leave counts until it is
//! known to have left. While fewer than `min.insync.replicas` are in sync nothing is committed at
//! all (KAFKA-15583): who has just left may still be elected then (KIP-966), and has only what was
//! committed before.
//!
//! # What a promise is worth
//! It counts when the replica's log was compared with this one in this term and fits. A new
//! registration of the replica, a new position that does not fit, or batches that this leader had
//! to give up make it worthless until the next comparison.

use std::collections::{BTreeMap, BTreeSet};

use engine::epochs::{EpochEnd, EpochStart};
use engine::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use engine::time::Instant;

use crate::ask::{Ask, FetchFault, IsrAnswer, Position, ReplicaFetch};
use crate::config::ReplicationConfig;
use crate::divergence::{self, View};
use crate::mutant::Mutant;
use crate::role::{Assignment, PartitionEpoch};

mod isr;
#[cfg(test)]
mod tests;

use isr::Proposal;

/// What a producer asks for before it is answered (`acks`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Acks {
    /// 0: no answer at all; the batch is in the leader's memory.
    None,
    /// 1: the leader's device has taken the write.
    Leader,
    /// all (-1): every in-sync replica holds it durably.
    All,
}

/// The state of a leadership. Ends with its epoch.
#[derive(Debug, Clone)]
pub struct Leader {
    me: BrokerId,
    /// The epoch, and where this log ended when it began.
    term: EpochStart,
    partition_epoch: PartitionEpoch,
    /// All replicas but this one.
    peers: BTreeMap<BrokerId, Peer>,
    /// Committed by the controller; this broker is among them.
    isr: BTreeSet<BrokerId>,
    /// On its way to the controller, at most one.
    proposal: Option<Proposal>,
    /// Proposals made in this term.
    attempts: u64,
    /// Refusals in a row, and until when nothing is proposed because of them.
    refusals: u32,
    quiet_until: Option<Instant>,
    end: Offset,
    durable_end: Offset,
    /// Never falls within the term.
    high_watermark: Offset,
    /// Exclusive end of what was read for replicas, whether it arrived or not.
    shown_end: Offset,
    /// Batches were given up that replicas may have: nothing more may be written in this term.
    spent: bool,
    /// `min.insync.replicas`, as configured.
    min_in_sync: usize,
    config: ReplicationConfig,
}

/// What the leader knows of another replica.
#[derive(Debug, Clone)]
struct Peer {
    broker_epoch: Option<BrokerEpoch>,
    /// Its log was compared with this one in this term, and fits up to where it fetches.
    fits: bool,
    promise: Offset,
    /// When it last had everything that there was, or that there was at the fetch before.
    caught_up_at: Instant,
    /// When it last fetched, and this log's end then.
    fetched: Option<(Instant, Offset)>,
    /// A position that was said without knowing this version of the partition is from before it
    /// was (re-)added and does not count.
    since: PartitionEpoch,
}

impl Peer {
    fn new(now: Instant, since: PartitionEpoch) -> Peer {
        Peer {
            broker_epoch: None,
            fits: false,
            promise: Offset::ZERO,
            caught_up_at: now,
            fetched: None,
            since,
        }
    }

    fn forget_promise(&mut self) {
        self.fits = false;
        self.promise = Offset::ZERO;
    }
}

/// Fewer replicas are in sync than the topic demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{in_sync} replicas are in sync, min.insync.replicas is {needed}")]
pub struct NotEnoughReplicas {
    /// How many are in sync.
    pub in_sync: usize,
    /// How many the topic demands, at most all of its replicas.
    pub needed: usize,
}

/// The client believes in another leadership than the one that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochMismatch {
    /// The client's is older: it must refresh its metadata.
    #[error("leader epoch {asked} is fenced, the current one is {current}")]
    Fenced {
        /// The epoch that the client named.
        asked: LeaderEpoch,
        /// The one in force.
        current: LeaderEpoch,
    },
    /// The client's is newer: this broker has not heard of it yet.
    #[error("leader epoch {asked} is unknown here, the current one is {current}")]
    Unknown {
        /// The epoch that the client named.
        asked: LeaderEpoch,
        /// The one in force.
        current: LeaderEpoch,
    },
}

/// Compares the epoch that somebody named, if he did (KIP-320).
pub fn check_epoch(current: LeaderEpoch, asked: Option<LeaderEpoch>) -> Result<(), EpochMismatch> {
    match asked {
        Some(asked) if asked < current => Err(EpochMismatch::Fenced { asked, current }),
        Some(asked) if asked > current => Err(EpochMismatch::Unknown { asked, current }),
        _ => Ok(()),
    }
}

/// What a leader says to a fetch of a replica, before anything is read for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// It fits. The high watermark may have risen.
    Fits,
    /// The logs part: the largest epoch not above the replica's last one, and its end here.
    Diverging(EpochEnd),
}

impl Leader {
    /// Begins a leadership. `view` is of the log as it stands, `high_watermark` what is known to
    /// be committed of it; `min_in_sync` is `min.insync.replicas` as configured.
    pub fn new(
        me: BrokerId,
        assignment: &Assignment,
        view: &View<'_>,
        high_watermark: Offset,
        min_in_sync: usize,
        config: ReplicationConfig,
        now: Instant,
    ) -> Leader {
        let others = assignment.replicas.iter().filter(|&&id| id != me);
        let since = PartitionEpoch::default();
        let mut isr: BTreeSet<_> = assignment.isr.iter().copied().collect();
        // An unclean election may name a leader before its ISR.
        isr.insert(me);
        let mut leader = Leader {
            me,
            term: EpochStart { epoch: assignment.leader_epoch, start: view.end },
            partition_epoch: assignment.partition_epoch,
            peers: others.map(|&id| (id, Peer::new(now, since))).collect(),
            isr,
            proposal: None,
            attempts: 0,
            refusals: 0,
            quiet_until: None,
            end: view.end,
            durable_end: view.durable_end,
            // What is committed is durable here, if this broker was in sync. If it was not (an
            // unclean election), what is not durable must not be called committed.
            high_watermark: high_watermark.min(view.durable_end),
            shown_end: Offset::ZERO,
            spent: false,
            min_in_sync,
            config,
        };
        leader.advance();
        leader
    }

    /// The term.
    pub fn epoch(&self) -> LeaderEpoch {
        self.term.epoch
    }

    /// The term and the log end with which it began.
    pub fn term(&self) -> EpochStart {
        self.term
    }

    /// The version of the partition.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// Exclusive end of the committed log; what consumers may read.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether the high watermark is known as far as it was when the term began: before that,
    /// "the latest offset" would run backwards for a client (KIP-207).
    pub fn is_settled(&self) -> bool {
        self.high_watermark >= self.term.start
    }

    /// The committed in-sync replicas.
    pub fn isr(&self) -> &BTreeSet<BrokerId> {
        &self.isr
    }

    /// How far a replica has promised; `None` where that is not known in this term.
    pub fn promise(&self, replica: BrokerId) -> Option<Offset> {
        match replica == self.me {
            true => Some(self.durable_end),
            false => self.peers.get(&replica).filter(|peer| peer.fits).map(|peer| peer.promise),
        }
    }

    /// Batches were appended; the log ends at `end`. Who had everything until now is caught up as of
    /// now: a replica of a partition at rest has nothing to say, and would else be late the moment
    /// that something is written.
    pub fn on_append(&mut self, end: Offset, now: Instant) {
        assert!(end >= self.end, "a log that gave up batches says so first");
        for peer in self.peers.values_mut().filter(|peer| peer.fits && peer.promise >= self.end) {
            peer.caught_up_at = peer.caught_up_at.max(now);
        }
        self.end = end;
    }

    /// This broker's own log is durable up to `end`. Answers whether the high watermark rose.
    pub fn on_durable(&mut self, end: Offset) -> bool {
        self.durable_end = end.max(self.durable_end);
        self.advance()
    }

    /// The log gave up batches (no space) and ends at `end` now. If replicas may have them, other
    /// batches must not get their offsets in this term: two logs with the same epoch at the same
    /// offset could not be told apart any more.
    pub fn on_given_up(&mut self, end: Offset) {
        assert!(end >= self.high_watermark, "what is durable is not given up");
        self.end = end;
        // What was taken over from the leader before may be among it: then this term begins
        // earlier, and whoever has those batches has to cut them.
        self.term.start = self.term.start.min(end);
        self.peers.values_mut().for_each(|peer| peer.fits = false);
        if self.shown_end > end && !self.config.has(Mutant::ReuseGivenUp) {
            tracing::warn!(epoch = %self.term.epoch, %end, shown = %self.shown_end,
                "batches were given up that followers may have; a new term is needed");
            self.spent = true;
        }
    }

    /// Nothing may be appended, nor read for replicas, in this term any more.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// Where the log ends, as it was told.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Whether a batch may be accepted under these acks (KIP-16: only `all` looks at the ISR).
    pub fn admit(&self, acks: Acks) -> Result<(), NotEnoughReplicas> {
        let (in_sync, needed) = (self.isr.len(), self.needed());
        if acks == Acks::All && in_sync < needed {
            return Err(NotEnoughReplicas { in_sync, needed });
        }
        Ok(())
    }

    /// Kafka's `effectiveMinIsr`: more than there are replicas cannot be demanded.
    fn needed(&self) -> usize {
        self.min_in_sync.min(self.peers.len() + 1)
    }

    /// `min.insync.replicas` was configured anew. Answers whether the high watermark rose.
    pub fn set_min_in_sync(&mut self, min_in_sync: usize) -> bool {
        self.min_in_sync = min_in_sync;
        self.advance()
    }

    /// Compares the epoch that a client named, if it did (KIP-320).
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochMismatch> {
        check_epoch(self.term.epoch, asked)
    }

    /// Where an epoch ended here (OffsetForLeaderEpoch).
    pub fn end_of(&self, epoch: LeaderEpoch, view: &View<'_>) -> Option<EpochEnd> {
        divergence::end_of(view, self.term, epoch, self.config.mutant)
    }

    /// A replica fetches: its promise counts from now on.
    pub fn on_fetch(
        &mut self,
        fetch: &ReplicaFetch,
        view: &View<'_>,
        now: Instant,
    ) -> Result<Verdict, FetchFault> {
        let part = &fetch.part;
        match self.check_epoch(Some(part.leader_epoch)) {
            Ok(()) => {}
            Err(EpochMismatch::Fenced { .. }) => return Err(FetchFault::Fenced),
            Err(EpochMismatch::Unknown { .. }) => return Err(FetchFault::UnknownEpoch),
        }
        let (term, config, end) = (self.term, self.config, self.end);
        let peer = self.peers.get_mut(&fetch.replica).ok_or(FetchFault::NotReplica)?;
        match peer.broker_epoch {
            Some(known) if fetch.broker_epoch < known => return Err(FetchFault::NotReplica),
            Some(known) if fetch.broker_epoch > known => peer.forget_promise(),
            _ => {}
        }
        peer.broker_epoch = Some(fetch.broker_epoch);
        match part.position {
            Some(position) => {
                if part.partition_epoch < peer.since && !config.has(Mutant::KeepOldPromise) {
                    return Err(FetchFault::UnknownEpoch);
                }
                if let Some(parts) = compare(peer, view, term, position, config.mutant)? {
                    return Ok(Verdict::Diverging(parts));
                }
                peer.promise = part.durable_end.min(position.offset);
            }
            None if !peer.fits => return Err(FetchFault::Unpositioned),
            None => peer.promise = peer.promise.max(part.durable_end),
        }
        peer.promise = peer.promise.min(end);
        let caught_up = match peer.fetched {
            _ if peer.promise >= end => Some(now),
            Some((at, end)) if peer.promise >= end => Some(at),
            _ => None,
        };
        peer.caught_up_at = peer.caught_up_at.max(caught_up.unwrap_or(Instant::ZERO));
        peer.fetched = Some((now, end));
        self.advance();
        Ok(Verdict::Fits)
    }

    /// Batches up to `next` were read for a replica.
    pub fn on_shown(&mut self, next: Offset) {
        self.shown_end = self.shown_end.max(next);
    }

    /// Whether a replica may be served from its cursor on.
    pub fn may_show(&self, replica: BrokerId) -> Result<(), FetchFault> {
        match self.peers.get(&replica) {
            None => Err(FetchFault::NotReplica),
            _ if self.spent => Err(FetchFault::NotLeader),
            Some(peer) if !peer.fits => Err(FetchFault::Unpositioned),
            Some(_) => Ok(()),
        }
    }

    /// A newer version of the partition in the same term. Answers whether the high watermark rose.
    pub fn on_assignment(&mut self, new: &Assignment, now: Instant) -> bool {
        assert_eq!(new.leader_epoch, self.term.epoch, "another term is another leader");
        // The version known already, from the controller's answer, may bring other replicas.
        if new.partition_epoch < self.partition_epoch {
            return false;
        }
        // In a version that this leader has not seen the replica may have been removed, and its
        // log deleted. Members of the ISR were not: they come in through this leader only.
        let missed = new.partition_epoch.0 > self.partition_epoch.0 + 1;
        let since = new.partition_epoch;
        let keeps = self.config.has(Mutant::KeepOldPromise);
        self.peers.retain(|id, _| keeps || new.replicas.contains(id));
        for &id in new.replicas.iter().filter(|&&id| id != self.me) {
            let peer = self.peers.entry(id).or_insert_with(|| Peer::new(now, since));
            if missed && !new.isr.contains(&id) && !keeps {
                peer.forget_promise();
                peer.since = since;
            }
        }
        self.on_isr(new.partition_epoch, &new.isr)
    }

    /// The earliest moment at which [`Leader::ask`] may have something to say though nothing
    /// happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.isr_deadline()
    }

    /// What the controller should be asked now, if anything. Not again before it answers.
    pub fn ask(&mut self, now: Instant) -> Option<Ask> {
        if self.spent {
            return self.ask_for_a_new_term(now);
        }
        self.propose(now).map(Ask::AlterIsr)
    }

    fn ask_for_a_new_term(&mut self, now: Instant) -> Option<Ask> {
        if self.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        self.quiet_until = Some(now.after(self.config.back_off_max));
        Some(Ask::NewTerm { leader_epoch: self.term.epoch })
    }

    /// The controller's answer to an attempt. Answers whether the high watermark rose.
    pub fn on_isr_answer(&mut self, attempt: u64, answer: &IsrAnswer, now: Instant) -> bool {
        self.on_answer(attempt, answer, now)
    }

    fn promise_of(&self, id: BrokerId) -> Offset {
        match self.peers.get(&id) {
            _ if id == self.me => self.durable_end,
            Some(peer) => peer.promise,
            None => Offset::ZERO,
        }
    }

    fn advance(&mut self) -> bool {
        if self.isr.len() < self.needed() && !self.config.has(Mutant::AdvanceUnderMinIsr) {
            return false;
        }
        let proposed = self.proposal.iter().flat_map(|proposal| proposal.members());
        let proposed = proposed.filter(|_| !self.config.has(Mutant::IgnoreMaximalIsr));
        let maximal = self.isr.iter().copied().chain(proposed);
        let committed = maximal.map(|id| self.promise_of(id)).min().expect("never empty");
        let rises = committed > self.high_watermark;
        self.high_watermark = self.high_watermark.max(committed);
        rises
    }
}

/// Compares a replica's log with this one. What it does not share is not promised.
fn compare(
    peer: &mut Peer,
    view: &View<'_>,
    term: EpochStart,
    position: Position,
    mutant: Option<Mutant>,
) -> Result<Option<EpochEnd>, FetchFault> {
    peer.forget_promise();
    let parts = divergence::parting(view, term, position, mutant)?;
    peer.fits = parts.is_none();
    Ok(parts)
}
