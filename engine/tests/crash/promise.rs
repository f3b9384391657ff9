//! What a log promised, and whether a reopened one keeps it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use engine::config::LogConfig;
use engine::env::sim::{End, SimEnv};
use engine::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use engine::log::{Limit, Log, OpenError, Recovered, Shared};
use engine::time::Timestamp;

use crate::batches::{Sent, Stored, split};
use crate::compacted::{Rule, Seen, Truth};

pub const DIR: &str = "/data/topic/0";

/// The promises of the engine, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// After a crash without damage the log opens.
    OpensAfterACrash,
    /// What was reported durable is there after a crash that this durability survives.
    AckedIsNeverLost,
    /// The log is a prefix of what was appended, bytes and offsets alike.
    LogIsAPrefix,
    /// What was deleted does not come back.
    DeletedStaysDeleted,
    /// Nothing goes that nobody asked to delete.
    OnlyDeletedGoes,
    /// What was truncated does not come back, not even beside what was appended instead.
    TruncatedStaysAway,
    /// A truncation takes back the batches that reach its offset and no others, and does not
    /// refuse without a reason.
    TruncatesToTheBatch,
    /// A retry of an idempotent producer is recognised, and its next batch taken.
    RetriesAreRecognised,
    /// The leader epochs are those of the batches.
    EpochsAreTheBatches,
    /// Damage is reported; it is neither served nor cut.
    DamageIsReported,
    /// What is rebuildable is rebuilt, whatever becomes of it.
    HintsAreRebuilt,
    /// After a failed write or sync nothing is reported durable.
    NoAckAfterAnError,
    /// A full disk costs what was not yet written and nothing else, and ends when there is room.
    FullDiskPasses,
    /// Of each key of a compacted log the newest record is there.
    NewestOfEachKeyStays,
    /// A key that was deleted does not come back when its deletion mark has gone.
    NothingComesBack,
    /// Compaction moves nothing.
    OffsetsKept,
    /// Whoever reads on while segments are swapped misses no newest record.
    ReadersSeeNoGap,
    /// Nothing in the program is broken.
    NoPanic,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Broken {
    pub invariant: Invariant,
    pub how: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.how)
    }
}

impl Broken {
    pub fn of_rule((rule, how): (Rule, String)) -> Broken {
        let invariant = match rule {
            Rule::OffsetsKept => Invariant::OffsetsKept,
            Rule::NewestOfEachKeyStays => Invariant::NewestOfEachKeyStays,
            Rule::NothingComesBack => Invariant::NothingComesBack,
        };
        Broken { invariant, how }
    }
}

pub type Kept<T = ()> = Result<T, Broken>;

pub fn broken<T>(invariant: Invariant, how: impl Into<String>) -> Kept<T> {
    Err(Broken { invariant, how: how.into() })
}

pub fn ensure(holds: bool, invariant: Invariant, how: impl FnOnce() -> String) -> Kept {
    if holds { Ok(()) } else { broken(invariant, how()) }
}

/// A truncation that nobody has seen the end of.
#[derive(Clone, Copy, Debug)]
pub enum TakingBack {
    /// Every batch that reaches this offset.
    From(u64),
    /// Everything; then the log starts at `at`.
    All { at: u64 },
}

/// What happened so far, as a client knows it.
#[derive(Default)]
pub struct Promise {
    /// Everything that was appended and not reported as given up or truncated, deleted or not.
    pub batches: Vec<Stored>,
    /// Where the log ends without any.
    pub origin: u64,
    /// Until it ends, anything from nothing to all of it may have been done.
    pub taking_back: Option<TakingBack>,
    /// Batches that are certainly truncated.
    pub truncated: Vec<Stored>,
    /// By producer: positions of its batches in `batches`.
    pub producers: BTreeMap<i64, Vec<usize>>,
    /// By producer: from which position on retries are recognised. What was given up had pushed
    /// earlier batches out of the window, and no client has more in flight than the window holds.
    pub recognised: BTreeMap<i64, usize>,
    pub written: u64,
    pub synced: u64,
    /// What is certainly deleted, and what at most may be.
    pub deleted: u64,
    pub delete_asked: u64,
    pub epoch: i32,
    /// Nothing at or above this offset was compacted; 0: nothing at all.
    pub compacted: u64,
    pub delete_retention_ms: u64,
    /// A new beginning was interrupted: a part is left of a log that was compacted as a whole.
    pub partial: bool,
    /// Records that compaction removed, as its counters say.
    pub shrunk: u64,
}

pub type Shown = Rc<RefCell<Promise>>;

impl Promise {
    pub fn end(&self) -> u64 {
        self.batches.last().map_or(self.origin, |last| last.end)
    }

