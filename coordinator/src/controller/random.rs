//! A generator for one decision, seeded from the words that came with it (SplitMix64).

/// Not for secrets: ids and starting points only.
pub(super) struct Random {
    words: [u64; 2],
}

impl Random {
    pub(super) fn new(seed: [u64; 2]) -> Random {
        Random { words: seed }
    }

    /// The next 64 bits. Both seed words enter every answer, so two decisions repeat each other
    /// only if all 128 bits do.
    pub(super) fn word(&mut self) -> u64 {
        self.words[0] = self.words[0].wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.words[0] ^ self.words[1].rotate_left(32);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        self.words[1] = self.words[1].wrapping_mul(0xd129_0d3b_3f4c_5f1d).wrapping_add(z | 1);
        z
    }

    /// One of `0..end`; `end` is not zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }
}
