//! A stored batch with fewer records: what compaction leaves of it.
//!
//! Offsets are kept: the batch keeps its base offset, its last offset delta and its sequence, and
//! each record that stays keeps its offset delta. Records are copied as they lie. Only where the
//! batch gets a delete horizon (KIP-534) their time deltas are written anew, because the horizon
//! takes the place of the base timestamp. Compressed batches stay compressed, with their own codec.
//!
//! Source: Kafka's `MemoryRecords.filterTo` and `DefaultRecordBatch.writeEmptyHeader`.

use zerocopy::{FromBytes, IntoBytes};

use super::TimestampType;
use super::build::put_varlong;
use super::compress::deflate;
use super::records::{Cursor, RecordFault, Source};
use super::{Attributes, Batch, CRC_FROM, HEADER_BYTES, Header, LENGTH_OVERHEAD, Record};
use crate::time::Timestamp;

/// Memory for pruning, used again for the next batch.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Decompressed records.
    inflated: Vec<u8>,
    /// The records that stay.
    kept: Vec<u8>,
    /// One record that is written anew.
    body: Vec<u8>,
    /// The batch.
    batch: Vec<u8>,
}

impl Scratch {
    /// The memory that decompressed records go to, for whoever only reads them.
    pub fn inflated(&mut self) -> &mut Vec<u8> {
        &mut self.inflated
    }
}

/// What a batch is like without the records that go.
#[derive(Debug, PartialEq, Eq)]
pub enum Pruned<'s> {
    /// Nothing goes, and nothing else changes.
    Whole,
    /// No record is left.
    Nothing,
    /// The batch as it is to be written.
    Anew(&'s [u8]),
}

/// What a pass over the records found.
struct Found {
    count: u32,
    gone: u32,
    /// A record without a value stays.
    tombstone: bool,
    max_timestamp: Timestamp,
}

impl Batch<'_> {
    /// The batch with the records for which `keep` holds. Where records without a value stay and
    /// the batch has no delete horizon yet, it gets `horizon`; so it does where `marker` says that
    /// it holds the marker of a transaction of which nothing else is left.
    ///
    /// Records decompress to at most `decompressed_bytes_max`, or it fails.
    pub fn prune<'s>(
        &self,
        scratch: &'s mut Scratch,
        decompressed_bytes_max: u64,
        horizon: Timestamp,
        marker: bool,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Pruned<'s>, RecordFault> {
        let Scratch { inflated, kept, body, batch } = scratch;
        kept.clear();
        let mut found =
            Found { count: 0, gone: 0, tombstone: false, max_timestamp: Timestamp::NONE };
        let mut records = self.records(inflated, decompressed_bytes_max)?;
        while let Some(record) = records.next_with_bytes() {
            let (record, bytes) = record?;
            if !keep(&record) {
                found.gone += 1;
                continue;
            }
            found.count += 1;
            found.tombstone |= record.value.is_none();
            found.max_timestamp = found.max_timestamp.max(record.timestamp);
            kept.extend_from_slice(bytes);
        }
        let wants_horizon = (found.tombstone || marker) && self.delete_horizon().is_none();
        let base = match wants_horizon && found.count > 0 {
            true => rebase(kept, body, self.base_timestamp(), horizon)?,
            false => None,
        };
        match (found.count, found.gone, base) {
            (0, ..) => return Ok(Pruned::Nothing),
            (_, 0, None) => return Ok(Pruned::Whole),
            _ => {}
        }
        write(self, kept, &found, base, batch)?;
        Ok(Pruned::Anew(batch))
    }
}

/// Writes the time deltas of `records` relative to `to` instead of `from`. `None`, and nothing is
/// changed, where a delta would be beyond 64 bits.
fn rebase(
    records: &mut Vec<u8>,
    body: &mut Vec<u8>,
    from: Timestamp,
    to: Timestamp,
) -> Result<Option<Timestamp>, RecordFault> {
    let mut anew = Vec::with_capacity(records.len() + records.len() / 8);
    let mut cursor = Cursor::new(records);
    while !cursor.at_end()? {
        let length = cursor.varint()?;
        let length = usize::try_from(length).map_err(|_| RecordFault::Negative)?;
        let mut record = Cursor::new(cursor.take(length)?);
        let attributes = record.byte()?;
        let delta = record.varlong()?;
        let delta = from.0.checked_add(delta).and_then(|time| time.checked_sub(to.0));
        let Some(delta) = delta else { return Ok(None) };
        body.clear();
        body.push(attributes);
        put_varlong(body, delta);
        body.extend_from_slice(record.rest());
        put_varlong(&mut anew, body.len() as i64);
        anew.extend_from_slice(body);
    }
    *records = anew;
    Ok(Some(to))
}

/// Writes `old` with other records, and with another base timestamp that is a delete horizon.
fn write(
    old: &Header,
    records: &[u8],
    found: &Found,
    base: Option<Timestamp>,
    out: &mut Vec<u8>,
) -> Result<(), RecordFault> {
    let codec = old.attributes().codec().ok_or(RecordFault::Undecodable)?;
    out.clear();
    out.resize(HEADER_BYTES, 0);
    deflate(codec, records, out).map_err(|_| RecordFault::Undecodable)?;
    let mut header = *old;
    header.record_count.set(found.count as i32);
    if old.attributes().timestamp_type() == TimestampType::CreateTime {
        header.max_timestamp.set(found.max_timestamp.0);
    }
    if let Some(base) = base {
        header.base_timestamp.set(base.0);
        header.attributes.set(old.attributes().0 | Attributes::DELETE_HORIZON);
    }
    seal(header, out)
}

/// Sets length and checksum of a batch whose records stand in `out` behind the header's place.
fn seal(mut header: Header, out: &mut [u8]) -> Result<(), RecordFault> {
    let length = i32::try_from(out.len() - LENGTH_OVERHEAD).map_err(|_| RecordFault::Bomb)?;
    header.length.set(length);
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    let crc = crc32c::crc32c(&out[CRC_FROM..]);
    let (header, _) = Header::mut_from_prefix(out).expect("it was written just now");
    header.crc.set(crc);
    Ok(())
}

/// A batch without records in the place of `old`: it keeps the offsets, the leader epoch and the
/// producer's sequence. Kafka's readers pass over it.
pub fn empty_of(old: &Header) -> [u8; HEADER_BYTES] {
    let mut header = *old;
    let kept = !(Attributes::CODEC | Attributes::DELETE_HORIZON);
    header.attributes.set(old.attributes().0 & kept);
    header.base_timestamp.set(Timestamp::NONE.0);
    header.record_count.set(0);
    let mut out = [0; HEADER_BYTES];
    seal(header, &mut out).expect("a header is short");
    out
}
