//! Which data may go, and letting it go: retention by time and size, DeleteRecords, and the other
//! chores of an open log. The choice is a pure function; the work is done in bounded slices: one
//! file at a time, with a turn for everybody else in between.
//!
//! Order of removal: first the checkpoint says where the log starts now, then files are removed,
//! oldest first. A crash in between leaves files below the start, which opening removes; nothing
//! that was deleted comes back.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Inner, Log, Mutant, ReadError, Status, writer};
use crate::config::LogConfig;
use crate::env::{Env, Queue};
use crate::ids::Offset;
use crate::segment::{Segment, index_path, log_path};
use crate::time::Timestamp;

/// Most segments that one round of chores removes.
pub const REMOVED_PER_ROUND_MAX: usize = 16;

/// Most idle producers that one round of chores forgets.
const EXPIRED_PER_ROUND_MAX: usize = 10_000;

/// How many of the oldest segments go so that the rest is at least `retention.bytes` large. `sizes`
/// are bytes of batches in offset order; the last segment is active and always stays (Kafka's
/// `UnifiedLog.deleteRetentionSizeBreachedSegments`).
pub fn over_size(sizes: &[u64], config: &LogConfig) -> usize {
    let Some(max) = config.retention_bytes else { return 0 };
    let mut over = sizes.iter().sum::<u64>().saturating_sub(max);
    let old = &sizes[..sizes.len().saturating_sub(1)];
    let goes = old.iter().take_while(|&&size| {
        let goes = size > 0 && over >= size;
        over -= if goes { size } else { 0 };
        goes
    });
    goes.count()
}

/// Whether a segment whose largest timestamp is `latest` has outlived `retention.ms`. Without a
/// timestamp it stays (Kafka's `UnifiedLog.deleteRetentionMsBreachedSegments` would go by the
/// file's time, which restoring or copying a log changes).
pub fn outlived(latest: Option<Timestamp>, config: &LogConfig, now: Timestamp) -> bool {
    match (config.retention_ms, latest) {
        (Some(max), Some(latest)) => latest.0 >= 0 && now.millis_since(latest) > max,
        _ => false,
    }
}

/// Why records were not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// Above the high watermark.
    #[error("offset {asked} is above the high watermark {bound}")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// The high watermark.
        bound: Offset,
    },
    /// The checkpoint could not be written, so the deletion would not survive.
    #[error("the new start could not be stored: {0}")]
    Device(#[from] io::Error),
}

impl<E: Env> Log<E> {
    /// Makes `to` the first readable offset (DeleteRecords), if it is not already behind it; the
    /// answer is the start then. Durable when this returns. `bound` is the high watermark.
    pub async fn delete_before(&self, to: Offset, bound: Offset) -> Result<Offset, DeleteError> {
        if to > bound {
            return Err(DeleteError::OutOfRange { asked: to, bound });
        }
        let closed = io::Error::other("the log is closed");
        let _pass = self.0.gate.enter().ok_or(closed)?;
        // What somebody else deletes at this moment is not durable yet.
        if to > self.0.checkpoint.get().start {
            self.0.move_start(to).await?;
        }
        Ok(self.0.checkpoint.get().start)
    }

    /// The chores of an open log: retention, expiry of producers, a checkpoint if data came in
    /// since the last one, letting go of files and indexes that nobody uses. `bound` is the high
    /// watermark: nothing above it is removed.
    pub async fn tend(&self, bound: Offset) -> Result<(), ReadError> {
        let Some(_pass) = self.0.gate.enter().filter(|_| self.is_open()) else { return Ok(()) };
        let now = self.0.env.wall();
        self.0.state.borrow_mut().producers.expire(now, EXPIRED_PER_ROUND_MAX);
        let truncations = self.0.truncations();
        let retained = match self.0.retain(now, bound).await {
            // It looked at what is not part of the log any more; the next round looks again.
            Err(_) if self.0.truncations() != truncations => Ok(()),
            retained => retained,
        };
        // Also when a segment cannot be read.
        if self.0.checkpoint.get().end < self.end() && self.is_open() {
            self.0.write_checkpoint_next().await?;
        }
        let (mut idle, synced) = {
            let state = self.0.state.borrow();
            let idle: Vec<_> = state.segments.iter().cloned().collect();
            (idle, state.synced.value() == state.end.value() && !state.writing)
        };
        if !synced {
            idle.pop();
        }
        for segment in idle {
            segment.rest();
        }
        retained
    }

    /// How often [`Log::tend`] is worth calling at the least, for a log that is written to.
    pub const TEND_EVERY: Duration = Duration::from_secs(10);
}

