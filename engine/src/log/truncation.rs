//! Taking back the end of a log: [`Log::truncate_to`] when a leader's log went another way, and
//! [`Log::restart_at`] when nothing of this one can be used.
//!
//! ```text
//!   … | segment k ………┆cut ………| segment k+1 | segment k+2 |
//!  1    both checkpoints say: ends at the cut, and may be longer
//!  2    in memory it ends at the cut                            (no reader gets beyond it)
//!  3    saved indexes of k and later go
//!  4                                          3rd ◄── 2nd ◄──── files go, newest first, each
//!  5    k is cut and synced                                     durably before the next
//! ```
//! Whatever the step at which the process or the power ends, the files are a prefix of the old log
//! that is at least as long as the new one, and the checkpoints speak of nothing behind the cut.
//! When a call returns, what it took back is gone for good. If the process ends before that, the
//! checkpoint tells the next one that what it finds may not be durable yet (`Checkpoint::cut`).
//!
//! Nothing is appended meanwhile. What is in memory is written and synced first: a write in flight
//! must be awaited anyway, and then there is one case only, a cut on the device. A truncation runs
//! as a task of its own, so that a caller that goes away does not leave it half done.
//!
//! Source: Kafka's `UnifiedLog.truncateTo` and `truncateFullyAndStartAt`, KAFKA-10706 (epochs are
//! truncated even where nothing else is), KAFKA-9838 (reads that race with it).

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use super::checkpoints::Turn;
use super::holes::Holes;
use super::tail::{Mark, Tail};
use super::{Inner, Log, Mutant, ReadError, State, Status};
use crate::checkpoint::Checkpoint;
use crate::env::{Env, File, Queue, align_down};
use crate::epochs::Epochs;
use crate::ids::Offset;
use crate::producers::{Producers, Truncated};
use crate::segment::index::Index;
use crate::segment::{Segment, index_path, log_path};
use crate::time::Timestamp;
use crate::wait::Watch;

/// Why a log was not truncated. Unless its device failed, it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// Below the first readable offset.
    #[error("offset {asked} is below the log start {start}")]
    BelowStart {
        /// The offset asked for.
        asked: Offset,
        /// Where the log starts.
        start: Offset,
    },
    /// The log is closed, retired or failed.
    #[error("the log has ended")]
    Ended,
    /// Where to cut, or what producers had written before, cannot be found.
    #[error("what is to stay cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    /// The device refused.
    #[error("truncation failed: {0}")]
    Device(#[from] io::Error),
}

/// Where a log is to end.
struct Cut<E: Env> {
    /// The segment that will be active.
    segment: Rc<Segment<E>>,
    mark: Mark,
    end: Offset,
    /// Of that segment, if anything of it stays.
    first_timestamp: Option<Timestamp>,
}

/// The right to take something back: while it is held nothing is appended.
struct Claim<E: Env>(Rc<Inner<E>>);

impl<E: Env> Drop for Claim<E> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.truncating = false;
        state.on_rest();
    }
}

impl<E: Env> Log<E> {
    /// Makes the log end at `offset`: every batch whose last offset is not below it goes, whole.
    /// Answers the new end, which is lower than `offset` where that lies inside a batch. Nothing
    /// goes where the log ends there or before. Durable when it returns; appends are refused until
    /// then ([`super::AppendError::Truncating`]), and [`Log::written`] and [`Log::synced`] are new
    /// watches that stand at the new end.
    ///
    /// Where the batch that goes holds the log start, nothing is left: the log is empty and ends
    /// where it starts.
    pub async fn truncate_to(&self, offset: Offset) -> Result<Offset, TruncateError> {
        self.work(async move |log| log.truncate_to(offset).await).await
    }

    /// Drops everything; the log is empty then, and starts and ends at `offset`, wherever that
    /// lies. For a follower whose records the leader does not have any more. Otherwise like
    /// [`Log::truncate_to`]. A crash on the way may leave a part of the old log, or an empty one
    /// where that started.
    pub async fn restart_at(&self, offset: Offset) -> Result<(), TruncateError> {
        self.work(async move |log| log.restart_at(offset).await).await
    }

