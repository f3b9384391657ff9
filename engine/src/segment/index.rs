//! A sparse index of one segment: offset → file position, and timestamp → file position.
//!
//! It is *rebuilt, never trusted*: it is kept up while batches are appended, saved beside the
//! segment when it is rolled or checkpointed, and a lookup only yields a place to start scanning.
//! Whoever uses it checks that a batch header with the expected offset stands there, and rebuilds
//! the index from the segment if not. Kafka keeps two files (`OffsetIndex`, `TimeIndex`); one entry
//! that carries both is enough, because the time lookup may scan an interval anyway.

use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::Offset;
use crate::time::Timestamp;

/// "RBix", the first word of a saved index.
const MAGIC: u32 = 0x7869_4252;
/// Version of the saved form.
const VERSION: u32 = 1;

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
    /// Largest batch timestamp and the base offset of the first batch that has it.
    max: Option<(Timestamp, Offset)>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: U32,
    version: U32,
    base: U64,
    size: U64,
    max_timestamp: I64,
    max_offset: U64,
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
            let max_before = self.max.map_or(Timestamp(i64::MIN), |(at, _)| at);
            self.entries.push(Entry { offset: base, pos, max_before });
            self.since_entry = 0;
        }
        self.since_entry = self.since_entry.saturating_add(len);
        if self.max.is_none_or(|(at, _)| max_timestamp > at) {
            self.max = Some((max_timestamp, base));
        }
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

    /// The largest batch timestamp, and the base offset of the first batch that has it.
    pub fn max_timestamp(&self) -> Option<(Timestamp, Offset)> {
        self.max
    }

    /// The bytes to save beside a segment that starts at `base` and has `size` valid bytes.
    pub fn save(&self, base: Offset, size: u64) -> Vec<u8> {
        let (max_timestamp, max_offset) =
            self.max.map_or((i64::MIN, 0), |(at, offset)| (at.0, offset.value()));
        let mut head = Head {
            magic: MAGIC.into(),
            version: VERSION.into(),
            base: base.value().into(),
            size: size.into(),
            max_timestamp: max_timestamp.into(),
            max_offset: max_offset.into(),
            count: (self.entries.len() as u32).into(),
            crc: 0.into(),
        };
        let mut bytes = Vec::with_capacity(size_of::<Head>() + self.entries.len() * 20);
        bytes.extend_from_slice(head.as_bytes());
        for entry in &self.entries {
            let row = Row {
                offset: entry.offset.value().into(),
                max_before: entry.max_before.0.into(),
                pos: entry.pos.into(),
            };
            bytes.extend_from_slice(row.as_bytes());
        }
        head.crc = crc32c::crc32c(&bytes).into();
        bytes[..size_of::<Head>()].copy_from_slice(head.as_bytes());
        bytes
    }

    /// Reads what `save` wrote, if it is whole, belongs to the segment at `base` and covers at most
    /// `size_max` bytes; answers how many it covers, too. `None` means: rebuild.
    pub fn load(
        bytes: &[u8],
        base: Offset,
        size_max: u64,
        interval_bytes: u32,
    ) -> Option<(Index, u64)> {
        let (head, rest) = Head::ref_from_prefix(bytes).ok()?;
        let count = head.count.get() as usize;
        if head.magic.get() != MAGIC
            || head.version.get() != VERSION
            || head.base.get() != base.value()
            || head.size.get() > size_max
            || count > ENTRIES_MAX
        {
            return None;
        }
        let rows = rest.get(..count * size_of::<Row>())?;
        let crc_at = size_of::<Head>() - 4;
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        if crc32c::crc32c_append(crc, rows) != head.crc.get() {
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
        let size = head.size.get();
        if size > 0 {
            let offset = Offset::from_wire(head.max_offset.get() as i64)?;
            index.max = Some((Timestamp(head.max_timestamp.get()), offset));
        }
        Some((index, size))
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
        assert_eq!(index.max_timestamp(), Some((Timestamp(5000), Offset::new(200))));
        let (pos, _) = index.for_time(Timestamp(4000)).unwrap();
        assert!(pos <= 20 * 60, "the only batch after 4000 is the twentieth");
        assert_eq!(index.for_time(Timestamp(0)), None);
    }

    #[test]
    fn a_saved_index_comes_back_and_a_damaged_one_does_not() {
        let index = filled();
        let base = Offset::ZERO;
        let bytes = index.save(base, 3000);
        let (mut again, covered) = Index::load(&bytes, base, 3500, 100).unwrap();
        assert_eq!(covered, 3000);
        again.since_entry = index.since_entry;
        assert_eq!(again, index);
        assert_eq!(Index::load(&bytes, base, 2999, 100), None, "more than there is");
        assert_eq!(Index::load(&bytes, Offset::new(1), 3000, 100), None, "another segment");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Index::load(&damaged, base, 3000, 100), None, "flipped byte {at}");
            assert_eq!(Index::load(&bytes[..at], base, 3000, 100), None, "cut at {at}");
        }
    }
}