impl<E: Env> Inner<E> {
    async fn retain(&self, now: Timestamp, bound: Offset) -> Result<(), ReadError> {
        let (segments, end, config) = {
            let state = self.state.borrow();
            let segments: Vec<_> = state.segments.iter().cloned().collect();
            (segments, state.end, state.config.clone())
        };
        let sizes: Vec<u64> = segments.iter().map(|segment| segment.size.get()).collect();
        // Where there is only compaction, nothing goes for its age or size.
        let deletes = config.deletes;
        let mut goes = if deletes { over_size(&sizes, &config) } else { 0 };
        while deletes
            && goes < segments.len().min(REMOVED_PER_ROUND_MAX)
            && config.retention_ms.is_some()
            && outlived(self.latest(&segments[goes]).await?, &config, now)
        {
            goes += 1;
            self.env.turn().await;
        }
        goes = goes.min(REMOVED_PER_ROUND_MAX);
        // Nothing above the high watermark goes.
        let end_of = |at: usize| segments.get(at + 1).map_or(end, |next| next.base);
        while goes > 0 && end_of(goes - 1) > bound {
            goes -= 1;
        }
        if goes == segments.len() {
            // The active one goes in the next round, as one of the others.
            self.roll_if_quiet(end);
            goes -= 1;
        }
        if goes > 0 {
            let to = end_of(goes - 1);
            tracing::info!(dir = %self.dir.display(), segments = goes, start = %to,
                "retention removes old segments");
            self.move_start(to).await?;
        }
        Ok(())
    }

    /// The largest timestamp of a segment.
    pub(super) async fn latest(
        &self,
        segment: &Rc<Segment<E>>,
    ) -> Result<Option<Timestamp>, ReadError> {
        let size = segment.size.get();
        if segment.latest.get().0 < size {
            self.ensure_index(segment).await?;
            let index = segment.index.borrow();
            let latest = index.as_ref().and_then(|index| index.max_timestamp());
            segment.latest.set((segment.indexed.get(), latest));
        }
        Ok(if size > 0 { segment.latest.get().1 } else { None })
    }

    /// Begins a new segment at `end`, where the log still ends; not while something is being
    /// written.
    fn roll_if_quiet(&self, end: Offset) {
        let mut state = self.state.borrow_mut();
        let written = state.end.value() == state.written.value();
        let busy = state.writing || state.truncating;
        if state.status != Status::Open || state.end != end || !written || busy {
            return;
        }
        state.writing = true;
        state.roll();
        drop(state);
        self.start(Queue::Storage, writer::run_rolled(self.strong()));
    }

    /// Moves the start, durably, and removes what lies wholly below it.
    async fn move_start(&self, to: Offset) -> io::Result<()> {
        // All of it in one turn: a truncation must not meet a file that is half gone.
        let turn = self.checkpoint_turn().await;
        if self.shared.bounds.has(Mutant::RemoveEarly) {
            self.remove_below(to).await?;
        }
        self.store_start(&turn, to).await?;
        self.remove_below(self.checkpoint.get().start).await
    }

    /// Removes the files of segments that lie wholly below `start`, oldest first.
    async fn remove_below(&self, start: Offset) -> io::Result<()> {
        loop {
            let gone = {
                let mut state = self.state.borrow_mut();
                match state.segments.get(1) {
                    // Until its successor exists, the writer is not done with it.
                    Some(next) if next.base <= start && next.exists.get() => {
                        state.segments.pop_front()
                    }
                    _ => return Ok(()),
                }
            };
            let Some(gone) = gone else { return Ok(()) };
            self.env.remove(&log_path(&self.dir, gone.base)).await?;
            match self.env.remove(&index_path(&self.dir, gone.base)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.env.turn().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ms: Option<u64>, bytes: Option<u64>) -> LogConfig {
        LogConfig { retention_ms: ms, retention_bytes: bytes, ..LogConfig::default() }
    }

    #[test]
    fn what_is_over_its_size() {
        let goes = |bytes| over_size(&[100, 100, 100], &config(None, bytes));
        assert_eq!(goes(None), 0);
        assert_eq!(goes(Some(300)), 0);
        assert_eq!(goes(Some(201)), 0, "not below the limit");
        assert_eq!(goes(Some(200)), 1);
        assert_eq!(goes(Some(0)), 2, "never the active one");
        assert_eq!(over_size(&[], &config(None, Some(0))), 0);
    }

    #[test]
    fn what_has_outlived_its_time() {
        let goes = |ms, at| outlived(at, &config(ms, None), Timestamp(100));
        assert!(!goes(None, Some(Timestamp(0))));
        assert!(!goes(Some(90), Some(Timestamp(10))), "exactly as old");
        assert!(goes(Some(89), Some(Timestamp(10))));
        assert!(!goes(Some(0), Some(Timestamp(500))), "from the future");
        assert!(!goes(Some(0), Some(Timestamp::NONE)), "without a time");
        assert!(!goes(Some(0), None));
    }
}
