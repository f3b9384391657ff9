//! The leader's side of a partition, pure: who is in sync, how far each of them has come, and the
//! high watermark that follows.
//!
//! Positions are *promises*: everything below them is durable, in the class that the topic asks
//! for, on that replica. A leader counts itself like any other member, by its own durable end.

use std::collections::BTreeMap;

use engine::ids::{BrokerId, LeaderEpoch, Offset};

/// What a producer asks for before it is answered (`acks`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Acks {
    /// 0: no answer at all; the batch is in the leader's memory.
    None,
    /// 1: the leader's device has taken the write.
    Leader,
    /// all (-1): every in-sync replica holds it durably.
    All,
}

/// The state of a leadership. Ends with its epoch.
#[derive(Debug, Clone)]
pub struct Leader {
    me: BrokerId,
    epoch: LeaderEpoch,
    /// In-sync replicas and their durable ends; this broker is always among them.
    isr: BTreeMap<BrokerId, Offset>,
    /// Never falls within the epoch.
    high_watermark: Offset,
}

/// Fewer replicas are in sync than the topic demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{in_sync} replicas are in sync, min.insync.replicas is {needed}")]
pub struct NotEnoughReplicas {
    /// How many are in sync.
    pub in_sync: usize,
    /// How many the topic demands.
    pub needed: usize,
}

/// The client believes in another leadership than the one that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochMismatch {
    /// The client's is older: it must refresh its metadata.
    #[error("leader epoch {asked} is fenced, the current one is {current}")]
    Fenced {
        /// The epoch that the client named.
        asked: LeaderEpoch,
        /// The one in force.
        current: LeaderEpoch,
    },
    /// The client's is newer: this broker has not heard of it yet.
    #[error("leader epoch {asked} is unknown here, the current one is {current}")]
    Unknown {
        /// The epoch that the client named.
        asked: LeaderEpoch,
        /// The one in force.
        current: LeaderEpoch,
    },
}

impl Leader {
    /// Begins a leadership. `durable_end` is this broker's own durable log end, `high_watermark`
    /// what is known to be committed, at most that.
    pub fn new(
        me: BrokerId,
        epoch: LeaderEpoch,
        isr: &[BrokerId],
        durable_end: Offset,
        high_watermark: Offset,
    ) -> Leader {
        assert!(isr.contains(&me), "a leader is in its own ISR");
        assert!(high_watermark <= durable_end);
        let mut isr: BTreeMap<_, _> = isr.iter().map(|&id| (id, Offset::ZERO)).collect();
        isr.insert(me, durable_end);
        let mut leader = Leader { me, epoch, isr, high_watermark };
        leader.advance();
        leader
    }

    /// The term.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Exclusive end of the committed log; what consumers may read.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// This broker's own log is durable up to `end`. Answers whether the high watermark rose.
    pub fn on_durable(&mut self, end: Offset) -> bool {
        let mine = self.isr.get_mut(&self.me).expect("a leader is in its own ISR");
        *mine = end.max(*mine);
        self.advance()
    }

    /// Whether a batch may be accepted under these acks (KIP-16: only `all` looks at the ISR).
    pub fn admit(&self, acks: Acks, min_in_sync: usize) -> Result<(), NotEnoughReplicas> {
        let in_sync = self.isr.len();
        if acks == Acks::All && in_sync < min_in_sync {
            return Err(NotEnoughReplicas { in_sync, needed: min_in_sync });
        }
        Ok(())
    }

    /// Compares the epoch that a client named, if it did (KIP-320).
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochMismatch> {
        let current = self.epoch;
        match asked {
            Some(asked) if asked < current => Err(EpochMismatch::Fenced { asked, current }),
            Some(asked) if asked > current => Err(EpochMismatch::Unknown { asked, current }),
            _ => Ok(()),
        }
    }

    fn advance(&mut self) -> bool {
        let committed = self.isr.values().copied().min().expect("never empty");
        let rises = committed > self.high_watermark;
        self.high_watermark = self.high_watermark.max(committed);
        rises
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_watermark_is_the_least_durable_end_in_the_isr_and_never_falls() {
        let me = BrokerId(1);
        let mut alone = Leader::new(me, LeaderEpoch(0), &[me], Offset::new(5), Offset::new(3));
        assert_eq!(alone.high_watermark(), Offset::new(5));
        assert!(alone.on_durable(Offset::new(9)));
        assert!(!alone.on_durable(Offset::new(7)));
        assert_eq!(alone.high_watermark(), Offset::new(9));

        let pair = [me, BrokerId(2)];
        let mut two = Leader::new(me, LeaderEpoch(0), &pair, Offset::new(5), Offset::new(3));
        assert!(!two.on_durable(Offset::new(50)), "the other one has promised nothing yet");
        assert_eq!(two.high_watermark(), Offset::new(3));
    }

    #[test]
    fn only_acks_all_looks_at_the_isr() {
        let me = BrokerId(1);
        let leader = Leader::new(me, LeaderEpoch(4), &[me], Offset::ZERO, Offset::ZERO);
        assert!(leader.admit(Acks::Leader, 2).is_ok());
        assert_eq!(leader.admit(Acks::All, 2), Err(NotEnoughReplicas { in_sync: 1, needed: 2 }));
        assert!(leader.check_epoch(None).is_ok());
        assert!(leader.check_epoch(Some(LeaderEpoch(4))).is_ok());
        assert!(matches!(
            leader.check_epoch(Some(LeaderEpoch(3))),
            Err(EpochMismatch::Fenced { .. })
        ));
        assert!(matches!(
            leader.check_epoch(Some(LeaderEpoch(5))),
            Err(EpochMismatch::Unknown { .. })
        ));
    }
}
