//! What a Fetch brings, record by record.

use crate::line::Come;
use crate::oracle::{Broken, Invariant, Place, Tag};

/// Checks whole batches and hands out their records: offset, tag, and with the first record of a
/// batch its producer id, sequence and count. Answers the exclusive end, if there is anything.
pub fn read_batches(
    place: Place,
    from: u64,
    watermark: u64,
    bytes: &[u8],
    each: &mut impl FnMut(u64, Tag, Option<(i64, i32, u32)>),
) -> Come<Option<u64>> {
    let mut next = None;
    for batch in engine::batch::batches(bytes) {
        let batch = match batch {
            Ok(batch) if batch.verify_crc() => batch,
            other => {
                let how = format!("{place:?} from {from}: {:?}", other.map(|batch| batch.crc()));
                return Err(Broken(Invariant::ReadIsNeverLost, how).into());
            }
        };
        let (base, end) = (batch.base_offset().value(), batch.next_offset().value());
        let follows = match next {
            None => base <= from && from < end,
            Some(next) => base == next,
        };
        if !follows {
            let how = format!("{place:?} has {base}..{end} behind {next:?}, asked from {from}");
            return Err(Broken(Invariant::OffsetsContiguous, how).into());
        }
        if end > watermark {
            let how = format!("{place:?} gives {base}..{end}, high watermark {watermark}");
            return Err(Broken(Invariant::NoReadAboveWatermark, how).into());
        }
        let mut producer = batch.producer().and_then(|producer| {
            let sequence = producer.base_sequence?.to_wire();
            Some((producer.id.0, sequence, batch.record_count()))
        });
        let mut scratch = Vec::new();
        let records = batch.records(&mut scratch, 1 << 20).expect("checked when it was appended");
        for (offset, record) in (base..).zip(records) {
            let record = record.expect("checked when it was appended");
            let tag = record.value.and_then(Tag::read).expect("made by a producer of the test");
            each(offset, tag, producer.take());
        }
        next = Some(end);
    }
    Ok(next)
}
