//! Batches to send: built once, then stamped in place for each request, so that making load costs
//! a CRC and no copy.

use engine::batch::{BatchBuilder, HEADER_BYTES, Header, NewRecord, batches};
use engine::time::Timestamp;

use crate::schedule::split_mix;

/// What a stamped value begins with.
const MAGIC: &[u8; 8] = b"ringperf";
/// Smallest value that a stamp fits in, in bytes.
pub const VALUE_BYTES_MIN: usize = MAGIC.len() + 8 + 8 + 4;
/// Where a batch's CRC stands, and what it covers (see `engine::batch`).
const CRC_AT: std::ops::Range<usize> = 17..21;
/// Records of a foreign batch are not decompressed beyond this many bytes.
const DECOMPRESSED_BYTES_MAX: u64 = 64 << 20;

/// What the first record of a batch says about the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was due, in ns since the start of the run.
    pub due: u64,
    /// Which of its connection's batches it is, from 0.
    pub sequence: u64,
    /// The connection.
    pub connection: u32,
}

/// Bytes with one batch in them (a request's frame, say) whose mark can be changed.
#[derive(Clone, Debug)]
pub struct Template {
    /// All the bytes.
    pub bytes: Vec<u8>,
    batch: std::ops::Range<usize>,
    mark: usize,
}

impl Template {
    /// Finds `batch`, which [`marked_batch`] made, in `bytes`.
    pub fn new(bytes: Vec<u8>, batch: &[u8]) -> Template {
        let find = |bytes: &[u8]| bytes.windows(MAGIC.len()).position(|window| window == MAGIC);
        let in_batch = find(batch).expect("a marked batch has its mark");
        let mark = find(&bytes).expect("the batch is in these bytes");
        let start = mark - in_batch;
        Template { bytes, batch: start..start + batch.len(), mark: mark + MAGIC.len() }
    }

    /// Writes a mark, and the CRC that it makes.
    pub fn stamp(&mut self, mark: Mark) {
        let to = &mut self.bytes[self.mark..self.mark + 20];
        to[..8].copy_from_slice(&mark.due.to_be_bytes());
        to[8..16].copy_from_slice(&mark.sequence.to_be_bytes());
        to[16..].copy_from_slice(&mark.connection.to_be_bytes());
        let batch = &mut self.bytes[self.batch.clone()];
        let crc = crc32c::crc32c(&batch[CRC_AT.end..]);
        batch[CRC_AT].copy_from_slice(&crc.to_be_bytes());
    }
}

/// An uncompressed batch of `records` records with random values of `value_bytes` (at least
/// [`VALUE_BYTES_MIN`]), the first of which can be marked.
pub fn marked_batch(records: usize, value_bytes: usize, seed: u64) -> Vec<u8> {
    assert!(records > 0 && value_bytes >= VALUE_BYTES_MIN);
    let mut builder = BatchBuilder::new(u32::MAX);
    let mut value = vec![0; value_bytes];
    let mut state = seed;
    for i in 0..records {
        random_bytes(&mut value, &mut state);
        if i == 0 {
            value[..MAGIC.len()].copy_from_slice(MAGIC);
        }
        let record = NewRecord { timestamp: now(), value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("far below 2 GiB");
    }
    builder.build().expect("nothing is compressed")
}

/// An uncompressed batch of one record, exactly `size` bytes long; `None` if there is no such.
pub fn batch_of(size: usize) -> Option<Vec<u8>> {
    // Lengths within it take one to five bytes each, so a few sizes need a key.
    for key in [None, Some(&b"k"[..]), Some(b"kk"), Some(b"kkk")] {
        let mut value = vec![0; size.checked_sub(HEADER_BYTES)?];
        random_bytes(&mut value, &mut (size as u64));
        while !value.is_empty() {
            let mut builder = BatchBuilder::new(u32::MAX);
            let value_now = Some(&value[..]);
            let record = NewRecord { timestamp: now(), key, value: value_now, headers: &[] };
            builder.push(&record).ok()?;
            match builder.size().checked_sub(size) {
                Some(0) => return builder.build().ok(),
                // Lengths may shrink with it, so the last bytes go one by one.
                Some(over) => {
                    value.truncate(value.len().saturating_sub(over.saturating_sub(8).max(1)))
                }
                None => break,
            }
        }
    }
    None
}

fn random_bytes(into: &mut [u8], state: &mut u64) {
    for chunk in into.chunks_mut(8) {
        let random = split_mix(state).to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
}

/// The wall clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as i64))
}

/// The batches in fetched `records` with the mark of each; batches that others wrote have none.
/// An incomplete last batch is left out, as consumers do.
pub fn marks<'a>(
    records: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> impl Iterator<Item = (Header, Option<Mark>)> + 'a {
    batches(records).map_while(Result::ok).map(|batch| {
        let mut records = batch.records(scratch, DECOMPRESSED_BYTES_MAX).ok();
        let first = records.as_mut().and_then(|records| records.next()?.ok());
        let mark = first.and_then(|first| parse(first.value?));
        (*batch, mark)
    })
}

fn parse(value: &[u8]) -> Option<Mark> {
    let rest = value.strip_prefix(MAGIC)?;
    let number = |at: usize| Some(u64::from_be_bytes(rest.get(at..at + 8)?.try_into().ok()?));
    let connection = u32::from_be_bytes(rest.get(16..20)?.try_into().ok()?);
    Some(Mark { due: number(0)?, sequence: number(8)?, connection })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::batch::Batch;

    #[test]
    fn a_stamped_batch_is_valid_and_tells_its_mark() {
        let batch = marked_batch(5, 40, 9);
        let frame = [&b"head"[..], &batch, b"tail"].concat();
        let mut template = Template::new(frame, &batch);
        for sequence in [0, 1, u64::MAX] {
            let mark = Mark { due: 77 ^ sequence, sequence, connection: 3 };
            template.stamp(mark);
            let bytes = &template.bytes[4..template.bytes.len() - 4];
            assert!(Batch::first(bytes).expect("a batch").verify_crc());
            let mut scratch = Vec::new();
            let found: Vec<_> =
                marks(bytes, &mut scratch).map(|(h, m)| (h.record_count(), m)).collect();
            assert_eq!(found, [(5, Some(mark))]);
        }
        assert!(template.bytes.starts_with(b"head") && template.bytes.ends_with(b"tail"));
    }

    #[test]
    fn batches_without_a_mark_and_a_cut_one_do_not_disturb() {
        let plain = batch_of(200).expect("a size that exists");
        let bytes = [&plain[..], &plain, &plain[..100]].concat();
        let mut scratch = Vec::new();
        assert_eq!(marks(&bytes, &mut scratch).filter(|(_, mark)| mark.is_none()).count(), 2);
    }

    #[test]
    fn a_batch_of_a_size_has_that_size() {
        for size in (100..300).chain([4096, 5000, 8_200, 65_536, 1 << 20]) {
            let Some(batch) = batch_of(size) else {
                // A body of 63 bytes has a length of one byte, one of 64 a length of two.
                assert_eq!(size, 61 + 65, "the one size that a single record cannot make");
                continue;
            };
            assert_eq!(batch.len(), size);
            assert!(Batch::first(&batch).expect("a batch").verify_crc());
        }
        assert!([0, 61, 62, 65].map(batch_of).iter().all(Option::is_none));
    }
}
