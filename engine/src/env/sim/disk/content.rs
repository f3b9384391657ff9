//! The content of one simulated file: what reads see, what would survive a power cut for certain,
//! and the changes in between, each of which a cut keeps or takes, sector by sector.
//!
//! ```text
//!  durable ──── unsynced[0] ── unsynced[1] ── … ──► live
//!  (survives)   (each kept or lost by itself)       (what reads see)
//! ```
//! A file's length is one number in its inode. So a change of length may be lost, but never if a
//! later change of length, or a write that needs it to be found, is known to be durable: `O_DSYNC`
//! flushes the metadata that is needed to read the data back.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::file::SimBlock;
use super::super::random::Random;
use crate::env::BLOCK_ALIGN;

/// What a device writes wholly or not at all, in bytes.
pub(in super::super) const SECTOR: u64 = 512;

const CHUNK: u64 = BLOCK_ALIGN as u64;
const SECTORS_PER_BLOCK: u64 = CHUNK / SECTOR;

/// Bytes of a file; what was never written is zeros and takes no memory.
#[derive(Clone, Default)]
struct Image {
    len: u64,
    chunks: BTreeMap<u64, Rc<[u8; CHUNK as usize]>>,
}

impl Image {
    /// Puts bytes at `pos` without changing the length.
    fn put(&mut self, pos: u64, mut bytes: &[u8]) {
        let mut pos = pos;
        while !bytes.is_empty() {
            let within = (pos % CHUNK) as usize;
            let count = bytes.len().min(CHUNK as usize - within);
            let chunk = self.chunks.entry(pos / CHUNK).or_insert_with(|| Rc::new([0; 4096]));
            Rc::make_mut(chunk)[within..within + count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            pos += count as u64;
        }
    }

    fn get(&self, pos: u64, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let at = pos + done as u64;
            let within = (at % CHUNK) as usize;
            let count = (into.len() - done).min(CHUNK as usize - within);
            let target = &mut into[done..done + count];
            match self.chunks.get(&(at / CHUNK)) {
                Some(chunk) => target.copy_from_slice(&chunk[within..within + count]),
                None => target.fill(0),
            }
            done += count;
        }
    }

    /// Sets the length; what lies past it is forgotten, so that a later extension reads zeros.
    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.chunks.split_off(&len.div_ceil(CHUNK));
        if !len.is_multiple_of(CHUNK)
            && let Some(chunk) = self.chunks.get_mut(&(len / CHUNK))
        {
            Rc::make_mut(chunk)[(len % CHUNK) as usize..].fill(0);
        }
    }
}

/// Which sectors of a write: all that landed, or all that are still to be decided.
#[derive(Clone)]
pub(in super::super) struct Sectors(Vec<bool>);

impl Sectors {
    /// All sectors of a block of `len` bytes.
    pub fn all(len: usize) -> Sectors {
        Sectors(vec![true; len / SECTOR as usize])
    }

    /// Each by itself with a chance of `keep` in 4.
    pub fn some(len: usize, keep: u64, random: &Random) -> Sectors {
        Sectors((0..len as u64 / SECTOR).map(|_| random.chance(keep, 4)).collect())
    }

    /// The sectors below `count`.
    pub fn first(len: usize, count: u64) -> Sectors {
        Sectors((0..len as u64 / SECTOR).map(|sector| sector < count).collect())
    }

    /// Position past the last of them, relative to the write.
    fn end(&self) -> u64 {
        self.0.iter().rposition(|&set| set).map_or(0, |last| (last as u64 + 1) * SECTOR)
    }
}

struct Write {
    block: Rc<SimBlock>,
    pos: u64,
    /// Not yet durable, and not overwritten by something that is.
    open: Sectors,
    /// Bytes at and after this file position were cut off by a durable truncation.
    end: u64,
}

impl Write {
    fn apply(&self, sectors: impl Fn(usize) -> bool, image: &mut Image) {
        for (index, _) in self.open.0.iter().enumerate().filter(|&(i, &open)| open && sectors(i)) {
            let from = index as u64 * SECTOR;
            let to = (from + SECTOR).min(self.end.saturating_sub(self.pos));
            if from < to {
                image.put(self.pos + from, &self.block[from as usize..to as usize]);
            }
        }
    }
}

enum Change {
    Write(Write),
    /// The length became at least this.
    Extend(u64),
    /// The length became exactly this.
    Truncate(u64),
}

