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

use crate::batches::{Sent, Stored, split};

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

pub type Kept<T = ()> = Result<T, Broken>;

pub fn broken<T>(invariant: Invariant, how: impl Into<String>) -> Kept<T> {
    Err(Broken { invariant, how: how.into() })
}

pub fn ensure(holds: bool, invariant: Invariant, how: impl FnOnce() -> String) -> Kept {
    if holds { Ok(()) } else { broken(invariant, how()) }
}

/// What happened so far, as a client knows it.
#[derive(Default)]
pub struct Promise {
    /// Everything that was appended and not reported as given up, deleted or not.
    pub batches: Vec<Stored>,
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
}

pub type Shown = Rc<RefCell<Promise>>;

impl Promise {
    pub fn end(&self) -> u64 {
        self.batches.last().map_or(0, |last| last.end)
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
        if let Some((id, _)) = sent.producer {
            self.producers.entry(id).or_default().push(self.batches.len());
        }
        self.batches.push(stored);
    }

    /// What a log that still runs, or ran until just now, reports as durable.
    pub fn on_durable(&mut self, log: &Log<SimEnv>) {
        self.written = self.written.max(log.written().value());
        self.synced = self.synced.max(log.synced().value());
    }

    /// The log ends at `end` now.
    pub fn truncate_to(&mut self, end: u64) {
        self.batches.retain(|batch| batch.end <= end);
        let left = self.batches.len();
        self.producers.values_mut().for_each(|of| of.retain(|&at| at < left));
        (self.written, self.synced) = (self.written.min(end), self.synced.min(end));
    }

    /// What is not written was given up: the log ends at `end` now.
    pub fn give_up(&mut self, end: u64) {
        for (&id, of) in &self.producers {
            if of.last().is_some_and(|&at| self.batches[at].end > end) {
                let first = of[of.len().saturating_sub(5)];
                let known = self.recognised.entry(id).or_default();
                *known = first.max(*known);
            }
        }
        self.truncate_to(end);
    }

    /// The least end that a log may have after a crash of this kind.
    pub fn least_end(&self, end: End) -> u64 {
        match end {
            End::Kill => self.written,
            End::PowerCut => self.synced,
        }
    }

    /// Compares a log that was opened after a crash; from then on it is what counts.
    pub async fn check(&mut self, log: &Log<SimEnv>, least_end: u64) -> Kept {
        use Invariant::*;
        let (start, end) = (log.start().value(), log.end().value());
        ensure(end >= least_end, AckedIsNeverLost, || {
            format!("the log ends at {end}, {least_end} was reported durable")
        })?;
        let boundary = end == 0 || self.batches.iter().any(|batch| batch.end == end);
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
        self.truncate_to(end);
        (self.written, self.synced) = (end, end);
        self.deleted = start;
        self.check_content(log).await?;
        self.check_epochs(log)?;
        self.check_retries(log)
    }

    /// Everything from the start to the written end is what was appended.
    pub async fn check_content(&self, log: &Log<SimEnv>) -> Kept {
        let (mut at, end) = (log.start(), Offset::new(log.written().value()));
        while at < end {
            let limit = Limit { bytes_max: 1 << 16, bound: end, at_least_one: true };
            let chunk = match log.read(at, limit).await {
                Ok(chunk) => chunk,
                Err(error) => return broken(Invariant::LogIsAPrefix, format!("at {at}: {error}")),
            };
            let bytes: Vec<u8> = chunk.slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.check_bytes(at.value(), &bytes)?;
            ensure(chunk.next > at, Invariant::AckedIsNeverLost, || {
                format!("nothing is read from {at}, the end is {end}")
            })?;
            at = chunk.next;
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
            ensure(same, Invariant::LogIsAPrefix, || {
                format!("batch {base}..{end} is not what was appended there")
            })?;
        }
        Ok(())
    }

    /// Offset of the first record from `start` on whose time is at least `time`.
    pub fn first_at(&self, start: u64, time: i64) -> Option<u64> {
        let records = self.batches.iter().flat_map(|b| (b.base..b.end).zip(&b.sent.times));
        records.filter(|(at, _)| *at >= start).find(|(_, at)| **at >= time).map(|(at, _)| at)
    }

    fn check_epochs(&self, log: &Log<SimEnv>) -> Kept {
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
