//! When a log stores its [`Checkpoint`], and reading back what it stored about producers.
//!
//! A checkpoint speaks of synced data only: it is taken as a picture of the log as it stands, and
//! written when all that it shows is synced. One at a time per log.

use std::io;
use std::rc::Rc;

use super::{Durability, Inner, Mutant, ReadError, State, Status};
use crate::checkpoint::Checkpoint;
use crate::env::{BLOCK_ALIGN, Env};
use crate::ids::Offset;
use crate::producers::Producers;
use crate::wait::Watch;

/// What a log knows of its checkpoints.
#[derive(Clone, Copy, Default)]
pub(crate) struct CheckpointState {
    /// Number of the last one that was written.
    pub sequence: u64,
    pub running: bool,
    /// Where the log began and ended at the last one.
    pub start: Offset,
    pub end: Offset,
    /// Bytes appended since.
    pub bytes: u64,
    /// It promises that the log is never written far ahead of its synced end.
    pub bounded: bool,
}

/// Ends the turn of whoever writes a checkpoint, also when its future is dropped.
pub(super) struct Turn<'a, E: Env>(&'a Inner<E>);

impl<E: Env> Drop for Turn<'_, E> {
    fn drop(&mut self) {
        let mut state = self.0.checkpoint.get();
        state.running = false;
        self.0.checkpoint.set(state);
        self.0.checkpoints_ended.raise(self.0.checkpoints_ended.value() + 1);
    }
}

/// Writes a checkpoint; that it fails is only logged.
pub(super) async fn write_soon<E: Env>(log: Rc<Inner<E>>) {
    if let Err(error) = log.write_checkpoint_next().await {
        tracing::warn!(dir = %log.dir.display(), %error, "no checkpoint was written");
    }
}

/// After unwritten batches were given up, what the producers had written before them may not be in
/// memory any more: it is read back. Appends are refused meanwhile, or a retry could double.
pub(super) async fn rebuild_producers<E: Env>(log: Rc<Inner<E>>) {
    let end = Offset::new(log.state.borrow().written.value());
    match log.replay_producers(end).await {
        Ok(producers) => {
            let mut state = log.state.borrow_mut();
            state.producers = producers;
            state.replaying = false;
            let replayed = state.replayed.clone();
            drop(state);
            replayed.raise(replayed.value() + 1);
        }
        Err(error) => {
            tracing::error!(dir = %log.dir.display(), %error,
                "the producers cannot be read back; the log takes no writes any more");
            log.stop(Status::Failed);
        }
    }
}

impl<E: Env> Inner<E> {
    pub(super) fn checkpoint_due(&self) -> bool {
        let checkpoint = self.checkpoint.get();
        checkpoint.bytes >= self.shared.bounds.checkpoint_bytes && !checkpoint.running
    }

    /// Writes what recovery may start from: everything that is appended now. Waits for its turn,
    /// and until that is synced.
    pub(super) async fn write_checkpoint_next(&self) -> io::Result<()> {
        let turn = self.checkpoint_turn().await;
        self.write_checkpoint(&turn).await
    }

    /// Moves the start and stores that in both slots, so that damage to one brings nothing back.
    pub(super) async fn store_start(&self, turn: &Turn<'_, E>, to: Offset) -> io::Result<()> {
        {
            let mut state = self.state.borrow_mut();
            // The end may have been taken back since somebody chose the start.
            state.start = state.start.max(to.min(state.end));
            let start = state.start;
            state.epochs.delete_before(start);
            state.producers.delete_before(start);
        }
        self.write_both(turn).await
    }

    /// Writes a checkpoint to both slots, so that damage to one brings nothing back.
    pub(super) async fn write_both(&self, turn: &Turn<'_, E>) -> io::Result<()> {
        self.write_checkpoint(turn).await?;
        self.write_checkpoint(turn).await
    }

    /// Stores a picture of how the log is about to be, in both slots, so that damage to one brings
    /// nothing back.
    pub(super) async fn store_both(
        &self,
        _turn: &Turn<'_, E>,
        mut checkpoint: Checkpoint,
    ) -> io::Result<()> {
        for _ in 0..2 {
            checkpoint.sequence = self.checkpoint.get().sequence + 1;
            self.store(&checkpoint, 0).await?;
        }
        Ok(())
    }