/// One file's bytes. All operations are instantaneous: they are the moments at which operations of
/// the disk above complete.
#[derive(Default)]
pub(in super::super) struct Content {
    live: Image,
    durable: Image,
    /// In order of completion, with their numbers.
    unsynced: Vec<(u64, Change)>,
    next_change: u64,
    /// Device blocks that the file occupies, one bit each.
    blocks: Vec<bool>,
}

impl Content {
    /// Length as the process sees it.
    pub fn len(&self) -> u64 {
        self.live.len
    }

    /// Number of the next change; every earlier one has completed.
    pub fn next_change(&self) -> u64 {
        self.next_change
    }

    /// Up to `len` bytes at `pos`, fewer at the end of the file.
    pub fn read(&self, pos: u64, len: usize) -> Rc<[u8]> {
        let len = (len as u64).min(self.live.len.saturating_sub(pos)) as usize;
        let mut bytes = vec![0; len];
        self.live.get(pos, &mut bytes);
        bytes.into()
    }

    /// What would be left if a power cut took everything that it may take.
    pub fn durable(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.durable.len as usize];
        self.durable.get(0, &mut bytes);
        bytes
    }

    /// Some sectors of a write land; they may still be lost.
    pub fn write(&mut self, block: Rc<SimBlock>, pos: u64, sectors: Sectors) {
        let end = pos + sectors.end();
        if end > self.live.len {
            self.live.set_len(end);
            self.push(Change::Extend(end));
        }
        let write = Write { block, pos, open: sectors, end: u64::MAX };
        write.apply(|_| true, &mut self.live);
        self.push(Change::Write(write));
        self.occupy(pos, end);
    }

    /// A whole write lands and is durable; what was written before it may still be lost.
    pub fn write_synced(&mut self, block: &Rc<SimBlock>, pos: u64) {
        let end = pos + block.len() as u64;
        self.live.len = self.live.len.max(end);
        self.live.put(pos, block);
        self.occupy(pos, end);
        let cuts = |change: &(u64, Change)| matches!(change.1, Change::Truncate(to) if to < end);
        if self.durable.len < end || self.unsynced.iter().any(cuts) {
            self.settle_lengths();
        }
        self.durable.put(pos, block);
        self.durable.len = self.durable.len.max(end);
        for (_, change) in &mut self.unsynced {
            if let Change::Write(write) = change {
                for (index, open) in write.open.0.iter_mut().enumerate() {
                    let sector = write.pos + index as u64 * SECTOR;
                    *open &= !(pos..end).contains(&sector);
                }
            }
        }
    }

    /// Makes every change of length durable, in order; the writes between them stay open.
    fn settle_lengths(&mut self) {
        let mut open: Vec<(u64, Change)> = Vec::new();
        for (number, change) in self.unsynced.drain(..) {
            match change {
                Change::Write(write) => open.push((number, Change::Write(write))),
                Change::Extend(to) => self.durable.set_len(self.durable.len.max(to)),
                Change::Truncate(to) => {
                    self.durable.set_len(to);
                    for (_, earlier) in &mut open {
                        if let Change::Write(write) = earlier {
                            write.end = write.end.min(to);
                        }
                    }
                }
            }
        }
        self.unsynced = open;
    }

    /// Cuts or extends to `len`.
    pub fn truncate(&mut self, len: u64) {
        let change = if len < self.live.len { Change::Truncate(len) } else { Change::Extend(len) };
        self.live.set_len(len);
        self.blocks.truncate(len.div_ceil(CHUNK) as usize);
        self.push(change);
    }

    /// Reserves device blocks, extends the file.
    pub fn allocate(&mut self, pos: u64, len: u64) {
        self.occupy(pos, pos + len);
        if pos + len > self.live.len {
            self.live.set_len(pos + len);
            self.push(Change::Extend(pos + len));
        }
    }

    /// Makes the changes below number `upto` durable.
    pub fn sync(&mut self, upto: u64) {
        self.settle(upto, |_| true, |_| true);
    }

    /// A failed sync: the changes below `upto` will never be synced. What of them reached the
    /// device is a matter of luck, and reads show nothing of it.
    pub fn lose(&mut self, upto: u64, random: &Random) {
        let keep = random.below(5);
        self.settle(upto, |_| random.chance(keep, 4), |_| random.chance(keep, 4));
    }

    /// The power is gone: every open sector and every change of length is kept with a chance of
    /// `keep` in 4, and what is left is all there is.
    pub fn power_cut(&mut self, keep: u64, random: &Random) {
        self.settle(u64::MAX, |_| random.chance(keep, 4), |_| random.chance(keep, 4));
        self.live = self.durable.clone();
        self.blocks.truncate(self.live.len.div_ceil(CHUNK) as usize);
    }

    fn settle(
        &mut self,
        upto: u64,
        keep_sector: impl Fn(usize) -> bool,
        keep_len: impl Fn(u64) -> bool,
    ) {
        let settled = self.unsynced.partition_point(|(number, _)| *number < upto);
        for (number, change) in self.unsynced.drain(..settled) {
            match change {
                Change::Write(write) => write.apply(&keep_sector, &mut self.durable),
                Change::Extend(to) if keep_len(number) => {
                    self.durable.len = self.durable.len.max(to);
                }
                Change::Truncate(to) if keep_len(number) => self.durable.set_len(to),
                Change::Extend(_) | Change::Truncate(_) => {}
            }
        }
        if self.unsynced.is_empty() {
            // Sectors that were kept without the length that would show them.
            self.durable.set_len(self.durable.len);
        }
    }

    /// Flips one bit of what is stored; false if the file does not reach so far.
    pub fn rot(&mut self, bit: u64) -> bool {
        let pos = bit / 8;
        if pos >= self.live.len {
            return false;
        }
        for image in [&mut self.live, &mut self.durable] {
            let mut byte = [0];
            image.get(pos, &mut byte);
            image.put(pos, &[byte[0] ^ 1 << (bit % 8)]);
        }
        true
    }

    /// How many device blocks a change of `pos..pos + len` would occupy in addition.
    pub fn blocks_needed(&self, pos: u64, len: u64) -> u64 {
        let taken = |block: u64| self.blocks.get(block as usize).copied().unwrap_or(false);
        (pos / CHUNK..(pos + len).div_ceil(CHUNK)).filter(|&block| !taken(block)).count() as u64
    }

    /// Length of the part of `pos..pos + len` that fits into `free` more blocks.
    pub fn fitting(&self, pos: u64, len: u64, free: u64) -> u64 {
        let mut fits = 0;
        while fits < len && self.blocks_needed(pos, (fits + CHUNK).min(len)) <= free {
            fits = (fits + CHUNK).min(len);
        }
        fits
    }

    /// Device blocks that the file occupies.
    pub fn blocks_used(&self) -> u64 {
        self.blocks.iter().filter(|&&taken| taken).count() as u64
    }

    fn occupy(&mut self, pos: u64, end: u64) {
        let blocks = (pos / CHUNK) as usize..end.div_ceil(CHUNK) as usize;
        if self.blocks.len() < blocks.end {
            self.blocks.resize(blocks.end, false);
        }
        self.blocks[blocks].fill(true);
    }

    fn push(&mut self, change: Change) {
        self.unsynced.push((self.next_change, change));
        self.next_change += 1;
    }
}

