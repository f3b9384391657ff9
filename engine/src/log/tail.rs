//! The newest part of a log, in memory: filling → frozen → written → synced.
//!
//! ```text
//!  append (copies once)      freeze = publish = submit            write completed / synced
//! ─────────────────────► filling ───────────────────► frozen (Rc) ────────────► written ─► synced
//! ```
//!
//! # Why freeze is publish
//! A buffer that is read while it grows would need `unsafe` or a lock. So a block is either owned
//! and mutable (filling: nobody reads it) or frozen (everybody may). If no write is in flight for
//! the log, the filling block is frozen at once and written; otherwise it keeps filling, which *is*
//! the group commit: one write in flight per log.
//!
//! # The partial sector
//! Device writes are whole sectors ([`BLOCK_ALIGN`]), batches are not. The next block therefore
//! begins with a copy of the bytes of the last, partly filled sector (the *carry*): the rewritten
//! prefix is byte-identical, so a torn rewrite can lose only what is new.
//!
//! Synchronous and without IO: the writer (`writer.rs`) carries out what this says.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::env::{BLOCK_ALIGN, Block, BlockOf, Env, align_down, align_up};
use crate::ids::Offset;
use crate::time::Timestamp;

/// Where one batch stands in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub base: Offset,
    pub last: Offset,
    /// Position within the block, in bytes.
    pub at: u32,
    pub len: u32,
    pub max_timestamp: Timestamp,
}

/// A frozen block: immutable, readable, on its way to the device or already there.
pub(crate) struct Frozen<E: Env> {
    pub block: Rc<BlockOf<E>>,
    /// Number under which the shard's budget knows it.
    pub id: Cell<u64>,
    /// Memory that it holds, in bytes.
    pub capacity: usize,
    /// Base offset of the segment that it belongs to.
    pub segment: Offset,
    /// Position of its first byte in that segment; a multiple of [`BLOCK_ALIGN`].
    pub pos: u64,
    /// Its batches, in offset order; never empty.
    pub batches: Vec<Placed>,
    /// Bytes of batches (without carry and padding).
    pub fresh: usize,
    /// Somebody waits for `Written` rather than for `Synced`: the write must not wait for a flush.
    pub early: bool,
    /// Whether the device has it.
    pub written: Cell<bool>,
}

impl<E: Env> Frozen<E> {
    /// Base offset of the first batch.
    pub fn base(&self) -> Offset {
        self.batches[0].base
    }

    /// Exclusive end offset of the last batch.
    pub fn end(&self) -> Offset {
        self.batches[self.batches.len() - 1].last.plus(1)
    }

    /// Position in the segment right after the last batch.
    pub fn end_pos(&self) -> u64 {
        let last = &self.batches[self.batches.len() - 1];
        self.pos + u64::from(last.at + last.len)
    }
}

struct Filling<E: Env> {
    block: BlockOf<E>,
    capacity: usize,
    pos: u64,
    used: usize,
    carried: usize,
    batches: Vec<Placed>,
    early: bool,
}

/// Where in the file the next byte of the log goes, and what stands before it in its sector.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Position in it.
    pub pos: u64,
    /// The `pos % BLOCK_ALIGN` bytes before `pos`.
    pub carry: Vec<u8>,
}

/// Smallest block that is allocated while a write is in flight, in bytes.
const FILLING_BYTES_MIN: usize = 16 << 10;

/// The tail of one log.
pub(crate) struct Tail<E: Env> {
    next: Mark,
    /// Where `next` stood after the last completed write: what a roll back returns to.
    written: Mark,
    filling: Option<Filling<E>>,
    /// Frozen and not yet given to the writer.
    sealed: VecDeque<Rc<Frozen<E>>>,
    /// All frozen blocks that are still held, oldest first, consecutive in offsets.
    held: VecDeque<Rc<Frozen<E>>>,
    block_bytes_max: usize,
    /// Size of the last frozen block's content: the next one under load will be like it.
    last_used: usize,
    unwritten: usize,
}

impl<E: Env> Tail<E> {
    pub fn new(at: Mark, block_bytes_max: usize) -> Tail<E> {
        assert_eq!(at.carry.len() as u64, at.pos % BLOCK_ALIGN as u64);
        Tail {
            written: at.clone(),
            next: at,
            filling: None,
            sealed: VecDeque::new(),
            held: VecDeque::new(),
            block_bytes_max: align_up(block_bytes_max),
            last_used: 0,
            unwritten: 0,
        }
    }

    /// Position in the current segment where the next batch will go.
    pub fn pos(&self) -> u64 {
        self.next.pos
    }

    /// Bytes of batches that have not reached the device.
    pub fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Bytes in the block that was frozen last, carry included.
    pub fn last_used(&self) -> usize {
        self.last_used
    }

    /// Blocks that can be read, oldest first.
    pub fn held(&self) -> &VecDeque<Rc<Frozen<E>>> {
        &self.held
    }

