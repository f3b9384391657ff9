//! What a partition remembers of its idempotent producers, so that a retry is not a second record.
//!
//! Two phases: [`Producers::check`] decides purely, [`Producers::update`] is told what the log then
//! appended. Both run in the same synchronous step as the append, so a retry that arrives while the
//! first attempt is still being written finds it, too: it gets the same offsets, and its answer
//! waits for the same durability as the first one's.
//!
//! Source: Kafka's `ProducerStateManager`, `ProducerStateEntry` and `ProducerAppendInfo`. What is
//! different here:
//! - Idle time runs on the broker's clock, not on record timestamps: a producer that writes old
//!   timestamps would otherwise be forgotten at once.
//! - The number of producers has a maximum; beyond it the one that is idle for longest goes. A
//!   forgotten producer that comes back is unknown, and is taken at any sequence, as in Kafka.
//! - A snapshot keeps the whole window, not only its last batch, so that a retry is recognised
//!   across a restart.
//!
//! Room for transactions (not built yet): an open transaction's first offset belongs into
//! `Entry`, what is decided but not replicated beside the table; [`Producers::update`] sees
//! control batches already, and an entry with an open transaction must then be neither expired nor
//! evicted.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Header, Producer, Sequence};
use crate::compaction::filter::LastWritten;
use crate::ids::{Offset, ProducerEpoch, ProducerId};
use crate::time::Timestamp;

mod snapshot;

pub use snapshot::{ProducerSnapshot, ProducersSnapshot, SnapshotError, WrittenSnapshot};

/// How many batches per producer are recognised when they come again: what a client may have in
/// flight (`max.in.flight.requests.per.connection` of an idempotent producer).
pub const WINDOW_BATCHES: usize = 5;

/// What bounds the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Most producers that one partition remembers; at least 1. At the limit a new one takes the
    /// place of the one that is idle for longest. About 300 bytes each.
    pub producers_max: usize,
    /// How long an idle producer is remembered, in ms (`producer.id.expiration.ms`).
    pub expiration_ms: u64,
}

/// A batch that was appended, as its producer numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Sequence of its first record.
    pub base_sequence: Sequence,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// How many offsets it spans, less one.
    pub last_offset_delta: u32,
    /// Its maximal timestamp.
    pub timestamp: Timestamp,
}

impl Written {
    /// Sequence of its last record.
    pub fn last_sequence(&self) -> Sequence {
        self.base_sequence.plus(self.last_offset_delta)
    }

    /// Offset of its last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta))
    }
}

/// Whether a batch is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is new: append it, then [`Producers::update`].
    Append,
    /// It was appended before, as this. Answer with its offsets once they are durable.
    Duplicate(Written),
}

/// Why a batch of an idempotent producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A newer incarnation of the producer has written already. Kafka: INVALID_PRODUCER_EPOCH.
    #[error("epoch {epoch} of producer {id} is older than {current}")]
    OldEpoch {
        /// The producer.
        id: ProducerId,
        /// What the batch says.
        epoch: ProducerEpoch,
        /// What the partition knows.
        current: ProducerEpoch,
    },
    /// Records are missing before the batch, or it is too old to be recognised as a duplicate, or
    /// a new incarnation does not begin at 0. Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("sequence {found} of producer {id}, epoch {epoch}, does not follow {last:?}")]
    OutOfOrder {
        /// The producer.
        id: ProducerId,
        /// What the batch says.
        epoch: ProducerEpoch,
        /// First sequence of the batch.
        found: Sequence,
        /// Last sequence in the log; none where the epoch is new.
        last: Option<Sequence>,
    },
}

/// What is remembered of one producer. `window` is oldest first, at most [`WINDOW_BATCHES`] long,
/// and of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    epoch: ProducerEpoch,
    window: Window,
    /// Timestamp of the last batch, as DescribeProducers shows it.
    last_timestamp: Timestamp,
    /// The broker's clock when it last wrote.
    last_active: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Window {
    batches: [Option<Written>; WINDOW_BATCHES],
}