    pub fn next_sequence(&self, producer: i64) -> i32 {
        let last = self.producers.get(&producer).and_then(|of| of.last());
        last.map_or(0, |&at| {
            let sent = &self.batches[at].sent;
            sent.producer.expect("it has one").1 + sent.records as i32
        })
    }

    /// A batch was appended at the end.
    pub fn on_append(&mut self, sent: &Sent) {
        let stored = sent.stored(Offset::new(self.end()), LeaderEpoch(self.epoch));
        self.note(stored);
    }

    /// It stands at the end now.
    pub fn note(&mut self, stored: Stored) {
        if let Some((id, _)) = stored.sent.producer {
            self.producers.entry(id).or_default().push(self.batches.len());
        }
        self.batches.push(stored);
    }

    /// A truncation to `to` has ended; the log starts at `start`.
    pub fn truncated(&mut self, to: u64, start: u64) {
        self.taking_back = None;
        let kept = self.batches.partition_point(|batch| batch.end <= to);
        if kept == self.batches.len() {
            return;
        }
        let end = self.batches[..kept].last().map_or(self.origin, |last| last.end);
        if end < start {
            return self.begin_at(start);
        }
        self.forget_windows(end, start);
        let gone = self.truncate_to(end);
        self.truncated.extend(gone);
    }

    /// Producers were brought back to `end` of a log that starts at `start`: retries are
    /// recognised as far as they were then, and where producers are read back, what was deleted
    /// cannot be.
    fn forget_windows(&mut self, end: u64, start: u64) {
        let start = start.max(self.compacted);
        let readable = self.batches.partition_point(|batch| batch.base < start);
        for (&id, of) in &self.producers {
            let known = self.recognised.entry(id).or_default();
            *known = readable.max(*known);
            if of.last().is_some_and(|&at| self.batches[at].end > end) {
                *known = of[of.len().saturating_sub(5)].max(*known);
            }
        }
    }

    /// The log is empty now, and starts at `at`.
    pub fn begin_at(&mut self, at: u64) {
        self.taking_back = None;
        self.truncated.append(&mut self.batches);
        self.producers.clear();
        self.recognised.clear();
        (self.origin, self.written, self.synced) = (at, at, at);
        (self.compacted, self.partial) = (0, false);
        // Somebody may be about to delete.
        (self.deleted, self.delete_asked) = (at, at.max(self.delete_asked));
    }

    /// What a log that still runs, or ran until just now, reports as durable.
    pub fn on_durable(&mut self, log: &Log<SimEnv>) {
        self.written = self.written.max(log.written().value());
        self.synced = self.synced.max(log.synced().value());
    }

    /// The log ends at `end` now. Answers what goes.
    fn truncate_to(&mut self, end: u64) -> Vec<Stored> {
        let left = self.batches.partition_point(|batch| batch.end <= end);
        let gone = self.batches.split_off(left);
        self.producers.values_mut().for_each(|of| of.retain(|&at| at < left));
        (self.written, self.synced) = (self.written.min(end), self.synced.min(end));
        gone
    }

    /// What is not written was given up: the log ends at `end` now.
    pub fn give_up(&mut self, end: u64) {
        self.forget_windows(end, 0);
        drop(self.truncate_to(end));
    }

    /// The least end that a log may have after a crash of this kind.
    pub fn least_end(&self, end: End) -> u64 {
        let durable = match end {
            End::Kill => self.written,
            End::PowerCut => self.synced,
        };
        match self.taking_back {
            Some(TakingBack::From(to)) => {
                let kept = self.batches.iter().rfind(|batch| batch.end <= to);
                durable.min(kept.map_or(self.origin, |last| last.end))
            }
            Some(TakingBack::All { .. }) => 0,
            None => durable,
        }
    }

    /// A truncation was under way: it may have left nothing.
    fn on_taken_back(&mut self, log: &Log<SimEnv>) {
        let (start, end) = (log.start().value(), log.end().value());
        match self.taking_back {
            Some(TakingBack::All { at }) if start == end && end == at => self.begin_at(at),
            Some(_) if start == end && (start..=self.delete_asked).contains(&end) => {
                // Everything was deleted, or what was left of it was truncated.
                let knows = |id| log.with_producers(|all| all.active().any(|one| one.id.0 == id));
                if self.producers.keys().any(|&id| knows(id)) {
                    // They may have been read back from the files that are left.
                    self.taking_back = None;
                    return self.forget_windows(u64::MAX, start);
                }
                let (deleted, asked) = (self.deleted, self.delete_asked);
                self.begin_at(end);
                (self.deleted, self.delete_asked) = (deleted, asked);
            }
            Some(TakingBack::From(to)) => {
                let kept = self.batches.iter().rfind(|batch| batch.end <= to);
                self.forget_windows(kept.map_or(self.origin, |last| last.end), start);
            }
            Some(TakingBack::All { .. }) => {
                self.partial = self.compacted > 0;
                self.forget_windows(u64::MAX, start);
            }
            None => {}
        }
        self.taking_back = None;
    }

