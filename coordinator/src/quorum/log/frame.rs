//! Entries as they stand in a segment. Pure.
//!
//! ```text
//! 0   4  magic "RBqe"
//! 4   4  CRC-32C of everything after it, up to the end of the archive
//! 8   4  length of the archive
//! 12  4  the CRC of the frame before it in this segment; 0 for the first
//! 16  8  index of the entry
//! 24  8  every entry below this index was synced when this one was written
//! 32  8  how often the log had been cut before
//! 40  …  the archive (rkyv, checked on read), then zeros up to a multiple of 8
//! ```
//! A frame names the one before it, so that what a cut left behind can never follow what was
//! written in its place.

use super::super::layout::{self, EntryV1};
use super::super::types::Entry;

const MAGIC: &[u8; 4] = b"RBqe";
/// Bytes before the archive.
const HEAD_BYTES: usize = 40;
/// Frames begin at multiples of this.
const ALIGN: usize = 8;
/// Largest archive, in bytes: bounds memory against a damaged length.
const ARCHIVE_BYTES_MAX: usize = 64 << 20;

/// What a frame says besides its entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Context {
    /// The CRC of the frame before; 0 for the first of a segment.
    pub chain: u32,
    /// Below this index everything was synced.
    pub synced: u64,
    /// How often the log had been cut.
    pub truncations: u64,
}

/// A whole frame, read back.
pub(super) struct Frame {
    pub entry: Entry,
    pub context: Context,
    pub crc: u32,
    /// Bytes that it takes.
    pub len: usize,
}

/// Appends the frame of an entry; returns its CRC.
pub(super) fn encode(entry: &Entry, context: Context, into: &mut Vec<u8>) -> u32 {
    let start = into.len();
    let archive = layout::write(&EntryV1::from(entry));
    into.extend_from_slice(MAGIC);
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&(archive.len() as u32).to_le_bytes());
    into.extend_from_slice(&context.chain.to_le_bytes());
    into.extend_from_slice(&entry.log_id.index.to_le_bytes());
    into.extend_from_slice(&context.synced.to_le_bytes());
    into.extend_from_slice(&context.truncations.to_le_bytes());
    into.extend_from_slice(&archive);
    let crc = crc32c::crc32c(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    into.resize(start + (into.len() - start).next_multiple_of(ALIGN), 0);
    crc
}

/// The frame at the beginning of `bytes`, if a whole one stands there.
pub(super) fn decode(bytes: &[u8]) -> Option<Frame> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let archive_bytes = word(8) as usize;
    if head[..4] != *MAGIC || archive_bytes > ARCHIVE_BYTES_MAX {
        return None;
    }
    let end = HEAD_BYTES + archive_bytes;
    if crc32c::crc32c(bytes.get(8..end)?) != word(4) {
        return None;
    }
    let entry: EntryV1 = layout::read(&bytes[HEAD_BYTES..end]).ok()?;
    let entry = entry.restore().ok()?;
    if entry.log_id.index != long(16) {
        return None;
    }
    let context = Context { chain: word(12), synced: long(24), truncations: long(32) };
    Some(Frame { entry, context, crc: word(4), len: end.next_multiple_of(ALIGN) })
}

/// What a segment holds: the frames from its beginning that follow each other from index `first`
/// on, with the position where each ends.
pub(super) fn scan(bytes: &[u8], first: u64) -> Vec<(Frame, u64)> {
    let mut frames: Vec<(Frame, u64)> = Vec::new();
    let (mut at, mut chain) = (0, 0);
    while let Some(frame) = bytes.get(at..).and_then(decode) {
        let index = first + frames.len() as u64;
        if frame.entry.log_id.index != index || frame.context.chain != chain {
            break;
        }
        chain = frame.crc;
        at += frame.len;
        frames.push((frame, at as u64));
    }
    frames
}

/// Whether something after `at` proves that the entry `index`, which should stand there, had been
/// synced: then it is damaged, and not merely torn. What was written before the last cut of the
/// log proves nothing.
pub(super) fn proves_damage(bytes: &[u8], at: u64, index: u64, truncations: u64) -> bool {
    let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let rest = &bytes[from..];
    (0..rest.len()).step_by(ALIGN).any(|at| {
        rest[at..].starts_with(MAGIC)
            && decode(&rest[at..]).is_some_and(|frame| {
                let context = frame.context;
                context.truncations >= truncations && context.synced > index
            })
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::types::{Decided, Payload, log_id};
    use super::*;
    use engine::time::Timestamp;

    fn entry(term: u64, index: u64, text: &str) -> Entry {
        let records = vec![text.as_bytes().to_vec()].into();
        let payload = Payload::Normal(Decided { wall: Timestamp(7), records });
        Entry { log_id: log_id(term, index), payload }
    }

    fn segment(entries: &[Entry], synced: u64) -> Vec<u8> {
        let (mut bytes, mut chain) = (Vec::new(), 0);
        for entry in entries {
            chain = encode(entry, Context { chain, synced, truncations: 0 }, &mut bytes);
        }
        bytes
    }

    #[test]
    fn what_was_written_is_read_and_damage_ends_it() {
        let entries = [entry(1, 5, "a"), entry(1, 6, "bb"), entry(2, 7, "ccc")];
        let bytes = segment(&entries, 0);
        let read = |bytes: &[u8]| -> Vec<Entry> {
            scan(bytes, 5).into_iter().map(|(frame, _)| frame.entry).collect()
        };
        assert_eq!(read(&bytes), entries);
        assert_eq!(scan(&bytes, 4).len(), 0, "another index is expected");
        let ends: Vec<u64> = scan(&bytes, 5).iter().map(|(_, end)| *end).collect();
        assert_eq!(*ends.last().unwrap(), bytes.len() as u64);
        for at in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            let whole = ends.iter().filter(|end| **end <= at as u64).count();
            let found = read(&rotten);
            // Padding is nobody's.
            assert!(found == entries || found == entries[..whole], "a flipped bit in byte {at}");
        }
    }

    #[test]
    fn what_a_cut_left_behind_does_not_follow_what_replaced_it() {
        let old = segment(&[entry(1, 5, "aa"), entry(1, 6, "bb"), entry(1, 7, "cc")], 0);
        let new = segment(&[entry(1, 5, "aa"), entry(2, 6, "xx")], 0);
        let mut bytes = old.clone();
        bytes[..new.len()].copy_from_slice(&new);
        assert!(new.len() < old.len() && decode(&bytes[new.len()..]).is_some(), "it is whole");
        assert_eq!(scan(&bytes, 5).len(), 2);
    }

    #[test]
    fn only_a_later_promise_of_the_same_life_proves_damage() {
        let entries = [entry(1, 5, "a"), entry(1, 6, "b"), entry(1, 7, "c")];
        for (synced, truncations, proves) in [(5, 0, false), (6, 0, true), (6, 1, false)] {
            let mut bytes = segment(&entries, synced);
            bytes[41] ^= 1;
            assert_eq!(scan(&bytes, 5).len(), 0);
            assert_eq!(proves_damage(&bytes, 0, 5, truncations), proves);
        }
    }
}
