//! Opening a log, after whatever happened.
//!
//! Only what lies past the last checkpoint is scanned. Three things can end the scan:
//!
//! * **The end**: zeros to the end of the file, or the end of the file.
//! * **A torn tail**: bytes that never became durable because power was lost during the last
//!   writes. It is cut and reported; nothing that was promised was in it.
//! * **Damage**: bytes that were durable and are not what they were. It is *never* cut: the log is
//!   reported with its position and stays offline, because behind it may be records that were
//!   acknowledged (and with replicas, another one has them).
//!
//! # Telling a torn tail from damage
//! A device loses unsynced writes by whole sectors, and a lost sector of fresh space reads as
//! zeros; damage flips bits or swaps data. So a bad batch is *torn* only if at least one sector that
//! it touches is zero from where the batch begins in it. And in a log that syncs before it
//! promises, the writer runs at most [`Bounds::unsynced_bytes_max`] ahead: if a whole batch of
//! later offsets stands further behind than that, or in a later segment, the hole had been synced,
//! and it is damage. What remains undecidable is a whole lost sector within the last unsynced
//! window of a log that was never checkpointed after it; closing, rolling and the periodic
//! checkpoint shrink that window to what was written in the last seconds before the crash.
//!
//! After a cut the file is shortened to the cut, so that stale batches behind it can never line up
//! with new ones, and reserved anew.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use super::cursor::{Cursor, Fault, Step};
use super::tail::{Mark, Tail};
use super::{
    Bounds, CheckpointState, Counters, Durability, Inner, Log, ReadError, Shared, State, Status,
};
use crate::batch::{Batch, Header};
use crate::checkpoint::Checkpoint;
use crate::config::LogConfig;
use crate::env::{BLOCK_ALIGN, Env, File, align_down};
use crate::epochs::{EpochStart, Epochs};
use crate::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::producers::Producers;
use crate::segment::{Segment, index_path, log_path, parse_log_name};
use crate::time::Timestamp;
use crate::wait::Watch;

/// The unit in which devices lose data, in bytes.
const SECTOR: u64 = 512;
/// Bytes that are read at once while looking for batches behind a hole.
const SEARCH_BYTES: usize = 1 << 20;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Stored data is not what was stored. Nothing was changed; the partition is offline.
    #[error("{} is damaged at byte {pos}: {why}; nothing was cut", path.display())]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where the first bad batch begins.
        pos: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A segment is missing between two others.
    #[error("{}: offsets {from}..{to} are missing", dir.display())]
    Gap {
        /// The log's directory.
        dir: PathBuf,
        /// End of what stands before the gap.
        from: Offset,
        /// Base offset of the next segment.
        to: Offset,
    },
    /// The device or the file system refused.
    #[error("opening failed: {0}")]
    Device(#[from] io::Error),
}

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Bytes that were scanned.
    pub scanned_bytes: u64,
    /// Batches found past the checkpoint.
    pub batches: u64,
    /// Where a torn tail was cut: (base offset of the segment, position).
    pub cut: Option<(Offset, u64)>,
    /// No log was there; an empty one was made.
    pub created: bool,
}

/// Everything that scanning rebuilds.
struct Scan<'a, E: Env> {
    env: &'a E,
    dir: &'a Path,
    bounds: Bounds,
    required: Durability,
    /// Largest batch that the configuration lets in, in bytes.
    batch_bytes_max: u64,
    segments: VecDeque<Rc<Segment<E>>>,
    epochs: Epochs,
    producers: Producers,
    /// The next offset that is expected.
    end: Offset,
    /// Where the next batch would stand in the last segment.
    pos: u64,
    recovered: Recovered,
}

