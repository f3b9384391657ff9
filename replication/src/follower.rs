//! The follower's side of a partition, pure: what to do with an answer of the leader, and how much
//! of its own log is known to be committed.
//!
//! ```text
//!             answer says: diverging                 log is cut
//!  fetching ─────────────────────────► truncating ──────────────► fetching (position said anew)
//!     │ ▲
//!     └─┴── failures: backing off, longer each time, position said anew afterwards
//! ```
//! Its log is cut where the *epochs* part from the leader's, never at a watermark (KIP-101), and
//! the watermark of the leader counts only after that (KAFKA-14704). Answers that belong to
//! another term are ignored (KAFKA-13207).

use std::time::Duration;

use engine::ids::{BrokerId, LeaderEpoch, Offset, TopicPartition};

use crate::ask::{AnswerPart, FetchFault, FetchPart, Outcome, Position};
use crate::config::ReplicationConfig;
use crate::divergence::{View, truncation};
use crate::mutant::Mutant;
use crate::role::{Assignment, PartitionEpoch};

/// The state of following one leader in one term.
#[derive(Debug, Clone)]
pub struct Follower {
    leader: BrokerId,
    epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    /// At most the log's end. Falls only when the log is cut below it, which a clean election
    /// never asks for.
    high_watermark: Offset,
    /// The log is being cut or begun anew: answers to what was asked before do not count.
    truncating: bool,
    /// Failures in a row.
    failures: u32,
    /// Mutants only: the position is said without the last epoch, so that nothing is compared.
    trusts_log: bool,
    config: ReplicationConfig,
}

/// What is to be done with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Nothing: it is of another term, or older than a truncation.
    Ignore,
    /// Append its batches, then [`Follower::on_appended`].
    Append,
    /// Nothing to append; the watermark has been taken over.
    Idle,
    /// Cut the log to this end, then [`Follower::on_truncated`] and say the position.
    Truncate(Offset),
    /// Throw the whole log away and begin it at this offset, then the same: the leader has
    /// deleted what comes after this log's end.
    Restart(Offset),
    /// Say the position at once.
    Reposition,
    /// Say the position after this pause.
    BackOff(Duration, FetchFault),
}

impl Follower {
    /// Begins to follow `leader` in the term of `assignment`.
    pub fn new(
        leader: BrokerId,
        assignment: &Assignment,
        high_watermark: Offset,
        config: ReplicationConfig,
    ) -> Follower {
        Follower {
            leader,
            epoch: assignment.leader_epoch,
            partition_epoch: assignment.partition_epoch,
            high_watermark,
            truncating: false,
            failures: 0,
            trusts_log: false,
            config,
        }
    }

    /// Who is followed.
    pub fn leader(&self) -> BrokerId {
        self.leader
    }

    /// The term.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Exclusive end of what is known here to be committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether the log is being cut.
    pub fn is_truncating(&self) -> bool {
        self.truncating
    }

    pub(crate) fn trust_log(&mut self, trusts: bool) {
        self.trusts_log = trusts;
    }

    /// The partition has a new version in the same term.
    pub fn on_version(&mut self, partition_epoch: PartitionEpoch) {
        self.partition_epoch = partition_epoch;
    }

    /// What a stream is to say of this partition, position included.
    pub fn standing(&self, id: TopicPartition, view: &View<'_>) -> FetchPart {
        let position = view.position();
        let last_epoch = position.last_epoch.filter(|_| !self.trusts_log);
        FetchPart {
            id,
            leader_epoch: self.epoch,
            partition_epoch: self.partition_epoch,
            position: Some(Position { last_epoch, ..position }),
            durable_end: self.promise(view),
        }
    }

    /// What may be promised: what is durable.
    pub fn promise(&self, view: &View<'_>) -> Offset {
        match self.config.has(Mutant::PromiseEarly) {
            true => view.end,
            false => view.durable_end,
        }
    }

    /// Looks at an answer to a request of the term `epoch`.
    pub fn on_answer<B>(
        &mut self,
        epoch: LeaderEpoch,
        answer: &AnswerPart<B>,
        view: &View<'_>,
    ) -> Step {
        let zombie = epoch != self.epoch && !self.config.has(Mutant::ObeyZombies);
        if zombie || self.truncating {
            return Step::Ignore;
        }
        match &answer.outcome {
            Outcome::Records(Some(_)) => Step::Append,
            Outcome::Records(None) => {
                self.on_appended(answer.high_watermark, view.end);
                Step::Idle
            }
            Outcome::Diverging(leader) => {
                if self.config.has(Mutant::WatermarkBeforeTruncation) {
                    self.on_appended(answer.high_watermark, view.end);
                }
                let to = truncation(view, *leader);
                tracing::info!(epoch = %self.epoch, end = %view.end, %to, ?leader, "log is cut");
                self.cut(to);
                Step::Truncate(to)
            }
            Outcome::Failed(fault) => self.on_fault(*fault, view),
        }
    }

    fn cut(&mut self, to: Offset) {
        self.truncating = true;
        if self.config.has(Mutant::WatermarkBeforeTruncation) {
            return;
        }
        if to < self.high_watermark {
            tracing::warn!(epoch = %self.epoch, high_watermark = %self.high_watermark, %to,
                "the log is cut below what was committed: the leader was not in sync");
            self.high_watermark = to;
        }
    }

    fn on_fault(&mut self, fault: FetchFault, view: &View<'_>) -> Step {
        let to = match fault {
            FetchFault::Unpositioned => return Step::Reposition,
            FetchFault::OutOfRange { start, .. } if view.end < start => Some(start),
            // The leader cannot compare what was before its start.
            FetchFault::OutOfRange { start, .. }
                if view.end == start && view.epochs.latest().is_some() =>
            {
                Some(start)
            }
            // Only of a log without records: any other is cut by its epochs.
            FetchFault::OutOfRange { end, .. } if view.end > end => Some(end),
            _ => None,
        };
        match to {
            Some(to) => {
                tracing::warn!(epoch = %self.epoch, end = %view.end, %to, "log begins anew");
                self.cut(to);
                Step::Restart(to)
            }
            None => {
                self.failures += 1;
                Step::BackOff(self.config.back_off(self.failures), fault)
            }
        }
    }

    /// The log now ends at `end`, and the leader's high watermark was this when it answered.
    pub fn on_appended(&mut self, leader_high_watermark: Offset, end: Offset) {
        self.failures = 0;
        self.trusts_log &= !self.config.has(Mutant::TruncateByWatermark);
        self.high_watermark = self.high_watermark.max(leader_high_watermark.min(end));
    }

    /// What the answer held could not be appended (another offset, a bad batch, no space).
    pub fn on_not_appended(&mut self) -> Duration {
        self.failures += 1;
        self.config.back_off(self.failures)
    }

    /// The log gave up batches (no space) and ends at `end` now: say the position anew.
    pub fn on_given_up(&mut self, end: Offset) {
        self.high_watermark = self.high_watermark.min(end);
    }

    /// The log was cut, or begun anew, and is now `start..end`. What lies before its start was
    /// committed, or the leader would not have deleted it.
    pub fn on_truncated(&mut self, start: Offset, end: Offset) {
        self.truncating = false;
        self.high_watermark = self.high_watermark.clamp(start, end);
    }
}
