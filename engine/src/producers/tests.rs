//! Tests of the producer table: Kafka's rules one by one, then against a naive checker.

use proptest::prelude::*;

use super::*;
use crate::batch::{BatchBuilder, NewRecord, Stamp, stamp};
use crate::ids::LeaderEpoch;

const LIMITS: ProducerLimits = ProducerLimits { producers_max: 3, expiration_ms: 1000 };

/// A batch of `count` records as the log stamped it.
fn batch(id: i64, epoch: i16, sequence: i32, count: u32, offset: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20);
    if id >= 0 {
        builder = builder.producer(Producer {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence: Sequence::from_wire(sequence),
        });
    }
    for _ in 0..count {
        builder.push(&NewRecord { timestamp: Timestamp(5), ..NewRecord::default() }).unwrap();
    }
    let mut bytes = builder.build().unwrap();
    let at = Stamp { base_offset: Offset::new(offset), leader_epoch: LeaderEpoch(0) };
    stamp(&mut bytes, at);
    bytes
}

fn check(
    producers: &Producers,
    id: i64,
    epoch: i16,
    sequence: i32,
    count: u32,
) -> Result<Option<u64>, ProducerError> {
    let bytes = batch(id, epoch, sequence, count, 0);
    match producers.check(Header::peek(&bytes).unwrap())? {
        Verdict::Append => Ok(None),
        Verdict::Duplicate(written) => Ok(Some(written.base_offset.value())),
    }
}

fn append(producers: &mut Producers, id: i64, epoch: i16, sequence: i32, count: u32) {
    append_at(producers, id, epoch, sequence, count, Timestamp(0));
}

fn append_at(
    producers: &mut Producers,
    id: i64,
    epoch: i16,
    sequence: i32,
    count: u32,
    now: Timestamp,
) -> Option<ProducerId> {
    let bytes = batch(id, epoch, sequence, count, producers.end().value());
    producers.update(Header::peek(&bytes).unwrap(), now)
}

fn table() -> Producers {
    Producers::new(LIMITS, Offset::ZERO)
}

fn out_of_order(epoch: i16, found: i32, last: i32) -> Result<Option<u64>, ProducerError> {
    Err(ProducerError::OutOfOrder {
        id: ProducerId(1),
        epoch: ProducerEpoch(epoch),
        found: Sequence::from_wire(found).unwrap(),
        last: Sequence::from_wire(last),
    })
}

#[test]
fn the_last_five_batches_are_recognised_and_older_ones_are_out_of_order() {
    let mut producers = table();
    for n in 0..6 {
        assert_eq!(check(&producers, 1, 0, n * 10, 10), Ok(None));
        append(&mut producers, 1, 0, n * 10, 10);
    }
    for n in 1..6 {
        assert_eq!(check(&producers, 1, 0, n * 10, 10), Ok(Some(n as u64 * 10)));
    }
    assert_eq!(check(&producers, 1, 0, 0, 10), out_of_order(0, 0, 59), "the sixth from the end");
    assert_eq!(check(&producers, 1, 0, 50, 9), out_of_order(0, 50, 59), "not the same batch");
    assert_eq!(check(&producers, 1, 0, 61, 1), out_of_order(0, 61, 59), "one is missing");
    assert_eq!(check(&producers, 1, 0, 60, 1), Ok(None));
}

#[test]
fn sequences_go_on_at_zero_after_their_maximum() {
    let mut producers = table();
    append(&mut producers, 1, 0, i32::MAX - 1, 2);
    assert_eq!(check(&producers, 1, 0, 0, 4), Ok(None));
    assert_eq!(check(&producers, 1, 0, 1, 4), out_of_order(0, 1, i32::MAX));
    let mut producers = table();
    append(&mut producers, 1, 0, i32::MAX - 1, 4);
    assert_eq!(check(&producers, 1, 0, i32::MAX - 1, 4), Ok(Some(0)));
    assert_eq!(check(&producers, 1, 0, 2, 1), Ok(None), "MAX - 1, MAX, 0, 1, then 2");
}

