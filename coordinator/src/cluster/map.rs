//! A sorted map whose copies share what did not change: the memory of images.
//!
//! Entries lie in sorted chunks behind `Arc`; a copy clones the list of chunks (one counter per
//! ~200 entries), a change clones the one chunk that it touches. So an image of 100,000 topics
//! costs microseconds per change, and two images are compared by skipping the chunks they share.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// Most entries in one chunk; a fuller one is split in halves.
const CHUNK_ENTRIES_MAX: usize = 256;
/// Two neighbours that together hold no more than this become one.
const CHUNK_ENTRIES_MERGE: usize = CHUNK_ENTRIES_MAX / 2;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map with cheap copies. `K` and `V` should be cheap to clone (ids, `Arc`s).
#[derive(Clone, Debug)]
pub struct SharedMap<K, V> {
    /// In order, none empty.
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        SharedMap { chunks: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, found) = self.find(key);
        found.ok().map(|at| &self.chunks[chunk][at].1)
    }

    /// Whether `key` has a value.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Gives `key` the value; returns the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at_chunk, found) = self.find(&key);
        match found {
            Ok(at) => {
                let chunk = Arc::make_mut(&mut self.chunks[at_chunk]);
                Some(std::mem::replace(&mut chunk[at].1, value))
            }
            Err(at) => {
                self.len += 1;
                if self.chunks.is_empty() {
                    self.chunks.push(Arc::new(vec![(key, value)]));
                    return None;
                }
                let chunk = Arc::make_mut(&mut self.chunks[at_chunk]);
                chunk.insert(at, (key, value));
                if chunk.len() > CHUNK_ENTRIES_MAX {
                    let half = chunk.split_off(chunk.len() / 2);
                    self.chunks.insert(at_chunk + 1, Arc::new(half));
                }
                None
            }
        }
    }

    /// Takes `key` and its value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at_chunk, found) = self.find(key);
        let at = found.ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[at_chunk]);
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at_chunk);
        } else if at_chunk + 1 < self.chunks.len()
            && self.chunks[at_chunk].len() + self.chunks[at_chunk + 1].len() <= CHUNK_ENTRIES_MERGE
        {
            let next = self.chunks.remove(at_chunk + 1);
            Arc::make_mut(&mut self.chunks[at_chunk]).extend(next.iter().cloned());
        }
        Some(value)
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// Entries from `start` (inclusive) on, in order.
    pub fn iter_from<Q: Ord + ?Sized>(&self, start: &Q) -> impl Iterator<Item = (&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (at_chunk, found) = self.find(start);
        let at = found.unwrap_or_else(|at| at);
        self.chunks[at_chunk.min(self.chunks.len())..]
            .iter()
            .flat_map(|chunk| chunk.iter())
            .skip(at)
            .map(|(key, value)| (key, value))
    }

    /// Calls `each` with every key on which `self` (before) and `after` differ, in order, with
    /// the value before and after. Values are compared with `same`; shared chunks are skipped.
    pub fn differences<'a>(
        &'a self,
        after: &'a Self,
        same: impl Fn(&V, &V) -> bool,
        mut each: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        let mut old = Walk { map: self, chunk: 0, at: 0 };
        let mut new = Walk { map: after, chunk: 0, at: 0 };
        loop {
            while old.shares_chunk_with(&new) {
                old.skip_chunk();
                new.skip_chunk();
            }
            match (old.entry(), new.entry()) {
                (None, None) => return,
                (Some((key, value)), None) => {
                    each(key, Some(value), None);
                    old.step();
                }
                (None, Some((key, value))) => {
                    each(key, None, Some(value));
                    new.step();
                }
                (Some((old_key, before)), Some((new_key, now))) => match old_key.cmp(new_key) {
                    Ordering::Less => {
                        each(old_key, Some(before), None);
                        old.step();
                    }
                    Ordering::Greater => {
                        each(new_key, None, Some(now));
                        new.step();
                    }
                    Ordering::Equal => {
                        if !same(before, now) {
                            each(old_key, Some(before), Some(now));
                        }
                        old.step();
                        new.step();
                    }
                },
            }
        }
    }

    /// The chunk where `key` is or would be, and its place there.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1].0.borrow() < key);
        if after == self.chunks.len() {
            let last = self.chunks.len().saturating_sub(1);
            return (last, Err(self.chunks.get(last).map_or(0, |chunk| chunk.len())));
        }
        (after, self.chunks[after].binary_search_by(|(at, _)| at.borrow().cmp(key)))
    }
}

