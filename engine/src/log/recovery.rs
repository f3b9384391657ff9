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
//! How the two are told apart: see `judge`.
//!
//! After a cut the file is shortened to the cut, so that stale batches behind it can never line up
//! with new ones, and reserved anew.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use super::cursor::{Cursor, Fault, Step};
use super::holes::Holes;
use super::judge::{Judgement, Suspect};
use super::swap::finish_swaps;
use super::tail::{Mark, Tail};
use super::{Bounds, CheckpointState, Inner, Log, Mutant, Shared, State};
use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, Slots};
use crate::config::LogConfig;
use crate::env::{Entry, Env, File, align_down};
use crate::epochs::{EpochStart, Epochs};
use crate::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::producers::Producers;
use crate::segment::index::Index;
use crate::segment::{Segment, index_path, log_path, parse_log_name};
use crate::time::Timestamp;
use crate::wait::{Gate, Watch};

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
    config: &'a LogConfig,
    /// See [`Checkpoint::unsynced_bytes_max`].
    unsynced_bytes_max: Option<u64>,
    segments: VecDeque<Rc<Segment<E>>>,
    epochs: Epochs,
    producers: Producers,
    holes: Holes,
    /// A first segment was made.
    begun: bool,
    /// First readable offset.
    start: Offset,
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
        let (entries, slots) = match env.list(dir).await {
            Ok(entries) => (entries, Checkpoint::read(env, dir, identity).await?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Vec::new(), Slots { newest: None, suspect: false })
            }
            Err(error) => return Err(error.into()),
        };
        let checkpoint = slots.newest;
        if checkpoint.is_none() {
            // Also when it exists: the crash may have come before its entry was durable.
            make_dir(env, dir, shared.bounds).await?;
        }
        let holes = match &checkpoint {
            Some(checkpoint) => Holes { below: Offset::new(checkpoint.holes_below) },
            // Without one there was no compaction yet, unless it was lost.
            None if slots.suspect => Holes::ANYWHERE,
            None => Holes::NONE,
        };
        let cleaned = Offset::new(checkpoint.as_ref().map_or(0, |c| c.cleaned));
        let mut scan = Scan::new(env, dir, &config, shared.bounds, checkpoint.as_ref());
        scan.holes = holes;
        scan.find_segments(entries).await?;
        scan.run(checkpoint.as_ref()).await?;
        scan.sync_names(checkpoint.as_ref(), slots.suspect).await?;
        let mark = scan.mark().await?;
        let (recovered, start, end) = (scan.recovered, scan.start, scan.end);
        let checkpoint = CheckpointState {
            sequence: checkpoint.as_ref().map_or(0, |c| c.sequence),
            start,
            // Where nothing was scanned, nothing new is to be stored.
            end: checkpoint.as_ref().map_or(Offset::ZERO, |c| Offset::new(c.offset)),
            bytes: recovered.scanned_bytes,
            bounded: checkpoint.is_some_and(|c| c.unsynced_bytes_max.is_some()),
            running: false,
        };
        let tail = Tail::new(mark, shared.bounds.block_bytes_max);
        let Scan { segments, epochs, producers, .. } = scan;
        let known = (epochs, producers);
        let compaction = (holes, cleaned.min(end));
        let state = State::opened(config.clone(), (start, end), tail, segments, known, compaction);
        let log = Log(Rc::new_cyclic(|me: &Weak<Inner<E>>| Inner {
            env: env.clone(),
            dir: dir.to_owned(),
            identity,
            shared: shared.clone(),
            state: state.into(),
            checkpoint: checkpoint.into(),
            checkpoints_ended: Watch::new(0),
            gate: Gate::default(),
            me: me.clone(),
        }));
        Ok((log, recovered))
    }
}

/// Makes a directory so that it survives power loss: each new level synced in its parent.
async fn make_dir<E: Env>(env: &E, dir: &Path, bounds: Bounds) -> io::Result<()> {
    env.create_dir(dir).await?;
    // Topic directory and data directory; syncing one that existed costs little.
    for above in dir.ancestors().skip(1).take(2) {
        if !above.as_os_str().is_empty() && !bounds.has(Mutant::ForgetDirSync) {
            env.sync_dir(above).await?;
        }
    }
    Ok(())
}

