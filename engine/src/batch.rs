//! Kafka's record batch, format v2: the only record format, on the wire and on disk.
//!
//! A view over bytes in three steps of trust. [`Header`] is 61 bytes whose fields are in range;
//! [`Batch`] is a header with all its bytes behind it; [`Checked`] is a batch whose content was
//! verified too, once, by [`check`] (from a client) or [`check_trusted`] (from a leader). A log
//! appends only what is `Checked`, and recovery reads with [`Header::peek`] and
//! [`Batch::verify_crc`]. Nothing here copies, and nothing allocates for uncompressed batches.
//!
//! ```text
//!   0 base offset i64 ┐ outside the CRC: stamped          21 attributes i16 ┐
//!   8 length      i32 │ in place by the leader            23 last offset delta i32
//!  12 leader epoch i32┘                                   27 base timestamp i64, 35 max i64
//!  16 magic i8 = 2                                        43 producer id i64, epoch i16
//!  17 CRC-32C u32 over everything from 21 to the end      53 base sequence i32, 57 count i32
//! ```
//!
//! Source: Kafka's `DefaultRecordBatch`, `LogValidator` and `UnifiedLog.analyzeAndValidateRecords`.

use std::fmt;
use std::ops::Deref;

use zerocopy::byteorder::big_endian::{I16, I32, I64, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::time::Timestamp;

mod build;
mod check;
mod compress;
mod prune;
mod read;
mod records;

pub use build::{BatchBuilder, BatchFull, Marker, NewRecord, RecordHeader};
pub use check::{BatchError, Checked, Depth, Rules, TimestampRule, check, check_trusted};
pub use compress::ZSTD_WINDOW_LOG_MAX;
pub use prune::{Pruned, Scratch, empty_of};
pub use read::{Record, RecordAt, RecordHeaders, Records};
pub use records::RecordFault;

/// Length of the header in bytes; records follow it.
pub const HEADER_BYTES: usize = 61;
/// The bytes before those that the length field counts: base offset and the field itself.
const LENGTH_OVERHEAD: usize = 12;
/// Where the bytes begin that the CRC covers.
const CRC_FROM: usize = 21;
/// The format version written here.
pub const MAGIC: u8 = 2;

/// The header as it lies in memory, all fields big-endian. Reached through [`Header::peek`] only,
/// so that the accessors can rely on ranges: base offset and last offset delta are not negative
/// and their sum is below [`Offset::MAX`], the count is not negative, the length holds the header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct Header {
    base_offset: I64,
    length: I32,
    leader_epoch: I32,
    magic: u8,
    crc: U32,
    attributes: U16,
    last_offset_delta: I32,
    base_timestamp: I64,
    max_timestamp: I64,
    producer_id: I64,
    producer_epoch: I16,
    base_sequence: I32,
    record_count: I32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Why bytes are not even the shape of a batch. Says nothing about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The bytes end before the batch does.
    #[error("a batch needs {need} bytes here")]
    Short {
        /// How many bytes are needed, counted from the start of the batch.
        need: usize,
    },
    /// The length field is smaller than a header.
    #[error("a batch cannot have length {0}")]
    Length(i32),
    /// Another format version, or no batch at all.
    #[error("magic {0} is not {MAGIC}")]
    Magic(u8),
    /// Base offset or last offset delta is negative, or their sum is no offset.
    #[error("base offset {base} with last offset delta {delta} is no range")]
    Offsets {
        /// The base offset found.
        base: i64,
        /// The last offset delta found.
        delta: i32,
    },
    /// The record count is negative.
    #[error("a batch cannot have {0} records")]
    Count(i32),
}

impl Header {
    /// Looks at the beginning of a batch: needs only the first 61 bytes, which may be all that was
    /// read. [`ShapeError::Short`] tells that fewer are there.
    pub fn peek(bytes: &[u8]) -> Result<&Header, ShapeError> {
        let header = Header::raw(bytes)?;
        header.ensure_length_and_magic()?;
        let (base, delta) = (header.base_offset.get(), header.last_offset_delta.get());
        let in_range = base >= 0 && delta >= 0 && base < i64::MAX - i64::from(delta);
        if !in_range {
            return Err(ShapeError::Offsets { base, delta });
        }
        if header.record_count.get() < 0 {
            return Err(ShapeError::Count(header.record_count.get()));
        }
        Ok(header)
    }