/// A place in a map while it is compared with another.
struct Walk<'a, K, V> {
    map: &'a SharedMap<K, V>,
    chunk: usize,
    at: usize,
}

impl<'a, K, V> Walk<'a, K, V> {
    fn entry(&self) -> Option<(&'a K, &'a V)> {
        let (key, value) = self.map.chunks.get(self.chunk)?.get(self.at)?;
        Some((key, value))
    }

    fn step(&mut self) {
        self.at += 1;
        if self.map.chunks.get(self.chunk).is_some_and(|chunk| self.at == chunk.len()) {
            self.skip_chunk();
        }
    }

    fn skip_chunk(&mut self) {
        self.chunk += 1;
        self.at = 0;
    }

    fn shares_chunk_with(&self, other: &Walk<'_, K, V>) -> bool {
        self.at == 0
            && other.at == 0
            && match (self.map.chunks.get(self.chunk), other.map.chunks.get(other.chunk)) {
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A small generator, so that the test is the same every time.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn differences(old: &SharedMap<u64, u64>, new: &SharedMap<u64, u64>) -> Vec<Difference> {
        let mut found = Vec::new();
        old.differences(
            new,
            |a, b| a == b,
            |key, before, after| found.push((*key, before.copied(), after.copied())),
        );
        found
    }

    type Difference = (u64, Option<u64>, Option<u64>);

    #[test]
    fn it_is_a_sorted_map_and_old_copies_stay() {
        let mut state = 1;
        let mut map = SharedMap::default();
        let mut model = BTreeMap::new();
        let mut copies: Vec<(SharedMap<u64, u64>, BTreeMap<u64, u64>)> = Vec::new();
        for step in 0..20_000u64 {
            let key = random(&mut state) % 2_000;
            // Grows for a while, shrinks for a while.
            if random(&mut state) % 10 < if step / 4_000 % 2 == 0 { 8 } else { 3 } {
                assert_eq!(map.insert(key, step), model.insert(key, step));
            } else {
                assert_eq!(map.remove(&key), model.remove(&key));
            }
            assert_eq!(map.len(), model.len());
            if step % 1_000 == 0 {
                copies.push((map.clone(), model.clone()));
            }
        }
        copies.push((map, model));
        for (map, model) in &copies {
            assert!(map.iter().eq(model.iter()));
            for start in [0, 1, 77, 1_000, 1_999, 5_000] {
                assert!(map.iter_from(&start).eq(model.range(start..)));
            }
            assert!(map.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK_ENTRIES_MAX));
        }
        for (old, old_model) in &copies {
            for (new, new_model) in &copies {
                let mut expected: Vec<Difference> = Vec::new();
                for key in 0..2_000 {
                    let (before, after) = (old_model.get(&key), new_model.get(&key));
                    if before != after {
                        expected.push((key, before.copied(), after.copied()));
                    }
                }
                assert_eq!(differences(old, new), expected);
            }
        }
    }

    #[test]
    fn copies_that_differ_little_share_their_chunks() {
        let mut map = SharedMap::default();
        for key in 0..10_000u64 {
            map.insert(key, key);
        }
        let before = map.clone();
        map.insert(5_000, 0);
        let compared = std::cell::Cell::new(0);
        before.differences(
            &map,
            |a, b| {
                compared.set(compared.get() + 1);
                a == b
            },
            |_, _, _| (),
        );
        assert!(compared.get() <= CHUNK_ENTRIES_MAX, "{} compared", compared.get());
    }
}