const _: () = assert!(SECTORS_PER_BLOCK * SECTOR == CHUNK);

#[cfg(test)]
mod tests {
    use super::super::super::random::Stream;
    use super::*;
    use crate::env::Block;

    fn block(fill: u8) -> Rc<SimBlock> {
        let mut block = SimBlock::new(BLOCK_ALIGN);
        block.bytes_mut().fill(fill);
        Rc::new(block)
    }

    fn written(content: &mut Content, fill: u8, pos: u64) {
        content.write(block(fill), pos, Sectors::all(BLOCK_ALIGN));
    }

    /// The content after a power cut, for each of many seeds.
    fn cuts(make: impl Fn(&mut Content)) -> impl Iterator<Item = Vec<u8>> {
        (0..200).map(move |seed| {
            let random = Random::new(seed, Stream::Disk, 0);
            let mut content = Content::default();
            make(&mut content);
            content.power_cut(random.below(5), &random);
            assert!(content.unsynced.is_empty());
            let live = content.read(0, usize::MAX >> 1);
            assert_eq!(*live, *content.durable());
            live.to_vec()
        })
    }

    #[test]
    fn a_synced_write_is_never_lost_and_an_unsynced_one_is_kept_by_sector() {
        let left: Vec<Vec<u8>> = cuts(|content| {
            written(content, 1, 0);
            content.sync(content.next_change());
            written(content, 2, 4096);
        })
        .collect();
        assert!(left.iter().all(|bytes| bytes.len() >= 4096));
        assert!(left.iter().all(|bytes| bytes[..4096].iter().all(|&byte| byte == 1)));
        let whole = |bytes: &Vec<u8>| bytes.len() == 8192 && bytes[4096..].iter().all(|&b| b == 2);
        let torn = |bytes: &Vec<u8>| {
            bytes.len() == 8192
                && bytes[4096..].chunks(512).any(|sector| sector == [2; 512])
                && bytes[4096..].chunks(512).any(|sector| sector == [0; 512])
        };
        assert!(left.iter().any(whole) && left.iter().any(torn));
        assert!(left.iter().any(|bytes| bytes.len() == 4096), "the length may be lost");
    }