    /// Compares a log that was opened after a crash; from then on it is what counts.
    pub async fn check(&mut self, log: &Log<SimEnv>, least_end: u64, now: i64) -> Kept {
        use Invariant::*;
        let (start, end) = (log.start().value(), log.end().value());
        let truncating = self.taking_back.is_some();
        self.on_taken_back(log);
        ensure(end >= least_end, AckedIsNeverLost, || {
            format!("the log ends at {end}, {least_end} was reported durable")
        })?;
        let boundary = end == self.origin || self.batches.iter().any(|batch| batch.end == end);
        let back = !boundary && self.truncated.iter().any(|batch| batch.end == end);
        ensure(!back, TruncatedStaysAway, || format!("the log ends at {end}"))?;
        // A log of which everything was deleted ends where that did.
        ensure(boundary, LogIsAPrefix, || format!("no batch ends at {end}"))?;
        ensure(start >= self.deleted, DeletedStaysDeleted, || {
            format!("starts at {start}, {} was deleted", self.deleted)
        })?;
        ensure(start <= self.delete_asked, OnlyDeletedGoes, || {
            format!("starts at {start}, at most {} was to be deleted", self.delete_asked)
        })?;
        let durable = (log.written().value(), log.synced().value());
        ensure(durable == (end, end), AckedIsNeverLost, || {
            format!("opened at {end}, durable up to {durable:?}")
        })?;
        let gone = self.truncate_to(end);
        self.truncated.extend(gone.into_iter().filter(|_| truncating));
        (self.written, self.synced) = (end, end);
        self.deleted = start;
        // Nothing of it is in memory, where it would stand as it was before compaction.
        let seen = self.check_content(log, now).await?;
        match self.compacted {
            0 => self.check_times(log).await?,
            _ => self.check_times_of(log, &seen).await?,
        }
        self.check_epochs(log)?;
        self.check_retries(log)
    }

    /// Everything from the start to the written end is what was appended.
    /// Answers the records of a compacted log.
    pub async fn check_content(&self, log: &Log<SimEnv>, now: i64) -> Kept<Vec<Seen>> {
        let mut all = Vec::new();
        let (mut at, end) = (log.start(), Offset::new(log.written().value()));
        while at < end {
            let limit = Limit { bytes_max: 1 << 16, bound: end, at_least_one: true };
            let chunk = match log.read(at, limit).await {
                Ok(chunk) => chunk,
                Err(error) => return broken(Invariant::LogIsAPrefix, format!("at {at}: {error}")),
            };
            let bytes: Vec<u8> = chunk.slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.check_range(at.value(), chunk.next.value(), &bytes, now)?;
            all.extend_from_slice(&bytes);
            ensure(chunk.next > at, Invariant::AckedIsNeverLost, || {
                format!("nothing is read from {at}, the end is {end}")
            })?;
            at = chunk.next;
        }
        if self.compacted > 0 {
            let start = log.start().value();
            let seen = self.truth(now).check_all(start, end.value(), &all);
            return seen.map_err(Broken::of_rule);
        }
        Ok(Vec::new())
    }

