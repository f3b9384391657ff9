//! Which leader wrote which part of a log: leader epoch → offset where it began.
//!
//! Truncation by epoch instead of by high watermark is what keeps logs of replicas equal (KIP-101,
//! KIP-279); consumers detect lost records with it too (KIP-320). Only terms that wrote something
//! have an entry. Pure; the log stores the entries in its checkpoint and can rebuild them from its
//! batches. Source: Kafka's `LeaderEpochFileCache`.

use crate::ids::{LeaderEpoch, Offset};

/// Most epochs that one log remembers. They go with the records that retention removes, so that
/// only elections count of which records are still there: 30 years of one per hour. At the limit
/// [`Epochs::assign`] refuses, because forgetting one would hide a divergence.
pub const EPOCHS_MAX: usize = 1 << 18;

/// One leader's part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The leader's term.
    pub epoch: LeaderEpoch,
    /// Offset of the first record of that term, or the log start where that lies later.
    pub start: Offset,
}

/// Where a term ended, as far as this log knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest term in this log that is not above the one asked for; the one asked for when
    /// all of the log is newer.
    pub epoch: LeaderEpoch,
    /// Exclusive end of that term here.
    pub end: Offset,
}

/// The log has [`EPOCHS_MAX`] leader epochs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log cannot hold more than {EPOCHS_MAX} leader epochs")]
pub struct TooManyEpochs;

/// The epochs of one log. Both fields of the entries rise strictly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Epochs {
    entries: Vec<EpochStart>,
}

impl Epochs {
    /// From entries that were stored, in any order; those that are not monotonic give way to the
    /// later ones, as in [`Epochs::assign`]. Negative epochs are left out: batches of followers
    /// that came without a term have them, and they mean "none".
    pub fn from_entries(entries: &[EpochStart]) -> Result<Epochs, TooManyEpochs> {
        let mut epochs = Epochs::default();
        for entry in entries {
            epochs.assign(entry.epoch, entry.start)?;
        }
        Ok(epochs)
    }

    /// All of them, oldest first; what a checkpoint stores.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The term that wrote last.
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// The term that wrote what is now the beginning.
    pub fn earliest(&self) -> Option<EpochStart> {
        self.entries.first().copied()
    }

