//! Offsets that no batch has: compaction leaves them out, in this log or in the one that it was
//! copied from. Below a mark they are right, above it they are damage: the checksum of a batch does
//! not cover its base offset, so that offsets which follow each other are what proves it.

use super::{Inner, Log, Mutant};
use crate::env::Env;
use crate::ids::Offset;

/// Most offsets that two batches can have between them: a segment spans no more, and its last batch
/// stays.
const HOLE_MAX: u64 = i32::MAX as u64;

/// Where offsets may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holes {
    /// Exclusive.
    pub below: Offset,
}

impl Holes {
    /// Nowhere.
    pub const NONE: Holes = Holes { below: Offset::ZERO };
    /// Anywhere: what is there is not known.
    pub const ANYWHERE: Holes = Holes { below: Offset::MAX };

    /// Whether a hole may begin at `offset`.
    pub fn may_begin_at(self, offset: Offset) -> bool {
        offset < self.below
    }

    /// Whether a batch that begins at `base` may stand where `expected` comes next.
    pub fn admit(self, expected: Offset, base: Offset) -> bool {
        let beyond = base > expected && base.since(expected) <= HOLE_MAX;
        base == expected || (beyond && self.may_begin_at(expected))
    }
}

impl<E: Env> Log<E> {
    /// Lets a leader's batches leave out offsets: its log was compacted. Durable when it returns.
    /// Needed once; [`super::ReplicateError::Hole`] says when.
    pub async fn admit_holes(&self) -> std::io::Result<()> {
        let ended = || std::io::Error::other("the log is closed");
        let _pass = self.0.gate.enter().ok_or_else(ended)?;
        self.0.admit_holes_below(Offset::MAX).await
    }
}

impl<E: Env> Inner<E> {
    /// Both checkpoints say that holes are right below `below`, and name no segment that was
    /// finished before this was called.
    pub(super) async fn admit_holes_below(&self, below: Offset) -> std::io::Result<()> {
        let turn = self.checkpoint_turn().await;
        {
            let mut state = self.state.borrow_mut();
            if !self.shared.bounds.has(Mutant::ForgetHoles) {
                state.holes.below = state.holes.below.max(below);
            }
        }
        self.write_both(&turn).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_follow() {
        let holes = Holes { below: Offset::new(100) };
        let admits = |expected, base| holes.admit(Offset::new(expected), Offset::new(base));
        assert!(admits(50, 50) && admits(100, 100), "no hole");
        assert!(admits(50, 51) && admits(99, 200));
        assert!(!admits(100, 101), "it begins at the mark");
        assert!(!admits(50, 49), "an overlap");
        assert!(admits(0, HOLE_MAX) && !admits(0, HOLE_MAX + 1));
        assert!(!Holes::NONE.admit(Offset::ZERO, Offset::new(1)));
        assert!(Holes::ANYWHERE.admit(Offset::new(1 << 40), Offset::new((1 << 40) + 5)));
    }
}
