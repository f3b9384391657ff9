//! Comparing what a log answers with the list of its batches.

use engine::ids::{LeaderEpoch, Offset};
use engine::log::{Limit, ReadError, Timed};
use engine::time::Timestamp;

use crate::World;
use crate::batches::{Stored, split};

impl World {
    pub fn compare_ends(&self) {
        let (written, synced) = (self.log.written().value(), self.log.synced().value());
        assert_eq!(self.log.end().value(), self.end());
        assert_eq!(self.log.start().value(), self.start);
        assert!(synced <= written && written <= self.end());
        let known = |offset: u64| self.log.with_epochs(|e| e.epoch_at(Offset::new(offset)));
        for batch in self.batches.iter().rev().take(10).filter(|b| b.base >= self.start) {
            assert_eq!(known(batch.base), Some(batch.epoch), "epoch of {}", batch.base);
        }
    }

    pub async fn read(&self) {
        let from = self.random.between(self.start, self.end());
        let limit = Limit {
            bytes_max: [0, 100, 1_000, 50_000, 1 << 20][self.random.below(5) as usize],
            bound: match self.random.below(3) {
                0 => Offset::MAX,
                1 => Offset::new(self.log.durable().value()),
                _ => Offset::new(self.random.between(0, self.end() + 1)),
            },
            at_least_one: self.random.chance(1, 2),
        };
        self.read_one(from, limit).await;
        if self.start > 0 {
            self.expect_out_of_range(self.start - 1, limit).await;
        }
        self.expect_out_of_range(self.end() + 1, limit).await;
    }

    async fn expect_out_of_range(&self, from: u64, limit: Limit) {
        let read = self.log.read(Offset::new(from), limit).await;
        assert!(matches!(read, Err(ReadError::OutOfRange { .. })), "offset {from}");
    }

    /// Reads once, compares, and answers where to read on.
    async fn read_one(&self, from: u64, limit: Limit) -> u64 {
        let written = self.log.written().value();
        let chunk = self.log.read(Offset::new(from), limit).await.unwrap();
        let bytes: Vec<u8> = chunk.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(bytes.len(), chunk.bytes);
        let first = self.visible.partition_point(|batch| batch.end <= from);
        let read = split(&bytes);
        for ((base, end, bytes), expected) in read.iter().zip(&self.visible[first..]) {
            assert_eq!((*base, *end), (expected.base, expected.end), "from {from}");
            assert_eq!(*bytes, expected.bytes, "batch {base}..{end}");
            assert!(end - 1 < limit.bound.value(), "{end} reaches {}", limit.bound);
        }
        let over = bytes.len() > limit.bytes_max;
        assert!(!over || (limit.at_least_one && read.len() == 1), "{} bytes", bytes.len());
        let next = read.last().map_or(from, |last| last.1);
        assert_eq!(chunk.next.value(), next);
        if let (Some(first), None) = (self.visible.get(first), read.first()) {
            let fits = limit.at_least_one || first.bytes.len() <= limit.bytes_max;
            let readable = first.end <= written && first.end - 1 < limit.bound.value();
            assert!(!fits || !readable, "nothing read from {from} with {limit:?}");
        }
        next
    }

    /// From every batch, and on from there to the end.
    pub async fn read_everything(&self) {
        let end = self.log.written().value();
        let bound = Offset::new(end);
        let readable: Vec<&Stored> =
            self.visible.iter().filter(|b| b.base >= self.start && b.end <= end).collect();
        for batch in readable {
            let limit = Limit { bytes_max: 1, bound, at_least_one: true };
            assert_eq!(self.read_one(batch.end - 1, limit).await, batch.end);
        }
        let mut at = self.start;
        while at < end {
            let limit = Limit { bytes_max: 20_000, bound, at_least_one: true };
            let next = self.read_one(at, limit).await;
            assert!(next > at, "stuck at {at} of {end}");
            at = next;
        }
    }

    pub async fn look_up(&self) {
        let written = self.log.written().value();
        let bound = match self.random.below(2) {
            0 => written,
            _ => self.random.between(self.start, written.max(self.start)),
        };
        let records: Vec<(u64, i64, LeaderEpoch)> = self
            .visible
            .iter()
            .flat_map(|b| b.records.iter().map(|&(offset, time)| (offset, time, b.epoch)))
            .filter(|(offset, ..)| (self.start..bound).contains(offset))
            .collect();
        let timed = |&(offset, time, leader_epoch): &(u64, i64, LeaderEpoch)| Timed {
            timestamp: Timestamp(time),
            offset: Offset::new(offset),
            leader_epoch,
        };
        let bound = Offset::new(bound);
        let max = records.iter().map(|record| record.1).max();
        let first_max = records.iter().find(|record| Some(record.1) == max).map(timed);
        assert_eq!(self.log.max_time(bound).await.unwrap(), first_max, "max below {bound}");
        for _ in 0..4 {
            let some = self.random.below(records.len() as u64 + 1) as usize;
            let time = records.get(some).map_or(i64::MAX, |record| record.1);
            let time = time.saturating_add(self.random.below(3) as i64 - 1);
            let expected = records.iter().find(|record| record.1 >= time).map(timed);
            let found = self.log.find_time(Timestamp(time), bound).await.unwrap();
            assert_eq!(found, expected, "{time} below {bound}");
        }
    }
}