impl<E: Env> Log<E> {
    /// Opens the log in `dir`, or makes an empty one there. Durable when it returns.
    pub async fn open(
        env: &E,
        dir: &Path,
        identity: TopicPartition,
        config: Rc<LogConfig>,
        shared: &Shared,
    ) -> Result<(Log<E>, Recovered), OpenError> {
        let checkpoint = match env.list(dir).await {
            Ok(_) => Checkpoint::read(env, dir, identity).await?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if checkpoint.is_none() {
            // Also when it exists: the crash may have come before its entry was durable.
            make_dir(env, dir).await?;
        }
        let mut scan = Scan::new(env, dir, &config, shared.bounds, checkpoint.as_ref());
        let start = checkpoint.as_ref().map_or(0, |c| c.log_start);
        scan.find_segments(Offset::new(start)).await?;
        scan.run(checkpoint.as_ref()).await?;
        let mark = scan.mark().await?;
        let start = scan.segments[0].base.max(Offset::new(start)).min(scan.end);
        let end = scan.end;
        let recovered = scan.recovered;
        let state = State {
            config,
            status: Status::Open,
            start,
            end,
            segments: scan.segments,
            tail: Tail::new(mark, shared.bounds.block_bytes_max),
            epochs: scan.epochs,
            producers: scan.producers,
            written: Watch::new(end.value()),
            synced: Watch::new(end.value()),
            writing: false,
            syncing: false,
            unsynced_bytes: 0,
            flush_timer: false,
            full_until: None,
            replaying: false,
            counters: Counters::default(),
        };
        let sequence = checkpoint.map_or(0, |c| c.sequence);
        let log = Log(Rc::new_cyclic(|me: &Weak<Inner<E>>| Inner {
            env: env.clone(),
            dir: dir.to_owned(),
            identity,
            shared: shared.clone(),
            state: state.into(),
            checkpoint: CheckpointState {
                sequence,
                end,
                bytes: recovered.scanned_bytes,
                running: false,
            }
            .into(),
            me: me.clone(),
        }));
        log.0.adopt_index().await;
        Ok((log, recovered))
    }
}

/// Makes a directory so that it survives power loss: each new level synced in its parent.
async fn make_dir<E: Env>(env: &E, dir: &Path) -> io::Result<()> {
    env.create_dir(dir).await?;
    // Topic directory and data directory; syncing one that existed costs little.
    for above in dir.ancestors().skip(1).take(2) {
        if !above.as_os_str().is_empty() {
            env.sync_dir(above).await?;
        }
    }
    Ok(())
}

impl<'a, E: Env> Scan<'a, E> {
    fn new(
        env: &'a E,
        dir: &'a Path,
        config: &LogConfig,
        bounds: Bounds,
        checkpoint: Option<&Checkpoint>,
    ) -> Scan<'a, E> {
        let epochs = checkpoint.map(|c| c.epochs.as_slice()).unwrap_or_default();
        let epochs: Vec<_> = epochs
            .iter()
            .map(|&(epoch, start)| EpochStart {
                epoch: LeaderEpoch(epoch),
                start: Offset::new(start),
            })
            .collect();
        // Both were checked when they were written, and the checkpoint has a checksum.
        let epochs = Epochs::from_entries(&epochs).unwrap_or_default();
        let producers = checkpoint
            .and_then(|c| Producers::restore(&c.producers, config.producer_limits()).ok())
            .unwrap_or_else(|| Producers::new(config.producer_limits(), Offset::ZERO));
        Scan {
            env,
            dir,
            bounds,
            required: match config.flush_messages {
                1 => Durability::Synced,
                _ => Durability::Written,
            },
            batch_bytes_max: config.message_bytes_max as u64,
            segments: VecDeque::new(),
            epochs: epochs,
            producers,
            end: Offset::ZERO,
            pos: 0,
            recovered: Recovered::default(),
        }
    }

    /// Lists the segment files; removes those that a crash kept from being removed.
    async fn find_segments(&mut self, start: Offset) -> Result<(), OpenError> {
        let entries = self.env.list(self.dir).await?;
        let mut found: Vec<(Offset, u64)> = entries
            .iter()
            .filter(|entry| !entry.is_dir)
            .filter_map(|entry| Some((parse_log_name(&entry.name)?, entry.len)))
            .collect();
        found.sort_unstable();
        while found.len() > 1 && found[1].0 <= start {
            let (base, _) = found.remove(0);
            self.env.remove(&log_path(self.dir, base)).await?;
            remove_if_there(self.env, &index_path(self.dir, base)).await?;
        }
        self.segments =
            found.into_iter().map(|(base, len)| Segment::new(base, true, len)).collect();
        Ok(())
    }

