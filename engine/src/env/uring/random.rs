//! The random numbers of one shard: xoshiro256++ seeded from the operating system. Good for ids,
//! jitter and choices; nothing secret comes from here.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};

/// One generator; its sequence belongs to one shard.
pub struct Random(Cell<[u64; 4]>);

impl Random {
    /// Seeds a generator with 256 bits from `/dev/urandom`.
    pub fn from_os() -> io::Result<Random> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let mut state = [0; 4];
        for (word, chunk) in state.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
        }
        Ok(Random::from_state(state))
    }

    fn from_state(mut state: [u64; 4]) -> Random {
        // All zeros is the one state that the generator never leaves.
        state[0] |= u64::from(state == [0; 4]);
        Random(Cell::new(state))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let mut s = self.0.get();
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        self.0.set(s);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xoshiro256_plus_plus() {
        // First outputs of the published reference implementation for the state 1, 2, 3, 4.
        let random = Random::from_state([1, 2, 3, 4]);
        assert_eq!(random.next(), 41_943_041);
        assert_eq!(random.next(), 58_720_359);
        assert_eq!(random.next(), 3_588_806_011_781_223);
    }

    #[test]
    fn two_shards_never_share_a_sequence() {
        let (a, b) = (Random::from_os().unwrap(), Random::from_os().unwrap());
        assert_ne!([a.next(), a.next()], [b.next(), b.next()]);
    }
}
