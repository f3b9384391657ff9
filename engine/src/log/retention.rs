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

use super::{Inner, Log, ReadError, Status};
use crate::config::LogConfig;
use crate::env::Env;
use crate::ids::Offset;
use crate::segment::{Segment, index_path, log_path};
use crate::time::Timestamp;

/// Most segments that one round of chores removes.
pub const REMOVED_PER_ROUND_MAX: usize = 16;

/// Most idle producers that one round of chores forgets.
const EXPIRED_PER_ROUND_MAX: usize = 10_000;

/// What retention needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Bytes of batches.
    pub size: u64,
    /// Largest timestamp in it; `None` when it has none (then it is not removed by time).
    pub max_timestamp: Option<Timestamp>,
}

/// How many of the oldest segments have outlived their retention. `segments` are in offset order;
/// the last one is active, and only counted as removable when all of its records are too old
/// (Kafka's `UnifiedLog.deleteRetentionMsBreachedSegments`, `deleteRetentionSizeBreachedSegments`).
pub fn outlived(segments: &[SegmentFacts], config: &LogConfig, now: Timestamp) -> usize {
    let by_time = match config.retention_ms {
        None => 0,
        Some(max) => segments
            .iter()
            .take_while(|s| s.max_timestamp.is_some_and(|at| now.millis_since(at) > max))
            .count(),
    };
    let by_size = match config.retention_bytes {
        None => 0,
        Some(max) => {
            let mut over = segments.iter().map(|s| s.size).sum::<u64>().saturating_sub(max);
            segments
                .iter()
                .take(segments.len().saturating_sub(1))
                .take_while(|s| {
                    let goes = s.size > 0 && over >= s.size;
                    over -= if goes { s.size } else { 0 };
                    goes
                })
                .count()
        }
    };
    by_time.max(by_size)
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
        if to > self.start() {
            self.0.advance_start(to).await?;
            self.0.remove_below_start().await?;
        }
        Ok(self.start())
    }

    /// The chores of an open log: retention, expiry of producers, a checkpoint if data came in
    /// since the last one, letting go of files and indexes that nobody uses. `bound` is the high
    /// watermark: nothing above it is removed.
    pub async fn tend(&self, bound: Offset) -> Result<(), ReadError> {
        let now = self.0.env.wall();
        self.0.state.borrow_mut().producers.expire(now, EXPIRED_PER_ROUND_MAX);
        self.0.retain(now, bound).await?;
        let checkpoint = self.0.checkpoint.get();
        if checkpoint.end < self.end() && self.0.state.borrow().status == Status::Open {
            self.0.write_checkpoint().await?;
        }
        let mut cold: Vec<_> = self.0.state.borrow().segments.iter().cloned().collect();
        cold.pop();
        for segment in cold {
            segment.rest();
        }
        Ok(())
    }

    /// How often [`Log::tend`] is worth calling at the least, for a log that is written to.
    pub const TEND_EVERY: Duration = Duration::from_secs(10);
}

impl<E: Env> Inner<E> {
    async fn retain(&self, now: Timestamp, bound: Offset) -> Result<(), ReadError> {
        let (segments, config) = {
            let state = self.state.borrow();
            (state.segments.iter().cloned().collect::<Vec<_>>(), state.config.clone())
        };
        if config.retention_ms.is_none() && config.retention_bytes.is_none() {
            return Ok(());
        }
        let mut facts = Vec::with_capacity(segments.len());
        for segment in &segments {
            facts.push(self.facts(segment).await?);
            self.env.turn().await;
        }
        let mut goes = outlived(&facts, &config, now).min(REMOVED_PER_ROUND_MAX);
        // Nothing above the high watermark goes, nor what is not on the device yet.
        while goes > 0 && self.end_of(&segments, goes - 1) > bound {
            goes -= 1;
        }
        if goes == 0 {
            return Ok(());
        }
        if goes == segments.len() && !self.roll_if_quiet().await {
            goes -= 1;
        }
        if goes > 0 {
            let to = self.end_of(&segments, goes - 1);
            tracing::info!(dir = %self.dir.display(), segments = goes, start = %to,
                "retention removes old segments");
            self.advance_start(to).await?;
            self.remove_below_start().await?;
        }
        Ok(())
    }