    /// Scans from the checkpoint, or from the first segment without one.
    async fn run(&mut self, checkpoint: Option<&Checkpoint>) -> Result<(), OpenError> {
        if self.segments.is_empty() {
            if let Some(c) = checkpoint.filter(|c| c.log_start < c.offset) {
                let (from, to) = (Offset::new(c.log_start), Offset::new(c.offset));
                return Err(OpenError::Gap { dir: self.dir.to_owned(), from, to });
            }
            let base = Offset::new(checkpoint.map_or(0, |c| c.offset));
            return self.begin(base, checkpoint.is_none()).await;
        }
        let known = checkpoint.and_then(|c| {
            let at = self.segments.iter().position(|s| s.base == Offset::new(c.segment))?;
            Some((at, c.position, Offset::new(c.offset)))
        });
        let (at, pos, offset) = match (known, checkpoint) {
            (Some(known), _) => known,
            (None, Some(c)) if self.segments[0].base > Offset::new(c.offset) => {
                let (from, to) = (Offset::new(c.offset), self.segments[0].base);
                return Err(OpenError::Gap { dir: self.dir.to_owned(), from, to });
            }
            (None, _) => (0, 0, self.segments[0].base),
        };
        if let Some(first) = checkpoint.and_then(|c| c.first_timestamp) {
            self.segments[at].first_timestamp.set(Some(Timestamp(first)));
        }
        (self.end, self.pos) = (offset, pos);
        self.check_sizes_before(at)?;
        for at in at..self.segments.len() {
            let segment = self.segments[at].clone();
            if segment.base != self.end && self.pos == 0 {
                let (from, to) = (self.end, segment.base);
                return Err(OpenError::Gap { dir: self.dir.to_owned(), from, to });
            }
            self.scan_segment(&segment, at + 1 == self.segments.len()).await?;
            if at + 1 < self.segments.len() {
                self.pos = 0;
            }
        }
        Ok(())
    }

