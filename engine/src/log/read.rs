//! Reading a log: slices of frozen blocks for the hot end, whole checked batches from the device
//! for the rest. Nothing is copied; a slice keeps alive what it points into.

use std::io;
use std::ops::{Deref, Range};
use std::rc::Rc;

use super::cursor::{Cursor, Fault, Found, Step};
use super::{Inner, Log};
use crate::batch::{Batch, RecordFault};
use crate::env::{BlockOf, Env, ReadOf};
use crate::ids::{LeaderEpoch, Offset};
use crate::segment::Segment;
use crate::segment::index::Index;
use crate::time::Timestamp;

/// Most bytes that one batch may decompress to while a record is looked for in it.
const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

/// Immutable bytes of a log: one or more whole batches. Cloning clones a pointer.
pub enum Slice<E: Env> {
    /// In a frozen block of the tail.
    Tail(Rc<BlockOf<E>>, Range<usize>),
    /// In the memory of a device read.
    Disk(ReadOf<E>, Range<usize>),
}

impl<E: Env> Clone for Slice<E> {
    fn clone(&self) -> Self {
        match self {
            Slice::Tail(block, range) => Slice::Tail(block.clone(), range.clone()),
            Slice::Disk(read, range) => Slice::Disk(read.clone(), range.clone()),
        }
    }
}

impl<E: Env> Deref for Slice<E> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Slice::Tail(block, range) => &block[range.clone()],
            Slice::Disk(read, range) => &read[range.clone()],
        }
    }
}

/// What a read found: whole batches in offset order. The first may begin before the offset that
/// was asked for (clients skip), none reaches the bound.
pub struct Chunk<E: Env> {
    /// The bytes, piece by piece.
    pub slices: Vec<Slice<E>>,
    /// Sum of their lengths.
    pub bytes: usize,
    /// Where to read on.
    pub next: Offset,
}

impl<E: Env> Chunk<E> {
    fn empty(at: Offset) -> Chunk<E> {
        Chunk { slices: Vec::new(), bytes: 0, next: at }
    }

    fn push(&mut self, slice: Slice<E>, next: Offset) {
        self.bytes += slice.len();
        self.next = next;
        // Batches that follow each other in the same memory leave as one piece.
        match (self.slices.last_mut(), &slice) {
            (Some(Slice::Tail(block, range)), Slice::Tail(other, new))
                if Rc::ptr_eq(block, other) && range.end == new.start =>
            {
                range.end = new.end;
            }
            (Some(Slice::Disk(read, range)), Slice::Disk(other, new))
                if std::ptr::eq(read.as_ptr(), other.as_ptr()) && range.end == new.start =>
            {
                range.end = new.end;
            }
            _ => self.slices.push(slice),
        }
    }
}