impl Window {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Written> {
        self.batches.iter().flatten()
    }

    fn last(&self) -> Option<&Written> {
        self.iter().next_back()
    }

    fn push(&mut self, batch: Written) {
        if let Some(free) = self.batches.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(batch);
            return;
        }
        self.batches.rotate_left(1);
        self.batches[WINDOW_BATCHES - 1] = Some(batch);
    }

    fn truncate_to(&mut self, end: Offset) {
        for slot in &mut self.batches {
            if slot.is_some_and(|batch| batch.last_offset() >= end) {
                *slot = None;
            }
        }
    }
}

/// One line of DescribeProducers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Identity.
    pub id: ProducerId,
    /// Its newest incarnation here.
    pub epoch: ProducerEpoch,
    /// Sequence of its last record; none after an epoch that wrote only markers.
    pub last_sequence: Option<Sequence>,
    /// Timestamp of its last batch.
    pub last_timestamp: Timestamp,
}

/// What a truncation left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Truncated {
    /// The state is exactly that of the shorter log.
    Exact,
    /// What the shorter log had is not known here any more. The table is empty now: restore a
    /// snapshot from at or below the new end, and replay the log from there with
    /// [`Producers::update`].
    Replay,
}

/// The idempotent producers of one partition.
#[derive(Debug, Clone)]
pub struct Producers {
    limits: ProducerLimits,
    entries: BTreeMap<ProducerId, Entry>,
    /// The same producers by the time they were last active: the first is the next to go.
    idle: BTreeSet<(Timestamp, ProducerId)>,
    /// Everything below this offset has been told to `update`.
    end: Offset,
}

impl Producers {
    /// An empty table for a log that starts at `end`.
    pub fn new(limits: ProducerLimits, end: Offset) -> Producers {
        assert!(limits.producers_max > 0, "a partition remembers at least one producer");
        Producers { limits, entries: BTreeMap::new(), idle: BTreeSet::new(), end }
    }