#[test]
fn epochs_fence_and_begin_at_zero() {
    let mut producers = table();
    append(&mut producers, 1, 3, 0, 5);
    let (id, epoch, current) = (ProducerId(1), ProducerEpoch(2), ProducerEpoch(3));
    let old = Err(ProducerError::OldEpoch { id, epoch, current });
    assert_eq!(check(&producers, 1, 2, 5, 1), old);
    assert_eq!(check(&producers, 1, 2, 0, 5), old, "nor is it a duplicate");
    assert_eq!(check(&producers, 1, 4, 5, 1), out_of_order(4, 5, -1));
    assert_eq!(check(&producers, 1, 4, 0, 5), Ok(None), "not a duplicate of the old epoch's");
    append(&mut producers, 1, 4, 0, 5);
    assert_eq!(check(&producers, 1, 4, 0, 5), Ok(Some(5)));
    assert_eq!(check(&producers, 1, 3, 5, 1), {
        let epoch = ProducerEpoch(3);
        Err(ProducerError::OldEpoch { id, epoch, current: ProducerEpoch(4) })
    });
}

#[test]
fn an_unknown_producer_is_taken_at_any_sequence_and_none_is_no_producer() {
    let mut producers = table();
    assert_eq!(check(&producers, 1, 7, 1234, 1), Ok(None));
    assert_eq!(check(&producers, -1, -1, -1, 1), Ok(None));
    append(&mut producers, -1, -1, -1, 8);
    assert!(producers.is_empty());
    assert_eq!(producers.end(), Offset::new(8));
}

#[test]
fn at_the_limit_the_idlest_goes_and_expiry_follows_the_brokers_clock() {
    let mut producers = table();
    for (id, now) in [(1, 10), (2, 20), (3, 30), (1, 40)] {
        let sequence = if now == 40 { 1 } else { 0 };
        assert_eq!(append_at(&mut producers, id, 0, sequence, 1, Timestamp(now)), None);
    }
    let evicted = append_at(&mut producers, 4, 0, 0, 1, Timestamp(50));
    assert_eq!(evicted, Some(ProducerId(2)), "2 was idle for longest");
    assert_eq!(producers.len(), 3);
    assert_eq!(check(&producers, 2, 0, 1, 1), Ok(None), "it may come back");
    assert_eq!(producers.expire(Timestamp(1029), 9), 0);
    assert_eq!(producers.expire(Timestamp(1040), 1), 1, "in slices");
    assert_eq!(producers.expire(Timestamp(1040), 9), 1);
    let left: Vec<_> = producers.active().map(|producer| producer.id.0).collect();
    assert_eq!(left, [4]);
    producers.set_limits(ProducerLimits { producers_max: 1, ..LIMITS });
    append(&mut producers, 5, 0, 0, 1);
    assert_eq!(producers.len(), 1);
}

#[test]
fn a_truncated_log_forgets_exactly_or_asks_for_a_replay() {
    let mut producers = table();
    for n in 0..4 {
        append(&mut producers, 1, 0, n, 1);
    }
    append(&mut producers, 2, 0, 0, 1);
    let mut exact = producers.clone();
    assert_eq!(exact.truncate_to(Offset::new(5)), Truncated::Exact, "nothing is behind it");
    assert_eq!(exact.len(), 2);
    assert_eq!(producers.truncate_to(Offset::new(2)), Truncated::Replay, "what had 2 before?");
    assert!(producers.is_empty());
    for n in 0..4 {
        append(&mut producers, 1, 0, n, 1);
    }
    assert_eq!(producers.truncate_to(Offset::new(2)), Truncated::Exact);
    assert_eq!(producers.end(), Offset::new(2));
    assert_eq!(check(&producers, 1, 0, 1, 1), Ok(Some(1)));
    assert_eq!(check(&producers, 1, 0, 2, 1), Ok(None));
    assert_eq!(check(&producers, 1, 0, 3, 1), out_of_order(0, 3, 1));
    producers.delete_before(Offset::new(9));
    assert_eq!(producers.end(), Offset::new(9));
    assert_eq!(check(&producers, 1, 0, 2, 1), Ok(None), "known although its records are gone");
}

