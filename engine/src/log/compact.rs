//! Compacting a log: [`Log::compact`] carries out what [`crate::compaction`] decides.
//!
//! A round reads the dirty part, then writes groups of finished segments anew, oldest first, and
//! swaps them in one by one; whatever ends it on the way leaves a log that is compacted in part. It
//! works in slices, with a turn for everybody else after each batch, and holds nothing that appends
//! or reads wait for. Before the first swap both checkpoints say that there are holes, and name no
//! segment that is replaced.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::cursor::Found;
use super::{Inner, Log, Mutant, ReadError, Status};
use crate::batch::{RecordFault, Scratch};
use crate::compaction::filter::{Fate, Filter, LastWritten, Place, learn};
use crate::compaction::map::KeyMap;
use crate::compaction::plan::{Extent, Survey, groups, survey};
use crate::config::LogConfig;
use crate::env::Env;
use crate::ids::{Offset, ProducerId};
use crate::segment::{Anew, SEGMENT_BYTES_MAX, Segment};
use crate::time::Timestamp;

mod output;

use output::Output;

/// The memory with which the logs of a shard are compacted, one at a time.
pub struct Cleaner {
    dedupe_bytes: usize,
    scratch: Scratch,
}

impl Cleaner {
    /// With a map of keys of `dedupe_bytes`, which is there only during a round.
    pub fn new(dedupe_bytes: usize) -> Cleaner {
        Cleaner { dedupe_bytes, scratch: Scratch::default() }
    }
}

/// What a round did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compacted {
    /// First dirty offset now.
    pub cleaned: Offset,
    /// Bytes of batches that were read to be judged.
    pub read_bytes: u64,
    /// Bytes of batches that took their place.
    pub written_bytes: u64,
    /// Segments that were replaced.
    pub replaced: usize,
    /// Distinct keys of the dirty part.
    pub keys: usize,
}

/// Why a round was not brought to its end. The log is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// Stored data is damaged or cannot be looked into.
    #[error("what is to be compacted cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    /// There is no room for the new segments; there will be when something else has gone.
    #[error("no space left on the device")]
    NoSpace,
    /// The log was truncated, deleted from or closed meanwhile.
    #[error("the log changed meanwhile")]
    Interrupted,
    /// The device failed.
    #[error("compaction failed: {0}")]
    Device(io::Error),
}

impl From<RecordFault> for CompactError {
    fn from(fault: RecordFault) -> CompactError {
        CompactError::Unreadable(fault.into())
    }
}

/// The part of a log that a round works on.
struct Round<'a, E: Env> {
    log: &'a Inner<E>,
    config: Rc<LogConfig>,
    now: Timestamp,
    segments: Vec<Rc<Segment<E>>>,
    extents: Vec<Extent>,
    /// How many of them were written anew.
    behind: usize,
    /// How often the log had been truncated when it was looked at.
    truncations: u64,
    done: Compacted,
}

impl<E: Env> Log<E> {
    /// Compacts the log if its settings say so and enough of it is dirty; `None` where not. Nothing
    /// at or above `bound` is touched: the high watermark, or the last stable offset where that is
    /// lower. For a background task, which calls it again and again; `None` also where another one
    /// is at it.
    pub async fn compact(
        &self,
        cleaner: &mut Cleaner,
        bound: Offset,
    ) -> Result<Option<Compacted>, CompactError> {
        let Some(_pass) = self.0.gate.enter().filter(|_| self.is_open()) else { return Ok(None) };
        if !self.config().compacts {
            return Ok(None);
        }
        let Some(_claim) = self.0.claim_compaction() else { return Ok(None) };
        let round = self.0.round().await?;
        let surveyed = round.survey(bound);
        if !surveyed.is_worth_it(&round.config) {
            return Ok(None);
        }
        let done = round.run(cleaner, surveyed).await?;
        tracing::info!(dir = %self.0.dir.display(), cleaned = %done.cleaned, keys = done.keys,
            read = done.read_bytes, written = done.written_bytes, "the log was compacted");
        Ok(Some(done))
    }

    /// First offset that was not compacted yet; the log start at the least.
    pub fn cleaned(&self) -> Offset {
        let state = self.0.state.borrow();
        state.cleaned.max(state.start)
    }
}

/// The right to compact a log.
struct Claim<'a, E: Env>(&'a Inner<E>);

impl<E: Env> Drop for Claim<'_, E> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().compacting = false;
    }
}

