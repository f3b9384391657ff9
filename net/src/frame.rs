//! A whole request in memory. Crosses lanes: `Arc`-backed, so that a produce for another shard
//! moves a pointer and the one copy happens where the batch is stored.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// The bytes of one request, without its 4-byte length. Cloning shares them.
#[derive(Clone)]
pub struct Frame {
    bytes: Arc<Vec<u8>>,
    from: usize,
}

impl Frame {
    /// Takes over bytes that were read.
    pub fn new(bytes: Vec<u8>) -> Frame {
        Frame { bytes: Arc::new(bytes), from: 0 }
    }

    /// Takes over a buffer in which the request begins at `from`.
    pub fn from_parts(bytes: Vec<u8>, from: usize) -> Frame {
        assert!(from <= bytes.len());
        Frame { bytes: Arc::new(bytes), from }
    }

    /// Where in this frame `part`, a slice of it, stands.
    pub fn range_of(&self, part: &[u8]) -> Range<usize> {
        let start = part.as_ptr() as usize - self.as_ptr() as usize;
        assert!(start + part.len() <= self.len(), "the slice is of this frame");
        start..start + part.len()
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}
