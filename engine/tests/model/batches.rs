//! Batches for tests of the log, and what the log should make of them.

use engine::batch::{Batch, Producer, Sequence, Stamp};
use engine::batch::{BatchBuilder, Codec, NewRecord};
use engine::batch::{Checked, check_trusted};
use engine::env::sim::Random;
use engine::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use engine::time::Timestamp;

/// A batch as a client sends it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub records: u32,
    /// Time of each record.
    pub times: Vec<i64>,
    pub producer: Option<(i64, i32)>,
    /// Key of each record, and whether it deletes that; none where records have no keys.
    pub keys: Vec<(u64, bool)>,
    /// When it was made, at the latest.
    pub at: i64,
}

/// What a batch is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub records: u32,
    /// Bytes of values, together.
    pub bytes: usize,
    /// Values are zeros instead of noise.
    pub zeros: bool,
    /// Id and first sequence.
    pub producer: Option<(i64, i32)>,
    /// Times lie in a span of so many ms behind this.
    pub time: i64,
    /// Records have one of so many keys, and some of them delete it; 0: records have no keys.
    pub keys: u64,
}

impl Sent {
    pub fn new(shape: Shape, random: &Random) -> Sent {
        let mut builder = BatchBuilder::new(u32::MAX);
        if let Some((id, sequence)) = shape.producer {
            builder = builder.producer(Producer {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
                base_sequence: Sequence::from_wire(sequence),
            });
        }
        if shape.keys > 0 {
            builder = builder.codec(Codec::ALL[random.below(8).min(5) as usize % 5]);
        }
        let (mut times, mut keys) = (Vec::new(), Vec::new());
        let each = shape.bytes / shape.records as usize;
        for _ in 0..shape.records {
            let mut value = vec![0; each];
            if !shape.zeros {
                for chunk in value.chunks_mut(8) {
                    // No byte is zero, so that noise never looks like a lost sector.
                    let noise = (random.next() | 0x0101_0101_0101_0101).to_le_bytes();
                    chunk.copy_from_slice(&noise[..chunk.len()]);
                }
            }
            let timestamp = Timestamp(shape.time + random.below(20) as i64);
            times.push(timestamp.0);
            let mut record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
            let key;
            if shape.keys > 0 {
                let (which, deletes) = (random.below(shape.keys), random.chance(1, 4));
                keys.push((which, deletes));
                key = which.to_be_bytes();
                record.key = Some(&key);
                record.value = record.value.filter(|_| !deletes);
            }
            builder.push(&record).expect("no maximum");
        }
        let bytes = builder.build().expect("codecs do not fail");
        let (records, producer) = (shape.records, shape.producer);
        Sent { bytes, records, times, producer, keys, at: shape.time }
    }

    pub fn checked(&self) -> Checked<'_> {
        check_trusted(&self.bytes).expect("well made")
    }

    /// What the log should have stored.
    pub fn stored(&self, base: Offset, epoch: LeaderEpoch) -> Stored {
        let checked = self.checked();
        let mut bytes = vec![0; self.bytes.len()];
        checked.copy_stamped(&mut bytes, Stamp { base_offset: base, leader_epoch: epoch });
        let base = base.value();
        let records = (base..).zip(self.times.iter().copied()).collect();
        let end = base + u64::from(self.records);
        Stored { base, end, epoch, bytes, records, sent: self.clone() }
    }
}

/// A batch that was appended.
#[derive(Clone, Debug)]
pub struct Stored {
    pub base: u64,
    pub end: u64,
    pub epoch: LeaderEpoch,
    pub bytes: Vec<u8>,
    /// Offset and time of each record.
    pub records: Vec<(u64, i64)>,
    pub sent: Sent,
}

/// Splits what was read into batches: base offset, exclusive end, bytes.
pub fn split(bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    engine::batch::batches(bytes)
        .map(|batch: Result<Batch<'_>, _>| {
            let batch = batch.expect("only whole batches are read");
            assert!(batch.verify_crc(), "only true batches are read");
            (batch.base_offset().value(), batch.next_offset().value(), batch.bytes())
        })
        .collect()
}
