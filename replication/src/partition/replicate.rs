//! What goes from leader to follower: the leader's side answers fetches, the follower's side
//! carries answers out.

use std::ops::Deref;
use std::time::Duration;

use engine::batch::{Checked, check_trusted};
use engine::env::Env;
use engine::ids::{BrokerId, LeaderEpoch, Offset};
use engine::log::{AppendError, Chunk, Limit, ReadError, ReplicateError};

use super::{Inner, Partition};
use crate::ask::{AnswerPart, FetchFault, FetchPart, Outcome, ReplicaFetch};
use crate::fetcher::Delivery;
use crate::follower::Step;
use crate::leader::Verdict;
use crate::stream::Head;

/// What a fetcher has to be told about a partition that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowNews {
    /// From whom to fetch.
    pub leader: BrokerId,
    /// Where this log stands.
    pub standing: FetchPart,
    /// Whether the cursor has to be put anew ([`crate::fetcher::Fetcher::place`]) rather than
    /// only the promise told ([`crate::fetcher::Fetcher::on_progress`]).
    pub place: bool,
}

/// What became of an answer. The fetcher is told with the [`FetchPart`] inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Accepted {
    /// Nothing to do: it was of another term or role, or older than a truncation.
    Ignored,
    /// It was carried out: [`crate::fetcher::Fetcher::on_progress`].
    Taken(FetchPart),
    /// The position has to be said again: [`crate::fetcher::Fetcher::place`].
    Place(FetchPart),
    /// The same after this pause: [`crate::fetcher::Fetcher::place_at`].
    BackOff(FetchPart, Duration),
}

/// How appending an answer's batches went.
enum Appending {
    Done,
    /// They do not follow this log's end.
    Elsewhere,
    /// The leader's log was compacted, and this one does not expect holes yet.
    WithHoles,
    /// They hold this offset in their middle, where an empty log begins.
    Straddling(Offset),
    /// The log does not take them now.
    Refused,
}

impl<E: Env> Partition<E> {
    /// A fetch of a replica has arrived: its promise counts from now on. Synchronous; give parts
    /// of one stream in their order.
    pub fn on_replica_fetch(&self, fetch: &ReplicaFetch) -> Result<Verdict, FetchFault> {
        let partition = &self.0;
        partition.notice_given_up();
        let now = partition.env.now();
        let verdict = partition.view(|replica, view| match replica.leader_mut() {
            Some(leader) => leader.on_fetch(fetch, view, now),
            None => Err(FetchFault::NotLeader),
        });
        partition.tell();
        verdict
    }

    /// What a replica is told beside batches.
    pub fn head(&self) -> Head {
        Head { high_watermark: self.high_watermark(), log_start: self.log().start() }
    }