impl<'a, E: Env> Scan<'a, E> {
    fn new(
        env: &'a E,
        dir: &'a Path,
        config: &'a LogConfig,
        bounds: Bounds,
        checkpoint: Option<&Checkpoint>,
    ) -> Scan<'a, E> {
        Scan {
            env,
            dir,
            bounds,
            config,
            unsynced_bytes_max: checkpoint.and_then(|c| c.unsynced_bytes_max),
            segments: VecDeque::new(),
            epochs: Epochs::default(),
            producers: Producers::new(config.producer_limits(), Offset::ZERO),
            holes: Holes::NONE,
            begun: false,
            start: Offset::new(checkpoint.map_or(0, |c| c.log_start)),
            end: Offset::ZERO,
            pos: 0,
            recovered: Recovered::default(),
        }
    }

    /// Ends what compaction began; finds the segment files among the `entries` of the directory;
    /// removes those that a crash kept from being removed.
    async fn find_segments(&mut self, entries: Vec<Entry>) -> Result<(), OpenError> {
        let entries = finish_swaps(self.env, self.dir, entries).await?;
        let mut found: Vec<(Offset, u64)> = entries
            .iter()
            .filter(|entry| !entry.is_dir)
            .filter_map(|entry| Some((parse_log_name(&entry.name)?, entry.len)))
            .collect();
        found.sort_unstable();
        while found.len() > 1 && found[1].0 <= self.start {
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
        let promised = Offset::new(checkpoint.map_or(0, |c| c.offset));
        if self.segments.is_empty() {
            if self.start < promised {
                return Err(self.gap(self.start, promised));
            }
            self.begin(promised, checkpoint).await?;
        } else {
            let at = self.position(checkpoint)?;
            self.scan_from(at).await?;
            if self.end < promised {
                return Err(self.gap(self.end, promised));
            }
        }
        if self.end < self.start {
            // The crash came while everything was being truncated, and nothing readable is left.
            self.restart(checkpoint).await?;
        }
        self.start = self.segments[0].base.max(self.start);
        self.epochs.delete_before(self.start);
        Ok(())
    }

    /// Begins anew where the log starts.
    async fn restart(&mut self, checkpoint: Option<&Checkpoint>) -> Result<(), OpenError> {
        for segment in std::mem::take(&mut self.segments) {
            remove_if_there(self.env, &index_path(self.dir, segment.base)).await?;
            self.env.remove(&log_path(self.dir, segment.base)).await?;
        }
        // Its name is not to meet the old ones.
        self.env.sync_dir(self.dir).await?;
        self.epochs = Epochs::default();
        self.producers = Producers::new(self.config.producer_limits(), self.start);
        self.begin(self.start, checkpoint).await
    }

    /// The process that made a file may have been killed before it synced its name. Where the
    /// checkpoint speaks of the last segment, that was synced before. And the process that cut the
    /// log may have been killed before that was durable: what is missing must not come back.
    async fn sync_names(
        &self,
        checkpoint: Option<&Checkpoint>,
        suspect: bool,
    ) -> Result<(), OpenError> {
        let last = self.segments.back().expect("there is an active segment").base;
        let known = checkpoint.is_some_and(|c| Offset::new(c.segment) == last);
        let cut = checkpoint.is_some_and(|c| c.cut) && !self.bounds.has(Mutant::ForgetCut);
        let known = known && !self.begun && !cut;
        if cut {
            let active = self.segments.back().expect("there is an active segment");
            active.file(self.env, self.dir).await?.sync().await?;
        }
        if (suspect || !known) && !self.bounds.has(Mutant::ForgetDirSync) {
            self.env.sync_dir(self.dir).await?;
        }
        Ok(())
    }

    /// Takes over what the checkpoint knows, as far as the segments have it; answers in which of
    /// them the scan begins.
    fn position(&mut self, checkpoint: Option<&Checkpoint>) -> Result<usize, OpenError> {
        let first = self.segments[0].base;
        self.end = first;
        let Some(c) = checkpoint else { return Ok(0) };
        if c.offset < c.log_start && first == self.start {
            // It was truncated to nothing, and an earlier opening began anew.
            return Ok(0);
        }
        if first > Offset::new(c.offset) {
            return Err(self.gap(Offset::new(c.offset), first));
        }
        let with_base = |base| self.segments.iter().position(|s| s.base == Offset::new(base));
        let at = match (with_base(c.segment), with_base(c.offset)) {
            (Some(at), _) => {
                self.pos = c.position;
                self.segments[at].first_timestamp.set(c.first_timestamp.map(Timestamp));
                at
            }
            // It ended where the checkpoint was taken, and all of it was deleted since.
            (None, Some(at)) => at,
            (None, None) => return Ok(0),
        };
        self.end = Offset::new(c.offset);
        let epochs = c.epochs.iter().map(|&(epoch, start)| EpochStart {
            epoch: LeaderEpoch(epoch),
            start: Offset::new(start),
        });
        // Both were valid when they were written, and the checkpoint has a checksum.
        let epochs = Epochs::from_entries(&epochs.collect::<Vec<_>>());
        self.epochs = epochs.unwrap_or_default();
        if !self.bounds.has(Mutant::ForgetProducers)
            && let Ok(producers) = Producers::restore(&c.producers, self.config.producer_limits())
        {
            self.producers = producers;
        }
        // Segments before it are complete: their successors prove it. They cannot be empty.
        let before = self.segments.iter().zip(self.segments.iter().skip(1)).take(at);
        match before.into_iter().find(|(segment, _)| segment.size.get() == 0) {
            Some((segment, next)) => Err(self.gap(segment.base, next.base)),
            None => Ok(at),
        }
    }

    async fn scan_from(&mut self, at: usize) -> Result<(), OpenError> {
        for at in at..self.segments.len() {
            let segment = self.segments[at].clone();
            if segment.base != self.end && self.pos == 0 {
                return Err(self.gap(self.end, segment.base));
            }
            let is_last = at + 1 == self.segments.len();
            self.scan_segment(&segment, is_last).await?;
            if !is_last {
                self.pos = 0;
            }
        }
        Ok(())
    }

    fn gap(&self, from: Offset, to: Offset) -> OpenError {
        OpenError::Gap { dir: self.dir.to_owned(), from, to }
    }

    /// No segment is there: makes the first one.
    async fn begin(
        &mut self,
        base: Offset,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), OpenError> {
        let segment = Segment::new(base, false, 0);
        segment.create(self.env, self.dir).await?;
        self.begun = true;
        *segment.index.borrow_mut() = Some(Index::new(self.config.index_interval_bytes));
        self.segments.push_back(segment);
        (self.end, self.pos) = (base, 0);
        self.recovered.created = checkpoint.is_none();
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
            return Err(self.damaged(segment, len, "shorter than its checkpoint says"));
        }
        let before = self.recovered.batches;
        let mut cursor = Cursor::<E>::new(file.clone(), self.pos, len, 64 << 10);
        let fault = loop {
            let pos = cursor.pos();
            let fault = match cursor.next().await? {
                Step::End => break None,
                Step::Bad(fault) => Some(fault),
                Step::Batch(found) if self.holes.admit(self.end, found.batch().base_offset()) => {
                    self.take(segment, &found.batch());
                    self.recovered.scanned_bytes += found.range.len() as u64;
                    None
                }
                Step::Batch(_) => Some(Fault { claims: None, why: "a batch of other offsets" }),
            };
            if fault.is_some() {
                self.pos = pos;
                break fault;
            }
            self.pos = cursor.pos();
            self.env.turn().await;
        };
        segment.size.set(self.pos);
        if let Some(fault) = fault {
            self.on_fault(segment, &file, is_last, fault).await?;
        }
        if self.recovered.batches > before {
            // They survived the process; before anything builds on them they survive the power.
            file.sync().await?;
        }
        Ok(())
    }

    fn take(&mut self, segment: &Segment<E>, batch: &Batch<'_>) {
        if let Err(error) = self.epochs.assign(batch.leader_epoch(), batch.base_offset()) {
            tracing::warn!(dir = %self.dir.display(), %error, "an epoch is not remembered");
        }
        if !self.bounds.has(Mutant::ForgetProducers) {
            self.producers.update(batch, self.env.wall());
        }
        if segment.first_timestamp.get().is_none() {
            segment.first_timestamp.set(Some(batch.max_timestamp()));
        }
        self.end = batch.next_offset();
        self.recovered.batches += 1;
    }

    fn damaged(&self, segment: &Segment<E>, pos: u64, why: &'static str) -> OpenError {
        OpenError::Damaged { path: log_path(self.dir, segment.base), pos, why }
    }

    /// The bytes at `self.pos` are no expected batch: unused space, a torn tail, or damage.
    async fn on_fault(
        &mut self,
        segment: &Segment<E>,
        file: &Rc<E::File>,
        is_last: bool,
        fault: Fault,
    ) -> Result<(), OpenError> {
        let suspect = Suspect {
            env: self.env,
            file: file.clone(),
            pos: self.pos,
            len: segment.allocated.get(),
            expected: self.end,
            holes: self.holes,
            unsynced_bytes_max: self.unsynced_bytes_max,
        };
        let judgement = suspect.judge().await?;
        let cuts = self.bounds.has(Mutant::CutDamage);
        match judgement {
            // A segment that has a successor was cut to its data and synced.
            _ if !is_last && !cuts => Err(self.damaged(segment, self.pos, fault.why)),
            Judgement::Unused => Ok(()),
            Judgement::Damaged if !cuts => Err(self.damaged(segment, self.pos, fault.why)),
            Judgement::Torn | Judgement::Damaged => {
                tracing::warn!(dir = %self.dir.display(), segment = %segment.base, pos = self.pos,
                    end = %self.end, why = fault.why,
                    "the torn tail of an interrupted write was cut");
                self.cut(segment, file).await?;
                Ok(())
            }
        }
    }

    async fn cut(&mut self, segment: &Segment<E>, file: &Rc<E::File>) -> io::Result<()> {
        if !self.bounds.has(Mutant::KeepCutBytes) {
            file.truncate(self.pos).await?;
            file.sync().await?;
            segment.allocated.set(self.pos);
        }
        self.recovered.cut = Some((segment.base, self.pos));
        Ok(())
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

pub(super) async fn remove_if_there<E: Env>(env: &E, path: &Path) -> io::Result<()> {
    match env.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
