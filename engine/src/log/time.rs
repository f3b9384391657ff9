//! Looking records up by their time (ListOffsets). The index says where to begin; what it says of a
//! segment as a whole is used only where all of the segment lies between the log start and the
//! bound.

use std::rc::Rc;

use super::holes::Holes;
use super::{Inner, Log, ReadError};
use crate::batch::Batch;
use crate::env::Env;
use crate::ids::{LeaderEpoch, Offset};
use crate::segment::Segment;
use crate::segment::index::Index;
use crate::time::Timestamp;

/// Most bytes that one batch may decompress to while a record is looked for in it.
const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its offset.
    pub offset: Offset,
    /// The leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

impl<E: Env> Log<E> {
    /// The first record at or after `from_time` below `bound`, by timestamp (ListOffsets with a
    /// timestamp; Kafka's `UnifiedLog.fetchOffsetByTimestamp`).
    pub async fn find_time(
        &self,
        from_time: Timestamp,
        bound: Offset,
    ) -> Result<Option<Timed>, ReadError> {
        loop {
            let truncations = self.0.truncations();
            let found = self.find_time_once(from_time, bound).await;
            if self.0.truncations() == truncations {
                return found;
            }
        }
    }

    async fn find_time_once(
        &self,
        from_time: Timestamp,
        bound: Offset,
    ) -> Result<Option<Timed>, ReadError> {
        for segment in self.segments_below(bound) {
            if segment.size.get() == 0 || self.is_deleted(&segment) {
                continue;
            }
            match self.0.find_time_in(&segment, from_time, bound).await {
                Ok(None) => {}
                // It was deleted meanwhile.
                Err(_) if self.is_deleted(&segment) => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp below `bound` (ListOffsets -3, KIP-734); the first of
    /// several. None if no record has a timestamp.
    pub async fn max_time(&self, bound: Offset) -> Result<Option<Timed>, ReadError> {
        loop {
            let truncations = self.0.truncations();
            let mut found = self.max_record_once(bound, false).await;
            if matches!(found, Ok(None)) && self.0.state.borrow().holes != Holes::NONE {
                found = self.max_record_once(bound, true).await;
            }
            if self.0.truncations() == truncations {
                return found;
            }
        }
    }

    async fn max_record_once(
        &self,
        bound: Offset,
        exact: bool,
    ) -> Result<Option<Timed>, ReadError> {
        match self.max_time_once(bound, exact).await? {
            Some(max) if max.0 >= 0 => self.find_time_once(max, bound).await,
            _ => Ok(None),
        }
    }

    /// The largest timestamp. Unless it is to be `exact`, that may be of a batch of which
    /// compaction left no record.
    async fn max_time_once(
        &self,
        bound: Offset,
        exact: bool,
    ) -> Result<Option<Timestamp>, ReadError> {
        let mut max = None;
        for segment in self.segments_below(bound) {
            if segment.size.get() == 0 || self.is_deleted(&segment) {
                continue;
            }
            match self.0.max_time_in(&segment, bound, exact).await {
                Ok(in_segment) => max = max.max(in_segment),
                Err(_) if self.is_deleted(&segment) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(max)
    }

    fn segments_below(&self, bound: Offset) -> Vec<Rc<Segment<E>>> {
        let state = self.0.state.borrow();
        state.segments.iter().filter(|s| s.base < bound).cloned().collect()
    }

    /// Whether it is not part of the log any more.
    fn is_deleted(&self, segment: &Segment<E>) -> bool {
        self.0.state.borrow().segments.front().is_none_or(|first| segment.base < first.base)
    }
}

impl<E: Env> Inner<E> {
    async fn find_time_in(
        &self,
        segment: &Rc<Segment<E>>,
        from_time: Timestamp,
        bound: Offset,
    ) -> Result<Option<Timed>, ReadError> {
        let start = self.state.borrow().start;
        self.ensure_index(segment).await?;
        let (max, at) = {
            let index = segment.index.borrow();
            let Some(index) = index.as_ref() else { return Ok(None) };
            (index.max_timestamp(), index.for_time(from_time))
        };
        if max.is_none_or(|at| at < from_time) {
            return Ok(None);
        }
        let (pos, at) = at.map_or((0, segment.base), |(pos, at)| (u64::from(pos), at));
        let mut walk = self.walk(segment, pos, at).await?;
        while let Some(found) = self.step(&mut walk).await? {
            let batch = found.batch();
            if batch.base_offset() >= bound {
                break;
            }
            if let Some(timed) = first_in(&batch, from_time, start)? {
                return Ok((timed.offset < bound).then_some(timed));
            }
            self.env.turn().await;
        }
        Ok(None)
    }

    /// The largest timestamp of a record of this segment from the log start up to `bound`.
    async fn max_time_in(
        &self,
        segment: &Rc<Segment<E>>,
        bound: Offset,
        exact: bool,
    ) -> Result<Option<Timestamp>, ReadError> {
        let (start, next) = {
            let state = self.state.borrow();
            let after = state.segments.iter().find(|s| s.base > segment.base).map(|s| s.base);
            (state.start, after.unwrap_or(state.end))
        };
        self.ensure_index(segment).await?;
        let (mut max, mut from) = (None, (0, segment.base));
        if start <= segment.base && !exact {
            let index = segment.index.borrow();
            if next <= bound {
                return Ok(index.as_ref().and_then(Index::max_timestamp));
            }
            // What stands before the last entry below the bound need not be walked.
            if let Some((pos, at, before)) = index.as_ref().and_then(|i| i.max_before(bound)) {
                (max, from) = (Some(before), (u64::from(pos), at));
            }
        }
        let mut walk = self.walk(segment, from.0, from.1).await?;
        while let Some(found) = self.step(&mut walk).await? {
            let batch = found.batch();
            if batch.base_offset() >= bound {
                break;
            }
            let whole = batch.base_offset() >= start && batch.last_offset() < bound;
            if batch.record_count() == 0 {
                // Its time is that of records which are gone.
            } else if whole {
                max = max.max(Some(batch.max_timestamp()));
            } else if batch.last_offset() >= start {
                max = max.max(max_in(&batch, start, bound)?);
            }
            self.env.turn().await;
        }
        Ok(max)
    }
}

fn first_in(
    batch: &Batch<'_>,
    from_time: Timestamp,
    start: Offset,
) -> Result<Option<Timed>, ReadError> {
    let found = batch.first_at_or_after(from_time, start, DECOMPRESSED_BYTES_MAX)?;
    Ok(found.map(|record| Timed {
        timestamp: record.timestamp,
        offset: record.offset,
        leader_epoch: batch.leader_epoch(),
    }))
}

/// The largest timestamp among the records of a batch that lie in `start..bound`.
fn max_in(batch: &Batch<'_>, start: Offset, bound: Offset) -> Result<Option<Timestamp>, ReadError> {
    let mut scratch = Vec::new();
    let mut max = None;
    for record in batch.records(&mut scratch, DECOMPRESSED_BYTES_MAX)? {
        let record = record?;
        if (start..bound).contains(&record.offset) {
            max = max.max(Some(record.timestamp));
        }
    }
    Ok(max)
}