    /// Takes the claim, then works in a task that ends even if nobody waits for it.
    async fn work<T: 'static>(
        &self,
        work: impl AsyncFnOnce(&Inner<E>) -> Result<T, TruncateError> + 'static,
    ) -> Result<T, TruncateError> {
        let claim = self.0.claim().await?;
        let pass = self.0.gate.enter().ok_or(TruncateError::Ended)?;
        let (outcome, ended) = (Rc::new(Cell::new(None)), Watch::new(0));
        let (told, outcome_of) = (ended.clone(), outcome.clone());
        self.0.env.spawn(Queue::Storage, async move {
            outcome_of.set(Some(work(&claim.0).await));
            drop((claim, pass));
            told.raise(1);
        });
        // This watch is never closed.
        let _ = ended.reach(1).await;
        outcome.take().expect("it was set before")
    }
}

impl<E: Env> State<E> {
    fn ensure_at_work(&self) -> Result<(), TruncateError> {
        if self.status.is_at_work() { Ok(()) } else { Err(TruncateError::Ended) }
    }
}

impl<E: Env> Inner<E> {
    /// How often something was taken back.
    pub(super) fn truncations(&self) -> u64 {
        self.state.borrow().truncations
    }

    /// Waits until nobody else takes anything back.
    async fn claim(&self) -> Result<Claim<E>, TruncateError> {
        loop {
            let rests = {
                let mut state = self.state.borrow_mut();
                if state.status != Status::Open {
                    return Err(TruncateError::Ended);
                }
                if !std::mem::replace(&mut state.truncating, true) {
                    return Ok(Claim(self.strong()));
                }
                state.rests.clone()
            };
            // This watch is never closed.
            let _ = rests.reach(rests.value() + 1).await;
        }
    }

    /// Waits until everything that was appended is synced or given up, and nobody works on it.
    async fn come_to_rest(&self) -> Result<(), TruncateError> {
        loop {
            let (rests, replayed) = {
                let state = self.state.borrow();
                state.ensure_at_work()?;
                let replayed = state.replaying.then(|| state.replayed.clone());
                match state.writing || state.syncing {
                    false if replayed.is_none() => break,
                    _ => (state.rests.clone(), replayed),
                }
            };
            match replayed {
                Some(replayed) => {
                    let next = replayed.reach(replayed.value() + 1).await;
                    next.map_err(|_| TruncateError::Ended)?;
                }
                // This watch is never closed.
                None => drop(rests.reach(rests.value() + 1).await),
            }
        }
        Ok(self.sync_written().await?)
    }

    async fn truncate_to(&self, offset: Offset) -> Result<Offset, TruncateError> {
        self.come_to_rest().await?;
        let turn = self.checkpoint_turn().await;
        let (start, end) = {
            let state = self.state.borrow();
            state.ensure_at_work()?;
            (state.start, state.end)
        };
        if offset < start {
            return Err(TruncateError::BelowStart { asked: offset, start });
        }
        if offset >= end {
            let changed = self.state.borrow_mut().epochs.truncate_to(end);
            if changed {
                let (now, ..) = self.picture(&self.state.borrow(), 0);
                self.store_both(&turn, now).await?;
            }
            return Ok(end);
        }
        let cut = self.find_cut(offset).await?;
        if cut.end < start {
            self.empty(&turn, start).await?;
            return Ok(start);
        }
        let end = cut.end;
        tracing::info!(dir = %self.dir.display(), %end, goes = self.state.borrow().end.since(end),
            "the log is truncated");
        self.cut(&turn, cut).await?;
        Ok(end)
    }

    async fn restart_at(&self, offset: Offset) -> Result<(), TruncateError> {
        self.come_to_rest().await?;
        let turn = self.checkpoint_turn().await;
        self.empty(&turn, offset).await
    }

    /// The first batch that reaches `offset`, which lies inside the log, and what stands before it.
    async fn find_cut(&self, offset: Offset) -> Result<Cut<E>, ReadError> {
        let segment = self.segment_of(offset);
        let (pos, end) = self.end_before(&segment, offset).await?;
        let mut first_timestamp = None;
        if pos > 0 {
            let mut walk = self.walk(&segment, 0, segment.base).await?;
            first_timestamp =
                self.step(&mut walk).await?.map(|first| first.batch().max_timestamp());
        }
        let carry = match pos - align_down(pos) {
            0 => Vec::new(),
            len => {
                let file = self.patient_file(&segment).await?;
                file.read_at(align_down(pos), len as usize).await?.to_vec()
            }
        };
        let mark = Mark { segment: segment.base, pos, carry };
        Ok(Cut { segment, mark, end, first_timestamp })
    }

