//! Building batches: for coordinators, whose memory is a log, for `perf` and for tests.
//!
//! A built batch has base offset 0 and no leader epoch, like a client's; the log stamps it.

use std::io;

use zerocopy::IntoBytes;

use super::compress::deflate;
use super::{
    Attributes, CRC_FROM, Codec, HEADER_BYTES, Header, LENGTH_OVERHEAD, MAGIC, Producer, Sequence,
    TimestampType,
};
use crate::time::Timestamp;

/// A header of a record: its key, and its value (`None` is null).
pub type RecordHeader<'a> = (&'a str, Option<&'a [u8]>);

/// A record to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// Its time; [`Timestamp::NONE`] for none.
    pub timestamp: Timestamp,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [RecordHeader<'a>],
}

/// What a coordinator writes at the end of a transaction, one record per control batch
/// (KIP-98; Kafka's `ControlRecordType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The transaction's records do not count.
    Abort,
    /// The transaction's records count.
    Commit,
}

/// The record would make the batch larger than its maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch is full")]
pub struct BatchFull;

/// Collects records and makes a batch of them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Codec,
    transactional: bool,
    control: bool,
    append_time: Option<Timestamp>,
    producer: Option<Producer>,
    bytes_max: usize,
    records: Vec<u8>,
    /// The record being added, which is written before its length.
    body: Vec<u8>,
    count: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty, uncompressed batch that may grow to `bytes_max`, before compression and with its
    /// header.
    pub fn new(bytes_max: u32) -> BatchBuilder {
        BatchBuilder {
            codec: Codec::None,
            transactional: false,
            control: false,
            append_time: None,
            producer: None,
            bytes_max: bytes_max.min(i32::MAX as u32) as usize,
            records: Vec::new(),
            body: Vec::new(),
            count: 0,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
        }
    }

    /// A control batch with the marker that ends `producer`'s transaction. `coordinator_epoch` is
    /// the transaction coordinator's term.
    pub fn marker(
        marker: Marker,
        producer: Producer,
        coordinator_epoch: i32,
        timestamp: Timestamp,
    ) -> BatchBuilder {
        let mut builder = BatchBuilder::new(256);
        builder.control = true;
        builder.transactional = true;
        builder.producer = Some(Producer { base_sequence: None, ..producer });
        let key = [0, 0, 0, matches!(marker, Marker::Commit).into()];
        let mut value = [0; 6];
        value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
        let record =
            NewRecord { timestamp, key: Some(&key), value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("a marker is small");
        builder
    }

    /// Compresses the records with `codec`.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> BatchBuilder {
        self.codec = codec;
        self
    }

    /// Writes in the name of `producer`.
    #[must_use]
    pub fn producer(mut self, producer: Producer) -> BatchBuilder {
        self.producer = Some(producer);
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> BatchBuilder {
        self.transactional = true;
        self
    }

    /// Gives all records the time of the append.
    #[must_use]
    pub fn append_time(mut self, now: Timestamp) -> BatchBuilder {
        self.append_time = Some(now);
        self
    }

    /// How many records are in it.
    pub fn record_count(&self) -> u32 {
        self.count as u32
    }

    /// Its size in bytes, before compression.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Adds a record, unless the batch is full then. Timestamps before 1970 are a caller's error.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchFull> {
        assert!(record.timestamp >= Timestamp::NONE, "{:?} is no timestamp", record.timestamp);
        let base = if self.count == 0 { record.timestamp } else { self.base_timestamp };
        let body = &mut self.body;
        body.clear();
        body.push(0);
        put_varlong(body, record.timestamp.0 - base.0);
        put_varlong(body, self.count.into());
        put_nullable(body, record.key);
        put_nullable(body, record.value);
        put_varlong(body, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_nullable(body, Some(key.as_bytes()));
            put_nullable(body, *value);
        }
        let before = self.records.len();
        put_varlong(&mut self.records, body.len() as i64);
        self.records.extend_from_slice(body);
        if self.size() > self.bytes_max {
            self.records.truncate(before);
            return Err(BatchFull);
        }
        self.count += 1;
        self.base_timestamp = base;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        Ok(())
    }

    /// The finished batch; an empty one where no record was added. Fails only where the codec
    /// does.
    pub fn build(&self) -> io::Result<Vec<u8>> {
        let mut batch = vec![0; HEADER_BYTES];
        deflate(self.codec, &self.records, &mut batch)?;
        let length = i32::try_from(batch.len() - LENGTH_OVERHEAD)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut header = self.header(length);
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        header.crc.set(crc32c::crc32c(&batch[CRC_FROM..]));
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        Ok(batch)
    }

    fn header(&self, length: i32) -> Header {
        let (id, epoch, sequence) = match self.producer {
            None => (-1, -1, -1),
            Some(producer) => {
                let sequence = producer.base_sequence.map_or(-1, Sequence::to_wire);
                (producer.id.0, producer.epoch.0, sequence)
            }
        };
        let kind = match self.append_time {
            None => TimestampType::CreateTime,
            Some(_) => TimestampType::LogAppendTime,
        };
        let mut attributes = Attributes(u16::from(self.codec.id())).with_timestamp_type(kind);
        attributes.0 |= if self.transactional { Attributes::TRANSACTIONAL } else { 0 };
        attributes.0 |= if self.control { Attributes::CONTROL } else { 0 };
        Header {
            base_offset: 0.into(),
            length: length.into(),
            leader_epoch: (-1).into(),
            magic: MAGIC,
            crc: 0.into(),
            attributes: attributes.0.into(),
            last_offset_delta: (self.count - 1).max(0).into(),
            base_timestamp: self.base_timestamp.0.into(),
            max_timestamp: self.append_time.unwrap_or(self.max_timestamp).0.into(),
            producer_id: id.into(),
            producer_epoch: epoch.into(),
            base_sequence: sequence.into(),
            record_count: self.count.into(),
        }
    }
}

pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return put_varlong(out, -1);
    };
    put_varlong(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}