    /// Notes that records of `epoch` begin at `start`, before they are appended. Says whether this
    /// changed anything, so that the checkpoint is written.
    ///
    /// Entries that contradict it (a later start, a term as high) are replaced: the log is the
    /// truth, and entries without records are all that can contradict it there.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> Result<bool, TooManyEpochs> {
        if epoch.0 < 0 {
            return Ok(false);
        }
        if self.latest().is_some_and(|last| last.epoch == epoch && last.start <= start) {
            return Ok(false);
        }
        while self.latest().is_some_and(|last| last.epoch >= epoch || last.start >= start) {
            self.entries.pop();
        }
        if self.entries.len() == EPOCHS_MAX {
            return Err(TooManyEpochs);
        }
        self.entries.push(EpochStart { epoch, start });
        Ok(true)
    }

    /// Answers OffsetForLeaderEpoch: where `requested` ended in this log, whose end is `log_end`.
    /// `None` is Kafka's undefined epoch and offset (-1, -1): the term is unknown and above all
    /// that are known, or negative.
    pub fn end_of(&self, requested: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        if requested.0 < 0 {
            return None;
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= requested);
        if above == self.entries.len() {
            return match self.latest() {
                Some(last) if last.epoch == requested => {
                    Some(EpochEnd { epoch: requested, end: log_end })
                }
                _ => None,
            };
        }
        let epoch = match above.checked_sub(1) {
            Some(floor) => self.entries[floor].epoch,
            None => requested,
        };
        Some(EpochEnd { epoch, end: self.entries[above].start })
    }

    /// The term that wrote the record at `offset`; the latest one for offsets not yet written.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|entry| entry.start <= offset);
        above.checked_sub(1).map(|floor| self.entries[floor].epoch)
    }

    /// The log now ends at `end`: forgets terms that began there or later. Says whether any did.
    pub fn truncate_to(&mut self, end: Offset) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start < end);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// The log now starts at `start`: forgets terms that ended there or before. Says whether
    /// anything changed.
    pub fn delete_before(&mut self, start: Offset) -> bool {
        let above = self.entries.partition_point(|entry| entry.start <= start);
        let Some(first) = above.checked_sub(1) else {
            return false;
        };
        let changed = first > 0 || self.entries[0].start != start;
        self.entries.drain(..first);
        self.entries[0].start = start;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(epoch: i32, start: u64) -> EpochStart {
        EpochStart { epoch: LeaderEpoch(epoch), start: Offset::new(start) }
    }

    fn epochs(entries: &[(i32, u64)]) -> Epochs {
        let entries: Vec<_> = entries.iter().map(|&(epoch, start)| at(epoch, start)).collect();
        Epochs::from_entries(&entries).unwrap()
    }

    #[test]
    fn where_a_term_ended() {
        let epochs = epochs(&[(2, 10), (4, 20), (7, 50)]);
        let end = |epoch| {
            let found = epochs.end_of(LeaderEpoch(epoch), Offset::new(90));
            found.map(|end| (end.epoch.0, end.end.value()))
        };
        assert_eq!(end(-1), None, "undefined stays undefined");
        assert_eq!(end(0), Some((0, 10)), "older than the log: its beginning");
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((2, 20)), "a term that wrote nothing here: the one below");
        assert_eq!(end(4), Some((4, 50)));
        assert_eq!(end(7), Some((7, 90)), "the latest ends with the log");
        assert_eq!(end(8), None, "above all that is known");
        assert_eq!(Epochs::default().end_of(LeaderEpoch(0), Offset::ZERO), None);
    }

    #[test]
    fn what_contradicts_gives_way() {
        let mut epochs = epochs(&[(2, 10), (4, 20)]);
        assert_eq!(epochs.assign(LeaderEpoch(4), Offset::new(30)), Ok(false));
        assert_eq!(epochs.assign(LeaderEpoch(5), Offset::new(20)), Ok(true));
        assert_eq!(epochs.entries(), [at(2, 10), at(5, 20)], "term 4 wrote nothing");
        assert_eq!(epochs.assign(LeaderEpoch(3), Offset::new(40)), Ok(true));
        assert_eq!(epochs.entries(), [at(2, 10), at(3, 40)]);
        assert_eq!(epochs.assign(LeaderEpoch(-1), Offset::new(50)), Ok(false));
    }

    #[test]
    fn one_more_than_the_maximum_is_refused() {
        let mut epochs = Epochs::default();
        for n in 0..EPOCHS_MAX {
            epochs.assign(LeaderEpoch(n as i32), Offset::new(n as u64)).unwrap();
        }
        let (next, start) = (LeaderEpoch(EPOCHS_MAX as i32), Offset::new(EPOCHS_MAX as u64));
        assert_eq!(epochs.assign(next, start), Err(TooManyEpochs));
        assert!(epochs.delete_before(Offset::new(1)));
        assert_eq!(epochs.assign(next, start), Ok(true), "room again after retention");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append { later: i32, records: u64 },
        Truncate(u64),
        Delete(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3, 1..5u64).prop_map(|(later, records)| Step::Append { later, records }),
            1 => (0..60u64).prop_map(Step::Truncate),
            1 => (0..60u64).prop_map(Step::Delete),
        ]
    }

    proptest! {
        /// Against a log that simply remembers the term of each record.
        #[test]
        fn agrees_with_a_log_that_remembers_each_record(
            steps in prop::collection::vec(step(), 0..40)
        ) {
            let (mut epochs, mut log, mut start, mut term) = (Epochs::default(), vec![], 0, 0);
            for step in steps {
                match step {
                    Step::Append { later, records } => {
                        term += later;
                        let end = Offset::new(log.len() as u64);
                        epochs.assign(LeaderEpoch(term), end).unwrap();
                        log.extend(std::iter::repeat_n(term, records as usize));
                    }
                    Step::Truncate(end) => {
                        let end = end.clamp(start, log.len() as u64);
                        log.truncate(end as usize);
                        epochs.truncate_to(Offset::new(end));
                    }
                    Step::Delete(to) => {
                        let to = to.clamp(start, log.len() as u64);
                        start = to;
                        epochs.delete_before(Offset::new(to));
                    }
                }
            }
            let end = log.len() as u64;
            for offset in start..end {
                let found = epochs.epoch_at(Offset::new(offset)).map(|epoch| epoch.0);
                prop_assert_eq!(found, Some(log[offset as usize]));
            }
            for asked in 0..=term {
                let Some(found) = epochs.end_of(LeaderEpoch(asked), Offset::new(end)) else {
                    // Nothing above it was written, and nothing of it is left.
                    prop_assert!(log[start as usize..].iter().all(|&epoch| epoch < asked));
                    continue;
                };
                // All that lies before the answer is of the term asked for or older, all after
                // it is newer, as far as there are records.
                let split = found.end.value();
                let (below, above) = (start..split.max(start), split.max(start)..end);
                prop_assert!(below.into_iter().all(|at| log[at as usize] <= asked));
                prop_assert!(above.into_iter().all(|at| log[at as usize] > asked));
            }
            let stored = Epochs::from_entries(epochs.entries()).unwrap();
            prop_assert_eq!(stored, epochs);
        }
    }
}
