//! A sparse index of one segment: offset → file position, and timestamp → file position.
//!
//! It is *rebuilt, never trusted*: it is kept up while batches are appended, saved beside the
//! segment when it is rolled or checkpointed, and a lookup only yields a place to start scanning.
//! Whoever uses it checks that a batch header with the expected offset stands there, and rebuilds
//! the index from the segment if not. Kafka keeps two files (`OffsetIndex`, `TimeIndex`); one entry
//! that carries both is enough, because the time lookup may scan an interval anyway.
//!
//! What is saved ends with an entry and covers what stands before that, which was synced by then:
//! synced data never changes, so a saved index stays true, whatever is cut or appended later.

use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::Offset;
use crate::time::Timestamp;

/// "RBix", the first word of a saved index.
const MAGIC: u32 = 0x7869_4252;
/// Version of the saved form.
const VERSION: u32 = 2;

/// Entries a segment can have at the most: 2 GiB of segment at the smallest interval, 4 KiB.
pub const ENTRIES_MAX: usize = 1 << 19;

/// One indexed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Base offset of the batch that starts at `pos`.
    offset: Offset,
    /// Its position in the segment file, in bytes.
    pos: u32,
    /// The largest batch timestamp *before* `pos`: a batch with a later one starts here or after.
    max_before: Timestamp,
}

/// The index of one segment, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    entries: Vec<Entry>,
    interval: u32,
    since_entry: u32,
    /// Largest batch timestamp.
    max: Option<Timestamp>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: U32,
    version: U32,
    base: U64,
    count: U32,
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Row {
    offset: U64,
    max_before: I64,
    pos: U32,
}

impl Index {
    /// An empty index with an entry about every `interval_bytes` (at least 1) of segment.
    pub fn new(interval_bytes: u32) -> Index {
        Index { entries: Vec::new(), interval: interval_bytes.max(1), since_entry: 0, max: None }
    }

    /// Notes the batch that was appended at `pos`. Positions and offsets only rise.
    pub fn on_batch(&mut self, base: Offset, pos: u32, len: u32, max_timestamp: Timestamp) {
        if self.since_entry >= self.interval && self.entries.len() < ENTRIES_MAX {
            let max_before = self.max.unwrap_or(Timestamp(i64::MIN));
            self.entries.push(Entry { offset: base, pos, max_before });
            self.since_entry = 0;
        }
        self.since_entry = self.since_entry.saturating_add(len);
        self.max = self.max.max(Some(max_timestamp));
    }