    /// Segments before the scan are complete: their successor proves it. They must not be empty.
    fn check_sizes_before(&self, at: usize) -> Result<(), OpenError> {
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)).take(at) {
            if segment.size.get() == 0 {
                let (from, to) = (segment.base, next.base);
                return Err(OpenError::Gap { dir: self.dir.to_owned(), from, to });
            }
        }
        Ok(())
    }

    /// No segment is there: makes the first one.
    async fn begin(&mut self, base: Offset, fresh: bool) -> Result<(), OpenError> {
        let segment = Segment::new(base, false, 0);
        segment.create(self.env, self.dir).await?;
        self.env.sync_dir(self.dir).await?;
        *segment.index.borrow_mut() = Some(crate::segment::index::Index::new(4096));
        self.segments.push_back(segment);
        (self.end, self.pos) = (base, 0);
        self.recovered.created = fresh;
        Ok(())
    }

    /// Scans one segment from `self.pos`; leaves `self.end` and `self.pos` behind its last batch.
    async fn scan_segment(
        &mut self,
        segment: &Rc<Segment<E>>,
        is_last: bool,
    ) -> Result<(), OpenError> {
        let file = segment.file(self.env, self.dir).await?;
        let len = file.len().await?;
        segment.allocated.set(len);
        if self.pos > len {
            let (path, pos) = (log_path(self.dir, segment.base), len);
            return Err(OpenError::Damaged { path, pos, why: "shorter than its checkpoint says" });
        }
        let before = self.recovered.batches;
        let mut cursor = Cursor::<E>::new(file.clone(), self.pos, len, 64 << 10);
        let fault = loop {
            match cursor.next().await? {
                Step::End => break None,
                Step::Bad(fault) => break Some(fault),
                Step::Batch(found) => {
                    let batch = found.batch();
                    if batch.base_offset() != self.end {
                        break Some(Fault { claims: None, why: "a batch of other offsets" });
                    }
                    self.take(segment, &batch);
                    self.recovered.scanned_bytes += found.range.len() as u64;
                }
            }
            self.env.turn().await;
        };
        self.pos = cursor.pos();
        segment.size.set(self.pos);
        if let Some(fault) = fault {
            self.judge(segment, &file, len, is_last, fault).await?;
        }
        if self.recovered.batches > before {
            // They survived the process; before anything builds on them they survive the power.
            file.sync().await?;
            self.env.sync_dir(self.dir).await?;
        }
        Ok(())
    }

    fn take(&mut self, segment: &Segment<E>, batch: &Batch<'_>) {
        if let Err(error) = self.epochs.assign(batch.leader_epoch(), batch.base_offset()) {
            tracing::warn!(dir = %self.dir.display(), %error, "an epoch is not remembered");
        }
        self.producers.update(batch, self.env.wall());
        if segment.first_timestamp.get().is_none() {
            segment.first_timestamp.set(Some(batch.max_timestamp()));
        }
        self.end = batch.next_offset();
        self.recovered.batches += 1;
    }

    /// Decides what the bytes at `self.pos` are, which are no expected batch.
    async fn judge(
        &mut self,
        segment: &Segment<E>,
        file: &Rc<E::File>,
        len: u64,
        is_last: bool,
        fault: Fault,
    ) -> Result<(), OpenError> {
        let damaged = || OpenError::Damaged {
            path: log_path(self.dir, segment.base),
            pos: self.pos,
            why: fault.why,
        };
        if !is_last {
            return Err(damaged());
        }
        let rest = self.look_behind(file, len).await?;
        if rest.last_nonzero.is_none() {
            // Zeros to the end: space that was reserved and not used.
            return Ok(());
        }
        let window = self.bounds.unsynced_bytes_max
            + (self.bounds.block_bytes_max as u64).max(self.batch_bytes_max)
            + BLOCK_ALIGN as u64;
        let far = rest.last_batch.is_some_and(|at| at > self.pos + window);
        let claims = fault.claims.unwrap_or(crate::batch::HEADER_BYTES) as u64;
        let torn = self.has_lost_sector(file, len, claims).await?;
        if !torn || (far && self.required == Durability::Synced) {
            return Err(damaged());
        }
        tracing::warn!(dir = %self.dir.display(), segment = %segment.base, pos = self.pos,
            end = %self.end, why = fault.why, "the torn tail of an interrupted write was cut");
        file.truncate(self.pos).await?;
        file.sync().await?;
        segment.allocated.set(self.pos);
        remove_if_there(self.env, &index_path(self.dir, segment.base)).await?;
        self.recovered.cut = Some((segment.base, self.pos));
        Ok(())
    }

    /// Whether a sector that the batch at `self.pos` touches reads as zeros (from the batch on).
    async fn has_lost_sector(
        &self,
        file: &Rc<E::File>,
        len: u64,
        claims: u64,
    ) -> Result<bool, OpenError> {
        let end = (self.pos + claims).min(len);
        let mut pos = self.pos;
        while pos < end {
            let want = (end.next_multiple_of(SECTOR).min(len) - pos).min(SEARCH_BYTES as u64);
            let read = file.read_at(pos, want as usize).await?;
            if read.is_empty() {
                break;
            }
            let first = (SECTOR - pos % SECTOR).min(read.len() as u64) as usize;
            let (head, rest) = read.split_at(first);
            let mut sectors = std::iter::once(head).chain(rest.chunks(SECTOR as usize));
            if sectors.any(|sector| sector.iter().all(|&byte| byte == 0)) {
                return Ok(true);
            }
            pos += read.len() as u64;
            self.env.turn().await;
        }
        // What ends with the file was cut with it (the length had not become durable).
        Ok(self.pos + claims > len)
    }

    /// Looks for whole batches of later offsets, and for any byte at all, behind `self.pos`.
    async fn look_behind(&self, file: &Rc<E::File>, len: u64) -> Result<Behind, OpenError> {
        let mut behind = Behind::default();
        let mut pos = self.pos;
        while pos < len {
            // Overlap, so that no header is missed between two pieces.
            let read = file.read_at(pos, SEARCH_BYTES.min((len - pos) as usize)).await?;
            if read.is_empty() {
                break;
            }
            if let Some(at) = read.iter().rposition(|&byte| byte != 0) {
                behind.last_nonzero = Some(pos + at as u64);
                for at in candidates(&read, self.end) {
                    if self.is_batch(file, pos + at as u64).await? {
                        behind.last_batch = Some(pos + at as u64);
                    }
                }
            }
            let overlap =
                if read.len() as u64 + pos < len { crate::batch::HEADER_BYTES } else { 0 };
            pos += (read.len() - overlap.min(read.len() - 1)) as u64;
            self.env.turn().await;
        }
        Ok(behind)
    }

    async fn is_batch(&self, file: &Rc<E::File>, pos: u64) -> Result<bool, OpenError> {
        let mut cursor = Cursor::<E>::new(file.clone(), pos, u64::MAX, 4096);
        Ok(matches!(cursor.next().await?, Step::Batch(_)))
    }

    /// Where appending goes on, with what stands before it in its sector.
    async fn mark(&self) -> Result<Mark, OpenError> {
        let active = self.segments.back().expect("there is an active segment");
        let from = align_down(self.pos);
        let carry = match self.pos - from {
            0 => Vec::new(),
            len => {
                let file = active.file(self.env, self.dir).await?;
                file.read_at(from, len as usize).await?.to_vec()
            }
        };
        Ok(Mark { segment: active.base, pos: self.pos, carry })
    }
}

#[derive(Default)]
struct Behind {
    last_nonzero: Option<u64>,
    last_batch: Option<u64>,
}

