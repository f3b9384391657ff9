//! What carries the tail to the device: one write in flight, syncs beside it, segments made and
//! finished in order, and the three ways in which a device says no.
//!
//! * A failed write or sync is final for the directory ([`super::Disk`]).
//! * No space: everything not yet written is given up, its waiters are told, and the log stays
//!   readable; appends are let through again one at a time.
//! * No descriptors (EMFILE): wait and try again; nothing is lost meanwhile.
//!
//! A task runs only while there is something to do: an idle log costs nothing.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::tail::Frozen;
use super::{Durability, FULL_RETRY, Inner, Status};
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
enum WriteFault {
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
            let block = match state.status {
                Status::Failed => None,
                _ => state.tail.next_write(),
            };
            if block.is_none() {
                state.writing = false;
            }
            block
        };
        let Some(block) = block else { break };
        log.register_frozen();
        match log.write(&block).await {
            Ok(persist) => log.on_written(&block, persist),
            Err(WriteFault::NoSpace) => log.give_up(),
            Err(WriteFault::Device(error)) => log.fail("writing", &error),
        }
        log.env.turn().await;
    }
    if log.checkpoint_due() {
        log.env.spawn(Queue::Background, checkpoint_now(log.clone()));
    }
}

async fn checkpoint_now<E: Env>(log: Rc<Inner<E>>) {
    if let Err(error) = log.write_checkpoint().await {
        tracing::warn!(dir = %log.dir.display(), %error, "no checkpoint was written");
    }
}

impl<E: Env> Inner<E> {
    /// Tells the budget about blocks that were frozen since the last time.
    fn register_frozen(&self) {
        let state = self.state.borrow();
        let new = state.tail.held().iter().rev().take_while(|block| block.id.get() == u64::MAX);
        let mut new: Vec<_> = new.cloned().collect();
        drop(state);
        new.reverse();
        for block in new {
            let me: std::rc::Weak<dyn Evict> = self.me.clone();
            block.id.set(self.shared.budget.on_frozen(me, block.capacity));
        }
    }

    async fn write(&self, block: &Frozen<E>) -> Result<Persist, WriteFault> {
        if let Some(why) = self.shared.disk.failed() {
            return Err(WriteFault::Device(io::Error::other(why)));
        }
        let segment = self.segment_at(block.segment).await?;
        let file = self.patient_file(&segment).await?;
        let end = block.pos + block.block.len() as u64;
        if end > segment.allocated.get() {
            self.reserve(&segment, &file, end).await?;
        }
        let persist = self.how_to_persist(block).await;
        file.write_at(block.block.clone(), block.pos, persist).await?;
        Ok(persist)
    }

    /// One operation that writes and flushes, where everybody waits for the flush anyway and
    /// nothing older is unflushed; otherwise a plain write, with the sync following beside it.
    async fn how_to_persist(&self, block: &Frozen<E>) -> Persist {
        let (required, synced, written) = {
            let state = self.state.borrow();
            (state.required(), state.synced.clone(), state.written.value())
        };
        if required != Durability::Synced {
            return Persist::Written;
        }
        if synced.value() == written {
            return if block.early { Persist::Written } else { Persist::Synced };
        }
        let ahead = self.state.borrow().unsynced_bytes + block.fresh as u64;
        if ahead > self.shared.bounds.unsynced_bytes_max || !block.early {
            self.start_sync();
            // Closed: the log failed, and the write will be refused or without effect.
            let _ = synced.reach(written).await;
        }
        match synced.value() == written && !block.early {
            true => Persist::Synced,
            false => Persist::Written,
        }
    }

    /// The segment's file; waits while the process has no descriptor for it.
    async fn patient_file(&self, segment: &Segment<E>) -> io::Result<Rc<E::File>> {
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
        tracing::warn!(dir = %self.dir.display(), "out of file descriptors; waiting for one");
        self.env.sleep_until(self.env.now().after(DESCRIPTOR_PAUSE)).await;
        Ok(())
    }

    /// Makes the file of the active segment; says whether it is there. The caller holds the
    /// writer's place (`State::writing`).
    pub(super) async fn make_active(&self) -> bool {
        let base = self.active().base;
        match self.segment_at(base).await {
            Ok(_) => return true,
            Err(WriteFault::NoSpace) => self.give_up(),
            Err(WriteFault::Device(error)) => self.fail("making a segment in", &error),
        }
        false
    }