    #[test]
    fn a_synced_write_covers_itself_only() {
        let left: Vec<Vec<u8>> = cuts(|content| {
            written(content, 1, 0);
            content.write_synced(&block(2), 4096);
        })
        .collect();
        assert!(left.iter().all(|bytes| bytes[4096..] == [2; 4096]));
        assert!(left.iter().any(|bytes| bytes[..4096] == [1; 4096]));
        assert!(left.iter().any(|bytes| bytes[..4096] == [0; 4096]));
        assert!(left.iter().any(|bytes| bytes[..512] != bytes[512..1024]), "torn");
    }

    #[test]
    fn an_older_unsynced_write_never_comes_back_over_a_synced_one() {
        for bytes in cuts(|content| {
            written(content, 1, 0);
            content.write_synced(&block(2), 0);
        }) {
            assert_eq!(bytes, [2; 4096]);
        }
    }

    #[test]
    fn a_synced_write_after_a_truncation_settles_the_length() {
        for bytes in cuts(|content| {
            for pos in 0..4 {
                written(content, 1, pos * 4096);
            }
            content.sync(content.next_change());
            content.truncate(4096);
            content.write_synced(&block(2), 4096);
        }) {
            assert_eq!(bytes.len(), 8192);
            assert_eq!(bytes[..4096], [1; 4096]);
            assert_eq!(bytes[4096..], [2; 4096]);
        }
    }

    #[test]
    fn an_unsynced_truncation_may_be_undone() {
        let lens: Vec<usize> = cuts(|content| {
            written(content, 1, 0);
            content.sync(content.next_change());
            content.truncate(100);
        })
        .map(|bytes| {
            assert!(bytes.iter().all(|&byte| byte == 1));
            bytes.len()
        })
        .collect();
        assert!(lens.contains(&100) && lens.contains(&4096));
    }

    #[test]
    fn a_sync_covers_what_had_completed_before_it() {
        let lens: Vec<usize> = cuts(|content| {
            written(content, 1, 0);
            let called = content.next_change();
            written(content, 2, 4096);
            content.sync(called);
        })
        .map(|bytes| bytes.len())
        .collect();
        assert!(lens.contains(&4096) && lens.contains(&8192));
    }

    #[test]
    fn after_a_failed_sync_the_next_one_covers_nothing() {
        let lost = (0..100).filter(|&seed| {
            let random = Random::new(seed, Stream::Disk, 0);
            let mut content = Content::default();
            written(&mut content, 1, 0);
            content.lose(content.next_change(), &random);
            content.sync(content.next_change());
            assert_eq!(*content.read(0, 4096), [1; 4096], "reads show nothing of it");
            content.power_cut(4, &random);
            content.read(0, 4096)[..] != [1; 4096]
        });
        assert!(lost.count() > 50);
    }

    #[test]
    fn cut_bytes_read_as_zeros_when_the_file_grows_again() {
        let mut content = Content::default();
        written(&mut content, 9, 0);
        content.truncate(700);
        content.truncate(1_000);
        let bytes = content.read(0, 5_000);
        assert_eq!(bytes.len(), 1_000);
        assert!(bytes[..700].iter().all(|&byte| byte == 9));
        assert!(bytes[700..].iter().all(|&byte| byte == 0));
        assert_eq!(content.read(999, 10).len(), 1);
        assert_eq!(content.read(1_000, 10).len(), 0);
        assert_eq!(content.read(u64::MAX, 10).len(), 0);
    }

    #[test]
    fn blocks_are_counted_once() {
        let mut content = Content::default();
        content.allocate(0, 10_000);
        assert_eq!((content.len(), content.blocks_used()), (10_000, 3));
        assert_eq!(content.blocks_needed(8_192, 8_192), 1);
        assert_eq!(content.fitting(8_192, 16_384, 2), 12_288);
        written(&mut content, 1, 4_096);
        assert_eq!(content.blocks_used(), 3);
        content.truncate(4_096);
        assert_eq!(content.blocks_used(), 1);
    }

    #[test]
    fn rot_flips_one_stored_bit() {
        let mut content = Content::default();
        written(&mut content, 0, 0);
        content.sync(content.next_change());
        assert!(content.rot(8 * 77 + 3));
        assert_eq!(content.read(77, 1)[0], 8);
        assert_eq!(content.durable()[77], 8);
        assert!(!content.rot(8 * 4096));
    }
}