/// Positions where a header of offsets from `end` on seems to begin.
fn candidates(bytes: &[u8], end: Offset) -> impl Iterator<Item = usize> + '_ {
    (0..bytes.len().saturating_sub(crate::batch::HEADER_BYTES - 1)).filter(move |&at| {
        bytes[at + 16] == crate::batch::MAGIC
            && Header::peek(&bytes[at..]).is_ok_and(|header| {
                header.base_offset() > end && header.base_offset().since(end) < u64::from(u32::MAX)
            })
    })
}

async fn remove_if_there<E: Env>(env: &E, path: &Path) -> io::Result<()> {
    match env.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl<E: Env> Inner<E> {
    /// After a crash a saved index of the active segment may speak of data that is gone: it is
    /// taken over now if it fits, or removed before it could ever seem to.
    async fn adopt_index(&self) {
        let active = self.active();
        if active.index.borrow().is_some() {
            return;
        }
        match self.load_index(&active).await {
            Some((index, covered)) => {
                active.indexed.set(covered);
                *active.index.borrow_mut() = Some(index);
            }
            None => {
                let path = index_path(&self.dir, active.base);
                if let Err(error) = remove_if_there(&self.env, &path).await {
                    tracing::warn!(path = %path.display(), %error, "a stale index stays");
                }
            }
        }
    }

    /// The producers as the written part of the log makes them: the last checkpoint, and what came
    /// after it.
    pub(super) async fn replay_producers(&self) -> Result<Producers, ReadError> {
        let checkpoint = Checkpoint::read(&self.env, &self.dir, self.identity).await?;
        let (limits, segments, end) = {
            let state = self.state.borrow();
            let segments: Vec<_> = state.segments.iter().cloned().collect();
            (state.config.producer_limits(), segments, Offset::new(state.written.value()))
        };
        let mut producers = checkpoint
            .and_then(|c| Producers::restore(&c.producers, limits).ok())
            .unwrap_or_else(|| Producers::new(limits, Offset::ZERO));
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at + 1).map_or(end, |next| next.base);
            if next <= producers.end() {
                continue;
            }
            let mut cursor = self.cursor(segment, 0).await?;
            while let Some(found) = self.step(segment, &mut cursor).await? {
                let batch = found.batch();
                if batch.base_offset() >= producers.end() && batch.base_offset() < end {
                    producers.update(&batch, self.env.wall());
                }
                self.env.turn().await;
            }
        }
        Ok(producers)
    }

    /// Writes what recovery may start from. Waits until everything that it speaks of is synced.
    pub(super) async fn write_checkpoint(&self) -> io::Result<()> {
        let mut running = self.checkpoint.get();
        if running.running {
            return Ok(());
        }
        running.running = true;
        self.checkpoint.set(running);
        let result = self.write_checkpoint_now(running.sequence + 1).await;
        let mut done = self.checkpoint.get();
        done.running = false;
        if let Ok(end) = &result {
            done.sequence = running.sequence + 1;
            done.bytes -= running.bytes;
            done.end = *end;
        }
        self.checkpoint.set(done);
        result.map(|_| ())
    }

    async fn write_checkpoint_now(&self, sequence: u64) -> io::Result<Offset> {
        let (checkpoint, synced, written) = {
            let state = self.state.borrow();
            let active = state.segments.back().expect("there is an active segment");
            let checkpoint = Checkpoint {
                sequence,
                topic: *self.identity.topic.bytes(),
                partition: self.identity.partition.0,
                log_start: state.start.value(),
                segment: active.base.value(),
                position: state.tail.pos(),
                offset: state.end.value(),
                first_timestamp: active.first_timestamp.get().map(|at| at.0),
                epochs: state
                    .epochs
                    .entries()
                    .iter()
                    .map(|entry| (entry.epoch.0, entry.start.value()))
                    .collect(),
                producers: state.producers.snapshot(),
            };
            (checkpoint, state.synced.clone(), state.written.clone())
        };
        let gone = |_| io::Error::other("the log ended before its checkpoint");
        written.reach(checkpoint.offset).await.map_err(gone)?;
        self.start_sync();
        synced.reach(checkpoint.offset).await.map_err(gone)?;
        checkpoint.write(&self.env, &self.dir).await?;
        let active = self.active();
        if let Err(error) = self.save_index(&active).await {
            tracing::debug!(dir = %self.dir.display(), %error, "the index was not saved");
        }
        Ok(Offset::new(checkpoint.offset))
    }
}