    /// Where the last batch of a segment ends whose last offset is below `offset`: position and
    /// offset.
    async fn end_before(
        &self,
        segment: &Rc<Segment<E>>,
        offset: Offset,
    ) -> Result<(u64, Offset), ReadError> {
        let mut from = offset;
        loop {
            let (begin, at) = self.start_of(segment, from).await?;
            let mut walk = self.walk(segment, begin, at).await?;
            let (mut pos, mut end) = (walk.pos(), walk.at());
            while let Some(found) = self.step(&mut walk).await?
                && found.batch().last_offset() < offset
            {
                (pos, end) = (walk.pos(), walk.at());
                self.env.turn().await;
            }
            if pos > begin || begin == 0 {
                return Ok((pos, end));
            }
            // There may be a hole before the first batch that goes: from further ahead.
            from = Offset::new(at.value() - 1);
        }
    }

    /// The last segment that begins at or before `offset`, which is not below the log start.
    fn segment_of(&self, offset: Offset) -> Rc<Segment<E>> {
        let state = self.state.borrow();
        let at = state.segments.partition_point(|segment| segment.base <= offset);
        state.segments[at - 1].clone()
    }

    /// The producers of the log as far as `end`.
    async fn producers_at(&self, end: Offset) -> Result<Producers, ReadError> {
        let mut producers = self.state.borrow().producers.clone();
        if self.shared.bounds.has(Mutant::KeepCutProducers) {
            return Ok(producers);
        }
        match producers.truncate_to(end) {
            Truncated::Exact => Ok(producers),
            Truncated::Replay => self.replay_producers(end).await,
        }
    }

    /// Makes the log end at `cut`.
    async fn cut(&self, turn: &Turn<'_, E>, cut: Cut<E>) -> Result<(), TruncateError> {
        let producers = self.producers_at(cut.end).await?;
        let mut epochs = self.state.borrow().epochs.clone();
        if !self.shared.bounds.has(Mutant::KeepCutEpochs) {
            epochs.truncate_to(cut.end);
        }
        let (mark, end) = (cut.mark.clone(), cut.end);
        // Opened before there is no way back: there may be no descriptor.
        let file = self.patient_file(&cut.segment).await?;
        self.keep_clear(&cut.segment, u64::MAX).await;
        let (now, ..) = self.picture(&self.state.borrow(), 0);
        let then = Checkpoint {
            segment: mark.segment.value(),
            position: mark.pos,
            offset: end.value(),
            first_timestamp: cut.first_timestamp.map(|at| at.0),
            epochs: pairs(&epochs),
            cut: true,
            cleaned: now.cleaned.min(end.value()),
            producers: producers.snapshot(),
            ..now
        };
        if !self.shared.bounds.has(Mutant::CheckpointBeyondCut) {
            self.store_both(turn, then).await?;
        }
        let kept = Segment::new(mark.segment, true, mark.pos);
        kept.first_timestamp.set(cut.first_timestamp);
        if mark.pos == 0 {
            *kept.index.borrow_mut() = Some(Index::new(self.interval()));
        }
        let tail = self.tail_at(mark.clone());
        let gone = self.install(mark.segment, kept, tail, |state| {
            (state.epochs, state.producers) = (epochs, producers);
            state.end = end;
            state.cleaned = state.cleaned.min(end);
        })?;
        let removed = async {
            self.remove_indexes(&gone).await?;
            // The oldest of them is the one that is cut.
            self.remove_from_the_end(&gone[1..]).await?;
            file.truncate(mark.pos).await?;
            if !self.shared.bounds.has(Mutant::CutUnsynced) {
                file.sync().await?;
            }
            Ok(())
        };
        self.or_fail(removed.await)
    }

