//! Reading the records of a stored batch: one after the other, or the one that a time asks for.
//!
//! For those who must know content: coordinators at replay, ListOffsets, tools, tests. Produce and
//! Fetch never come here.

use std::ops::ControlFlow;

use super::compress::Inflate;
use super::records::{Cursor, Entry, RecordFault, Source, WalkError, walk};
use super::{Batch, Codec, Header, TimestampType};
use crate::ids::Offset;
use crate::time::Timestamp;

/// A record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position in the log.
    pub offset: Offset,
    /// Its time; the append's where the batch has that timestamp type.
    pub timestamp: Timestamp,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: RecordHeaders<'a>,
}

/// The headers of a record: an iterator over keys and values (`None` is null), in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeaders<'a> {
    /// Well-formed to the end: it was walked over when the record was read.
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Iterator for RecordHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut cursor = Cursor::new(self.bytes);
        let key = cursor.nullable().expect("headers were walked over")?;
        let value = cursor.nullable().expect("headers were walked over");
        self.bytes = cursor.rest();
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// The records of a batch, in order; ends after the first that is damaged.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    header: Header,
    left: u32,
}

/// A record's position and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAt {
    /// Its position in the log.
    pub offset: Offset,
    /// Its time.
    pub timestamp: Timestamp,
}

impl<'a> Batch<'a> {
    /// The records. Compressed ones are decompressed into `scratch` first (its capacity stays for
    /// the next batch), up to `decompressed_bytes_max`; of others, nothing is copied.
    pub fn records<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        decompressed_bytes_max: u64,
    ) -> Result<Records<'s>, RecordFault>
    where
        'a: 's,
    {
        let bytes = match self.codec()? {
            Codec::None => self.payload(),
            codec => {
                Inflate::new(codec, self.payload(), decompressed_bytes_max)?.read_all(scratch)?;
                scratch.as_slice()
            }
        };
        Ok(Records { cursor: Cursor::new(bytes), header: **self, left: self.record_count() })
    }

    /// The first record whose time is at least `timestamp` and whose offset is at least `from`
    /// (ListOffsets; Kafka's `FileRecords.searchForTimestamp`). Only records up to it are read.
    pub fn first_at_or_after(
        &self,
        timestamp: Timestamp,
        from: Offset,
        decompressed_bytes_max: u64,
    ) -> Result<Option<RecordAt>, RecordFault> {
        if self.max_timestamp() < timestamp || self.last_offset() < from {
            return Ok(None);
        }
        self.find(decompressed_bytes_max, |at| at.timestamp >= timestamp && at.offset >= from)
    }

    /// The first record that has the maximal timestamp of the batch; none where records have no
    /// timestamps (Kafka's `RecordBatch.offsetOfMaxTimestamp`).
    pub fn first_at_max_timestamp(
        &self,
        decompressed_bytes_max: u64,
    ) -> Result<Option<RecordAt>, RecordFault> {
        let max = self.max_timestamp();
        if max == Timestamp::NONE {
            return Ok(None);
        }
        self.find(decompressed_bytes_max, |at| at.timestamp == max)
    }

    fn find(
        &self,
        decompressed_bytes_max: u64,
        wanted: impl Fn(&RecordAt) -> bool,
    ) -> Result<Option<RecordAt>, RecordFault> {
        let mut found = None;
        let mut damaged = false;
        let (base, last) = (self.base_offset(), self.last_offset_delta());
        let each = |entry: Entry| {
            let Some(delta) = u32::try_from(entry.offset_delta).ok().filter(|&at| at <= last)
            else {
                damaged = true;
                return ControlFlow::Break(());
            };
            let at = RecordAt { offset: base.plus(delta.into()), timestamp: entry.timestamp };
            if wanted(&at) {
                found = Some(at);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let walked = match self.codec()? {
            Codec::None => walk(&mut Cursor::new(self.payload()), self, each),
            codec => {
                let mut source = Inflate::new(codec, self.payload(), decompressed_bytes_max)?;
                walk(&mut source, self, each)
            }
        };
        match walked {
            _ if damaged => Err(RecordFault::OffsetDelta(-1)),
            Ok(()) => Ok(found),
            Err(WalkError { fault, .. }) => Err(fault),
        }
    }

    fn codec(&self) -> Result<Codec, RecordFault> {
        self.attributes().codec().ok_or(RecordFault::Undecodable)
    }
}

impl<'a> Records<'a> {
    /// The next record, and all of its bytes: its length first.
    pub(super) fn next_with_bytes(
        &mut self,
    ) -> Option<Result<(Record<'a>, &'a [u8]), RecordFault>> {
        let before = self.cursor.rest();
        let record = self.next()?;
        Some(record.map(|record| (record, &before[..before.len() - self.cursor.rest().len()])))
    }

    fn read(&mut self) -> Result<Record<'a>, RecordFault> {
        let length = self.cursor.varint()?;
        let length = usize::try_from(length).map_err(|_| RecordFault::Negative)?;
        let mut body = Cursor::new(self.cursor.take(length)?);
        body.byte()?;
        let delta = body.varlong()?;
        let timestamp = match self.header.attributes().timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp(),
            TimestampType::CreateTime => {
                let base = self.header.base_timestamp().0;
                Timestamp(base.checked_add(delta).ok_or(RecordFault::Timestamp)?)
            }
        };
        let delta = body.varint()?;
        if delta < 0 || delta as u32 > self.header.last_offset_delta() {
            return Err(RecordFault::OffsetDelta(delta));
        }
        let offset = self.header.base_offset().plus(delta as u64);
        let key = body.nullable()?;
        let value = body.nullable()?;
        let left = u32::try_from(body.varint()?).map_err(|_| RecordFault::Negative)?;
        let headers = RecordHeaders { bytes: body.rest(), left };
        for _ in 0..left {
            body.nullable()?.ok_or(RecordFault::Negative)?;
            body.nullable()?;
        }
        if !body.at_end()? {
            return Err(RecordFault::Length);
        }
        Ok(Record { offset, timestamp, key, value, headers })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}
