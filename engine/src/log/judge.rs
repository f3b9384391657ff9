//! Telling a torn tail from damage.
//!
//! A device loses unsynced writes by whole sectors. Nothing else stood where the tail is written:
//! what is cut or given up is truncated first, so a lost sector reads as zeros from where the first
//! lost batch begins in it. Damage flips bits or swaps data. So of a batch that is not whole:
//!
//! 1. If the log promised to stay close to its synced end ([`Checkpoint::unsynced_bytes_max`]) and
//!    a whole batch of later offsets stands further behind, the hole had been synced: damage.
//! 2. If one flipped bit explains it, it is damage. The checksum is linear, so this can be told
//!    without trying: the difference of the two checksums names the bit. What the checksum does not
//!    cover (offset, length, magic) is tried. A torn batch looks so by chance once in 2³² / its
//!    length in bits, or where the flipped bit is all that a lost sector held: that is 3.
//! 3. If a sector that it touches reads as zeros, or the file ends in it, it is torn.
//! 4. Otherwise it is damage.
//!
//! What remains undecidable is the loss of a whole sector that had been synced, close to the end of
//! the log and after its last checkpoint. Closing, rolling and the periodic checkpoint shrink that
//! to what was written in the last seconds before a crash.
//!
//! [`Checkpoint::unsynced_bytes_max`]: crate::checkpoint::Checkpoint::unsynced_bytes_max

use std::io;
use std::rc::Rc;

use super::cursor::{Cursor, Step};
use super::holes::Holes;
use crate::batch::{HEADER_BYTES, Header, MAGIC};
use crate::env::{Env, File};
use crate::ids::Offset;

/// The unit in which devices lose data, in bytes.
const SECTOR: u64 = 512;
/// Bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Where a batch's length, magic and checksum stand, and where what it covers begins.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const COVERED_FROM: u64 = 21;
/// Bytes of a batch that its length field does not count.
const UNCOUNTED_BYTES: u32 = 12;
/// The polynomial of CRC-32C, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What bytes are where a batch should begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// Zeros to the end: space that was reserved and not used.
    Unused,
    /// Writes that never became durable.
    Torn,
    /// Durable data that is not what it was.
    Damaged,
}

/// The last segment of a log, which has no whole batch at `pos`.
pub(super) struct Suspect<'a, E: Env> {
    pub env: &'a E,
    pub file: Rc<E::File>,
    pub pos: u64,
    /// Length of the file.
    pub len: u64,
    /// Offset of the batch that should stand there.
    pub expected: Offset,
    /// Where it may stand further behind that.
    pub holes: Holes,
    pub unsynced_bytes_max: Option<u64>,
}

/// What stands from the suspect to the end of the file.
#[derive(Default)]
struct Behind {
    /// How many bits are set.
    bits: u64,
    /// Where the last whole batch of later offsets begins.
    last_batch: Option<u64>,
}

/// The first bytes of the suspect, as far as they are there; zeros behind the end of the file.
struct Head([u8; HEADER_BYTES]);

impl Head {
    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn offset(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("eight bytes"))
    }

    /// Size of the batch if its length field is `length`.
    fn size(length: u32) -> Option<u64> {
        let size = u64::from(length.checked_add(UNCOUNTED_BYTES)?);
        (size >= HEADER_BYTES as u64 && length <= i32::MAX as u32).then_some(size)
    }
}

