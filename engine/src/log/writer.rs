//! What carries the tail to the device: one write in flight, segments made and finished in order,
//! and the three ways in which a device says no.
//!
//! * A failed write or sync is final for the directory ([`super::Disk`]). Whatever completes after
//!   it counts for nothing: a sync that succeeds after one that failed may have lost data.
//! * No space: everything not yet written is given up, its waiters are told, and the log stays
//!   readable; appends are let through again one at a time.
//! * No descriptors (EMFILE): wait and try again; nothing is lost meanwhile.
//!
//! A task runs only while there is something to do: an idle log costs nothing.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::tail::Frozen;
use super::{Durability, FULL_RETRY, Inner, Mutant, Status, checkpoints};
use crate::cache::Evict;
use crate::env::{BLOCK_ALIGN, Env, File, Persist, Queue};
use crate::ids::Offset;
use crate::producers::Truncated;
use crate::segment::Segment;
use crate::wait::Watch;

/// Space is reserved in steps that double from this …
const ALLOCATE_BYTES_MIN: u64 = 64 << 10;
/// … up to this, so that small logs stay small and large ones rarely wait for metadata.
const ALLOCATE_BYTES_MAX: u64 = 32 << 20;
/// Pause before a file is opened again after the process ran out of descriptors.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// Why a block did not reach the device.
pub(super) enum WriteFault {
    NoSpace,
    Device(io::Error),
}

impl From<io::Error> for WriteFault {
    fn from(error: io::Error) -> WriteFault {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteFault::NoSpace,
            _ => WriteFault::Device(error),
        }
    }
}

/// Writes until nothing waits. Exactly one runs per log: `State::writing`.
pub(super) async fn run<E: Env>(log: Rc<Inner<E>>) {
    loop {
        let block = {
            let mut state = log.state.borrow_mut();
            let block = match state.status.is_at_work() {
                true => state.tail.next_write(),
                false => None,
            };
            if block.is_none() {
                state.writing = false;
                state.on_rest();
            }
            block
        };
        let Some(block) = block else { break };
        log.register_frozen();
        match log.write(&block).await {
            Ok(persist) => log.on_written(&block, persist),
            Err(fault) => log.on_fault("writing", fault).await,
        }
        log.env.turn().await;
    }
    if log.checkpoint_due() {
        log.start(Queue::Background, checkpoints::write_soon(log.clone()));
    }
}

/// Makes the file of a segment that was begun without a batch, then goes on as [`run`].
pub(super) async fn run_rolled<E: Env>(log: Rc<Inner<E>>) {
    let base = log.active().base;
    if let Err(fault) = log.segment_at(base).await {
        log.on_fault("making a segment in", fault).await;
    }
    run(log).await;
}

impl<E: Env> Inner<E> {
    /// Tells the budget and whoever waits for something to read about blocks that were frozen
    /// since the last time.
    fn register_frozen(&self) {
        let state = self.state.borrow();
        let new = state.tail.held().iter().rev().take_while(|block| block.id.get() == u64::MAX);
        let mut new: Vec<_> = new.cloned().collect();
        let readable = state.readable.clone();
        drop(state);
        new.reverse();
        if let Some(last) = new.last() {
            readable.raise(last.end().value());
        }
        for block in new {
            let me: std::rc::Weak<dyn Evict> = self.me.clone();
            block.id.set(self.shared.budget.on_frozen(me, block.capacity));
        }
    }

    async fn write(&self, block: &Frozen<E>) -> Result<Persist, WriteFault> {
        self.ensure_works()?;
        let segment = self.segment_at(block.segment).await?;
        let file = self.patient_file(&segment).await?;
        let end = block.pos + block.block.len() as u64;
        self.keep_clear(&segment, end).await;
        if end > segment.allocated.get() {
            self.reserve(&segment, &file, end).await?;
        }
        let persist = self.how_to_persist(block).await?;
        if self.shared.bounds.has(Mutant::AnswerEarly) {
            self.state.borrow().written.raise(block.end().value());
        }
        let really = match persist {
            Persist::Synced if self.shared.bounds.has(Mutant::SkipSync) => Persist::Written,
            persist => persist,
        };
        // Some of it may be in the file even if it fails.
        segment.stale.set(true);
        file.write_at(block.block.clone(), block.pos, really).await?;
        segment.stale.set(false);
        Ok(persist)
    }

