//! Zeros ahead of the writes, so that a small synced write has nothing to do but itself.
//!
//! A synced write into space that is merely reserved makes the file system convert the extent and
//! commit its journal before the flush is over: about twice the time of the same write over blocks
//! that were written before (`perf engine`, columns `raw` and `written`). So while a log takes
//! small synced writes, a task beside the writer fills the space ahead of them. What the file says
//! does not change, because reserved space reads as zeros anyhow; recovery need not know of it.
//!
//! Large writes do not want it: their bytes cost more than the conversion, and zeroing would double
//! them.

use std::io;
use std::rc::Rc;

use super::{Durability, Inner};
use crate::env::{Block, Env, File, Persist, Queue, align_up};
use crate::segment::Segment;

/// Largest device write that is worth it, in bytes.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// A segment holds at least this before anything is zeroed: most logs are small and stay so.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Bytes of one write of zeros, at most: short, so that others get their turn at the device. So
/// much behind the data is left to the writes that come next, too.
const PIECE_BYTES_MAX: u64 = 128 << 10;

impl<E: Env> Inner<E> {
    /// Starts to zero the space behind the segment's data if that is worth it and too little is.
    pub(super) fn prepare_ahead(&self, segment: &Rc<Segment<E>>) {
        let (size, zeros) = (segment.size.get(), &segment.zeros);
        let max = self.shared.bounds.zeroed_bytes_max;
        let min = SEGMENT_BYTES_MIN.min(max / 4);
        let ahead = align_up(size.clamp(min, max) as usize) as u64;
        let enough = zeros.end.get() > size + ahead / 2;
        if max == 0 || size < min || enough || zeros.busy.get() {
            return;
        }
        let (worth_it, room) = {
            let state = self.state.borrow();
            let active = state.segments.back().is_some_and(|active| Rc::ptr_eq(active, segment));
            let small = state.tail.last_used() <= WRITE_BYTES_MAX;
            let synced = state.required() == Durability::Synced;
            (active && small && synced, state.config.segment_bytes)
        };
        // The writes that come next go on beside it: the space that they take is left to them.
        let from = zeros.end.get().max(align_up(size as usize) as u64 + PIECE_BYTES_MAX.min(max));
        let to = (from + ahead).min(align_up(room as usize) as u64);
        if !worth_it || from >= to {
            return;
        }
        let Some(pass) = self.gate.enter() else { return };
        zeros.busy.set(true);
        zeros.begin.set(from);
        let (log, segment) = (self.strong(), segment.clone());
        self.env.spawn(Queue::Storage, async move {
            match zero(&log, &segment, from, to).await {
                Ok(()) => segment.zeros.end.set(to),
                // The writer will be told so, too, and knows what to do.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                Err(error) => log.fail("zeroing ahead in", &error),
            }
            let zeros = &segment.zeros;
            zeros.busy.set(false);
            zeros.rounds.raise(zeros.rounds.value() + 1);
            drop(pass);
        });
    }

    /// Waits until no zeros are on their way to positions below `end`: before a write up to there,
    /// and before the file is cut (`u64::MAX`).
    pub(super) async fn keep_clear(&self, segment: &Segment<E>, end: u64) {
        let zeros = &segment.zeros;
        while zeros.busy.get() && end > zeros.begin.get() {
            // Never closed.
            let _ = zeros.rounds.reach(zeros.rounds.value() + 1).await;
        }
    }
}

/// Writes zeros to `from..to` of the segment's file, behind all of its data.
async fn zero<E: Env>(log: &Inner<E>, segment: &Segment<E>, from: u64, to: u64) -> io::Result<()> {
    let file = log.patient_file(segment).await?;
    if to > segment.allocated.get() {
        let have = segment.allocated.get();
        file.allocate(have, to - have).await?;
        segment.allocated.set(segment.allocated.get().max(to));
    }
    let mut at = from;
    while at < to && log.ensure_works().is_ok() {
        let mut zeros = log.env.block((to - at).min(PIECE_BYTES_MAX) as usize);
        zeros.bytes_mut().fill(0);
        let len = zeros.len() as u64;
        file.write_at(Rc::new(zeros), at, Persist::Written).await?;
        at += len;
        log.env.turn().await;
    }
    // What the file system has to remember of it is remembered here, not by the next write.
    file.sync().await
}