    fn raw(bytes: &[u8]) -> Result<&Header, ShapeError> {
        match Header::ref_from_prefix(bytes) {
            Ok((header, _)) => Ok(header),
            Err(_) => Err(ShapeError::Short { need: HEADER_BYTES }),
        }
    }

    fn ensure_length_and_magic(&self) -> Result<(), ShapeError> {
        if self.length.get() < (HEADER_BYTES - LENGTH_OVERHEAD) as i32 {
            return Err(ShapeError::Length(self.length.get()));
        }
        if self.magic != MAGIC {
            return Err(ShapeError::Magic(self.magic));
        }
        Ok(())
    }

    /// Bytes of the whole batch, header included.
    pub fn size(&self) -> usize {
        LENGTH_OVERHEAD + self.length.get() as usize
    }

    /// Offset of the first record; what the batch was stamped with.
    pub fn base_offset(&self) -> Offset {
        Offset::new(self.base_offset.get() as u64)
    }

    /// How far the last record's offset lies after the first's; survives compaction.
    pub fn last_offset_delta(&self) -> u32 {
        self.last_offset_delta.get() as u32
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset().plus(u64::from(self.last_offset_delta()))
    }

    /// The offset after the last record: where the next batch begins.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Term of the leader that stamped the batch; a client's own value means nothing.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.get())
    }

    /// The checksum as it is written in the batch.
    pub fn crc(&self) -> u32 {
        self.crc.get()
    }

    /// Codec and flags.
    pub fn attributes(&self) -> Attributes {
        Attributes(self.attributes.get())
    }

    /// What the records' timestamp deltas are relative to: the first record's timestamp.
    pub fn base_timestamp(&self) -> Timestamp {
        Timestamp(self.base_timestamp.get())
    }

    /// Largest timestamp of the batch; the time of the append where that is the timestamp type.
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp.get())
    }

    /// From when on compaction may remove the deletion marks in it (KIP-534); none where it has
    /// not come across any yet. It stands where the base timestamp does.
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        self.attributes().has_delete_horizon().then(|| self.base_timestamp())
    }

    /// How many records are inside. Zero only in a log that was compacted.
    pub fn record_count(&self) -> u32 {
        self.record_count.get() as u32
    }

    /// Who wrote it, when it is idempotent, transactional or a control batch.
    pub fn producer(&self) -> Option<Producer> {
        if self.producer_id.get() < 0 {
            return None;
        }
        Some(Producer {
            id: ProducerId(self.producer_id.get()),
            epoch: ProducerEpoch(self.producer_epoch.get()),
            base_sequence: Sequence::from_wire(self.base_sequence.get()),
        })
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("base_offset", &self.base_offset.get())
            .field("length", &self.length.get())
            .field("leader_epoch", &self.leader_epoch.get())
            .field("attributes", &self.attributes())
            .field("last_offset_delta", &self.last_offset_delta.get())
            .field("max_timestamp", &self.max_timestamp.get())
            .field("producer", &self.producer())
            .field("record_count", &self.record_count.get())
            .finish_non_exhaustive()
    }
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u16);

impl Attributes {
    const CODEC: u16 = 0x07;
    const LOG_APPEND_TIME: u16 = 0x08;
    const TRANSACTIONAL: u16 = 0x10;
    const CONTROL: u16 = 0x20;
    const DELETE_HORIZON: u16 = 0x40;
    /// All bits that a client's batch may have a use for.
    const KNOWN: u16 = Self::CODEC | Self::LOG_APPEND_TIME | Self::TRANSACTIONAL | Self::CONTROL;

    /// How the records are compressed; `None` for a number that no codec has.
    pub fn codec(self) -> Option<Codec> {
        Codec::from_id(self.codec_id())
    }

    fn codec_id(self) -> u8 {
        (self.0 & Self::CODEC) as u8
    }

    /// Whether records carry the producer's time or the broker's.
    pub fn timestamp_type(self) -> TimestampType {
        match self.0 & Self::LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether it holds markers of a coordinator instead of a client's records.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether its base timestamp is the time from which on deletion marks may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// Bits without a meaning in a client's batch, the compaction horizon (0x40) among them.
    pub fn unknown(self) -> u16 {
        self.0 & !Self::KNOWN
    }

    fn with_timestamp_type(self, kind: TimestampType) -> Attributes {
        match kind {
            TimestampType::CreateTime => Attributes(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Attributes(self.0 | Self::LOG_APPEND_TIME),
        }
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// Raw, or in the chunks of the xerial library.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of its number.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// By its number in the attributes.
    pub fn from_id(id: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(id)).copied()
    }

    /// Its number in the attributes.
    pub fn id(self) -> u8 {
        self as u8
    }
}

/// Whose clock the records of a batch carry (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimestampType {
    /// The producer's, one per record.
    CreateTime,
    /// The leader's at the append, one for the whole batch.
    LogAppendTime,
}

/// Who wrote a batch, as idempotence needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Identity.
    pub id: ProducerId,
    /// Its incarnation.
    pub epoch: ProducerEpoch,
    /// Number of the first record; none in control batches.
    pub base_sequence: Option<Sequence>,
}