    /// The segment at `base`, made if this is the first time that it is needed.
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
        if let Some(before) = before {
            self.finish(&before).await?;
        }
        while let Err(error) = segment.create(&self.env, &self.dir).await {
            self.pause_if_out_of_descriptors(error).await?;
        }
        let index = crate::segment::index::Index::new(self.interval());
        *segment.index.borrow_mut() = Some(index);
        self.env.sync_dir(&self.dir).await.map_err(WriteFault::Device)?;
        Ok(segment)
    }

    /// Cuts a rolled segment to its data and syncs it. Only then may its successor exist: recovery
    /// takes a segment that has a successor for complete.
    async fn finish(&self, segment: &Rc<Segment<E>>) -> Result<(), WriteFault> {
        let file = self.patient_file(segment).await.map_err(WriteFault::Device)?;
        file.truncate(segment.size.get()).await.map_err(WriteFault::Device)?;
        segment.allocated.set(segment.size.get());
        file.sync().await.map_err(WriteFault::Device)?;
        self.on_synced(Offset::new(self.state.borrow().written.value()));
        if let Err(error) = self.save_index(segment).await {
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

    fn on_written(&self, block: &Rc<Frozen<E>>, persist: Persist) {
        let (written, synced) = {
            let mut state = self.state.borrow_mut();
            state.tail.on_written(block);
            state.full_until = None;
            state.counters.writes += 1;
            state.counters.write_bytes += block.block.len() as u64;
            match persist {
                Persist::Synced => {
                    state.counters.syncs += 1;
                    state.unsynced_bytes = 0;
                }
                Persist::Written => state.unsynced_bytes += block.fresh as u64,
            }
            let segment = state.segments.iter().rfind(|s| s.base == block.segment);
            note(segment.expect("a segment stays until it is rolled and old"), block);
            (state.written.clone(), state.synced.clone())
        };
        let end = block.end().value();
        written.raise(end);
        if persist == Persist::Synced {
            synced.raise(end);
        }
        self.shared.budget.on_drained(block.fresh);
        self.shared.budget.shrink();
        self.maybe_sync();
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
        let active = state.segments.back().expect("a log has an active segment").base;
        if active > state.tail.written_mark().segment {
            state.tail.restart(active);
        }
        state.epochs.truncate_to(end);
        let replay = state.producers.truncate_to(end) == Truncated::Replay;
        state.full_until = Some(self.env.now().after(FULL_RETRY));
        state.replaying |= replay;
        let written = std::mem::replace(&mut state.written, Watch::new(end.value()));
        let synced = Watch::new(state.synced.value());
        let synced = std::mem::replace(&mut state.synced, synced);
        drop(state);
        self.shared.budget.on_drained(bytes);
        self.shared.budget.on_released(released);
        written.close();
        synced.close();
        if replay {
            self.env.spawn(Queue::Storage, rebuild_producers(self.strong()));
        }
        // Those who waited for the sync of what *is* written have lost their watch, too: they are
        // told to try again, which idempotence makes safe.
        self.maybe_sync();
    }

    /// A write or sync failed: this log and its whole directory are done for.
    pub(super) fn fail(&self, what: &str, error: &io::Error) {
        tracing::error!(dir = %self.dir.display(), %error, "{what} failed; the directory is lost");
        self.shared.disk.fail(&format!("{what} {}: {error}", self.dir.display()));
        let (written, synced, drained) = {
            let mut state = self.state.borrow_mut();
            state.status = Status::Failed;
            let drained = state.tail.abandon();
            (state.written.clone(), state.synced.clone(), drained)
        };
        self.shared.budget.on_drained(drained);
        written.close();
        synced.close();
    }

    /// Starts a sync if the configuration asks for one now.
    pub(super) fn maybe_sync(&self) {
        let (behind, due, timer) = {
            let mut state = self.state.borrow_mut();
            let behind = state.written.value().saturating_sub(state.synced.value());
            let due = behind >= state.config.flush_messages;
            let timer = match state.config.flush_ms {
                Some(ms) if behind > 0 && !due && !state.flush_timer => {
                    state.flush_timer = true;
                    Some(Duration::from_millis(ms))
                }
                _ => None,
            };
            (behind, due, timer)
        };
        if behind > 0 && due {
            self.start_sync();
        }
        if let Some(after) = timer {
            let log = self.strong();
            self.env.spawn(Queue::Background, async move {
                log.env.sleep_until(log.env.now().after(after)).await;
                log.state.borrow_mut().flush_timer = false;
                log.start_sync();
            });
        }
    }

    /// Starts syncing what is written, unless that is under way.
    pub(super) fn start_sync(&self) {
        let mut state = self.state.borrow_mut();
        let nothing = state.synced.value() >= state.written.value();
        if state.syncing || nothing || state.status != Status::Open {
            return;
        }
        state.syncing = true;
        drop(state);
        self.env.spawn(Queue::Storage, sync(self.strong()));
    }

    fn on_synced(&self, end: Offset) {
        let mut state = self.state.borrow_mut();
        state.counters.syncs += 1;
        if state.written.value() <= end.value() {
            state.unsynced_bytes = 0;
        }
        let synced = state.synced.clone();
        drop(state);
        synced.raise(end.value());
    }

    fn checkpoint_due(&self) -> bool {
        let checkpoint = self.checkpoint.get();
        checkpoint.bytes >= self.shared.bounds.checkpoint_bytes && !checkpoint.running
    }
}

/// Syncs once, and again while that is due. Exactly one runs per log: `State::syncing`.
async fn sync<E: Env>(log: Rc<Inner<E>>) {
    loop {
        let (target, segment) = {
            let state = log.state.borrow();
            let at = state.tail.written_mark().segment;
            (state.written.value(), state.segments.iter().rfind(|s| s.base == at).cloned())
        };
        let result = match segment {
            Some(segment) => match log.patient_file(&segment).await {
                Ok(file) => file.sync().await,
                Err(error) => Err(error),
            },
            // Rolled, finished (hence synced) and deleted meanwhile.
            None => Ok(()),
        };
        if let Err(error) = result {
            log.state.borrow_mut().syncing = false;
            log.fail("syncing", &error);
            return;
        }
        log.on_synced(Offset::new(target));
        let again = {
            let mut state = log.state.borrow_mut();
            let behind = state.written.value().saturating_sub(state.synced.value());
            state.syncing =
                behind > 0 && behind >= state.config.flush_messages && state.status == Status::Open;
            state.syncing
        };
        if !again {
            return;
        }
    }
}

/// After unwritten batches were given up, what the producers had written before them may not be in
/// memory any more: it is read back. Appends are refused meanwhile, or a retry could double.
async fn rebuild_producers<E: Env>(log: Rc<Inner<E>>) {
    match log.replay_producers().await {
        Ok(producers) => {
            let mut state = log.state.borrow_mut();
            state.producers = producers;
            state.replaying = false;
        }
        Err(error) => log.fail("reading back producers from", &io::Error::other(error)),
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
fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