    /// Where to start scanning for the batch that holds `offset`: the position and base offset of
    /// an indexed batch at or before it, or `None` for the start of the segment.
    pub fn at_or_before(&self, offset: Offset) -> Option<(u32, Offset)> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        Some((entry.pos, entry.offset))
    }

    /// Where to start scanning for the first batch whose largest timestamp is at least `at`.
    pub fn for_time(&self, at: Timestamp) -> Option<(u32, Offset)> {
        let after = self.entries.partition_point(|entry| entry.max_before < at);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        Some((entry.pos, entry.offset))
    }

    /// The largest batch timestamp.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        self.max
    }

    /// The last indexed batch that begins at or before `offset`, and the largest timestamp of what
    /// stands before it.
    pub fn max_before(&self, offset: Offset) -> Option<(u32, Offset, Timestamp)> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        Some((entry.pos, entry.offset, entry.max_before))
    }

    /// Goes back to the last entry, so that it covers what stands before that and nothing else;
    /// says where that is. Without an entry it is empty then.
    pub fn rewind(&mut self) -> Option<(u32, Offset)> {
        let last = self.entries.last();
        self.max = last.map(|entry| entry.max_before);
        self.since_entry = 0;
        last.map(|entry| (entry.pos, entry.offset))
    }

    /// The bytes to save beside the segment that starts at `base`, of which `synced` bytes are
    /// synced. `None` when nothing is worth it.
    pub fn save(&self, base: Offset, synced: u64) -> Option<Vec<u8>> {
        let count = self.entries.partition_point(|entry| u64::from(entry.pos) < synced);
        if count == 0 {
            return None;
        }
        let mut head = Head {
            magic: MAGIC.into(),
            version: VERSION.into(),
            base: base.value().into(),
            count: (count as u32).into(),
            crc: 0.into(),
        };
        let mut bytes = Vec::with_capacity(size_of::<Head>() + count * size_of::<Row>());
        bytes.extend_from_slice(head.as_bytes());
        for entry in &self.entries[..count] {
            let row = Row {
                offset: entry.offset.value().into(),
                max_before: entry.max_before.0.into(),
                pos: entry.pos.into(),
            };
            bytes.extend_from_slice(row.as_bytes());
        }
        head.crc = crc32c::crc32c(&bytes).into();
        bytes[..size_of::<Head>()].copy_from_slice(head.as_bytes());
        Some(bytes)
    }

    /// Reads what `save` wrote, if it is whole, belongs to the segment at `base` and covers less
    /// than its `size` bytes. `None` means: rebuild. `trust` leaves all that out ([`Mutant`]).
    ///
    /// [`Mutant`]: crate::log::Mutant::TrustIndex
    pub fn load(
        bytes: &[u8],
        base: Offset,
        size: u64,
        interval_bytes: u32,
        trust: bool,
    ) -> Option<Index> {
        let (head, rest) = Head::ref_from_prefix(bytes).ok()?;
        let count = (head.count.get() as usize).min(ENTRIES_MAX);
        let rows = rest.get(..count * size_of::<Row>())?;
        let crc_at = size_of::<Head>() - 4;
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &[0; 4]), rows);
        let whole = head.magic.get() == MAGIC
            && head.version.get() == VERSION
            && head.base.get() == base.value()
            && crc == head.crc.get();
        if !whole && !trust {
            return None;
        }
        let mut index = Index::new(interval_bytes);
        index.entries.reserve_exact(count);
        for row in rows.chunks_exact(size_of::<Row>()) {
            let row = Row::ref_from_bytes(row).ok()?;
            let offset = Offset::from_wire(row.offset.get() as i64)?;
            let max_before = Timestamp(row.max_before.get());
            index.entries.push(Entry { offset, pos: row.pos.get(), max_before });
        }
        let (last, _) = index.rewind()?;
        (u64::from(last) < size || trust).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Index {
        let mut index = Index::new(100);
        for i in 0..50u64 {
            let at = if i == 20 { 5000 } else { 1000 + i as i64 };
            index.on_batch(Offset::new(i * 10), i as u32 * 60, 60, Timestamp(at));
        }
        index
    }

    #[test]
    fn a_lookup_never_overshoots_and_is_at_most_an_interval_early() {
        let index = filled();
        for offset in 0..500 {
            let batch_pos = offset as u32 / 10 * 60;
            let pos = index.at_or_before(Offset::new(offset)).map_or(0, |(pos, _)| pos);
            assert!(pos <= batch_pos && batch_pos - pos < 160, "{offset}: {pos} {batch_pos}");
        }
    }

    #[test]
    fn a_time_lookup_starts_before_the_first_batch_that_is_late_enough() {
        let index = filled();
        assert_eq!(index.max_timestamp(), Some(Timestamp(5000)));
        let (pos, offset, before) = index.max_before(Offset::new(205)).unwrap();
        assert_eq!((pos, offset), (20 * 60, Offset::new(200)));
        assert_eq!(before, Timestamp(1019), "the twentieth batch itself is not before itself");
        let (pos, _) = index.for_time(Timestamp(4000)).unwrap();
        assert!(pos <= 20 * 60, "the only batch after 4000 is the twentieth");
        assert_eq!(index.for_time(Timestamp(0)), None);
    }

    #[test]
    fn a_saved_index_comes_back_up_to_what_was_synced() {
        let index = filled();
        let base = Offset::ZERO;
        for synced in [3000, 2000, 1201, 121] {
            let bytes = index.save(base, synced).unwrap();
            let mut again = Index::load(&bytes, base, synced, 100, false).unwrap();
            let (pos, offset) = again.rewind().unwrap();
            assert!(u64::from(pos) < synced && synced - u64::from(pos) < 160);
            for i in offset.value() / 10..50 {
                let at = if i == 20 { 5000 } else { 1000 + i as i64 };
                again.on_batch(Offset::new(i * 10), i as u32 * 60, 60, Timestamp(at));
            }
            assert_eq!(again, index, "and goes on as if it had never been away");
        }
        assert_eq!(index.save(base, 120), None, "no entry so early");
    }

    #[test]
    fn a_damaged_or_foreign_index_does_not_come_back() {
        let index = filled();
        let base = Offset::ZERO;
        let bytes = index.save(base, 3000).unwrap();
        let (last, _) = index.clone().rewind().unwrap();
        assert_eq!(Index::load(&bytes, base, last.into(), 100, false), None, "more than there is");
        assert_eq!(Index::load(&bytes, Offset::new(1), 3000, 100, false), None, "another segment");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Index::load(&damaged, base, 3000, 100, false), None, "flipped byte {at}");
            assert_eq!(Index::load(&bytes[..at], base, 3000, 100, false), None, "cut at {at}");
        }
    }
}