/// Number of a record within its producer and partition: `0..=i32::MAX`, then again from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(i32);

impl Sequence {
    /// The first number of a producer epoch.
    pub const ZERO: Sequence = Sequence(0);
    /// The number after which they begin again from 0.
    pub const MAX: Sequence = Sequence(i32::MAX);

    /// What the wire carries; `None` for a negative number.
    pub const fn from_wire(value: i32) -> Option<Sequence> {
        if value < 0 { None } else { Some(Sequence(value)) }
    }

    /// As `int32`, for the wire.
    pub const fn to_wire(self) -> i32 {
        self.0
    }

    /// The number `count` records later; wraps from `i32::MAX` to 0.
    #[must_use]
    pub const fn plus(self, count: u32) -> Sequence {
        Sequence(((self.0 as u64 + count as u64) & i32::MAX as u64) as i32)
    }

    /// The number `count` records earlier; wraps from 0 to `i32::MAX`.
    #[must_use]
    pub const fn minus(self, count: u32) -> Sequence {
        let back = count as u64 & i32::MAX as u64;
        Sequence(((self.0 as u64 + (1 << 31) - back) & i32::MAX as u64) as i32)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A header in range with exactly its bytes. The content is as trustworthy as its source: what a
/// log appended was [`Checked`] then, but a disk may have changed it since.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The first batch of `bytes`, which may go on behind it.
    pub fn first(bytes: &'a [u8]) -> Result<Batch<'a>, ShapeError> {
        let need = Header::peek(bytes)?.size();
        match bytes.get(..need) {
            Some(bytes) => Ok(Batch { bytes }),
            None => Err(ShapeError::Short { need }),
        }
    }

    /// All its bytes, header first.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header, as it is stored: perhaps compressed.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Whether the content is what the CRC was made of. Costs one pass (13 GB/s).
    pub fn verify_crc(&self) -> bool {
        self.crc() == self.computed_crc()
    }

    fn computed_crc(&self) -> u32 {
        crc32c::crc32c(&self.bytes[CRC_FROM..])
    }
}

impl Deref for Batch<'_> {
    type Target = Header;

    fn deref(&self) -> &Header {
        Header::raw(self.bytes).expect("a batch holds its header")
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The batches of `bytes`, one after the other. Ends after the first error; a batch that is cut by
/// the end of `bytes` is such an error ([`ShapeError::Short`]).
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// Iterator of [`batches`].
#[derive(Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, ShapeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first = Batch::first(self.rest);
        self.rest = match &first {
            Ok(batch) => &self.rest[batch.size()..],
            Err(_) => &[],
        };
        Some(first)
    }
}

/// Where a leader puts a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Offset of its first record: the log end.
    pub base_offset: Offset,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
}

/// Stamps offset and term in place. Both lie outside the CRC, which stays true.
///
/// `bytes` begin with a batch; only its first 16 bytes are touched.
pub fn stamp(bytes: &mut [u8], stamp: Stamp) {
    let (header, _) = Header::mut_from_prefix(bytes).expect("bytes begin with a batch");
    header.base_offset.set(stamp.base_offset.to_wire());
    header.leader_epoch.set(stamp.leader_epoch.0);
}

/// Rewrites the times of a batch and the CRC over all of it. `bytes` are exactly one batch.
fn stamp_times(bytes: &mut [u8], kind: TimestampType, max_timestamp: Timestamp) {
    let (header, _) = Header::mut_from_prefix(bytes).expect("bytes begin with a batch");
    header.attributes.set(header.attributes().with_timestamp_type(kind).0);
    header.max_timestamp.set(max_timestamp.0);
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    let (header, _) = Header::mut_from_prefix(bytes).expect("bytes begin with a batch");
    header.crc.set(crc);
}

#[cfg(test)]
mod tests;