    /// Makes room for one batch of `len` bytes, which `copy` fills: the one copy on the way in.
    /// `busy`: a write is in flight, so more batches are likely to share this block.
    pub fn append(
        &mut self,
        env: &E,
        len: usize,
        placed: Placed,
        early: bool,
        busy: bool,
        copy: impl FnOnce(&mut [u8]),
    ) {
        if self.filling.as_ref().is_some_and(|f| f.used + len > f.block.len()) {
            self.seal();
        }
        let filling = match &mut self.filling {
            Some(filling) => filling,
            none => none.insert(Self::fill(
                env,
                &self.next,
                len,
                if busy {
                    (self.last_used * 2).max(FILLING_BYTES_MIN).min(self.block_bytes_max)
                } else {
                    0
                },
            )),
        };
        let at = filling.used;
        copy(&mut filling.block.bytes_mut()[at..at + len]);
        filling.used += len;
        filling.early |= early;
        filling.batches.push(Placed { at: at as u32, len: len as u32, ..placed });
        self.next.pos += len as u64;
        self.unwritten += len;
    }

    fn fill(env: &E, next: &Mark, batch: usize, at_least: usize) -> Filling<E> {
        let carried = next.carry.len();
        let capacity = align_up((carried + batch).max(at_least));
        let mut block = env.block(capacity);
        block.bytes_mut()[..carried].copy_from_slice(&next.carry);
        Filling {
            block,
            capacity,
            pos: align_down(next.pos),
            used: carried,
            carried,
            batches: Vec::with_capacity(4),
            early: false,
        }
    }

    /// Freezes the filling block, if there is one, behind those that wait for the writer.
    fn seal(&mut self) {
        let Some(mut filling) = self.filling.take() else { return };
        assert!(!filling.batches.is_empty(), "a filling block exists only for a batch");
        filling.block.trim(align_up(filling.used));
        // Memory has been used before: the padding of the last sector is zeros on the device.
        filling.block.bytes_mut()[filling.used..].fill(0);
        let partial = align_down(filling.used as u64) as usize;
        self.next.carry.clear();
        self.next.carry.extend_from_slice(&filling.block[partial..filling.used]);
        self.last_used = filling.used;
        let frozen = Rc::new(Frozen {
            block: Rc::new(filling.block),
            id: Cell::new(u64::MAX),
            capacity: filling.capacity,
            segment: self.next.segment,
            pos: filling.pos,
            fresh: filling.used - filling.carried,
            batches: filling.batches,
            early: filling.early,
            written: Cell::new(false),
        });
        self.sealed.push_back(frozen.clone());
        self.held.push_back(frozen);
    }

    /// The next block for the device; freezes the filling one if none waits. The blocks that came
    /// into being are those at the back of `held` whose `id` is not yet set.
    pub fn next_write(&mut self) -> Option<Rc<Frozen<E>>> {
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// From here on batches go to a new segment whose first offset is `base`.
    pub fn roll(&mut self, base: Offset) {
        self.seal();
        self.next = Mark { segment: base, pos: 0, carry: Vec::new() };
    }

    /// The device has `block`.
    pub fn on_written(&mut self, block: &Frozen<E>) {
        debug_assert_eq!(self.account().0, self.unwritten, "bytes on their way are all counted");
        block.written.set(true);
        self.unwritten -= block.fresh;
        self.written.segment = block.segment;
        self.written.pos = block.end_pos();
        let end = (block.end_pos() - block.pos) as usize;
        let partial = align_down(end as u64) as usize;
        self.written.carry.clear();
        self.written.carry.extend_from_slice(&block.block[partial..end]);
    }

    /// Position after everything that the device has.
    pub fn written_mark(&self) -> &Mark {
        &self.written
    }

    /// Gives up everything that the device does not have. Answers how many bytes of batches that
    /// were, and how much memory the dropped frozen blocks had taken from the budget.
    pub fn roll_back(&mut self) -> (usize, usize) {
        self.filling = None;
        self.sealed.clear();
        let mut released = 0;
        while self.held.back().is_some_and(|block| !block.written.get()) {
            let block = self.held.pop_back().expect("just seen");
            if block.id.get() != u64::MAX {
                released += block.capacity;
            }
        }
        self.next = self.written.clone();
        (std::mem::take(&mut self.unwritten), released)
    }

    /// After a roll back: goes on at the start of a newer segment, which is still empty.
    pub fn restart(&mut self, segment: Offset) {
        assert!(self.filling.is_none() && self.sealed.is_empty());
        self.next = Mark { segment, pos: 0, carry: Vec::new() };
        self.written = self.next.clone();
    }

    /// Lets go of the oldest block if it is number `id` and written.
    pub fn evict(&mut self, id: u64) -> Option<usize> {
        match self.held.front() {
            Some(block) if block.id.get() == id => {
                if !block.written.get() {
                    return None;
                }
                let block = self.held.pop_front().expect("just seen");
                Some(block.capacity)
            }
            _ => Some(0),
        }
    }

    /// Lets go of every written block; answers the memory that was taken from the budget.
    pub fn release(&mut self) -> usize {
        let mut released = 0;
        while self.held.front().is_some_and(|block| block.written.get()) {
            released += self.held.pop_front().expect("just seen").capacity;
        }
        released
    }

    /// What the budget should believe of this tail: bytes of batches that are unwritten, and
    /// memory of the blocks that it was told of.
    pub fn account(&self) -> (usize, usize) {
        let frozen = self.held.iter().filter(|block| !block.written.get());
        let filling = self.filling.as_ref().map_or(0, |f| f.used - f.carried);
        let known = self.held.iter().filter(|block| block.id.get() != u64::MAX);
        (frozen.map(|block| block.fresh).sum::<usize>() + filling, known.map(|b| b.capacity).sum())
    }
}