    /// Makes the log empty, at `offset`.
    async fn empty(&self, turn: &Turn<'_, E>, offset: Offset) -> Result<(), TruncateError> {
        let limits = self.state.borrow().config.producer_limits();
        let (now, ..) = self.picture(&self.state.borrow(), 0);
        let first = self.segment_of(Offset::new(now.log_start));
        // Until all is gone: nothing of it is certain.
        let emptying = Checkpoint {
            segment: first.base.value(),
            position: 0,
            offset: first.base.value(),
            first_timestamp: None,
            epochs: Vec::new(),
            cut: true,
            cleaned: 0,
            producers: Producers::new(limits, first.base).snapshot(),
            ..now
        };
        let anew = Checkpoint {
            log_start: offset.value(),
            segment: offset.value(),
            offset: offset.value(),
            cleaned: offset.value(),
            holes_below: Holes::NONE.below.value(),
            producers: Producers::new(limits, offset).snapshot(),
            ..emptying.clone()
        };
        self.store_both(turn, emptying).await?;
        tracing::info!(dir = %self.dir.display(), %offset, "the log is emptied");
        let segment = Segment::new(offset, false, 0);
        let tail = self.tail_at(Mark { segment: offset, pos: 0, carry: Vec::new() });
        let gone = self.install(Offset::ZERO, segment.clone(), tail, |state| {
            (state.start, state.end) = (offset, offset);
            (state.cleaned, state.holes) = (offset, Holes::NONE);
            state.epochs = Epochs::default();
            state.producers = Producers::new(limits, offset);
        })?;
        let made = async {
            self.remove_indexes(&gone).await?;
            self.remove_from_the_end(&gone).await?;
            self.store_both(turn, anew).await?;
            segment.create(&self.env, &self.dir).await?;
            *segment.index.borrow_mut() = Some(Index::new(self.interval()));
            self.env.sync_dir(&self.dir).await
        };
        self.or_fail(made.await)
    }

    fn tail_at(&self, mark: Mark) -> Tail<E> {
        Tail::new(mark, self.shared.bounds.block_bytes_max)
    }

    /// Puts the shorter log in force: the segments below `from`, then `active`. Answers those that
    /// are not part of it any more, the old form of `active` among them, oldest first.
    fn install(
        &self,
        from: Offset,
        active: Rc<Segment<E>>,
        tail: Tail<E>,
        rest: impl FnOnce(&mut State<E>),
    ) -> Result<Vec<Rc<Segment<E>>>, TruncateError> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.ensure_at_work()?;
        assert_eq!(state.tail.unwritten(), 0, "the writer is at rest");
        rest(state);
        let kept = state.segments.partition_point(|segment| segment.base < from);
        let gone: Vec<_> = state.segments.drain(kept..).collect();
        gone.iter().for_each(|segment| segment.gone.set(true));
        state.segments.push_back(active);
        let released = std::mem::replace(&mut state.tail, tail).release();
        let limits = state.config.producer_limits();
        state.producers.set_limits(limits);
        let end = state.end.value();
        state.sync_wanted = state.sync_wanted.min(end);
        state.truncations += 1;
        let watches = [
            std::mem::replace(&mut state.written, Watch::new(end)),
            std::mem::replace(&mut state.readable, Watch::new(end)),
            std::mem::replace(&mut state.synced, Watch::new(end)),
        ];
        drop(guard);
        self.shared.budget.on_released(released);
        watches.iter().for_each(Watch::close);
        Ok(gone)
    }

    /// Saved indexes are hints that nobody compares with what is appended later.
    async fn remove_indexes(&self, gone: &[Rc<Segment<E>>]) -> io::Result<()> {
        for segment in gone {
            self.remove_if_there(&index_path(&self.dir, segment.base)).await?;
        }
        self.env.sync_dir(&self.dir).await
    }

    /// Removes segment files so that a crash leaves no gap.
    async fn remove_from_the_end(&self, gone: &[Rc<Segment<E>>]) -> io::Result<()> {
        let forwards = self.shared.bounds.has(Mutant::CutForwards);
        for at in 0..gone.len() {
            self.ensure_works()?;
            let segment = &gone[if forwards { at } else { gone.len() - 1 - at }];
            self.remove_if_there(&log_path(&self.dir, segment.base)).await?;
            self.env.sync_dir(&self.dir).await?;
            self.env.turn().await;
        }
        Ok(())
    }

    async fn remove_if_there(&self, path: &std::path::Path) -> io::Result<()> {
        match self.env.remove(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// In the middle of it there is no way back.
    fn or_fail(&self, result: io::Result<()>) -> Result<(), TruncateError> {
        if let Err(error) = &result {
            self.fail("truncating", error);
        }
        Ok(result?)
    }
}

fn pairs(epochs: &Epochs) -> Vec<(i32, u64)> {
    epochs.entries().iter().map(|entry| (entry.epoch.0, entry.start.value())).collect()
}