    /// Reads up to the log's end for a replica whose last fetch fits; `None` when the device must
    /// be asked.
    pub fn replica_read_hot(
        &self,
        replica: BrokerId,
        epoch: LeaderEpoch,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Option<Chunk<E>>, FetchFault> {
        self.may_show(replica, epoch)?;
        let limit = Limit { bytes_max, bound: self.log().end(), at_least_one };
        let chunk = self.log().read_hot(from, limit).map_err(|error| self.fault(&error))?;
        if let Some(chunk) = &chunk {
            self.0.lead_with(|leader| leader.on_shown(chunk.next));
        }
        Ok(chunk)
    }

    /// The same, from the device if need be.
    pub async fn replica_read(
        &self,
        replica: BrokerId,
        epoch: LeaderEpoch,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Chunk<E>, FetchFault> {
        if let Some(chunk) = self.replica_read_hot(replica, epoch, from, bytes_max, at_least_one)? {
            return Ok(chunk);
        }
        let limit = Limit { bytes_max, bound: self.log().end(), at_least_one };
        let read = self.log().read(from, limit).await;
        // Another term may have begun meanwhile.
        self.may_show(replica, epoch)?;
        let chunk = read.map_err(|error| self.fault(&error))?;
        self.0.lead_with(|leader| leader.on_shown(chunk.next));
        Ok(chunk)
    }

    fn may_show(&self, replica: BrokerId, epoch: LeaderEpoch) -> Result<(), FetchFault> {
        self.0.notice_given_up();
        let known = self.0.replica.borrow();
        let leader = known.leader().ok_or(FetchFault::NotLeader)?;
        if leader.epoch() != epoch {
            return Err(FetchFault::Fenced);
        }
        leader.may_show(replica)
    }

    fn fault(&self, error: &ReadError) -> FetchFault {
        match error {
            ReadError::OutOfRange { start, end, .. } => {
                FetchFault::OutOfRange { start: *start, end: *end }
            }
            ReadError::Damaged { .. } | ReadError::Undecodable(_) | ReadError::Device(_) => {
                tracing::error!(id = %self.log().identity(), %error,
                    "a log cannot be read for a replica");
                FetchFault::Storage
            }
        }
    }

    /// Whom to fetch from, and what to tell; `None` where this broker does not follow, or while
    /// its log is being cut. Look here when [`super::Notices`] name this partition; a position
    /// that has to be said is named once.
    pub fn follow_news(&self) -> Option<FollowNews> {
        let id = self.log().identity();
        let news = self.0.view(|replica, view| {
            let follower = replica.follower().filter(|follower| !follower.is_truncating())?;
            Some((follower.leader(), follower.standing(id, view)))
        });
        let (leader, standing) = news?;
        Some(FollowNews { leader, standing, place: self.0.misplaced.take() })
    }

    /// Carries out what a leader answered. One at a time per partition, in the order of the
    /// answers.
    pub async fn accept<B: Deref<Target = [u8]>>(&self, delivery: &Delivery<B>) -> Accepted {
        let partition = &self.0;
        let _turn = partition.turn.take().await;
        partition.notice_given_up();
        let (epoch, answer) = (delivery.leader_epoch, &delivery.answer);
        let step = partition.view(|replica, view| replica.on_answer(epoch, answer, view));
        let accepted = match step {
            Step::Ignore => Accepted::Ignored,
            Step::Idle => self.taken(),
            Step::Reposition => self.placed(),
            Step::BackOff(pause, fault) => {
                tracing::debug!(id = %self.log().identity(), %fault, ?pause, "fetch failed");
                self.after(pause)
            }
            Step::Truncate(to) => self.truncate(to).await,
            Step::Restart(at) => self.restart(at).await,
            Step::Append => self.take_records(answer).await,
        };
        partition.tell();
        if matches!(accepted, Accepted::Taken(_)) {
            self.delete_with_leader(answer).await;
        }
        accepted
    }

    /// The leader's log starts later: so does this one, as far as it is known to be committed.
    async fn delete_with_leader<B>(&self, answer: &AnswerPart<B>) {
        let bound = self.high_watermark();
        let to = answer.log_start.min(bound);
        if to > self.log().start()
            && let Err(error) = self.log().delete_before(to, bound).await
        {
            tracing::warn!(id = %self.log().identity(), %error, "the log start was not moved");
        }
    }

    async fn take_records<B: Deref<Target = [u8]>>(&self, answer: &AnswerPart<B>) -> Accepted {
        let Outcome::Records(Some(bytes)) = &answer.outcome else {
            unreachable!("only records are appended")
        };
        let mut appending = self.0.append_replicated(bytes);
        if let Appending::Straddling(base) = appending {
            // Nothing is lost: the log is empty.
            if self.log().restart_at(base).await.is_ok() {
                appending = self.0.append_replicated(bytes);
            }
        }
        if matches!(appending, Appending::WithHoles) && self.log().admit_holes().await.is_ok() {
            appending = self.0.append_replicated(bytes);
        }
        let end = self.log().end();
        self.0.known_end.set(end);
        match appending {
            Appending::Done => {
                self.0.follow_with(|follower| {
                    follower.on_appended(answer.high_watermark, end);
                    Duration::ZERO
                });
                self.0.start_following();
                self.taken()
            }
            Appending::Elsewhere => self.placed(),
            Appending::Straddling(_) | Appending::WithHoles | Appending::Refused => {
                let pause = self.0.follow_with(|follower| follower.on_not_appended());
                self.after(pause)
            }
        }
    }

    async fn truncate(&self, to: Offset) -> Accepted {
        let cut = self.log().truncate_to(to).await;
        self.truncated(cut.map(|_| ()))
    }

    async fn restart(&self, at: Offset) -> Accepted {
        let begun = self.log().restart_at(at).await;
        self.truncated(begun)
    }

    fn truncated(&self, cut: Result<(), engine::log::TruncateError>) -> Accepted {
        let (start, end) = (self.log().start(), self.log().end());
        self.0.known_end.set(end);
        let pause = self.0.follow_with(|follower| {
            follower.on_truncated(start, end);
            if cut.is_err() { follower.on_not_appended() } else { Duration::ZERO }
        });
        match cut {
            Ok(()) => self.placed(),
            Err(error) => {
                tracing::error!(id = %self.log().identity(), %error, "the log was not cut");
                self.after(pause)
            }
        }
    }

    fn standing(&self) -> Option<FetchPart> {
        let id = self.log().identity();
        self.0.view(|replica, view| Some(replica.follower()?.standing(id, view)))
    }

    fn taken(&self) -> Accepted {
        self.standing().map_or(Accepted::Ignored, Accepted::Taken)
    }

    fn placed(&self) -> Accepted {
        self.0.misplaced.set(false);
        self.standing().map_or(Accepted::Ignored, Accepted::Place)
    }

    fn after(&self, pause: Duration) -> Accepted {
        self.0.misplaced.set(false);
        self.standing().map_or(Accepted::Ignored, |standing| Accepted::BackOff(standing, pause))
    }
}

impl<E: Env> Inner<E> {
    fn follow_with(
        &self,
        act: impl FnOnce(&mut crate::follower::Follower) -> Duration,
    ) -> Duration {
        let mut replica = self.replica.borrow_mut();
        // The role does not change while an answer is carried out.
        replica.follower_mut().map_or(Duration::ZERO, act)
    }

    fn append_replicated(&self, bytes: &[u8]) -> Appending {
        let id = self.log.identity();
        let mut checked: Vec<Checked<'_>> = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            match check_trusted(rest) {
                Ok(batch) => {
                    rest = &rest[batch.bytes().len()..];
                    checked.push(batch);
                }
                Err(error) => {
                    tracing::error!(%id, %error, "a batch of the leader is damaged");
                    return Appending::Refused;
                }
            }
        }
        let (start, end) = (self.log.start(), self.log.end());
        if let Some(first) = checked.first()
            && start == end
            && first.base_offset() < end
            && first.next_offset() > end
        {
            return Appending::Straddling(first.base_offset());
        }
        match self.log.append_replicated(&checked) {
            Ok(_) => Appending::Done,
            Err(ReplicateError::NotContiguous { base, end }) => {
                tracing::debug!(%id, %base, %end, "batches do not follow the log's end");
                Appending::Elsewhere
            }
            Err(ReplicateError::Hole { .. }) => Appending::WithHoles,
            Err(error @ ReplicateError::OldEpoch { .. }) => {
                tracing::warn!(%id, %error, "batches of an older term");
                Appending::Refused
            }
            Err(ReplicateError::Refused(error)) => {
                match error {
                    AppendError::NoSpace | AppendError::Truncating | AppendError::Closed => {}
                    other => tracing::error!(%id, error = %other, "a follower cannot append"),
                }
                Appending::Refused
            }
        }
    }
}