    /// What was appended, of which deletions may go that are old now.
    pub fn truth(&self, now: i64) -> Truth<'_> {
        let retention = i64::try_from(self.delete_retention_ms).expect("small");
        let (batches, compacted, partial) = (&self.batches, self.compacted, self.partial);
        Truth { batches, compacted, old: now - retention, partial }
    }

    /// Whole batches that were read from `at` on, up to `next`.
    pub fn check_range(&self, at: u64, next: u64, bytes: &[u8], now: i64) -> Kept {
        match self.compacted {
            0 => self.check_bytes(at, bytes),
            _ => self.truth(now).check(at, next, bytes).map(drop).map_err(Broken::of_rule),
        }
    }

    /// The records of a compacted log are found by their time.
    async fn check_times_of(&self, log: &Log<SimEnv>, seen: &[Seen]) -> Kept {
        let end = log.end();
        let max = seen.iter().map(|seen| seen.time).max();
        let first = |time| seen.iter().find(|seen| Some(seen.time) >= time);
        let found = log.max_time(end).await;
        let offset = found.as_ref().ok().map(|found| found.map(|found| found.offset.value()));
        let expected = max.and_then(|max| seen.iter().find(|seen| seen.time == max));
        ensure(
            offset == Some(expected.map(|seen| seen.offset)),
            Invariant::HintsAreRebuilt,
            || format!("the largest time is {found:?} instead of {expected:?}"),
        )?;
        for at in seen.iter().rev().step_by(3).take(4) {
            let found = log.find_time(Timestamp(at.time), end).await;
            let expected = first(Some(at.time)).map(|seen| seen.offset);
            let same = matches!(&found, Ok(Some(found)) if Some(found.offset.value()) == expected);
            ensure(same, Invariant::HintsAreRebuilt, || {
                format!("time {}: {found:?} instead of {expected:?}", at.time)
            })?;
        }
        Ok(())
    }

    /// Whole batches that were read from `at` on are those that were appended there.
    pub fn check_bytes(&self, at: u64, bytes: &[u8]) -> Kept {
        let first = self.batches.partition_point(|batch| batch.end <= at);
        let mut expected = self.batches[first..].iter();
        for (base, end, bytes) in split(bytes) {
            let same =
                expected.next().is_some_and(|batch| batch.base == base && batch.bytes == bytes);
            let back = !same && self.truncated.iter().any(|batch| batch.bytes == bytes);
            let invariant = match back {
                true => Invariant::TruncatedStaysAway,
                false => Invariant::LogIsAPrefix,
            };
            ensure(same, invariant, || {
                format!("batch {base}..{end} is not what was appended there")
            })?;
        }
        Ok(())
    }

    /// Offset of the first record from `start` on whose time is at least `time`.
    pub fn first_at(&self, start: u64, time: i64) -> Option<u64> {
        let mut records = self.batches.iter().flat_map(|b| &b.records);
        records.find(|(offset, at)| *offset >= start && *at >= time).map(|record| record.0)
    }

    /// Records are found by their time; the saved indexes are hints for that.
    async fn check_times(&self, log: &Log<SimEnv>) -> Kept {
        let (start, end) = (log.start().value(), log.end());
        let readable = self.batches.iter().filter(|batch| batch.base >= start);
        for batch in readable.rev().step_by(3).take(2) {
            let time = batch.sent.times[0];
            let found = log.find_time(Timestamp(time), end).await;
            let expected = self.first_at(start, time);
            let same = matches!(&found, Ok(Some(found)) if Some(found.offset.value()) == expected);
            ensure(same, Invariant::HintsAreRebuilt, || {
                format!("time {time}: {found:?} instead of {expected:?}")
            })?;
        }
        Ok(())
    }

    pub fn check_epochs(&self, log: &Log<SimEnv>) -> Kept {
        let latest = log.with_epochs(|epochs| epochs.latest());
        // The epoch of what was deleted last stays known, at the start.
        let (start, end) = (log.start(), log.end());
        let fits = latest.is_none_or(|e| e.start < end || (start, e.start) == (end, end));
        ensure(fits, Invariant::EpochsAreTheBatches, || {
            format!("{latest:?} has nothing in a log that ends at {}", log.end())
        })?;
        if self.partial {
            // They were read back from what is left, and what has gone had begun them.
            return Ok(());
        }
        for batch in self.batches.iter().filter(|batch| batch.base >= log.start().value()) {
            let known = log.with_epochs(|epochs| epochs.epoch_at(Offset::new(batch.base)));
            ensure(known == Some(batch.epoch), Invariant::EpochsAreTheBatches, || {
                format!("at {}: {known:?} instead of {:?}", batch.base, batch.epoch)
            })?;
        }
        Ok(())
    }

    fn check_retries(&self, log: &Log<SimEnv>) -> Kept {
        for (id, of) in &self.producers {
            let known = self.recognised.get(id).copied().unwrap_or_default();
            for &at in of.iter().rev().take(5).filter(|&&at| at >= known) {
                let old = &self.batches[at];
                let again = log.append(&old.sent.checked(), LeaderEpoch(self.epoch), false);
                let same = again.as_ref().is_ok_and(|again| {
                    again.duplicate
                        && again.base.value() == old.base
                        && again.end.value() == old.end
                });
                ensure(same, Invariant::RetriesAreRecognised, || {
                    format!("a retry of {}..{} gave {again:?}", old.base, old.end)
                })?;
            }
        }
        Ok(())
    }
}

pub fn identity() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionIndex(0) }
}

pub async fn open(
    env: &SimEnv,
    config: &LogConfig,
    shared: &Shared,
) -> Result<(Log<SimEnv>, Recovered), OpenError> {
    Log::open(env, Path::new(DIR), identity(), Rc::new(*config), shared).await
}
