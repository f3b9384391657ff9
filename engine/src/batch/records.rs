//! Inside a batch: walking over records without copying them.
//!
//! One walk serves uncompressed bytes and streamed decompression alike; it is generic over where
//! the bytes come from ([`Source`]). Source: Kafka's `DefaultRecord`.

use std::ops::ControlFlow;

use super::{Header, TimestampType};
use crate::time::Timestamp;

/// What is wrong with a record's structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The batch ends inside the record, or before it.
    #[error("the batch ends inside it")]
    End,
    /// A variable-length number goes on for too long.
    #[error("a number is longer than its type")]
    Number,
    /// The record is not as long as it says.
    #[error("it is not as long as it says")]
    Length,
    /// A key, value or header has a negative length (other than -1, which is null).
    #[error("it holds a negative length")]
    Negative,
    /// The offset delta is not the record's index in the batch.
    #[error("its offset delta is {0}")]
    OffsetDelta(i32),
    /// The timestamp is beyond 64 bits.
    #[error("its timestamp is beyond 64 bits")]
    Timestamp,
    /// Bytes follow the last record.
    #[error("more bytes follow the last record")]
    Rest,
    /// The codec cannot decode what is here.
    #[error("it does not decompress")]
    Undecodable,
    /// More bytes come out of the codec than allowed.
    #[error("it decompresses to more than allowed")]
    Bomb,
}

/// A record that cannot be walked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalkError {
    /// Its index in the batch.
    pub record: u32,
    /// What is wrong.
    pub fault: RecordFault,
}

/// What a walk tells about a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its index in the batch.
    pub index: u32,
    /// Its offset relative to the base offset.
    pub offset_delta: i32,
    /// Its timestamp; the batch's where that is the timestamp type.
    pub timestamp: Timestamp,
    /// Whether it has a key.
    pub has_key: bool,
}

/// Where a walk gets its bytes.
pub(super) trait Source {
    /// Takes the next byte.
    fn byte(&mut self) -> Result<u8, RecordFault>;
    /// Passes over `count` bytes.
    fn skip(&mut self, count: usize) -> Result<(), RecordFault>;
    /// How many bytes were taken and passed over so far.
    fn position(&self) -> u64;
    /// Whether nothing follows.
    fn at_end(&mut self) -> Result<bool, RecordFault>;

    /// A zigzag number of up to 64 bits.
    #[inline]
    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(RecordFault::Number);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(RecordFault::Number)
    }

    /// A zigzag number of up to 32 bits.
    #[inline]
    fn varint(&mut self) -> Result<i32, RecordFault> {
        i32::try_from(self.varlong()?).map_err(|_| RecordFault::Number)
    }

    /// Passes over a key, value or header value; says whether there is one (null is length -1).
    #[inline]
    fn skip_nullable(&mut self) -> Result<bool, RecordFault> {
        match self.varint()? {
            -1 => Ok(false),
            length @ 0.. => self.skip(length as usize).map(|()| true),
            _ => Err(RecordFault::Negative),
        }
    }
}

/// Uncompressed bytes as a [`Source`].
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// From the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, position: 0 }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// Takes `count` bytes as they lie.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], RecordFault> {
        let from = self.position;
        self.skip(count)?;
        Ok(&self.bytes[from..self.position])
    }

    /// Takes a key, value or header value; length -1 is null.
    pub fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.varint()? {
            -1 => Ok(None),
            length @ 0.. => self.take(length as usize).map(Some),
            _ => Err(RecordFault::Negative),
        }
    }
}

impl Source for Cursor<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, RecordFault> {
        let byte = *self.bytes.get(self.position).ok_or(RecordFault::End)?;
        self.position += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), RecordFault> {
        if count > self.bytes.len() - self.position {
            return Err(RecordFault::End);
        }
        self.position += count;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position as u64
    }

    fn at_end(&mut self) -> Result<bool, RecordFault> {
        Ok(self.position == self.bytes.len())
    }
}

/// Walks over all records that `header` counts, showing each to `each` until it breaks. A walk
/// that ran to its end has also seen that nothing follows the last record.
pub(super) fn walk<S: Source>(
    source: &mut S,
    header: &Header,
    mut each: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), WalkError> {
    let base = header.base_timestamp();
    let fixed = match header.attributes().timestamp_type() {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => Some(header.max_timestamp()),
    };
    for index in 0..header.record_count() {
        let mut entry =
            step(source, index, base).map_err(|fault| WalkError { record: index, fault })?;
        entry.timestamp = fixed.unwrap_or(entry.timestamp);
        if each(entry).is_break() {
            return Ok(());
        }
    }
    let last = header.record_count().saturating_sub(1);
    match source.at_end() {
        Ok(true) => Ok(()),
        Ok(false) => Err(WalkError { record: last, fault: RecordFault::Rest }),
        Err(fault) => Err(WalkError { record: last, fault }),
    }
}

#[inline]
fn step<S: Source>(source: &mut S, index: u32, base: Timestamp) -> Result<Entry, RecordFault> {
    let length = source.varint()?;
    let start = source.position();
    source.byte()?; // attributes of a record: none is defined, Kafka ignores them
    let timestamp = base.0.checked_add(source.varlong()?).ok_or(RecordFault::Timestamp)?;
    let offset_delta = source.varint()?;
    let has_key = source.skip_nullable()?;
    source.skip_nullable()?;
    let headers = source.varint()?;
    if headers < 0 {
        return Err(RecordFault::Negative);
    }
    for _ in 0..headers {
        let key = source.varint()?;
        source.skip(usize::try_from(key).map_err(|_| RecordFault::Negative)?)?;
        source.skip_nullable()?;
    }
    if i64::from(length) != (source.position() - start) as i64 {
        return Err(RecordFault::Length);
    }
    Ok(Entry { index, offset_delta, timestamp: Timestamp(timestamp), has_key })
}