impl<E: Env> Suspect<'_, E> {
    pub async fn judge(&self) -> io::Result<Judgement> {
        let behind = self.look_behind().await?;
        match behind.bits {
            0 => return Ok(Judgement::Unused),
            // Unused space rots, too.
            1 => return Ok(Judgement::Torn),
            _ => {}
        }
        let far = |max: u64| behind.last_batch.is_some_and(|at| at > self.pos + max);
        if self.unsynced_bytes_max.is_some_and(far) {
            return Ok(Judgement::Damaged);
        }
        let head = self.head().await?;
        if let Some(flipped) = self.one_bit(&head).await?
            && !self.is_in_zeros(flipped).await?
        {
            return Ok(Judgement::Damaged);
        }
        Ok(if self.lost_sector(&head).await? { Judgement::Torn } else { Judgement::Damaged })
    }

    async fn head(&self) -> io::Result<Head> {
        let read = self.file.read_at(self.pos, HEADER_BYTES).await?;
        let mut head = [0; HEADER_BYTES];
        head[..read.len()].copy_from_slice(&read);
        Ok(Head(head))
    }

    async fn look_behind(&self) -> io::Result<Behind> {
        let mut behind = Behind::default();
        let mut pos = self.pos;
        while pos < self.len {
            let read = self.file.read_at(pos, PIECE_BYTES.min(self.len - pos) as usize).await?;
            if read.is_empty() {
                break;
            }
            // Overlap, so that no header is missed between two pieces.
            let goes_on = pos + (read.len() as u64) < self.len;
            let overlap = if goes_on { HEADER_BYTES.min(read.len() - 1) } else { 0 };
            let step = read.len() - overlap;
            let bits = read[..step].iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            behind.bits += bits;
            if bits > 0 {
                for at in candidates(&read, self.expected) {
                    if self.is_batch(pos + at as u64).await? {
                        behind.last_batch = Some(pos + at as u64);
                    }
                }
            }
            pos += step as u64;
            self.env.turn().await;
        }
        Ok(behind)
    }

    async fn is_batch(&self, pos: u64) -> io::Result<bool> {
        let mut cursor = Cursor::<E>::new(self.file.clone(), pos, self.len, 4096);
        Ok(matches!(cursor.next().await?, Step::Batch(_)))
    }

    /// In which byte of the batch one bit must be flipped to make it whole, if there is one.
    async fn one_bit(&self, head: &Head) -> io::Result<Option<u64>> {
        let in_offset = self.wrong_in_offset(head);
        let in_magic = head.0[MAGIC_AT] ^ MAGIC;
        let outside = in_offset.count_ones() + in_magic.count_ones();
        let length = head.word(LENGTH_AT);
        let lengths = std::iter::once(length).chain((0..32).map(|bit| length ^ 1 << bit));
        let left = self.len - self.pos;
        let mut sizes: Vec<u64> = lengths.filter_map(Head::size).filter(|&s| s <= left).collect();
        let size = Head::size(length).filter(|&size| size <= left);
        sizes.sort_unstable();
        let stored = head.word(CRC_AT);
        for (at, computed) in self.checksums(&sizes).await? {
            let difference = computed ^ stored;
            let flipped = match (Some(at) == size, outside, difference) {
                // Its own length: the bit is in the offset or magic, the checksum, or what that
                // covers.
                (true, 1, 0) if in_magic != 0 => Some(MAGIC_AT as u64),
                (true, 1, 0) => Some(u64::from(in_offset.leading_zeros()) / 8),
                (true, 0, _) if difference.count_ones() == 1 => {
                    Some(CRC_AT as u64 + u64::from(difference.leading_zeros()) / 8)
                }
                (true, 0, _) => {
                    let behind = one_bit_of(difference, at - COVERED_FROM);
                    behind.map(|bits| at - 1 - bits / 8)
                }
                // Another length: then that was the bit.
                (false, 0, 0) => Some(LENGTH_AT as u64),
                _ => None,
            };
            if flipped.is_some() {
                return Ok(flipped);
            }
        }
        Ok(None)
    }

    /// The bits in which the suspect's offset differs from one that it may have. Behind a hole that
    /// may be any further one, so that its last bit stands for those of an earlier one.
    fn wrong_in_offset(&self, head: &Head) -> u64 {
        let base = Offset::from_wire(head.offset() as i64);
        match base.is_some_and(|base| self.holes.admit(self.expected, base)) {
            true => 0,
            false if self.holes.may_begin_at(self.expected) => 1,
            false => head.offset() ^ self.expected.value(),
        }
    }

    /// Whether all of that byte's sector, from the batch on, reads as zeros.
    async fn is_in_zeros(&self, byte: u64) -> io::Result<bool> {
        let sector = (self.pos + byte) / SECTOR * SECTOR;
        let from = sector.max(self.pos);
        let read = self.file.read_at(from, (sector + SECTOR - from) as usize).await?;
        Ok(read.iter().all(|&byte| byte == 0))
    }

    /// The checksum that a batch of each of these sizes (rising) would have.
    async fn checksums(&self, sizes: &[u64]) -> io::Result<Vec<(u64, u32)>> {
        let mut checksums = Vec::with_capacity(sizes.len());
        let (mut crc, mut at) = (0, COVERED_FROM);
        for &size in sizes {
            while at < size {
                let want = PIECE_BYTES.min(size - at);
                let read = self.file.read_at(self.pos + at, want as usize).await?;
                if read.is_empty() {
                    return Ok(checksums);
                }
                crc = crc32c::crc32c_append(crc, &read);
                at += read.len() as u64;
                self.env.turn().await;
            }
            checksums.push((size, crc));
        }
        Ok(checksums)
    }

    /// Whether a sector that the batch touches reads as zeros from the batch on, or the file ends
    /// in the batch.
    async fn lost_sector(&self, head: &Head) -> io::Result<bool> {
        let sane = self.wrong_in_offset(head) == 0 && head.0[MAGIC_AT] == MAGIC;
        let size = Head::size(head.word(LENGTH_AT)).filter(|_| sane);
        let end = self.pos + size.unwrap_or(HEADER_BYTES as u64);
        if end > self.len {
            return Ok(true);
        }
        let mut pos = self.pos;
        let end = end.next_multiple_of(SECTOR).min(self.len);
        while pos < end {
            let want = (PIECE_BYTES - pos % SECTOR).min(end - pos);
            let read = self.file.read_at(pos, want as usize).await?;
            if read.is_empty() {
                return Ok(true);
            }
            let mut rest = &read[..];
            while !rest.is_empty() {
                let count = ((SECTOR - pos % SECTOR) as usize).min(rest.len());
                let (sector, behind) = rest.split_at(count);
                if sector.iter().all(|&byte| byte == 0) && !self.is_zero_anyway(pos, count) {
                    return Ok(true);
                }
                rest = behind;
                pos += count as u64;
            }
            self.env.turn().await;
        }
        Ok(false)
    }

    /// The first bytes of an offset are zeros also when they are there.
    fn is_zero_anyway(&self, pos: u64, count: usize) -> bool {
        let zeros = self.expected.value().leading_zeros() as usize / 8;
        pos == self.pos && count <= zeros.min(7)
    }
}