    pub(super) fn ensure_works(&self) -> io::Result<()> {
        match self.shared.disk.failed() {
            Some(why) => Err(io::Error::other(why)),
            None if self.state.borrow().status.is_at_work() => Ok(()),
            None => Err(io::Error::other("the log has ended")),
        }
    }

    /// One operation that writes and flushes, where everybody waits for the flush anyway and
    /// nothing older is unflushed; otherwise a plain write, with the sync following beside it.
    ///
    /// While the last checkpoint says that this log stays close to its synced end, it does.
    async fn how_to_persist(&self, block: &Frozen<E>) -> io::Result<Persist> {
        let (required, synced, written, ahead) = {
            let state = self.state.borrow();
            let ahead = state.written_bytes - state.synced_bytes + block.fresh as u64;
            (state.required(), state.synced.clone(), state.written.value(), ahead)
        };
        let at_once = required == Durability::Synced && !block.early;
        let bounded = required == Durability::Synced || self.checkpoint.get().bounded;
        let far = bounded && ahead > self.shared.bounds.unsynced_bytes_max;
        if synced.value() < written && (at_once || far) {
            self.sync_written().await?;
        }
        Ok(if at_once { Persist::Synced } else { Persist::Written })
    }

    /// The segment's file; waits while the process has no descriptor for it.
    pub(super) async fn patient_file(&self, segment: &Segment<E>) -> io::Result<Rc<E::File>> {
        loop {
            match segment.file(&self.env, &self.dir).await {
                Ok(file) => return Ok(file),
                Err(error) => self.pause_if_out_of_descriptors(error).await?,
            }
        }
    }

    async fn pause_if_out_of_descriptors(&self, error: io::Error) -> io::Result<()> {
        if !is_out_of_descriptors(&error) {
            return Err(error);
        }
        self.ensure_works()?;
        tracing::warn!(dir = %self.dir.display(), "out of file descriptors; waiting for one");
        self.env.sleep_until(self.env.now().after(DESCRIPTOR_PAUSE)).await;
        Ok(())
    }

    /// The segment at `base`, made if this is the first time that it is needed. The caller holds
    /// the writer's place (`State::writing`).
    async fn segment_at(&self, base: Offset) -> Result<Rc<Segment<E>>, WriteFault> {
        let (segment, before) = {
            let state = self.state.borrow();
            let at = state.segments.iter().rposition(|s| s.base == base);
            let at = at.expect("a segment is listed before its first block");
            let before = at.checked_sub(1).map(|before| state.segments[before].clone());
            (state.segments[at].clone(), before)
        };
        if segment.exists.get() {
            return Ok(segment);
        }
        if let Some(before) = before
            && !self.shared.bounds.has(Mutant::RollUnfinished)
        {
            self.finish(&before).await.map_err(WriteFault::Device)?;
        }
        while let Err(error) = segment.create(&self.env, &self.dir).await {
            self.pause_if_out_of_descriptors(error).await?;
        }
        let index = crate::segment::index::Index::new(self.interval());
        *segment.index.borrow_mut() = Some(index);
        if !self.shared.bounds.has(Mutant::ForgetDirSync) {
            self.env.sync_dir(&self.dir).await.map_err(WriteFault::Device)?;
        }
        Ok(segment)
    }

