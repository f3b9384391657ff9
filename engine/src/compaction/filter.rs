//! What stays of a batch, judged by a map of keys; and telling the map of a batch.

use std::collections::{BTreeMap, BTreeSet};

use super::map::{KeyMap, MapFull};
use crate::batch::{Batch, HEADER_BYTES, Pruned, Record, RecordFault, Scratch, empty_of};
use crate::ids::{Offset, ProducerEpoch, ProducerId};
use crate::time::Timestamp;

/// Most bytes that one batch may decompress to while it is compacted.
pub const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

/// Which batch of a producer that the partition remembers has to stay, so that its sequence is
/// known when producers are read back: the last one below the end of what is compacted, because
/// what stands above that end may yet be truncated. (Kafka keeps the last one of all, and has
/// snapshots of each segment's producers besides.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWritten {
    /// The one whose last offset this is.
    Ends(Offset),
    /// Control batches of this epoch: it wrote nothing else.
    Markers(ProducerEpoch),
    /// Somewhere below what is dirty: none goes.
    Unknown,
}

/// Why a batch stays although none of its records does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// It is the last one of its segment, which has to end where it ends.
    pub is_last: bool,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate<'s> {
    /// It stays as it is.
    Whole,
    /// It goes.
    Gone,
    /// These bytes take its place.
    Anew(&'s [u8]),
    /// A header takes its place.
    Empty([u8; HEADER_BYTES]),
}

/// A round's judgement. Batches are shown in the order of their offsets, from the first one of the
/// log on.
pub struct Filter<'m> {
    map: &'m KeyMap,
    now: Timestamp,
    /// What a batch gets in which deletion marks stay.
    horizon: Timestamp,
    producers: BTreeMap<ProducerId, LastWritten>,
    /// Producers of whose present transaction data was seen.
    in_transaction: BTreeSet<ProducerId>,
    /// For the test of the tests: marks go without waiting.
    hasty: bool,
}

impl<'m> Filter<'m> {
    /// By what `map` knows, at the wall time `now`. `producers` are those that the partition
    /// remembers.
    pub fn new(
        map: &'m KeyMap,
        now: Timestamp,
        delete_retention_ms: u64,
        producers: BTreeMap<ProducerId, LastWritten>,
    ) -> Filter<'m> {
        let retention = i64::try_from(delete_retention_ms).unwrap_or(i64::MAX);
        let horizon = Timestamp(now.0.saturating_add(retention));
        let in_transaction = BTreeSet::new();
        Filter { map, now, horizon, producers, in_transaction, hasty: false }
    }

    /// Removes marks before their horizon ([`Mutant::RemoveMarksEarly`]).
    ///
    /// [`Mutant::RemoveMarksEarly`]: crate::log::Mutant::RemoveMarksEarly
    pub(crate) fn hasty(mut self, hasty: bool) -> Filter<'m> {
        self.hasty = hasty;
        self
    }

    /// What becomes of a batch.
    pub fn judge<'s>(
        &mut self,
        batch: &Batch<'_>,
        place: Place,
        scratch: &'s mut Scratch,
    ) -> Result<Fate<'s>, RecordFault> {
        let stays = place.is_last || self.is_needed(batch);
        let without = |stays| match stays {
            true => Fate::Empty(empty_of(batch)),
            false => Fate::Gone,
        };
        let ended = self.ends_nothing(batch, scratch)?;
        if batch.record_count() == 0 {
            return Ok(if stays { Fate::Whole } else { Fate::Gone });
        }
        let due = batch.delete_horizon().is_some_and(|horizon| horizon <= self.now) || self.hasty;
        if ended && due {
            return Ok(without(stays));
        }
        let (map, control) = (self.map, batch.attributes().is_control());
        let keep = |record: &Record<'_>| control || stays_in(map, record, due);
        match batch.prune(scratch, DECOMPRESSED_BYTES_MAX, self.horizon, ended, keep)? {
            Pruned::Whole => Ok(Fate::Whole),
            Pruned::Anew(bytes) => Ok(Fate::Anew(bytes)),
            Pruned::Nothing => Ok(without(stays)),
        }
    }

    /// Whether its producer's last sequence stands in it, or its epoch.
    fn is_needed(&self, batch: &Batch<'_>) -> bool {
        let Some(producer) = batch.producer() else { return false };
        match self.producers.get(&producer.id) {
            Some(LastWritten::Ends(offset)) => batch.last_offset() == *offset,
            Some(LastWritten::Markers(epoch)) => {
                batch.attributes().is_control() && producer.epoch == *epoch
            }
            Some(LastWritten::Unknown) => true,
            None => false,
        }
    }

    /// Follows the transactions. Whether it is a marker of one of which nothing is left.
    fn ends_nothing(
        &mut self,
        batch: &Batch<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, RecordFault> {
        let Some(producer) = batch.producer() else { return Ok(false) };
        if !batch.attributes().is_control() {
            if batch.attributes().is_transactional() {
                self.in_transaction.insert(producer.id);
            }
            return Ok(false);
        }
        let mut records = batch.records(scratch.inflated(), DECOMPRESSED_BYTES_MAX)?;
        let Some(record) = records.next().transpose()? else { return Ok(true) };
        Ok(is_end_marker(&record) && !self.in_transaction.remove(&producer.id))
    }
}

/// Whether a control record ends a transaction: version and type in its key, 0 for abort and 1 for
/// commit (Kafka's `ControlRecordType`).
fn is_end_marker(record: &Record<'_>) -> bool {
    matches!(record.key, Some(&[_, _, 0, 0 | 1, ..]))
}

/// Whether a record of a client stays: the newest of its key, and no deletion mark that is due.
fn stays_in(map: &KeyMap, record: &Record<'_>, due: bool) -> bool {
    if record.offset >= map.known_to() {
        return true;
    }
    // One without a key belongs to nothing; it was written before the topic was compacted.
    let Some(key) = record.key else { return false };
    let newest = map.newest(key).is_none_or(|newest| newest <= record.offset);
    newest && (record.value.is_some() || !due)
}

/// Tells the map of a batch, of its records from `from` on. After [`MapFull`] it knows everything
/// up to the record that had no room.
pub fn learn(
    map: &mut KeyMap,
    batch: &Batch<'_>,
    from: Offset,
    scratch: &mut Scratch,
) -> Result<Result<(), MapFull>, RecordFault> {
    if batch.last_offset() < from {
        return Ok(Ok(()));
    }
    let attributes = batch.attributes();
    if !attributes.is_control() && !attributes.is_transactional() {
        for record in batch.records(scratch.inflated(), DECOMPRESSED_BYTES_MAX)? {
            let record = record?;
            let Some(key) = record.key.filter(|_| record.offset >= from) else { continue };
            // What lies between has no key, or is not there.
            map.knows(record.offset);
            if map.insert(key, record.offset).is_err() {
                return Ok(Err(MapFull));
            }
        }
    }
    map.knows(batch.next_offset());
    Ok(Ok(()))
}

#[cfg(test)]
mod tests;