/// Positions where a header of offsets from `end` on seems to begin.
fn candidates(bytes: &[u8], end: Offset) -> impl Iterator<Item = usize> + '_ {
    (0..bytes.len().saturating_sub(HEADER_BYTES - 1)).filter(move |&at| {
        bytes[at + MAGIC_AT] == MAGIC
            && Header::peek(&bytes[at..]).is_ok_and(|header| {
                header.base_offset() > end && header.base_offset().since(end) < u64::from(u32::MAX)
            })
    })
}

/// How many bits stand behind the one that makes two checksums of `bytes` bytes have this
/// `difference`, if one bit can. A bit's effect is shifted through the polynomial once for every
/// bit behind it.
fn one_bit_of(difference: u32, bytes: u64) -> Option<u64> {
    let mut effect = POLYNOMIAL;
    (0..bytes * 8).find(|_| {
        let found = effect == difference;
        effect = effect >> 1 ^ if effect & 1 == 1 { POLYNOMIAL } else { 0 };
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_told_by_the_checksums() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * i + 7) as u8).collect();
        let whole = crc32c::crc32c(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let behind = one_bit_of(whole ^ crc32c::crc32c(&flipped), 300).expect("one bit");
            assert_eq!(299 - behind / 8, bit as u64 / 8, "bit {bit}");
        }
        for sector in 0..300 - 16 {
            let mut torn = bytes.clone();
            torn[sector..sector + 16].fill(0);
            let behind = one_bit_of(whole ^ crc32c::crc32c(&torn), 300);
            assert_eq!(behind, None, "16 bytes at {sector}");
        }
        assert_eq!(one_bit_of(0, 300), None);
    }
}