#[test]
fn a_snapshot_comes_back_from_bytes_and_a_damaged_one_does_not() {
    let mut producers = table();
    for n in 0..7 {
        append_at(&mut producers, n % 2, 1, n as i32 / 2, 1, Timestamp(n));
    }
    let snapshot = producers.snapshot();
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&snapshot).unwrap();
    let read = rkyv::from_bytes::<ProducersSnapshot, rkyv::rancor::Error>(&bytes).unwrap();
    let restored = Producers::restore(&read, LIMITS).unwrap();
    assert_eq!(restored.snapshot(), snapshot);
    assert_eq!(check(&restored, 1, 1, 0, 1), Ok(Some(1)), "the whole window came back");
    let few = ProducerLimits { producers_max: 1, ..LIMITS };
    let few = Producers::restore(&read, few).unwrap();
    assert_eq!(few.active().map(|one| one.id.0).collect::<Vec<_>>(), [0], "1 was idle for longer");

    type Damage = fn(&mut ProducersSnapshot);
    let damages: [(Damage, SnapshotError); 7] = [
        (|it| it.end = u64::MAX, SnapshotError::Range(-1)),
        (|it| it.end = 3, SnapshotError::Order(0)),
        (|it| it.producers.swap(0, 1), SnapshotError::Order(0)),
        (|it| it.producers[0].id = -7, SnapshotError::Range(-7)),
        (|it| it.producers[1].window[1].base_offset = 1, SnapshotError::Order(1)),
        (|it| it.producers[1].window[1].base_sequence = -1, SnapshotError::Range(1)),
        (|it| it.producers[1].window[1].last_offset_delta = u32::MAX, SnapshotError::Range(1)),
    ];
    for (damage, error) in damages {
        let mut damaged = snapshot.clone();
        damage(&mut damaged);
        assert_eq!(Producers::restore(&damaged, LIMITS).unwrap_err(), error);
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x55;
        // The checksum of the checkpoint finds what changes numbers only; here, nothing panics.
        let read = rkyv::from_bytes::<ProducersSnapshot, rkyv::rancor::Error>(&damaged);
        let _ = read.map(|read| Producers::restore(&read, LIMITS));
    }
}

/// Decides by looking at everything that was ever appended: the rules as they are written down.
#[derive(Default)]
struct Naive {
    log: Vec<(i16, i32, u32, u64)>,
    end: u64,
}

impl Naive {
    fn accepts(&self, epoch: i16, sequence: i32, count: u32) -> Result<Option<u64>, ()> {
        let Some(&(current, ..)) = self.log.last() else {
            return Ok(None);
        };
        if epoch != current {
            return if epoch > current && sequence == 0 { Ok(None) } else { Err(()) };
        }
        let same: Vec<_> = self.log.iter().filter(|batch| batch.0 == epoch).collect();
        let mut window = same.iter().rev().take(WINDOW_BATCHES).rev();
        if let Some(found) = window.find(|batch| batch.1 == sequence && batch.2 == count) {
            return Ok(Some(found.3));
        }
        let last = same.last().expect("the current epoch has one");
        let next = (i64::from(last.1) + i64::from(last.2)) % (1 << 31);
        if i64::from(sequence) == next { Ok(None) } else { Err(()) }
    }
}

/// How far from the expected sequence a batch begins: mostly not at all.
fn off() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 2 => -12..3i64]
}

proptest! {
    /// One producer that sends on, retries, skips and starts again, near the wrap.
    #[test]
    fn agrees_with_a_checker_that_remembers_everything(
        steps in prop::collection::vec((0..3i16, off(), 1..3u32), 1..60),
        start in prop_oneof![Just(0), Just(i32::MAX - 20)],
    ) {
        let (mut producers, mut naive) = (table(), Naive::default());
        let mut next = i64::from(start);
        for (newer, off, count) in steps {
            let current = naive.log.last().map_or(0, |batch| batch.0);
            let (epoch, base) = match newer {
                2 if off == 0 => (current + 1, 0),
                2 if off == 1 => (current - 1, next),
                _ => (current, next + off.min(1)),
            };
            let sequence = base.rem_euclid(1 << 31) as i32;
            let verdict = naive.accepts(epoch.max(0), sequence, count);
            let found = check(&producers, 1, epoch.max(0), sequence, count).map_err(|_| ());
            prop_assert_eq!(found, verdict);
            if verdict == Ok(None) {
                append(&mut producers, 1, epoch.max(0), sequence, count);
                naive.log.push((epoch.max(0), sequence, count, naive.end));
                naive.end += u64::from(count);
                next = i64::from(sequence) + i64::from(count);
            }
        }
    }
}
