//! Seeded random streams: one seed gives any number of streams that never shift each other.

use std::cell::Cell;

/// What a stream decides. Drawing from one stream leaves all the others where they are, so that a
/// change of (say) the workload keeps the disk's luck for the same seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Which task runs next, what a poll costs.
    Schedule,
    /// Latencies, torn writes, what a power cut takes.
    Disk,
    /// Latencies, sizes of reads, what a connection loses.
    Network,
    /// What programs under test draw ([`crate::env::Env::random`]).
    Program,
    /// What a test draws to make its load.
    Workload,
}

/// A stream of random numbers (SplitMix64: small, fast, and equally good from every seed).
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// The stream number `index` of its kind under `seed`.
    pub fn new(seed: u64, stream: Stream, index: u64) -> Random {
        let salt = mix(((stream as u64 + 1) << 48) ^ mix(index));
        Random(Cell::new(mix(seed) ^ salt))
    }

    /// 64 random bits.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        mix(state)
    }

    /// A number in `0..bound`; `bound` is not zero.
    pub fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero");
        // The high half of the product: even to within bound / 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        assert!(low <= high && high - low < u64::MAX, "{low}..={high} is no range");
        low + self.below(high - low + 1)
    }

    /// True `part` times in `whole`.
    pub fn chance(&self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }

    /// Puts a slice in random order (Fisher–Yates).
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// A bijection of 64 bits in which every input bit moves about half of the output bits.
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, stream, index| {
            let random = Random::new(seed, stream, index);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(draw(7, Stream::Disk, 0), draw(7, Stream::Disk, 0));
        assert_ne!(draw(7, Stream::Disk, 0), draw(7, Stream::Disk, 1));
        assert_ne!(draw(7, Stream::Disk, 0), draw(7, Stream::Schedule, 0));
        assert_ne!(draw(7, Stream::Disk, 0), draw(8, Stream::Disk, 0));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let random = Random::new(1, Stream::Workload, 0);
        let mut seen = [0u32; 5];
        for _ in 0..5_000 {
            seen[random.between(3, 7) as usize - 3] += 1;
        }
        assert!(seen.iter().all(|&times| (800..1_200).contains(&times)), "{seen:?}");
        let mut order: Vec<u32> = (0..50).collect();
        random.shuffle(&mut order);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
