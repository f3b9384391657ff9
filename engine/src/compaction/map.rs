//! Where the newest record of each key stands, in bounded memory: a table of digests and offsets.
//!
//! Keys are told apart by 128 bits of SipHash under a key that nobody outside knows, so that nobody
//! can make two keys collide. By chance two of a billion keys do once in 10^20 rounds. Kafka's
//! `SkimpyOffsetMap` does the same with MD5.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::ids::Offset;

/// Bytes that one key takes.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// Of this many slots nine tenths are used: Kafka's `log.cleaner.io.buffer.load.factor`.
const LOAD: (usize, usize) = (9, 10);

/// No offset: an empty slot.
const EMPTY: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Slot {
    digest: [u64; 2],
    offset: u64,
}

/// The map has no room for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the map of keys is full")]
pub struct MapFull;

/// Keys and the offset of the newest record of each, up to where it has been told everything.
pub struct KeyMap {
    slots: Vec<Slot>,
    keys: usize,
    keys_max: usize,
    hasher: SipHasher13,
    known_to: Offset,
}

impl KeyMap {
    /// An empty map of at most `bytes` that knows everything below `from`. `secret` are random
    /// bits. It holds at least one key, however small it is to be.
    pub fn new(bytes: usize, secret: [u64; 2], from: Offset) -> KeyMap {
        let count = (bytes / SLOT_BYTES).max(2);
        KeyMap {
            slots: vec![Slot { digest: [0; 2], offset: EMPTY }; count],
            keys: 0,
            keys_max: (count * LOAD.0 / LOAD.1).max(1),
            hasher: SipHasher13::new_with_keys(secret[0], secret[1]),
            known_to: from,
        }
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Every key of a record below this offset is in it, from where it began.
    pub fn known_to(&self) -> Offset {
        self.known_to
    }

    /// Everything below `to` was told: it may be further than the last record. Never less than
    /// before.
    pub fn knows(&mut self, to: Offset) {
        self.known_to = self.known_to.max(to);
    }

    /// A record with `key` stands at `offset`, which is not below those told before. A key that
    /// is in the map finds its room even if there is none for others.
    pub fn insert(&mut self, key: &[u8], offset: Offset) -> Result<(), MapFull> {
        let digest = self.digest(key);
        let at = self.find(digest);
        if self.slots[at].offset == EMPTY {
            if self.keys == self.keys_max {
                return Err(MapFull);
            }
            self.keys += 1;
        }
        self.slots[at] = Slot { digest, offset: offset.value() };
        self.knows(offset.plus(1));
        Ok(())
    }

    /// Where the newest record of `key` stands, of those that it was told of.
    pub fn newest(&self, key: &[u8]) -> Option<Offset> {
        let offset = self.slots[self.find(self.digest(key))].offset;
        (offset != EMPTY).then(|| Offset::new(offset))
    }

    fn digest(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = self.hasher;
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The slot of a digest, or the empty one where it belongs. There is one: not all are used.
    fn find(&self, digest: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(digest[0]) * count as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.offset == EMPTY || slot.digest == digest {
                return at;
            }
            at = if at + 1 == count { 0 } else { at + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn map(bytes: usize) -> KeyMap {
        KeyMap::new(bytes, [1, 2], Offset::new(5))
    }

    #[test]
    fn the_newest_of_each_key_is_found() {
        let mut map = map(64 << 10);
        let mut expected = BTreeMap::new();
        for offset in 5..5_000u64 {
            let key = (offset * 7919 % 1_000).to_be_bytes();
            map.insert(&key, Offset::new(offset)).unwrap();
            expected.insert(key, Offset::new(offset));
        }
        assert_eq!(map.len(), 1_000);
        for (key, offset) in expected {
            assert_eq!(map.newest(&key), Some(offset));
        }
        assert_eq!(map.newest(b"another"), None);
        assert_eq!(map.known_to(), Offset::new(5_000));
    }

    #[test]
    fn a_full_map_knows_up_to_the_first_key_that_had_no_room() {
        let mut map = map(10 * SLOT_BYTES);
        assert_eq!(map.known_to(), Offset::new(5), "nothing was told");
        let mut offset = 5;
        while map.insert(&u64::to_be_bytes(offset), Offset::new(offset)).is_ok() {
            offset += 1;
        }
        assert_eq!((map.len(), offset), (9, 14));
        assert_eq!(map.known_to(), Offset::new(14));
        map.insert(&u64::to_be_bytes(6), Offset::new(14)).expect("a known key needs no room");
        assert_eq!(map.newest(&u64::to_be_bytes(6)), Some(Offset::new(14)));
        assert_eq!(map.insert(b"new", Offset::new(15)), Err(MapFull));
        assert_eq!(map.known_to(), Offset::new(15));
        map.knows(Offset::new(3));
        assert_eq!(map.known_to(), Offset::new(15), "it forgets nothing");
    }

    #[test]
    fn the_smallest_map_holds_a_key() {
        for bytes in [0, 1, SLOT_BYTES, 2 * SLOT_BYTES] {
            let mut map = map(bytes);
            map.insert(b"", Offset::new(9)).expect("there is room for one");
            assert_eq!(map.newest(b""), Some(Offset::new(9)));
            assert_eq!(map.newest(b"x"), None, "and a search for others ends");
            assert_eq!(map.insert(b"x", Offset::new(10)), Err(MapFull));
        }
    }
}