impl<E: Env> Inner<E> {
    fn claim_compaction(&self) -> Option<Claim<'_, E>> {
        let mut state = self.state.borrow_mut();
        (!std::mem::replace(&mut state.compacting, true)).then(|| Claim(self))
    }

    /// Looks at the finished segments.
    async fn round(&self) -> Result<Round<'_, E>, CompactError> {
        let truncations = self.truncations();
        let (segments, ends, config, cleaned) = {
            let state = self.state.borrow();
            let all = &state.segments;
            // A segment is cut and synced before its successor exists.
            let mut count = all.iter().skip(1).take_while(|next| next.exists.get()).count();
            let mut ends: Vec<Offset> = all.iter().skip(1).map(|next| next.base).collect();
            if self.shared.bounds.has(Mutant::CleanActive) && state.written.value() > 0 {
                count += usize::from(count + 1 == all.len());
                ends.push(Offset::new(state.written.value()));
            }
            let segments: Vec<_> = all.iter().take(count).cloned().collect();
            (segments, ends, state.config.clone(), state.cleaned)
        };
        let done = Compacted { cleaned, ..Compacted::default() };
        let (log, now, behind, extents) = (self, self.env.wall(), 0, Vec::new());
        let mut round = Round { log, config, now, segments, extents, behind, truncations, done };
        for (segment, end) in round.segments.clone().into_iter().zip(ends) {
            let extent = round.extent(&segment, end).await.map_err(|error| round.judge(error))?;
            round.extents.push(extent);
        }
        Ok(round)
    }

    /// The largest timestamp of a segment's first batch.
    async fn first(&self, segment: &Rc<Segment<E>>) -> Result<Option<Timestamp>, ReadError> {
        if segment.first_timestamp.get().is_none() {
            let mut walk = self.walk(segment, 0, segment.base).await?;
            let first = self.step(&mut walk).await?;
            segment.first_timestamp.set(first.map(|found| found.batch().max_timestamp()));
        }
        Ok(segment.first_timestamp.get())
    }

    /// What an error of the device means for the round, and for the log.
    fn why(&self, error: io::Error) -> CompactError {
        if is_full(&error) {
            return CompactError::NoSpace;
        }
        if !super::writer::is_out_of_descriptors(&error) {
            self.fail("compacting", &error);
        }
        CompactError::Device(error)
    }

    /// What failed has been judged where it did; or what was to be stored was given up.
    fn why_no_checkpoint(&self, error: io::Error) -> CompactError {
        match error.kind() {
            _ if is_full(&error) => CompactError::NoSpace,
            io::ErrorKind::Other if !self.shared.disk.has_failed() => CompactError::Interrupted,
            _ => CompactError::Device(error),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<E: Env> Round<'_, E> {
    /// What a plan needs to know of a segment.
    async fn extent(&self, segment: &Rc<Segment<E>>, end: Offset) -> Result<Extent, ReadError> {
        let (dirty, config) = (end > self.done.cleaned, &self.config);
        let lag = dirty && config.min_compaction_lag_ms > 0;
        let latest = if lag { self.log.latest(segment).await? } else { None };
        let wait = dirty && config.max_compaction_lag_ms.is_some();
        let first = if wait { self.log.first(segment).await? } else { None };
        let (base, bytes) = (segment.base, segment.size.get());
        Ok(Extent { base, end, bytes, first, latest })
    }

    fn survey(&self, bound: Offset) -> Survey {
        survey(&self.extents, self.done.cleaned, bound, self.now, &self.config)
    }

    async fn run(
        mut self,
        cleaner: &mut Cleaner,
        dirty: Survey,
    ) -> Result<Compacted, CompactError> {
        let secret = [self.log.env.random(), self.log.env.random()];
        let mut map = KeyMap::new(cleaner.dedupe_bytes, secret, dirty.from);
        let written = self.fill(&mut map, dirty, &mut cleaner.scratch).await?;
        if self.log.shared.bounds.has(Mutant::CleanUnknown) {
            map.knows(dirty.to);
        }
        (self.done.keys, self.done.cleaned) = (map.len(), map.known_to());
        let hasty = self.log.shared.bounds.has(Mutant::RemoveMarksEarly);
        let retention = self.config.delete_retention_ms;
        let producers = self.producers(map.known_to(), &written);
        let mut filter = Filter::new(&map, self.now, retention, producers).hasty(hasty);
        let segment_bytes = self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        let admitted = self.log.admit_holes_below(map.known_to()).await;
        admitted.map_err(|error| self.log.why_no_checkpoint(error))?;
        for group in groups(&self.extents, map.known_to(), segment_bytes) {
            let end = group.end;
            self.rewrite(group, &mut filter, &mut cleaner.scratch).await?;
            self.behind = end;
        }
        if self.log.truncations() != self.truncations {
            return Err(CompactError::Interrupted);
        }
        self.log.state.borrow_mut().cleaned = map.known_to();
        // If it is lost, the next round begins where this one did.
        if let Err(error) = self.log.write_checkpoint_next().await {
            tracing::warn!(dir = %self.log.dir.display(), %error, "no checkpoint was written");
        }
        Ok(self.done)
    }

    /// What the producers wrote last below `end`; `written` is the end of what they wrote in the
    /// dirty part.
    fn producers(
        &self,
        end: Offset,
        written: &BTreeMap<ProducerId, Offset>,
    ) -> BTreeMap<ProducerId, LastWritten> {
        let state = self.log.state.borrow();
        let known =
            state.producers.last_below(end).map(|(id, last)| match (last, written.get(&id)) {
                (LastWritten::Unknown, Some(&offset)) => (id, LastWritten::Ends(offset)),
                (last, _) => (id, last),
            });
        known.collect()
    }

    /// Reads the dirty part, until the map is full. Answers the last offset of each producer that
    /// the log remembers, as far as the map knows everything.
    async fn fill(
        &self,
        map: &mut KeyMap,
        dirty: Survey,
        scratch: &mut Scratch,
    ) -> Result<BTreeMap<ProducerId, Offset>, CompactError> {
        let mut written = BTreeMap::new();
        for (segment, extent) in self.segments.iter().zip(&self.extents) {
            if extent.end <= dirty.from || extent.base >= dirty.to {
                continue;
            }
            let from = dirty.from.max(extent.base);
            let start = self.log.start_of(segment, from).await;
            let (pos, at) = start.map_err(|error| self.judge(error))?;
            let walk = self.log.walk(segment, pos, at).await;
            let mut walk = walk.map_err(|error| self.judge(error))?;
            while let Some(found) =
                self.log.step(&mut walk).await.map_err(|error| self.judge(error))?
            {
                let batch = found.batch();
                if learn(map, &batch, from, scratch)?.is_err() {
                    return Ok(written);
                }
                let id = batch.producer().map(|producer| producer.id);
                if let Some(id) = id.filter(|_| !batch.attributes().is_control())
                    && self.log.state.borrow().producers.knows(id)
                {
                    written.insert(id, batch.last_offset());
                }
                self.take_turn().await?;
            }
            map.knows(extent.end);
        }
        Ok(written)
    }

    /// Writes a group of segments anew, as one, and puts it in their place.
    async fn rewrite(
        &mut self,
        group: Range<usize>,
        filter: &mut Filter<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), CompactError> {
        let (base, end) = (self.extents[group.start].base, self.extents[group.end - 1].end);
        let file = Anew { base, end, whole: false };
        let (log, interval) = (self.log, self.config.index_interval_bytes);
        let output = Output::create(&log.env, &log.dir, file, interval).await;
        let mut output = output.map_err(|error| log.why(error))?;
        let changed = match self.copy(group.clone(), &mut output, filter, scratch).await {
            Ok(changed) => changed,
            Err(error) => {
                // If it stays, opening the log removes it.
                let _ = output.abandon().await;
                return Err(error);
            }
        };
        self.done.written_bytes += output.bytes();
        if !changed && group.len() == 1 {
            return output.abandon().await.map_err(|error| log.why(error));
        }
        let sync = !log.shared.bounds.has(Mutant::SwapUnsynced);
        let new = output.finish(sync).await.map_err(|error| log.why(error))?;
        let old = self.segments[group].to_vec();
        self.done.replaced += old.len();
        match log.swap(old, new.clone(), file).await {
            Ok(true) => {}
            Ok(false) => {
                let _ = log.env.remove(&file.path(&log.dir)).await;
                return Err(CompactError::Interrupted);
            }
            Err(error) => return Err(log.why(error)),
        }
        if let Err(error) = log.save_index(&new, new.size.get()).await {
            tracing::debug!(dir = %log.dir.display(), %error, "the index was not saved");
        }
        Ok(())
    }

    /// Copies what stays of a group; says whether that is less than all.
    async fn copy(
        &mut self,
        group: Range<usize>,
        output: &mut Output<E>,
        filter: &mut Filter<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, CompactError> {
        let mut changed = false;
        for at in group.clone() {
            let segment = self.segments[at].clone();
            let walk = self.log.walk(&segment, 0, segment.base).await;
            let mut walk = walk.map_err(|error| self.judge(error))?;
            while let Some(found) =
                self.log.step(&mut walk).await.map_err(|error| self.judge(error))?
            {
                let is_last = at + 1 == group.end && walk.pos() == segment.size.get();
                self.done.read_bytes += found.range.len() as u64;
                let fate = filter.judge(&found.batch(), Place { is_last }, scratch)?;
                changed |= !matches!(fate, Fate::Whole);
                let written = write(output, &found, fate).await;
                written.map_err(|error| self.log.why(error))?;
                self.take_turn().await?;
            }
        }
        Ok(changed)
    }

    /// Lets others work; ends the round if the log is not what it was.
    async fn take_turn(&self) -> Result<(), CompactError> {
        self.log.env.turn().await;
        let state = self.log.state.borrow();
        match state.status == Status::Open && !state.truncating {
            true => Ok(()),
            false => Err(CompactError::Interrupted),
        }
    }

    /// What cannot be read may just not be part of the log any more.
    fn judge(&self, error: ReadError) -> CompactError {
        match self.log.holds(&self.segments[self.behind..]) {
            true => CompactError::Unreadable(error),
            false => CompactError::Interrupted,
        }
    }
}

async fn write<E: Env>(output: &mut Output<E>, found: &Found<E>, fate: Fate<'_>) -> io::Result<()> {
    match fate {
        Fate::Whole => output.push(found.batch().bytes()).await,
        Fate::Anew(bytes) => output.push(bytes).await,
        Fate::Empty(bytes) => output.push(&bytes).await,
        Fate::Gone => Ok(()),
    }
}