    /// Exclusive end offset of the `at`-th of these segments.
    fn end_of(&self, segments: &[Rc<Segment<E>>], at: usize) -> Offset {
        match segments.get(at + 1) {
            Some(next) => next.base,
            None => Offset::new(self.state.borrow().written.value()),
        }
    }

    /// Begins a new segment so that the active one can go; not while something is being written.
    async fn roll_if_quiet(&self) -> bool {
        {
            let mut state = self.state.borrow_mut();
            if state.writing || state.end.value() != state.written.value() {
                return false;
            }
            state.writing = true;
            state.roll();
        }
        let made = self.make_active().await;
        // Batches that came meanwhile found a writer running, namely this one.
        self.env.spawn(crate::env::Queue::Storage, super::writer::run(self.strong()));
        made
    }

    async fn facts(&self, segment: &Rc<Segment<E>>) -> Result<SegmentFacts, ReadError> {
        let size = segment.size.get();
        if size == 0 {
            return Ok(SegmentFacts { size, max_timestamp: None });
        }
        self.ensure_index(segment).await?;
        let max = segment.index.borrow().as_ref().and_then(|index| index.max_timestamp());
        let max_timestamp = max.map(|(at, _)| at).filter(|at| at.0 >= 0);
        Ok(SegmentFacts { size, max_timestamp })
    }

    /// Moves the start, durably.
    async fn advance_start(&self, to: Offset) -> io::Result<()> {
        while self.checkpoint.get().running {
            self.env.sleep_until(self.env.now().after(Duration::from_millis(1))).await;
        }
        {
            let mut state = self.state.borrow_mut();
            state.start = state.start.max(to);
            let start = state.start;
            state.epochs.delete_before(start);
            state.producers.delete_before(start);
        }
        self.write_checkpoint().await
    }

    /// Removes the files of segments that lie wholly below the start, oldest first.
    async fn remove_below_start(&self) -> io::Result<()> {
        loop {
            let gone = {
                let mut state = self.state.borrow_mut();
                let start = state.start;
                match state.segments.get(1) {
                    Some(next) if next.base <= start => state.segments.pop_front(),
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

    fn facts(rows: &[(u64, i64)]) -> Vec<SegmentFacts> {
        rows.iter()
            .map(|&(size, at)| SegmentFacts { size, max_timestamp: Some(Timestamp(at)) })
            .collect()
    }

    #[test]
    fn what_has_outlived_its_retention() {
        let segments = facts(&[(100, 10), (100, 20), (100, 30)]);
        let config = |ms, bytes| LogConfig {
            retention_ms: ms,
            retention_bytes: bytes,
            ..LogConfig::default()
        };
        let now = Timestamp(100);
        assert_eq!(outlived(&segments, &config(None, None), now), 0);
        assert_eq!(outlived(&segments, &config(Some(90), None), now), 0, "exactly as old");
        assert_eq!(outlived(&segments, &config(Some(89), None), now), 1);
        assert_eq!(outlived(&segments, &config(Some(75), None), now), 2);
        assert_eq!(outlived(&segments, &config(Some(0), None), now), 3, "the active one, too");
        assert_eq!(outlived(&segments, &config(None, Some(300)), now), 0);
        assert_eq!(outlived(&segments, &config(None, Some(201)), now), 0, "not below the limit");
        assert_eq!(outlived(&segments, &config(None, Some(200)), now), 1);
        assert_eq!(outlived(&segments, &config(None, Some(0)), now), 2, "never the active one");
        let gap = facts(&[(100, 10), (100, 90), (100, 20)]);
        assert_eq!(outlived(&gap, &config(Some(50), None), now), 1, "stops at the first to stay");
    }
}