    /// Cuts a rolled segment to its data and syncs it. Only then may its successor exist: recovery
    /// takes a segment that has a successor for complete.
    async fn finish(&self, segment: &Rc<Segment<E>>) -> io::Result<()> {
        // First without the cut, so that from here to its end no other sync runs: of two at the
        // same time, an error may be reported to one only.
        self.sync_written().await?;
        self.keep_clear(segment, u64::MAX).await;
        self.ensure_works()?;
        let file = self.patient_file(segment).await?;
        self.shorten(segment, &file).await?;
        file.sync().await?;
        if let Err(error) = self.save_index(segment, segment.size.get()).await {
            tracing::debug!(dir = %self.dir.display(), %error, "the index was not saved");
        }
        Ok(())
    }

    async fn reserve(
        &self,
        segment: &Segment<E>,
        file: &E::File,
        end: u64,
    ) -> Result<(), WriteFault> {
        let have = segment.allocated.get();
        let step = have.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX);
        let room = self.state.borrow().config.segment_bytes.next_multiple_of(BLOCK_ALIGN as u64);
        let to = (have + step).min(room).max(end).next_multiple_of(BLOCK_ALIGN as u64);
        match file.allocate(have, to - have).await {
            Ok(()) => segment.allocated.set(to),
            // Perhaps there is room for what is needed now, though not for the whole step.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && to > end => {
                file.allocate(have, end - have).await?;
                segment.allocated.set(end);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A write failed and may have left some of its batches in the file. They must go before
    /// anybody is told that they are given up, or a crash could bring them back.
    async fn forget_given_up(&self) -> io::Result<()> {
        let written = self.state.borrow().tail.written_mark().segment;
        let stale = {
            let state = self.state.borrow();
            state.segments.iter().find(|s| s.base >= written && s.stale.get()).cloned()
        };
        let Some(segment) = stale.filter(|_| !self.shared.bounds.has(Mutant::KeepGivenUp)) else {
            return Ok(());
        };
        self.keep_clear(&segment, u64::MAX).await;
        self.ensure_works()?;
        let file = self.patient_file(&segment).await?;
        self.shorten(&segment, &file).await?;
        file.sync().await?;
        segment.stale.set(false);
        Ok(())
    }

    /// Cuts a segment's file to its data. Nothing may be on its way to the file.
    async fn shorten(&self, segment: &Segment<E>, file: &E::File) -> io::Result<()> {
        file.truncate(segment.size.get()).await?;
        segment.allocated.set(segment.size.get());
        segment.zeros.end.set(0);
        Ok(())
    }

    fn on_written(&self, block: &Rc<Frozen<E>>, persist: Persist) {
        let (written, synced, segment) = {
            let mut state = self.state.borrow_mut();
            if !state.status.is_at_work() {
                // It was given up while it was on its way.
                return;
            }
            state.tail.on_written(block);
            state.full_until = None;
            state.written_bytes += block.fresh as u64;
            state.counters.writes += 1;
            state.counters.write_bytes += block.block.len() as u64;
            if persist == Persist::Synced {
                state.counters.syncs += 1;
                state.synced_bytes = state.written_bytes;
            }
            let segment = state.segments.iter().rfind(|s| s.base == block.segment);
            let segment = segment.expect("a segment stays until it is rolled and old").clone();
            note(&segment, block);
            (state.written.clone(), state.synced.clone(), segment)
        };
        let end = block.end().value();
        written.raise(end);
        if persist == Persist::Synced {
            synced.raise(end);
        }
        self.shared.budget.on_drained(block.fresh);
        self.shared.budget.shrink();
        self.complete_index_soon(&segment);
        self.prepare_ahead(&segment);
        self.maybe_sync();
    }

    /// Makes the index of a segment that is being written to and has none, after a restart or a
    /// rest: before there is much to walk.
    fn complete_index_soon(&self, segment: &Rc<Segment<E>>) {
        if segment.indexed.get() == segment.size.get() || segment.indexing.replace(true) {
            return;
        }
        let (log, segment) = (self.strong(), segment.clone());
        self.start(Queue::Background, async move {
            if let Err(error) = log.ensure_index(&segment).await {
                tracing::warn!(dir = %log.dir.display(), %error, "no index was made");
            }
            segment.indexing.set(false);
        });
    }

    async fn on_fault(&self, what: &str, fault: WriteFault) {
        let fault = match fault {
            WriteFault::NoSpace => self.forget_given_up().await.err(),
            WriteFault::Device(error) => Some(error),
        };
        match fault {
            None if self.state.borrow().status.is_at_work() => self.give_up(),
            None => {}
            Some(error) => self.fail(what, &error),
        }
    }

    /// Gives up what is not written: the device is full.
    fn give_up(&self) {
        let mut state = self.state.borrow_mut();
        let (bytes, released) = state.tail.roll_back();
        let end = Offset::new(state.written.value());
        tracing::warn!(dir = %self.dir.display(), %end, given_up = state.end.since(end),
            "no space left on the device: unwritten batches are given up, appends refused");
        state.end = end;
        while state.segments.len() > 1 && !state.segments.back().is_none_or(|s| s.exists.get()) {
            state.segments.pop_back();
        }
        // A segment whose file was made, but for batches that are given up, stays: empty, active.
        let active = state.segments.back().expect("a log has an active segment").clone();
        if active.base > state.tail.written_mark().segment {
            state.tail.restart(active.base);
        }
        if active.size.get() == 0 {
            active.first_timestamp.set(None);
        }
        state.epochs.truncate_to(end);
        let replay = state.producers.truncate_to(end) == Truncated::Replay;
        state.full_until = Some(self.env.now().after(FULL_RETRY));
        state.replaying |= replay;
        let written = std::mem::replace(&mut state.written, Watch::new(end.value()));
        let synced = Watch::new(state.synced.value());
        let synced = std::mem::replace(&mut state.synced, synced);
        let readable = std::mem::replace(&mut state.readable, Watch::new(end.value()));
        drop(state);
        self.shared.budget.on_drained(bytes);
        self.shared.budget.on_released(released);
        written.close();
        synced.close();
        readable.close();
        if replay {
            self.start(Queue::Storage, checkpoints::rebuild_producers(self.strong()));
        }
        // Those who waited for the sync of what *is* written have lost their watch, too: they are
        // told to try again, which idempotence makes safe.
        self.maybe_sync();
    }

    /// A write or sync failed: this log and its whole directory are done for.
    pub(super) fn fail(&self, what: &str, error: &io::Error) {
        if !self.state.borrow().status.is_at_work() {
            // Nobody waits for it; its files may be gone.
            tracing::debug!(dir = %self.dir.display(), %error, "{what} failed after the end");
            return;
        }
        tracing::error!(dir = %self.dir.display(), %error, "{what} failed; the directory is lost");
        self.shared.disk.fail(&format!("{what} {}: {error}", self.dir.display()));
        self.stop(Status::Failed);
    }

    /// Nothing more will be written or acknowledged.
    pub(super) fn stop(&self, status: Status) {
        let (watches, drained, released) = {
            let mut state = self.state.borrow_mut();
            // What failed stays failed.
            if state.status != Status::Failed {
                state.status = status;
            }
            let (drained, released) = state.tail.roll_back();
            let watches = [&state.written, &state.readable, &state.synced, &state.replayed];
            let watches = watches.map(Watch::clone);
            (watches, drained, released)
        };
        self.shared.budget.on_drained(drained);
        self.shared.budget.on_released(released);
        for watch in watches {
            watch.close();
        }
    }
}

/// Enters a written block into what is derived from its segment.
fn note<E: Env>(segment: &Segment<E>, block: &Frozen<E>) {
    if let Some(index) = &mut *segment.index.borrow_mut()
        && segment.indexed.get() == segment.size.get()
    {
        for placed in &block.batches {
            let pos = block.pos as u32 + placed.at;
            index.on_batch(placed.base, pos, placed.len, placed.max_timestamp);
        }
        segment.indexed.set(block.end_pos());
    }
    segment.size.set(block.end_pos());
    segment.touched.set(true);
}

/// Whether the process or the system has no descriptor to give (EMFILE, ENFILE).
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
