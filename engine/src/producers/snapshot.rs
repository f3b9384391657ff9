//! The producer state as plain numbers, for a checkpoint: written with rkyv, validated on the way
//! back, so that a damaged snapshot is refused instead of believed.

use rkyv::{Archive, Deserialize, Serialize};

use super::{Entry, ProducerLimits, Producers, WINDOW_BATCHES, Window, Written};
use crate::batch::Sequence;
use crate::ids::{Offset, ProducerEpoch, ProducerId};
use crate::time::Timestamp;

/// All producers of a partition as of an offset. Plain data; see [`Producers::restore`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ProducersSnapshot {
    /// Everything below this offset is in it.
    pub end: u64,
    /// By producer id, rising strictly.
    pub producers: Vec<ProducerSnapshot>,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ProducerSnapshot {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Timestamp of its last batch, in ms.
    pub last_timestamp: i64,
    /// The broker's clock when it last wrote, in ms.
    pub last_active: i64,
    /// Its last batches, oldest first, at most [`WINDOW_BATCHES`].
    pub window: Vec<WrittenSnapshot>,
}

/// One batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WrittenSnapshot {
    /// Sequence of its first record.
    pub base_sequence: i32,
    /// Offset of its first record.
    pub base_offset: u64,
    /// How many offsets it spans, less one.
    pub last_offset_delta: u32,
    /// Its maximal timestamp, in ms.
    pub timestamp: i64,
}

/// Why a snapshot is not believed. The log is replayed instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A number is out of its range.
    #[error("a number of producer {0} is out of range")]
    Range(i64),
    /// Producers, sequences or offsets are not in order, or lie behind the snapshot's end.
    #[error("producer {0} is out of order")]
    Order(i64),
}

impl Producers {
    /// The state as plain data.
    pub fn snapshot(&self) -> ProducersSnapshot {
        let producers = self.entries.iter().map(|(id, entry)| ProducerSnapshot {
            id: id.0,
            epoch: entry.epoch.0,
            last_timestamp: entry.last_timestamp.0,
            last_active: entry.last_active.0,
            window: entry.window.iter().map(WrittenSnapshot::from).collect(),
        });
        ProducersSnapshot { end: self.end.value(), producers: producers.collect() }
    }

    /// The state from plain data, which may be damaged. Beyond `limits.producers_max`, the idlest
    /// are left out.
    pub fn restore(
        snapshot: &ProducersSnapshot,
        limits: ProducerLimits,
    ) -> Result<Producers, SnapshotError> {
        let end = offset(snapshot.end).ok_or(SnapshotError::Range(-1))?;
        let mut producers = Producers::new(limits, end);
        for (index, stored) in snapshot.producers.iter().enumerate() {
            if index > 0 && snapshot.producers[index - 1].id >= stored.id {
                return Err(SnapshotError::Order(stored.id));
            }
            let entry = restore_entry(stored, end)?;
            let id = ProducerId(stored.id);
            producers.idle.insert((entry.last_active, id));
            producers.entries.insert(id, entry);
        }
        producers.set_limits(limits);
        Ok(producers)
    }
}

fn restore_entry(stored: &ProducerSnapshot, end: Offset) -> Result<Entry, SnapshotError> {
    let range = SnapshotError::Range(stored.id);
    let order = SnapshotError::Order(stored.id);
    if stored.id < 0 || stored.window.len() > WINDOW_BATCHES {
        return Err(range);
    }
    let mut window = Window::default();
    for batch in &stored.window {
        let batch = Written {
            base_sequence: Sequence::from_wire(batch.base_sequence).ok_or(range)?,
            base_offset: offset(batch.base_offset).ok_or(range)?,
            last_offset_delta: batch.last_offset_delta,
            timestamp: Timestamp(batch.timestamp),
        };
        if batch.last_offset_delta > i32::MAX as u32 {
            return Err(range);
        }
        let (first, delta) = (batch.base_offset.value(), u64::from(batch.last_offset_delta));
        let follows = window.last().is_none_or(|last: &Written| last.last_offset().value() < first);
        if first + delta >= end.value() || !follows {
            return Err(order);
        }
        window.push(batch);
    }
    Ok(Entry {
        epoch: ProducerEpoch(stored.epoch),
        window,
        last_timestamp: Timestamp(stored.last_timestamp),
        last_active: Timestamp(stored.last_active),
    })
}

fn offset(value: u64) -> Option<Offset> {
    i64::try_from(value).ok().and_then(Offset::from_wire)
}

impl From<&Written> for WrittenSnapshot {
    fn from(written: &Written) -> WrittenSnapshot {
        WrittenSnapshot {
            base_sequence: written.base_sequence.to_wire(),
            base_offset: written.base_offset.value(),
            last_offset_delta: written.last_offset_delta,
            timestamp: written.timestamp.0,
        }
    }
}