    /// The offset up to which the state is that of the log.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether this one is remembered.
    pub fn knows(&self, id: ProducerId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Decides about a client's batch, which was checked. Batches without a producer are new.
    pub fn check(&self, batch: &Header) -> Result<Verdict, ProducerError> {
        let Some(Producer { id, epoch, base_sequence: Some(found) }) = batch.producer() else {
            return Ok(Verdict::Append);
        };
        let Some(entry) = self.entries.get(&id) else {
            // Unknown: never seen, expired, evicted or truncated away. Any sequence will do.
            return Ok(Verdict::Append);
        };
        if epoch < entry.epoch {
            return Err(ProducerError::OldEpoch { id, epoch, current: entry.epoch });
        }
        if epoch > entry.epoch {
            return match found {
                Sequence::ZERO => Ok(Verdict::Append),
                _ => Err(ProducerError::OutOfOrder { id, epoch, found, last: None }),
            };
        }
        let delta = batch.last_offset_delta();
        let same = |old: &&Written| old.base_sequence == found && old.last_offset_delta == delta;
        if let Some(written) = entry.window.iter().find(same) {
            return Ok(Verdict::Duplicate(*written));
        }
        let last = entry.window.last().map(Written::last_sequence);
        // Without a last sequence the epoch wrote only markers, and begins at 0.
        if last.map_or(Sequence::ZERO, |last| last.plus(1)) == found {
            Ok(Verdict::Append)
        } else {
            Err(ProducerError::OutOfOrder { id, epoch, found, last })
        }
    }

    /// Notes a stamped batch that the log appended at the broker's time `now`: every batch, also
    /// those without a producer, of followers and at replay (the log is the truth: nothing is
    /// refused). Returns the producer that had to go to make room, if one had.
    pub fn update(&mut self, batch: &Header, now: Timestamp) -> Option<ProducerId> {
        self.end = batch.next_offset();
        let producer = batch.producer()?;
        let evicted = self.make_room_for(producer.id);
        let entry = self.entries.entry(producer.id).or_insert_with(|| Entry {
            epoch: producer.epoch,
            window: Window::default(),
            last_timestamp: Timestamp::NONE,
            last_active: now,
        });
        self.idle.remove(&(entry.last_active, producer.id));
        self.idle.insert((now, producer.id));
        entry.last_active = now;
        entry.last_timestamp = batch.max_timestamp();
        if entry.epoch != producer.epoch {
            entry.epoch = producer.epoch;
            entry.window = Window::default();
        }
        if let Some(base_sequence) = producer.base_sequence
            && !batch.attributes().is_control()
        {
            entry.window.push(Written {
                base_sequence,
                base_offset: batch.base_offset(),
                last_offset_delta: batch.last_offset_delta(),
                timestamp: batch.max_timestamp(),
            });
        }
        evicted
    }

    fn make_room_for(&mut self, id: ProducerId) -> Option<ProducerId> {
        if self.entries.len() < self.limits.producers_max || self.entries.contains_key(&id) {
            return None;
        }
        let (_, idlest) = self.idle.pop_first()?;
        self.entries.remove(&idlest);
        Some(idlest)
    }

    /// Forgets producers that have been idle for [`ProducerLimits::expiration_ms`], the idlest
    /// first, at most `count_max` of them. Returns how many.
    pub fn expire(&mut self, now: Timestamp, count_max: usize) -> usize {
        let mut count = 0;
        while let Some(&(active, id)) = self.idle.first()
            && count < count_max
            && now.millis_since(active) >= self.limits.expiration_ms
        {
            self.idle.pop_first();
            self.entries.remove(&id);
            count += 1;
        }
        count
    }

    /// Takes other limits from now on. Beyond a lower maximum, the idlest go at once.
    pub fn set_limits(&mut self, limits: ProducerLimits) {
        assert!(limits.producers_max > 0, "a partition remembers at least one producer");
        self.limits = limits;
        while self.entries.len() > limits.producers_max {
            let (_, idlest) = self.idle.pop_first().expect("as many as entries");
            self.entries.remove(&idlest);
        }
    }

    /// The log now ends at `end`. Exact where every producer that wrote behind `end` has a batch
    /// of its window left below it: what a client has in flight then still is in the window.
    pub fn truncate_to(&mut self, end: Offset) -> Truncated {
        if end >= self.end {
            return Truncated::Exact;
        }
        for entry in self.entries.values_mut() {
            let touched = entry.window.last().is_none_or(|last| last.last_offset() >= end);
            if !touched {
                continue;
            }
            entry.window.truncate_to(end);
            let Some(last) = entry.window.last() else {
                *self = Producers::new(self.limits, Offset::ZERO);
                return Truncated::Replay;
            };
            entry.last_timestamp = last.timestamp;
        }
        self.end = end;
        Truncated::Exact
    }

    /// The log now starts at `start`. Producers whose records are gone stay known, as in Kafka:
    /// their next batch still has to follow.
    pub fn delete_before(&mut self, start: Offset) {
        self.end = self.end.max(start);
    }

    /// What each of them wrote last below `end`, as far as it is remembered, by producer id.
    pub fn last_below(&self, end: Offset) -> impl Iterator<Item = (ProducerId, LastWritten)> {
        self.entries.iter().map(move |(&id, entry)| {
            let below = entry.window.iter().rfind(|batch| batch.last_offset() < end);
            let last = match (below, entry.window.last()) {
                (Some(batch), _) => LastWritten::Ends(batch.last_offset()),
                (None, Some(_)) => LastWritten::Unknown,
                (None, None) => LastWritten::Markers(entry.epoch),
            };
            (id, last)
        })
    }

    /// What DescribeProducers shows, by producer id.
    pub fn active(&self) -> impl Iterator<Item = ActiveProducer> {
        self.entries.iter().map(|(&id, entry)| ActiveProducer {
            id,
            epoch: entry.epoch,
            last_sequence: entry.window.last().map(Written::last_sequence),
            last_timestamp: entry.last_timestamp,
        })
    }
}

#[cfg(test)]
mod tests;