/// How much to read.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Stop before this many bytes are exceeded.
    pub bytes_max: usize,
    /// Exclusive: no batch that reaches this offset (the high watermark, for consumers).
    pub bound: Offset,
    /// Give the first batch even if it alone exceeds `bytes_max` (KIP-74), so that a reader can
    /// always make progress.
    pub at_least_one: bool,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Before the log start, or after the end.
    #[error("offset {asked} is outside {start}..={end}")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// Where the log starts.
        start: Offset,
        /// Where it ends.
        end: Offset,
    },
    /// The device gave back something else than what was written.
    #[error("segment {segment} is damaged at byte {pos}: {why}")]
    Damaged {
        /// Base offset of the segment.
        segment: Offset,
        /// Position in its file.
        pos: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A record set inside the log cannot be decoded (compression).
    #[error("a stored batch cannot be looked into: {0}")]
    Undecodable(#[from] RecordFault),
    /// The device failed.
    #[error("reading failed: {0}")]
    Device(#[from] io::Error),
}

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
    /// Reads whole batches from the one that holds `from` on.
    pub async fn read(&self, from: Offset, limit: Limit) -> Result<Chunk<E>, ReadError> {
        if let Some(chunk) = self.read_hot(from, limit)? {
            return Ok(chunk);
        }
        self.0.read_cold(from, limit).await
    }

    /// Like `read`, but only what needs no device; `None` when the device must be asked.
    pub fn read_hot(&self, from: Offset, limit: Limit) -> Result<Option<Chunk<E>>, ReadError> {
        let state = self.0.state.borrow();
        if from < state.start || from > state.end {
            return Err(ReadError::OutOfRange { asked: from, start: state.start, end: state.end });
        }
        let mut chunk = Chunk::empty(from);
        if from >= limit.bound {
            return Ok(Some(chunk));
        }
        let held = state.tail.held();
        let first = held.partition_point(|block| block.end() <= from);
        match held.get(first) {
            Some(block) if block.base() <= from => {}
            // In the filling block: not frozen, hence not readable yet.
            None if held.back().is_some_and(|b| b.end() <= from) => return Ok(Some(chunk)),
            _ => return Ok(None),
        }
        for block in held.range(first..) {
            for placed in &block.batches {
                if placed.last < from {
                    continue;
                }
                let over = chunk.bytes + placed.len as usize > limit.bytes_max;
                let first_of_all = chunk.bytes == 0 && limit.at_least_one;
                if placed.last >= limit.bound || (over && !first_of_all) {
                    return Ok(Some(chunk));
                }
                let range = placed.at as usize..(placed.at + placed.len) as usize;
                chunk.push(Slice::Tail(block.block.clone(), range), placed.last.plus(1));
            }
        }
        Ok(Some(chunk))
    }

    /// The first record at or after `from_time` below `bound`, by timestamp (ListOffsets with a
    /// timestamp; Kafka's `UnifiedLog.fetchOffsetByTimestamp`).
    pub async fn find_time(
        &self,
        from_time: Timestamp,
        bound: Offset,
    ) -> Result<Option<Timed>, ReadError> {
        let (start, segments) = {
            let state = self.0.state.borrow();
            (state.start, state.segments.iter().cloned().collect::<Vec<_>>())
        };
        for segment in segments {
            if segment.base >= bound || segment.size.get() == 0 {
                continue;
            }
            self.0.ensure_index(&segment).await?;
            let (max, pos) = {
                let index = segment.index.borrow();
                let Some(index) = index.as_ref() else { continue };
                let pos = index.for_time(from_time).map_or(0, |(pos, _)| pos);
                (index.max_timestamp(), pos)
            };
            if max.is_none_or(|(at, _)| at < from_time) {
                continue;
            }
            let mut cursor = self.0.cursor(&segment, u64::from(pos)).await?;
            while let Some(found) = self.0.step(&segment, &mut cursor).await? {
                let batch = found.batch();
                if batch.base_offset() >= bound {
                    return Ok(None);
                }
                if batch.last_offset() < start || batch.max_timestamp() < from_time {
                    continue;
                }
                if let Some(timed) = self.first_in(&batch, from_time, start.max(segment.base))? {
                    return Ok((timed.offset < bound).then_some(timed));
                }
                self.0.env.turn().await;
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp below `bound` (ListOffsets -3, KIP-734); the first of
    /// several.
    pub async fn max_time(&self, bound: Offset) -> Result<Option<Timed>, ReadError> {
        let segments = self.0.state.borrow().segments.iter().cloned().collect::<Vec<_>>();
        let mut max = None;
        for segment in segments {
            if segment.base >= bound || segment.size.get() == 0 {
                continue;
            }
            self.0.ensure_index(&segment).await?;
            let in_segment = segment.index.borrow().as_ref().and_then(Index::max_timestamp);
            if let Some((at, _)) = in_segment
                && max.is_none_or(|known| at > known)
            {
                max = Some(at);
            }
        }
        let Some(max) = max else { return Ok(None) };
        self.find_time(max, bound).await
    }

    fn first_in(
        &self,
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
}

impl<E: Env> Inner<E> {
    async fn read_cold(&self, from: Offset, limit: Limit) -> Result<Chunk<E>, ReadError> {
        let mut chunk = Chunk::empty(from);
        let segments = {
            let state = self.state.borrow();
            let first = state.segments.partition_point(|s| s.base <= from).saturating_sub(1);
            state.segments.range(first..).cloned().collect::<Vec<_>>()
        };
        for segment in segments {
            if segment.size.get() == 0 {
                break;
            }
            self.read_segment(&segment, from, limit, &mut chunk).await?;
            if chunk.bytes > 0 || chunk.next >= limit.bound {
                break;
            }
        }
        Ok(chunk)
    }

    /// Takes batches of one segment into `chunk` until a limit is met.
    async fn read_segment(
        &self,
        segment: &Rc<Segment<E>>,
        from: Offset,
        limit: Limit,
        chunk: &mut Chunk<E>,
    ) -> Result<(), ReadError> {
        let mut start = 0;
        if from > segment.base {
            self.ensure_index(segment).await?;
            let at = segment.index.borrow().as_ref().and_then(|index| index.at_or_before(from));
            if let Some((pos, expected)) = at {
                start = self.verified_start(segment, pos, expected).await?;
            }
        }
        let file = self.file_of(segment).await?;
        let want = limit.bytes_max.saturating_add(self.interval() as usize);
        let mut cursor = Cursor::<E>::new(file, start, segment.size.get(), want);
        while let Some(found) = self.step(segment, &mut cursor).await? {
            let (last, len) = (found.batch().last_offset(), found.range.len());
            if last < from {
                continue;
            }
            let over = chunk.bytes + len > limit.bytes_max;
            if last >= limit.bound || (over && !(chunk.bytes == 0 && limit.at_least_one)) {
                break;
            }
            chunk.push(Slice::Disk(found.read, found.range), last.plus(1));
            if chunk.bytes >= limit.bytes_max {
                break;
            }
            self.env.turn().await;
        }
        Ok(())
    }

    /// An index entry is a hint: if no batch with its offset stands there, the index is thrown
    /// away and the segment is walked from its start.
    async fn verified_start(
        &self,
        segment: &Rc<Segment<E>>,
        pos: u32,
        expected: Offset,
    ) -> Result<u64, ReadError> {
        let mut cursor = self.cursor(segment, u64::from(pos)).await?;
        match cursor.next().await? {
            Step::Batch(found) if found.batch().base_offset() == expected => Ok(u64::from(pos)),
            _ => {
                tracing::warn!(dir = %self.dir.display(), segment = %segment.base, pos,
                    "an index entry is wrong; the index is rebuilt");
                *segment.index.borrow_mut() = None;
                segment.indexed.set(0);
                Ok(0)
            }
        }
    }

    pub(super) async fn cursor(
        &self,
        segment: &Rc<Segment<E>>,
        pos: u64,
    ) -> Result<Cursor<E>, ReadError> {
        let file = self.file_of(segment).await?;
        Ok(Cursor::new(file, pos, segment.size.get(), 64 << 10))
    }

    async fn file_of(&self, segment: &Rc<Segment<E>>) -> io::Result<Rc<E::File>> {
        segment.file(&self.env, &self.dir).await
    }

    /// The next batch of data that must be whole: anything else is damage.
    pub(super) async fn step(
        &self,
        segment: &Rc<Segment<E>>,
        cursor: &mut Cursor<E>,
    ) -> Result<Option<Found<E>>, ReadError> {
        match cursor.next().await? {
            Step::Batch(found) => Ok(Some(found)),
            Step::End => Ok(None),
            Step::Bad(Fault { why, .. }) => {
                let (segment, pos) = (segment.base, cursor.pos());
                tracing::error!(dir = %self.dir.display(), %segment, pos, why,
                    "stored data is damaged; it is not served");
                Err(ReadError::Damaged { segment, pos, why })
            }
        }
    }

    /// Brings the index of a segment up to what the device has: loads the saved one, then walks
    /// what it does not cover.
    pub(super) async fn ensure_index(&self, segment: &Rc<Segment<E>>) -> Result<(), ReadError> {
        segment.touched.set(true);
        if segment.index.borrow().is_some() && segment.indexed.get() >= segment.size.get() {
            return Ok(());
        }
        let (mut index, mut pos) = match self.load_index(segment).await {
            Some((index, covered)) => (index, covered),
            None => (Index::new(self.interval()), 0),
        };
        // The writer goes on while this walks; what it adds meanwhile is walked, too.
        while pos < segment.size.get() {
            let mut cursor = self.cursor(segment, pos).await?;
            while let Some(found) = self.step(segment, &mut cursor).await? {
                let (batch, len) = (found.batch(), found.range.len() as u32);
                index.on_batch(batch.base_offset(), found.pos as u32, len, batch.max_timestamp());
                self.env.turn().await;
            }
            pos = cursor.pos();
        }
        segment.indexed.set(pos);
        *segment.index.borrow_mut() = Some(index);
        Ok(())
    }

    pub(super) fn interval(&self) -> u32 {
        self.state.borrow().config.index_interval_bytes as u32
    }
}
