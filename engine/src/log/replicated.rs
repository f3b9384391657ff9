//! Appending what a leader wrote elsewhere: batches that have their offsets and leader epochs
//! already, and are taken as they are.
//!
//! A follower decides nothing. Sequences are not judged: the leader has, and its log is the truth,
//! so that producers are only told. What is checked is what can be wrong between two brokers: that
//! the batches follow the end, with a hole only where one is expected, and that epochs do not fall
//! (Kafka's `UnifiedLog.appendAsFollower`).

use super::holes::Holes;
use super::{AppendError, Log};
use crate::batch::{Checked, Stamp};
use crate::env::Env;
use crate::epochs::{EPOCHS_MAX, TooManyEpochs};
use crate::ids::{LeaderEpoch, Offset};

/// Why a leader's batches were not appended. Nothing of them is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicateError {
    /// They do not begin where the log ends, or not where the batch before them ended. A first
    /// batch that straddles the end of an *empty* log means that the leader's log starts inside of
    /// it: [`Log::restart_at`] its base, then raise the start again (Kafka:
    /// UnexpectedAppendOffsetException).
    #[error("a batch begins at {base}, and the log ends at {end}")]
    NotContiguous {
        /// Base offset of the batch.
        base: Offset,
        /// Where it should begin.
        end: Offset,
    },
    /// Offsets are left out between the end and the batch, as in a log that was compacted, and so
    /// far none was in this one: [`Log::admit_holes`], then again.
    #[error("a batch begins at {base}, and the log ends at {end} and has no holes")]
    Hole {
        /// Base offset of the batch.
        base: Offset,
        /// What stands before it ends here.
        end: Offset,
    },
    /// A batch is of an older leader than the one before it.
    #[error("a batch of epoch {epoch} cannot follow one of epoch {latest}")]
    OldEpoch {
        /// Leader epoch of the batch.
        epoch: LeaderEpoch,
        /// That of what stands before it.
        latest: LeaderEpoch,
    },
    /// The log takes no batches now, whosever they are. Never [`AppendError::Producer`].
    #[error(transparent)]
    Refused(#[from] AppendError),
}

impl<E: Env> Log<E> {
    /// Appends batches of a leader as they are, all or none; answers the end of the log then. They
    /// were checked with [`check_trusted`](crate::batch::check_trusted). Synchronous like
    /// [`Log::append`], and carried to the device by the same group commit.
    pub fn append_replicated(&self, batches: &[Checked<'_>]) -> Result<Offset, ReplicateError> {
        let mut guard = self.0.state.borrow_mut();
        let state = &mut *guard;
        state.ready(&self.0.shared.disk)?;
        let entries = state.epochs.entries();
        let mut expected = Expected {
            end: state.end,
            holes: state.holes,
            latest: entries.last().map(|last| last.epoch),
            epochs: entries.len(),
        };
        for batch in batches {
            expected.take(batch)?;
        }
        if batches.is_empty() {
            return Ok(state.end);
        }
        state.retry_if_full(self.0.env.now()).map_err(ReplicateError::Refused)?;
        let mut bytes = 0;
        for batch in batches {
            let base_offset = batch.base_offset();
            let at = Stamp { base_offset, leader_epoch: batch.leader_epoch() };
            state.epochs.assign(at.leader_epoch, base_offset).expect("they were counted");
            // A fetch brings many at once: they share blocks.
            let busy = state.writing || batches.len() > 1;
            state.place(&self.0.env, batch, at, false, busy);
            bytes += batch.size();
        }
        let end = state.end;
        drop(guard);
        self.0.on_placed(bytes);
        Ok(end)
    }
}

/// What the next batch must be like.
struct Expected {
    end: Offset,
    holes: Holes,
    latest: Option<LeaderEpoch>,
    /// How many leader epochs the log would have.
    epochs: usize,
}

impl Expected {
    fn take(&mut self, batch: &Checked<'_>) -> Result<(), ReplicateError> {
        let (base, epoch) = (batch.base_offset(), batch.leader_epoch());
        if !self.holes.admit(self.end, base) {
            if Holes::ANYWHERE.admit(self.end, base) {
                return Err(ReplicateError::Hole { base, end: self.end });
            }
            return Err(ReplicateError::NotContiguous { base, end: self.end });
        }
        self.end = batch.next_offset();
        match self.latest {
            Some(latest) if epoch < latest => {
                return Err(ReplicateError::OldEpoch { epoch, latest });
            }
            Some(latest) if epoch == latest => return Ok(()),
            // No epoch at all: of a log that is older than they are.
            None if epoch.0 < 0 => return Ok(()),
            _ => {}
        }
        if self.epochs == EPOCHS_MAX {
            return Err(AppendError::Epochs(TooManyEpochs).into());
        }
        (self.latest, self.epochs) = (Some(epoch), self.epochs + 1);
        Ok(())
    }
}