    pub(super) async fn checkpoint_turn(&self) -> Turn<'_, E> {
        while self.checkpoint.get().running {
            let ended = self.checkpoints_ended.value();
            // This watch is never closed.
            let _ = self.checkpoints_ended.reach(ended + 1).await;
        }
        let mut state = self.checkpoint.get();
        state.running = true;
        self.checkpoint.set(state);
        Turn(self)
    }

    async fn write_checkpoint(&self, _turn: &Turn<'_, E>) -> io::Result<()> {
        let before = self.checkpoint.get();
        let (checkpoint, synced, written) = loop {
            let replayed = {
                let state = self.state.borrow();
                if !state.status.is_at_work() {
                    return Err(io::Error::other("the log ended before its checkpoint"));
                }
                if !state.replaying {
                    break self.picture(&state, before.sequence + 1);
                }
                state.replayed.clone()
            };
            let gone = |_| io::Error::other("the log ended before its checkpoint");
            replayed.reach(replayed.value() + 1).await.map_err(gone)?;
        };
        if !self.shared.bounds.has(Mutant::CheckpointEarly) {
            let gone = |_| io::Error::other("what the checkpoint was to speak of was given up");
            written.reach(checkpoint.offset).await.map_err(gone)?;
            self.start_sync();
            synced.reach(checkpoint.offset).await.map_err(gone)?;
        }
        self.store(&checkpoint, before.bytes).await?;
        self.save_active_index(&checkpoint).await;
        Ok(())
    }

    /// Writes a checkpoint after which `bytes` of those that were counted need no scan any more.
    async fn store(&self, checkpoint: &Checkpoint, bytes: u64) -> io::Result<()> {
        if let Err(error) = checkpoint.write(&self.env, &self.dir).await {
            self.judge_error(&error);
            return Err(error);
        }
        let mut done = self.checkpoint.get();
        done.sequence = checkpoint.sequence;
        done.bytes -= bytes;
        done.start = Offset::new(checkpoint.log_start);
        done.end = Offset::new(checkpoint.offset);
        done.bounded = checkpoint.unsynced_bytes_max.is_some();
        self.checkpoint.set(done);
        Ok(())
    }

    /// A slot that could not be written is a failed device, unless there was no room for it.
    fn judge_error(&self, error: &io::Error) {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !full && !super::writer::is_out_of_descriptors(error) {
            self.fail("writing a checkpoint in", error);
        }
    }

    /// What is to be stored of the log as it stands, and the watches of what it speaks of.
    pub(super) fn picture(&self, state: &State<E>, sequence: u64) -> (Checkpoint, Watch, Watch) {
        let active = state.segments.back().expect("there is an active segment");
        let bounds = self.shared.bounds;
        let block = (bounds.block_bytes_max as u64).max(state.config.message_bytes_max.into());
        let ahead = bounds.unsynced_bytes_max + block + 2 * BLOCK_ALIGN as u64;
        let entries = state.epochs.entries().iter();
        let checkpoint = Checkpoint {
            sequence,
            topic: *self.identity.topic.bytes(),
            partition: self.identity.partition.0,
            log_start: state.start.value(),
            segment: active.base.value(),
            position: state.tail.pos(),
            offset: state.end.value(),
            first_timestamp: active.first_timestamp.get().map(|at| at.0),
            epochs: entries.map(|entry| (entry.epoch.0, entry.start.value())).collect(),
            unsynced_bytes_max: (state.required() == Durability::Synced).then_some(ahead),
            cut: false,
            holes_below: state.holes.below.value(),
            cleaned: state.cleaned.value(),
            producers: state.producers.snapshot(),
        };
        (checkpoint, state.synced.clone(), state.written.clone())
    }

    async fn save_active_index(&self, checkpoint: &Checkpoint) {
        let segment = {
            let state = self.state.borrow();
            let base = Offset::new(checkpoint.segment);
            state.segments.iter().rfind(|s| s.base == base).cloned()
        };
        let Some(segment) = segment else { return };
        if let Err(error) = self.save_index(&segment, checkpoint.position).await {
            tracing::debug!(dir = %self.dir.display(), %error, "the index was not saved");
        }
    }

    /// The producers as everything below `end`, which is written, makes them: the last checkpoint
    /// that does not know more, and what came after it.
    pub(super) async fn replay_producers(&self, end: Offset) -> Result<Producers, ReadError> {
        let checkpoint =
            Checkpoint::read_up_to(&self.env, &self.dir, self.identity, end.value()).await?;
        let (limits, segments) = {
            let state = self.state.borrow();
            let segments: Vec<_> = state.segments.iter().cloned().collect();
            (state.config.producer_limits(), segments)
        };
        let mut producers = checkpoint
            .and_then(|c| Producers::restore(&c.producers, limits).ok())
            .unwrap_or_else(|| Producers::new(limits, Offset::ZERO));
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at + 1).map_or(end, |next| next.base);
            if next <= producers.end() || segment.base >= end {
                continue;
            }
            let mut walk = self.walk(segment, 0, segment.base).await?;
            while walk.at() < end
                && let Some(found) = self.step(&mut walk).await?
            {
                let batch = found.batch();
                if batch.base_offset() >= producers.end() {
                    producers.update(&batch, self.env.wall());
                }
                self.env.turn().await;
            }
        }
        Ok(producers)
    }
}
