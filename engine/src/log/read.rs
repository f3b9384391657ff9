//! Reading a log: slices of frozen blocks for the hot end, whole checked batches from the device
//! for the rest. Nothing is copied; a slice keeps alive what it points into.

use std::io;
use std::ops::{Deref, Range};
use std::rc::Rc;

use super::cursor::{Cursor, Fault, Found, Step};
use super::holes::Holes;
use super::{Inner, Log, Mutant};
use crate::batch::RecordFault;
use crate::env::{BlockOf, Env, ReadOf};
use crate::ids::Offset;
use crate::segment::Segment;

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

impl<E: Env> Log<E> {
    /// Reads whole batches from the one that holds `from` on.
    pub async fn read(&self, from: Offset, limit: Limit) -> Result<Chunk<E>, ReadError> {
        loop {
            if let Some(chunk) = self.read_hot(from, limit)? {
                return Ok(chunk);
            }
            let truncations = self.0.truncations();
            let read = self.0.read_cold(from, limit).await;
            if self.0.truncations() != truncations {
                // It may be of two logs.
                continue;
            }
            return match read {
                // It was deleted while it was being read.
                Err(_) if from < self.start() => Err(self.out_of_range(from)),
                read => read,
            };
        }
    }

    fn out_of_range(&self, asked: Offset) -> ReadError {
        ReadError::OutOfRange { asked, start: self.start(), end: self.end() }
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
            // Blocks that are held follow each other: between them lies nothing but a hole.
            Some(_) if first > 0 => {}
            // In the filling block: not frozen, hence not readable yet.
            None if from.value() >= state.written.value() => return Ok(Some(chunk)),
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
}

/// A walk over the batches of one segment, in offset order, with gaps only where they may be.
pub(super) struct Walk<E: Env> {
    segment: Rc<Segment<E>>,
    cursor: Cursor<E>,
    at: Offset,
    holes: Holes,
}

impl<E: Env> Walk<E> {
    /// Position of the next batch.
    pub fn pos(&self) -> u64 {
        self.cursor.pos()
    }

    /// Offset of the next batch, or where the hole before it begins.
    pub fn at(&self) -> Offset {
        self.at
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
            // Only the active one may end before `from`.
            if self.read_segment(&segment, from, limit, &mut chunk).await? || chunk.bytes > 0 {
                break;
            }
        }
        Ok(chunk)
    }

    /// Takes batches of one segment into `chunk` until a limit is met; says whether one was.
    async fn read_segment(
        &self,
        segment: &Rc<Segment<E>>,
        from: Offset,
        limit: Limit,
        chunk: &mut Chunk<E>,
    ) -> Result<bool, ReadError> {
        let (pos, at) = self.start_of(segment, from).await?;
        let want = limit.bytes_max.saturating_add(self.interval() as usize);
        let mut walk = self.walk_in_steps(segment, pos, at, want).await?;
        loop {
            let found = match self.step(&mut walk).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(false),
                // What stands before the damage is served.
                Err(_) if chunk.bytes > 0 => return Ok(true),
                Err(error) => return Err(error),
            };
            let (last, len) = (found.batch().last_offset(), found.range.len());
            if last < from {
                continue;
            }
            let over = chunk.bytes + len > limit.bytes_max;
            if last >= limit.bound || (over && !(chunk.bytes == 0 && limit.at_least_one)) {
                return Ok(true);
            }
            chunk.push(Slice::Disk(found.read, found.range), last.plus(1));
            if chunk.bytes >= limit.bytes_max {
                return Ok(true);
            }
            self.env.turn().await;
        }
    }

    /// Where to start walking for `from`. An index entry is a hint: if no batch with its offset
    /// stands there, the index is thrown away and the segment is walked from its start.
    pub(super) async fn start_of(
        &self,
        segment: &Rc<Segment<E>>,
        from: Offset,
    ) -> Result<(u64, Offset), ReadError> {
        let start = (0, segment.base);
        if from <= segment.base {
            return Ok(start);
        }
        match self.ensure_index(segment).await {
            // It leads to everything that stands before the damage.
            Ok(()) | Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let found = segment.index.borrow().as_ref().and_then(|index| index.at_or_before(from));
        let Some((pos, at)) = found else { return Ok(start) };
        if self.shared.bounds.has(Mutant::TrustIndex) {
            return Ok((pos.into(), at));
        }
        let mut walk = self.walk(segment, pos.into(), at).await?;
        match walk.cursor.next().await? {
            Step::Batch(found) if found.batch().base_offset() == at => Ok((pos.into(), at)),
            // It may be the batch that is wrong; then walking there will tell.
            _ => {
                tracing::warn!(dir = %self.dir.display(), segment = %segment.base, pos,
                    "an index entry is wrong; the index is rebuilt");
                *segment.index.borrow_mut() = None;
                segment.indexed.set(0);
                Ok(start)
            }
        }
    }

    /// Walks a segment from the batch with offset `at`, which stands at `pos`.
    pub(super) async fn walk(
        &self,
        segment: &Rc<Segment<E>>,
        pos: u64,
        at: Offset,
    ) -> Result<Walk<E>, ReadError> {
        self.walk_in_steps(segment, pos, at, 64 << 10).await
    }

    async fn walk_in_steps(
        &self,
        segment: &Rc<Segment<E>>,
        pos: u64,
        at: Offset,
        first_bytes: usize,
    ) -> Result<Walk<E>, ReadError> {
        let file = segment.file(&self.env, &self.dir).await?;
        let cursor = Cursor::new(file, pos, segment.size.get(), first_bytes);
        let holes = self.state.borrow().holes;
        Ok(Walk { segment: segment.clone(), cursor, at, holes })
    }

    /// The next batch of data that must be whole: anything else is damage.
    pub(super) async fn step(&self, walk: &mut Walk<E>) -> Result<Option<Found<E>>, ReadError> {
        let pos = walk.cursor.pos();
        let why = match walk.cursor.next().await? {
            Step::Batch(found) if walk.holes.admit(walk.at, found.batch().base_offset()) => {
                walk.at = found.batch().next_offset();
                return Ok(Some(found));
            }
            Step::Batch(_) => "a batch of other offsets",
            Step::End if walk.cursor.is_at_end() => return Ok(None),
            Step::End => "the file is shorter than it was",
            Step::Bad(Fault { why, .. }) => why,
        };
        let segment = walk.segment.base;
        if !walk.segment.gone.get() {
            tracing::error!(dir = %self.dir.display(), %segment, pos, why,
                "stored data is damaged; it is not served");
        }
        Err(ReadError::Damaged { segment, pos, why })
    }
}
